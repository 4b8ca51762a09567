"""Ramps: where a staged rollout stands, and the record of its steps.

The record is one file for all ramps of a workspace, `ramps.jsonl` in its data folder: a line a step, appended under a
lock and made durable before it holds. Each line says all that holds from then on, so that the last readable line of an
experiment is where its ramp stands. A line carries its own checksum. What a crash left of a last line was never
acknowledged, and the next writer cuts it off. A whole line that cannot be read is damage: what it said may have been a
roll back, so that nothing rises by itself until a later step is taken by hand.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple
from zlib import crc32

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from features.common.errors import Failure
from features.common.files import locked, sync
from features.common.timestamps import parse_moment
from features.config.experiments import Experiment, ExperimentsFile, Ramp

RECORD = "ramps.jsonl"
LOCK = "ramps.lock"
RECORD_BYTES_MAX = 16 << 20
"""Beyond it only rolling back is written, up to twice as much."""
REASON_CHARACTERS_MAX = 500
HALF = 0.5
"""Up to it no unit changes arms; see `features.bucketing.splits.ramp_ranges`."""

Verdict = Literal["start", "proceed", "hold", "roll_back", "finish", "by_hand"]
Who = Literal["worker", "command"]
State = Literal["not_started", "rising", "finished", "rolled_back"]
Code = Literal[
    "started", "next_step", "last_step", "by_hand", "guardrail", "split", "patience", "not_started", "rolled_back",
    "finished", "damaged",
    "hold_time", "units", "no_evidence",
]  # fmt: skip
"""Why a step was taken, in one word."""


class BadRecord(Failure):
    """The record cannot be written, or another wrote meanwhile."""


class Watched(Struct, frozen=True, kw_only=True):
    """A guardrail as it was when a step was decided.

    Attributes:
        control, treated: the metric in both arms; None where nobody recorded it.
        p: of no more harm than is tolerated, one-sided, at all looks together; None where there is too little to say.
        verdict: `harm`, `no harm shown`, `too few yet` or `not recorded`.
    """

    guardrail: str
    tolerated: float
    control: float | None = None
    treated: float | None = None
    p: float | None = None
    verdict: Literal["harm", "no harm shown", "too few yet", "not recorded"]


class Evidence(Struct, frozen=True, kw_only=True):
    """What was known when a step was decided; pairs are of the control and the ramped arm.

    Attributes:
        exposed: units since the ramp began (`RampState.begun`).
        fresh: of them those first exposed since the step began, and watched for the ramp's window.
        mismatch_p: of a sound split, at all looks together; None without units.
        lacks: why there is no evidence; empty where there is.
    """

    exposed: tuple[int, int] = (0, 0)
    fresh: tuple[int, int] = (0, 0)
    mismatch_p: float | None = None
    guardrails: tuple[Watched, ...] = ()
    lacks: str = ""


class RampLine(Struct, frozen=True, kw_only=True):
    """One step of a ramp, as it is written down; the moment is RFC 3339, the digests are 16 hex digits.

    Attributes:
        before, share: of the arm, until then and from then on.
        compared: digest of what the ramp compares; see `compared_of`.
        plan: digest of the plan by which the step was decided.
        evidence: None where none was asked for.
    """

    experiment: str
    moment: str
    arm: str
    before: float
    share: float
    verdict: Verdict
    code: Code
    reason: str
    who: Who
    compared: str
    plan: str
    evidence: Evidence | None = None


class RampState(NamedTuple):
    """Where a ramp is; moments are microseconds since 1970.

    Attributes:
        begun: from when on what was exposed counts: when it was started last, or when a step last moved units from arm
            to arm, which only those from or to more than one half do. None before it was started.
        since: when its share was set last.
        told: codes of the steps that were written down since then, that one included.
        lines: how many lines of the experiment there are.
        is_damaged: whether a line after its last step cannot be read; that it stays, and why, is no step.
    """

    share: float = 0.0
    state: State = "not_started"
    begun: int | None = None
    since: int | None = None
    told: frozenset[str] = frozenset()
    lines: int = 0
    is_damaged: bool = False


NOT_STARTED = RampState()


class _Framed(Struct, frozen=True):
    crc: int
    line: Raw


_framed = msgspec.json.Decoder(_Framed)
_line = msgspec.json.Decoder(RampLine)


def read_record(data: Path) -> list[RampLine | None]:
    """Return all whole lines of a workspace's record, oldest first; None for one that cannot be read. Empty where there
    is none.

    Args:
        data: the workspace's data folder.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        with (data / RECORD).open("rb") as file:
            content = file.read(2 * RECORD_BYTES_MAX)
    except FileNotFoundError:
        return []
    return [_read(text) for text in content.split(b"\n")[:-1]]


