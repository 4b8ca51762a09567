"""How far journals and event log were shipped into the lake, and the file that tells others of it.

    lake/shipped.json    how far; replaced by the next one in one rename
    lake/shipping.json   the intent: what is being shipped now, written before anything else is
    loop.json            what the last run did, for metrics and `opportune doctor`

The state lies in the lake and goes with it: a lake that was removed is shipped again from what is still there.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
from msgspec import Struct, field

from features.common.files import write_whole
from features.lake.files import SHIPPED
from features.workspace.workspace import Workspace


class Shipment(Struct):
    """What one shipment takes: of each journal file (by stem) the bytes, of the event log the numbers, each (from, to],
    and its moment.
    """

    journals: dict[str, tuple[int, int]]
    events: tuple[int, int]
    at: int

    def name(self, number: int) -> str:
        """Return the name of its files: the same whenever it is done again."""
        return f"{SHIPPED}{number:08d}-{hashlib.sha256(msgspec.msgpack.encode(self)).hexdigest()[:16]}.parquet"


class Shipped(Struct):
    """What was shipped so far.

    Attributes:
        number: shipments.
        journals: of each journal file (by stem) the bytes that were shipped, from its beginning.
        sizes: of each journal file its size when it was last seen.
        events: number of the last event.
        rows: rows ever shipped, by table.
        left_out: events that no table of the lake takes, by type.
        lost_bytes: of journal files that were deleted before all of them was shipped: the journal keeps its folder
            within its bounds.
        unreadable_bytes: of journal files, in no whole frame.
        last: the shipment that led here.
    """

    number: int = 0
    journals: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    events: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    lost_bytes: int = 0
    unreadable_bytes: int = 0
    last: Shipment | None = None


class LoopState(Struct, frozen=True):
    """What became of one run of the shipper; `loop.json`."""

    at: int
    """Microseconds since 1970: when the run ended."""
    decisions: int
    events: int
    """Shipped by this run."""
    rows: int
    """Written into the lake by this run."""
    lag_seconds: float
    """Age of the oldest decision or event that had waited when the run began; 0 where none had."""
    rows_waiting: int
    """Decisions and events that wait still."""
    shipped: dict[str, int] = {}
    """Rows ever shipped, by table."""
    left_out: dict[str, int] = {}
    lost_bytes: int = 0
    unreadable_bytes: int = 0


def shipped_file(workspace: Workspace) -> Path:
    """Return where the state is."""
    return workspace.lake / "shipped.json"


def intent_file(workspace: Workspace) -> Path:
    """Return where the state is that a shipment leads to, while it is under way."""
    return workspace.lake / "shipping.json"


def loop_file(workspace: Workspace) -> Path:
    """Return the path of the last run's report."""
    return workspace.data / "loop.json"


def read_state(file: Path) -> Shipped | None:
    """Return a state; None where there is none."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Shipped)
    except FileNotFoundError:
        return None


def state_of(workspace: Workspace) -> Shipped:
    """Return how far the shipper is; nothing before its first run."""
    return read_state(shipped_file(workspace)) or Shipped()


def loop_of(workspace: Workspace) -> LoopState | None:
    """Return the last run; None before the first."""
    try:
        return msgspec.json.decode(loop_file(workspace).read_bytes(), type=LoopState)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def write_intent(workspace: Workspace, state: Shipped) -> None:
    """Say durably what is going to be shipped."""
    write_whole(intent_file(workspace), msgspec.json.encode(state))


def write_loop(workspace: Workspace, loop: LoopState) -> None:
    """Tell of a run."""
    write_whole(loop_file(workspace), msgspec.json.encode(loop))
