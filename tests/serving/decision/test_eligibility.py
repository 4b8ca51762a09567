"""Which offers may be shown: validity, placements, limits of a request, exclusions and rules."""

from __future__ import annotations

import numpy as np
import pytest

from features.columns.rows import OnlineRow
from features.common.timestamps import MICROSECONDS, now
from features.config.policies import PoliciesFile, Rule
from serving.hub.request_check import UnknownPlacement
from serving.reload.reloader import Reloader
from serving.state.snapshot import Snapshot
from tests.serving.decisions import decide, eligible, unknown_row
from tests.serving.desks import again, changed, ids, request, second

HOUR = 3_600 * MICROSECONDS


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
