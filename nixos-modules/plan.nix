# From the plan to the options: what of it is on this machine. Whatever is set here can be set otherwise beside it.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkDefault mkIf mapAttrs;
  cfg = config.berth;
  inherit (cfg) mesh;

  node = lib.findFirst (node: node.name == cfg.node) null mesh.nodes;
  here = thing: thing.node == cfg.node;
  named = things: lib.listToAttrs (map (thing: lib.nameValuePair thing.name thing) things);
  defaults = mapAttrs (_: mkDefault);
  credentials = map (credential: {
    inherit (credential) name optional;
  });
  size = thing: {
    memory = thing.memory_bytes;
    cpu = thing.cpu_millis / 1000.0;
  };

  # What goes along with an executable, under the path it has beside mesh.toml.
  artifactIn = pkgs.callPackage ../nix/artifact.nix { };

  executable =
    service:
    if service.executable ? package then
      {
        package =
          cfg.packages.${service.executable.package}
            or (throw "berth.packages.${service.executable.package} is missing: ${service.name} of the plan is started from it");
      }
    else
      let
        root = artifactIn {
          inherit (service) name;
          inherit (service.executable) artifact;
          root = cfg.artifacts;
        };
      in
      {
        artifact = "${root}/${service.executable.artifact.path}";
        workingDirectory = root;
      };

  service =
    service:
    defaults (
      {
        inherit (service)
          runtime
          command
          jit
          protocol
          route
          callers
          after
          ;
        credentials = credentials service.credentials;
        stopTimeout = service.stop_timeout_ms;
        watchdog = service.watchdog_ms;
      }
      // size service
      // executable service
    )
    # Each value by itself: whoever sets one of an instance keeps the others.
    // {
      instances = lib.listToAttrs (
        map (
          instance:
          lib.nameValuePair (toString instance.index) (
            defaults { inherit (instance) start port; } // { environment = defaults instance.environment; }
          )
        ) (lib.filter here service.instances)
      );
      health = defaults {
        inherit (service.health) path;
        interval = service.health.interval_ms;
      };
    };
in
{
  config = mkIf (cfg.plan != null) {
    assertions = [
      {
        assertion = mesh.version == 1;
        message = "berth.plan is of version ${toString mesh.version}, and these modules read version 1: take the `berth` they come with, and write it anew with `berth lock`.";
      }
      {
        assertion = node != null;
        message = "berth.node is ${builtins.toJSON cfg.node}, which is no node of berth.plan: set it to one of ${
          lib.concatMapStringsSep ", " (node: node.name) mesh.nodes
        }.";
      }
      {
        assertion =
          cfg.artifacts != null || !lib.any (service: service.executable ? artifact) mesh.services;
        message = "berth.artifacts is not set, and the plan starts artifacts: set it to the folder of mesh.toml.";
      }
    ];

    environment.etc."berth/plan.json".source = cfg.plan;

    berth = {
      services = mapAttrs (_: service) (
        named (lib.filter (service: lib.any here service.instances) mesh.services)
      );

      gateway = defaults {
        enable = cfg.services ? ${mesh.gateway.service};
        service = mesh.gateway.service;
        port = mesh.gateway.public_port;
      };

      databases = mapAttrs (
        _: database:
        defaults (
          {
            inherit (database) owner port;
            credentials = credentials database.credentials;
          }
          // size database
        )
      ) (named (lib.filter here mesh.databases));

      events = mkIf (mesh.events != null && here mesh.events) (
        defaults (
          {
            enable = true;
            inherit (mesh.events) server port;
            credentials = credentials mesh.events.credentials;
          }
          // size mesh.events
        )
      );
    };
  };
}
