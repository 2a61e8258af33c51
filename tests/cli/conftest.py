"""A small real agent: HTTP on a unix socket, answering from a table, remembering requests."""

from __future__ import annotations

import json
import socket
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))


@dataclass(slots=True)
class Call:
    method: str
    path: str
    params: dict[str, str]
    body: Any


@dataclass
class SmallAgent:
    """``answers`` maps "METHOD /path" to a value, to (status, value), to bytes to stream, or to a
    function that returns one of these."""

    path: Path
    answers: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    def last(self) -> Call:
        return self.calls[-1]


class UnixServer(HTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)

    def get_request(self):
        request, _ = self.socket.accept()
        return request, ("client", 0)


def handler_of(agent: SmallAgent) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def answer(self):
            url = urlsplit(self.path)
            size = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(size)) if size else None
            params = {name: values[-1] for name, values in parse_qs(url.query).items()}
            agent.calls.append(Call(self.command, url.path, params, body))
            missing = (404, {"error": {"message": f"{url.path}: not found", "problems": []}})
            found = agent.answers.get(f"{self.command} {url.path}", missing)
            found = found() if callable(found) else found
            status, value = found if isinstance(found, tuple) else (200, found)
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in agent.headers.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

    return Handler


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("SIXFOLD_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("SIXFOLD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("SIXFOLD_INSTANCE", raising=False)
    return tmp_path


@pytest.fixture
def agent(run_dir):
    small = SmallAgent(run_dir / "api.sock", {"GET /v1/fqdn": {"entries": []}})
    server = UnixServer(str(small.path), handler_of(small))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield small
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def sixfold(run_dir):
    """Run a command line; the result has exit_code, stdout and stderr."""
    from sixfold.cli.root import cli

    def invoke(*args: str, stdin: str | None = None, color: bool = False):
        return CliRunner().invoke(cli, args, input=stdin, color=color, prog_name="sixfold")

    return invoke
