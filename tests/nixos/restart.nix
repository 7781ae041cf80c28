# Whatever is killed comes back; what never works is tried less and less often, and seen.
{ ... }:
{
  name = "restart";
  mesh = ./one-machine;
  script = ''
    start_shop()
    one = members["one"]
    open_shop("alice", "carol")
    chair = new_item(1000)

    def kill(unit):
        pid = property_of(one, unit, "MainPID")
        one.succeed(f"kill -9 {pid}")
        return pid

    def is_back(unit, pid):
        one.wait_until_succeeds(f"systemctl is-active {unit} && test $(systemctl show -P MainPID {unit}) != {pid}")

    own = "/run/credentials/gateway@1.service"
    metrics = f"curl -sk --cert {own}/tls-cert.pem --key {own}/tls-key.pem https://one.eshop.internal:8080/metrics"

    def both_are_up(service):
        """As the gateway sees it, which is later than systemd does. It keeps two connections to an instance."""
        one.wait_until_succeeds(f"{metrics} | grep -x 'upstream_links{{service=\"{service}\",state=\"up\"}} 4'")

    with subtest("one of two instances is killed: no read fails, and it is back"):
        one.succeed("systemctl reset-failed")
        for service, path in [("item-management", f"/items/{chair}"), ("eshop-documents", "/documents")]:
            for index in [1, 2]:
                both_are_up(service)
                pid = kill(f"{service}@{index}")
                for _ in range(10):
                    expect(200, "GET", path, "carol")
                is_back(f"{service}@{index}", pid)

    with subtest("whatever stands alone is back by itself, and orders go on"):
        for unit in ["gateway@1", "identity@1", "nats", "item-management-db", "eshop-documents-db", "identity-db"]:
            is_back(unit, kill(unit))
        until("an answer", lambda: answers(f"/items/{chair}", "carol"))
        until("keys", lambda: answers("/identity/.well-known/jwks.json"))

        def confirmed():
            body = {"kind": "order", "lines": [{"item_id": chair, "quantity": 1}]}
            status, document = ask("POST", "/documents", "alice", body, [f"Idempotency-Key: again-{time.monotonic_ns()}"])
            return True if status in (201, 202) and decided(document["id"]) == "CONFIRMED" else None

        until("a confirmed order", confirmed)

    with subtest("while the gateway restarts clients wait and are not refused"):
        one.execute("systemctl restart gateway@1 >&2 &")
        for _ in range(5):
            expect(200, "GET", f"/items/{chair}", "carol")

    with subtest("what never works backs off, does not give up, and is seen"):
        one.succeed("mkdir -p /run/systemd/system/item-management@3.service.d")
        one.succeed("printf '[Service]\\nExecStart=\\nExecStart=/run/current-system/sw/bin/false\\n' >/run/systemd/system/item-management@3.service.d/broken.conf")
        one.succeed("systemctl daemon-reload", "systemctl start --no-block item-management@3")
        restarts = "systemctl show -P NRestarts item-management@3"
        one.wait_until_succeeds(f"test $({restarts}) -ge 6")
        one.succeed("systemctl show -P SubState item-management@3 | grep auto-restart")
        one.succeed("systemctl show -P Result item-management@3 | grep exit-code")
        delays = [float(second) for second in one.succeed(
            "journalctl -u item-management@3 -o json --output-fields=MESSAGE,__REALTIME_TIMESTAMP |"
            " grep 'Scheduled restart job' | grep -o '__REALTIME_TIMESTAMP\":\"[0-9]*' | grep -o '[0-9]*$'"
        ).split()]
        gaps = [later - earlier for earlier, later in zip(delays, delays[1:])]
        assert gaps[-1] > 2 * gaps[0], gaps
        one.succeed("rm -r /run/systemd/system/item-management@3.service.d", "systemctl daemon-reload")
        one.wait_until_succeeds("systemctl is-active item-management@3")
  '';
}
