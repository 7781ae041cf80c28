{ config, lib, ... }:
let
  inherit (lib) mkOption types;
in
{
  options.berth.observability = {
    journal = {
      maxUse = mkOption {
        type = types.strMatching "[0-9]+[KMGT]?";
        default = "512M";
        description = "The most disk the journal may use.";
      };
      maxAge = mkOption {
        type = types.str;
        default = "30day";
        description = "How long entries are kept.";
      };
    };
    metrics = {
      enable = mkOption {
        type = types.bool;
        default = false;
        description = ''
          Whether the machine itself can be measured: processor, memory, disks, and the state, restarts and memory of each unit. They are reached from
          {option}`berth.firewall.monitors`.
        '';
      };
      port = mkOption {
        type = types.port;
        default = 9100;
        description = "The port the machine's metrics are read at.";
      };
    };
    scrapeConfigs = mkOption {
      type = types.listOf (types.attrsOf types.anything);
      readOnly = true;
      description = ''
        For `services.prometheus.scrapeConfigs` of whatever machine monitors the mesh: every instance of every service that speaks `mesh`, up to its
        maximum. `tls_config` is still to be added: services answer members of the mesh alone, over mutual TLS.
      '';
    };
  };
}
