# The outputs of the flake. Each line says where the rest is: what is built in `nix/`, images in `docker/`, machines in `vm/`, how a
# machine runs its services in `nixos-modules/`.
{ self, nixpkgs }:
let
  inherit (nixpkgs) lib;

  systems = [
    "x86_64-linux"
    "aarch64-linux"
  ];
  forEachSystem = make: lib.genAttrs systems (system: make (packagesFor system));
  packagesFor =
    system:
    import nixpkgs {
      inherit system;
      overlays = [ self.overlays.default ];
    };

  mesh = import ./mesh.nix { inherit self nixpkgs systems; };

  # The shop of this repository, through the same door as anybody's mesh.
  shop = mesh { plan = ../mesh.lock.json; };
in
{
  lib = { inherit mesh; };

  overlays.default = import ./overlay.nix;

  nixosModules = {
    default = ../nixos-modules;
  };

  inherit (shop) nixosConfigurations;

  packages = forEachSystem (
    pkgs:
    pkgs.berthPrograms
    // shop.packages.${pkgs.stdenv.hostPlatform.system}
    // {
      default = pkgs.berth;
      option-docs = import ../nixos-modules/docs.nix { inherit pkgs; };
    }
  );

  checks = forEachSystem (pkgs: import ../tests/nixos { inherit pkgs self; });
}