def _read(text: bytes) -> RampLine | None:
    try:
        framed = _framed.decode(text)
        return _line.decode(framed.line) if crc32(framed.line) == framed.crc else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def append(data: Path, line: RampLine, after: int) -> None:
    """Write a step down, durably, before it holds.

    Args:
        after: how many lines of this experiment the step was decided upon (`RampState.lines`).

    Raises:
        BadRecord: another step was taken meanwhile, or the record is full.
        OSError: the disk does not take it; then the step does not hold.
    """
    encoded = msgspec.json.encode(line)
    framed = msgspec.json.encode(_Framed(crc32(encoded), Raw(encoded))) + b"\n"
    file = data / RECORD
    with locked(data / LOCK):
        if _count(read_record(data), line.experiment) != after:
            raise BadRecord(f"{line.experiment}: another step was taken while this one was decided: look again")
        is_new = not file.exists()
        with file.open("ab") as stream:
            whole = _whole_bytes(file)
            if whole + len(framed) > RECORD_BYTES_MAX * (2 if line.verdict == "roll_back" else 1):
                raise BadRecord(
                    f"expected a record of at most {RECORD_BYTES_MAX >> 20} MiB, got {file}, which is full: stop what"
                    " runs, keep the lines of ramps that go on, and move the others to another file"
                )
            stream.truncate(whole)
            stream.write(framed)
            stream.flush()
            os.fsync(stream.fileno())
        if is_new:
            sync(data)


def roll_back(data: Path, key: str, reason: str, moment: str, who: Who) -> RampLine:
    """Take the arm of a ramp from everybody, by the record alone: it must not wait until files that have faults are
    mended.

    Args:
        moment: RFC 3339.

    Raises:
        BadRecord: no ramp of that key runs, or another step was taken meanwhile.
        OSError: see `append`.
    """
    own = [line for line in read_record(data) if line is not None and line.experiment == key]
    if not own or own[-1].share <= 0:
        state = "was rolled back" if own else f"is not in {data / RECORD}"
        raise BadRecord(f"expected a ramp that runs, got {key}, which {state}")
    step = {
        "moment": moment,
        "who": who,
        "before": own[-1].share,
        "share": 0.0,
        "verdict": "roll_back",
        "code": "by_hand",
        "reason": reason,
    }
    line = replace(own[-1], evidence=None, **step)
    append(data, line, len(own))
    return line


def _whole_bytes(file: Path) -> int:
    """Up to the end of the last whole line."""
    return file.read_bytes().rfind(b"\n") + 1


def _count(lines: list[RampLine | None], key: str) -> int:
    return sum(line is not None and line.experiment == key for line in lines)


def standings_of(file: ExperimentsFile, data: Path) -> dict[str, RampState]:
    """Return where the ramps of a file stand, by experiment.

    Raises:
        OSError: see `read_record`.
    """
    ramped = {key: entry for key, entry in file.experiments.items() if entry.ramp is not None}
    lines = read_record(data) if ramped else []
    return {key: standing_of(lines, key, entry) for key, entry in ramped.items()}


def standing_of(lines: list[RampLine | None], key: str, entry: Experiment) -> RampState:
    """Return where one ramp stands: at its last readable line, if that compares what the file does. Else it was not
    started.
    """
    own = [line for line in lines if line is not None and line.experiment == key]
    steps = [
        at for at, line in enumerate(lines) if line is not None and line.experiment == key and line.verdict != "hold"
    ]
    damaged = None in lines[steps[-1] + 1 if steps else 0 :]
    if not own or entry.ramp is None or own[-1].compared != compared_of(entry):
        return NOT_STARTED._replace(lines=len(own), is_damaged=damaged)
    last = own[-1]
    changed = max((at for at, line in enumerate(own) if line.verdict != "hold"), default=0)
    begun = next((line.moment for line in reversed(own) if _moves(line)), own[0].moment)
    state: State = "rising"
    if last.share <= 0:
        state = "rolled_back"
    elif last.share >= max(entry.ramp.steps):
        state = "finished"
    told = frozenset(line.code for line in own[changed:])
    return RampState(last.share, state, parse_moment(begun), parse_moment(own[changed].moment), told, len(own), damaged)


def _moves(line: RampLine) -> bool:
    return line.verdict == "start" or (line.verdict != "hold" and max(line.before, line.share) > HALF)


def control_of(entry: Experiment) -> str:
    """Return the arm that says so, or the first."""
    return next((name for name, arm in entry.arms.items() if arm.control), next(iter(entry.arms), ""))


def compared_of(entry: Experiment) -> str:
    """Digest of what a ramp compares: its arms with what they change, units and hash. What is not said does not count.

    Steps, guardrails, targeting, namespace, moments and texts may change while a ramp runs; of what this digest covers
    a change is another ramp.
    """
    arms = {name: arm.changes for name, arm in entry.arms.items()}
    words = [getattr(entry, word) for word in ("seed", "salt", "rule", "group", "parent", "flag")]
    return _digest(
        [entry.ramp and entry.ramp.arm, control_of(entry), arms, entry.unit, entry.hash, entry.encoding, words]
    )


def plan_digest(plan: Ramp) -> str:
    """Digest of a plan, as the record names it."""
    return _digest(plan)


def _digest(value: Any) -> str:
    said = _said(msgspec.to_builtins(value))
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()[:16]


def _said(value: Any) -> Any:
    """Without keys that say nothing: a later version may know more of them."""
    if isinstance(value, Mapping):
        return {key: _said(part) for key, part in value.items() if part is not None and part not in ({}, [])}
    return [_said(part) for part in value] if isinstance(value, (list, tuple)) else value
