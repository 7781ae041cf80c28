# The machine's size, and everything that follows from it: the part services may use, the machine that `build-vm` makes. What a single
# service, database or runtime may use stands in the plan, within these bounds.
{ config, lib, ... }:
let
  cfg = config.berth.machine;
  inherit (config.berth) services databases events;

  # What all that may run here may use at once.
  needs =
    lib.foldl' (sum: service: sum + lib.length (lib.attrNames service.instances) * service.memory) 0 (
      lib.attrValues services
    )
    + lib.foldl' (sum: database: sum + database.memory) 0 (lib.attrValues databases)
    + (if events.enable then events.memory else 0);

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
        assertion = needs + cfg.reserved <= cfg.memory;
        message =
          "What runs on ${config.networking.hostName} may use ${toString (mebibytes needs)} MiB, the system needs ${toString (mebibytes cfg.reserved)} MiB, and berth.machine.memory is only ${toString (mebibytes cfg.memory)} MiB: "
          + "take a larger size, or lower `memory` or `replicas.max` of its services in mesh.toml.";
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
