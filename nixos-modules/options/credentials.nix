{ config, lib, ... }:
let
  inherit (lib) mkOption types;
in
{
  options.berth.credentials = {
    source = mkOption {
      type = types.enum [
        "encrypted"
        "files"
        "host"
      ];
      default = "encrypted";
      description = ''
        Where units get their secrets from. A credential `NAME` of `OWNER` (a service, a database or `nats`) is called `berth.OWNER.NAME`, as in
        `berth.gateway.tls-key.pem`:

        - `encrypted`: {file}`/etc/credstore.encrypted/`, sealed by systemd-creds with the machine's own key or TPM, or handed over by the host in
          that form. `berth secrets export NODE | ssh root@NODE berth-credentials` puts them there.
        - `host`: handed to the machine by what runs it: SMBIOS or fw_cfg for a virtual machine, `--load-credential=` for a container.
        - `files`: {file}`/etc/credstore/` or {file}`/run/credstore/`, put there by another tool for secrets.

        None of them reaches the Nix store, an environment or a command line.
      '';
    };
  };
}
