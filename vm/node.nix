# A machine of the mesh: one node of a plan, as it is built into an image and as `nixos-rebuild` changes it later.
#
# What runs on it is `nixos-modules/`; here is what it runs on.
{ lib, modulesPath, ... }:
{
  imports = [
    "${modulesPath}/profiles/qemu-guest.nix"
    ./access.nix
    ./boot.nix
    ./disk.nix
    ./images.nix
    ./minimal.nix
    ./network.nix
    ./size.nix
    ./store.nix
  ];

  # Whoever starts the machine hands it its secrets. Where nobody does, in a cloud, this is "encrypted".
  berth.credentials.source = lib.mkDefault "host";

  system.stateVersion = "26.05";
}
