"""What a disk, a power cut or `kill -9` may do to the journal. Each test that draws prints its seed; OPPORTUNE_SEED
replays it.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import random
import resource
import signal
import struct
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from features.events.journal import read_lines
from features.events.journal_frames import HEAD_BYTES, damage, frames
from serving.journal.files import DAMAGED, OPEN, REASON, SEALED, JournalLimits
from serving.journal.journal import Journal
from tests.depth import rounds
from tests.serving.journal_lines import a_line, framed, lines_in, until

KILL_ROUNDS = rounds(20)
KILLED_AFTER_SECONDS = (0.020, 0.060)
TAIL_BYTES = 64 * 1024
CUTS_REOPENED = 100
CHILD_SECONDS_MAX = 180.0
QUICK = JournalLimits(file_bytes_max=100_000, keep_seconds=0.002, sync_seconds=0.01, free_bytes_min=0)

_ACK = struct.Struct("<I")


@pytest.fixture
def seed(capsys: pytest.CaptureFixture[str]) -> int:
    """A seed that is printed."""
    drawn = int(os.environ.get("OPPORTUNE_SEED") or random.SystemRandom().randrange(1 << 32))
    with capsys.disabled():
        print(f"\n  replay with OPPORTUNE_SEED={drawn}", end=" ")
    return drawn


@contextlib.contextmanager
def child(target: Any, *arguments: Any) -> Iterator[tuple[Any, int]]:
    """A process forked from a clean one, and the reading end of its pipe. Killed when left."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    reading, writing = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(writing, *arguments), daemon=True)
    process.start()
    writing.close()
    try:
        yield process, reading.fileno()
    finally:
        process.kill()
        process.join()
        process.close()
        reading.close()


def acknowledged(pipe: int) -> list[int]:
    """Everything that a pipe says until its writer is gone; a last, torn acknowledgement is none."""
    content = b""
    while part := os.read(pipe, 1 << 16):
        content += part
    whole = len(content) // _ACK.size * _ACK.size
    return [number for (number,) in _ACK.iter_unpack(content[:whole])]


def append_for_ever(writing: Any, folder: Path, drawn: int) -> None:
    """Child: records lines of all sizes and acknowledges each that was recorded."""
    logging.disable()
    chance, journal = random.Random(drawn), Journal.open(folder, QUICK)
    for number in range(1 << 31):
        if journal.append(a_line(number, chance.choice((0, 8, 400, 3_000, 9_000)))):
            os.write(writing.fileno(), _ACK.pack(number))


