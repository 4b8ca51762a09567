"""Load a model file and answer golden requests, in a process of its own: a damaged LightGBM file kills or hangs whoever loads it.

    python -m training.canary MODEL.txt GOLDEN.json

Exit status 0 when every raw score is equal to the bit; 3 with one line when one is not; anything else is a crash.
"""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

from features.failures import Failure

SECONDS_MAX = 20.0
MEMORY_BYTES_MAX = 4 << 30


class CanaryFailed(Failure):
    """The model did not survive its test."""


def rehearse(model: Path, golden: Path, seconds_max: float = SECONDS_MAX) -> None:
    """Run the canary in a subprocess, bounded in time and memory.

    Raises:
        CanaryFailed: it crashed, hung, or answered otherwise than recorded.
    """
    command = [sys.executable, "-m", "training.canary", str(model.resolve()), str(golden.resolve())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds_max, cwd=Path(__file__).parents[1], check=False)
    except subprocess.TimeoutExpired as error:
        raise CanaryFailed(f"expected the model to answer its golden requests within {seconds_max:g} s, got no answer") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise CanaryFailed(
            f"expected the model to answer its golden requests, got {_ended(done.returncode)}: {said[-1] if said else 'no word'}"
        )


def _ended(status: int) -> str:
    return f"exit status {status}" if status > 0 else f"the end of its process by {signal.Signals(-status).name}"


def main(model: str, golden: str) -> int:
    """The subprocess."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
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
