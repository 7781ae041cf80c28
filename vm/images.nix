# `system.build.images`: the machine as a file. `disk` is ours; the other formats are nixpkgs' own, for clouds and hypervisors, and bring the
# disk layout and boot loader their platform asks for.
{ lib, ... }:
let
  ofOthers = [
    "amazon"
    "azure"
    "cloudstack"
    "digital-ocean"
    "google-compute"
    "hyperv"
    "kubevirt"
    "linode"
    "oci"
    "openstack"
    "proxmox"
    "qemu"
    "qemu-efi"
    "raw"
    "raw-efi"
    "virtualbox"
    "vmware"
  ];
in
{
  image.modules = {
    disk = ./image.nix;
  }
  // lib.genAttrs ofOthers (_: {
    berth.machine.ownDisk = false;
  });
}