def test_kill_loses_nothing(tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A process that is killed at any moment loses no line that it acknowledged, doubles none, and leaves none that
    cannot be read.
    """
    chance, total, torn, files = random.Random(seed), 0, 0, 0
    for number in range(KILL_ROUNDS):
        folder = tmp_path / str(number)
        with child(append_for_ever, folder, chance.randrange(1 << 32)) as (process, pipe):
            first = os.read(pipe, _ACK.size)
            time.sleep(chance.uniform(*KILLED_AFTER_SECONDS))
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            assert process.exitcode == -signal.SIGKILL
            told = [*(n for (n,) in _ACK.iter_unpack(first)), *acknowledged(pipe)]
        journal = Journal.open(folder, QUICK)
        assert journal.append(a_line(-1))
        journal.close()
        assert journal.set_aside == 0
        assert not list(folder.glob(f"*{OPEN}"))
        gaps: list[tuple[int, int]] = []
        found = [
            int(line.decision_id[2:]) for path in sorted(folder.glob(f"*{SEALED}")) for line in read_lines(path, gaps)
        ]
        assert found[-1] == -1
        written = found[:-1]
        assert written[: len(told)] == told, f"round {number} of seed {seed}: lost or doubled"
        assert len(written) - len(told) in (0, 1), "one may be recorded whose writer was killed before it could say so"
        torn, total, files = torn + len(gaps), total + len(told), files + len(list(folder.glob(f"*{SEALED}")))
    assert total >= 10 * KILL_ROUNDS, f"expected rounds in which lines were written, got {total} lines"
    with capsys.disabled():
        print(
            f"\n  {KILL_ROUNDS} kills: {total} acknowledged lines in {files} files, 0 lost, 0 doubled, {torn} torn"
            " ends",
            end=" ",
        )


def test_every_cut_of_the_tail_reopens(tmp_path: Path) -> None:
    """A file that is cut at any byte of its last 64 KiB gives every line before the cut, and is no damage."""
    content, ends, number = b"", [0], 0
    while len(content) < TAIL_BYTES + 8_000:
        content += framed(a_line(number, (0, 2_000, 6_000, 1_000)[number % 4]))
        ends.append(len(content))
        number += 1
    cuts = range(len(content) - TAIL_BYTES, len(content) + 1)
    for cut in cuts:
        gaps: list[tuple[int, int]] = []
        expected = bisect_right(ends, cut) - 1
        assert sum(1 for _ in frames(content[:cut], gaps)) == expected
        assert gaps == ([(ends[expected], cut)] if ends[expected] < cut else [])
    for cut in cuts[:: len(cuts) // CUTS_REOPENED]:
        path = tmp_path / f"20260101T000000.000000Z-00000000{OPEN}"
        path.write_bytes(content[:cut])
        journal = Journal.open(tmp_path, QUICK)
        assert journal.set_aside == 0
        sealed = path.with_suffix(SEALED)
        assert [line.decision_id for line in read_lines(sealed)] == [
            f"d-{n}" for n in range(bisect_right(ends, cut) - 1)
        ]
        assert journal.append(a_line())
        journal.close()
        for file in tmp_path.iterdir():
            file.unlink()
    assert len(cuts) == TAIL_BYTES + 1


def test_zeros_at_the_end_are_a_torn_end(tmp_path: Path) -> None:
    """A file that a power cut left longer than what was written is sealed, not set aside."""
    assert damage(framed(a_line(1)) + bytes(4096)) == ""
    assert damage(bytes(4096)) == ""
    assert damage(framed(a_line(1))[: HEAD_BYTES - 3]) == ""


@pytest.mark.parametrize("harm", ["middle", "flip", "noise", "end"])
def test_damage_is_set_aside(tmp_path: Path, harm: str) -> None:
    """A damaged file is set aside with its reason, its whole frames stay readable, and the journal opens."""
    content = bytearray(framed(*(a_line(number, 400) for number in range(10))))
    size = len(content) // 10
    if harm == "middle":
        content[size * 4 + 5 : size * 5] = b"?" * (size - 5)
    elif harm == "flip":
        content[size * 4 + size // 2] ^= 1
    elif harm == "noise":
        content = bytearray(random.Random(1).randbytes(5_000))
    else:
        content += b"# a note that somebody left here"
    path = tmp_path / f"20260101T000000.000000Z-00000000{OPEN}"
    path.write_bytes(content)
    journal = Journal.open(tmp_path, QUICK)
    assert journal.append(a_line(77))
    journal.close()
    assert journal.set_aside == 1 and not path.exists()
    assert "expected frames only" in path.with_suffix(REASON).read_text()
    expected = {
        "middle": [0, 1, 2, 3, 5, 6, 7, 8, 9],
        "flip": [0, 1, 2, 3, 5, 6, 7, 8, 9],
        "noise": [],
        "end": list(range(10)),
    }[harm]
    assert [line.decision_id for line in read_lines(path.with_suffix(DAMAGED))] == [
        f"d-{number}" for number in expected
    ]
    assert [line.decision_id for line in lines_in(tmp_path)][-1] == "d-77"


def test_processes_do_not_share_a_file(tmp_path: Path) -> None:
    """Two processes write at once to files of their own; a third that opens the folder leaves both alone."""
    with child(append_for_ever, tmp_path, 1) as (one, pipe_one), child(append_for_ever, tmp_path, 2) as (two, pipe_two):
        for pipe in (pipe_one, pipe_two):
            assert len(os.read(pipe, _ACK.size)) == _ACK.size
        third = Journal.open(tmp_path, QUICK)
        assert third.append(a_line(-3))
        assert len(list(tmp_path.glob(f"*{OPEN}"))) >= 3
        third.close()
        assert third.set_aside == 0
        for process in (one, two):
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        told = sorted([0, 0, *acknowledged(pipe_one), *acknowledged(pipe_two)])
    Journal.open(tmp_path, QUICK).close()
    found = sorted(int(line.decision_id[2:]) for line in lines_in(tmp_path) if line.decision_id != "d--3")
    assert len(found) - len(told) in (0, 1, 2)  # recorded, and killed before it could say so
    for number in told:
        found.remove(number)


def append_on_a_small_disk(writing: Any, folder: Path) -> None:
    """Child: a file may have 60,000 bytes, then none at all, then any number."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    logging.disable()
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN

    def allow(limit: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))

    sys.dont_write_bytecode = True  # Python before 3.14 keeps bytecode that was cut
    allow(60_000)
    journal = Journal.open(folder, JournalLimits(keep_seconds=0.002, free_bytes_min=0))
    recorded, phases = [], []
    for number in range(3_000):
        if number == 1_000:
            allow(0)
        if number == 2_000:
            allow(hard)
        if number % 1_000 == 0:
            phases.append((journal.appended, journal.failed, journal.complaint))
            until(lambda: journal.append(a_line(-1)), 1.0)
            until(lambda: journal.complaint == "", 1.0) if number == 2_000 else None
        if journal.append(a_line(number, 1_000)):
            recorded.append(number)
        elif number < 1_000:
            time.sleep(0.005)
    journal.close()
    writing.send((recorded, phases, journal.appended, journal.failed, journal.complaint))


