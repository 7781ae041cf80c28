"""A service for Berth in Python, with nothing but the standard library."""

import hashlib
import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# A credential is a file; its value never stands in an environment, an argument or a log.
GREETING = Path(os.environ["CREDENTIALS_DIRECTORY"], "greeting").read_bytes()


class Hello(BaseHTTPRequestHandler):
    # With 1.1 a connection is kept, and the gateway need not make one for each request.
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/readyz":
            self.answer(200, {"ready": True})
        elif path == "/python/hello":
            self.answer(200, {
                # Containers of one service share their environment, and have names of their own.
                "instance": os.environ.get("BERTH_INSTANCE") or os.environ["HOSTNAME"],
                "credential": hashlib.sha256(GREETING).hexdigest()[:12],
                "caller": self.headers.get("x-forwarded-for"),
            })
        else:
            self.answer(404, {"error": "not found"})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        """The gateway logs every request already."""


server = ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Hello)
# `shutdown` waits for the loop that this handler interrupts, so it needs a thread of its own.
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(poll_interval=0.1)
