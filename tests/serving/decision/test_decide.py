"""One decision as a function of plain values, held against LightGBM, ten-line loops and the rules of the workspace."""

from __future__ import annotations

import asyncio
from typing import Any

import lightgbm
import msgspec
import numpy as np
import pytest

from features.aggregates.partitions import fnv1a
from features.columns.rows import OnlineRow
from features.common.timestamps import MICROSECONDS, now
from features.config.features_file import ContextColumn
from features.config.policies import Arbitration, PoliciesFile, Rule
from features.workspace.workspace import Workspace
from serving.decision.answer import FEATURES_UNAVAILABLE
from serving.decision.explain import EXPLAINED_OFFERS_MAX
from serving.hub.request_check import BadContext, check_context
from serving.kernel import top_k
from serving.reload.reloader import Reloader
from serving.state.snapshot import Snapshot
from tests.serving.decisions import decide, eligible, unknown_row
from tests.serving.desks import again, ids, request
from training.bundle import bundle
from training.bundle.bundle import BadBundle


def top(raw: Any, draws: Any, customer: str, limit: int) -> list[int]:
    """The best of offers that are all considered."""
    found: list[int] = top_k.best(raw, draws, np.arange(len(raw), dtype=np.int32), fnv1a(customer), limit).tolist()
    return found


def matrix(
    loaded: Snapshot, row: OnlineRow, context: dict[str, Any], chosen: np.ndarray[Any, Any], at: int
) -> np.ndarray[Any, Any]:
    """The rows that training would lay for these offers, in the order of the contract."""
    seconds = at / MICROSECONDS
    shared = loaded.layout.shared_values(row, context, seconds)
    pairs = loaded.layout.pair_values(row, loaded.everyone, loaded.offer_values, chosen, seconds)
    return np.hstack([np.tile(shared, (len(chosen), 1)), loaded.offer_values[chosen], pairs])


def test_ranking_is_that_of_lightgbm_calibrated(
    desk: Reloader, loaded: Snapshot, customers: dict[str, OnlineRow]
) -> None:
    """Propensities are LightGBM's on the laid matrix, calibrated; offers come by what they are worth, or by raw score
    where that alone counts.
    """
    place = bundle.current(desk.workspace.bundles)
    assert place is not None
    booster = lightgbm.Booster(model_file=str(place / "model.txt"))
    likely = again(desk, policies=PoliciesFile(arbitration=Arbitration(formula="propensity")))
    moment, compared = now(), 0
    rows = customers | {"nobody-knows-me": unknown_row(loaded)}
    for number, (customer, row) in enumerate(rows.items()):
        asked = request(
            customer,
            limit=50,
            context=[{"channel": "app"}, {"channel": "shop", "hour": 3.5, "roaming_now": True}, {}][number % 3],
        )
        answer = decide(asked, loaded, row, moment)
        chosen = np.flatnonzero(eligible(asked, loaded, row, moment)).astype(np.int32)
        raw = np.asarray(
            booster.predict(matrix(loaded, row, asked.context, chosen, moment), raw_score=True, num_threads=1)
        )
        offers = [loaded.catalogue.offers[at].offer_id for at in chosen]
        expected = dict(zip(offers, loaded.bundle.calibration.probabilities(raw).tolist(), strict=True))
        assert len(answer.offers) == answer.considered == len(chosen) > 3
        assert {offer.offer_id: offer.propensity for offer in answer.offers} == expected
        by_raw = dict(zip(offers, raw.tolist(), strict=True))
        worth = {offer.offer_id: offer.value for offer in loaded.catalogue.offers}
        assert [offer.score for offer in answer.offers] == sorted(
            (expected[o] * worth[o] for o in offers), reverse=True
        )
        shown = [by_raw[offer.offer_id] for offer in decide(asked, likely, row, moment).offers]
        assert shown == sorted(shown, reverse=True) and len(shown) >= len(offers)
        assert [offer.rank for offer in answer.offers] == list(range(1, len(offers) + 1))
        assert all(0 < offer.propensity < 1 for offer in answer.offers)
        compared += len(offers)
    assert compared > 400


def test_customers_get_different_offers(loaded: Snapshot, customers: dict[str, OnlineRow]) -> None:
    """The best offer depends on the customer."""
    assert (
        len({ids(decide(request(customer, limit=1), loaded, row, now()))[0] for customer, row in customers.items()}) > 1
    )