def test_a_full_disk_costs_lines_and_no_decision(tmp_path: Path) -> None:
    """Where files may not grow, appends fail and are counted; each goes on in a new file, and recovers by itself."""
    context = multiprocessing.get_context("forkserver")
    reading, writing = context.Pipe(duplex=False)
    process = context.Process(target=append_on_a_small_disk, args=(writing, tmp_path), daemon=True)
    process.start()
    writing.close()
    assert reading.poll(CHILD_SECONDS_MAX)
    recorded, phases, appended, failed, complaint = reading.recv()
    process.join()
    process.close()
    small, full = phases[1], phases[2]
    assert small[1] > 0 and small[0] > 500, "the small disk: new files took over"
    assert full[0] <= small[0] + 1 and full[1] >= small[1] + 999 and "File too large" in full[2], (
        "the full disk: it really was"
    )
    assert [number for number in recorded if number >= 2_000] == list(range(2_000, 3_000)), "recovered by itself"
    assert complaint == ""
    assert failed > 1_000
    found = [int(line.decision_id[2:]) for line in lines_in(tmp_path)]
    assert [number for number in found if number >= 0] == recorded
    assert len(found) == appended
    assert all(path.suffix == SEALED and damage(path.read_bytes()) == "" for path in tmp_path.iterdir())


def test_a_write_that_fails_moves_to_another_file(tmp_path: Path) -> None:
    """A file on which writes and truncation fail is left for the next one, and taken in when the folder is opened
    again.
    """
    journal = Journal.open(tmp_path, QUICK)
    assert journal.append(a_line(1))
    refusing = os.open("/dev/full", os.O_WRONLY)
    os.dup2(refusing, journal._file.handle)  # type: ignore[union-attr]
    os.close(refusing)
    assert not journal.append(a_line(2))
    assert f"the disk is full: expected room in {tmp_path}, got " in journal.complaint
    assert until(lambda: journal.append(a_line(3)), 2.0)
    assert until(lambda: journal.append(a_line(4)) and journal.complaint == "", 2.0)
    journal.close()
    assert len(list(tmp_path.glob(f"*{OPEN}"))) == 1
    Journal.open(tmp_path, QUICK).close()
    assert {path.suffix for path in tmp_path.iterdir()} == {SEALED}
    found = [line.decision_id for line in lines_in(tmp_path)]
    assert found[:2] == ["d-1", "d-3"] and set(found[2:]) == {"d-4"}


def test_too_little_room_records_nothing(tmp_path: Path) -> None:
    """Below the space that others need, lines fail with a complaint that says what is expected, and no file is made."""
    journal = Journal.open(tmp_path / "journal", JournalLimits(free_bytes_min=1 << 60, keep_seconds=0.002))
    assert not journal.append(a_line())
    assert "bytes free on the disk" in journal.complaint
    journal.limits = QUICK
    assert until(lambda: journal.append(a_line()), 2.0)
    journal.limits = JournalLimits(free_bytes_min=1 << 60, keep_seconds=0.002, sync_seconds=0.0)
    assert until(lambda: not journal.append(a_line()), 2.0)
    journal.limits = QUICK
    assert until(lambda: journal.append(a_line()), 2.0)
    journal.close()
    assert len(lines_in(tmp_path / "journal")) == journal.appended


def test_a_folder_that_cannot_be_is_a_complaint(tmp_path: Path) -> None:
    """A journal whose folder cannot be made answers False to every line, and records as soon as it can."""
    (tmp_path / "journal").write_text("in the way")
    journal = Journal.open(tmp_path / "journal", QUICK)
    assert not journal.append(a_line())
    assert str(tmp_path / "journal") in journal.complaint
    (tmp_path / "journal").unlink()
    assert until(lambda: journal.append(a_line()), 2.0)
    journal.close()
