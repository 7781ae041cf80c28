# All nodes of the shop: an order goes through and everybody hears of it, and nobody gets in who must not.
{ pkgs, ... }:
let
  # A subscriber: keeps each message that is posted to it, a line each.
  hooks = 9000;
  subscriber = pkgs.writeText "subscriber.py" ''
    import http.server


    class Subscriber(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            message = self.rfile.read(int(self.headers["Content-Length"]))
            with open("/root/told", "ab") as told:
                told.write(message + b"\n")
            self.send_response(204)
            self.end_headers()


    http.server.HTTPServer(("", ${toString hooks}), Subscriber).serve_forever()
  '';
in
{
  name = "mesh";
  machines = {
    # Subscribers of a shop are on the public internet, which is not here.
    office.berth.services.notifier.environment.NOTIFIER_ALLOWED_NETWORKS = "192.168.0.0/16";
    operator = {
      networking.firewall.allowedTCPPorts = [ hooks ];
      systemd.services.subscriber = {
        wantedBy = [ "multi-user.target" ];
        serviceConfig.ExecStart = "${pkgs.python3}/bin/python3 ${subscriber}";
      };
    };
  };
  script = ''
    with subtest("machines wait for their credentials"):
        start_all()
        edge = members["edge"]
        edge.wait_for_unit("multi-user.target")
        edge.wait_until_succeeds("systemctl show -P NRestarts gateway@1 | grep -v '^0$'")

    with subtest("with them the whole mesh comes up"):
        start_shop()
        open_shop("alice", "carol", "dave", "mallory", "admin")

    with subtest("instances are where the plan says, up to the number that is started"):
        running = "systemctl list-units --plain --no-legend --state=running 'item-management@*' 'eshop-documents@*' | cut -d' ' -f1"
        assert members["items-1"].succeed(running).split() == ["item-management@1.service"]
        assert members["documents-2"].succeed(running).split() == ["eshop-documents@2.service"]

    def audited(document):
        """What dave reads of it in the audit, the newest first."""
        status, page = ask("GET", f"/audit?subject=order/{document}", "dave")
        return [entry["type"] for entry in page["items"]] if status == 200 else None

    def told(document):
        """What a subscriber was told of it; of an event twice when nobody knows whether it got there the first time."""
        messages = [json.loads(line) for line in operator.succeed("cat /root/told 2>/dev/null || true").splitlines()]
        return {message["type"] for message in messages if message["data"].get("order_id") == document}

    confirmed = ["documents.order.confirmed", "documents.order.placed"]

    with subtest("an order is confirmed and its stock taken: events reached each of their consumers"):
        until("an answer of the audit", lambda: answers("/audit", "dave"))
        until("an answer of the notifier", lambda: answers("/subscriptions", "alice"))
        wish = {"url": "http://operator:${toString hooks}/hooks", "event_types": ["documents.order.*"]}
        expect(201, "POST", "/subscriptions", "alice", wish)
        chair = new_item(4)
        first = order(chair, 2)
        assert decided(first) == "CONFIRMED"
        stock_becomes(chair, (2, 0))
        assert decided(order(chair, 3)) == "REJECTED"
        stock_becomes(chair, (2, 0))
        until("the order in the audit", lambda: True if audited(first) == confirmed else None)
        until("messages to the subscriber", lambda: True if told(first) == set(confirmed) else None)

    with subtest("audit and notifier are killed: what happens meanwhile reaches them when they are back"):
        office = members["office"]
        killed = {unit: property_of(office, unit, "MainPID") for unit in ["audit@1", "notifier@1"]}
        office.succeed(f"kill -9 {' '.join(killed.values())}")
        second = order(chair, 1)
        assert decided(second) == "CONFIRMED"
        for unit, pid in killed.items():
            office.wait_until_succeeds(f"systemctl is-active {unit} && test $(systemctl show -P MainPID {unit}) != {pid}")
        until("the order in the audit", lambda: True if audited(second) == confirmed else None)
        until("messages to the subscriber", lambda: True if told(second) == set(confirmed) else None)
        assert expect(200, "GET", "/audit/verify", "dave")["verified"]

    with subtest("another copy is started without any change of the configuration, and gets traffic"):
        members["items-1"].succeed("systemctl start item-management@3")
        members["items-1"].succeed("systemctl stop item-management@1")
        members["items-2"].succeed("systemctl stop item-management@2")
        until("an answer of the third", lambda: answers("/items", "carol"))
        members["items-1"].succeed("systemctl start item-management@1")
        members["items-2"].succeed("systemctl start item-management@2")

    with subtest("without a token, with a forged one, with the wrong role"):
        expect(401, "GET", "/items")
        operator.succeed("sed 's/.\\{8\\}$/AAAAAAAA/' /root/alice >/root/forged")
        expect(401, "GET", "/items", "forged")
        chair_of_alice = {"sku": "X", "name": "X", "price": {"amount": 1, "currency": "EUR"}, "stock_on_hand": 1}
        expect(403, "POST", "/items", "alice", chair_of_alice)
        expect(403, "GET", "/documents", "mallory")
        expect(403, "GET", "/subscriptions", "mallory")
        for watched in ["alice", "carol", "admin"]:
            expect(403, "GET", "/audit", watched)

    with subtest("whoever was refused is in the audit"):
        for kind, subject in [("audit", "Audit/audit"), ("items", "Catalogue/items"), ("gateway", "GET /items")]:
            path = f"/audit?type={kind}.access.refused&limit=100"
            until(
                f"a refusal of {subject}",
                lambda: True if subject in [entry["subject"] for entry in expect(200, "GET", path, "dave")["items"]] else None,
            )

    with subtest("past the gateway nothing answers"):
        # By the firewall from outside; from inside by mutual TLS, and for want of a token that the gateway made.
        items = members["items-1"]
        address = items.succeed("getent ahostsv4 items-1.eshop.internal | cut -d' ' -f1 | grep -v '^127' | head -1").strip()
        operator.fail(f"curl -sk --max-time 3 https://{address}:8200/readyz")
        edge.fail("curl -sk --max-time 3 https://items-1.eshop.internal:8200/items")
        assert edge.execute("timeout 3 bash -c '</dev/tcp/items-1.eshop.internal/8200'")[0] == 0
        own = "/run/credentials/gateway@1.service"
        direct = f"curl -sk --max-time 10 --cert {own}/tls-cert.pem --key {own}/tls-key.pem"
        for path, status in [("readyz", "200"), ("items", "401")]:
            answer = edge.succeed(f"{direct} -o /dev/null -w '%{{http_code}}' https://items-1.eshop.internal:8200/{path}")
            assert answer == status, f"{path}: {answer}"
        for node, port in [("edge", 5433), ("edge", 4222), ("items-1", 5434), ("documents-1", 5433)]:
            members[node].fail(f"timeout 3 bash -c '</dev/tcp/data.eshop.internal/{port}'")
        members["items-1"].succeed("timeout 3 bash -c '</dev/tcp/data.eshop.internal/5433'")

    with subtest("every unit is rated below 2.0"):
        for name, machine in members.items():
            units = machine.succeed(
                "systemctl list-units --plain --no-legend --type=service --state=running | cut -d' ' -f1"
            ).split()
            ours = [unit for unit in units if property_of(machine, unit, "Slice") == "berth.slice"]
            assert ours, name
            for unit in ours:
                machine.succeed(f"systemd-analyze security --threshold=19 --no-pager {unit} | tail -1 >&2")
  '';
}
