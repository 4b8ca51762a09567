"""What a model learns from: decisions that this service recorded, imported history, or both; and why."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from msgspec import Struct

from features.common.moments import Micros
from features.lake import lake
from features.workspace.workspace import Workspace
from training.dataset import recorded
from training.dataset.examples import CATEGORIES_MAX, Examples, examples_of

Part = Callable[[float], None]


class TrainingSource(Struct, frozen=True):
    """What was learnt from; decisions are those with a closed attribution window where they were recorded here."""

    used: str
    """`recorded`, `imported` or `both`."""
    recorded_decisions: int
    recorded_successes: int
    imported_decisions: int
    why: str

    @property
    def is_imported(self) -> bool:
        return self.used == "imported"


def source_of(workspace: Workspace, now: Micros) -> TrainingSource:
    """Return which decisions to learn from, at a moment in microseconds since 1970; see `learn_from` in model.yaml."""
    model = workspace.model
    found, imported = recorded.count(workspace, now), _imported(workspace, now)
    counted = (found.decisions, found.successes, imported)
    if model.learn_from != "auto":
        return TrainingSource(model.learn_from, *counted, f"learn_from is `{model.learn_from}`")
    has = f"{found.decisions:,} recorded decisions with a closed window, {found.successes:,} of them with a success"
    enough = f"{model.recorded_decisions_min:,} and {model.recorded_successes_min:,}"
    if found.decisions >= model.recorded_decisions_min and found.successes >= model.recorded_successes_min:
        return TrainingSource("recorded", *counted, f"there are {has}: at least {enough}")
    if not imported and found.successes:
        return TrainingSource("recorded", *counted, f"no decisions were imported; there are {has}")
    return TrainingSource("imported", *counted, f"there are {has}: fewer than {enough}")


def _imported(workspace: Workspace, now: Micros) -> int:
    con = lake.connect(workspace)
    try:
        until = f"time <= make_timestamptz({now}::BIGINT)"
        found = con.execute(
            f"SELECT count(DISTINCT decision_id) FROM decisions WHERE event_id IS NULL AND {until}"
        ).fetchone()
    finally:
        con.close()
    return int(found[0]) if found else 0


def learnt_from(
    workspace: Workspace, now: Micros, progress: Part = lambda _: None, categories: dict[str, list[str]] | None = None
) -> tuple[Examples, TrainingSource]:
    """Return the examples to learn from, or to compare on, and where they are from.

    Args:
        now, progress, categories: see `examples_of`.

    Raises:
        NoExamples: there is nothing to learn from.
    """
    source = source_of(workspace, now)
    if source.used == "recorded":
        return recorded.recorded_of(workspace, now, progress, categories), source
    if source.is_imported:
        return examples_of(workspace, now, progress, categories), source
    own = recorded.recorded_of(workspace, now, lambda part: progress(part / 2), categories)
    given = examples_of(workspace, now, lambda part: progress(0.5 + part / 2), categories)
    return both(given, own, workspace.model.recorded_weight), source


def both(imported: Examples, own: Examples, weight: float) -> Examples:
    """Imported and recorded decisions together; one that is in both counts as it was recorded.

    Args:
        weight: of a recorded decision, where an imported one weighs 1.
    """
    imported = imported.where(~np.isin(np.array(imported.ids, object), np.array(own.ids, object)))
    categories, values = dict(imported.categories), own.values.copy()
    for at, column in enumerate(own.contract.columns):
        if column.dtype == "category":
            known = categories[column.name]
            more = [text for text in own.categories[column.name] if text not in set(known)]
            categories[column.name] = [*known, *more[: CATEGORIES_MAX - len(known)]]
            code = {text: float(number) for number, text in enumerate(categories[column.name])}
            table = np.array([*(code.get(text, np.nan) for text in own.categories[column.name]), np.nan])
            values[:, at] = table[np.where(np.isnan(values[:, at]), len(table) - 1, values[:, at]).astype(np.int64)]
    return Examples(
        own.contract,
        categories,
        own.offer_ids,
        np.concatenate([imported.values, values]),
        np.concatenate([imported.labels, own.labels]),
        np.concatenate([imported.decision, own.decision + len(imported.ids)]),
        np.concatenate([imported.offer, own.offer]),
        [*imported.ids, *own.ids],
        np.concatenate([imported.times, own.times]),
        np.concatenate([imported.closes, own.closes]),
        np.concatenate([imported.strangers, own.strangers]),
        np.concatenate([np.ones(len(imported.ids)), np.full(len(own.ids), weight)]),
    )
