"""`make bench`: a whole decision beside its rivals, in one run, with every answer that is kept compared with the
oracle.

    python benchmarks/bench_decisions.py              # about eight minutes; writes benchmarks/results/
    python benchmarks/bench_decisions.py --quick      # about ninety seconds; writes .bench/results/
    python benchmarks/bench_decisions.py --profile    # where the time of the hot path goes, in process, nothing else

`docs/benchmarks.md` says what is measured and how. Ends with 1 when an answer was wrong or nothing was checked; a
missed bar is told, and is an error with --strict.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

SETTINGS = {
    "TZ": "UTC",
    "OMP_NUM_THREADS": "1",
    "FEAST_USAGE": "False",
    "BENTOML_DO_NOT_TRACK": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

if __name__ == "__main__":
    sys.path[0] = str(
        Path(__file__).resolve().parents[1]
    )  # not this folder: its modules would hide others of the same name
    os.environ.update(SETTINGS)
    from benchmarks.command import main

    sys.exit(main())
