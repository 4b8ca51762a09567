"""Purposes and consent: what may not be used is missing for everything, so that a decision does not change with it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.columns.rows import KeyedRow, OnlineRow
from features.columns.views import Family
from features.common.types import Decision, DecisionRequest
from features.config.features_file import FeaturesFile
from features.events.journal import Line
from serving.state.snapshot import Snapshot
from tests.serving import hubs
from tests.serving.decisions import decide
from tests.serving.hubs import NOON, Hubs, asked, microseconds, shown

NOW = microseconds(NOON)
CONSENT = "business"
"""The attribute in which the test's customers say whether their data may be used for personalization."""
PURPOSES = ("personalization", "marketing", "service", "billing")
NUMBERS = st.sampled_from([np.nan, 0.0, 1.0, 7.0, 45.0, 1e6])

POLICIES: dict[str, Any] = {
    "segments": {"caller": "pair.topic_calls_all >= 1 or customer.calls_30d > 5"},
    "rules": {
        "fee": {"when": "unknown(customer.monthly_fee) or customer.monthly_fee > 5", "reason": "fee"},
        "tariff": {"unless": 'customer.tariff == "S" and offer.price > 4', "reason": "tariff"},
        "abroad": {"unless": "pair.country_longest_all > 3 and offer.price > 6", "reason": "abroad"},
        "few": {"unless": "pair.country_minutes_30d < 1 and offer.price > 5", "reason": "few"},
        "roaming": {"unless": "context.roaming_now and offer.price < 1"},
        "lines": {"unless": "customer.lines > 3 and offer.price > 3", "reason": "lines"},
    },
    "quiet_hours": {"siesta": {"begin": "20:00", "end": "22:00", "time_zone": "customer.segment"}},
    "arbitration": {
        "formula": "propensity * context_weight * value + default(customer.megabytes_max_30d, 0) * offer.price"
        " + default(pair.topic_calls_30d, 2) * 0.1 + default(context.hour, 1)",
        "weights": {"callers": {"when": "segment.caller", "weight": 2, "groups": ["sales"]}},
    },
}
OFFERS = [hubs.offer(at, group=("sales", "service")[at % 2]) for at in range(8)]


@pytest.fixture(scope="module")
def made(trained_workspace: Path) -> Iterator[Hubs]:
    yield from hubs.opened(trained_workspace)


def features_of(made: Hubs, consent: dict[str, Any]) -> FeaturesFile:
    """The trained workspace's columns with purposes of all kinds: of attributes, streams, one of two pairs of a family,
    context.
    """
    said = msgspec.to_builtins(made.desk.workspace.features)
    attributes = said["customer"]["attributes"]
    for name, purposes in (
        ("monthly_fee", ["marketing"]),
        ("tariff", ["marketing", "billing"]),
        ("lines", ["billing"]),
    ):
        attributes[name]["purposes"] = purposes
    said["streams"]["calls"]["purposes"] = ["personalization", "marketing"]
    said["columns"]["megabytes_max"]["purposes"] = ["billing"]
    said["pairs"]["country_longest"]["purposes"] = ["service"]
    said["pairs"]["country_minutes"]["purposes"] = ["marketing"]
    said["context"]["roaming_now"]["purposes"] = ["marketing"]
    said["context"]["hour"]["purposes"] = ["service"]
    said["consent"] = consent
    return msgspec.convert(said, FeaturesFile)


STATES: dict[str, Snapshot] = {}


def state(made: Hubs, unknown: str | None) -> Snapshot:
    """With consent for personalization, and what holds where it is unknown; without any for None."""
    if str(unknown) not in STATES:
        consent = {} if unknown is None else {"personalization": {"column": CONSENT, "unknown": unknown}}
        STATES[str(unknown)] = made.make(POLICIES, OFFERS, features=features_of(made, consent))
    return STATES[str(unknown)]


def everything(loaded: Snapshot) -> dict[str, set[str]]:
    """All columns of customer and context with their purposes, as the files say them."""
    views = loaded.layout.plan.views
    found = {scalar.name: set(scalar.purposes) for view in views for scalar in view.scalars if not scalar.beside}
    families = [family for view in views for family in view.families if not family.beside]
    found |= {measure.name: set(measure.purposes) for family in families for measure in family.measures}
    return found | {name: set(column.purposes or ()) for name, column in loaded.workspace.features.context.items()}


SCALARS_MAX, FAMILIES_MAX = 64, 16
"""More than the workspace has."""


@st.composite
def customers(draw: st.DrawFn) -> dict[str, Any]:
    """Values of all scalars and families, by their places; word ids stand for small numbers."""
    return {
        "numbers": draw(st.lists(NUMBERS, min_size=SCALARS_MAX, max_size=SCALARS_MAX)),
        "families": draw(
            st.lists(
                st.none() | st.dictionaries(st.integers(0, 3), st.lists(NUMBERS, min_size=3, max_size=3), max_size=3),
                min_size=FAMILIES_MAX,
                max_size=FAMILIES_MAX,
            )
        ),
        "hour": draw(st.sampled_from([None, 3, 20.5])),
        "roaming_now": draw(st.sampled_from([None, True, False])),
    }


