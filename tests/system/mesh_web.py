"""A web server for tests: says who it is and what it was asked. ``web.py NAME [EVERY]``.

EVERY  each so manieth request is answered 503 first
"""

from __future__ import annotations

import itertools
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME, EVERY = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
TURNS = itertools.count(1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        fails = bool(EVERY) and next(TURNS) % EVERY == 0
        headers = {name.lower(): value for name, value in self.headers.items()}
        said = {"name": NAME, "path": self.path, "from": self.client_address[0], "headers": headers}
        body = json.dumps(said).encode()
        self.send_response(503 if fails else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *_: object) -> None:
        pass


ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
