"""`docs/decision-hub.md` is true: its files pass the check, and its requests are answered as its tables say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import yaml

from features.columns.rows import Dictionary, OnlineRow, RowSchema
from features.common.timestamps import MICROSECONDS, duration_seconds, parse_moment
from features.common.types import Decision, DecisionRequest
from features.config.policies import PoliciesFile
from features.lake.offers import catalogue_file, read_catalogue
from features.ledger.history import IMPRESSION, OUTCOME, ContactEvent, key_of, word_of
from features.validation.load import load
from features.workspace.situations import SITUATIONS
from serving.decision.decide import decide
from serving.decision.snapshot import Snapshot
from tests.forests import written
from training.bundle.bundle import Bundle, Golden, Manifest
from training.bundle.calibration_map import Calibration
from training.bundle.forest_compiler import compile_forest

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "decision-hub.md").read_text()
NOW = parse_moment("2026-11-23T12:00:00Z")
BLOCK = re.compile(r"^```yaml (?P<file>\S+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
FIXED = {
    "workspace.yaml": "name: telephone\ntime_zone: Europe/Vienna\ncurrency: EUR\n",
    "model.yaml": "name: telephone-sales\nlabel: {outcome: accepted, within: 7d}\n",
}


class Row(NamedTuple):
    """A row of a table of the page."""

    customer: dict[str, Any]
    history: list[str] | None
    """None: unreachable."""
    request: dict[str, Any]
    shown: list[str]
    notes: list[str]
    withheld: list[str]
    degraded: list[str]


def rows() -> list[Row]:
    """Every row of the page's tables of requests."""
    found = []
    for line in TEXT.splitlines():
        if not line.startswith("| `{"):
            continue
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        customer, *middle, request, answer = cells
        history: list[str] | None = []
        if middle and "unreachable" in middle[0]:
            history = None
        elif middle and middle[0] != "none":
            history = yaml.safe_load(middle[0].strip("` "))
        codes = re.findall(r"(with the note|without|degraded by) `(\w+)`", answer)
        shown = re.match(r"`([^`]+)`", answer)
        found.append(
            Row(
                yaml.safe_load(customer.strip("` ")),
                history,
                yaml.safe_load(request.strip("` ")),
                shown[1].split(", ") if shown else [],
                *(
                    [code for what, code in codes if what == kind]
                    for kind in ("with the note", "without", "degraded by")
                ),
            )
        )
    return found


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Snapshot, Dictionary]:
    """The page's workspace, with a model that gives everybody the same propensity."""
    folder = tmp_path_factory.mktemp("telephone")
    files = dict(FIXED)
    for block in BLOCK.finditer(TEXT):
        files[block["file"]] = files.get(block["file"], "") + block["body"]
    for name, body in files.items():
        (folder / name).write_text(body)
    workspace, words = load(folder), Dictionary()
    workspace.data.mkdir()
    catalogue_file(workspace).write_text("[]")
    columns = workspace.contract.columns
    forest = compile_forest(written(np.random.default_rng(1), len(columns), trees=1, leaves_max=1))
    calibration = Calibration("sigmoid")
    raw = np.array([0.0])
    made = Bundle(
        "sha256:0", Manifest(1, "telephone-sales", "1", "", "", "", {}), workspace.contract, {}, calibration, [], forest
    )
    shared, offers, pairs = (len(workspace.contract.of_kind(kind)) for kind in ("customer", "offer", "pair"))
    raw[0] = forest_value(made, shared, offers, pairs)
    golden = Golden(
        [None] * shared, [[None] * offers], [[None] * pairs], raw.tolist(), calibration.probabilities(raw).tolist()
    )
    everyone = RowSchema.of(workspace.views, "everyone").nobody()
    bundle = msgspec.structs.replace(made, golden=[golden])
    return Snapshot(workspace, bundle, read_catalogue(workspace), everyone, words, NOW / MICROSECONDS), words


def forest_value(bundle: Bundle, *columns: int) -> float:
    """What a forest of one leaf gives to everything."""
    from serving.kernel.kernel import Kernel

    first, second, end = columns[0], columns[0] + columns[1], sum(columns)
    kernel = Kernel(
        bundle.forest, list(range(first)), list(range(first, second)), list(range(second, end)), pair_default=[]
    )
    raw = np.empty(1)
    table = kernel.prepare(np.empty((1, columns[1])))
    kernel.score(np.full(first, np.nan), table, np.zeros(1, np.int32), np.empty((1, columns[2])), raw)
    return float(raw[0])


def row_of(loaded: Snapshot, words: Dictionary, known: dict[str, Any]) -> OnlineRow:
    """A customer of whom this is known."""
    row = loaded.layout.plan.nobody()
    row.event_times[:] = NOW / MICROSECONDS
    for name, value in known.items():
        row.numbers[loaded.layout.plan.scalars[f"customer.{name}"]] = (
            words.id(value) if isinstance(value, str) else float(value)
        )
    return row


def history_of(loaded: Snapshot, entries: list[str]) -> bytes:
    """A contact history of `offer what age`."""
    history = b""
    for entry in entries:
        offer, what, age = entry.split()
        time = NOW / MICROSECONDS - duration_seconds(age)
        group = loaded.catalogue.offers[loaded.catalogue.index[offer]].group
        kind = IMPRESSION if what == "impression" else OUTCOME
        event = ContactEvent(
            kind, time, key_of(offer), 0, key_of(group), word_of("app"), 0 if kind == IMPRESSION else word_of(what)
        )
        history += event.entry(loaded.hub.contacting.policy).pack()
    return history


