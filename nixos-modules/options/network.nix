{ config, lib, ... }:
let
  inherit (lib) mkOption types;
in
{
  options.berth = {
    addresses = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        edge = "10.0.0.2";
        items-1 = "10.0.0.3";
      };
      description = ''
        The nodes' IP addresses, by the names of the nodes. They get their names in {file}`/etc/hosts`, and a port that some nodes may reach is
        open to their addresses alone. Without them names must come from DNS, and such a port is open to every machine that can send to it.
      '';
    };

    firewall = {
      enable = mkOption {
        type = types.bool;
        default = true;
        description = "Whether the firewall opens what the plan says, and nothing else.";
      };
      monitors = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "10.0.0.9" ];
        description = "Addresses that may reach the metrics of services and of the machine. Services still ask them for a certificate of the mesh.";
      };
      openings = mkOption {
        type = types.listOf (
          types.submodule {
            options = {
              port = mkOption {
                type = types.port;
                description = "The port.";
              };
              nodes = mkOption {
                type = types.nullOr (types.listOf types.str);
                description = "The nodes that may reach it; null: everybody.";
              };
              monitored = mkOption {
                type = types.bool;
                default = false;
                description = "Whether metrics are read there.";
              };
            };
          }
        );
        default = [ ];
        description = "Who may reach what on this machine. Set from the plan.";
      };
    };
  };
}
