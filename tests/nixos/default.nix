# The checks of the flake that ask what the NixOS modules do. `eval-*` only evaluate, and cost seconds; `nixos-*` run machines: containers
# where no kernel of their own is needed, virtual machines where it is.
{ pkgs, self }:
let
  evaluation = import ./evaluation.nix { inherit pkgs self; };
  machines = import ./machines.nix { inherit pkgs self; };
in
evaluation // machines
