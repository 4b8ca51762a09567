"""Lines and frames of a journal, made by number."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from features.events.journal import (
    Line,
    Versions,
    read_lines,
    write_frame,
)
from tests.waiting import LIMIT_S

VERSIONS = Versions("b1", "c1", "d1")


def a_line(number: int = 7, raw_bytes: int = 16, at: int = 1_764_000_000_000_000) -> Line:
    """A line that tells its number in its id and, over and over, in its scores."""
    raw = np.full(raw_bytes // 8, float(number)).tobytes()
    context = {"channel": "web", "hour": 12, "member": True, "basket": 0.5, "page": None}
    return Line(
        decision_id=f"d-{number}",
        at=at,
        customer_id="c-1",
        placement="home_hero",
        limit=None,
        context=context,
        exclude=["o-9"],
        degraded=("features_unavailable",),
        versions=VERSIONS,
        lineup_offers=3,
        considered=b"\xa0",
        shown=b"\2\0\0\0",
        offer_ids=["o-2"],
        propensities=np.array([0.25]).tobytes(),
        probabilities=np.array([1.0]).tobytes(),
        raw_of_considered=True,
        raw=raw,
        shared=np.array([np.nan, -0.0]).tobytes(),
        offers=np.array([np.inf]).tobytes(),
        pairs_of_considered=False,
        pairs=np.array([1.5]).tobytes(),
    )


def lines_in(folder: Path) -> list[Line]:
    """All lines of a folder, file by file in the order of their names."""
    return [line for path in sorted(folder.glob("*Z-*")) if path.suffix != ".reason" for line in read_lines(path)]


def until(met: Callable[[], bool], seconds: float = LIMIT_S) -> bool:
    """Whether it came true in time."""
    end = time.monotonic() + seconds
    while not met():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def framed(*lines: Line) -> bytes:
    """The lines as a file holds them."""
    out, buffer = b"", bytearray()
    for line in lines:
        write_frame(line, buffer)
        out += buffer
    return out
