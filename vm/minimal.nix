# Nothing on a machine that its services do not need: no documentation, no installer, no Python, no compiler. Perl is left for one thing,
# NixOS's way to fill /etc; `perlless.nix` takes that away, too.
{ lib, modulesPath, ... }:
{
  imports = [ "${modulesPath}/profiles/minimal.nix" ];

  boot = {
    bcache.enable = false;
    enableContainers = false;
  };
  fonts.fontconfig.enable = false;
  programs.nano.enable = false;
  security.sudo.enable = false;
  services.lvm.enable = false;
  # `nixos-rebuild` runs where the flake is.
  system.disableInstallerTools = lib.mkDefault true;
  xdg.menus.enable = lib.mkDefault false;
}