KEYS = {
    "by_country": ["at", "de", "it", "us"],
    "by_topic": list(hubs.TOPICS),
    "by_offer_id": ["o0", "o1", "o2", "o3"],
    "by_offer_topic": list(hubs.TOPICS),
}


def keys_of(family: Family) -> list[str]:
    """Keys that a customer may have of a family; those of hidden ones are any texts."""
    return KEYS.get(family.name, ["a", "b", "c", "d"])


def row_of(made: Hubs, loaded: Snapshot, customer: dict[str, Any]) -> OnlineRow:
    """A customer's row."""
    row, plan, words = made.row(), loaded.layout.plan, made.desk.stores.engine.words
    scalars = [scalar for view in plan.views for scalar in view.scalars]
    for slot, (scalar, value) in enumerate(zip(scalars, customer["numbers"], strict=False)):
        if scalar.dtype == "category" and value == value:
            value = float(words.id(["S", "M", "Asia/Tokyo", "Europe/Vienna"][int(value) % 4]))
        elif scalar.dtype == "boolean" and value == value:
            value = float(value > 1)
        row.numbers[slot] = value
    at = 0
    for view in plan.views:
        for family in view.families:
            values = customer["families"][at]
            if values is not None:
                keys = sorted(values, key=lambda key: keys_of(family)[key])
                table = (
                    np.array([values[key][: len(family.measures)] for key in keys], np.float64)
                    .reshape(len(keys), len(family.measures))
                    .T.copy()
                )
                row.families[at] = KeyedRow(
                    np.array([words.id(keys_of(family)[key]) for key in keys], np.uint32), table
                )
            at += 1
    return row


def spoiled(loaded: Snapshot, customer: dict[str, Any], other: dict[str, Any], withheld: set[str]) -> dict[str, Any]:
    """A customer in whom every value that is withheld is another's; keys of families too where only withheld values
    stand there.
    """
    found = copy.deepcopy(customer)
    scalars = [scalar.beside or scalar.name for view in loaded.layout.plan.views for scalar in view.scalars]
    found["numbers"] = [
        other["numbers"][at] if name in withheld else found["numbers"][at] for at, name in enumerate(scalars)
    ]
    found |= {name: other[name] for name in ("hour", "roaming_now") if name in withheld}
    for at, family in enumerate(family for view in loaded.layout.plan.views for family in view.families):
        hidden = [at for at, measure in enumerate(family.measures) if (family.beside or measure.name) in withheld]
        if len(hidden) == len(family.measures):
            found["families"][at] = other["families"][at]
        elif found["families"][at] is not None:
            values = found["families"][at]
            for key, row in (other["families"][at] or {}).items():
                own = values.setdefault(key, [np.nan] * 3)
                values[key] = [row[m] if m in hidden else own[m] for m in range(3)]
    return found


def decided(
    made: Hubs, loaded: Snapshot, request: DecisionRequest, customer: dict[str, Any]
) -> tuple[Decision, bytes, bytes]:
    """The answer, encoded as well, and its line of the journal, but for how long it took."""
    lines: list[Line] = []
    context = {name: customer[name] for name in ("hour", "roaming_now")}
    request = msgspec.structs.replace(request, context={"channel": "app", **context})
    answer = decide(request, loaded, row_of(made, loaded, customer), NOW, decision_id="d", record=lines.append)
    return (
        answer,
        msgspec.json.encode(answer),
        msgspec.msgpack.encode([msgspec.structs.replace(line, took_us=None) for line in lines]),
    )


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    customer=customers(),
    other=customers(),
    purposes=st.none() | st.lists(st.sampled_from(PURPOSES), unique=True),
    unknown=st.sampled_from([None, "allowed", "denied"]),
)
def test_a_decision_does_not_change_with_what_is_withheld(
    made: Hubs, customer: dict[str, Any], other: dict[str, Any], purposes: list[str] | None, unknown: str | None
) -> None:
    """Answer, explanation and journal are the same to the byte whatever the withheld values are; the answer lists their
    columns.
    """
    loaded = state(made, unknown)
    request = asked(explain=True, **({} if purposes is None else {"purposes": purposes}))
    answer, encoded, journal = decided(made, loaded, request, customer)
    allowed = set(PURPOSES if purposes is None else purposes)
    consent = customer["numbers"][loaded.layout.plan.scalars[f"customer.{CONSENT}"]]
    if unknown is not None and (unknown == "denied" if consent != consent else not consent > 1):
        allowed.discard("personalization")
    expected = {name for name, meant in everything(loaded).items() if meant and not meant & allowed}
    assert list(answer.withheld) == sorted(expected - ({CONSENT} if unknown is not None else set()))
    changed = spoiled(loaded, customer, other, set(answer.withheld))
    assert decided(made, loaded, request, changed)[1:] == (encoded, journal)


