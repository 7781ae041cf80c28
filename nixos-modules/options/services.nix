{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  berthTypes = import ../types.nix { inherit lib; };
  runtimes = import ../../nix/runtimes.nix pkgs;

  health = types.submodule {
    options = {
      path = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "/health";
        description = "GET on this path must answer 2xx before an instance counts as started; none: accepting a connection is enough.";
      };
      interval = mkOption {
        type = types.ints.positive;
        default = 1000;
        description = "From one probe of the gateway to the next, in milliseconds. So long, twice, an instance that was restarted gets traffic before the next one is restarted.";
      };
    };
  };

  instance = types.submodule {
    options = {
      start = mkOption {
        type = types.bool;
        default = true;
        description = "Whether it is started with the machine, or only when somebody starts it: `systemctl start pricing@3`.";
      };
      port = mkOption {
        type = types.port;
        description = "The port it listens on.";
      };
      environment = mkOption {
        type = types.attrsOf types.str;
        default = { };
        description = "What this instance has in its environment besides. Nothing secret belongs here.";
      };
    };
  };

  service =
    { name, config, ... }:
    {
      options = {
        runtime = mkOption {
          type = types.enum (lib.attrNames runtimes);
          default = "native";
          description = "How the executable is started, and what has to be loosened for it.";
        };
        package = mkOption {
          type = types.nullOr types.package;
          default = null;
          description = "What is started: its program of the service's name. Either this or {option}`artifact`.";
        };
        artifact = mkOption {
          type = types.nullOr types.path;
          default = null;
          example = lib.literalExpression "./pricing.jar";
          description = "A file that is started. Either this or {option}`package`.";
        };
        workingDirectory = mkOption {
          type = types.nullOr types.path;
          default = null;
          description = "The folder it is started in, where the program finds what belongs to it. None: its state directory.";
        };
        command = mkOption {
          type = types.listOf types.str;
          default = [ "\${ARTIFACT}" ];
          example = [
            "java"
            "-jar"
            "\${ARTIFACT}"
          ];
          description = ''
            The command line. `''${ARTIFACT}` is the executable; `''${CREDENTIALS_DIRECTORY}`, `''${STATE_DIRECTORY}` and any variable of the
            instance's environment stand for their values. A `$` itself is written `$$`.
          '';
        };
        path = mkOption {
          type = types.listOf types.package;
          default = runtimes.${config.runtime};
          defaultText = lib.literalMD "what the runtime needs";
          description = "Where the program of the command line is looked for, and `PATH`.";
        };
        jit = mkOption {
          type = types.bool;
          default = lib.elem config.runtime [
            "java"
            "dotnet"
            "node"
            "wine"
          ];
          defaultText = lib.literalMD "`true` for java, dotnet, node and wine";
          description = "Whether it makes machine code while it runs, which `MemoryDenyWriteExecute=` forbids to all others.";
        };
        protocol = mkOption {
          type = types.enum [
            "mesh"
            "plain"
          ];
          default = "plain";
          description = "`mesh`: tells systemd when it is ready, reloads on SIGHUP, and answers the watchdog. `plain`: knows nothing of it.";
        };
        replicas = mkOption {
          type = types.submodule {
            options = {
              start = mkOption {
                type = types.ints.between 1 256;
                default = 1;
                description = "So many are started with the machine.";
              };
              max = mkOption {
                type = types.ints.between 1 256;
                description = "So many can be started.";
              };
            };
          };
          default = {
            max = 1;
          };
          description = "How many instances this machine has, where {option}`instances` does not list them.";
        };
        port = mkOption {
          type = types.port;
          default = 8080;
          description = "The port of the first instance; each further one takes the next.";
        };
        instances = mkOption {
          type = types.attrsOf instance;
          default = lib.listToAttrs (
            map (
              index:
              lib.nameValuePair (toString index) {
                start = index <= config.replicas.start;
                port = config.port + index - 1;
                environment = {
                  BERTH_INSTANCE = "${name}-${toString index}";
                  BERTH_SERVICE = name;
                  HOST = "0.0.0.0";
                  PORT = toString (config.port + index - 1);
                };
              }
            ) (lib.range 1 config.replicas.max)
          );
          defaultText = lib.literalMD "as many as {option}`replicas` says";
          description = "The instances on this machine, by their numbers.";
        };
        memory = mkOption {
          type = berthTypes.bytes;
          default = "128MiB";
          example = "1.5GiB";
          description = "The most memory one instance may use.";
        };
        cpu = mkOption {
          type = types.numbers.positive;
          default = 1;
          example = 0.5;
          description = "The most processor time one instance may use, in cores.";
        };
        credentials = mkOption {
          type = berthTypes.credentials;
          default = [ ];
          example = [ "smtp-password" ];
          description = "The files it finds in `$CREDENTIALS_DIRECTORY`. Where they come from: {option}`berth.credentials.source`.";
        };
        environment = mkOption {
          type = types.attrsOf types.str;
          default = { };
          description = "What all instances have in their environment. Nothing secret belongs here.";
        };
        route = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "/pricing";
          description = "Its prefix at the gateway, which takes its routes from the plan; here it says that the gateway may reach it.";
        };
        callers = mkOption {
          type = types.listOf types.str;
          default = [ ];
          description = "The services of the plan that call it, the gateway among them.";
        };
        health = mkOption {
          type = health;
          default = { };
          description = "How an instance is asked whether it serves.";
        };
        after = mkOption {
          type = types.listOf types.str;
          default = [ ];
          description = "Databases, the event bus and services that are started first, as far as they are on this machine.";
        };
        stopTimeout = mkOption {
          type = types.ints.positive;
          default = 30000;
          description = "From SIGTERM to SIGKILL, in milliseconds.";
        };
        watchdog = mkOption {
          type = types.nullOr types.ints.positive;
          default = null;
          description = "The longest silence towards systemd before a restart, in milliseconds; none: it is not watched so.";
        };
      };
    };
in
{
  options.berth.services = mkOption {
    type = types.attrsOf (types.submodule service);
    default = { };
    description = ''
      What runs on this machine: for each service a template unit {file}`NAME@.service` with an instance for each copy, and {file}`NAME.target`,
      which wants those that are started with the machine.
    '';
  };
}
