"""Ramps: the buckets of each step, and the record of steps whatever becomes of its file."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.config.experiments import Experiment, Hashing, Ramp
from features.workspace.experiments import split_of
from features.workspace.ramps import (
    NOT_STARTED,
    RECORD,
    RECORD_BYTES_MAX,
    BadRecord,
    RampLine,
    RampState,
    append,
    compared_of,
    plan_digest,
    read_record,
    standing_of,
)
from tests.features import vendor_sdks
from tests.features.vendor_sdks import SEED, units

KEY = "louder"
UNITS_A_HASH = 12_500
SHARES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.333, 0.5, 0.75, 1.0)


def entry(**more: Any) -> Experiment:
    """An experiment whose second arm is ramped."""
    usual = {"status": "running", "arms": {"as_it_is": {}, "louder": {}}, "ramp": {"arm": "louder"}}
    return msgspec.convert(usual | more, Experiment)


@pytest.mark.parametrize("hash_", get_args(Hashing))
def test_nobody_changes_arms_up_to_one_half(hash_: str) -> None:
    """With every hash, 100,000 units together: arms are equally large and only grow up to one half; beyond, the control
    gives way.
    """
    experiment, before = entry(hash=hash_), dict[str, int]()
    for share in SHARES:
        split = split_of(KEY, experiment, share)
        assert split.covered == pytest.approx(min(2 * share, 1))
        assert split.shares == pytest.approx((0.5, 0.5) if share <= 0.5 else (1 - share, share))
        found = {unit: split(unit)[0] for unit in units(UNITS_A_HASH)}
        for unit, arm in before.items():
            assert found[unit] == arm if share <= 0.5 or arm == 1 else found[unit] >= 0, (share, unit)
        assert (
            abs(sum(arm == 1 for arm in found.values()) - share * len(found))
            <= 6 * (share * (1 - share) * len(found)) ** 0.5
        )
        before = {unit: arm for unit, arm in found.items() if arm >= 0}
    assert set(before.values()) == {1} and len(before) == len(found)
    nobody = split_of(KEY, experiment, 0.0)
    assert nobody.covered == 0 and {nobody(unit)[0] for unit in units(500)} == {-1}


def test_the_tools_have_the_same_split_with_a_third_arm_between() -> None:
    """Unleash, Optimizely and LaunchDarkly give the same arms where a third variant, of nobody, has what lies
    between.
    """
    first = {"louder": {}, "as_it_is": {"control": True}}
    asked = (
        (entry(hash="unleash", group=KEY, arms=first), vendor_sdks.unleash(KEY, [100, 800, 100], 100)),
        (entry(hash="optimizely", parent=KEY, arms=first), vendor_sdks.optimizely(KEY, [1_000, 9_000, 10_000])),
        (
            entry(hash="launchdarkly", flag=KEY, salt=SEED, arms=first),
            vendor_sdks.launchdarkly(KEY, SEED, [10_000, 80_000, 10_000]),
        ),
    )
    theirs = {0: "arm-0", -1: "arm-1", 1: "arm-2"}
    for experiment, ask in asked:
        split = split_of(KEY, experiment, 0.1)
        found = [split(unit)[0] for unit in units(10_000)]
        assert set(found) == {0, 1, -1}
        assert [theirs[arm] for arm in found] == [ask(unit) for unit in units(10_000)]


# The record
# ---------------------------------------------------------------------------------------------------------------


def line(at: int, share: float, verdict: str = "proceed", **more: Any) -> RampLine:
    """The step of the day `at` of the usual experiment."""
    usual = {
        "experiment": KEY,
        "moment": f"2026-11-{at + 1:02}T00:00:00Z",
        "arm": "louder",
        "before": 0.0,
        "share": share,
    }
    said = {
        "verdict": verdict,
        "code": "next_step",
        "reason": "é",
        "who": "worker",
        "compared": compared_of(entry()),
        "plan": "p",
    }
    return msgspec.convert(usual | said | more, RampLine)


STEPS = [line(0, 0.01, "start"), line(1, 0.01, "hold", code="units"), line(2, 0.05), line(3, 0.1)]


def written(data: Path) -> Path:
    """The usual steps, as they are written down."""
    for after, one in enumerate(STEPS):
        append(data, one, after)
    return data / RECORD


def stands(data: Path, experiment: Experiment | None = None) -> RampState:
    """Where the ramp is."""
    return standing_of(read_record(data), KEY, experiment or entry())


def test_a_record_is_where_a_ramp_stands(tmp_path: Path) -> None:
    """Without a record a ramp was not started; then its last line holds; what was told since the last change is
    known.
    """
    assert stands(tmp_path) == NOT_STARTED
    written(tmp_path)
    assert read_record(tmp_path) == STEPS
    found = stands(tmp_path)
    assert (found.share, found.state, found.lines, found.is_damaged) == (0.1, "rising", 4, False)
    assert found.begun is not None and found.since is not None and found.since - found.begun == 3 * 86_400_000_000
    append(tmp_path, line(4, 0.1, "hold", code="units"), 4)
    assert stands(tmp_path).told == {"next_step", "units"} and stands(tmp_path).since == found.since
    append(tmp_path, line(5, 0.0, "roll_back"), 5)
    assert stands(tmp_path).state == "rolled_back"
    append(tmp_path, line(6, 0.01, "start"), 6)
    assert stands(tmp_path).begun == stands(tmp_path).since and stands(tmp_path).state == "rising"
    append(tmp_path, line(7, 1.0, "finish"), 7)
    assert stands(tmp_path).state == "finished"


def test_what_is_exposed_counts_from_the_last_move_on(tmp_path: Path) -> None:
    """Evidence is as old as the start, until units change arms, as they do on the way beyond one half and back from
    there.
    """
    given_ = [
        ("start", 0.0, 0.01),
        ("proceed", 0.01, 0.5),
        ("proceed", 0.5, 0.75),
        ("hold", 0.75, 0.75),
        ("by_hand", 0.75, 0.25),
        ("proceed", 0.25, 0.3),
    ]
    begun = []
    for at, (verdict, before, share) in enumerate(given_):
        append(tmp_path, line(at, share, verdict, before=before), at)
        begun.append((stands(tmp_path).begun or 0) // 86_400_000_000)
    assert [one - begun[0] for one in begun] == [0, 0, 2, 2, 4, 4]


def test_what_is_compared_makes_a_ramp(tmp_path: Path) -> None:
    """Another arm, change, unit or hash is another ramp, which was not started; another plan, text or targeting is the
    same.
    """
    written(tmp_path)
    changed = {"as_it_is": {}, "louder": {"changes": {"exploration": {"floor": 0.1}}}}
    for other in (
        {"arms": changed},
        {"unit": "anonymous"},
        {"hash": "eppo"},
        {"seed": "x"},
        {"ramp": {"arm": "as_it_is"}},
    ):
        assert stands(tmp_path, entry(**other)) == NOT_STARTED._replace(lines=4), other
    for same in (
        {"ramp": {"arm": "louder", "steps": [0.1, 0.2], "units": 5}},
        {"description": "x", "targeting": "true"},
    ):
        assert stands(tmp_path, entry(**same)).share == 0.1
    assert plan_digest(Ramp(arm="a")) != plan_digest(Ramp(arm="a", units=5))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 4_000))
def test_a_torn_record_stands_at_its_last_whole_line(tmp_path: Path, cut: int) -> None:
    """Wherever a crash cut the file, the whole lines hold, and the next writer goes on after them."""
    file = tmp_path / RECORD
    file.unlink(missing_ok=True)
    content = written(tmp_path).read_bytes()
    file.write_bytes(content[: min(cut, len(content))])
    whole = content[: min(cut, len(content))].count(b"\n")
    assert read_record(tmp_path) == STEPS[:whole]
    assert stands(tmp_path).share == (STEPS[whole - 1].share if whole else 0.0) and not stands(tmp_path).is_damaged
    append(tmp_path, line(9, 0.25), whole)
    assert read_record(tmp_path) == [*STEPS[:whole], line(9, 0.25)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_line_never_counts(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever byte of a line is another, the line is not believed; behind the last step it is told, until a later step
    is taken.
    """
    file = tmp_path / RECORD
    file.unlink(missing_ok=True)
    lines = written(tmp_path).read_bytes().splitlines(keepends=True)
    which = data.draw(st.integers(0, len(lines) - 1))
    at = data.draw(st.integers(0, len(lines[which]) - 2))
    byte = data.draw(st.integers(0, 255).filter(lambda one: one not in (lines[which][at], 0x0A)))
    lines[which] = lines[which][:at] + bytes([byte]) + lines[which][at + 1 :]
    file.write_bytes(b"".join(lines))
    found = read_record(tmp_path)
    assert found[which] is None or found[which] == STEPS[which]  # another spelling of the same, as a space
    if found[which] is None:
        assert stands(tmp_path).share == STEPS[which - 1 if which == len(STEPS) - 1 else -1].share
        assert stands(tmp_path).is_damaged == (which == len(STEPS) - 1)
        append(tmp_path, line(8, stands(tmp_path).share, "hold", code="damaged"), stands(tmp_path).lines)
        assert stands(tmp_path).is_damaged == (which == len(STEPS) - 1), (
            "that it waits was written down: it waits still"
        )
        append(tmp_path, line(9, 0.25, "by_hand"), stands(tmp_path).lines)
        assert stands(tmp_path).share == 0.25 and not stands(tmp_path).is_damaged


