# The way in: the public socket, which systemd holds, and a reload whenever the plan is another one.
{ config, lib, ... }:
let
  cfg = config.berth;
  inherit (cfg.gateway) service;
  instance = lib.head (lib.attrNames cfg.services.${service}.instances);
in
{
  config = lib.mkIf cfg.gateway.enable {
    assertions = [
      {
        assertion = cfg.services ? ${service};
        message = "berth.gateway.service is ${service}, which does not run here: add berth.services.${service}, or set berth.gateway.enable to false.";
      }
      {
        assertion = cfg.plan != null;
        message = "berth.plan is not set, and the gateway takes its routes from it: set it to mesh.lock.json.";
      }
    ];

    systemd.sockets.${service} = {
      description = "The public port of the mesh";
      wantedBy = [ "${service}.target" ];
      partOf = [ "${service}.target" ];
      before = [ "${service}@${instance}.service" ];
      listenStreams = [ "0.0.0.0:${toString cfg.gateway.port}" ];
      socketConfig = {
        Service = "${service}@${instance}.service";
        FileDescriptorName = "https";
        # A gateway that fails must not take its socket along.
        TriggerLimitIntervalSec = 0;
      };
    };

    systemd.services."${service}@" = {
      environment.BERTH_PLAN = "/etc/berth/plan.json";
      reloadTriggers = [ cfg.plan ];
      # It also runs when nobody calls, and must come back as more than a socket.
      notSocketActivated = true;
      serviceConfig.Sockets = "${service}.socket";
    };
  };
}
