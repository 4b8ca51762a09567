"""Metrics of experiments' splits: what the background worker last found in the lake, from the file that it writes.

Every worker reads the same file, so that all give the same answer. A worker that no longer looks is told by the moment
of its last look.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from features.common.timestamps import MICROSECONDS
from features.config.experiments import EXPERIMENTS_MAX
from serving.runtime.exposition import labelled

FILE = "splits.json"
FILE_BYTES_MAX = 4 << 20


class SplitMetric(Struct, frozen=True):
    """The units of an experiment by arm against what its split gives; `p` is of a sound split, at all looks
    together.
    """

    experiment: str
    arms: tuple[str, ...]
    units: tuple[int, ...]
    expected: tuple[float, ...]
    p: float
    is_mismatch: bool


class Splits(Struct, frozen=True):
    """What was found at a moment, in microseconds since 1970, of the experiments that ran then."""

    at: int
    experiments: tuple[SplitMetric, ...] = ()


_TEXTS = {
    "opportune_experiment_units": "Units of the experiment that have the arm, in the lake.",
    "opportune_experiment_units_expected": "What the split gives the arm, of as many units.",
    "opportune_experiment_split_p": "P of a sound split, valid however often it is read.",
    "opportune_experiment_mismatch": "1 for a sample-ratio mismatch: no other figure of the experiment can be trusted.",
    "opportune_experiment_looked_seconds": (
        "When the background worker last looked at the splits, in seconds since 1970."
    ),
}

_decoder = msgspec.json.Decoder(Splits)


def read_splits(data: Path) -> Splits | None:
    """Return what was found last; None where nobody looked, or the file cannot be read."""
    try:
        with (data / FILE).open("rb") as file:
            return _decoder.decode(file.read(FILE_BYTES_MAX))
    except (OSError, msgspec.MsgspecError):
        return None


def split_lines(data: Path) -> Iterator[str]:
    """Yield lines of Prometheus text; none where nobody looked yet."""
    found = read_splits(data)
    if found is None:
        return
    experiments = found.experiments[:EXPERIMENTS_MAX]
    by_arm = [
        (one.experiment, arm, units, wanted)
        for one in experiments
        for arm, units, wanted in zip(one.arms, one.units, one.expected, strict=False)
    ]
    samples: dict[str, list[str]] = {
        "opportune_experiment_units": [f"{labelled(experiment=key, arm=arm)} {units}" for key, arm, units, _ in by_arm],
        "opportune_experiment_units_expected": [
            f"{labelled(experiment=key, arm=arm)} {wanted!r}" for key, arm, _, wanted in by_arm
        ],
        "opportune_experiment_split_p": [f"{labelled(experiment=one.experiment)} {one.p!r}" for one in experiments],
        "opportune_experiment_mismatch": [
            f"{labelled(experiment=one.experiment)} {int(one.is_mismatch)}" for one in experiments
        ],
        "opportune_experiment_looked_seconds": [f" {found.at / MICROSECONDS!r}"],
    }
    for name, lines in samples.items():
        yield from (f"# HELP {name} {_TEXTS[name]}", f"# TYPE {name} gauge")
        yield from (f"{name}{line}" for line in lines)