def rich(hour: float = 3) -> dict[str, Any]:
    """A customer of whom everything is known."""
    families = [{key: [40.0, 50.0, 60.0] for key in range(4)} for _ in range(FAMILIES_MAX)]
    return {"numbers": [7.0] * SCALARS_MAX, "families": families, "hour": hour, "roaming_now": True}


def test_withheld_values_would_have_counted(made: Hubs) -> None:
    """Where nothing is withheld, each part of the customer changes the answer, so that the property test looks at
    something.
    """
    loaded = state(made, None)
    _, before, journal = decided(made, loaded, asked(explain=True), rich())
    scalars = [scalar.name for view in loaded.layout.plan.views for scalar in view.scalars]
    for name, value in (
        ("monthly_fee", 46.0),
        ("tariff", 4.0),
        ("lines", 1.0),
        ("megabytes_max_30d", 46.0),
        ("calls_30d", 46.0),
    ):
        changed = rich()
        changed["numbers"][scalars.index(name)] = value
        assert decided(made, loaded, asked(explain=True), changed)[1] != before, name
    families = [family for view in loaded.layout.plan.views for family in view.families]
    for at in [at for at, family in enumerate(families) if not family.beside][:3]:
        changed = rich()
        changed["families"][at] = None
        assert decided(made, loaded, asked(explain=True), changed)[1:] != (before, journal), at
    assert decided(made, loaded, asked(explain=True), rich(hour=20.5))[1] != before


def test_a_withheld_count_is_unknown_and_not_zero(made: Hubs) -> None:
    """Of two measures of one family only the one that is not allowed is missing: a rule that asks whether it is small
    is not true.
    """
    loaded = made.make(
        {
            "rules": {
                "few": {"unless": "pair.country_minutes_30d < 1"},
                "long": {"unless": "pair.country_longest_all > 3"},
            }
        },
        OFFERS,
        features=features_of(made, {}),
    )
    row = made.row({"calls.by_country": {"at": [0.0, 2.0, 1.0]}})
    everyone = [one.offer_id for one in OFFERS]
    assert sorted(shown(decide(asked(), loaded, row, NOW))) == []
    assert sorted(shown(decide(asked(purposes=["service"]), loaded, row, NOW))) == everyone
    assert sorted(shown(decide(asked(purposes=["marketing"]), loaded, row, NOW))) == []


@pytest.mark.parametrize(
    ("answer", "unknown", "kept"),
    [(True, "denied", True), (False, "allowed", False), (None, "denied", False), (None, "allowed", True)],
)
def test_consent(made: Hubs, answer: bool | None, unknown: str, kept: bool) -> None:
    """What a customer said holds for a purpose; where nothing is known, and where the row could not be read, what the
    file says.
    """
    loaded, row = state(made, unknown), made.row(business=answer, contract_start=NOON, segment="A")
    withheld = decide(asked(), loaded, row, NOW).withheld
    assert ("contract_start" not in withheld) == kept
    assert CONSENT not in withheld, "consent itself may be looked at"
    assert "segment" not in withheld, "other purposes are not concerned"
    assert ("contract_start" not in decide(asked(), loaded, None, NOW).withheld) == (unknown == "allowed")
    assert "contract_start" in decide(asked(purposes=["service"]), loaded, row, NOW).withheld, (
        "consent gives nothing that was not asked for"
    )


def test_reasons_are_not_given_from_what_is_withheld(made: Hubs) -> None:
    """The reason code of a pair column is given where the column may be used, and not where it may not."""
    loaded, row = state(made, None), made.row({"calls.by_topic": {"data": [3.0, 3.0]}})
    assert any("uses_this" in one.reasons for one in decide(asked(), loaded, row, NOW).offers)
    assert not any(one.reasons for one in decide(asked(purposes=["billing"]), loaded, row, NOW).offers)


def test_without_purposes_nothing_is_withheld(made: Hubs) -> None:
    """A request that names no purposes, of a workspace without consent, gets what one that names all of them gets."""
    loaded = state(made, None)
    answer, encoded, journal = decided(made, loaded, asked(), rich())
    assert answer.withheld == ()
    assert decided(made, loaded, asked(purposes=list(PURPOSES)), rich())[1:] == (encoded, journal)
    row = row_of(made, loaded, rich())
    assert loaded.hub.purposes.withheld(row, None) is None
    nothing = decide(asked(purposes=[]), loaded, row, NOW)
    assert set(nothing.withheld) == {name for name, meant in everything(loaded).items() if meant}


def test_the_given_row_stays_as_it_was(made: Hubs) -> None:
    """Withholding copies: a row that others may read again, from a near cache, is not changed."""
    loaded = state(made, None)
    row = row_of(made, loaded, rich())
    before = (row.numbers.copy(), [None if one is None else one.values.copy() for one in row.families])
    row.numbers.setflags(write=False)
    assert decide(asked(purposes=[]), loaded, row, NOW).withheld
    assert np.array_equal(row.numbers, before[0], equal_nan=True)
    assert all(
        one is not None and np.array_equal(one.values, was)
        for one, was in zip(row.families, before[1], strict=True)
        if was is not None
    )
