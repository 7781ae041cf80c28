# The machine's size, and everything that follows from it: the part services may use, the machine that `build-vm` makes. What a single
# service, database or runtime may use stands in the plan, within these bounds.
{ config, lib, ... }:
let
  cfg = config.berth.machine;
  mebibytes = bytes: bytes / (1024 * 1024);
in
{
  options.berth.machine = {
    cpus = lib.mkOption {
      type = lib.types.ints.positive;
      description = "Processor cores of the machine.";
      example = 4;
    };
    memory = lib.mkOption {
      type = lib.types.ints.positive;
      description = "Memory of the machine, in bytes.";
      example = 1610612736;
    };
    reserved = lib.mkOption {
      type = lib.types.ints.positive;
      description = "The part of {option}`berth.machine.memory` that no service gets, in bytes: it is the operating system's.";
      example = 134217728;
    };
    disk = lib.mkOption {
      type = lib.types.ints.positive;
      description = "The disk of the machine, in bytes. The root file system grows to it.";
      example = 8589934592;
    };
  };

  config = {
    assertions = [
      {
        assertion = cfg.reserved < cfg.memory;
        message = "berth.machine.reserved is ${toString cfg.reserved} bytes, and berth.machine.memory only ${toString cfg.memory}: give the machine more memory.";
      }
    ];

    # However the services are configured, the system itself keeps what is reserved for it.
    systemd.slices.berth.sliceConfig.MemoryMax = cfg.memory - cfg.reserved;

    virtualisation.vmVariant.virtualisation = {
      cores = cfg.cpus;
      memorySize = mebibytes cfg.memory;
      diskSize = mebibytes cfg.disk;
    };
  };
}
