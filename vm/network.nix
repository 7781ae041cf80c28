# The machine's interfaces. What the other machines are called there, and whom the firewall lets in, is `nixos-modules/network.nix`.
{ config, lib, ... }:
let
  cfg = config.berth.machine.network;
in
{
  options.berth.machine.network = {
    address = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "10.93.0.11/24";
      description = "The machine's address on the mesh's network, with the network's length. None: DHCP gives one.";
    };
    mac = lib.mkOption {
      type = lib.types.strMatching "([0-9a-f]{2}:){5}[0-9a-f]{2}";
      default = "52:54:00:93:00:01";
      description = "By what the machine knows its interface on the mesh's network.";
    };
  };

  config = {
    networking = {
      useNetworkd = true;
      useDHCP = false;
    };
    systemd.network = {
      networks = {
        "10-mesh" = lib.mkIf (cfg.address != null) {
          matchConfig.MACAddress = cfg.mac;
          address = [ cfg.address ];
        };
        # Whatever else there is: the way to the rest of the world.
        "20-uplink" = {
          matchConfig.Type = "ether";
          networkConfig.DHCP = "yes";
        };
      };
      # A machine without a way out still serves the mesh.
      wait-online.anyInterface = true;
    };
  };
}
