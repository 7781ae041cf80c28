{
  description = "An executable behind the gateway of a mesh";

  # `nix registry add berth …` says where it is.
  inputs.berth.url = "flake:berth";

  outputs =
    { berth, ... }:
    berth.lib.mesh {
      plan = ./mesh.lock.json;
      # Not static as by `build.sh`: its libraries come with it.
      artifacts =
        pkgs:
        pkgs.runCommandCC "hello" { } ''
          mkdir -p $out/build
          $CC -std=c11 -O2 -Wall -Wextra -Werror -o $out/build/hello ${./.}/hello.c
        '';
    };
}
