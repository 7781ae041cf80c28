# PostgreSQL, a server of its own for each owner. How it is made and configured stands in `crates/servers`, for all runners alike.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.berth;
  server = import ./servers.nix { inherit config lib pkgs; };
  planned = name: lib.findFirst (database: database.name == name) null cfg.mesh.databases;
in
{
  config = lib.mkIf (cfg.databases != { }) {
    assertions = lib.mapAttrsToList (name: _: {
      assertion = cfg.plan != null && planned name != null;
      message = "berth.databases.${name} is no database of berth.plan: declare it in mesh.toml, and write the plan anew with `berth lock`.";
    }) cfg.databases;

    systemd.services = lib.mapAttrs (
      name: database:
      lib.mkMerge [
        (server name (database // { planned = planned name; }))
        {
          # The server dies last of its processes: a backend that is killed for memory is no end of the database.
          environment = {
            PG_OOM_ADJUST_FILE = "/proc/self/oom_score_adj";
            PG_OOM_ADJUST_VALUE = "0";
          };
          serviceConfig = {
            Type = "notify";
            # Its way to say: end at once, but in order.
            KillSignal = "SIGINT";
            OOMScoreAdjust = -900;
            OOMPolicy = "continue";
          };
        }
      ]
    ) cfg.databases;
  };
}
