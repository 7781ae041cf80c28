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
  options.berth.events = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether the event bus is on this machine: NATS as the plan has it, with JetStream that writes to disk before it acknowledges, mutual TLS, and
        a user for each service that may do what the plan lists and nothing else.
      '';
    };
    server = mkOption {
      type = types.str;
      default = "nats";
      description = "Its name, which is that of its unit.";
    };
    port = mkOption {
      type = types.port;
      default = 4222;
      description = "The port it listens on.";
    };
    memory = mkOption {
      type = berthTypes.bytes;
      default = "256MiB";
      description = "The most memory it may use.";
    };
    cpu = mkOption {
      type = types.numbers.positive;
      default = 1;
      description = "The most processor time it may use, in cores.";
    };
    credentials = mkOption {
      type = berthTypes.credentials;
      default = [ ];
      description = "The files it finds in `$CREDENTIALS_DIRECTORY`.";
    };
    package = lib.mkPackageOption pkgs "nats-server" { };
  };
}
