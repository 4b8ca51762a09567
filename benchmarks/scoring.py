"""The kernel against `Booster.predict` and other evaluators, in process; and how its cost grows with offers, columns
and trees.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightgbm as lgb
import msgspec
import numpy as np

from benchmarks.other_kernels import seconds_of
from benchmarks.places import CACHE
from benchmarks.synthetic import OFFER_COLUMNS
from features.workspace.workspace import Workspace
from serving.kernel.kernel import Kernel
from training.bundle import bundle
from training.bundle.forest_compiler import compile_forest

COUNTS = (1, 50, 200, 1_000, 10_000)
TOOLS = CACHE / "tools" / "bin" / "python"
HOW_TO_GET = (
    "not installed: python3 -m venv .bench/tools && .bench/tools/bin/pip install lightgbm treelite tl2cgen onnxruntime"
    " onnxmltools"
)
ROWS_OF_GROWTH = 200
GROWTH_TREES, GROWTH_COLUMNS = (50, 100, 200, 400), (5, 20, 35, 100)
SEED = 11
TURNS = 3
"""Kernel and Booster are timed in turns, so that what disturbs one disturbs the other."""

Floats = np.ndarray[Any, np.dtype[np.float64]]


class NotEqual(AssertionError):
    """The kernel's scores are not LightGBM's to the bit."""


def compared(base: Workspace, counts: tuple[int, ...] = COUNTS, *, others: bool = True) -> dict[str, Any]:
    """Seconds of one scoring of so many offers for one customer, by evaluator, on the workspace's model.

    Raises:
        NotEqual: the kernel gave other scores than LightGBM.
    """
    place = bundle.current(base.bundles)
    assert place is not None
    found, booster = bundle.read(place), lgb.Booster(model_file=str(place / "model.txt"))
    shared, offer = (len(found.contract.of_kind(kind)) for kind in ("customer", "offer"))
    random = np.random.default_rng(SEED)
    rows = np.hstack([np.tile(random.normal(size=shared), (max(counts), 1)), random.normal(size=(max(counts), offer))])
    kernel = Kernel(found.forest, range(shared), range(shared, shared + offer))
    raw = np.asarray(booster.predict(rows, raw_score=True, num_threads=1))
    seconds: dict[str, dict[str, float]] = {"kernel": {}, "booster": {}}
    for count in counts:
        turns = [
            (_kernel_seconds(kernel, rows[:count], shared, raw[:count]), _booster_seconds(booster, rows[:count]))
            for _ in range(TURNS)
        ]
        for name, times in zip(("kernel", "booster"), zip(*turns, strict=True), strict=True):
            seconds[name][str(count)] = statistics.median(times)
    return {"seconds": seconds, "others": _others(place / "model.txt", rows, raw, counts) if others else {}}


def _kernel_seconds(kernel: Kernel, rows: Floats, shared: int, raw: Floats) -> float:
    values, table = rows[0, :shared].copy(), kernel.prepare(rows[:, shared:])
    chosen, none, out = np.arange(len(rows), dtype=np.int32), np.empty((len(rows), 0)), np.empty(len(rows))
    kernel.score(values, table, chosen, none, out)
    if not np.array_equal(out, raw):
        raise NotEqual(
            f"expected LightGBM's scores of {len(rows)} offers, got others at {np.flatnonzero(out != raw)[:5]}"
        )
    return float(seconds_of(lambda: kernel.score(values, table, chosen, none, out)))


def _booster_seconds(booster: lgb.Booster, rows: Floats) -> float:
    return float(seconds_of(lambda: booster.predict(rows, raw_score=True, num_threads=1)))


def _others(model: Path, rows: Floats, raw: Floats, counts: tuple[int, ...]) -> dict[str, Any]:
    """What other evaluators need, each in milliseconds, or why it did not run."""
    place = CACHE / "scoring"
    place.mkdir(parents=True, exist_ok=True)
    np.save(place / "rows.npy", rows)
    np.save(place / "raw.npy", raw)
    (place / "counts.json").write_text(json.dumps(counts))
    python = TOOLS if TOOLS.exists() else Path(sys.executable)
    script = str(Path(__file__).parent / "other_kernels.py")
    try:
        ran = subprocess.run(
            [str(python), script, str(model), *(str(place / name) for name in ("rows.npy", "counts.json"))],
            capture_output=True,
            timeout=180,
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failure:
        return dict.fromkeys(("treelite", "onnxruntime"), f"did not run: {failure}")
    found: dict[str, Any] = msgspec.json.decode(ran.stdout.splitlines()[-1])
    return {
        name: HOW_TO_GET if isinstance(one, str) and one.startswith("ModuleNotFound") else one
        for name, one in found.items()
    }


def growth(
    trees: tuple[int, ...] = GROWTH_TREES, columns: tuple[int, ...] = GROWTH_COLUMNS
) -> dict[str, list[dict[str, float]]]:
    """Seconds for 200 offers against the number of trees (35 customer columns), and against customer columns (200
    trees).
    """
    random = np.random.default_rng(SEED)
    made: dict[str, list[dict[str, float]]] = {"trees": [], "columns": []}
    for axis, sizes in (("trees", trees), ("columns", columns)):
        cases = [_case(random, *((35, size) if axis == "trees" else (size, 200))) for size in sizes]
        turns = [[(kernel(), booster()) for kernel, booster in cases] for _ in range(TURNS)]
        for at, size in enumerate(sizes):
            kernel, booster = (statistics.median(turn[at][which] for turn in turns) for which in (0, 1))
            made[axis].append({"size": size, "kernel": kernel, "booster": booster})
    return made


def _case(random: np.random.Generator, shared: int, rounds: int) -> tuple[Callable[[], float], Callable[[], float]]:
    """A forest of so many trees on so many customer columns and 5 offer columns; what times the kernel and the Booster
    on it.
    """
    x = random.normal(size=(8_000, shared + OFFER_COLUMNS))
    y = (random.random(len(x)) < 1 / (1 + np.exp(-x @ random.normal(size=shared + OFFER_COLUMNS) * 0.4))).astype(float)
    parameters = {
        "objective": "binary",
        "num_leaves": 31,
        "verbose": -1,
        "num_threads": 1,
        "seed": SEED,
        "learning_rate": 0.02,
    }
    booster = lgb.train(parameters, lgb.Dataset(x, y), rounds)
    kernel = Kernel(compile_forest(booster.model_to_string()), range(shared), range(shared, shared + OFFER_COLUMNS))
    rows = np.hstack([np.tile(x[0, :shared], (ROWS_OF_GROWTH, 1)), x[:ROWS_OF_GROWTH, shared:]])
    raw = np.asarray(booster.predict(rows, raw_score=True, num_threads=1))
    return partial(_kernel_seconds, kernel, rows, shared, raw), partial(_booster_seconds, booster, rows)
