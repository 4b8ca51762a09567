"""Customers who say what their data may be used for, and states that hold themselves to it."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import numpy as np
from hypothesis import strategies as st

from features.columns.rows import KeyedRow, OnlineRow
from features.columns.views import Family
from features.common.types import Decision, DecisionRequest
from features.config.features_file import FeaturesFile
from features.events.journal import Line
from serving.state.snapshot import Snapshot
from tests.serving import hubs
from tests.serving.decisions import decide
from tests.serving.hubs import NOON, Hubs, microseconds

NOW = microseconds(NOON)
CONSENT = "business"
"""The attribute in which the test's customers say whether their data may be used for personalization."""
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


def rich(hour: float = 3) -> dict[str, Any]:
    """A customer of whom everything is known."""
    families = [{key: [40.0, 50.0, 60.0] for key in range(4)} for _ in range(FAMILIES_MAX)]
    return {"numbers": [7.0] * SCALARS_MAX, "families": families, "hour": hour, "roaming_now": True}
