"""The pod's identity as files, written whole and renewed: for programs that watch files."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from grpclib import GRPCError
from grpclib.client import Channel, UnaryStreamMethod

from sixfold.errors import HostError, UnavailableError
from sixfold.host.paths import Paths
from sixfold.host.whole import write_whole
from sixfold.model.mesh import PROVIDER
from sixfold.serve.workload_api import SERVICE
from sixfold.serve.workload_messages import CLASSES

CALL = f"{SERVICE}/FetchX509SVID"
HEADER = {"workload.spiffe.io": "true"}
AGAIN_S = 1.0  # after the agent went away
WATCHED_EVERY = "5s"


def follow(paths: Paths, directory: Path, *, once: bool) -> None:
    """Until ended, or once; UnavailableError when nobody tells us who we are."""
    os.umask(0o077)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    told = os.environ.get("SPIFFE_ENDPOINT_SOCKET", "").removeprefix("unix:")
    socket = Path(f"/{told.lstrip('/')}") if told else paths.workload_socket
    bootstrap = grpc_bootstrap(socket.with_name("xds.sock"), directory)
    write_whole(directory / "grpc.json", json.dumps(bootstrap, indent=1).encode())
    asyncio.run(_follow(socket, directory, once))


def grpc_bootstrap(xds_socket: Path, directory: Path) -> dict[str, Any]:
    """What gRPC reads from GRPC_XDS_BOOTSTRAP (gRFC A27, A29)."""
    files = {
        "certificate_file": str(directory / "svid.pem"),
        "private_key_file": str(directory / "key.pem"),
        "ca_certificate_file": str(directory / "bundle.pem"),
        "refresh_interval": WATCHED_EVERY,
    }
    server = {
        "server_uri": f"unix:{xds_socket}",
        "channel_creds": [{"type": "insecure"}],
        "server_features": ["xds_v3"],
    }
    return {
        "xds_servers": [server],
        "node": {"id": os.environ.get("HOSTNAME", "")},
        "certificate_providers": {PROVIDER: {"plugin_name": "file_watcher", "config": files}},
    }


async def _follow(socket: Path, directory: Path, once: bool) -> None:
    while True:
        channel = Channel(path=str(socket))
        method = UnaryStreamMethod(
            channel, CALL, CLASSES["X509SVIDRequest"], CLASSES["X509SVIDResponse"]
        )
        try:
            async with method.open(metadata=HEADER) as stream:
                await stream.send_message(CLASSES["X509SVIDRequest"](), end=True)
                async for answer in stream:
                    _write(directory, answer.svids[0])
                    if once:
                        await stream.cancel()
                        return
        except (OSError, GRPCError) as error:
            why = error.message if isinstance(error, GRPCError) else error
            if once:
                raise UnavailableError(
                    f"{socket}: {why}; only processes of pods have one"
                ) from None
        finally:
            channel.close()
        await asyncio.sleep(AGAIN_S)


def _write(directory: Path, svid: Any) -> None:
    """The key first: who reads amid a renewal finds two that do not match, and reads again."""
    key = load_der_private_key(svid.x509_svid_key, None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_whole(directory / "key.pem", pem)
    for name, der in (("svid.pem", svid.x509_svid), ("bundle.pem", svid.bundle)):
        write_whole(directory / name, b"".join(map(_pem, _split(der))))


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def _split(chain: bytes) -> Iterator[bytes]:
    """Certificates one behind the other: each begins with its length (X.690, 8.1.3)."""
    at = 0
    while at < len(chain):
        first = chain[at + 1]
        more = first & 0x7F if first & 0x80 else 0
        length = int.from_bytes(chain[at + 2 : at + 2 + more]) if more else first
        end = at + 2 + more + length
        if end > len(chain):
            raise HostError("workload API: a certificate is cut short")
        yield chain[at:end]
        at = end
