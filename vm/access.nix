# Who gets in: ssh with a key, nothing else. The serial console shows; it lets in only whom a password set by the operator lets in.
{ ... }:
{
  services.openssh = {
    enable = true;
    hostKeys = [
      {
        path = "/etc/ssh/ssh_host_ed25519_key";
        type = "ed25519";
      }
    ];
    settings = {
      PasswordAuthentication = false;
      KbdInteractiveAuthentication = false;
      PermitRootLogin = "prohibit-password";
    };
  };

  # A key of the one who starts the machine: the credential `ssh.authorized_keys.root`, as systemd knows it.
  systemd.tmpfiles.settings."10-berth-access" = {
    "/root/.ssh".d.mode = "0700";
    "/root/.ssh/authorized_keys"."f^" = {
      mode = "0600";
      argument = "ssh.authorized_keys.root";
    };
  };

  users.mutableUsers = false;
  # No password is no oversight here.
  users.allowNoPasswordLogin = true;
}
