# The checks that start no machine: format, drift, what the packages are, what a plan comes to. Those of `tests/nixos/` come beside them.
{ self, pkgs }:
let
  inherit (pkgs) lib;
  inherit (pkgs.stdenv.hostPlatform) system;

  root = ../.;
  sources = lib.fileset.toSource {
    inherit root;
    fileset = lib.fileset.unions (
      map (name: root + "/${name}") [
        "docker-compose.yaml"
        "examples"
        "mesh.lock.json"
        "mesh.toml"
        "tests/nixos"
      ]
    );
  };
  nixFiles = lib.fileset.toSource {
    inherit root;
    fileset = lib.fileset.fileFilter (file: file.hasExt "nix") root;
  };
in
{
  formatting = pkgs.runCommand "formatting" { nativeBuildInputs = [ pkgs.berthFormatter ]; } ''
    find ${nixFiles} -name '*.nix' -exec nixfmt --check {} +
    touch $out
  '';

  # What is committed is what the declarations say.
  drift = pkgs.runCommand "drift" { nativeBuildInputs = [ pkgs.berthPrograms.berth ]; } ''
    cp -r ${sources}/. .
    chmod -R u+w .
    berth compose --check
    for declaration in mesh.toml examples/*/mesh.toml tests/nixos/*/mesh.toml; do
      berth --mesh "$declaration" lock --check
    done
    touch $out
  '';

  # Only `checks` are built by `nix flake check`.
  packages = pkgs.linkFarm "packages" self.packages.${system};

  boot-entries = import ./tests/boot-entries.nix { inherit self pkgs; };
  images = import ./tests/images.nix { inherit self pkgs; };
  oci-probe = import ./tests/oci-probe.nix { inherit self pkgs; };
  sboms = import ./tests/sboms.nix { inherit self pkgs; };
}
// lib.mapAttrs' (name: lib.nameValuePair "template-${name}") (
  import ./tests/templates.nix { inherit self pkgs; }
)
