# `mesh-vms`: the program that starts all machines of a mesh on the machine in front of you.
{
  lib,
  writeShellApplication,
  coreutils,
  curl,
  gnugrep,
  util-linux,
  vde2,
  berthPrograms,
}:
{
  # The runners of the machines, by their names.
  runners,
  # The plan's order.
  order,
  # The node of the gateway, and where clients find it.
  gateway,
  publicHost,
  publicPort,
}:
writeShellApplication {
  name = "mesh-vms";
  runtimeInputs = [
    coreutils
    curl
    gnugrep
    util-linux
    vde2
    berthPrograms.berth
  ]
  ++ lib.attrValues runners;
  runtimeEnv = {
    MACHINES = toString order;
    GATEWAY = gateway;
    GATEWAY_HOST = publicHost;
    GATEWAY_PORT = toString publicPort;
  };
  text = builtins.readFile ./mesh.sh;
  meta = {
    description = "Starts the machines of a mesh on one network";
    mainProgram = "mesh-vms";
    platforms = lib.platforms.linux;
  };
}
