# How the machine starts: UEFI, systemd-boot, and one unified kernel image for each generation.
#
# A generation carries its kernel image within it, so that a change of the system copies one file to the EFI system partition, and the
# machine needs no program for it but the shell's.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (pkgs.stdenv.hostPlatform) efiArch;
  kernel = config.boot.kernelPackages.kernel;
  bootDirectory = config.boot.loader.efi.efiSysMountPoint;
  serial = if pkgs.stdenv.hostPlatform.isAarch64 then "ttyAMA0" else "ttyS0";

  # Made of the same parts as `config.system.build.uki`. That one cannot be part of the system, because it names the system.
  kernelImage = ''
    ${pkgs.buildPackages.systemdUkify}/lib/systemd/ukify build \
      --linux=${kernel}/${config.system.boot.loader.kernelFile} \
      --initrd=${config.system.build.initialRamdisk}/${config.system.boot.loader.initrdFile} \
      --cmdline="init=$out/init ${toString config.boot.kernelParams}" \
      --stub=${config.systemd.package}/lib/systemd/boot/efi/linux${efiArch}.efi.stub \
      --uname=${kernel.modDirVersion} \
      --os-release=@${config.system.build.etc}/etc/os-release \
      --efi-arch=${efiArch} \
      --output=$out/uki.efi
  '';

  entries = pkgs.writeShellApplication {
    name = "boot-entries";
    runtimeInputs = [
      pkgs.coreutils
      pkgs.diffutils
    ];
    runtimeEnv = {
      LOADER = "${config.systemd.package}/lib/systemd/boot/efi/systemd-boot${efiArch}.efi";
      LOADER_NAME = "BOOT${lib.toUpper efiArch}.EFI";
      TIMEOUT = toString config.boot.loader.timeout;
    };
    text = builtins.readFile ./boot-entries.sh;
  };

  installHook = pkgs.writeShellScript "install-boot-entries" ''
    set -euo pipefail
    cd /nix/var/nix/profiles
    generations=()
    for link in system-*-link; do
      number=''${link#system-}
      generations+=("''${number%-link}=$(${pkgs.coreutils}/bin/readlink -f "$link")")
    done
    exec ${lib.getExe entries} ${bootDirectory} "$1" "''${generations[@]}"
  '';
in
{
  options.berth.machine.bootEntries = lib.mkOption {
    type = lib.types.package;
    internal = true;
    readOnly = true;
    default = entries;
    description = "The program that makes the EFI system partition agree with the generations: in the image, and at each change.";
  };

  config = lib.mkMerge [
    (lib.mkIf config.berth.machine.ownDisk {
      boot.loader = {
        external = {
          enable = true;
          inherit installHook;
        };
        grub.enable = false;
        timeout = 1;
      };
      system.systemBuilderCommands = kernelImage;
    })
    {
      boot.loader.efi.efiSysMountPoint = lib.mkDefault "/boot";
      boot.initrd.systemd.enable = lib.mkDefault true;
      boot.kernelParams = [ "console=${serial},115200" ];
      # A machine that nobody sits in front of starts again by itself.
      boot.kernel.sysctl."kernel.panic" = 10;
    }
  ];
}
