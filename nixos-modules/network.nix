# Names and openings: the nodes' addresses, and a firewall that is closed but for what the plan says.
{ config, lib, ... }:
let
  inherit (lib) mkIf;
  cfg = config.berth;
  inherit (cfg) mesh;
  here = thing: thing.node == cfg.node;

  instancesOf =
    name: (lib.findFirst (service: service.name == name) { instances = [ ]; } mesh.services).instances;
  # The other nodes that these services are on.
  nodesOf =
    services:
    lib.subtractLists [ cfg.node ] (
      lib.unique (map (instance: instance.node) (lib.concatMap instancesOf services))
    );

  ofService =
    service:
    map (instance: {
      inherit (instance) port;
      nodes = nodesOf service.callers;
      monitored = service.protocol == "mesh";
    }) (lib.filter here service.instances);
  planned =
    lib.concatMap ofService mesh.services
    ++ map (database: {
      inherit (database) port;
      nodes = nodesOf [ database.owner ];
    }) (lib.filter here mesh.databases)
    ++ lib.optional (mesh.events != null && here mesh.events) {
      inherit (mesh.events) port;
      nodes = nodesOf (map (user: user.service) mesh.events.users);
    }
    ++ lib.optional (lib.any here (instancesOf mesh.gateway.service)) {
      port = mesh.gateway.public_port;
      nodes = null;
    };

  # Nodes that must be let in, and whose addresses nobody said.
  strangers =
    opening:
    lib.filter (node: !cfg.addresses ? ${node}) (if opening.nodes == null then [ ] else opening.nodes);
  isPublic = opening: opening.nodes == null || strangers opening != [ ];
  sources =
    opening:
    map (node: cfg.addresses.${node}) opening.nodes
    ++ lib.optionals opening.monitored cfg.firewall.monitors;
  restricted = lib.filter (opening: !isPublic opening) cfg.firewall.openings;

  isV6 = lib.hasInfix ":";
  iptables =
    opening: address:
    "${
      if isV6 address then "ip6tables" else "iptables"
    } -A nixos-fw -p tcp -s ${address} --dport ${toString opening.port} -j nixos-fw-accept\n";
  nftables =
    opening: address:
    "${
      if isV6 address then "ip6" else "ip"
    } saddr ${address} tcp dport ${toString opening.port} accept\n";
  rules =
    rule:
    lib.concatMapStrings (opening: lib.concatMapStrings (rule opening) (sources opening)) restricted;

  namesOf = node: [ node.host ] ++ lib.optional (isGateway node) mesh.gateway.public_host;
  isGateway = node: lib.any (instance: instance.node == node.name) (instancesOf mesh.gateway.service);
in
{
  config = lib.mkMerge [
    (mkIf (cfg.plan != null) {
      networking.hosts = lib.listToAttrs (
        map (node: lib.nameValuePair cfg.addresses.${node.name} (namesOf node)) (
          lib.filter (node: cfg.addresses ? ${node.name}) mesh.nodes
        )
      );
      berth.firewall.openings = planned;
    })
    (mkIf (cfg.plan == null) {
      # Without a plan nobody knows who calls, so that what has a route is open.
      berth.firewall.openings = lib.concatMap (
        service:
        lib.optionals (service.route != null) (
          map (instance: {
            inherit (instance) port;
            nodes = null;
          }) (lib.attrValues service.instances)
        )
      ) (lib.attrValues cfg.services);
    })
    (mkIf cfg.firewall.enable {
      networking.firewall = {
        enable = true;
        allowedTCPPorts = map (opening: opening.port) (lib.filter isPublic cfg.firewall.openings);
        extraCommands = mkIf (!config.networking.nftables.enable) (rules iptables);
        extraInputRules = mkIf config.networking.nftables.enable (rules nftables);
      };
      warnings = map (
        opening:
        "berth.addresses does not say where ${lib.concatStringsSep ", " (strangers opening)} is, so that port ${toString opening.port} is open to everybody: set it."
      ) (lib.filter (opening: strangers opening != [ ]) cfg.firewall.openings);
    })
  ];
}
