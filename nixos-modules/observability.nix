# What can be seen of a machine from outside, and how much of its log is kept.
{ config, lib, ... }:
let
  cfg = config.berth;
  inherit (cfg) observability;

  instances =
    service:
    map (instance: {
      targets = [ "${instance.host}:${toString instance.port}" ];
      labels = {
        mesh = cfg.mesh.name;
        inherit (instance) node;
        service = service.name;
        instance = instance.name;
      };
    }) service.instances;
  measured = lib.filter (service: service.protocol == "mesh") cfg.mesh.services;
in
{
  config = lib.mkMerge [
    {
      services.journald.extraConfig = ''
        SystemMaxUse=${observability.journal.maxUse}
        MaxRetentionSec=${observability.journal.maxAge}
      '';
      berth.observability.scrapeConfigs = lib.optional (cfg.plan != null) {
        job_name = "berth-${cfg.mesh.name}";
        scheme = "https";
        metrics_path = "/metrics";
        static_configs = lib.concatMap instances measured;
      };
    }
    (lib.mkIf observability.metrics.enable {
      services.prometheus.exporters.node = {
        enable = true;
        inherit (observability.metrics) port;
        enabledCollectors = [ "systemd" ];
        extraFlags = [
          "--collector.systemd.enable-restarts-metrics"
          "--collector.systemd.unit-include=.*[.](service|socket|target)"
        ];
      };
      berth.firewall.openings = [
        {
          inherit (observability.metrics) port;
          nodes = [ ];
          monitored = true;
        }
      ];
    })
  ];
}
