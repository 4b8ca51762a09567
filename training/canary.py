"""Load a model file and answer golden requests, in a process of its own: a damaged LightGBM file kills or hangs whoever loads it.

    python -m training.canary MODEL.txt GOLDEN.json

Exit status 0 when every raw score is equal to the bit; 3 with one line when one is not; anything else is a crash.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from features.failures import Failure

SECONDS_MAX = 20.0
MEMORY_BYTES_MAX = 4 << 30
OUTPUT_BYTES_MAX = 16 << 20

_SAID_BYTES_MAX, _LINE_CHARACTERS_MAX = 4_096, 300


class CanaryFailed(Failure):
    """The model did not survive its test."""


def rehearse(model: Path, golden: Path, seconds_max: float = SECONDS_MAX) -> None:
    """Run the canary in a subprocess, bounded in time and memory.

    Raises:
        CanaryFailed: it crashed, hung, or answered otherwise than recorded.
    """
    command = [sys.executable, "-m", "training.canary", str(model.resolve()), str(golden.resolve())]
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(command, stdout=said, stderr=said, timeout=seconds_max, cwd=Path(__file__).parents[1], check=False)
        except subprocess.TimeoutExpired as error:
            raise CanaryFailed(f"expected the model to answer its golden requests within {seconds_max:g} s, got no answer") from error
        if done.returncode != 0:
            last = _last_line(said)
            raise CanaryFailed(f"expected the model to answer its golden requests, got {_ended(done.returncode)}: {last}")


def _last_line(said: IO[bytes]) -> str:
    """What the canary said last; a damaged model is quoted in it, so it may be anything."""
    said.seek(max(0, said.seek(0, os.SEEK_END) - _SAID_BYTES_MAX))
    lines = "".join(c if c.isprintable() or c == "\n" else "?" for c in said.read().decode(errors="replace")).strip().split("\n")
    return lines[-1][-_LINE_CHARACTERS_MAX:] or "no word"


def _ended(status: int) -> str:
    return f"exit status {status}" if status > 0 else f"the end of its process by {signal.Signals(-status).name}"


def main(model: str, golden: str) -> int:
    """The subprocess."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT_BYTES_MAX, OUTPUT_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is an answer here, not something to look into
    import lightgbm as lgb
    import msgspec
    import numpy as np

    from training.bundle import Golden, numbers

    booster = lgb.Booster(model_file=model)
    cases = msgspec.json.decode(Path(golden).read_bytes(), type=list[Golden])
    for at, case in enumerate(cases):
        rows = np.array([numbers([*case.shared, *offer, *pair]) for offer, pair in zip(case.offers, case.pairs, strict=True)])
        raw = np.asarray(booster.predict(rows, raw_score=True, num_threads=1))
        if not np.array_equal(raw, np.array(case.raw)):
            sys.stderr.write(f"golden request {at}: expected {case.raw[:3]}…, got {raw[:3].tolist()}…\n")
            return 3
    sys.stdout.write(f"{len(cases)} golden requests\n")
    return 0 if cases else 4


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