def answered(loaded: Snapshot, words: Dictionary, row: Row) -> Decision:
    asked = dict(row.request)
    now = parse_moment(asked.pop("at")) if "at" in asked else NOW
    request = msgspec.convert({"customer_id": "c1", **asked}, DecisionRequest)
    contacts = None if row.history is None else history_of(loaded, row.history)
    return decide(request, loaded, row_of(loaded, words, row.customer), now, contacts=contacts)


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.customer} {row.request}")
def test_the_tables_are_true(loaded: tuple[Snapshot, Dictionary], row: Row) -> None:
    """A row's request is answered with the offers, in their order, and with the codes that the row tells."""
    decision = answered(*loaded, row)
    assert [offer.offer_id for offer in decision.offers] == row.shown
    assert set(row.notes) <= set(decision.notes)
    assert list(decision.withheld) == row.withheld
    assert list(decision.degraded) == row.degraded


def test_the_page_has_what_it_should() -> None:
    """Every block and every kind of table row was found: a test of nothing has failed."""
    found = rows()
    assert len(BLOCK.findall(TEXT)) == 6 and len(found) >= 20
    assert sum(bool(row.notes) for row in found) >= 5 and sum(bool(row.withheld) for row in found) >= 2
    assert sum(row.history is None for row in found) == 1 and sum(not row.shown for row in found) >= 3


def test_treatments_are_the_nearest(loaded: tuple[Snapshot, Dictionary]) -> None:
    """The treatment of the channel and of the locale come before the one for all, as the page says."""
    found = {}
    for context in ({"locale": "de"}, {}):
        row = Row({"tenure_days": 800}, [], {"placement": "home", "context": context, "limit": 3}, [], [], [], [])
        found |= {offer.offer_id + str(context): offer.treatment["headline"] for offer in answered(*loaded, row).offers}
    assert found["stay{'locale': 'de'}"] == "Ein Monat gratis" and found["stay{}"] == "A month for free"
    pushed = answered(*loaded, Row({}, [], {"placement": "push", "context": {"channel": "push"}}, [], [], [], []))
    assert pushed.offers[0].treatment == {"headline": "New for you: 20 GB more"}


@pytest.mark.parametrize(
    "row", [row for row in rows() if "placement" in row.request], ids=lambda row: f"{row.customer} {row.request}"
)
def test_explanations_say_why(loaded: tuple[Snapshot, Dictionary], row: Row) -> None:
    """Every offer that is not shown is told with what stopped it and why, or with its rank and what would have let it
    come first.
    """
    decision = answered(*loaded, row._replace(request=row.request | {"explain": True}))
    explanation = decision.explanation
    assert isinstance(explanation, dict)
    told = explanation["placements"][row.request["placement"]]
    assert [offer["offer_id"] for offer in told["shown"]] == row.shown
    assert {offer["offer_id"] for offer in told["not_shown"]} == set(loaded[0].catalogue.index) - set(row.shown)
    for offer in told["not_shown"]:
        assert offer["name"] and offer["stopped_by"]
        assert offer.get("because") or offer["stopped_by"] == "rank", offer
        if offer["stopped_by"] == "rank":
            assert offer["priority"] <= min(shown["priority"] for shown in told["shown"])
            assert "would_be_first" in offer or offer["priority"] in (0, told["shown"][0]["priority"])


def test_reasons_are_told_in_words(loaded: tuple[Snapshot, Dictionary]) -> None:
    """Rules are told with description and values, limits, pauses, quiet hours and placements in the words of the
    file.
    """
    seen: dict[str, str] = {}
    for row in rows():
        decision = answered(*loaded, row._replace(request=row.request | {"explain": True}))
        assert isinstance(decision.explanation, dict)
        for place in decision.explanation["placements"].values():
            for offer in place["not_shown"]:
                seen[offer["stopped_by"]] = "; ".join(
                    [*offer.get("because", []), offer.get("to_pass", ""), offer.get("description", "")]
                )
    assert (
        "Phones are sold on credit" in seen["rule phones_for_known"]
        and "(needs >= 90)" in seen["rule phones_for_known"]
    )
    assert seen["limit same_offer"].startswith("at most 2 impressions of the same offer in 7d; with a max above 2")
    assert seen["pause not_wanted"].startswith("dismissal 2 times within 30d; when 60d are over")
    assert seen["quiet_hours night"].startswith("quiet hours from 21:00 to 08:00; after 08:00")
    assert seen["requires"].startswith("needs phone to be accepted before")
    assert "only for" in seen["placement"] or "takes no offers of" in seen["placement"]
    assert "at most 1 of one category" in seen["slate"] or "bundle" in seen["slate"] or "excluded" in seen["slate"]


def test_the_page_names_every_key() -> None:
    """Every key of policies.yaml and every situation of the pack is on the page."""
    keys = [field.encode_name for field in msgspec.structs.fields(PoliciesFile)]
    assert [word for word in [*keys, *SITUATIONS] if f"`{word}`" not in TEXT and f"\n{word}:" not in TEXT] == []
