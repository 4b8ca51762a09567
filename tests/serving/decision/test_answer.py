"""What an answer says of the offers it shows: treatments, placeholders, reasons, and when it expires."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from features.columns.rows import OnlineRow
from features.common.timestamps import MICROSECONDS, now
from features.common.types import Offer, Treatment
from serving.reload.reloader import Reloader
from serving.state.snapshot import Snapshot
from tests.serving.decisions import decide, eligible, unknown_row
from tests.serving.desks import again, changed, ids, request, second


def test_treatments_follow_the_channel(desk: Reloader, loaded: Snapshot) -> None:
    """The request's channel chooses the treatment, then the declared default, then `any`; what an offer lacks the
    workspace has.
    """
    moment = now()

    def treatments(context: dict[str, Any], state: Snapshot = loaded) -> dict[str, dict[str, Any]]:
        answer = decide(request(limit=50, context=context), state, unknown_row(state), moment)
        return {offer.offer_id: offer.treatment for offer in answer.offers}

    assert treatments({"channel": "app"})["summer-data"] == {"headline": "Surf all summer", "image": "sun.png"}
    assert treatments({"channel": "shop"})["summer-data"] == {"script": "Ask about Summer data."}
    assert (
        treatments({})["summer-data"]
        == treatments({"channel": "web"})["summer-data"]
        == {"headline": "Summer data", "price": "9.5"}
    )
    assert treatments({"channel": None})["summer-data"] == {"headline": "Summer data", "price": "9.5"}
    quiet = [
        msgspec.structs.replace(offer, treatments=(Treatment("any", {"own": True}),))
        for offer in loaded.catalogue.offers
    ]
    assert set(map(str, treatments({"channel": "shop"}, again(desk, offers=quiet)).values())) == {"{'own': True}"}


def test_placeholders_are_filled_once(desk: Reloader, loaded: Snapshot) -> None:
    """Facts are written as people write them, at any depth, a missing one as nothing; what they say is not filled
    again.
    """
    payload = {
        "text": (
            "{name}|{price}|{months}|{countries}|{online_only}|{launched}|{topic}|{valid_until}|{offer_id}|{value}|{unknown}"
        ),
        "list": ["{price}", 3, None, {"deep": "{topic}"}],
    }
    attributes = {
        "price": 1234567.25,
        "months": 24.0,
        "countries": ["at", "de"],
        "online_only": 1.0,
        "launched": 1_770_508_800.0,
    }
    offer = Offer(
        "o-1",
        name="{value}",
        value=2.0,
        valid_until=4_000_000_000 * MICROSECONDS,
        treatments=(Treatment("any", payload),),
        attributes=attributes,
    )
    state = again(desk, offers=[offer])
    treatment = decide(request(), state, None, now()).offers[0].treatment
    assert (
        treatment["text"]
        == "{value}|1234567.25|24|at, de|true|2026-02-08T00:00:00Z||2096-10-02T07:06:40Z|o-1|2|{unknown}"
    )
    assert treatment["list"] == ["1234567.25", 3, None, {"deep": ""}]


def test_reasons_are_columns_above_zero(loaded: Snapshot, customers: dict[str, OnlineRow]) -> None:
    """An offer carries a reason exactly where its column is above zero."""
    moment, found = now(), 0
    columns = [name for name, code in loaded.reasons if code == "uses_this"]
    assert columns
    for customer, row in customers.items():
        asked = request(customer, limit=50)
        answer = decide(asked, loaded, row, moment)
        chosen = np.flatnonzero(eligible(asked, loaded, row, moment)).astype(np.int32)
        pairs = loaded.layout.pair_values(row, loaded.everyone, loaded.offer_values, chosen, moment / MICROSECONDS)
        values = np.array(
            [
                loaded.layout.column(n, row, loaded.everyone, loaded.offer_values, pairs, chosen, moment / MICROSECONDS)
                for n in columns
            ]
        )
        expected = {
            loaded.catalogue.offers[at].offer_id: ("uses_this",) if any_above else ()
            for at, any_above in zip(chosen, (values > 0).any(axis=0), strict=True)
        }
        assert {offer.offer_id: offer.reasons for offer in answer.offers} == expected
        found += sum(map(bool, expected.values()))
    assert found > 50
    assert all(offer.reasons == () for offer in decide(request(limit=50), loaded, None, moment).offers)


def test_answer_expires_with_the_first_offer_shown(desk: Reloader, loaded: Snapshot) -> None:
    """An answer is good for as long as the workspace says, but not beyond the end of an offer that it shows."""
    moment = now()
    assert decide(
        request(), again(desk, offers=changed(loaded, valid_until=None), answer_valid="10m"), None, moment
    ).expires_at == second(moment + 600 * MICROSECONDS)
    offers = changed(loaded, valid_from=None, valid_until=None)
    order = ids(decide(request(limit=50), again(desk, offers=offers), None, moment))
    for shown, end in ((0, 60), (4, 300)):
        soon = [
            msgspec.structs.replace(o, valid_until=moment + 60 * MICROSECONDS) if o.offer_id == order[shown] else o
            for o in offers
        ]
        assert decide(request(limit=3), again(desk, offers=soon), None, moment).expires_at == second(
            moment + end * MICROSECONDS
        )
