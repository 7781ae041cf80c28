# `lib.mesh`: any plan (`mesh.lock.json`), turned into the outputs of a flake.
#
#   outputs = { berth, ... }: berth.lib.mesh { plan = ./mesh.lock.json; };
{
  self,
  nixpkgs,
  systems,
}:
{
  # The resolved plan, as `berth lock` writes it.
  plan,
  # The packages the plan names, each with bin/<name>: from nixpkgs with this flake's overlay to a set. The shop's own are there already.
  packages ? _: { },
  # What the plan's `artifact` paths are relative to: a folder, or from nixpkgs to a package.
  artifacts ? dirOf plan,
  # The addresses of the nodes by their names. Without them each gets one on a network of its own, 10.93.0.0/16.
  addresses ? null,
  # NixOS modules for every node.
  modules ? [ ],
  # NixOS modules for single nodes, by their names.
  nodes ? { },
  # What the machines of `nixosConfigurations` are; `packages.<system>` has them for every system.
  system ? "x86_64-linux",
}:
let
  inherit (nixpkgs) lib;

  resolved = lib.importJSON plan;

  pkgsFor =
    system:
    import nixpkgs {
      inherit system;
      overlays = [ self.overlays.default ];
    };

  network = import ./network.nix { inherit lib resolved addresses; };

  # What a node is made of, wherever it is built: the modules, and what the plan says of it.
  moduleOf = node: {
    imports = [
      self.nixosModules.default
      ../vm/node.nix
      (
        { pkgs, ... }:
        {
          berth = {
            inherit plan;
            node = node.name;
            inherit (network) addresses;
            packages = pkgs.berthPrograms // packages pkgs;
            artifacts = if lib.isFunction artifacts then artifacts pkgs else artifacts;
          };
        }
      )
    ]
    ++ modules
    ++ lib.toList (nodes.${node.name} or [ ]);

    nixpkgs.overlays = [ self.overlays.default ];
    networking = {
      hostName = node.name;
      inherit (resolved) domain;
    };
    berth.machine = {
      cpus = lib.max 1 ((node.cpu_millis + 999) / 1000);
      memory = node.memory_bytes;
      reserved = node.reserved_bytes;
      disk = node.disk_bytes;
      network = network.of node.name;
    };
  };

  configuration =
    system: node:
    lib.nixosSystem {
      modules = [
        (moduleOf node)
        { nixpkgs.hostPlatform = system; }
      ];
    };

  configurations =
    system: lib.listToAttrs (map (node: lib.nameValuePair node.name (configuration system node)) resolved.nodes);

  prefixed = prefix: lib.mapAttrs' (name: lib.nameValuePair "${prefix}-${name}");

  packagesOf =
    system:
    let
      pkgs = pkgsFor system;
      machines = configurations system;
      runners = lib.mapAttrs (_: pkgs.callPackage ../vm/runner.nix { }) machines;
    in
    prefixed "image" (lib.mapAttrs (_: machine: machine.config.system.build.images.disk) machines)
    // prefixed "vm" runners
    // {
      mesh-vms = pkgs.callPackage ../vm/mesh-runner.nix { } {
        inherit runners;
        inherit (network) gateway;
        order = map (node: node.name) resolved.nodes;
        publicHost = resolved.gateway.public_host;
        publicPort = resolved.gateway.public_port;
      };
      sizes = pkgs.callPackage ../vm/sizes.nix { } machines;
    };
in
{
  nixosConfigurations = configurations system;

  packages = lib.genAttrs systems packagesOf;
}
