"""Examples: decisions and outcomes become rows (customer, context, offer, pair) -> label, as the model would have seen them.

A row is positive when the label's outcome followed for this offer within the attribution window. Time is cut, never shuffled:
training decisions have their window closed before the cut, test decisions come after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features import history, lake, timeline
from features.buckets import fnv1a
from features.catalogue import Catalogue
from features.columns import Contract
from features.failures import Failure
from features.layout import Layout
from features.moments import DAY_SECONDS, MICROSECONDS, duration_seconds
from features.offers import offers_of
from features.online import OnlineRow, Plan, Words
from features.timeline import Timeline
from features.workspace import Workspace

DAY = DAY_SECONDS * MICROSECONDS
CATEGORIES_MAX = 10_000
"""Texts of one category column that the model tells apart; the rarest beyond it are missing."""


class NoExamples(Failure):
    """There is nothing to learn from."""


@dataclass(frozen=True)
class Examples:
    """Rows of several decisions, those of one decision together.

    Attributes:
        values: float64, shape (rows, columns); NaN is missing.
        labels: float64 0 or 1, shape (rows,).
        decision: position of each row's decision in the arrays below, ascending.
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

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, decisions: NDArray[np.bool_]) -> Examples:
        """The rows of some of the decisions."""
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
            [id for id, kept in zip(self.ids, decisions, strict=True) if kept],
            self.times[decisions],
            self.closes[decisions],
            self.strangers[decisions],
        )


@dataclass(frozen=True)
class Split:
    """Where time was cut, in microseconds, and the decisions on each side, as masks."""

    cut: int
    stopping_cut: int
    fit: NDArray[np.bool_]
    stopping: NDArray[np.bool_]
    test: NDArray[np.bool_]


