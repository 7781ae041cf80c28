# The checks of the flake that ask what the NixOS modules do. `eval-*` only evaluate, and cost seconds; `nixos-*` run machines: containers
# where no kernel of their own is needed, virtual machines where it is.
{ pkgs, self }:
let
  evaluation = import ./evaluation.nix { inherit pkgs self; };
  machines = import ./machines.nix { inherit pkgs self; };
in
evaluation
// machines
// {
  # `nix build .#option-docs` writes it.
  drift-option-docs = pkgs.runCommand "drift-option-docs" { } ''
    diff -u ${../../docs/nixos-options.md} ${import ../../nixos-modules/docs.nix { inherit pkgs; }}
    touch $out
  '';
}
