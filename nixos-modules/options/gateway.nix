{ config, lib, ... }:
let
  inherit (lib) mkOption types;
in
{
  options.berth.gateway = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the mesh's way in is on this machine: one of its {option}`berth.services`, behind a socket that outlives it.";
    };
    service = mkOption {
      type = types.str;
      default = "gateway";
      description = "The service that is the gateway.";
    };
    port = mkOption {
      type = types.port;
      default = 8443;
      description = "The public port. systemd holds it, so that clients wait instead of being refused while the gateway restarts.";
    };
  };
}
