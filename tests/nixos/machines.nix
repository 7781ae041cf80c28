# The tests that run machines.
{ pkgs, self }:
let
  shop = import ./shop.nix { inherit pkgs self; };
in
{
  nixos-mesh = shop.test ./mesh.nix;
  nixos-restart = shop.test ./restart.nix;
  nixos-credentials = shop.test ./credentials.nix;
  nixos-foreign = shop.test ./foreign.nix;
  nixos-sizes = import ./sizes.nix { inherit pkgs self; };
  nixos-reboot = shop.test ./reboot.nix;
  nixos-rebuild = shop.test ./rebuild.nix;
}
