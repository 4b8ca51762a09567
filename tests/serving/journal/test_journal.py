"""The journal where nothing goes wrong: lines, frames, files and their bounds. What goes wrong is in `tests/faults`."""

from __future__ import annotations

import os
import random
import stat
import time
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.common.types import Decision, DecisionRequest, ModelStamp, RankedOffer
from features.events.journal import (
    PAIR_VALUES_MAX,
    SCORES_MAX,
    Line,
    Lineup,
    Versions,
    considered_of,
    line_of,
    read_lines,
    write_frame,
)
from features.events.journal_frames import DECISION, FORMAT, FRAME_BYTES_MAX, damage, frames
from serving.journal.files import DAMAGED, LINEUP, OPEN, SEALED, JournalLimits
from serving.journal.journal import Journal
from tests.serving.journal_lines import VERSIONS, a_line, framed, lines_in, until

QUICK = JournalLimits(file_bytes_max=20_000, keep_seconds=0.002, sync_seconds=0.004, free_bytes_min=0)

texts = st.text(max_size=20)
blobs = st.binary(max_size=200)
values = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | texts
any_line = st.builds(
    Line,
    decision_id=texts,
    at=st.integers(-(2**62), 2**62),
    customer_id=texts,
    placement=texts,
    limit=st.none() | st.integers(1, 50),
    context=st.dictionaries(texts, values, max_size=5),
    exclude=st.lists(texts, max_size=5),
    degraded=st.lists(texts, max_size=2).map(tuple),
    versions=st.builds(Versions, texts, texts, texts),
    lineup_offers=st.integers(0, 2**31),
    offer_ids=st.lists(texts, max_size=5),
    **dict.fromkeys(
        ("considered", "shown", "propensities", "probabilities", "raw", "shared", "offers", "pairs"), blobs
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(any_line, max_size=4), st.binary(max_size=40))
def test_lines_come_back_as_they_went(lines: list[Line], noise: bytes) -> None:
    """What is written is read again, in order, also behind bytes that are no frame."""
    gaps: list[tuple[int, int]] = []
    bodies = [body for _, _, body in frames(noise + framed(*lines), gaps)]
    assert [msgspec.msgpack.decode(body, type=Line) for body in bodies] == lines
    assert gaps == ([(0, len(noise))] if noise else [])


FIRST = bytes.fromhex(  # before policies had a digest
    "f76f6a0a796352e4d20000000101dc0015a3642d37cf0006445941624000a3632d31a9686f6d655f6865726fc085a76368616e6e656ca3776562a4686f75720c"
    "a66d656d626572c3a66261736b6574cb3fe0000000000000a470616765c091a36f2d3991b466656174757265735f756e617661696c61626c6593a26231a26331"
    "a2643103c401a0c4040200000091a36f2d32c408000000000000d03fc408000000000000f03fc3c4100000000000001c400000000000001c40c4100000000000"
    "00f87f0000000000000080c408000000000000f07fc2c408000000000000f83f"
)
SECOND = bytes.fromhex(  # before experiments
    "f76f6a0a5b65cdd1d70000000101dc0019a3642d37cf0006445941624000a3632d31a9686f6d655f6865726fc085a76368616e6e656ca3776562a4686f75720c"
    "a66d656d626572c3a66261736b6574cb3fe0000000000000a470616765c091a36f2d3991b466656174757265735f756e617661696c61626c6593a26231a26331"
    "a2643103c401a0c4040200000091a36f2d32c408000000000000d03fc408000000000000f03fc3c4100000000000001c400000000000001c40c4100000000000"
    "00f87f0000000000000080c408000000000000f07fc2c408000000000000f83fa0c4009090"
)
THIRD = bytes.fromhex(  # before durations
    "f76f6a0a039322e0e30000000101dc001da3642d37cf0006445941624000a3632d31a9686f6d655f6865726fc085a76368616e6e656ca3776562a4686f75720c"
    "a66d656d626572c3a66261736b6574cb3fe0000000000000a470616765c091a36f2d3991b466656174757265735f756e617661696c61626c6593a26231a26331"
    "a2643103c401a0c4040200000091a36f2d32c408000000000000d03fc408000000000000f03fc3c4100000000000001c400000000000001c40c4100000000000"
    "00f87f0000000000000080c408000000000000f07fc2c408000000000000f83fa0c4009090a0cb3ff00000000000009090"
)
GOLDEN = bytes.fromhex(
    "f76f6a0a468fea70e40000000101dc001ea3642d37cf0006445941624000a3632d31a9686f6d655f6865726fc085a76368616e6e656ca3776562a4686f75720c"
    "a66d656d626572c3a66261736b6574cb3fe0000000000000a470616765c091a36f2d3991b466656174757265735f756e617661696c61626c6593a26231a26331"
    "a2643103c401a0c4040200000091a36f2d32c408000000000000d03fc408000000000000f03fc3c4100000000000001c400000000000001c40c4100000000000"
    "00f87f0000000000000080c408000000000000f07fc2c408000000000000f83fa0c4009090a0cb3ff00000000000009090c0"
)


def test_lines_of_today_are_read_tomorrow() -> None:
    """A frame is what it was when its format was fixed, byte by byte; older bodies, and one with a field more, are
    still read.
    """
    frame = framed(a_line())
    assert frame == GOLDEN, frame.hex()
    for golden in (FIRST, SECOND, THIRD, GOLDEN):
        assert damage(golden) == ""
        assert [msgspec.msgpack.decode(body, type=Line) for _, _, body in frames(golden, [])] == [a_line()]
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(a_line()))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode([*fields, "later"]), type=Line) == a_line()


