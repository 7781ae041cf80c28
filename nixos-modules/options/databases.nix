{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  berthTypes = import ../types.nix { inherit lib; };
in
{
  options.berth.databases = mkOption {
    type = types.attrsOf (
      types.submodule {
        options = {
          owner = mkOption {
            type = types.str;
            description = "The one service that may connect: with its password, and a certificate of the mesh in its name.";
          };
          port = mkOption {
            type = types.port;
            description = "The port it listens on.";
          };
          memory = mkOption {
            type = berthTypes.bytes;
            description = "The most memory it may use; PostgreSQL's own settings follow from the plan's.";
          };
          cpu = mkOption {
            type = types.numbers.positive;
            description = "The most processor time it may use, in cores.";
          };
          credentials = mkOption {
            type = berthTypes.credentials;
            default = [ ];
            description = "The files it finds in `$CREDENTIALS_DIRECTORY`.";
          };
          package = lib.mkPackageOption pkgs "postgresql" { };
        };
      }
    );
    default = { };
    description = ''
      The PostgreSQL servers on this machine, one for each owner, as units of their names. They are what the plan says: one role, one database,
      TLS with client certificates alone, data checksums.
    '';
  };
}
