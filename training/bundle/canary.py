"""Load a model file and answer golden requests, in a process of its own: a damaged LightGBM file kills or hangs whoever
loads it.

    python -m training.bundle.canary MODEL.txt GOLDEN.json SECONDS

Exit status 0 when every raw score is equal to the bit; 3 with one line when one is not; anything else is a crash.

The limit is one of processor time, which a busy machine does not use up while others run; a damaged model that hangs
does. Time on the clock is bounded too, `CLOCK_FACTOR` times as long, for one that waits for something that never comes.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from features.common.errors import Failure
from features.common.files import ROOT

SECONDS_VARIABLE = "OPPORTUNE_REHEARSAL_SECONDS"
SECONDS_MAX, SECONDS_LEAST, SECONDS_MOST = 60.0, 5.0, 3_600.0
"""Processor time that a model may take to load and to answer; it needs two seconds. The default, and what the
environment may say.
"""
CLOCK_FACTOR = 10.0
MEMORY_BYTES_MAX = 4 << 30
OUTPUT_BYTES_MAX = 16 << 20

UNUSED = ("sklearn", "pandas", "pyarrow", "matplotlib", "dask", "graphviz")
"""What LightGBM imports where it is there; scoring does without, and a start takes a quarter of a second instead of
more than one.
"""

_SAID_BYTES_MAX, _LINE_CHARACTERS_MAX = 4_096, 300


class CanaryFailed(Failure):
    """The model did not survive its test."""


def seconds_of(environment: Mapping[str, str]) -> float:
    """Return the seconds of processor time that the environment gives.

    Raises:
        CanaryFailed: what it says is no such number.
    """
    text = environment.get(SECONDS_VARIABLE, "")
    try:
        seconds = float(text) if text else SECONDS_MAX
    except ValueError:
        seconds = math.nan
    if not SECONDS_LEAST <= seconds <= SECONDS_MOST:
        raise CanaryFailed(
            f"{SECONDS_VARIABLE}: expected a number from {SECONDS_LEAST:g} to {SECONDS_MOST:g}, got {text!r}"
        )
    return seconds


def rehearse(
    model: Path, golden: Path, seconds_max: float | None = None, clock_seconds_max: float | None = None
) -> None:
    """Run the canary in a subprocess, bounded in time and memory.

    Args:
        seconds_max: processor time; what the environment says, or else `SECONDS_MAX`, when absent.
        clock_seconds_max: time on the clock; `CLOCK_FACTOR` times as long when absent.

    Raises:
        CanaryFailed: it crashed, hung, or answered otherwise than recorded.
    """
    seconds = seconds_of(os.environ) if seconds_max is None else seconds_max
    waited = clock_seconds_max or seconds * CLOCK_FACTOR
    command = [
        sys.executable,
        "-m",
        "training.bundle.canary",
        str(model.resolve()),
        str(golden.resolve()),
        str(math.ceil(seconds)),
    ]
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(command, stdout=said, stderr=said, timeout=waited, cwd=ROOT, check=False)
        except subprocess.TimeoutExpired as error:
            raise CanaryFailed(
                f"expected the model to answer its golden requests within {waited:g} s, got no answer: a machine that"
                f" is very busy needs longer. Try again, or set {SECONDS_VARIABLE} (now {seconds:g}) higher"
            ) from error
        if done.returncode == -signal.SIGXCPU:
            raise CanaryFailed(
                f"expected the model to answer its golden requests within {seconds:g} s of processor time, got no"
                f" answer: a damaged model hangs. Where the machine is only slow, set {SECONDS_VARIABLE} higher"
            )
        if done.returncode != 0:
            last = _last_line(said)
            raise CanaryFailed(
                f"expected the model to answer its golden requests, got {_ended(done.returncode)}: {last}"
            )


def _last_line(said: IO[bytes]) -> str:
    """Return what the canary said last; a damaged model is quoted in it, so it may be anything."""
    said.seek(max(0, said.seek(0, os.SEEK_END) - _SAID_BYTES_MAX))
    lines = (
        "".join(c if c.isprintable() or c == "\n" else "?" for c in said.read().decode(errors="replace"))
        .strip()
        .split("\n")
    )
    return lines[-1][-_LINE_CHARACTERS_MAX:] or "no word"


def _ended(status: int) -> str:
    return f"exit status {status}" if status > 0 else f"the end of its process by {signal.Signals(-status).name}"


def main(model: str, golden: str, seconds: str) -> int:
    """Be the subprocess."""
    resource.setrlimit(
        resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1)
    )  # SIGXCPU, and SIGKILL for who does not heed it
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT_BYTES_MAX, OUTPUT_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is an answer here, not something to look into
    import lightgbm as lgb
    import msgspec
    import numpy as np

    from training.bundle.bundle import Golden, numbers

    booster = lgb.Booster(model_file=model)
    cases = msgspec.json.decode(Path(golden).read_bytes(), type=list[Golden])
    for at, case in enumerate(cases):
        rows = np.array(
            [numbers([*case.shared, *offer, *pair]) for offer, pair in zip(case.offers, case.pairs, strict=True)]
        )
        raw = np.asarray(booster.predict(rows, raw_score=True, num_threads=1))
        if not np.array_equal(raw, np.array(case.raw)):
            sys.stderr.write(f"golden request {at}: expected {case.raw[:3]}…, got {raw[:3].tolist()}…\n")
            return 3
    sys.stdout.write(f"{len(cases)} golden requests\n")
    return 0 if cases else 4


if __name__ == "__main__":
    for unused in UNUSED:
        sys.modules[unused] = None  # type: ignore[assignment]  # it cannot be imported from here on
    sys.exit(main(*sys.argv[1:4]))
