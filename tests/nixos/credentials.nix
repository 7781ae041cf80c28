# Secrets: sealed on disk, seen by their owner alone, and changed while requests go on.
{ ... }:
{
  name = "credentials";
  mesh = ./one-machine;
  script = ''
    start_shop()
    one = members["one"]
    open_shop("alice", "carol")
    chair = new_item(10)

    secrets = {
        path.removeprefix("/root/mesh/.berth/credentials/"): operator.succeed(f"cat {path}")
        for path in operator.succeed(
            "find /root/mesh/.berth/credentials -name '*-key*' -o -name '*password*' -o -name '*seed*' -o -name 'bootstrap.json'"
        ).split()
    }
    assert len(secrets) > 20, secrets.keys()

    def mark(path, text):
        """A part of a secret that is nowhere else; the first line of a key begins like that of any other."""
        if path.endswith(".json"):
            return json.loads(text)["users"][0]["password"]
        return max(text.splitlines(), key=len)[-24:]

    one.succeed("umask 077; : >/run/marks")
    for path, text in secrets.items():
        one.succeed(f"echo {shlex.quote(mark(path, text))} >>/run/marks")

    with subtest("on disk they are sealed"):
        names = one.succeed("ls /etc/credstore.encrypted").split()
        assert "berth.gateway.tls-key.pem" in names and len(names) > 30, names
        assert one.succeed("stat -c %a /etc/credstore.encrypted/berth.gateway.tls-key.pem").strip() == "600"
        one.fail("grep -rqFf /run/marks /etc /var 2>/dev/null")
        one.fail("base64 -d /etc/credstore.encrypted/berth.gateway.tls-key.pem | grep -qaFf /run/marks")

    with subtest("neither the configuration nor a process tells them"):
        system = one.succeed("readlink -f /run/current-system").strip()
        one.fail(f"grep -rqFf /run/marks {system}/etc")
        one.fail("systemctl show '*' | grep -qFf /run/marks")
        one.fail("cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -v grep | grep -qFf /run/marks")
        one.fail("journalctl -o cat | grep -qFf /run/marks")

    with subtest("each service finds its own alone"):
        found = one.succeed("ls /run/credentials/gateway@1.service").split()
        assert sorted(found) == ["mesh-ca.pem", "public-cert.pem", "public-key.pem", "tls-cert.pem", "tls-key.pem", "token-key.pem"], found
        one.fail("setpriv --reuid=65534 --regid=65534 --clear-groups ls /run/credentials/gateway@1.service")

    with subtest("taking them again changes nothing and restarts nothing"):
        before = property_of(one, "gateway@1", "InvocationID")
        hand_over("one")
        assert property_of(one, "gateway@1", "InvocationID") == before

    with subtest("new certificates reach the services one after the other, while requests go on"):
        owners = ["item-management", "eshop-documents", "gateway"]
        operator.succeed("touch /root/go")
        operator.succeed(
            "(while test -e /root/go; do"
            f" curl -sS -o /dev/null --max-time 30 --cacert /root/mesh/.berth/ca.pem -H @/root/carol -w '%{{http_code}}\\n' {URL}/items/{chair};"
            " done >/root/answers 2>&1) </dev/null >/dev/null 2>&1 &"
        )
        for owner in owners:
            operator.succeed(f"rm /root/mesh/.berth/credentials/{owner}/tls-key.pem")
        make_secrets()
        hand_over("one")
        for owner in owners:
            new = operator.succeed(f"cat /root/mesh/.berth/credentials/{owner}/tls-key.pem")
            for unit in one.succeed(f"systemctl list-units --plain --no-legend --state=active '{owner}@*.service' | cut -d' ' -f1").split():
                assert one.succeed(f"cat /run/credentials/{unit}/tls-key.pem") == new, unit
        expect(200, "GET", f"/items/{chair}", "carol")
        operator.succeed("rm /root/go")
        answers = operator.succeed("sort /root/answers | uniq -c")
        assert set(operator.succeed("sort -u /root/answers").split()) == {"200"}, answers
  '';
}
