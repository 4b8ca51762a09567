"""What running experiments cost in a decision: the same place with none, with one and with twenty, in one process and
without HTTP.
"""

from __future__ import annotations

import gc
import statistics
import time
from typing import Any

import yaml

from benchmarks import hub
from benchmarks.hot_path import HotPath
from features.validation.load import load
from features.workspace.workspace import Workspace

MANY = 20
COUNTS = (0, 1, MANY)
TURNS, ASKED = 40, 300


def file(count: int) -> dict[str, Any]:
    """So many experiments that run, a quarter of them with an arm that ranks otherwise; those exclude each other."""
    made: dict[str, Any] = {}
    for number in range(count):
        entry: dict[str, Any] = {"status": "running", "arms": {"control": {}, "other": {}}}
        if number % 4 == 3:
            entry["arms"]["other"] = {"changes": {"arbitration": {"groups": {f"g{number % hub.GROUPS}": 1.5}}}}
            entry["namespace"] = {"name": "ranking", "range": [number / count, (number + 1) / count]}
        made[f"experiment-{number:02d}"] = entry
    return {"experiments": made}


def place(base: Workspace, count: int, offers: int = 200) -> Workspace:
    """A servable copy of the prepared workspace `pairs` with groups of offers and so many experiments; without rules
    and limits.
    """
    made = hub.place(base, offers, ruled=False)
    target = made.folder / "experiments.yaml"
    if count:
        target.write_text(yaml.safe_dump(file(count), sort_keys=False))
    else:
        target.unlink(missing_ok=True)
    return load(made.folder, sources=False)


def microseconds(base: Workspace, bodies: list[str]) -> dict[int, float]:
    """Of a whole decision, by the number of experiments: the median of turns that are taken one after the other.

    The processor's time, not the clock's: what else the machine does is no cost of an experiment.
    """
    paths = {}
    for count in COUNTS:
        paths[count] = HotPath(place(base, count), bodies)  # loaded at once: the next place is written over this one
        for at in range(ASKED):
            paths[count].ask(at)
    gc.collect()
    gc.freeze()
    taken: dict[int, list[float]] = {count: [] for count in COUNTS}
    for turn in range(TURNS):
        for count, path in paths.items():
            begin = time.thread_time_ns()
            for at in range(turn * ASKED, (turn + 1) * ASKED):
                path.ask(at)
            taken[count].append((time.thread_time_ns() - begin) / ASKED / 1e3)
    for path in paths.values():
        path.close()
    return {count: statistics.median(found) for count, found in taken.items()}
