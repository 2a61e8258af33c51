"""A web server for tests: says who it is and what it was asked. ``web.py NAME [EVERY]``.

EVERY  each so manieth request is answered 503 first

``/be/STATUS`` has it answer so from now on; ``/go`` has it answer who waits at ``/wait``, or at
``/wait/NAME``, by then; ``/held`` says how many do. ``/asked`` how often each path was asked for.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME, EVERY = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
TURNS = itertools.count(1)
WAITING: list[threading.Event] = []
ASKED: list[str] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one write: else Nagle waits 40 ms for the client's ACK
    status = 200

    def answer(self) -> None:
        status = Handler.status
        ASKED.append(self.path)
        match self.path.split("/"):
            case ["", "be", text]:
                Handler.status, status = int(text), 200
            case ["", "go"]:
                while WAITING:
                    WAITING.pop().set()
                status = 200
            case ["", "wait", *names] if names in ([], [NAME]):
                WAITING.append(threading.Event())
                WAITING[-1].wait(30)
            case _ if EVERY and next(TURNS) % EVERY == 0:
                status = 503
        headers = {name.lower(): value for name, value in self.headers.items()}
        said = {"name": NAME, "path": self.path, "from": self.client_address[0], "headers": headers}
        said["held"] = len(WAITING)
        if self.path == "/asked":
            said["asked"] = Counter(ASKED)
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_OPTIONS = answer

    def log_message(self, *_: object) -> None:
        pass


ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
