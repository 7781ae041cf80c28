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
  # The packages the plan names, each with bin/<name>: from nixpkgs with this flake's overlay to a set.
  packages ? pkgs: pkgs.berthPrograms,
  # What the plan's `artifact` paths are relative to: a folder, or from nixpkgs to a package.
  artifacts ? dirOf plan,
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

  configuration =
    system: node:
    lib.nixosSystem {
      modules = [
        self.nixosModules.default
        ../vm/node.nix
        {
          nixpkgs.hostPlatform = system;
          nixpkgs.overlays = [ self.overlays.default ];
        }
        (
          { pkgs, ... }:
          {
            berth = {
              inherit plan;
              node = node.name;
              packages = packages pkgs;
              artifacts = if lib.isFunction artifacts then artifacts pkgs else artifacts;
            };
          }
        )
      ]
      ++ modules
      ++ lib.toList (nodes.${node.name} or [ ]);
    };

  configurations =
    system: lib.listToAttrs (map (node: lib.nameValuePair node.name (configuration system node)) resolved.nodes);
in
{
  nixosConfigurations = configurations system;

  packages = lib.genAttrs systems (_system: { });
}
