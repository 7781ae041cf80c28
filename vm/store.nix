# The Nix store of the machine, and how the system is changed: `nixos-rebuild switch --target-host root@…` copies a system here and starts it.
{ config, lib, ... }:
{
  nix = {
    channel.enable = false;
    settings.experimental-features = [
      "nix-command"
      "flakes"
    ];
    gc = {
      automatic = lib.mkDefault config.nix.enable;
      options = lib.mkDefault "--delete-older-than 30d";
    };
  };

  # The store of the image came as files; Nix is told of them once.
  systemd.services.nix-path-registration = lib.mkIf config.nix.enable {
    description = "Registration of the image's store paths";
    unitConfig.ConditionPathExists = "/nix-path-registration";
    wantedBy = [ "multi-user.target" ];
    before = [
      "nix-daemon.service"
      "nix-daemon.socket"
      "nix-gc.service"
    ];
    unitConfig.DefaultDependencies = false;
    after = [ "local-fs.target" ];
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
    };
    path = [ config.nix.package ];
    script = ''
      nix-store --load-db </nix-path-registration
      rm /nix-path-registration
    '';
  };
}
