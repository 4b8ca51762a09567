"""Examples: decisions and outcomes become rows (customer, context, offer, pair) -> label, as the model would have seen
them.

A row is positive when the label's outcome followed for this offer within the attribution window. Time is cut, never
shuffled: training decisions have their window closed before the cut, test decisions come after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.aggregates.partitions import fnv1a
from features.columns.catalogue import Catalogue, category_text
from features.columns.contract import Contract
from features.columns.layout import Layout
from features.columns.rows import Dictionary, RowSchema
from features.common.errors import Failure
from features.common.moments import Micros
from features.common.timestamps import DAY_SECONDS, MICROSECONDS, duration_seconds
from features.common.types import OFFERS_CONSIDERED
from features.feature_store import point_in_time
from features.lake import lake
from features.lake.offers import offers_of
from features.workspace.workspace import Workspace

DAY = DAY_SECONDS * MICROSECONDS
CATEGORIES_MAX = 10_000
"""Texts of one category column that the model tells apart; the rarest beyond it are missing."""
FOREVER = 253_402_300_799_000_000
"""The last second of the year 9999, in microseconds: when the window of an offer without end is closed."""


class NoExamples(Failure):
    """There is nothing to learn from."""


@dataclass(frozen=True)
class Examples:
    """Rows of several decisions, those of one decision together.

    Attributes:
        values: float64, shape (rows, columns); NaN is missing.
        labels: float64 0 or 1, shape (rows,).
        decision: position of each row's decision in the arrays below, ascending; each has at least one row.
        offer: position of each row's offer in the catalogue.
        ids, times, closes: of each decision: id, moment, end of its attribution window (microseconds since 1970).
        strangers: of each decision, whether the customer was made unknown (see `cold_start_share`).
    """

    contract: Contract
    categories: dict[str, list[str]]
    offer_ids: list[str]
    values: NDArray[np.float64]
    labels: NDArray[np.float64]
    decision: NDArray[np.int64]
    offer: NDArray[np.int64]
    ids: list[str]
    times: NDArray[np.int64]
    closes: NDArray[np.int64]
    strangers: NDArray[np.bool_]
    weights: NDArray[np.float64] | None = None
    """Of each decision, in fitting; None where all weigh the same."""

    def __len__(self) -> int:
        return len(self.labels)

    def lots(self, salt: str = "") -> NDArray[np.uint64]:
        """Return a number drawn for each row by hash of its decision and offer: the same in any run and in any order of
        rows.
        """
        of_decision = np.array([fnv1a(salt + text) for text in self.ids], np.uint64)
        of_offer = np.array([fnv1a(text) for text in self.offer_ids], np.uint64)
        mixed = (of_decision[self.decision] << np.uint64(32)) | of_offer[self.offer]
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # the finish of SplitMix64
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)))

    def where(self, decisions: NDArray[np.bool_]) -> Examples:
        """Return the rows of some of the decisions."""
        number = np.cumsum(decisions) - 1
        rows = decisions[self.decision]
        return Examples(
            self.contract,
            self.categories,
            self.offer_ids,
            self.values[rows],
            self.labels[rows],
            number[self.decision[rows]],
            self.offer[rows],
            list(compress(self.ids, decisions)),
            self.times[decisions],
            self.closes[decisions],
            self.strangers[decisions],
            None if self.weights is None else self.weights[decisions],
        )


@dataclass(frozen=True)
class _Decisions:
    """Decisions in time order, one entry each; every one considered at least one offer of the catalogue.

    Attributes:
        offers: positions in the catalogue of the offers considered, ascending.
        labels: 0 or 1, one for each of them.
    """

    ids: list[str]
    customers: list[str]
    times: NDArray[np.int64]
    closes: NDArray[np.int64]
    offers: list[NDArray[np.int32]]
    labels: list[NDArray[np.float64]]
    context: dict[str, list[Any]]


def examples_of(
    workspace: Workspace,
    now: Micros,
    progress: Callable[[float], None] = lambda _: None,
    categories: dict[str, list[str]] | None = None,
) -> Examples:
    """Return all imported decisions of the lake as examples; those of this service are in
    `training/dataset/recorded.py`.

    Args:
        now: microseconds since 1970; what happened after it is not known.
        progress: told the part that is done, 0 to 1.
        categories: the dictionary of a model that is to score the rows; one is made of the decisions when absent.

    Raises:
        NoExamples: the lake has no decisions, or no outcome of the label's type.
    """
    catalogue, words = Catalogue(offers_of(workspace)), Dictionary()
    decisions = _decisions(workspace, catalogue, now)
    joined = point_in_time.join(workspace, decisions.customers, decisions.times, words)
    days, day_of = np.unique(decisions.times // DAY * DAY, return_inverse=True)
    everyone = list(point_in_time.join(workspace, [], days, words, "everyone").rows())
    contract = workspace.contract
    if categories is None:
        categories = _categories(contract, joined, decisions, catalogue)
    layout = Layout(contract, joined.plan, RowSchema.of(workspace.views, "everyone"), catalogue, categories, words)
    offers_by_day = [
        layout.offer_values(row, day / MICROSECONDS).copy() for row, day in zip(everyone, days, strict=True)
    ]
    strangers = strangers_of(workspace, decisions.ids)
    rows_of = np.array([len(offers) for offers in decisions.offers]) * np.where(strangers, 2, 1)
    values = np.empty((int(rows_of.sum()), len(contract.columns)))
    first_pair = values.shape[1] - len(layout.pair)
    order, made_strange, sizes = [], [], []
    at, stranger = 0, joined.plan.nobody()
    for number, row in enumerate(joined.rows()):
        chosen, moment, day = decisions.offers[number], decisions.times[number] / MICROSECONDS, day_of[number]
        context = {name: texts[number] for name, texts in decisions.context.items()} | {OFFERS_CONSIDERED: len(chosen)}
        for known in (row, stranger) if strangers[number] else (row,):
            rows = values[at : at + len(chosen)]
            shared = layout.shared_values(known, context, moment)
            rows[:, : len(shared)] = shared
            rows[:, len(shared) : first_pair] = offers_by_day[day][chosen]
            rows[:, first_pair:] = layout.pair_values(known, everyone[day], offers_by_day[day], chosen, moment)
            order.append(number)
            made_strange.append(known is stranger)
            sizes.append(len(chosen))
            at += len(chosen)
        if number % 256 == 0:
            progress(number / len(decisions.ids))
    progress(1.0)
    return Examples(
        contract,
        categories,
        [offer.offer_id for offer in catalogue.offers],
        values,
        np.concatenate([decisions.labels[number] for number in order]),
        np.repeat(np.arange(len(order)), sizes),
        np.concatenate([decisions.offers[number] for number in order]).astype(np.int64),
        [decisions.ids[number] for number in order],
        decisions.times[order],
        decisions.closes[order],
        np.array(made_strange),
    )


def _decisions(workspace: Workspace, catalogue: Catalogue, now: Micros) -> _Decisions:
    """Decisions up to now with their labels; offers that the catalogue does not know are passed over."""
    label = workspace.model.label
    context = [name for name in workspace.features.context if name != OFFERS_CONSIDERED]
    con = lake.connect(workspace)
    ends = np.minimum(catalogue.valid_until, FOREVER)
    con.register(
        "catalogue",
        pa.table(
            {"offer_id": list(catalogue.index), "position": pa.array(np.arange(len(catalogue))), "ends": pa.array(ends)}
        ),
    )
    # An offer that had ended before the decision has a window of no length.
    closes = "greatest(m.time, make_timestamptz(c.ends))"
    if label.within != "offer_end":
        closes = f"m.time + to_seconds({duration_seconds(label.within)})"
    columns = "".join(f", arg_min({lake.quoted(name)}, offer_id) AS context_{at}" for at, name in enumerate(context))
    until = f"time <= make_timestamptz({now}::BIGINT)"
    imported = f"{until} AND event_id IS NULL"
    con.execute(f"""
        CREATE TEMP TABLE made AS
        SELECT decision_id, arg_min(customer_id, (time, offer_id)) AS customer_id, min(time) AS time{columns}
        FROM decisions WHERE {imported} GROUP BY decision_id;
        CREATE TEMP TABLE considered AS
        SELECT DISTINCT m.decision_id, m.customer_id, m.time, c.position, {closes} AS closes
        FROM decisions d JOIN made m USING (decision_id) JOIN catalogue c USING (offer_id) WHERE d.{imported};
        CREATE TEMP TABLE happened AS
        SELECT row_number() OVER () AS number, o.decision_id, o.customer_id, c.position, o.time
        FROM outcomes o JOIN catalogue c USING (offer_id) WHERE o.type = {lake.literal(label.outcome)} AND o.{until};
        CREATE TEMP TABLE successes AS
        SELECT DISTINCT decision_id, position FROM (
            SELECT d.decision_id, d.position
            FROM happened s JOIN considered d ON s.customer_id = d.customer_id AND s.position = d.position
                AND (s.decision_id IS NULL OR s.decision_id = d.decision_id)
            WHERE s.time >= d.time AND s.time < d.closes
            QUALIFY row_number() OVER (PARTITION BY s.number ORDER BY d.time DESC, d.decision_id) = 1
        )
        """)
    found = con.execute("""
        SELECT m.*, epoch_us(m.time) AS moment, g.closes, g.offers, g.labels FROM made m JOIN (
            SELECT decision_id, epoch_us(max(closes)) AS closes, list(position ORDER BY position) AS offers,
                list(s.position IS NOT NULL ORDER BY position) AS labels
            FROM considered LEFT JOIN successes s USING (decision_id, position) GROUP BY decision_id
        ) g USING (decision_id) ORDER BY moment, decision_id
        """).to_arrow_table()
    made = con.execute("SELECT count(*) FROM made").fetchone()
    con.close()
    if not found.num_rows and made and made[0]:
        raise NoExamples(
            f"expected decisions about offers of the catalogue, got none among {made[0]}. Bring the offers' table, or"
            " mend the offer ids."
        )
    if not found.num_rows:
        raise NoExamples(
            "expected decisions to learn from, got none. Name `sources.decisions` in workspace.yaml and run `opportune"
            " import`."
        )
    columns_of: dict[str, list[Any]] = {name: found.column(name).to_pylist() for name in found.column_names}
    labels = [np.array(hits, np.float64) for hits in columns_of["labels"]]
    if not any(hits.any() for hits in labels):
        raise NoExamples(
            f"expected outcomes of type `{label.outcome}` within {label.within} of a decision, got none. Mend `label`"
            " in model.yaml."
        )
    return _Decisions(
        ids=columns_of["decision_id"],
        customers=columns_of["customer_id"],
        times=np.array(columns_of["moment"], np.int64),
        closes=np.array(columns_of["closes"], np.int64),
        offers=[np.array(chosen, np.int32) for chosen in columns_of["offers"]],
        labels=labels,
        context={name: columns_of[f"context_{at}"] for at, name in enumerate(context)},
    )


def _categories(
    contract: Contract, joined: point_in_time.OfflineHistory, decisions: _Decisions, catalogue: Catalogue
) -> dict[str, list[str]]:
    """Texts of each category column; a text's position is its code. The commonest are kept.

    They stand in the order in which decisions met them, so that what comes later adds codes and moves none.
    """
    made: dict[str, list[str]] = {}
    for column in contract.columns:
        if column.dtype != "category":
            continue
        stated: list[Any]
        if column.kind == "customer":
            stated = joined.texts(column.source)
        elif column.kind == "context":
            stated = [column.default if value is None else value for value in decisions.context[column.source]]
        else:
            stated = sorted(category_text(offer.attributes.get(column.source)) for offer in catalogue.offers)
        counts = Counter(category_text(value) for value in stated)
        del counts[""]
        kept = set(sorted(counts, key=lambda text: (-counts[text], text))[:CATEGORIES_MAX])
        made[column.name] = [text for text in counts if text in kept]
    return made


def strangers_of(workspace: Workspace, ids: list[str]) -> NDArray[np.bool_]:
    """Decisions that are also shown to the model as if the customer were unknown: chosen by hash, so the same every
    time.
    """
    share, seed = workspace.model.cold_start_share, workspace.model.seed
    return np.array([fnv1a(f"{seed}:{text}") % 10_000 < share * 10_000 for text in ids])
