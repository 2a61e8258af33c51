"""Real containers of an instance of their own, in a namespace of their own; nothing stays."""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.host.lab import Lab

from sixfold.host import cgroup, netns
from sixfold.host.containers import SHIM, Containers, ContainerSpec
from sixfold.host.paths import NETNS_ROOT, Paths

MakeSpec = Callable[..., ContainerSpec]


@contextmanager
def started() -> Iterator[Lab]:
    made = Lab()
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def lab() -> Iterator[Lab]:
    with started() as made:
        yield made


@pytest.fixture
def instance_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """Paths that no other test and no other process shares."""
    monkeypatch.setenv("SIXFOLD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("SIXFOLD_RUN_DIR", str(tmp_path / "run"))
    return Paths(f"test-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def containers(instance_paths: Paths) -> Iterator[Containers]:
    if os.geteuid() != 0:
        pytest.skip("containers need root")
    if not SHIM.exists():
        pytest.skip("shim not built; run python hatch_build.py")
    yield Containers(instance_paths)

    async def clean() -> None:
        await Containers(instance_paths).teardown()
        await cgroup.remove(instance_paths.cgroup)

    asyncio.run(clean())
    shutil.rmtree(instance_paths.run, ignore_errors=True)
    assert not instance_paths.cgroup.exists()


@pytest.fixture
def make_spec(tmp_path: Path, instance_paths: Paths) -> Iterator[MakeSpec]:
    """A spec of container "app" in pod "shop/web"; arguments are argv, keywords are fields."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    path = NETNS_ROOT / f"{instance_paths.instance}.shop.web"
    netns.create(path, lambda: None)
    resolv_conf, hosts = tmp_path / "resolv.conf", tmp_path / "hosts"
    resolv_conf.write_text("nameserver 192.0.2.53\n")
    hosts.write_text("192.0.2.1 web\n")

    def make(*argv: str, **fields: object) -> ContainerSpec:
        defaults: dict[str, object] = {
            "pod_key": "shop/web",
            "pod_uid": "5f9a",
            "name": "app",
            "attempt": 0,
            "netns": path,
            "resolv_conf": resolv_conf,
            "hosts": hosts,
            "env": {"PATH": os.environ["PATH"]},
        }
        return ContainerSpec(argv=argv, **{**defaults, **fields})  # type: ignore[arg-type]

    yield make
    netns.delete(path)
