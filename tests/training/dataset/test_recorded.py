"""Learning from what was recorded: served decisions become rows that hold, to the bit, what the model saw."""

from __future__ import annotations

import dataclasses
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml

from features.aggregates.partitions import fnv1a
from features.common.timestamps import MICROSECONDS, from_microseconds, now, to_microseconds
from features.common.types import DecisionRequest, Event
from features.events.journal import Line
from features.lake import lake
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.materialize import steps
from pipelines.shipping.ship import ship
from serving.journal.journal import Journal
from serving.reload.reloader import Reloader
from tests.pipelines.loops import log_events
from tests.serving.decisions import decide
from tests.trained import copy_of, end_of_data
from training.dataset import sources
from training.dataset.examples import Examples, examples_of
from training.dataset.recorded import recorded_of

DECISIONS = 900
CHANNELS = ("app", "web", "shop", None)


@dataclasses.dataclass
class Served:
    """A workspace after it served decisions: what was laid for each, and what customers did."""

    workspace: Workspace
    lines: dict[str, Line]
    accepted: set[tuple[str, str]]
    columns: list[str]
    categories: dict[str, list[str]]
    now: int


@pytest.fixture(scope="module")
def served(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Decisions of the last weeks, served in this process into a journal; impressions and acceptances went into the
    log; all was shipped.
    """
    workspace = load(copy_of(trained_workspace, tmp_path_factory.mktemp("served") / "w"))
    desk, journal = Reloader(workspace), Journal.open(workspace.data / "journal")
    desk.load()
    loaded = desk.loaded
    assert loaded is not None, desk.refusal
    lines: dict[str, Line] = {}
    happened: list[Event] = []
    accepted = set()

    def record(line: Line) -> None:
        lines[line.decision_id] = line
        journal.append(line)

    start = to_microseconds(end_of_data() - timedelta(days=30))
    for number in range(DECISIONS):
        at = start + number * 30 * 60 * MICROSECONDS
        customer = f"436{600_000 + number % 530}"  # some of them are strangers
        channel = CHANNELS[number % len(CHANNELS)]
        request = DecisionRequest(
            customer, "home", context={"hour": number % 24} | ({} if channel is None else {"channel": channel})
        )
        row = desk.stores.engine.read_now(customer)
        decision = decide(request, loaded, row, at, record=record)
        for offer in decision.offers:
            about: dict[str, Any] = {
                "customer_id": customer,
                "decision_id": decision.decision_id,
                "offer_id": offer.offer_id,
            }
            happened.append(
                Event(event_id=f"i{len(happened)}", type="impression", occurred_at=from_microseconds(at), **about)
            )
            if fnv1a(decision.decision_id + offer.offer_id) % 100 < (30 if channel == "app" else 5):
                accepted.add((decision.decision_id, offer.offer_id))
                moment = from_microseconds(at + 3_600 * MICROSECONDS)
                happened.append(
                    Event(event_id=f"a{len(happened)}", type="accepted", occurred_at=moment, value=2.0, **about)
                )
    assert len(lines) == DECISIONS and journal.failed == 0
    categories = loaded.bundle.categories
    columns = loaded.bundle.contract.names
    journal.close()
    desk.close()
    for at in range(0, len(happened), 1_000):
        log_events(workspace, happened[at : at + 1_000])
    ship(workspace)
    return Served(workspace, lines, accepted, columns, categories, now())


def quietly(what: Any, *given: Any, **more: Any) -> Any:
    """With the libraries' own warnings silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return what(*given, **more)


def assert_as_seen(served: Served, examples: Examples, names: list[str]) -> int:
    """Every row holds what `decide` laid for that offer, to the bit; texts of categories where codes differ. How many
    rows were compared.
    """
    kinds = {column.name: column for column in examples.contract.columns}
    compared = 0
    for row in np.flatnonzero(~examples.strangers[examples.decision]):
        line = served.lines[examples.ids[examples.decision[row]]]
        saw = line.columns()[line.offer_ids.index(examples.offer_ids[examples.offer[row]])]
        for name in names:
            was, value = saw[served.columns.index(name)], examples.values[row, examples.contract.names.index(name)]
            if kinds[name].dtype == "category" and not np.isnan(was):
                assert examples.categories[name][int(value)] == served.categories[name][int(was)]
            else:
                assert was.tobytes() == value.tobytes() or (np.isnan(was) and np.isnan(value)), (name, was, value)
        compared += 1
    return compared


def test_rows_are_what_the_model_saw(served: Served) -> None:
    """All columns of every row, the labels by what was accepted, each matured decision once, and strangers beside."""
    matured = {
        one.decision_id: one
        for one in served.lines.values()
        if one.at + 7 * 86_400 * MICROSECONDS <= served.now and one.offer_ids
    }
    examples = recorded_of(served.workspace, served.now)
    assert assert_as_seen(served, examples, examples.contract.names) == sum(
        len(one.offer_ids) for one in matured.values()
    )
    known = ~examples.strangers
    assert (
        sorted(one for one, plain in zip(examples.ids, known, strict=True) if plain) == sorted(matured)
        and len(matured) > 500
    )
    assert examples.strangers.any() and (np.diff(examples.times) >= 0).all()
    successes = {
        (examples.ids[examples.decision[at]], examples.offer_ids[examples.offer[at]])
        for at in np.flatnonzero(examples.labels)
        if known[examples.decision[at]]
    }
    assert successes == {pair for pair in served.accepted if pair[0] in matured} and len(successes) > 100


def test_a_models_own_dictionary_is_kept(served: Served) -> None:
    """Rows that are laid for a model have the codes of its dictionary, and none for texts that it lacks."""
    given = {name: list(reversed(texts))[1:] for name, texts in served.categories.items()}
    examples = recorded_of(served.workspace, served.now, categories=given)
    assert examples.categories == given
    at = examples.contract.names.index("channel")
    texts = {one: served.categories["channel"][int(value)] for one, value in _seen(served, "channel").items()}
    for decision, value in zip(examples.decision, examples.values[:, at], strict=True):
        text = texts[examples.ids[decision]]
        assert np.isnan(value) if text not in given["channel"] else given["channel"][int(value)] == text


def _seen(served: Served, name: str) -> dict[str, float]:
    at = served.columns.index(name)
    return {one.decision_id: one.columns()[0, at] for one in served.lines.values() if one.offer_ids}


def test_newer_columns_are_filled_as_of_the_decision(served: Served, tmp_path: Path) -> None:
    """A window, an attribute and a pair column that are declared later have what was known then; all others stay as
    they were seen.
    """
    workspace = load(copy_of(served.workspace.folder, tmp_path / "w"))
    file = workspace.folder / "features.yaml"
    features = yaml.safe_load(file.read_text())
    features["columns"]["calls"]["windows"].append("90d")
    features["customer"]["attributes"]["segment"]["model"] = True
    features["pairs"]["topic_calls"]["windows"].append("60d")
    features["context"]["mood"] = {"dtype": "category", "default": "calm"}
    file.write_text(yaml.safe_dump(features))
    workspace = load(workspace.folder)
    quietly(steps.compute_features, workspace, served.now)
    examples = quietly(recorded_of, workspace, served.now)
    assert assert_as_seen(served, examples, served.columns) > 1_000
    new = set(examples.contract.names) - set(served.columns)
    assert {"calls_90d", "segment", "topic_calls_60d", "mood"} <= new
    values = {name: examples.values[:, examples.contract.names.index(name)] for name in new}
    assert all(np.isnan(values[name]).all() for name in new if name.endswith(("_share", "_rank", "_ratio")))
    con = lake.connect(workspace)
    calls = con.execute("SELECT customer_id, epoch_us(time), topic FROM streams_calls").fetchall()
    segments = dict(con.execute("SELECT customer_id, any_value(segment) FROM customers GROUP BY 1").fetchall())
    topics = dict(con.execute("SELECT offer_id, topic FROM all_offers").fetchall())
    con.close()
    of_customer: dict[str, list[tuple[int, str]]] = {}
    for customer, time, topic in calls:
        of_customer.setdefault(customer, []).append((time, topic))
    checked = 0
    for row in np.flatnonzero(~examples.strangers[examples.decision])[::7]:
        line = served.lines[examples.ids[examples.decision[row]]]
        topic = topics[examples.offer_ids[examples.offer[row]]]
        theirs = of_customer.get(line.customer_id, [])
        span = {
            days: [
                at
                for at, what in theirs
                if line.at - days * 86_400 * MICROSECONDS <= at < line.at and (days == 90 or what == topic)
            ]
            for days in (60, 90)
        }
        if any(at < line.at for at, _ in theirs):  # else nothing is known of the customer, which is not zero
            assert values["calls_90d"][row] == len(span[90]) and values["topic_calls_60d"][row] == len(span[60])
            checked += 1
        segment = values["segment"][row]
        assert (None if np.isnan(segment) else examples.categories["segment"][int(segment)]) == segments.get(
            line.customer_id
        )
        assert examples.categories["mood"][int(values["mood"][row])] == "calm"
    assert checked > 100


def with_model(workspace: Workspace, **model: Any) -> Workspace:
    return dataclasses.replace(workspace, model=msgspec.structs.replace(workspace.model, **model))


def test_which_source_is_learnt_from(served: Served) -> None:
    """`auto` takes recorded decisions once there are enough, with enough successes; else it says how many it found and
    what is asked.
    """
    few = sources.source_of(served.workspace, served.now)
    assert few.used == "imported" and "fewer than 20,000 and 200" in few.why and few.imported_decisions > 1_000
    enough = with_model(
        served.workspace, recorded_decisions_min=few.recorded_decisions, recorded_successes_min=few.recorded_successes
    )
    assert sources.source_of(enough, served.now).used == "recorded"
    more = with_model(enough, recorded_successes_min=few.recorded_successes + 1)
    assert sources.source_of(more, served.now).used == "imported"
    for name in ("recorded", "imported", "both"):
        assert sources.source_of(with_model(served.workspace, learn_from=name), served.now).used == name


def test_both_sources_together(served: Served) -> None:
    """Imported rows as they are alone, recorded ones after them with their weight, in one dictionary of texts."""
    workspace = with_model(served.workspace, learn_from="both", recorded_weight=3.0)
    imported = quietly(examples_of, workspace, served.now)
    own = recorded_of(workspace, served.now)
    examples, source = quietly(sources.learnt_from, workspace, served.now)
    assert source.used == "both" and len(examples.ids) == len(imported.ids) + len(own.ids)
    is_own = np.arange(len(examples.ids)) >= len(imported.ids)
    assert examples.weights is not None and (examples.weights == np.where(is_own, 3.0, 1.0)).all()
    assert examples.where(~is_own).values.tobytes() == imported.values.tobytes()
    assert assert_as_seen(served, examples.where(is_own), examples.contract.names) > 1_000
    for name, texts in imported.categories.items():
        assert examples.categories[name][: len(texts)] == texts


def test_imported_history_is_what_it_was_before_anything_was_served(served: Served, trained_workspace: Path) -> None:
    """What shipments bring into the lake adds no row to the imported decisions and changes neither values nor
    labels.
    """
    before = quietly(examples_of, load(trained_workspace), served.now)
    after = quietly(examples_of, served.workspace, served.now)
    assert before.ids == after.ids and (before.times == after.times).all() and (before.offer == after.offer).all()
    assert before.values.tobytes() == after.values.tobytes() and (before.labels == after.labels).all()


def test_a_model_is_trained_from_recorded_decisions(served: Served, tmp_path: Path) -> None:
    """The report, and the record in the registry, say what was learnt from, how many, and why."""
    from training.bundle import registry
    from training.fitting.train import train

    workspace = load(copy_of(served.workspace.folder, tmp_path / "w"))
    workspace = with_model(
        workspace,
        recorded_decisions_min=100,
        recorded_successes_min=50,
        split=msgspec.structs.replace(workspace.model.split, cut="2020-01-01"),
    )
    trained = quietly(train, workspace, served.now, promote=False)
    source = trained.report["source"]
    assert (
        source["used"] == "recorded" and source["recorded_decisions"] > 500 and "at least 100 and 50" in source["why"]
    )
    run = registry.connect(workspace).get_run(trained.run_id).data
    assert run.tags["opportune.learnt_from"] == run.params["learnt_from"] == "recorded"
    assert run.tags["opportune.learnt_from_why"] == source["why"]
    assert run.params["recorded_decisions"] == str(source["recorded_decisions"])
    assert (
        trained.report["split"]["training"]["decisions"] + trained.report["split"]["test"]["decisions"]
        <= source["recorded_decisions"]
    )
