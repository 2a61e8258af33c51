"""Root in the intruder's pod of a basecamp that runs tries every attack of docs/threat-model.md.

    sudo KEEP=yes make demo; sudo .venv/bin/python examples/basecamp/intrude.py

A line each: what was tried, what it got, and where the attempt stands in the flow log. The attacks
are those of the tests (tests/system/intruder.py). Exit code 1: something was got, or an attempt is
not told.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ATTACKS = ROOT / "tests/system/intruder.py"
SIXFOLD = ROOT / ".venv/bin/sixfold"
INSTANCE = os.environ.setdefault("SIXFOLD_INSTANCE", "basecamp")
STATE = os.environ.get("SIXFOLD_STATE_DIR", f"/var/lib/{INSTANCE}")
RUN = os.environ.get("SIXFOLD_RUN_DIR", f"/run/{INSTANCE}")
# The proxy's own words to who dials its ports by hand: nothing of anybody is in them.
HARMLESS = ("got: b''", "got: b'HTTP/1.1 404")
TOLD_S = 0.5  # the proxy's log comes five times a second
LOOKS = 6  # so often: an agent that has much to do tells later


def sixfold(*arguments: str) -> str:
    done = subprocess.run([SIXFOLD, *arguments], capture_output=True, text=True, check=False)
    return done.stdout


def pods() -> dict[str, dict[str, Any]]:
    items = json.loads(sixfold("get", "endpoints", "-A", "-o", "json"))["items"]
    return {f"{it['metadata']['namespace']}/{it['metadata']['name']}": it["status"] for it in items}


def given() -> dict[str, Any]:
    """What the intruder is told, so that nothing fails for want of an address."""
    found = pods()

    def one(start: str) -> dict[str, Any]:
        return next(status for key, status in found.items() if key.startswith(start))

    mounts = Path("/proc/mounts").read_text().splitlines()
    groups = next(line.split()[1] for line in mounts if " cgroup2 " in line)
    places = {"own": "outside/intruder", "victim": "supply/store", "client": "supply/pantry"}
    return {
        **{
            f"{name}{v}": one(start)["ips"][v // 6]
            for name, start in places.items()
            for v in (4, 6)
        },
        "port": 6000,
        "node": "10.244.0.1",
        "authority": f"{STATE}/authority.json",
        "api": f"{RUN}/api.sock",
        "run": RUN,
        "hidden": ["/run", STATE],
        "victim_netns": one(places["victim"])["netns"],
        "proxy_group": f"{groups}/{INSTANCE}/proxy",
        "program": str(ATTACKS),
        "map": 1,
        "pin": f"/sys/fs/bpf/{INSTANCE}/maps/conntrack",
        "pids": {
            "agent": json.loads(sixfold("status", "-o", "json"))["agent"]["pid"],
            "proxy": process_in(Path(groups, INSTANCE, "proxy")),
            "victim": process_in(Path(groups, INSTANCE, "pods"), one("supply/store")["netns"]),
        },
    }


def process_in(group: Path, netns: str = "") -> int:
    """One of a control group or those below it, in that network namespace."""
    for path in group.rglob("cgroup.procs"):
        for pid in path.read_text().split():
            if not netns or Path(f"/proc/{pid}/ns/net").stat().st_ino == Path(netns).stat().st_ino:
                return int(pid)
    raise SystemExit(f"{group}: nobody there; is basecamp up?")


def told(since: datetime, own: str) -> list[str]:
    """What the flow log says of the intruder since then, DNS apart."""
    found = []
    for line in sixfold("flows", "--since", since.isoformat(), "-A", "-o", "json").splitlines():
        flow = json.loads(line)["flow"]
        ours, ports = flow["sixfold"], next(iter(flow.get("l4", {}).values()), {})
        who = flow.get("source", {}).get("pod_name", "")
        if (who.startswith("intruder") or flow["IP"]["source"] == own) and 53 not in ports.values():
            why = ours.get("drop_reason") or ours.get("mesh", "")
            if call := ours.get("system_call"):
                why += f" {call} {ours.get('path') or ours.get('capability', '')}".rstrip()
            found.append(f"{flow['verdict']} {why}".strip())
    return [*dict.fromkeys(found)]


def attacks() -> Iterator[str]:
    """By name, as the tables have them."""
    for body in re.findall(
        r"^[A-Z_]+: dict.*?\{$(.*?)^\}$", ATTACKS.read_text(), re.MULTILINE | re.DOTALL
    ):
        yield from re.findall(r'^    "([^"]+)": ', body, re.MULTILINE)


def main() -> int:
    asked, failed = given(), 0
    for name in attacks():
        since = datetime.now(UTC)
        argv = [sys.executable, str(ATTACKS), json.dumps({**asked, "only": [name]})]
        got = json.loads(sixfold("exec", "-n", "outside", "deploy/intruder", "--", *argv))[name]
        said: list[str] = []
        for _ in range(LOOKS):
            time.sleep(TOLD_S)
            if said := told(since, asked["own4"]):
                break
        harmless = got.startswith(("denied", "nothing", *HARMLESS))
        failed += not (harmless and said)
        print(f"{name:40} {got[:28]:30} {'; '.join(said) or '-'}", flush=True)
    print(f"{failed} bad" if failed else "got nothing, and each attempt is told")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
