"""Logs: what is written by real shims, and how it is read and followed."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sixfold.errors import UnavailableError
from sixfold.host import logs
from sixfold.host.logs import LogOptions

RECORD = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) [FP] .*")


def record(second: int, text: str, tag: str = "F", stream: str = "stdout") -> str:
    return f"2026-11-23T08:00:{second:02}.000000000Z {stream} {tag} {text}\n"


def shown(directory: Path, **options: object) -> str:
    async def main() -> str:
        return "".join([line async for line in logs.stream(directory, LogOptions(**options))])

    return asyncio.run(main())


def test_lines_are_printed_as_they_were(tmp_path):
    (tmp_path / "0.log").write_text(record(1, "a  b ") + record(2, "") + record(3, "ü"))
    assert shown(tmp_path) == "a  b \n\nü\n"


def test_timestamps_go_in_front_when_asked_for(tmp_path):
    (tmp_path / "0.log").write_text(record(1, "hello"))
    assert shown(tmp_path, timestamps=True) == "2026-11-23T08:00:01.000000000Z hello\n"


def test_parts_of_long_lines_are_joined_per_stream(tmp_path):
    (tmp_path / "0.log").write_text(
        record(1, "one ", "P") + record(2, "aside", "F", "stderr") + record(3, "line")
    )
    assert shown(tmp_path) == "aside\none line\n"


def test_rotated_lines_come_first(tmp_path):
    (tmp_path / "0.log.1").write_text(record(1, "old") + record(2, "cut ", "P"))
    (tmp_path / "0.log").write_text(record(3, "in two") + record(4, "new"))
    assert shown(tmp_path) == "old\ncut in two\nnew\n"


def test_a_torn_record_is_left_out(tmp_path):
    (tmp_path / "0.log").write_text(record(1, "whole") + "2026-11-23T08:00")
    assert shown(tmp_path) == "whole\n"


def test_the_latest_attempt_is_shown_and_the_one_before_when_asked_for(tmp_path):
    for attempt in (8, 9, 10):
        (tmp_path / f"{attempt}.log").write_text(record(1, f"attempt {attempt}"))
    assert shown(tmp_path) == "attempt 10\n"
    assert shown(tmp_path, previous=True) == "attempt 9\n"


def test_previous_of_a_container_that_never_restarted_is_an_error(tmp_path):
    (tmp_path / "0.log").write_text(record(1, "x"))
    with pytest.raises(UnavailableError, match="has not restarted"):
        logs.stream(tmp_path, LogOptions(previous=True))


def test_logs_of_a_container_that_has_not_started_are_an_error(tmp_path):
    with pytest.raises(UnavailableError, match="not started"):
        logs.stream(tmp_path / "none", LogOptions())


@pytest.mark.parametrize("count", [0, 1, 3, 1000, 100_000])
def test_tail_is_exact_whatever_the_lines_and_files(tmp_path, count):
    lines = [f"{number} " + "x" * (number * 37 % 3000) for number in range(2000)]
    encoded = [record(1, line) for line in lines]
    (tmp_path / "0.log.1").write_text("".join(encoded[:1500]))
    (tmp_path / "0.log").write_text("".join(encoded[1500:]))
    assert shown(tmp_path, tail=count).splitlines() == lines[max(0, 2000 - count) :]


def test_tail_counts_joined_lines(tmp_path):
    long = [record(1, "x" * 16384, "P") for _ in range(20)]
    (tmp_path / "0.log").write_text("".join([record(1, "first"), *long, record(1, "end")]))
    assert shown(tmp_path, tail=1) == "x" * 16384 * 20 + "end\n"


def test_since_leaves_out_what_is_older(tmp_path):
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    (tmp_path / "0.log").write_text(
        record(1, "long ago").replace("2026", "2020") + f"{now}.000000000Z stdout F now\n"
    )
    assert shown(tmp_path, since_s=60) == "now\n"
    assert shown(tmp_path, since_s=60, tail=5) == "now\n"


def following(directory: Path, steps, **options: object) -> list[str]:
    """Follow while the steps happen, one each 0.25 s; ended after the last."""
    over = False

    async def act() -> None:
        nonlocal over
        for step in steps:
            await asyncio.sleep(0.25)
            step()
        over = True

    async def main() -> list[str]:
        acting = asyncio.create_task(act())
        lines = logs.stream(directory, LogOptions(follow=True, **options), ended=lambda: over)
        async with asyncio.timeout(100):
            found = [line.strip() async for line in lines]
        await acting
        return found

    return asyncio.run(main())


def append(path: Path, text: str):
    def step() -> None:
        with path.open("a") as file:
            file.write(text)

    return step


def test_follow_goes_on_over_rotation_and_restart_until_the_end(tmp_path):
    log = tmp_path / "0.log"
    log.write_text(record(1, "a") + record(2, "b"))
    steps = [
        append(log, record(3, "c") + record(4, "half")[:-3]),
        append(log, "lf\n"),
        lambda: (append(log, record(5, "d"))(), log.rename(tmp_path / "0.log.1")),
        append(log, record(6, "e")),
        lambda: (append(log, record(7, "f"))(), append(tmp_path / "1.log", record(8, "g"))()),
        append(tmp_path / "1.log", record(9, "h")),
    ]
    assert following(tmp_path, steps, tail=1) == ["b", "c", "half", "d", "e", "f", "g", "h"]


def test_follow_waits_for_a_container_to_start(tmp_path):
    assert following(tmp_path, [append(tmp_path / "0.log", record(1, "x"))]) == ["x"]


def test_follow_ends_when_the_pod_went_before_it_started(tmp_path):
    assert following(tmp_path / "none", []) == []


def test_follow_outlives_the_removal_of_the_log(tmp_path):
    log = tmp_path / "0.log"
    log.write_text(record(1, "x"))
    assert following(tmp_path, [log.unlink]) == ["x"]


def printed(containers, spec):
    """Run to the end; the container and the records of its log."""

    async def main():
        container = await containers.start(spec)
        await containers.wait(container)
        return container

    container = asyncio.run(main())
    return container, container.log.read_text(errors="replace").splitlines()


@pytest.mark.root
def test_both_streams_are_recorded_with_their_names(containers, make_spec):
    container, records = printed(containers, make_spec("sh", "-c", "echo out; echo err >&2"))
    assert all(RECORD.fullmatch(line) for line in records)
    assert sorted(line.split(" ", 1)[1] for line in records) == [
        "stderr F err",
        "stdout F out",
    ]
    assert sorted(shown(container.log.parent).split()) == ["err", "out"]


@pytest.mark.root
def test_long_lines_are_split_and_read_whole(containers, make_spec):
    script = "print('x' * 40000); print('y' * 16384); print('end', end='')"
    container, records = printed(containers, make_spec(sys.executable, "-c", script))
    tags = [line.split(" ")[2] for line in records]
    assert tags == ["P", "P", "F", "P", "F", "F"]
    assert shown(container.log.parent) == f"{'x' * 40000}\n{'y' * 16384}\nend\n"


@pytest.mark.root
def test_binary_output_does_not_spoil_the_log(containers, make_spec):
    script = "printf 'a\\0\\377b\\r\\n\\nc\\n'"
    container, _ = printed(containers, make_spec("sh", "-c", script))
    assert len(container.log.read_bytes().split(b"\n")) == 4
    assert shown(container.log.parent) == "a\0\ufffdb\r\n\nc\n"


@pytest.mark.root
def test_the_log_is_rotated_and_one_file_kept(containers, make_spec):
    script = "for i in range(3000): print(i, 'x' * 8000)"
    container, _ = printed(containers, make_spec(sys.executable, "-c", script))
    names = sorted(path.name for path in container.log.parent.iterdir())
    assert names == ["0.log", "0.log.1"]
    older = container.log.with_name("0.log.1").stat().st_size
    assert 10 << 20 <= older < (10 << 20) + (1 << 20)
    numbers = [int(line.split()[0]) for line in shown(container.log.parent).splitlines()]
    assert numbers == list(range(numbers[0], 3000))


@pytest.mark.root
def test_a_full_disk_stops_neither_the_container_nor_tears_a_record(
    containers, make_spec, instance_paths
):
    instance_paths.state.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(instance_paths.state)]
    subprocess.run(mount, check=True)
    try:
        script = "for i in range(2000): print(i, 'x' * 100, flush=True)\nraise SystemExit(4)"
        container, records = printed(containers, make_spec(sys.executable, "-c", script))
        assert asyncio.run(containers.wait(container)).code == 4
        assert all(RECORD.fullmatch(line) for line in records)
        assert 0 < len(records) < 2000
    finally:
        subprocess.run(["umount", str(instance_paths.state)], check=True)


@pytest.mark.root
def test_a_fast_writer_loses_nothing(containers, make_spec):
    script = "import sys\nfor i in range(50000): sys.stdout.write(f'{i}\\n')"
    container, _ = printed(containers, make_spec(sys.executable, "-c", script))
    assert shown(container.log.parent).split() == [str(i) for i in range(50000)]
