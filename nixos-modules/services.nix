# A service: a template unit, an instance for each copy, and a target that wants those that are started with the machine.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkIf mapAttrs optionalAttrs;
  cfg = config.berth;
  unit = import ./unit.nix { inherit config lib pkgs; };
  speaks = service: service.protocol == "mesh";

  # A word as systemd reads it: it replaces `${…}` and `$$` itself, and `%` would be one of its specifiers.
  plain = lib.replaceStrings [ "%" ] [ "%%" ];
  word = text: plain (builtins.toJSON text);
  verbatim = mapAttrs (_: plain);
  commandLine =
    name: service:
    let
      artifact =
        if service.package != null then "${service.package}/bin/${name}" else toString service.artifact;
    in
    lib.concatMapStringsSep " " (
      text: word (lib.replaceStrings [ "\${ARTIFACT}" ] [ artifact ] text)
    ) service.command;

  # A plain service does not say when it serves, so it is asked.
  awaitServing =
    { health, ... }:
    let
      path = lib.optionalString (health.path != null) (lib.escapeShellArg health.path);
    in
    unit.await "${lib.getExe' cfg.probe "probe"} 127.0.0.1:$PORT ${path}";

  template = name: service: {
    description = "${name}, instance %i";
    partOf = [ "${name}.target" ];
    after = [ "network.target" ] ++ lib.concatMap unit.unitsOf service.after;
    startLimitIntervalSec = 0;
    # `NAME-rollout` does it, one after the other.
    restartIfChanged = false;
    enableDefaultPath = false;
    inherit (service) path;
    environment = verbatim service.environment;
    serviceConfig =
      unit.hardening { inherit (service) jit; }
      // unit.limits { inherit (service) memory cpu; }
      // unit.restart
      // unit.credentials name service.credentials
      // {
        Type = if speaks service then "notify-reload" else "exec";
        ExecStart = commandLine name service;
        Restart = "on-failure";
        # An end by one of the signals that ask for it is no failure, also where a runtime makes an exit code of it.
        SuccessExitStatus = "129 130 141 143";
        OOMPolicy = "kill";
        KillMode = "mixed";
        TimeoutStartSec = "90s";
        TimeoutStopSec = "${toString service.stopTimeout}ms";
        StateDirectory = "berth/%p-%i";
        StateDirectoryMode = "0700";
        WorkingDirectory =
          if service.workingDirectory != null then service.workingDirectory else "%S/berth/%p-%i";
      }
      // optionalAttrs (service.path != [ ]) { ExecSearchPath = lib.makeBinPath service.path; }
      // optionalAttrs (speaks service && service.watchdog != null) {
        WatchdogSec = "${toString service.watchdog}ms";
      }
      // optionalAttrs (!speaks service) { ExecStartPost = awaitServing service; };
  };

  instance = instance: {
    overrideStrategy = "asDropin";
    enableDefaultPath = false;
    restartIfChanged = false;
    environment = verbatim instance.environment;
  };

  # When a configuration changes what instances are, they are restarted one after the other, each after the one before is ready; the first that
  # does not come back ends it, and leaves the others as they were.
  rollout = name: service: {
    description = "Changes of ${name}, one instance after the other";
    wantedBy = [ "${name}.target" ];
    reloadTriggers =
      let
        what =
          unit: builtins.toJSON { inherit (config.systemd.services.${unit}) environment serviceConfig; };
      in
      map what ([ "${name}@" ] ++ map (index: "${name}@${index}") (lib.attrNames service.instances));
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = "${pkgs.coreutils}/bin/true";
      ExecReload = "${lib.getExe rolling} ${name} ${unit.settle service}";
      TimeoutStartSec = "infinity";
    };
  };

  rolling = pkgs.writeShellApplication {
    name = "berth-rolling-restart";
    runtimeInputs = [
      config.systemd.package
      pkgs.coreutils
    ];
    text = ''
      systemctl list-units --plain --no-legend --state=active,activating,deactivating "$1@*.service" |
        while read -r unit _; do
          systemctl restart "$unit"
          sleep "$2"
        done
    '';
  };

  target = name: service: {
    description = "${name}, as many instances as are started with the machine";
    wantedBy = [ "berth.target" ];
    partOf = [ "berth.target" ];
    # Said, since systemd would order a target after what it is part of.
    before = [ "berth.target" ];
    wants = unit.unitsOf name;
  };
in
{
  config = mkIf (cfg.services != { }) {
    assertions = lib.concatLists (
      lib.mapAttrsToList (name: service: [
        {
          assertion = (service.package == null) != (service.artifact == null);
          message = "berth.services.${name} needs one of berth.services.${name}.package and berth.services.${name}.artifact, and not both: set what is to be started.";
        }
        {
          assertion = service.replicas.start <= service.replicas.max;
          message = "berth.services.${name}.replicas.start is more than berth.services.${name}.replicas.max: raise `max` or lower `start`.";
        }
        {
          assertion = speaks service || service.watchdog == null;
          message = "berth.services.${name}.watchdog is set, and a plain service never answers it: unset it, or set berth.services.${name}.protocol to \"mesh\".";
        }
      ]) cfg.services
    );

    systemd = {
      services = lib.mkMerge (
        lib.mapAttrsToList (
          name: service:
          {
            "${name}@" = template name service;
            "${name}-rollout" = rollout name service;
          }
          // lib.mapAttrs' (
            index: value: lib.nameValuePair "${name}@${index}" (instance value)
          ) service.instances
        ) cfg.services
      );
      targets = mapAttrs target cfg.services;
    };
  };
}
