"""A consumer of the shop's events in Python: it counts the orders of each customer, every order once.

What it shows is how a program that knows nothing of Berth's libraries is fed by the same events:

- who it is and whom it may believe are files in $CREDENTIALS_DIRECTORY: its certificate and key, the mesh's authority, its NATS key;
- where the event bus is, and what it consumes of which stream, stands in $BERTH_EVENTS_URL and $BERTH_CONSUMES;
- a durable pull consumer is named like the service, so that its instances share it, and a message is acknowledged after the commit of
  its effect: what was not acknowledged comes again;
- so a message may come twice. Its id is written in the transaction of its effect, and one that is known already has no second one.
"""

import asyncio
import json
import os
import signal
import sqlite3
import ssl
from contextlib import closing
from pathlib import Path

import nats
from nats.errors import TimeoutError as NothingToRead
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

SERVICE = os.environ["BERTH_SERVICE"]
CREDENTIALS = Path(os.environ["CREDENTIALS_DIRECTORY"])
EVENT_BUS = f"spiffe://{os.environ['BERTH_DOMAIN']}/nats"
SCHEMA = """
    CREATE TABLE IF NOT EXISTS handled (id TEXT PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, customer TEXT NOT NULL, state TEXT NOT NULL);
"""


class Verified(ssl.SSLObject):
    """Certificates of the mesh name services and not hosts, so it is the service that must be right."""

    def do_handshake(self):
        super().do_handshake()
        names = (self.getpeercert() or {}).get("subjectAltName", ())
        if ("URI", EVENT_BUS) not in names:
            raise ssl.SSLCertVerificationError(f"the server is not {EVENT_BUS}")


def mutual_tls():
    context = ssl.create_default_context(cafile=CREDENTIALS / "mesh-ca.pem")
    context.check_hostname = False
    context.load_cert_chain(CREDENTIALS / "tls-cert.pem", CREDENTIALS / "tls-key.pem")
    context.sslobject_class = Verified
    return context


def consumed():
    """`items=items.item.* documents=documents.order.*,documents.invoice.*` as (stream, subjects)."""
    for word in os.environ["BERTH_CONSUMES"].split():
        stream, subjects = word.split("=")
        yield stream, subjects.split(",")


class Orders:
    """What is known of the orders, in a file that outlives the process."""

    def __init__(self, path):
        self.database = sqlite3.connect(path)
        self.database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + SCHEMA)

    def apply(self, event):
        """The effect of an event, once."""
        with self.database:
            known = self.database.execute("INSERT OR IGNORE INTO handled VALUES (?)", (event["id"],))
            if known.rowcount == 0:
                return
            aggregate, _, happened = event["type"].partition(".")[2].partition(".")
            if aggregate == "order":
                row = (event["aggregateid"], event["data"]["customer"], happened)
                self.database.execute("INSERT INTO orders VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET state = excluded.state", row)

    def summary(self):
        rows = self.database.execute("SELECT customer, state, count(*) FROM orders GROUP BY customer, state")
        with closing(rows):
            counts = [{"customer": customer, "state": state, "orders": count} for customer, state, count in rows]
        events, = self.database.execute("SELECT count(*) FROM handled").fetchone()
        return {"events": events, "orders": counts}


async def consume(jetstream, stream, subjects, orders):
    """Takes what comes until it is cancelled. The stream may not be there yet: whoever emits makes it."""
    filters = {"filter_subject": subjects[0]} if len(subjects) == 1 else {"filter_subjects": subjects}
    config = ConsumerConfig(
        name=SERVICE, durable_name=SERVICE, ack_policy=AckPolicy.EXPLICIT, deliver_policy=DeliverPolicy.ALL, ack_wait=10, **filters
    )
    while True:
        try:
            await jetstream.add_consumer(stream, config)
            subscription = await jetstream.pull_subscribe_bind(consumer=SERVICE, stream=stream)
            while True:
                try:
                    messages = await subscription.fetch(batch=50, timeout=5)
                except NothingToRead:
                    continue
                for message in messages:
                    await handle(message, orders)
        except nats.errors.Error as error:
            print(json.dumps({"level": "WARN", "stream": stream, "message": f"subscribing anew: {error}"}), flush=True)
            await asyncio.sleep(1)


async def handle(message, orders):
    try:
        event = json.loads(message.data)
        if event["specversion"] != "1.0":
            raise ValueError(f"CloudEvents {event['specversion']}")
        orders.apply(event)
    except (ValueError, KeyError, TypeError) as error:
        # It can never be handled: kept in the log for a person, and not delivered again.
        print(json.dumps({"level": "ERROR", "message": f"no event: {error!r}", "payload": message.data.decode("utf-8", "replace")}), flush=True)
        await message.term()
    except sqlite3.Error as error:
        print(json.dumps({"level": "WARN", "message": f"not written, to be tried again: {error}"}), flush=True)
        await message.nak(delay=1)
    else:
        await message.ack()


async def answer(reader, writer, orders, client):
    """A line of HTTP/1.1 is enough: `/readyz` for the mesh, everything else is the summary."""
    try:
        line = await asyncio.wait_for(reader.readline(), 5)
        while (await asyncio.wait_for(reader.readline(), 5)).strip():
            pass
        path = line.split()[1:2]
        ready = client.is_connected
        status, body = ("200 OK", orders.summary()) if ready or path != [b"/readyz"] else ("503 Service Unavailable", {"ready": False})
        text = json.dumps(body).encode()
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + text)
        await writer.drain()
    except (OSError, asyncio.TimeoutError, ValueError):
        pass
    finally:
        writer.close()


async def main():
    orders = Orders(Path(os.environ["STATE_DIRECTORY"], "orders.sqlite"))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    client = await nats.connect(
        os.environ["BERTH_EVENTS_URL"],
        tls=mutual_tls(),
        nkeys_seed_str=(CREDENTIALS / "nats-seed").read_text(),
        # The only place a service may listen for answers.
        inbox_prefix=f"_INBOX_{SERVICE}",
        name=os.environ["BERTH_INSTANCE"],
        max_reconnect_attempts=-1,
        reconnect_time_wait=1,
    )
    jetstream = client.jetstream()
    consumers = [asyncio.create_task(consume(jetstream, stream, subjects, orders)) for stream, subjects in consumed()]
    server = await asyncio.start_server(lambda r, w: answer(r, w, orders, client), os.environ["HOST"], int(os.environ["PORT"]))
    # A consumer that ends did so for a reason nobody foresaw: then so does the program, and is started again.
    ended, _ = await asyncio.wait([*consumers, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    server.close()
    for task in consumers:
        task.cancel()
    await client.close()
    for task in ended:
        task.result()


asyncio.run(main())
