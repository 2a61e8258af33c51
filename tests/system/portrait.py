"""A portrait of an instance: all that it has in force, without what may differ from run to run.

Two systems with the same objects must have the same portrait, whatever happened to them before:
pods are named by their workload, addresses by their owner, numbers by their meaning.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from sixfold.cli.client import Client
from sixfold.host import bpf, netlink_nft, netlink_route, netns
from sixfold.host.netlink import NETLINK_NETFILTER, Netlink
from sixfold.host.paths import NETNS_ROOT

from .conftest import System

KINDS = (
    *("Namespace", "Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job"),
    *("Service", "NetworkPolicy"),
)
RESOLVER = "169.254.20.10"


class Portrait:
    """Looks once; ``facts`` is comparable."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._client = Client(system.paths.api_socket)
        self._pods = {pod_key(pod): pod for pod in self._client.objects("Pod")}
        self._owners: dict[str, str] = {}  # workload by address
        for item in self._client.objects("Endpoints"):
            name = f"{item['metadata']['namespace']}/{item['metadata']['name']}"
            for address in item["status"]["ips"]:
                self._owners[address] = self.workload(name)

    def facts(self) -> dict[str, Any]:
        return {
            "objects": self.objects(),
            "pods": self.pods(),
            "policy": self.policy(),
            "endpoints": self.endpoints(),
            "frontends": self.frontends(),
            "ipcache": self.ipcache(),
            "names": self.names(),
            "routes": self.routes(),
            "masquerade": self.masquerade(),
        }

    def workload(self, pod: str) -> str:
        """``namespace/Kind/name`` of the controller, or the pod itself."""
        if pod not in self._pods:
            return pod
        metadata = self._pods[pod]["metadata"]
        owner = (metadata.get("ownerReferences") or [{"kind": "Pod", "name": metadata["name"]}])[0]
        return f"{metadata['namespace']}/{owner['kind']}/{owner['name']}"

    def objects(self) -> dict[str, Any]:
        return {
            f"{kind} {item['metadata'].get('namespace', '')}/{item['metadata']['name']}": (
                item["metadata"].get("labels"),
                item.get("spec"),
            )
            for kind in KINDS
            for item in self._client.objects(kind)
            if not item["metadata"].get("ownerReferences")
        }

    def pods(self) -> Counter[str]:
        return Counter(
            f"{self.workload(key)} {sorted(pod['metadata'].get('labels', {}).items())} "
            f"{pod['status']['phase']} {_ready(pod)}"
            for key, pod in self._pods.items()
        )

    def policy(self) -> Counter[frozenset[str]]:
        """Tables by content, and whose they are."""
        tables: dict[str, list[str]] = {}
        for row in self._system.json("bpf", "policy", "list"):
            words = (row[name] for name in ("direction", "action", "protocol", "port", "rule"))
            text = " ".join([*words, _meaning(row["peer"])])
            tables.setdefault(row["endpoint"], []).append(text)
        return Counter(
            frozenset([self.workload(pod), *lines, f"{len(lines)} entries"])
            for pod, lines in tables.items()
        )

    def endpoints(self) -> Counter[str]:
        return Counter(
            f"{self.workload(row['pod'])} {_meaning(row['identity'])} {self._named(row['ipv4'])} "
            f"{self._named(row['ipv6'])} {bool(row['cidr4'])} {bool(row['cidr6'])}"
            for row in self._system.json("bpf", "endpoint", "list")
        )

    def frontends(self) -> Counter[str]:
        return Counter(
            f"{row['service']} {row['protocol']} {row['frontend']} {row['algorithm']} "
            f"{sorted(map(self._named, row['backends']))}"
            for row in self._system.json("bpf", "lb", "list")
        )

    def ipcache(self) -> Counter[str]:
        return Counter(
            f"{row['prefix']} {_meaning(row['identity'])} {_meaning(row['cidr'] or '')}"
            for row in self._system.json("bpf", "ipcache", "list")
        )

    def names(self) -> Counter[str]:
        """What the resolver says of every service, by its workloads."""
        questions: list[str] = []
        for item in self._client.objects("Service"):
            name = f"{item['metadata']['name']}.{item['metadata']['namespace']}.svc.cluster.local"
            for port in item["spec"].get("ports", ()):
                protocol = port.get("protocol", "TCP").lower()
                questions += [f"_{port.get('name', 'none')}._{protocol}.{name}", "SRV"]
            questions += [name, "A", name, "AAAA"]
        if not questions:
            return Counter()
        done = self._system.on_host(
            *("dig", f"@{RESOLVER}", "+noall", "+answer", "+nottl", "+time=2"), *questions
        )
        assert done.returncode == 0, done.stdout
        lines = (line for line in done.stdout.splitlines() if line and not line.startswith(";"))
        return Counter(self._answer(line) for line in lines)

    def _answer(self, line: str) -> str:
        """One record; the host names of headless pods are their addresses."""
        *words, target = line.split()
        label = target.split(".")[0]
        for address, owner in self._owners.items():
            if label == re.sub(r"[.:]", "-", address):
                target = owner
        return " ".join([*words, self._named(target)])

    def routes(self) -> Counter[str]:
        return Counter(
            f"{row['type']} {self._named(row['dst'])} {self.workload(row['pod'])} {row['src']} "
            f"{row['scope']} {bool(row['dev'])}"
            for row in self._system.json("route", "show")["routes"]
        )

    def masquerade(self) -> list[tuple[str, str]]:
        def look() -> list[tuple[str, str]]:
            with Netlink(NETLINK_NETFILTER) as netlink:
                return sorted(netlink_nft.comments(netlink, self._system.paths.instance))

        return netns.run_inside(self._system.host, look)

    def _named(self, text: str) -> str:
        """An address, prefix or socket with the owner's name for a pod's address."""
        for address, owner in self._owners.items():
            for written in (f"{address}:", f"[{address}]:"):
                if text.startswith(written):
                    return text.replace(written, f"{owner}:")
            if text == address or text in (f"{address}/32", f"{address}/128"):
                return owner
        return text

    # --- what nobody owns ---------------------------------------------------------------------

    def leaks(self) -> list[str]:
        """Whatever is there and belongs to no pod or service of now."""
        paths = self._system.paths
        uids = {pod["metadata"]["uid"] for pod in self._pods.values()}
        attached = {key for key, pod in self._pods.items() if pod["status"].get("podIP")}
        found = [
            f"namespace {path.name}"
            for path in NETNS_ROOT.glob(f"{paths.netns_prefix}*")
            if paths.netns_owner(path) not in attached
        ]
        links = netns.run_inside(self._system.host, _our_links)
        found += _differ("link", [link.alias for link in links if " " in link.alias], attached)
        groups = [path.name for path in (paths.cgroup / "pods").glob("*-*")]
        found += _unowned("cgroup", groups, uids)
        found += _unowned("run", [path.name for path in (paths.run / "pods").glob("*")], uids)
        records = [path.stem for path in (paths.state / "pods").glob("*")]
        found += _unowned("record", records, uids)
        pinned = {path.name for path in (paths.bpffs / "links").glob("*_endpoint_*")}
        wanted = {f"{hook}_endpoint_{link.index}" for link in links for hook in ("from", "to")}
        found += [f"pinned link {name}" for name in pinned - wanted]
        found += self._leaked_processes(uids)
        return found + self._leaked_rows(uids) + self._leaked_map_entries()

    def _leaked_processes(self, uids: set[str]) -> list[str]:
        pids = (self._system.paths.cgroup / "shims" / "cgroup.procs").read_text().split()
        shims = [Path(f"/proc/{pid}/cmdline").read_text() for pid in pids]
        return [
            f"shim {line}" for line in shims if not any(f"/pods/{uid}/" in line for uid in uids)
        ]

    def _leaked_rows(self, uids: set[str]) -> list[str]:
        services = {
            f"service {item['metadata']['namespace']}/{item['metadata']['name']}"
            for item in self._client.objects("Service")
        }
        path = self._system.paths.state / "state.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            held = database.execute("SELECT owner FROM addresses WHERE freed_at IS NULL").fetchall()
            numbers = database.execute(
                "SELECT key FROM numbers WHERE space = 'endpoint'"
            ).fetchall()
        found = _unowned("address", [owner for (owner,) in held], uids | services)
        return found + _unowned("endpoint number", [key for (key,) in numbers], uids)

    def _leaked_map_entries(self) -> list[str]:
        """Tables that nobody uses, which no listing shows."""
        counts = {}
        for name in ("policy_tables", "policy", "endpoints", "addresses", "namespaces"):
            each = bpf.Map(bpf.get(self._system.paths.bpffs / "maps" / name), name)
            counts[name] = sum(1 for _ in each.items())
            each.close()
        rows = self._system.json("bpf", "policy", "list")
        tables = {}
        for row in rows:
            tables.setdefault(row["endpoint"], []).append(repr({**row, "id": 0, "endpoint": ""}))
        contents = {frozenset(lines) for lines in tables.values()}
        endpoints = len(self._system.json("bpf", "endpoint", "list"))
        wanted = {
            "policy_tables": len(contents),
            "policy": _policy_entries(rows),
            "endpoints": endpoints,
            "addresses": 2 * endpoints,
            "namespaces": endpoints + 1,
        }
        return [
            f"map {name}: {counts[name]} entries, {wanted[name]} of use"
            for name in counts
            if counts[name] != wanted[name]
        ]


