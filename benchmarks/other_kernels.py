"""Other evaluators of the same forest, where they are installed: treelite (compiled to C) and onnxruntime, one thread.

Run by the benchmark in an interpreter that has them (`.bench/tools`), because they are no dependencies of ours:

    python other_kernels.py model.txt rows.npy counts.json    # prints {"name": {"version": …, "seconds": {"50": …}} |
    "reason"}

Their input is float32 (onnxruntime) or float64 (treelite); whether their scores equal LightGBM's is told beside the
times.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

BATCHES, BATCH_SECONDS = 7, 0.03

Made = tuple[str, Callable[[Any], Any]]
"""What it is, with versions, and how it predicts raw scores of rows."""


def seconds_of(step: Callable[[], Any]) -> float:
    """Median seconds of a call."""
    step()
    began = time.perf_counter()
    step()
    count = max(1, int(BATCH_SECONDS / max(1e-7, time.perf_counter() - began)))
    means = []
    for _ in range(BATCHES):
        began = time.perf_counter()
        for _ in range(count):
            step()
        means.append((time.perf_counter() - began) / count)
    return statistics.median(means)


def treelite_of(model: Path, folder: Path) -> Made:
    import tl2cgen  # type: ignore[import-not-found]
    import treelite  # type: ignore[import-not-found]

    loaded = treelite.frontend.load_lightgbm_model(str(model))
    library = folder / "forest.so"
    tl2cgen.export_lib(loaded, toolchain="gcc", libpath=str(library), params={"parallel_comp": 2}, verbose=False)
    predictor = tl2cgen.Predictor(str(library), nthread=1)
    return f"treelite {treelite.__version__}, tl2cgen {tl2cgen.__version__}", lambda rows: predictor.predict(
        tl2cgen.DMatrix(rows, dtype="float64"), pred_margin=True
    )


def onnxruntime_of(model: Path, folder: Path) -> Made:
    import lightgbm
    import onnxmltools  # type: ignore[import-not-found]
    import onnxruntime  # type: ignore[import-not-found]
    from onnxmltools.convert.common.data_types import FloatTensorType  # type: ignore[import-not-found]

    booster = lightgbm.Booster(model_file=str(model))
    made = onnxmltools.convert_lightgbm(
        booster, initial_types=[("rows", FloatTensorType([None, booster.num_feature()]))], zipmap=False
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def predict(rows: Any) -> Any:
        chances = session.run(None, {"rows": rows.astype(np.float32)})[1][:, 1]
        return np.log(chances / (1 - chances))

    return f"onnxruntime {onnxruntime.__version__}", predict


def main() -> None:
    model, rows, counts = Path(sys.argv[1]), np.load(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text())
    expected = np.load(sys.argv[2].replace("rows", "raw"))
    found: dict[str, Any] = {}
    for name, make in (("treelite", treelite_of), ("onnxruntime", onnxruntime_of)):
        with tempfile.TemporaryDirectory() as folder:
            try:
                version, predict = make(model, Path(folder))
                given = np.asarray(predict(rows)).ravel()
                error = float(np.max(np.abs(given - expected[: len(given)])))
                seconds = {str(count): seconds_of(partial(predict, rows[:count])) for count in counts}
                found[name] = {"version": version, "seconds": seconds, "largest_error": error}
            except Exception as error:  # noqa: BLE001 (what another library cannot do is a finding, not a failure)
                found[name] = f"{type(error).__name__}: {str(error)[:200]}"
    print(json.dumps(found))


if __name__ == "__main__":
    main()
