"""The examples run as they are, and print what ``expected.txt`` says they print.

To take a new output: ``sudo examples/NAME/run.sh > examples/NAME/expected.txt``, and read it.
"""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sixfold.host import netns
from sixfold.host.paths import NETNS_ROOT, Paths

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent.name for path in ROOT.glob("examples/*/expected.txt"))

pytestmark = pytest.mark.root

# What differs from run to run, and what stands for it.
SPELLINGS = (
    (r"\w{3} \d\d \d\d:\d\d:\d\d\.\d+", "TIME"),
    (r"10\.244\.\d+\.\d+", "POD4"),
    (r"fd00:5f:244::[0-9a-f]+", "POD6"),
    (r"10\.96\.\d+\.\d+", "SERVICE"),
    (r"(?<=:)[3-6]\d{4}\b", "PORT"),
    (r"\(ID:\d+\)", "(ID)"),
    (r"(interface |@if)\d+", r"\1N"),
    (r"/run/netns/[\w-]+\.", "/run/netns/"),
    (r"(?m)^curl: (\(\d+\)) .*", r"curl: \1"),  # worded anew by every version
    (r"(?m)\b\d+s$", "AGE"),
    (r"(?m)^(\S+ +)\d+ +\d+( +POD4 +POD6)", r"\1N N\2"),  # endpoint id, identity
    (r"(?m)( bytes \d+ sent \d+ received)?( open)?$", ""),  # a moment after curl has ended
    (r" +", " "),
    (r"(?m) +$", ""),
)


def spelled(text: str) -> list[str]:
    for pattern, replacement in SPELLINGS:
        text = re.sub(pattern, replacement, text)
    return text.strip().splitlines()


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An instance of its own in a namespace that plays the host; nothing may be left of it."""
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, BPF, cgroups")
    instance = f"x{uuid.uuid4().hex[:8]}"
    host = NETNS_ROOT / f"{instance}-host"
    netns.create(host, lambda: None)
    made = {
        **os.environ,
        "SIXFOLD_INSTANCE": instance,
        "SIXFOLD_STATE_DIR": str(tmp_path / "state"),
        "HOST": str(host),
    }
    subprocess.run(["nsenter", f"--net={host}", "ip", "link", "set", "lo", "up"], check=True)
    try:
        yield made
    finally:
        netns.delete(host)
    paths = Paths(instance)
    left = [path for path in (paths.run, paths.bpffs, paths.cgroup) if path.exists()]
    assert left + list(NETNS_ROOT.glob(f"{instance}.*")) == []


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_prints_what_it_promises(example, environment):
    directory = ROOT / "examples" / example
    done = subprocess.run(
        ["nsenter", f"--net={environment['HOST']}", directory / "run.sh"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert spelled(done.stdout) == spelled((directory / "expected.txt").read_text())


@pytest.mark.parametrize("pattern", ["routing", "balancing", "discovery", "policy"])
def test_every_pattern_that_exists_has_an_example(pattern):
    assert pattern in EXAMPLES
