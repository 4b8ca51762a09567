"""One decision as a function of plain values, held against LightGBM, ten-line loops and the rules of the workspace."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np
import pytest

from features.aggregates.partitions import fnv1a
from features.columns.rows import OnlineRow
from features.common.timestamps import MICROSECONDS, now, rfc3339
from features.common.types import Decision, DecisionRequest, Offer, Treatment
from features.config.features_file import ContextColumn
from features.config.policies import Arbitration, PoliciesFile, Rule
from features.validation.load import load
from features.workspace.workspace import Workspace
from serving.decision.answer import FEATURES_UNAVAILABLE
from serving.decision.explain import EXPLAINED_OFFERS_MAX
from serving.hub.request_check import BadContext, UnknownPlacement, check_context
from serving.kernel import top_k
from serving.reload.reloader import Reloader
from serving.state.snapshot import Snapshot
from tests.serving.decisions import decide, eligible, unknown_row
from training.bundle import bundle
from training.bundle.bundle import BadBundle

HOUR = 3_600 * MICROSECONDS


def top(raw: Any, draws: Any, customer: str, limit: int) -> list[int]:
    """The best of offers that are all considered."""
    found: list[int] = top_k.best(raw, draws, np.arange(len(raw), dtype=np.int32), fnv1a(customer), limit).tolist()
    return found


def second(moment: int) -> str:
    """The whole second that a moment lies in, as an answer says it."""
    return rfc3339(moment // MICROSECONDS * MICROSECONDS)


@pytest.fixture(scope="module")
def desk(trained_workspace: Path) -> Iterator[Reloader]:
    """What a worker holds, without a server."""
    made = Reloader(load(trained_workspace, sources=False))
    made.load()
    assert made.loaded is not None, made.refusal
    yield made
    made.close()


@pytest.fixture(scope="module")
def loaded(desk: Reloader) -> Snapshot:
    assert desk.loaded is not None
    return desk.loaded


@pytest.fixture(scope="module")
def customers(desk: Reloader) -> dict[str, OnlineRow]:
    """Some rows of the store, and the ids that they belong to."""
    found: dict[str, OnlineRow] = {}
    for number in range(60):
        row = asyncio.run(desk.stores.customers.row(f"436{600_000 + number}"))
        assert row is not None
        if row.known:
            found[f"436{600_000 + number}"] = row
    assert len(found) >= 40
    return found


def request(customer: str = "436600000", **fields: Any) -> DecisionRequest:
    given: dict[str, Any] = {"customer_id": customer, "placement": "home", "context": {"channel": "app", "hour": 18}}
    return msgspec.convert(given | fields, DecisionRequest)


def again(
    desk: Reloader, *, offers: list[Offer] | None = None, policies: PoliciesFile | None = None, **settings: Any
) -> Snapshot:
    """The same bundle on other offers, other rules or other settings."""
    assert desk.loaded is not None
    before, workspace = desk.loaded, desk.workspace
    if policies is not None:
        workspace = dataclasses.replace(workspace, policies=policies)
    if settings:
        serving = msgspec.structs.replace(workspace.settings.serving, **settings)
        workspace = dataclasses.replace(
            workspace, settings=msgspec.structs.replace(workspace.settings, serving=serving)
        )
    given = before.catalogue.offers if offers is None else offers
    return Snapshot(workspace, before.bundle, given, before.everyone, desk.stores.engine.words, now() / MICROSECONDS)


def changed(loaded: Snapshot, **fields: Any) -> list[Offer]:
    """The catalogue's offers, all of them with these fields."""
    return [msgspec.structs.replace(offer, **fields) for offer in loaded.catalogue.offers]


def ids(decision: Decision) -> list[str]:
    return [offer.offer_id for offer in decision.offers]


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


@pytest.mark.parametrize(("before", "inside"), [(-1, False), (0, True), (HOUR - 1, True), (HOUR, False)])
def test_validity_begins_with_its_moment_and_ends_before_its_end(
    desk: Reloader, loaded: Snapshot, before: int, inside: bool
) -> None:
    """An offer is valid from its first moment, and no longer at its end, to the microsecond."""
    start = now()
    narrow = again(desk, offers=changed(loaded, valid_from=start, valid_until=start + HOUR))
    answer = decide(request(), narrow, unknown_row(narrow), start + before)
    assert bool(answer.offers) == inside
    assert (answer.considered == 0) != inside


