# The disk: an EFI system partition, and a root that grows to what is left of the disk.
{ config, lib, ... }:
{
  options.berth.machine.ownDisk =
    lib.mkEnableOption "the disk layout and the boot loader of this repository; images for clouds bring their own"
    // {
      default = true;
    };

  config = lib.mkIf config.berth.machine.ownDisk {
    fileSystems = {
      "/" = {
        device = "/dev/disk/by-partlabel/root";
        fsType = "ext4";
        autoResize = true;
      };
      "/boot" = {
        device = "/dev/disk/by-partlabel/esp";
        fsType = "vfat";
        options = [
          "umask=0077"
          "noexec"
          "nosuid"
          "nodev"
        ];
      };
    };

    # At each start the partition takes what the disk has. The file system follows it, also when it was mounted before that.
    systemd = {
      repart = {
        enable = true;
        partitions."20-root".Type = "root";
      };
      services.systemd-growfs-root.wantedBy = [ "multi-user.target" ];
    };
  };
}
