# Each template as somebody else's flake: it evaluates, and the unit of its service is the one its runtime asks for.
{ self, pkgs }:
let
  inherit (pkgs) lib;

  megabytes = count: count * 1024 * 1024;
  expected = {
    native = {
      command = [ "/build/hello" ];
      memory = megabytes 64;
      writeExecute = "denied";
    };
    java = {
      command = [
        "java"
        "-Xmx268m"
        "-XX:+ExitOnOutOfMemoryError"
        "-jar"
        "/build/hello.jar"
      ];
      memory = megabytes 384;
      writeExecute = "allowed";
    };
    python = {
      command = [
        "python3"
        "/hello.py"
      ];
      memory = megabytes 128;
      writeExecute = "denied";
    };
    php = {
      command = [
        "php"
        "-d"
        "pcre.jit=0"
        "-S"
        "\${HOST}:\${PORT}"
        "/hello.php"
      ];
      memory = megabytes 128;
      writeExecute = "denied";
    };
    dotnet = {
      command = [
        "dotnet"
        "/build/hello.dll"
      ];
      memory = megabytes 256;
      writeExecute = "allowed";
    };
    node = {
      command = [
        "node"
        "--max-old-space-size=134"
        "/hello.mjs"
      ];
      memory = megabytes 192;
      writeExecute = "allowed";
    };
  };

  outputs =
    name:
    let
      flake = (import (self.templates.${name}.path + "/flake.nix")).outputs {
        inherit self flake;
        berth = self;
      };
    in
    flake;

  # Both replicas' machines have the unit; what the store calls the artifact is left out.
  actual =
    name:
    let
      inherit ((outputs name).nixosConfigurations.app-2) config;
      unit = config.systemd.services."hello@".serviceConfig;
      words = lib.splitString " " (builtins.unsafeDiscardStringContext unit.ExecStart);
      withoutStore = word: lib.last (builtins.match "(/nix/store/[^/]+)?(.*)" (builtins.fromJSON word));
    in
    {
      command = map withoutStore words;
      memory = unit.MemoryMax;
      writeExecute = if unit.MemoryDenyWriteExecute or false then "denied" else "allowed";
    };

  check =
    name: wanted:
    let
      found = actual name;
    in
    if found == wanted then
      pkgs.runCommand "template-${name}" { } "touch $out"
    else
      throw "the unit of template ${name} is ${builtins.toJSON found}, and not ${builtins.toJSON wanted}";
in
assert lib.attrNames expected == lib.attrNames (removeAttrs self.templates [ "default" ]);
lib.mapAttrs check expected
