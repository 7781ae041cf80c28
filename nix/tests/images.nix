# An image holds the very system of `nixosConfigurations`, so that the first `nixos-rebuild switch` changes nothing; and the sizes of the plan have
# come to what they are for.
{ self, pkgs }:
let
  inherit (pkgs) lib;
  plan = lib.importJSON ../../mesh.lock.json;

  wrong =
    node:
    let
      inherit (self.nixosConfigurations.${node.name}) config;
      image = config.system.build.images.disk.passthru.config;
      virtual = config.virtualisation.vmVariant;
    in
    lib.optional (
      image.system.build.toplevel.drvPath != config.system.build.toplevel.drvPath
    ) "the image of ${node.name} holds another system"
    ++ lib.optional (
      config.systemd.slices.berth.sliceConfig.MemoryMax + node.reserved_bytes != node.memory_bytes
    ) "the services of ${node.name} may use what is not theirs"
    ++ lib.optional (
      virtual.virtualisation.memorySize * 1048576 != node.memory_bytes
    ) "${node.name} is started with another memory than the plan gives it"
    ++ lib.optional (
      virtual.virtualisation.cores * 1000 < node.cpu_millis
    ) "${node.name} is started with fewer cores than the plan gives it";

  faults = lib.concatMap wrong plan.nodes;
in
if faults == [ ] then
  pkgs.runCommand "images" { } "touch $out"
else
  throw (lib.concatStringsSep "\n" faults)
