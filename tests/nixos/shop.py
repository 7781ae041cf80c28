# What every test of the shop does: make the secrets, hand them out, log in, ask the gateway.
import base64
import json
import shlex
import time

members = {machine.name: machine for machine in machines if machine.name != "operator"}


def hand_over(node):
    """Gives a machine its credentials, as an operator would through ssh."""
    archive = operator.succeed(f"berth --mesh /root/mesh secrets export {node} | base64 -w0")
    # In pieces that fit a command line.
    machine = members[node]
    machine.succeed("rm -f /run/archive")
    for start in range(0, len(archive), 60000):
        machine.succeed(f"printf %s {archive[start:start + 60000]} >>/run/archive")
    machine.succeed("base64 -d /run/archive | berth-credentials >&2; rm /run/archive")


def make_secrets():
    operator.succeed("mkdir -p /root/mesh && cp -L /etc/mesh/mesh.toml /root/mesh/")
    operator.succeed("berth --mesh /root/mesh secrets init --demo-users >&2")


def start_shop():
    start_all()
    operator.wait_for_unit("multi-user.target")
    make_secrets()
    for node in NODES:
        members[node].wait_for_unit("multi-user.target")
        hand_over(node)
    for node in NODES:
        members[node].wait_for_unit("berth.target")


def log_in(user):
    """A header file for curl: what stands in a command line can be read by everybody on the machine."""
    operator.wait_until_succeeds(
        f"(umask 077; echo \"Authorization: Bearer $(berth --mesh /root/mesh token --nodes --user {user})\" >/root/{user}.next)"
        f" && grep -q ' ey' /root/{user}.next && mv /root/{user}.next /root/{user}"
    )


def open_shop(*users):
    """Logs the users in, and waits until each part answers carol, who is one of them."""
    for user in users:
        log_in(user)
    for path in ["/items", "/documents"]:
        until(f"an answer of {path}", lambda: answers(path, "carol"))


def ask(method, path, user=None, body=None, headers=()):
    """Status and body of a request of the outside world; status 0 when there was no answer."""
    words = ["curl", "-sS", "--max-time", "30", "--cacert", "/root/mesh/.berth/ca.pem", "-X", method, "-w", "\n%{http_code}"]
    for header in headers:
        words += ["-H", header]
    if user:
        words += ["-H", f"@/root/{user}"]
    if body is not None:
        words += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    _, answer = operator.execute(" ".join(shlex.quote(word) for word in [*words, URL + path]))
    text, status = answer.rsplit("\n", 1)
    return int(status), json.loads(text) if text.startswith(("{", "[")) else None


def expect(wanted, *request, **more):
    status, body = ask(*request, **more)
    assert status == wanted, f"{request}: {status} instead of {wanted}: {body}"
    return body


def until(what, check, seconds=120):
    """Asks until there is an answer that is not None."""
    deadline = time.monotonic() + seconds
    while True:
        answer = check()
        if answer is not None:
            return answer
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.5)


number = 0


def new_item(stock):
    global number
    number += 1
    item = {"sku": f"SKU-{number}", "name": "A chair", "price": {"amount": 1999, "currency": "EUR"}, "stock_on_hand": stock}
    return expect(201, "POST", "/items", "carol", item)["id"]


def order(item, quantity):
    """Alice orders; returns the document as it was taken down."""
    global number
    number += 1
    body = {"kind": "order", "lines": [{"item_id": item, "quantity": quantity}]}
    status, document = ask("POST", "/documents", "alice", body, [f"Idempotency-Key: key-{number}-{'0' * 16}"])
    assert status in (201, 202), (status, document)
    return document["id"]


def decided(document):
    """The outcome of an order, once there is one."""

    def state():
        status, body = ask("GET", f"/documents/{document}", "alice")
        return body["state"] if status == 200 and body["state"] != "PENDING" else None

    return until(f"a decision on {document}", state)


def stock(item):
    body = expect(200, "GET", f"/items/{item}", "carol")
    return body["stock_on_hand"], body["stock_reserved"]


def stock_becomes(item, wanted):
    until(f"stock {wanted}", lambda: True if stock(item) == wanted else None)


def answers(path, user=None):
    """For `until`: whether a GET succeeds."""
    return True if ask("GET", path, user)[0] == 200 else None


def property_of(machine, unit, name):
    return machine.succeed(f"systemctl show -P {name} {unit}").strip()