def pod_key(pod: dict[str, Any]) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _ready(pod: dict[str, Any]) -> bool:
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", ())}
    return conditions.get("Ready") == "True"


def _meaning(identity: str) -> str:
    """``1234 app=web,…`` without the number."""
    return identity.partition(" ")[2] or identity


def _our_links() -> list[netlink_route.Link]:
    with Netlink() as netlink:
        groups = (netlink_route.GROUP, netlink_route.DYING_GROUP)
        return [link for link in netlink_route.dump_links(netlink) if link.group in groups]


def _differ(what: str, found: list[str], wanted: set[str]) -> list[str]:
    names = [alias.split(" ")[0] for alias in found]
    extra = Counter(names) - Counter(wanted)
    missing = wanted - set(names)
    return [f"{what} {name}" for name in extra] + [f"no {what} of {name}" for name in missing]


def _unowned(what: str, found: list[str], owners: set[str]) -> list[str]:
    return [f"{what} {name}" for name in found if name not in owners]


def _policy_entries(rows):
    """Each section once: a head for each peer, and the rules for some ports."""
    sections = {}
    for row in rows:
        if row["peer"] != "any other":
            rule = (row["peer"], row["protocol"], row["port"], row["action"], row["rule"])
            place = row["endpoint"], row["direction"], row["tier"]
            sections.setdefault(place, set()).add(rule)
    return sum(
        len({rule[0] for rule in section}) + sum(rule[1] != "any" for rule in section)
        for section in set(map(frozenset, sections.values()))
    )
