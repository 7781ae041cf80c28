# What no process of a mesh may do. `systemd-analyze security` rates every unit that has this below 2.0, and a test fails above.
#
# One profile for all. What a runtime cannot live with is loosened here, by what it does and not by its name:
#   jit   it makes machine code while it runs (HotSpot, V8, .NET, Mono, Wine): it writes memory and then executes it, and sizes itself by
#         what /proc says of the machine.
{
  jit ? false,
}:
{
  # An account of its own, which exists only while the unit runs; with it come a private /tmp, a file system that is read-only but for the
  # state directory, no new privileges, and no IPC objects left behind.
  DynamicUser = true;
  PrivateUsers = true;
  UMask = "0077";
  CapabilityBoundingSet = "";
  AmbientCapabilities = "";
  NoNewPrivileges = true;
  RestrictSUIDSGID = true;
  KeyringMode = "private";
  # A core dump would hold the secrets.
  LimitCORE = 0;

  PrivateTmp = true;
  PrivateDevices = true;
  DevicePolicy = "closed";
  ProtectSystem = "strict";
  ProtectHome = true;
  ProtectProc = "invisible";
  ProcSubset = if jit then "all" else "pid";
  RemoveIPC = true;

  ProtectClock = true;
  ProtectControlGroups = true;
  ProtectHostname = true;
  ProtectKernelLogs = true;
  ProtectKernelModules = true;
  ProtectKernelTunables = true;
  LockPersonality = true;
  MemoryDenyWriteExecute = !jit;
  RestrictNamespaces = true;
  RestrictRealtime = true;

  RestrictAddressFamilies = [
    "AF_INET"
    "AF_INET6"
    "AF_UNIX"
  ];
  SystemCallArchitectures = "native";
  SystemCallFilter = [
    "@system-service"
    "~@privileged @resources"
  ];
  # A call that is refused fails, as it would for want of a privilege; it does not end the process.
  SystemCallErrorNumber = "EPERM";
}