def examples_of(workspace: Workspace, now: int, progress: Callable[[float], None] = lambda _: None) -> Examples:
    """All decisions of the lake as examples.

    Args:
        now: microseconds since 1970; outcomes after it are not known.
        progress: told the part that is done, 0 to 1.

    Raises:
        NoExamples: the lake has no decisions, or no outcome of the label's type.
    """
    catalogue, words = Catalogue(offers_of(workspace)), Words()
    decisions = _decisions(workspace, catalogue, now)
    customers, times = decisions["customer_id"], decisions["moment"]
    joined = history.join(workspace, list(customers), times, words)
    days, day_of = np.unique(times // DAY * DAY, return_inverse=True)
    everyone = list(history.join(workspace, [], days, words, "everyone").rows())
    contract = workspace.contract
    categories = _categories(contract, joined, decisions, catalogue)
    layout = Layout(contract, joined.plan, Plan.of(workspace.views, "everyone"), catalogue, categories, words)
    context_names = [column.name for column in contract.of_kind("context")]
    offers_by_day = [layout.offer_values(row, day / MICROSECONDS).copy() for row, day in zip(everyone, days, strict=True)]
    strangers = _strangers(workspace, decisions["decision_id"])
    sizes = np.array([len(chosen) for chosen in decisions["chosen"]])
    copies = np.where(strangers, 2, 1)
    values = np.empty((int((sizes * copies).sum()), len(contract.columns)))
    labels, decision, offer = (np.empty(len(values), kind) for kind in (np.float64, np.int64, np.int64))
    stranger = OnlineRow(np.full(len(joined.plan.scalars), np.nan), [None] * len(joined.plan.families), np.full(len(joined.plan.views), np.nan))
    at, order, made_strange = 0, [], []
    for number, row in enumerate(joined.rows()):
        chosen, moment = decisions["chosen"][number], times[number] / MICROSECONDS
        context = {name: decisions["context"][name][number] for name in context_names}
        static = offers_by_day[day_of[number]]
        for known in (row, stranger)[: copies[number]]:
            rows = slice(at, at + len(chosen))
            shared = layout.shared_values(known, context, moment)
            values[rows, : len(shared)] = shared
            values[rows, len(shared) : len(shared) + static.shape[1]] = static[chosen]
            values[rows, len(shared) + static.shape[1] :] = layout.pair_values(known, everyone[day_of[number]], static, chosen, moment)
            labels[rows], decision[rows], offer[rows] = decisions["labels"][number], len(order), chosen
            order.append(number)
            made_strange.append(known is stranger)
            at += len(chosen)
        if number % 256 == 0:
            progress(number / len(times))
    progress(1.0)
    return Examples(
        contract,
        categories,
        [o.offer_id for o in catalogue.offers],
        values,
        labels,
        decision,
        offer,
        [decisions["decision_id"][number] for number in order],
        times[order],
        decisions["closes"][order],
        np.array(made_strange),
    )


def _decisions(workspace: Workspace, catalogue: Catalogue, now: int) -> dict[str, Any]:
    """Decisions in time order: ids, moments, context, offers considered, labels and window ends, as arrays by decision."""
    label, context = workspace.model.label, list(workspace.features.context)
    if label.within == "offer_end":
        closes = "coalesce(o.valid_until, make_timestamptz(253402300799000000::BIGINT))"
    else:
        closes = f"d.time + to_seconds({duration_seconds(label.within)})"
    columns = "".join(f", arg_min({lake.quoted(name)}, offer_id) AS {lake.quoted(name)}" for name in context)
    con = lake.connect(workspace)
    con.execute(
        f"""
        CREATE TEMP TABLE considered AS SELECT d.*, {closes} AS closes FROM decisions d LEFT JOIN offers o USING (offer_id)
        WHERE d.time <= make_timestamptz({now}::BIGINT);
        CREATE TEMP TABLE successes AS
        SELECT DISTINCT decision_id, offer_id FROM (
            SELECT d.decision_id, d.offer_id
            FROM outcomes s JOIN considered d ON s.customer_id = d.customer_id AND s.offer_id = d.offer_id
                AND (s.decision_id IS NULL OR s.decision_id = d.decision_id)
            WHERE s.type = {lake.literal(label.outcome)} AND s.time >= d.time AND s.time < d.closes
            QUALIFY row_number() OVER (PARTITION BY s.customer_id, s.offer_id, s.time ORDER BY d.time DESC, d.decision_id) = 1
        )
        """
    )
    found = con.execute(
        f"""
        SELECT decision_id, any_value(customer_id) AS customer_id, epoch_us(min(time)) AS moment, epoch_us(max(closes)) AS closes,
            list(offer_id ORDER BY offer_id) AS offers, list(s.offer_id IS NOT NULL ORDER BY offer_id) AS labels{columns}
        FROM considered d LEFT JOIN successes s USING (decision_id, offer_id)
        GROUP BY decision_id ORDER BY moment, decision_id
        """
    ).to_arrow_table()
    con.close()
    if not found.num_rows:
        raise NoExamples("expected decisions to learn from, got none. Name `sources.decisions` in workspace.yaml and run `opportune import`.")
    chosen, labels = [], []
    for offers, hits in zip(found.column("offers").to_pylist(), found.column("labels").to_pylist(), strict=True):
        known = [(catalogue.index[offer], hit) for offer, hit in zip(offers, hits, strict=True) if offer in catalogue.index]
        chosen.append(np.array([at for at, _ in known], np.int32))
        labels.append(np.array([hit for _, hit in known], np.float64))
    if not sum(part.sum() for part in labels):
        raise NoExamples(f"expected outcomes of type `{label.outcome}` within {label.within} of a decision, got none. Mend `label` in model.yaml.")
    return {
        "decision_id": found.column("decision_id").to_pylist(),
        "customer_id": found.column("customer_id").to_pylist(),
        "moment": found.column("moment").to_numpy().astype(np.int64),
        "closes": found.column("closes").to_numpy().astype(np.int64),
        "chosen": chosen,
        "labels": labels,
        "context": {name: found.column(name).to_pylist() for name in context},
    }


def _categories(contract: Contract, joined: history.History, decisions: dict[str, Any], catalogue: Catalogue) -> dict[str, list[str]]:
    """Texts of each category column, sorted; a text's position is its code. The commonest are kept."""
    made: dict[str, list[str]] = {}
    for column in contract.columns:
        if column.dtype != "category":
            continue
        if column.kind == "customer":
            texts = joined.texts(column.source)
        elif column.kind == "context":
            texts = decisions["context"][column.source]
        else:
            texts = [offer.attributes.get(column.source) for offer in catalogue.offers]
        counts: dict[str, int] = {}
        for text in texts:
            if text is not None:
                counts[str(text)] = counts.get(str(text), 0) + 1
        made[column.name] = sorted(sorted(counts, key=lambda text: (-counts[text], text))[:CATEGORIES_MAX])
    return made


def _strangers(workspace: Workspace, ids: list[str]) -> NDArray[np.bool_]:
    """Decisions that are also shown to the model as if the customer were unknown: chosen by hash, so the same every time."""
    share, seed = workspace.model.cold_start_share, workspace.model.seed
    return np.array([fnv1a(f"{seed}:{id}") % 10_000 < share * 10_000 for id in ids])


def split_of(workspace: Workspace, examples: Examples, now: int) -> Split:
    """Cut time, after `model.yaml`.

    Raises:
        NoExamples: a side of the cut has no decisions, or none with a success.
    """
    settings, moved = workspace.model.split, timeline.recorded(workspace) or Timeline()
    if settings.cut is not None:
        cut = moved.from_source(timeline.parse_moment(settings.cut))
    else:
        closed = np.sort(examples.times[examples.closes <= now])
        if not len(closed):
            raise NoExamples("expected decisions whose attribution window is closed, got none. Shorten `label.within` or wait.")
        cut = int(closed[int(len(closed) * (1 - settings.test_share))])
    training = examples.closes <= cut
    test = (examples.times >= cut) & ~examples.strangers
    if not settings.open_windows:
        test &= examples.closes <= now
    if not training.any() or not test.any():
        raise NoExamples(f"expected decisions on both sides of the cut {timeline.shown(moved, cut)}, got {training.sum()} before and {test.sum()} after.")
    times = np.sort(examples.times[training])
    stopping_cut = int(times[min(len(times) - 1, int(len(times) * (1 - settings.stopping_share)))])
    stopping = training & (examples.times >= stopping_cut) & ~examples.strangers
    fit = training & (examples.times < stopping_cut)
    for name, side in (("training", fit), ("early stopping", stopping), ("test", test)):
        if not examples.labels[side[examples.decision]].any():
            raise NoExamples(f"expected a success among the {side.sum()} decisions for {name}, got none. Move `split.cut` in model.yaml, or bring more history.")
    return Split(cut, stopping_cut, fit, stopping, test)
