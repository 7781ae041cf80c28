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
  here = pkgs: pkgs.stdenv.hostPlatform.system;

  mesh = import ./mesh.nix {
    inherit
      self
      nixpkgs
      systems
      packagesFor
      ;
  };

  # The shop of this repository, through the same door as anybody's mesh.
  shop = mesh { plan = ../mesh.lock.json; };
in
{
  lib = { inherit mesh; };

  overlays.default = import ./overlay.nix;

  nixosModules = import ./modules.nix { inherit lib; };

  templates = import ./templates.nix;

  inherit (shop) nixosConfigurations apps;

  packages = forEachSystem (
    pkgs:
    pkgs.berthPrograms
    // shop.packages.${here pkgs}
    // {
      option-docs = import ../nixos-modules/docs.nix { inherit pkgs; };
    }
  );

  devShells = forEachSystem (pkgs: {
    default = pkgs.callPackage ./shell.nix { };
  });

  formatter = forEachSystem (
    pkgs: pkgs.nixfmt-tree.override { nixfmtPackage = pkgs.berthFormatter; }
  );

  checks = forEachSystem (
    pkgs: import ./checks.nix { inherit self pkgs; } // import ../tests/nixos { inherit pkgs self; }
  );
}
