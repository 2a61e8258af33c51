"""Build hook: compile ``bpf/*.c`` and ``shim/*.c`` with the clang inside ``ziglang``.

The objects land in ``src/sixfold/host/objects`` and travel in the wheel, so that users need
no compiler. ``python hatch_build.py`` does the same for a source checkout.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
OBJECTS = ROOT / "src" / "sixfold" / "host" / "objects"

WARNINGS = ["-Wall", "-Wextra", "-Werror"]


def zig_include() -> Path:
    """The UAPI headers that ziglang ships; recent enough for TCX."""
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        raise SystemExit("ziglang: not installed: it compiles bpf/; pip install ziglang")
    return Path(spec.origin).parent / "lib" / "libc" / "include"


def stale(target: Path, sources: list[Path]) -> bool:
    """Whether the target is missing or older than any of its sources."""
    if not target.exists():
        return True
    built = target.stat().st_mtime
    return any(source.stat().st_mtime > built for source in sources)


def zig_cc(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "ziglang", "cc", *arguments], check=True, cwd=ROOT)


def zig_bpf(source: Path, target: Path) -> None:
    """Compile one BPF object; paths are relative to the checkout, or absolute."""
    include = zig_include()
    zig_cc(
        *["-target", "bpfel-freestanding", "-mcpu=v3", "-O2", "-g"],
        *["-fno-unwind-tables", "-fno-stack-protector", *WARNINGS],
        *["-I", str(include / "any-linux-any"), "-I", str(include / "x86-linux-any")],
        *["-I", "bpf", "-c", str(source), "-o", str(target)],
    )


def build() -> None:
    """Compile what is older than its sources."""
    OBJECTS.mkdir(exist_ok=True)
    headers = [*ROOT.glob("bpf/**/*.h")]
    for source in sorted(ROOT.glob("bpf/*.bpf.c")):
        target = OBJECTS / (source.name.removesuffix(".c") + ".o")
        if stale(target, [source, *headers]):
            zig_bpf(source.relative_to(ROOT), target)
    for source in sorted(ROOT.glob("shim/*.c")):
        target = OBJECTS / source.stem
        if stale(target, [source, *ROOT.glob("shim/*.h")]):
            zig_cc(
                *["-target", "x86_64-linux-musl", "-static", "-Os", "-s", *WARNINGS],
                *[str(source.relative_to(ROOT)), "-o", str(target)],
            )


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a script, from a checkout without hatchling
    pass
else:

    class ObjectsBuildHook(BuildHookInterface):  # type: ignore[type-arg]
        """Called by hatchling before it collects the wheel's files."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            build()
            build_data["artifacts"].append("src/sixfold/host/objects/*")
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-linux_x86_64"


if __name__ == "__main__":
    build()