def test_equal_scores_are_ordered_by_a_hash(loaded: Snapshot) -> None:
    """Ties fall differently for different customers, the same each time, whatever else is considered, and never by
    position alone.
    """
    draws = np.arange(40, dtype=np.uint64) << np.uint64(32)
    orders = {customer: top(np.zeros(40), draws, customer, 40) for customer in ("a", "b", "c", "d")}
    assert len({tuple(order) for order in orders.values()}) == 4
    for customer, order in orders.items():
        assert sorted(order) == list(range(40)) != order
        assert top(np.zeros(40), draws, customer, 7) == order[:7]
        part = np.array(sorted(order[::3]))
        assert [int(part[at]) for at in top(np.zeros(len(part)), draws[part], customer, 40)] == [
            at for at in order if at in set(part.tolist())
        ]
    firsts = [top(np.zeros(10), draws[:10], f"customer-{number}", 1)[0] for number in range(2_000)]
    assert np.bincount(firsts, minlength=10).min() > 130  # 200 expected, standard deviation 13


def test_top_equals_sorting_everything() -> None:
    """The partial selection gives what a full sort by score, then by hash, gives."""
    random = np.random.default_rng(5)
    for _ in range(300):
        size = int(random.integers(0, 40))
        raw = random.choice([random.normal(size=6), random.normal(size=200)][int(random.integers(2))], size)
        draws = random.integers(0, 2**63, size, dtype=np.uint64)
        limit = int(random.integers(1, 51))
        whole = top(raw, draws, "someone", 50)
        assert top(raw, draws, "someone", limit) == whole[:limit]
        assert [raw[at] for at in whole] == sorted(raw, reverse=True)
    assert len({int(top_k.mix(number)) for number in np.arange(10_000, dtype=np.uint64)}) == 10_000


def test_same_question_same_answer(loaded: Snapshot, customers: dict[str, OnlineRow]) -> None:
    """The same request, row, moment and state give the same answer, to the byte."""
    moment = now()
    for customer, row in list(customers.items())[:10]:
        first, second = (
            msgspec.json.encode(decide(request(customer, explain=True), loaded, row, moment, decision_id="d"))
            for _ in range(2)
        )
        assert first == second
    assert decide(request(), loaded, None, moment).decision_id != decide(request(), loaded, None, moment).decision_id


def test_unknown_customer_is_not_degraded(desk: Reloader, loaded: Snapshot) -> None:
    """A stranger gets a ranking by what is known of everyone, in the usual shape."""
    row = asyncio.run(desk.stores.customers.row("nobody-knows-me"))
    assert row is not None and not row.known
    answer = decide(request("nobody-knows-me"), loaded, row, now())
    assert answer.degraded == () and len(answer.offers) == 3


def test_missing_row_is_degraded(loaded: Snapshot) -> None:
    """Without a row the answer says so, and ranks as for a stranger."""
    moment = now()
    answer = decide(request(), loaded, None, moment, decision_id="d")
    assert answer.degraded == (FEATURES_UNAVAILABLE,)
    assert msgspec.structs.replace(answer, degraded=()) == decide(
        request(), loaded, unknown_row(loaded), moment, decision_id="d"
    )