def test_reader_passes_over_other_kinds(tmp_path: Path) -> None:
    """A frame of another kind is no decision, and no damage."""
    other = bytearray(framed(a_line(1)))
    other[12] = DECISION + 1
    other[4:8] = zlib.crc32(other[8:]).to_bytes(4, "little")
    path, gaps = tmp_path / "f", list[tuple[int, int]]()
    path.write_bytes(bytes(other) + framed(a_line(2)))
    assert [line.decision_id for line in read_lines(path, gaps)] == ["d-2"]
    assert gaps == []
    assert [(kind, version) for kind, version, _ in frames(path.read_bytes(), gaps)] == [
        (DECISION + 1, FORMAT),
        (DECISION, FORMAT),
    ]


@pytest.mark.parametrize(
    ("lineup", "considered", "shown", "width"),
    [
        (50, 50, 3, 5),
        (3, 0, 0, 5),
        (1, 1, 1, 0),
        (5_000, 40, 3, 2),
        (4_000, SCORES_MAX + 1, 50, 1),
        (300, 300, 50, PAIR_VALUES_MAX // 300 + 1),
    ],
)
def test_line_holds_what_the_model_saw(lineup: int, considered: int, shown: int, width: int) -> None:
    """Columns of the offers shown and positions of those considered come back to the bit, below and above every
    bound.
    """
    chance = np.random.default_rng(lineup)
    chosen = np.sort(chance.permutation(lineup)[:considered]).astype(np.int32)
    best = chance.permutation(considered)[:shown].astype(np.int32)
    eligible = np.zeros(lineup, bool)
    eligible[chosen] = True
    raw, shared, pairs = chance.normal(size=considered), chance.normal(size=4), chance.normal(size=(considered, width))
    offers = chance.normal(size=(lineup, 3))
    shared[0] = pairs[:1] = np.nan
    propensities, scores = chance.random(shown), chance.random(shown)
    ranked = [
        RankedOffer(place + 1, f"o-{chosen[at]}", scores[place], propensities[place], {})
        for place, at in enumerate(best)
    ]
    decision = Decision("d", "c", "p", ranked, ModelStamp("m", "1", "b"), (), considered, "never", "c0ffee")
    request = DecisionRequest("c", "p")
    line = line_of(
        request,
        decision,
        5,
        VERSIONS,
        considered_of(eligible, chosen),
        best,
        chosen[best],
        propensities,
        scores,
        raw,
        shared,
        pairs,
        offers,
    )
    (_, _, body), *_ = frames(framed(line), [])
    read = msgspec.msgpack.decode(body, type=Line)
    assert read == line
    np.testing.assert_array_equal(read.positions(), chosen)
    assert read.offer_ids == [f"o-{at}" for at in np.frombuffer(read.shown, "<i4")]
    expected = [np.concatenate([shared, offers[chosen[at]], pairs[at]]) for at in best]
    np.testing.assert_array_equal(read.columns(), np.array(expected) if expected else np.empty((0, 0)))
    np.testing.assert_array_equal(np.frombuffer(read.raw), raw if read.raw_of_considered else raw[best])
    assert read.raw_of_considered == (considered <= SCORES_MAX)
    assert read.pairs_of_considered == (considered * width <= PAIR_VALUES_MAX)
    assert len(read.considered) <= lineup // 8 + 1
    np.testing.assert_array_equal(np.frombuffer(read.propensities), propensities)
    assert read.probabilities == np.ones(shown).tobytes()
    assert read.scores == scores.tobytes() and read.config == "c0ffee"


def test_files_are_private_and_sealed(tmp_path: Path) -> None:
    """The folder is 0700, files are 0600, and what was closed is sealed and whole."""
    folder = tmp_path / "journal"
    folder.mkdir(mode=0o755)
    journal = Journal.open(folder, QUICK)
    assert journal.append(a_line(1))
    assert [path.suffix for path in folder.iterdir()] == [OPEN]
    digest = journal.keep(Lineup(["o-1", "o-2"], np.arange(2.0).tobytes()))
    journal.close()
    journal.close()
    assert not journal.append(a_line(2))
    assert (journal.appended, journal.failed) == (1, 1)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (sealed,) = folder.glob(f"*{SEALED}")
    assert stat.S_IMODE(sealed.stat().st_mode) == 0o600
    assert journal.bytes == sealed.stat().st_size == len(framed(a_line(1)))
    lineup = msgspec.msgpack.decode((folder / f"{digest}{LINEUP}").read_bytes(), type=Lineup)
    assert lineup.digest == digest and lineup.offer_ids == ["o-1", "o-2"]


def test_unused_files_are_not_left(tmp_path: Path) -> None:
    """A journal that recorded nothing leaves no file."""
    Journal.open(tmp_path, QUICK).close()
    assert list(tmp_path.iterdir()) == []


def test_rotates_and_syncs_while_appending(tmp_path: Path) -> None:
    """Files turn over and are synced while lines come in, and every line is there once, in order."""
    journal = Journal.open(tmp_path, QUICK)
    for number in range(3_000):
        if number % 10 == 0:
            assert until(lambda: journal._next is not None or journal._file.bytes * 2 < journal._file.wanted_bytes)  # type: ignore[union-attr]
        assert journal.append(a_line(number, 400))
    journal.close()
    found = [line.decision_id for line in lines_in(tmp_path)]
    assert found == [f"d-{number}" for number in range(3_000)]
    assert journal.rotated >= 40
    assert len(list(tmp_path.glob(f"*{SEALED}"))) == journal.rotated + 1
    assert journal.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_a_stuck_keeper_costs_lines_and_no_more(tmp_path: Path) -> None:
    """With no next file in sight, a file takes twice its size and then no more; decisions go on."""
    journal = Journal.open(tmp_path, JournalLimits(file_bytes_max=10_000, keep_seconds=60, free_bytes_min=0))
    taken = [journal.append(a_line(number, 400)) for number in range(100)]
    assert taken == sorted(taken, reverse=True)
    assert 2 * 10_000 <= journal.bytes < 2 * 10_000 + 2_000
    assert (journal.appended, journal.failed) == (sum(taken), 100 - sum(taken))
    journal._stop.set()  # the keeper sleeps for a minute: its journal is left to it


def test_folder_is_bounded(tmp_path: Path) -> None:
    """The oldest sealed files go when the folder grows beyond its bounds, with lineups that no line needs any more."""
    old = tmp_path / f"{'0' * 32}{LINEUP}"
    for number in range(12):
        (tmp_path / f"20200101T0000{number:02d}.000000Z-00000000{SEALED}").write_bytes(framed(a_line(number, 8_000)))
    (tmp_path / f"20200101T000000.000000Z-00000001{DAMAGED}").write_bytes(b"x" * 8_000)
    old.write_bytes(b"")
    os.utime(old, (1_000_000_000, 1_000_000_000))
    journal = Journal.open(tmp_path, JournalLimits(folder_bytes_max=50_000, free_bytes_min=0))
    digest = journal.keep(Lineup(["o"], b""))
    assert [line.decision_id for line in lines_in(tmp_path)] == [f"d-{number}" for number in range(6, 12)]
    assert journal.deleted == 7
    assert sum(path.stat().st_size for path in tmp_path.glob(f"*{SEALED}")) <= 50_000
    assert not list(tmp_path.glob(f"*{DAMAGED}"))
    assert not old.exists() and (tmp_path / f"{digest}{LINEUP}").exists()
    journal.close()
    lineups = [journal.keep(Lineup([], bytes(1_000 + number))) for number in range(5)]
    for number, digest in enumerate(lineups):
        os.utime(tmp_path / f"{digest}{LINEUP}", (2_000_000_000 + number,) * 2)
    few = Journal.open(tmp_path, JournalLimits(files_max=2, lineups_bytes_max=2_500, free_bytes_min=0))
    assert len(list(tmp_path.glob(f"*{SEALED}"))) == 2
    assert {path.stem for path in tmp_path.glob(f"*{LINEUP}")} == set(lineups[3:])
    few.close()


def test_a_line_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    """A line larger than a frame may be is counted as failed, and the next one is recorded."""
    journal = Journal.open(tmp_path, QUICK)
    assert not journal.append(a_line(1, FRAME_BYTES_MAX))
    assert str(FRAME_BYTES_MAX) in journal.complaint
    assert journal.append(a_line(2))
    journal.close()
    assert [line.decision_id for line in lines_in(tmp_path)] == ["d-2"]


def test_what_an_append_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Appends of 3 KB are timed and printed, beside the same lines written nowhere; only that all are recorded is
    held.
    """
    journal = Journal.open(tmp_path, JournalLimits(free_bytes_min=0))
    lines, buffer, took = [a_line(random.Random(n).randrange(100), 3_000) for n in range(64)], bytearray(), ([], [])  # type: ignore[var-annotated]
    for number in range(5_000):
        begin = time.perf_counter_ns()
        write_frame(lines[number % 64], buffer)
        between = time.perf_counter_ns()
        journal.append(lines[number % 64])
        took[0].append(between - begin)
        took[1].append(time.perf_counter_ns() - between)
    assert journal.appended == 5_000
    journal.close()
    with capsys.disabled():
        for name, nanoseconds in zip(("encoded only", "appended"), took, strict=True):
            p50, p99, worst = np.percentile(nanoseconds, [50, 99, 100]) / 1e3
            print(f"\n  journal, {name}: p50 {p50:.1f} us, p99 {p99:.1f} us, max {worst:.0f} us", end="")
        print()
