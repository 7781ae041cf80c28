# The network of a mesh's machines: an address and an interface for each node.
{
  lib,
  resolved,
  addresses,
}:
let
  hex = number: lib.toLower (lib.fixedWidthString 2 "0" (lib.toHexString number));

  # From the node's place in the plan, so that each machine has the same address always.
  place = index: {
    third = index / 200;
    fourth = 10 + lib.mod index 200;
  };
  numbered = lib.listToAttrs (
    lib.imap0 (
      index: node:
      let
        inherit (place index) third fourth;
      in
      lib.nameValuePair node.name {
        address =
          if addresses == null then "10.93.${toString third}.${toString fourth}" else addresses.${node.name};
        mac = "52:54:00:93:${hex third}:${hex fourth}";
      }
    ) resolved.nodes
  );

  isGateway = node: lib.any (instance: lib.elem instance.name node.instances) gateway.instances;
  gateway = lib.findFirst (
    service: service.name == resolved.gateway.service
  ) (throw "the plan has no gateway") resolved.services;
in
{
  # Where each node is: the option `berth.addresses`.
  addresses = lib.mapAttrs (_: node: node.address) numbered;

  # The options of `vm/network.nix` for a node.
  of = name: {
    inherit (numbered.${name}) mac;
    address = lib.mkIf (addresses == null) "${numbered.${name}.address}/16";
  };

  # The node clients speak to.
  gateway = (lib.findFirst isGateway (throw "the gateway is on no node") resolved.nodes).name;
}
