"""Purposes and consent: what may not be used is missing for everything, so that a decision does not change with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.state.snapshot import Snapshot
from tests.serving import hubs
from tests.serving.decisions import decide
from tests.serving.hubs import NOON, Hubs, asked, shown
from tests.serving.purposes import CONSENT, NOW, OFFERS, customers, decided, features_of, rich, row_of, spoiled, state

PURPOSES = ("personalization", "marketing", "service", "billing")


@pytest.fixture(scope="module")
def made(trained_workspace: Path) -> Iterator[Hubs]:
    yield from hubs.opened(trained_workspace)


def everything(loaded: Snapshot) -> dict[str, set[str]]:
    """All columns of customer and context with their purposes, as the files say them."""
    views = loaded.layout.plan.views
    found = {scalar.name: set(scalar.purposes) for view in views for scalar in view.scalars if not scalar.beside}
    families = [family for view in views for family in view.families if not family.beside]
    found |= {measure.name: set(measure.purposes) for family in families for measure in family.measures}
    return found | {name: set(column.purposes or ()) for name, column in loaded.workspace.features.context.items()}


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
