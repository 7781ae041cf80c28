# How secrets get to a machine that keeps them sealed: `berth-credentials` takes what `berth secrets export` writes.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.berth;
  refreshes = lib.versionAtLeast config.systemd.package.version "260";
in
{
  config = lib.mkMerge [
    {
      # Everything of the mesh, to start and stop at once.
      systemd.targets.berth = {
        description = "The mesh's part on this machine";
        wantedBy = [ "multi-user.target" ];
      };
    }
    (lib.mkIf (cfg.credentials.source == "encrypted") {
      environment.systemPackages = [
        (pkgs.writeShellApplication {
          name = "berth-credentials";
          runtimeInputs = [
            config.systemd.package
            pkgs.coreutils
            pkgs.diffutils
            pkgs.gnutar
          ];
          # What a reload brings to a running service: nothing, where systemd keeps what it was started with.
          runtimeEnv = {
            RELOADED = lib.optionalString refreshes "tls-cert.pem tls-key.pem mesh-ca.pem public-cert.pem public-key.pem token-issuers.json";
            # The longest that one of the services takes until traffic comes back to it, in seconds.
            SETTLE = toString (
              lib.foldl' lib.max 0 (
                lib.mapAttrsToList (_: service: service.health.interval * 2 / 1000.0) cfg.services
              )
            );
          };
          text = builtins.readFile ./berth-credentials.sh;
        })
      ];
    })
  ];
}