def test_two_writers_take_one_step(tmp_path: Path) -> None:
    """Who decided upon a record that another has gone on with since is refused; other experiments are no matter."""
    written(tmp_path)
    append(tmp_path, line(1, 0.5, "start", experiment="other"), 0)
    append(tmp_path, line(5, 0.25), 4)
    with pytest.raises(BadRecord, match="another step was taken"):
        append(tmp_path, line(5, 0.25), 4)
    assert stands(tmp_path).share == 0.25 and stands(tmp_path).lines == 5


def test_a_full_record_takes_a_roll_back_only(tmp_path: Path) -> None:
    """A record that is full is told with its way out; rolling back is written still."""
    file = written(tmp_path)
    with file.open("ab") as stream:
        stream.write((b"x" * 1_023 + b"\n") * (RECORD_BYTES_MAX >> 10))
    with pytest.raises(BadRecord, match="record of at most 16 MiB"):
        append(tmp_path, line(5, 0.25), 4)
    append(tmp_path, line(5, 0.0, "roll_back"), 4)
    assert stands(tmp_path).state == "rolled_back"


CHILD = """
import sys
from pathlib import Path
import msgspec
from features.workspace.ramps import RampLine, append
for number in range(100_000):
    append(Path(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=RampLine), number)
    print(number, flush=True)
"""


def test_a_killed_writer_leaves_what_it_acknowledged(tmp_path: Path) -> None:
    """After SIGKILL at any moment, every step that was acknowledged is there, at most one more, and the next writer is
    not held up.
    """
    words = [sys.executable, "-c", CHILD, str(tmp_path), msgspec.json.encode(line(1, 0.05)).decode()]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as child:
        assert child.stdout is not None
        for _ in range(20):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        acknowledged = 20 + len(child.stdout.read().splitlines())
    found = read_record(tmp_path)
    assert None not in found and acknowledged <= len(found) <= acknowledged + 1
    append(tmp_path, line(9, 0.25), len(found))
    assert stands(tmp_path).share == 0.25
