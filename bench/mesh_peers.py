"""HAProxy and nginx at both ends of a mesh, mTLS between them: of connections, or of requests.

Each end is a process of one thread that logs nothing. A connection takes another one to the far
end; requests are streams of HTTP/2 between HAProxy's ends, and requests of HTTP/1.1 on kept
connections between nginx's. HAProxy verifies the chain at both ends; nginx at the server's end
only: it would look for a DNS name in the server's certificate.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.serialization import Encoding

from bench import packages
from bench.balancers import MODULE
from bench.lab import Lab
from bench.peers import PORT, SERVER, Peer, routed
from bench.schedule import alone
from sixfold.model.spiffe import SpiffeId
from sixfold.trust.authority import create, issue

HAPROXY, NGINX = "HAProxy", "nginx"
HAPROXY_HTTP, NGINX_HTTP = "HAProxy, HTTP/2", "nginx, HTTP/1.1"
NEAR, TUNNEL = 9001, 15443
PACKAGES = {"haproxy": "haproxy", "nginx": "nginx-light libnginx-mod-stream"}
Running = tuple[Peer, list[int]]  # and the processes that carry it


class Certificates(NamedTuple):
    """Files; chain and key are in one."""

    authority: Path
    client: Path
    server: Path


def mesh_peers(lab: Lab, shown: Certificates) -> Iterator[Running]:
    """Those that are installed: both ways of each."""
    missing = packages.missing(PACKAGES)
    if "haproxy" not in missing:
        yield _two(lab, HAPROXY, "haproxy", _haproxy(shown, "tcp"))
        yield _two(lab, HAPROXY_HTTP, "haproxy", _haproxy(shown, "http"))
    if "nginx" not in missing:
        yield _two(lab, NGINX, "nginx", _nginx(shown, NGINX_STREAM))
        yield _two(lab, NGINX_HTTP, "nginx", _nginx(shown, NGINX_REQUESTS))


def certificates(lab: Lab) -> Certificates:
    """Of one authority: once in a laboratory, where others read them at a moment of their own."""
    now, day = datetime.now(UTC), timedelta(days=1)
    authority = create("bench", now)
    found = Certificates(*(lab.directory / f"{name}.pem" for name in Certificates._fields))
    found.authority.write_bytes(authority.root.public_bytes(Encoding.PEM))
    for path in (found.client, found.server):
        svid = issue(authority, SpiffeId("bench", f"/{path.stem}"), now, day)
        path.write_bytes(svid.chain_pem + svid.key_pem)
    return found


def _haproxy(certificates: Certificates, mode: str) -> tuple[str, str]:
    """Near end, far end."""
    tls = f"ca-file {certificates.authority} verify required ssl-min-ver TLSv1.3"
    tls += " alpn h2" if mode == "http" else ""
    reuse = "http-reuse always" if mode == "http" else ""
    head = f"""
global
    nbthread 1
    maxconn 4000
defaults
    mode {mode}
    timeout connect 5s
    timeout client 60s
    timeout server 60s
"""
    near = f"""{head}
listen near
    {reuse}
    bind 127.0.0.1:{NEAR}
    server far {SERVER}:{TUNNEL} ssl crt {certificates.client} {tls}
"""
    far = f"""{head}
listen far
    bind :{TUNNEL} ssl crt {certificates.server} {tls}
    server app 127.0.0.1:{PORT}
"""
    return near, far


NGINX_HEAD = f"""
load_module {MODULE};
daemon off;
master_process off;
error_log stderr crit;
events {{ worker_connections 8000; }}
"""
NGINX_STREAM = """
stream { server { tcp_nodelay on; listen LISTEN backlog=1024; proxy_pass TO; TLS } }
"""
NGINX_REQUESTS = """
http {
 access_log off; keepalive_requests 1000000000;
 upstream to { server TO; keepalive 64; keepalive_requests 1000000000; }
 server {
  listen LISTEN backlog=1024; TLS
  location / {
   proxy_pass SCHEME://to; proxy_http_version 1.1; proxy_set_header Connection "";
  }
 }
}
"""


def _nginx(certificates: Certificates, text: str) -> tuple[str, str]:
    """Near end, far end."""
    ca, client, server = certificates
    tls = (
        ("" if "SCHEME" in text else "proxy_ssl on; ")
        + "proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse on; "
        + f"proxy_ssl_certificate {client}; proxy_ssl_certificate_key {client};"
    )
    verify = (
        f"ssl_protocols TLSv1.3; ssl_certificate {server}; ssl_certificate_key {server}; "
        f"ssl_verify_client on; ssl_client_certificate {ca};"
    )

    def end(**words: str) -> str:
        found = text
        for word, value in words.items():
            found = found.replace(word, value)
        return NGINX_HEAD + found

    far = f"{SERVER}:{TUNNEL}"
    return (
        end(LISTEN=f"127.0.0.1:{NEAR}", TO=far, TLS=tls, SCHEME="https"),
        end(LISTEN=f"{TUNNEL} ssl", TO=f"127.0.0.1:{PORT}", TLS=verify, SCHEME="http"),
    )


def _two(lab: Lab, name: str, program: str, ends: tuple[str, str]) -> Running:
    """A proxy at each end, on the CPU that everybody shares."""
    word = "".join(letter for letter in name.lower() if letter.isalnum())
    peer = routed(lab, f"mesh-{word}")
    pids = []
    for end, place, text in zip(("near", "far"), (peer.client, peer.server), ends, strict=True):
        path = lab.directory / f"mesh-{word}-{end}.conf"
        if program == "nginx":
            text += f"pid {path}.pid;\n"
        path.write_text(text)
        options = ["-db", "-f"] if program == "haproxy" else ["-c"]
        pids.append(lab.spawn(place, *alone(packages.which(program), *options, str(path))))
    return Peer(name, peer.client, peer.server, "127.0.0.1", NEAR), pids
