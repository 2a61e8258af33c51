"""HTTP over the agent's unix socket; errors as the agent words them."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from sixfold.errors import HostError, ManifestError, Problem, SixfoldError, UnavailableError

READ_BYTES = 64 * 1024
Params = Mapping[str, str | int | float]


class ApiError(SixfoldError):
    """The agent refused; ``status`` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        self.status = status
        super().__init__(message)


class NotRunningError(UnavailableError):
    """Nobody answers at the socket."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("sixfold", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass(frozen=True, slots=True)
class Client:
    """One agent. Each call is its own connection: commands are short."""

    socket: Path
    timeout_s: float = 30.0

    def get(self, path: str, params: Params | None = None) -> Any:
        """The JSON answer to a GET."""
        with self._request("GET", _target(path, params), timeout_s=self.timeout_s) as response:
            return json.loads(self._read(response))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON answer to a POST; waits longer than the body's own ``timeout_s``, if any."""
        wait_s = self.timeout_s + float(body.get("timeout_s", 0))
        with self._request("POST", path, json.dumps(body).encode(), wait_s) as response:
            return json.loads(self._read(response) or b"{}")

    def read(self, method: str, path: str, params: Params) -> bytes:
        """The answer as it is."""
        with self._request(method, _target(path, params), timeout_s=self.timeout_s) as response:
            return self._read(response)

    @contextmanager
    def stream(
        self, path: str, params: Params | None = None
    ) -> Iterator[tuple[Mapping[str, str], Iterator[bytes]]]:
        """Headers and lines of an answer that may never end."""
        with self._request("GET", _target(path, params)) as response:
            yield dict(response.headers), self._lines(response)

    def objects(self, kind: str, namespace: str = "", name: str = "") -> list[dict[str, Any]]:
        """Objects of one kind; no namespace means all of them."""
        steps = [kind]
        if namespace or name:
            steps.append(namespace or "-")
        if name:
            steps.append(name)
        found: list[dict[str, Any]] = self.get(path_of("objects", *steps))["items"]
        return found

    @contextmanager
    def _request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        connection = _UnixConnection(self.socket, timeout_s)
        try:
            try:
                connection.request(method, target, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
            except (FileNotFoundError, ConnectionRefusedError):
                raise NotRunningError(
                    f"{self.socket}: agent not running; start it with 'sudo sixfold up'"
                ) from None
            except PermissionError:
                raise HostError(
                    f"{self.socket}: EACCES: only its owner may talk to the agent; use sudo"
                ) from None
            except TimeoutError:
                raise UnavailableError(
                    f"{self.socket}: no answer in {timeout_s:.0f} s; see sixfold status and "
                    "the agent's log"
                ) from None
            except (http.client.HTTPException, ConnectionError) as error:
                raise self._gone(error) from None
            except OSError as error:
                raise HostError(f"{self.socket}: {error.strerror or error}") from None
            if response.status >= 400:
                raise _error(response.status, self._read(response))
            yield response
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read()
        except (http.client.HTTPException, OSError) as error:
            raise self._gone(error) from None

    def _lines(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """Lines as they come. Only reading is guarded: a broken pipe of ours is not theirs.

        Not ``readline``: it takes a connection that breaks for the end of the answer.
        """
        rest = b""
        while True:
            try:
                chunk = response.read1(READ_BYTES)
            except (http.client.HTTPException, OSError) as error:
                raise self._gone(error) from None
            if not chunk:
                break
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line + b"\n" for line in lines)
        if rest:
            yield rest

    def _gone(self, error: Exception) -> UnavailableError:
        name = type(error).__name__
        return UnavailableError(f"{self.socket}: agent went away ({name}); see its log")


def path_of(*steps: str) -> str:
    """``/v1/a/b`` with each step quoted."""
    return "/v1/" + "/".join(quote(step, safe="") for step in steps)


def _target(path: str, params: Params | None) -> str:
    return f"{path}?{urlencode(params)}" if params else path


def _error(status: int, body: bytes) -> SixfoldError:
    """The agent's error as an exception: problems of manifests stay what they are."""
    try:
        error = json.loads(body)["error"]
        problems = [
            Problem(p.get("source", ""), p.get("line", 0), p.get("path", ""), p["message"])
            for p in error.get("problems") or ()
        ]
        message = str(error["message"])
    except (ValueError, KeyError, TypeError):
        text = body.decode(errors="replace").strip()
        return ApiError(f"agent answered {status}: {text or 'nothing'}; see its log", status)
    return ManifestError(problems) if problems else ApiError(message, status)