def test_nothing_eligible_is_an_empty_answer(desk: Reloader, loaded: Snapshot) -> None:
    """With no offer left, and with no offer at all, the answer is empty, and good for the usual time."""
    for offers in (changed(loaded, valid_until=now() - HOUR, valid_from=None), []):
        none = again(desk, offers=offers)
        moment = now()
        answer = decide(request(explain=True), none, unknown_row(none), moment)
        assert (answer.offers, answer.considered, answer.degraded) == ([], 0, ())
        assert answer.expires_at == second(moment + 300 * MICROSECONDS)


def test_placements(loaded: Snapshot, customers: dict[str, OnlineRow]) -> None:
    """An offer is shown where it names the placement or names none, and nowhere else."""
    customer, row = next(iter(customers.items()))
    for placement in ("home", "bill"):
        answer = decide(request(customer, placement=placement, limit=50), loaded, row, now())
        moment = now()
        expected = {
            offer.offer_id
            for offer in loaded.catalogue.offers
            if (not offer.placements or placement in offer.placements)
            and (offer.valid_from or 0) <= moment < (offer.valid_until or 2**62)
        }
        allowed = {
            loaded.catalogue.offers[at].offer_id
            for at in np.flatnonzero(eligible(request(customer, placement=placement), loaded, row, moment))
        }
        assert set(ids(answer)) == allowed <= expected
    with pytest.raises(UnknownPlacement):
        decide(request(placement="nowhere"), loaded, row, now())


def test_limit_of_placement_and_request(loaded: Snapshot) -> None:
    """Without a limit the placement's own holds; a limit cuts the same ranking."""
    row = unknown_row(loaded)
    moment = now()
    assert len(decide(request(), loaded, row, moment).offers) == 3
    assert len(decide(request(placement="bill"), loaded, row, moment).offers) == 1
    whole = ids(decide(request(limit=50), loaded, row, moment))
    for limit in range(1, len(whole) + 1):
        assert ids(decide(request(limit=limit), loaded, row, moment)) == whole[:limit]


def test_excluded_offers_are_left_out(loaded: Snapshot, customers: dict[str, OnlineRow]) -> None:
    """What the request excludes is not shown, the rest stands as it was, and an unknown id does no harm."""
    customer, row = next(iter(customers.items()))
    moment = now()
    first = ids(decide(request(customer), loaded, row, moment))[0]
    answer = decide(request(customer, limit=50, exclude=[first, "never-heard-of"]), loaded, row, moment)
    assert first not in ids(answer)
    assert answer.considered == decide(request(customer), loaded, row, moment).considered - 1


def test_rules_hold_known_and_unknown_values(desk: Reloader, loaded: Snapshot, customers: dict[str, OnlineRow]) -> None:
    """A rule keeps offers whose pair column is high enough, and treats the unknown as it says."""
    column, checked = "topic_calls_all", 0
    for unknown, rule in (
        ("eligible", Rule(unless=f"pair.{column} < 3")),
        ("not_eligible", Rule(when=f"pair.{column} >= 3")),
    ):
        rules = PoliciesFile(rules={"uses_topic": rule})
        strict, moment = again(desk, policies=rules), now()
        free = again(desk, policies=PoliciesFile())
        for customer, row in [*customers.items(), ("nobody-knows-me", unknown_row(loaded))]:
            values = strict.layout.matched(column, row, moment / MICROSECONDS).copy()
            open_to_all = eligible(request(customer), free, row, moment)
            expected = [
                bool(mask) and (unknown == "eligible" if np.isnan(value) else value >= 3)
                for mask, value in zip(open_to_all, values, strict=True)
            ]
            assert eligible(request(customer), strict, row, moment).tolist() == expected
            checked += sum(expected)
    assert checked > 100


def test_rules_on_columns_of_everyone(desk: Reloader, loaded: Snapshot) -> None:
    """A rule may speak of everyone's column, which a stranger has too."""
    rules = PoliciesFile(rules={"taken": Rule(when="pair.popular_all >= 1")})
    strict, moment = again(desk, policies=rules), now()
    values = strict.layout.matched("popular_all", strict.everyone, moment / MICROSECONDS).copy()
    found = eligible(request(), strict, unknown_row(strict), moment)
    assert found.any() and not found[~(values >= 1)].any()


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
