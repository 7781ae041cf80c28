# `lib.mesh`: any plan (`mesh.lock.json`), turned into the outputs of a flake.
#
#   outputs = { berth, ... }: berth.lib.mesh { plan = ./mesh.lock.json; };
{
  self,
  nixpkgs,
  systems,
  # From a system to nixpkgs with this flake's overlay.
  packagesFor,
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

  packagesWith = pkgs: pkgs.berthPrograms // packages pkgs;
  artifactsWith = pkgs: if lib.isFunction artifacts then artifacts pkgs else artifacts;

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
            packages = packagesWith pkgs;
            artifacts = artifactsWith pkgs;
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

  # Evaluated once for each system, whatever is made of them.
  machines = lib.genAttrs (lib.unique ([ system ] ++ systems)) (
    system:
    lib.listToAttrs (map (node: lib.nameValuePair node.name (configuration system node)) resolved.nodes)
  );

  prefixed = prefix: lib.mapAttrs' (name: lib.nameValuePair "${prefix}-${name}");

  # The CLI with everything this mesh starts on a developer's machine.
  cli =
    pkgs:
    pkgs.berth.override {
      programs = lib.genAttrs (map (service: service.executable.package) packaged) (
        name: (packagesWith pkgs).${name}
      );
      runtimes = lib.concatMap (
        service: (import ./runtimes.nix pkgs).${service.runtime}
      ) resolved.services;
    };

  packaged = lib.filter (service: service.executable ? package) resolved.services;

  packagesOf =
    system:
    let
      pkgs = packagesFor system;
      runners = lib.mapAttrs (_: pkgs.callPackage ../vm/runner.nix { }) machines.${system};
      packages' = packagesWith pkgs;
      images = pkgs.callPackage ../docker/images.nix { runtimes = import ./runtimes.nix pkgs; } {
        plan = resolved;
        packages = packages';
        artifacts = artifactsWith pkgs;
      };
      sbom =
        service:
        let
          program = service.executable.package;
          package = packages'.${program};
        in
        pkgs.callPackage ./sbom.nix { } {
          inherit (service) name;
          inherit package;
          crate = if package == pkgs.berthPrograms.${program} or null then program else null;
        };
    in
    prefixed "image" (
      lib.mapAttrs (_: machine: machine.config.system.build.images.disk) machines.${system}
    )
    // prefixed "vm" runners
    // prefixed "oci" images
    // lib.listToAttrs (map (service: lib.nameValuePair "sbom-${service.name}" (sbom service)) packaged)
    // {
      default = cli pkgs;
      mesh-vms = pkgs.callPackage ../vm/mesh-runner.nix { } {
        inherit runners;
        inherit (network) gateway;
        order = map (node: node.name) resolved.nodes;
        publicHost = resolved.gateway.public_host;
        publicPort = resolved.gateway.public_port;
      };
      sizes = pkgs.callPackage ../vm/sizes.nix { } machines.${system};
    };

  # What is run rather than built.
  appsOf =
    system:
    let
      app = package: {
        type = "app";
        program = lib.getExe package;
        meta = { inherit (package.meta) description; };
      };
    in
    {
      default = app built.${system}.default;
    }
    // lib.mapAttrs (_: app) (
      lib.filterAttrs (
        name: _: name == "mesh-vms" || name == "sizes" || lib.hasPrefix "vm-" name
      ) built.${system}
    );

  built = lib.genAttrs systems packagesOf;
in
{
  packages = built;
  nixosConfigurations = machines.${system};
  apps = lib.genAttrs systems appsOf;
}
