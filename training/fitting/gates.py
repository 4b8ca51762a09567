"""What a model must reach before it may serve. Whoever wants to serve it all the same publishes its version by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from features.config.model_file import Gates

TREES_MIN = 2
COIN_AUC = 0.5


def failed(
    gates: Gates, trees: int, auc: tuple[float, float, float], metrics: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Yield why a model may not serve; nothing where it may. What cannot be told is not passed.

    Args:
        trees: those that split anything.
        auc: low end, AUC and high end on the test slice (`training.fitting.metrics.auc_interval`).
        metrics: by `model` and the names of the baselines, on the test slice.
    """
    low, middle, high = auc
    if trees < TREES_MIN:
        yield (
            f"expected {TREES_MIN} trees at least, got {trees}: no further one made the log loss on the later training"
            " decisions smaller, so that the model learnt next to nothing. See `parameters` in model.yaml, or bring"
            " columns that say more"
        )
    if not low > COIN_AUC:
        got = (
            f"{middle:.3f} ({low:.3f} to {high:.3f})"
            if middle == middle
            else "none: all labels of the test slice are alike"
        )
        yield (
            f"expected an AUC on the test slice whose 95 % interval is above a coin's {COIN_AUC}, got {got}: bring"
            " columns that say more, or more history"
        )
    ours, theirs = metrics["model"]["mrr"], metrics["popularity"]["mrr"]
    if gates.better_than_popularity and not ours >= theirs:
        yield f"expected an MRR of at least {theirs:.3f}, popularity's, got {ours:.3f}"
