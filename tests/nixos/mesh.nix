# All nodes of the shop: an order goes through, and nobody gets in who must not.
{ ... }:
{
  name = "mesh";
  script = ''
    with subtest("machines wait for their credentials"):
        start_all()
        edge = members["edge"]
        edge.wait_for_unit("multi-user.target")
        edge.wait_until_succeeds("systemctl show -P NRestarts gateway@1 | grep -v '^0$'")

    with subtest("with them the whole mesh comes up"):
        start_shop()
        open_shop("alice", "carol", "mallory")

    with subtest("instances are where the plan says, up to the number that is started"):
        running = "systemctl list-units --plain --no-legend --state=running 'item-management@*' 'eshop-documents@*' | cut -d' ' -f1"
        assert members["items-1"].succeed(running).split() == ["item-management@1.service"]
        assert members["documents-2"].succeed(running).split() == ["eshop-documents@2.service"]

    with subtest("an order is confirmed and its stock taken: events reached each of their consumers"):
        chair = new_item(3)
        assert decided(order(chair, 2)) == "CONFIRMED"
        stock_becomes(chair, (1, 0))
        assert decided(order(chair, 2)) == "REJECTED"
        stock_becomes(chair, (1, 0))

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

    with subtest("past the gateway nothing answers"):
        # By the firewall from outside, by mutual TLS from inside.
        items = members["items-1"]
        address = items.succeed("getent ahostsv4 items-1.eshop.internal | cut -d' ' -f1 | grep -v '^127' | head -1").strip()
        operator.fail(f"curl -sk --max-time 3 https://{address}:8200/readyz")
        edge.fail("curl -sk --max-time 3 https://items-1.eshop.internal:8200/items")
        assert edge.execute("timeout 3 bash -c '</dev/tcp/items-1.eshop.internal/8200'")[0] == 0
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
