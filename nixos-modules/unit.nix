# What all units of a mesh have in common, as parts of `serviceConfig`.
{
  config,
  lib,
  pkgs,
}:
{
  hardening = import ./hardening.nix;

  # Of the size that the plan gives. Shortly before the limit what can be given back is taken from it, at the limit it is killed as a whole; swap
  # would only put that off. The band between is narrow, whatever the size: the kernel makes a process that grows in it wait, so that one which
  # leaks would go on there for minutes, alive and of no use.
  limits =
    { memory, cpu }:
    {
      Slice = "berth.slice";
      MemoryMax = memory;
      MemoryHigh = memory - lib.min (memory / 10) (2 * 1024 * 1024);
      MemorySwapMax = 0;
      CPUQuota = "${toString (lib.max 1 (builtins.ceil (cpu * 100)))}%";
      TasksMax = 512;
      LimitNOFILE = 65536;
    };

  # Soon at first, then less and less often, but for ever; goes with `startLimitIntervalSec = 0`.
  restart = {
    RestartSec = "100ms";
    RestartSteps = 8;
    RestartMaxDelaySec = "10s";
  };

  # `owner`'s secrets, under the names it knows them by.
  credentials =
    owner: credentials:
    let
      setting =
        if config.berth.credentials.source == "encrypted" then
          "LoadCredentialEncrypted"
        else
          "LoadCredential";
    in
    {
      ${setting} = map ({ name, ... }: "${name}:berth.${owner}.${name}") credentials;
    }
    # Older versions keep what a unit was started with: there `berth-credentials` restarts it.
    // lib.optionalAttrs (lib.versionAtLeast config.systemd.package.version "260") {
      RefreshOnReload = "credentials";
    };

  # Seconds until whoever balances load has noticed that an instance is back.
  settle = service: toString (service.health.interval * 2 / 1000.0);

  # For `ExecStartPost=`: repeats a question until the answer is yes. A main process that is gone never gives it.
  await =
    question:
    pkgs.writeShellScript "berth-await" ''
      until ${question} 2>/dev/null; do
        kill -0 "$MAINPID" 2>/dev/null || exit 1
        ${pkgs.coreutils}/bin/sleep 0.2
      done
    '';

  # The units on this machine of what is called so in the plan.
  unitsOf =
    name:
    let
      service = config.berth.services.${name} or null;
      started = lib.filterAttrs (_: instance: instance.start) service.instances;
      isServer =
        config.berth.databases ? ${name}
        || (config.berth.events.enable && config.berth.events.server == name);
    in
    if service != null then
      map (index: "${name}@${index}.service") (lib.attrNames started)
    else
      lib.optional isServer "${name}.service";
}
