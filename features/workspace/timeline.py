"""Demo data lives now: its timeline is moved forward by whole weeks, once, and moved back in reports.

The offset is decided at the first import and recorded, so that later imports land on the same timeline.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from features.common.files import write_whole
from features.common.moments import Micros
from features.common.timestamps import WEEK_MICROSECONDS, from_microseconds, rfc3339
from features.common.timestamps import parse_moment as parse_moment
from features.workspace.workspace import Workspace


class Timeline(msgspec.Struct, frozen=True):
    """By how much the source's times were moved, in microseconds; zero for real data."""

    offset: int = 0

    def from_source(self, moment: int) -> int:
        """Return a moment of the source on our timeline."""
        return moment + self.offset

    def to_source(self, moment: int) -> int:
        """Return a moment of ours as the source would say it."""
        return moment - self.offset

    @property
    def weeks(self) -> int:
        return self.offset // WEEK_MICROSECONDS


def timeline_file(workspace: Workspace) -> Path:
    """Return where the offset is recorded; moments of `offers.yaml` are moved by it wherever the workspace is
    loaded.
    """
    return workspace.data / "timeline.json"


def recorded(workspace: Workspace) -> Timeline | None:
    """Return the timeline of earlier imports; None before the first."""
    try:
        return msgspec.json.decode(timeline_file(workspace).read_bytes(), type=Timeline)
    except FileNotFoundError:
        return None


def of(workspace: Workspace, now: Micros) -> Timeline:
    """Return the workspace's timeline, decided and recorded when there is none yet.

    The source's `demo.now` comes to lie at most one week before the clock, and never after it.
    """
    known = recorded(workspace)
    if known is not None:
        return known
    demo = workspace.settings.demo
    timeline = (
        Timeline()
        if demo is None
        else Timeline((now - parse_moment(demo.now)) // WEEK_MICROSECONDS * WEEK_MICROSECONDS)
    )
    write_whole(timeline_file(workspace), msgspec.json.encode(timeline))
    return timeline


def shown(timeline: Timeline, moment: int) -> str:
    """Return a moment for people: as the source says it, with ours beside it when they differ."""
    source = rfc3339(timeline.to_source(moment))
    return source if not timeline.offset else f"{source} (moved to {from_microseconds(moment):%Y-%m-%d})"
