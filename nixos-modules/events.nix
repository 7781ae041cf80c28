# NATS with JetStream. How it is configured stands in `crates/servers`, for all runners alike.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.berth;
  inherit (cfg) events;
  unit = import ./unit.nix { inherit config lib pkgs; };
  server = import ./servers.nix { inherit config lib pkgs; };
in
{
  config = lib.mkIf events.enable {
    assertions = [
      {
        assertion = cfg.plan != null && cfg.mesh.events != null;
        message = "berth.events is enabled, and berth.plan has no event bus: declare `[events]` in mesh.toml, and write the plan anew with `berth lock`.";
      }
    ];

    systemd.services.${events.server} = lib.mkMerge [
      (server events.server (events // { planned = cfg.mesh.events; }))
      {
        # Its memory manager collects garbage before the limit is reached.
        environment.GOMEMLIMIT = "${toString (events.memory * 8 / 10)}B";
        serviceConfig = {
          Type = "exec";
          ExecStartPost = unit.await "${lib.getExe' cfg.package "berth"} contained probe ${events.server}";
          OOMPolicy = "stop";
        };
      }
    ];
  };
}