def test_explanation_adds_up(desk: Reloader, loaded: Snapshot, customers: dict[str, OnlineRow]) -> None:
    """Each step of the funnel leaves no more than the one before, the last is what was considered, and the shown offers
    come first.
    """
    rules = PoliciesFile(
        rules={"one": Rule(when="pair.topic_calls_all >= 1"), "two": Rule(unless="pair.popular_all < 1")}
    )
    state = again(desk, policies=rules)
    for customer, row in list(customers.items())[:10]:
        answer = decide(request(customer, explain=True, exclude=["say-nothing"]), state, row, now())
        explained = answer.explanation
        assert isinstance(explained, dict)
        placement = explained["placements"]["home"]
        steps = list(placement["funnel"].values())
        assert set(placement["funnel"]) <= {"valid", "placement", "not_excluded", "rule one", "rule two", "shown"}
        assert [explained["offers"], *steps] == sorted([explained["offers"], *steps], reverse=True)
        assert steps[-2:] == [answer.considered, len(answer.offers)]
        considered = placement["shown"] + placement["considered"]
        assert len(considered) == min(answer.considered, EXPLAINED_OFFERS_MAX)
        assert [offer["offer_id"] for offer in placement["shown"]] == ids(answer)
        assert [offer["propensity"] for offer in placement["shown"]] == [offer.propensity for offer in answer.offers]
        for offer in considered:
            assert offer["base"] + sum(one["contribution"] for one in offer["contributions"]) == pytest.approx(
                offer["raw"], abs=1e-9
            )
        told = {offer["offer_id"] for offer in placement["not_shown"]}
        assert told == set(state.catalogue.index) - set(ids(answer)), (
            "every offer that is not shown is told with what stopped it"
        )
        names = {*explained["customer"], *(name for offer in considered for name in offer["columns"])}
        if considered:
            assert names == set(loaded.bundle.contract.names)
        json = msgspec.json.decode(msgspec.json.encode(answer))
        assert json["explanation"]["customer"]["channel"] == "app"
    assert "explanation" not in msgspec.json.decode(msgspec.json.encode(decide(request(), loaded, None, now())))


@pytest.mark.parametrize(
    ("name", "value", "code", "expected"),
    [
        ("colour", "red", "field-unknown", "one of channel, hour, roaming_now"),
        ("channel", 3, "field-type", "string"),
        ("channel", "fax", "field-value", "one of app, web, shop"),
        ("hour", "18", "field-type", "number"),
        ("hour", True, "field-type", "number"),
        ("hour", 24.5, "out-of-range", "number from 0"),
        ("hour", -1, "out-of-range", "to 24"),
        ("roaming_now", 1, "field-type", "boolean"),
    ],
)
def test_context_errors(loaded: Snapshot, name: str, value: Any, code: str, expected: str) -> None:
    """A context value that its column does not allow is refused, with what was expected."""
    with pytest.raises(BadContext) as refused:
        decide(request(context={name: value}), loaded, None, now())
    assert (refused.value.name, refused.value.code) == (name, code)
    assert expected in refused.value.expected
    assert "red" not in str(refused.value) and "fax" not in str(refused.value), "a message repeats nothing that came"


def test_context_of_integers_and_of_nothing() -> None:
    """An integer column takes no fraction, and null stands for not said."""
    columns = {"count": ContextColumn(dtype="integer", minimum=0)}
    check_context(columns, {"count": None})
    check_context(columns, {"count": 3})
    for wrong in (3.5, True, "3"):
        with pytest.raises(BadContext, match="expected integer"):
            check_context(columns, {"count": wrong})
    with pytest.raises(BadContext, match="the workspace declares none"):
        check_context({}, {"x": 1})


def test_golden_requests_are_replayed_before_serving(desk: Reloader, loaded: Snapshot) -> None:
    """A bundle whose recorded answers are not given, or that has none, or is for other columns, is refused."""
    good = loaded.bundle
    case = good.golden[0]
    off = msgspec.structs.replace(case, raw=[np.nextafter(case.raw[0], 9).item(), *case.raw[1:]])
    wide = msgspec.structs.replace(case, propensities=[case.propensities[0] * 1.0001, *case.propensities[1:]])
    other = msgspec.structs.replace(good.contract, columns=good.contract.columns[::-1])
    bad = {
        "scores to the bit": msgspec.structs.replace(good, golden=[*good.golden[1:], off]),
        "recorded propensities": msgspec.structs.replace(good, golden=[wide]),
        "got none": msgspec.structs.replace(good, golden=[]),
        "for the columns": msgspec.structs.replace(good, contract=other),
    }
    for message, damaged in bad.items():
        with pytest.raises(BadBundle, match=message):
            Snapshot(
                desk.workspace,
                damaged,
                loaded.catalogue.offers,
                loaded.everyone,
                desk.stores.engine.words,
                now() / MICROSECONDS,
            )


def test_workspace_of_the_fixture_is_as_expected(desk: Reloader) -> None:
    """The workspace that these tests speak of has what they speak of."""
    workspace: Workspace = desk.workspace
    assert set(workspace.offers.placements) == {"home", "bill"}
    assert workspace.features.context["channel"].default == "web"
