# `vm-<node>`: the program that starts a node's machine on the machine in front of you, with the size the plan gives it.
{
  lib,
  writeShellApplication,
  stdenv,
  coreutils,
  qemu_kvm,
  socat,
  util-linux,
  OVMF,
  berthPrograms,
}:
{ config, ... }:
let
  inherit (config.berth) machine;
  inherit (config.networking) hostName;
  disk = config.system.build.images.disk;
in
writeShellApplication {
  name = "vm-${hostName}";
  runtimeInputs = [
    coreutils
    qemu_kvm
    socat
    util-linux
    berthPrograms.berth
  ];
  runtimeEnv = {
    NAME = hostName;
    CPUS = toString machine.cpus;
    MEMORY = toString (machine.memory / (1024 * 1024));
    DISK = toString machine.disk;
    MAC = machine.network.mac;
    IMAGE = "${disk}/${disk.passthru.filePath}";
    QEMU = "qemu-system-${stdenv.hostPlatform.qemuArch}";
    MACHINE = if stdenv.hostPlatform.isAarch64 then "virt" else "q35";
    FIRMWARE = OVMF.fd.firmware;
    FIRMWARE_VARIABLES = OVMF.fd.variables;
  };
  text = builtins.readFile ./run.sh;
  meta = {
    description = "Starts the machine ${hostName}";
    mainProgram = "vm-${hostName}";
    platforms = lib.platforms.linux;
  };
}
