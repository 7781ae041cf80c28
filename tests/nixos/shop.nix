# The shop on test machines: a machine for each node of a plan, and one outside of the mesh, whose operator makes the secrets.
{ pkgs, self }:
let
  inherit (pkgs) lib;
  node = import ./node.nix { inherit self; };

  machinesOf =
    kind: folder:
    let
      plan = folder + "/mesh.lock.json";
      resolved = lib.importJSON plan;
      names = map (node: node.name) resolved.nodes;
      gateway = lib.findFirst (service: service.name == resolved.gateway.service) null resolved.services;
      # The name of a container's interface on the host holds that of the container, and is bounded; the test framework would call it eth1.
      network = lib.optionalAttrs (kind == "containers") {
        virtualisation = {
          vlans = [ ];
          interfaces.e1 = {
            vlan = 1;
            assignIP = true;
          };
        };
      };
      # The test framework gives each machine one.
      addressOf = machines: name: machines.${name}.networking.primaryIPAddress;
    in
    {
      inherit names;
      url = resolved.gateway.public_url;
      members =
        machines:
        lib.genAttrs names (name: {
          imports = [
            network
            (node {
              inherit plan name;
              addresses = lib.genAttrs names (addressOf machines);
            })
          ];
        });
      outsider = machines: {
        imports = [ network ];
        networking.hosts = {
          ${addressOf machines (lib.head gateway.instances).node} = [ resolved.gateway.public_host ];
        };
        environment.systemPackages = [
          pkgs.berthPrograms.berth
          pkgs.curl
        ];
        environment.etc."mesh/mesh.toml".source = folder + "/mesh.toml";
      };
    };
in
{
  # A test of the shop: its machines as containers, or as virtual machines where a test needs a kernel of its own.
  test =
    file:
    let
      test = import file { inherit lib pkgs; };
      kind = test.kind or "containers";
      machines = machinesOf kind (test.mesh or ../..);
    in
    pkgs.testers.runNixOSTest (
      { containers, nodes, ... }:
      let
        all = if kind == "containers" then containers else nodes;
      in
      {
        inherit (test) name;
        ${kind} = lib.mapAttrs (name: machine: {
          imports = [
            machine
            (test.machines.${name} or { })
          ];
        }) (machines.members all // { operator = machines.outsider all; });
        testScript = ''
          NODES = ${builtins.toJSON machines.names}
          URL = ${builtins.toJSON machines.url}
          ${builtins.readFile ./shop.py}
          ${test.script}
        '';
      }
    );
}
