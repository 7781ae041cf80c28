# A host of machines: a NixOS system that runs nodes of a mesh as units, each in the size the plan gives it, on one bridge.
#
#   berth.host = {
#     machines = { inherit (mesh.nixosConfigurations) edge data; };
#     publish.edge = [ "0.0.0.0:8443:8443" ];
#   };
#
# A machine's secrets lie in /var/lib/berth-credentials/<node>, readable by root alone, as `berth secrets export <node> --to DIR --smbios`
# writes them; systemd passes them to the unit, and QEMU to the machine's firmware tables. They are on no command line.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.berth.host;
  user = "berth-machines";
  # Also where the host's own packages know nothing of this repository.
  runner = (pkgs.extend (import ../nix/overlay.nix)).callPackage ./runner.nix { };

  # An interface's name has fifteen letters at most, a node's name more.
  tap = name: "vm-${builtins.substring 0 11 (builtins.hashString "sha256" name)}";

  # From one of the bridge's ports to another.
  bridged = "-i ${cfg.bridge} -o ${cfg.bridge} -j ACCEPT";

  # What QEMU itself needs beside the machine's memory.
  overhead = 256 * 1024 * 1024;

  unit =
    name: node:
    let
      inherit (node.config.berth) machine;
    in
    {
      description = "Machine ${name}";
      wantedBy = [ "multi-user.target" ];
      after = [ "systemd-networkd.service" ];
      wants = [ "systemd-networkd.service" ];
      startLimitIntervalSec = 0;
      serviceConfig = {
        ExecStart = lib.concatStringsSep " " (
          [
            (lib.getExe (runner node))
            "--state %S/berth-machines/${name}"
            "--credentials %d"
            "--tap ${tap name}"
            "--log -"
          ]
          ++ map (port: "--forward ${port}") (cfg.publish.${name} or [ ])
        );
        # The runner switches the machine off; what is left after that is killed.
        KillMode = "mixed";
        TimeoutStopSec = "2min";
        Restart = "on-failure";
        RestartSec = "1s";
        RestartSteps = 6;
        RestartMaxDelaySec = "1min";

        MemoryMax = machine.memory + overhead;
        MemorySwapMax = 0;
        CPUQuota = "${toString (machine.cpus * 100)}%";

        User = user;
        StateDirectory = "berth-machines/${name}";
        StateDirectoryMode = "0700";
        RuntimeDirectory = "berth-machines/${name}";
        RuntimeDirectoryMode = "0700";
        Environment = "XDG_RUNTIME_DIR=%t/berth-machines/${name}";
        LoadCredential = "machine:${cfg.credentials}/${name}";

        DevicePolicy = "closed";
        DeviceAllow = [
          "/dev/kvm rw"
          "/dev/net/tun rw"
        ];
        CapabilityBoundingSet = "";
        LockPersonality = true;
        NoNewPrivileges = true;
        PrivateTmp = true;
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHome = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        ProtectSystem = "strict";
        RestrictAddressFamilies = [
          "AF_INET"
          "AF_INET6"
          "AF_UNIX"
        ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        UMask = "0077";
      };
    };
in
{
  options.berth.host = {
    machines = lib.mkOption {
      type = lib.types.attrsOf lib.types.raw;
      default = { };
      example = lib.literalExpression "{ inherit (mesh.nixosConfigurations) edge data; }";
      description = "The machines that run here, by the names of their nodes.";
    };
    credentials = lib.mkOption {
      type = lib.types.path;
      default = "/var/lib/berth-credentials";
      description = "Where the machines' secrets lie, a folder for each.";
    };
    publish = lib.mkOption {
      type = lib.types.attrsOf (lib.types.listOf (lib.types.strMatching "([0-9.]+:)?[0-9]+:[0-9]+"));
      default = { };
      example = {
        edge = [ "0.0.0.0:8443:8443" ];
      };
      description = "Ports of this host that lead to a machine: address, port here, port there.";
    };
    bridge = lib.mkOption {
      type = lib.types.str;
      default = "berth0";
      description = "The bridge that is the mesh's network here.";
    };
    uplink = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "eno2";
      description = "An interface of this host that leads to the mesh's machines on other hosts. None: all machines are on this one.";
    };
  };

  config = lib.mkIf (cfg.machines != { }) {
    assertions = lib.mapAttrsToList (name: _: {
      assertion = cfg.machines ? ${name};
      message = "berth.host.publish.${name} is set, and berth.host.machines has no ${name}: add the machine or remove the port.";
    }) cfg.publish;

    users = {
      users.${user} = {
        isSystemUser = true;
        group = user;
        extraGroups = [ "kvm" ];
      };
      groups.${user} = { };
    };

    systemd.services = lib.mapAttrs' (
      name: node: lib.nameValuePair "berth-machine-${name}" (unit name node)
    ) cfg.machines;

    # What goes from machine to machine is no business of the host's. But its firewall sees that, too, where something has the kernel show it what
    # crosses a bridge, as Docker does: without this it finds that nobody can be there, since the host has no address on the bridge.
    networking.firewall = {
      extraCommands = lib.mkIf (!config.networking.nftables.enable) ''
        ip46tables -t mangle -I nixos-fw-rpfilter -i ${cfg.bridge} -j RETURN 2>/dev/null || true
        ip46tables -D FORWARD ${bridged} 2>/dev/null || true
        ip46tables -I FORWARD ${bridged}
      '';
      extraStopCommands = lib.mkIf (!config.networking.nftables.enable) ''
        ip46tables -D FORWARD ${bridged} 2>/dev/null || true
      '';
      extraReversePathFilterRules = lib.mkIf config.networking.nftables.enable ''
        iifname "${cfg.bridge}" accept
      '';
    };

    # Open to the host's own processes alone, and only the machines' ports are forwarded: see `publish`.
    networking.useNetworkd = true;
    systemd.network = {
      netdevs = {
        "30-${cfg.bridge}".netdevConfig = {
          Kind = "bridge";
          Name = cfg.bridge;
        };
      }
      // lib.mapAttrs' (
        name: _:
        lib.nameValuePair "30-${tap name}" {
          netdevConfig = {
            Kind = "tap";
            Name = tap name;
          };
          tapConfig.User = user;
        }
      ) cfg.machines;
      networks = {
        "30-${cfg.bridge}" = {
          matchConfig.Name = cfg.bridge;
          linkConfig.RequiredForOnline = false;
          networkConfig.LinkLocalAddressing = false;
        };
        "30-${cfg.bridge}-ports" = {
          matchConfig.Name =
            lib.mapAttrsToList (name: _: tap name) cfg.machines ++ lib.optional (cfg.uplink != null) cfg.uplink;
          networkConfig.Bridge = cfg.bridge;
          linkConfig.RequiredForOnline = false;
        };
      };
    };
  };
}
