"""Examples end to end: from the files of a business to rows and labels, with every edge of the attribution window."""

from __future__ import annotations

import warnings
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from features.common.timestamps import to_microseconds
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.materialize import steps
from tests.training.dataset.example_cases import (
    DAY,
    END,
    NOW,
    START,
    TICK,
    business,
    decision,
    laid,
    outcome,
    successes,
)
from tests.workspaces import make_workspace
from training.dataset.examples import Examples, NoExamples


@pytest.fixture(scope="module")
def attributed(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One customer for each edge, so that none can disturb another; the window is two days."""
    decisions, outcomes = [], []
    for name, moment in {
        "at": START,
        "last": START + 2 * DAY - TICK,
        "end": START + 2 * DAY,
        "before": START - TICK,
    }.items():
        decisions += decision(f"d-{name}", name, START)
        outcomes.append(outcome(name, "bread", moment))
    decisions += decision("d-type", "type", START) + decision("d-offer", "offer", START)
    outcomes += [outcome("type", "bread", START, type="seen"), outcome("offer", "rope", START)]
    # Two decisions a day apart, both windows open: without an id the later has it, with an id the one that is named.
    for name, named in {"open": None, "first": "d-first-1", "wrong": "d-none", "foreign": "d-at"}.items():
        decisions += decision(f"d-{name}-1", name, START) + decision(f"d-{name}-2", name, START + DAY)
        outcomes.append(outcome(name, "bread", START + DAY + TICK, decision_id=named))
    # The later one did not offer what was taken, or came after it.
    decisions += decision("d-other-1", "other", START) + decision("d-other-2", "other", START + DAY, "soap")
    decisions += decision("d-late-1", "late", START) + decision("d-late-2", "late", START + DAY)
    outcomes += [outcome("other", "bread", START + DAY), outcome("late", "bread", START + DAY - TICK)]
    # Two outcomes of one moment, each with the decision that it belongs to; and the same outcome twice.
    decisions += decision("d-both-1", "both", START) + decision("d-both-2", "both", START + DAY)
    outcomes += [outcome("both", "soap", START + DAY, decision_id=f"d-both-{number}") for number in (1, 2)]
    decisions += decision("d-twice", "twice", START)
    outcomes += [outcome("twice", "soap", START + DAY)] * 2
    decisions += decision("d-future", "future", END - DAY) + decision("d-coming", "coming", END - DAY / 2)
    outcomes += [outcome("future", "soap", END - DAY / 4), outcome("coming", "soap", END - DAY / 4)]
    return business(tmp_path_factory.mktemp("attribution") / "shop", decisions, outcomes)


def test_an_outcome_counts_from_the_decision_to_just_before_the_end_of_the_window(attributed: Workspace) -> None:
    """At the decision's very moment and a microsecond before the end: yes; at the end, and before the decision: no."""
    found = {number for number, _ in successes(laid(attributed))}
    assert {"d-at", "d-last"} <= found
    assert not {"d-end", "d-before", "d-type", "d-offer"} & found


def test_an_outcome_belongs_to_one_decision(attributed: Workspace) -> None:
    """The decision that it names; without a name the latest that offered it before; a name that does not exist is
    nobody's.
    """
    found = successes(laid(attributed))
    assert {("d-open-2", "bread"), ("d-first-1", "bread"), ("d-other-1", "bread"), ("d-late-1", "bread")} <= found
    assert {("d-both-1", "soap"), ("d-both-2", "soap"), ("d-twice", "soap")} <= found
    wrong = {"d-open-1", "d-first-2", "d-wrong-1", "d-wrong-2", "d-foreign-1", "d-foreign-2", "d-other-2", "d-late-2"}
    assert not wrong & {number for number, _ in found}
    assert ("d-at", "bread") in found and len(found) == 11


def test_what_comes_after_now_is_not_known(attributed: Workspace) -> None:
    """Asked about an earlier moment, decisions after it are not there and outcomes after it have not happened."""
    then = laid(attributed, to_microseconds(END - DAY * 3 / 4))
    assert "d-future" in then.ids and "d-coming" not in then.ids
    assert "d-future" not in {number for number, _ in successes(then)}
    assert "d-future" in {number for number, _ in successes(laid(attributed))}


def test_rows_stand_in_the_order_of_time_and_of_the_catalogue(attributed: Workspace) -> None:
    """Decisions ascend in time, rows of one in the order of offers; ids, windows and contract fit the rows."""
    examples = laid(attributed)
    assert (np.diff(examples.times) >= 0).all()
    assert (np.diff(examples.decision) >= 0).all() and len(np.unique(examples.decision)) == len(examples.ids)
    assert all((np.diff(examples.offer[examples.decision == number]) > 0).all() for number in range(len(examples.ids)))
    assert (examples.closes - examples.times == 2 * 86_400 * 1_000_000).all()
    assert examples.values.shape == (len(examples), len(attributed.contract.columns))


def test_the_window_may_last_until_the_offer_ends(tmp_path: Path) -> None:
    """`offer_end`: each offer has its own end, also one written by hand; a decision is closed when its last offer
    ended.
    """
    decisions = (
        decision("d-1", "a", START, "bread rope")
        + decision("d-2", "b", START, "soap bread")
        + decision("d-3", "c", START, "cake")
    )
    outcomes = [
        outcome("a", "bread", START + 5 * DAY - TICK),
        outcome("a", "rope", START + 3 * DAY),  # ended at this moment
        outcome("b", "soap", START + 30 * DAY),
        outcome("b", "bread", START + 5 * DAY),
        outcome("c", "cake", START),  # was offered after its end
    ]
    workspace = business(tmp_path / "shop", decisions, outcomes, label={"outcome": "taken", "within": "offer_end"})
    examples = laid(workspace)
    assert successes(examples) == {("d-1", "bread"), ("d-2", "soap")}
    closes = dict(zip(examples.ids, examples.closes, strict=True))
    assert closes["d-1"] == to_microseconds(START + 5 * DAY)
    assert closes["d-2"] > to_microseconds(datetime(9999, 1, 1, tzinfo=UTC))
    assert closes["d-3"] == to_microseconds(START)


def test_offers_that_the_catalogue_does_not_know_are_passed_over(tmp_path: Path) -> None:
    """They make no row, hold no window open and change no share; a decision about nothing else is not there."""
    decisions = decision("d-1", "a", START, "bread gone soap") + decision("d-2", "b", START, "gone lost")
    outcomes = [outcome("a", "bread", START), outcome("a", "gone", START), outcome("b", "lost", START)]
    examples = laid(business(tmp_path / "shop", decisions, outcomes))
    assert examples.ids == ["d-1"]
    assert [examples.offer_ids[at] for at in examples.offer] == ["bread", "soap"]
    assert examples.labels.tolist() == [1.0, 0.0]
    names = examples.contract.names
    assert examples.values[:, names.index("bought_all_share")].tolist() == [1.0, 0.0]
    assert examples.values[:, names.index("offers_considered")].tolist() == [2.0, 2.0]


def test_context_columns_are_what_the_decision_said(tmp_path: Path) -> None:
    """Numbers and truth as stated, categories as codes, defaults where nothing was said."""
    decisions = decision("d-1", "a", START, channel="app", hour=9.5, wet=True)
    decisions += decision("d-2", "b", START + DAY) + decision(
        "d-3", "c", START + 2 * DAY, channel="shop", hour=0.0, wet=False
    )
    workspace = business(tmp_path / "shop", decisions, [outcome("a", "bread", START)])
    examples = laid(workspace)
    names = examples.contract.names
    seen = {
        name: examples.values[np.searchsorted(examples.decision, np.arange(3)), names.index(name)]
        for name in ("channel", "hour", "wet")
    }
    assert [examples.categories["channel"][int(code)] for code in seen["channel"]] == ["app", "web", "shop"]
    assert seen["wet"].tolist() == [1.0, 0.0, 0.0]
    assert seen["hour"][0] == 9.5 and np.isnan(seen["hour"][1]) and seen["hour"][2] == 0.0
    given_ = laid(workspace, categories={name: ["shop", "app"] for name in examples.categories})
    codes = given_.values[np.searchsorted(given_.decision, np.arange(3)), names.index("channel")]
    assert codes[0] == 1.0 and np.isnan(codes[1]) and codes[2] == 0.0  # a model's own dictionary, which lacks a text


def test_strangers_are_copies_of_whom_nothing_is_known(tmp_path: Path) -> None:
    """A part of the decisions comes twice: the copy keeps moment, offers and labels and loses what is known of the
    customer.
    """
    decisions = [
        row
        for number in range(40)
        for row in decision(f"d-{number}", f"c{number}", START + number * DAY / 4, channel="app")
    ]
    outcomes = [outcome(f"c{number}", "bread", START + number * DAY / 4) for number in range(0, 40, 2)]
    examples = laid(business(tmp_path / "shop", decisions, outcomes, cold_start_share=0.5))
    assert 8 < examples.strangers.sum() < 32 and len(examples.ids) == 40 + examples.strangers.sum()
    kinds = [column.kind for column in examples.contract.columns]
    own = [
        at for at, column in enumerate(examples.contract.columns) if column.source.startswith(("customer.", "visits."))
    ]
    assert {kinds[at] for at in own} == {"customer", "pair"}
    for number in np.flatnonzero(examples.strangers):
        assert examples.ids[number] == examples.ids[number - 1] and not examples.strangers[number - 1]
        copy, known = (examples.where(np.arange(len(examples.ids)) == at) for at in (number, number - 1))
        assert (copy.labels == known.labels).all() and (copy.offer == known.offer).all()
        assert np.isnan(copy.values[:, own]).all() and not np.isnan(known.values[:, own]).all()
        rest = [at for at in range(len(kinds)) if at not in own]
        assert np.array_equal(copy.values[:, rest], known.values[:, rest], equal_nan=True)


def test_there_is_nothing_to_learn_from(tmp_path: Path) -> None:
    """No decisions, none about known offers, no outcome of the label's type: each is said with its remedy."""
    one = decision("d-1", "a", START)
    workspace = business(tmp_path / "none", one, [])
    for now, message in (
        (to_microseconds(START - DAY), "expected decisions to learn from, got none"),
        (NOW, "got none. Mend `label`"),
    ):
        with pytest.raises(NoExamples, match=message):
            laid(workspace, now)
    with pytest.raises(NoExamples, match="about offers of the catalogue, got none among 1"):
        laid(business(tmp_path / "unknown", decision("d-1", "a", START, "gone lost"), [outcome("a", "gone", START)]))


# what comes later
# -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_training_row_moves_when_the_future_is_planted(tmp_path: Path) -> None:
    """Purchases, outcomes, decisions, attribute changes from a decision's moment on leave all rows up to it as they
    were, to the bit.
    """
    end = datetime(2026, 6, 1, tzinfo=UTC)
    folder = make_workspace(
        tmp_path / "w", customers=40, decisions=4, days=60, now=end, model={"cold_start_share": 0.2}
    )
    now = to_microseconds(end)
    before = _made(folder, now)
    half = np.sort(before.times)[len(before.times) // 2]
    moment = datetime.fromtimestamp(half // 1_000_000, UTC).replace(microsecond=int(half % 1_000_000))
    planted = _plant(folder, moment)
    after = _made(folder, now)
    early, later = (examples.where(examples.times <= half) for examples in (before, after))
    assert planted > 400 and len(early) > 500
    assert len(after) > len(before)  # what was planted is there
    assert not np.array_equal(before.values, after.values[: len(before)], equal_nan=True)
    assert early.ids == later.ids
    for field in ("values", "decision", "offer", "times", "closes", "strangers"):
        assert getattr(early, field).tobytes() == getattr(later, field).tobytes(), field
    closed = early.closes[early.decision] <= half
    assert closed.sum() > 300 and (early.labels[closed] == later.labels[closed]).all()
    for at, column in enumerate(early.contract.columns):  # equal codes mean equal texts
        if column.dtype == "category":
            used = np.unique(early.values[~np.isnan(early.values[:, at]), at]).astype(int)
            assert [early.categories[column.name][code] for code in used] == [
                later.categories[column.name][code] for code in used
            ]
    assert "A-new" in after.categories["tariff"]


def _made(folder: Path, now: int) -> Examples:
    workspace = load(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps.import_tables(workspace, now)
        steps.compute_features(workspace, now)
    return laid(workspace, now)


def _plant(folder: Path, moment: datetime) -> int:
    """More rows of every kind, the first exactly at the moment (of attributes: a microsecond later, for those count at
    theirs).
    """
    planted, at_it = 0, []
    made = pa.parquet.read_table(folder / "data" / "decisions.parquet").to_pylist()
    for name, column in (("calls", "time"), ("outcomes", "time"), ("decisions", "time"), ("customers", "since")):
        file = folder / "data" / f"{name}.parquet"
        table = pa.parquet.read_table(file)
        rows = table.to_pylist()[:150]
        if name == "calls":  # of the very customers who have a decision at the very moment
            at_it = [row["customer_id"] for row in made if row["time"] == moment]
            assert at_it
            rows = [rows[0] | {"customer_id": one} for one in at_it] + rows
        for number, row in enumerate(rows):
            row[column] = moment + number * timedelta(minutes=7) if name != "calls" or number >= len(at_it) else moment
            if name == "outcomes":
                row["decision_id"] = None
            if name == "decisions":
                row["decision_id"] = f"planted-{row['decision_id']}"
                row["time"] = moment + TICK + timedelta(hours=sum(row["decision_id"].encode()) % 48)
            if name == "customers":
                row[column] = moment + TICK
                row["tariff"] = "A-new"
        pa.parquet.write_table(pa.concat_tables([table, pa.Table.from_pylist(rows, table.schema)]), file)
        planted += len(rows)
    return planted


def test_examples_of_a_part_are_that_part(attributed: Workspace) -> None:
    """`where` keeps rows, numbers decisions anew and changes nothing else; a part of a part is a part."""
    examples = laid(attributed)
    kept = np.arange(len(examples.ids)) % 3 == 1
    part = examples.where(kept)
    assert part.ids == [examples.ids[at] for at in np.flatnonzero(kept)]
    assert part.decision.max() == len(part.ids) - 1
    assert np.array_equal(part.values, examples.values[kept[examples.decision]], equal_nan=True)
    everything = part.where(np.ones(len(part.ids), bool))
    assert all(
        np.array_equal(getattr(part, f.name), getattr(everything, f.name))
        for f in fields(part)
        if f.name in ("labels", "offer", "decision")
    )
