# A server that `berth contained serve` prepares from the plan and then becomes: a database or the event bus.
{
  config,
  lib,
  pkgs,
}:
let
  unit = import ./unit.nix { inherit config lib pkgs; };
  berth = "${lib.getExe' config.berth.package "berth"} contained";
in
name: server: {
  description = "${name} of the mesh";
  wantedBy = [ "berth.target" ];
  partOf = [ "berth.target" ];
  after = [ "network.target" ];
  startLimitIntervalSec = 0;
  stopIfChanged = false;
  enableDefaultPath = false;
  path = [
    server.package
    # initdb asks a shell
    pkgs.bash
    pkgs.coreutils
  ];
  environment.BERTH_PLAN = "/etc/berth/plan.json";
  # Its part of the plan alone: what changes elsewhere is no reason to restart it.
  restartTriggers = [ (builtins.toJSON server.planned) ];
  serviceConfig =
    unit.hardening { }
    // unit.limits { inherit (server) memory cpu; }
    // unit.restart
    // unit.credentials name server.credentials
    // {
      ExecStart = "${berth} serve ${name}";
      # It reads its certificates again, and no connection ends.
      ExecReload = "${lib.getExe pkgs.bash} -c 'kill -HUP $MAINPID'";
      Restart = "always";
      KillMode = "mixed";
      # Room to recover after a crash, and to end in order.
      TimeoutStartSec = lib.mkDefault "5min";
      TimeoutStopSec = "2min";
      StateDirectory = "berth/${name}";
      StateDirectoryMode = "0700";
    };
}
