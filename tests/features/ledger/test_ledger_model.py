"""The ledgers against models in plain Python, and against each other: what random takes and budgets are granted."""

from __future__ import annotations

import asyncio
import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.contact_history.history import DECISION, IMPRESSION, OUTCOME, entries, key_of
from features.contact_history.limits import ContactLimit, ContactPolicy
from features.contact_history.takes import ContactEvent, Take, TakeResult
from features.contact_history.updates import taken
from features.ledger.budgets import BudgetBound, Moment
from features.ledger.redis_ledger import RedisLedger
from features.ledger.redis_records import history_of
from features.redis_store.address import Address, command
from features.redis_store.routing import routes
from tests.features.contact_history.history_cases import drawn_takes
from tests.features.ledger.ledger_cases import (
    DAY,
    DISMISSED,
    GROUPS,
    KINDS,
    MAIL,
    NOW,
    OFFERS,
    PATIENT_MS,
    WEB,
    WEEK,
    Shop,
    ran,
    shop,
    urls,
)
from tests.stores import find_server

__all__ = ["shop", "urls"]

_numbers = itertools.count()


steps = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "inform", "repeat", "see", "stray", "dismiss"]),
        st.integers(0, 5),
        st.integers(0, 30),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps, st.booleans(), st.integers(1, 3))
def test_against_a_model(shop: Shop, walk: list[tuple[str, int, int]], small: bool, most: int) -> None:
    """Random takes, repeats, impressions and outcomes over time: what a plain model grants is granted; with small
    bounds, never more.
    """
    policy = ContactPolicy(
        (
            ContactLimit(most, 60, "offer"),
            ContactLimit(most + 1, 50, "group", counts="impressions"),
            ContactLimit(4, 40),
            ContactLimit(2, 80, channel=MAIL),
        ),
        hold_seconds=20,
        remember_seconds=10_000,  # what is dropped as too old is another case
        **({"contacts_max": 4, "outcomes_max": 2} if small else {}),
    )
    customer, now, model, decision = f"m{next(_numbers)}", NOW, [], 0
    for what, at, passed in walk:
        now += passed / 3
        own = [entry for entry in model if entry["offer"] == at]
        if what in ("take", "inform", "repeat"):
            decision += what != "repeat" or not decision
            slate, channel = [at, (at + 1) % 6], MAIL if at % 2 else WEB
            trial, expected = list(model), True
            for offer in slate:
                if any(e["offer"] == offer and e["decision"] == decision for e in trial):
                    continue
                expected = expected and fits(trial, policy, offer, channel, now)
                trial.append(
                    {
                        "offer": offer,
                        "decision": decision,
                        "time": now,
                        "channel": channel,
                        "seen": False,
                        "decided": True,
                    }
                )
            said = shop.take(policy, decision, now, slate, channel, customer, what == "inform").granted
            assert said == expected or (small and expected)
            model = trial if said else model
        elif what == "see" and own and own[-1]["decision"]:
            event = ContactEvent(IMPRESSION, now, OFFERS[at], own[-1]["decision"], GROUPS[at], own[-1]["channel"])
            shop.run(shop.ledger.note(customer, policy, [event], now))
            own[-1]["seen"] = True
        elif what == "stray":
            shop.run(
                shop.ledger.note(customer, policy, [ContactEvent(IMPRESSION, now, OFFERS[at], 0, GROUPS[at], WEB)], now)
            )
            if not any(e["decision"] == 0 and e["time"] == now for e in own):
                model.append({"offer": at, "decision": 0, "time": now, "channel": WEB, "seen": True, "decided": False})
        elif what == "dismiss":
            shop.run(
                shop.ledger.note(
                    customer, policy, [ContactEvent(OUTCOME, now, OFFERS[at], 0, GROUPS[at], WEB, DISMISSED)], now
                )
            )
    found = shop.read(customer)
    assert sum(e.kind in (DECISION, IMPRESSION) for e in found) <= policy.contacts_max


def fits(model: list[dict[str, Any]], policy: ContactPolicy, offer: int, channel: int, now: float) -> bool:
    """Whether one more contact fits, in the model's plain words."""
    for limit in policy.limits:
        if limit.scope == "group" and not GROUPS[offer]:
            continue
        same = [e for e in model if now - e["time"] < limit.window_seconds]
        if limit.scope == "offer":
            same = [e for e in same if e["offer"] == offer]
        if limit.scope == "group":
            same = [e for e in same if GROUPS[e["offer"]] == GROUPS[offer]]
        if limit.channel:
            same = [e for e in same if e["channel"] == limit.channel]
        if limit.counts == "decisions":
            same = [e for e in same if e["decided"]]
        else:
            same = [e for e in same if e["seen"] or now - e["time"] < policy.hold_seconds]
        if len(same) >= limit.contacts_max:
            return False
    return True


def test_both_write_the_same_bytes(tmp_path: Path, urls: dict[str, str]) -> None:
    """After the same takes and notes the histories of all stores are the same bytes."""
    histories, policy = {}, replace(WEEK, limits=(*WEEK.limits, ContactLimit(2, DAY, "group", counts="impressions")))
    for kind, url in urls.items():
        shop = Shop(kind, tmp_path / kind, url)
        for step in range(60):
            shop.take(policy, step + 1, NOW + step * 0.4 * DAY, [step % 6, step % 5], informed=step % 3 == 0)
            if step % 4 == 0:
                event = ContactEvent(
                    IMPRESSION, NOW + step * 0.4 * DAY + 1, OFFERS[step % 6], step + 1, GROUPS[step % 6], WEB
                )
                shop.run(shop.ledger.note("1", policy, [event], NOW + step * 0.4 * DAY + 1))
        histories[kind] = shop.run(shop.ledger.read("1"))
        shop.close()
    assert len(entries(histories["embedded"])) > 5
    assert set(histories.values()) == {histories["embedded"]}


@settings(max_examples=300, deadline=None)
@given(drawn=drawn_takes())
def test_the_script_says_what_the_kernel_says(urls: dict[str, str], drawn: tuple[bytes, Take]) -> None:
    """From any history the script's answer and the bytes that it leaves are those of the same take in Python."""
    if "redis" not in urls:
        pytest.skip(find_server()[1])
    history, take = drawn

    async def both() -> tuple[TakeResult, bytes]:
        ledger = RedisLedger(urls["redis"], PATIENT_MS, "drawn")
        key, payload = ledger.read_request(take.customer_id)
        link = routes(Address.parse(urls["redis"]), PATIENT_MS / 1_000)
        assert await link.call(key, command("SET", key, history)) == b"OK"
        answer = await ledger.take(take)
        after = history_of(await link.call(key, payload))
        link.close()
        ledger.close()
        await asyncio.sleep(0)
        return answer, after

    assert asyncio.run(both()) == taken(history, take)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["take", "take", "confirm", "give"]), st.integers(0, 200)), max_size=25))
def test_budgets_against_a_model(shop: Shop, walk: list[tuple[str, int]]) -> None:
    """Random shows over two days are granted as a plain model grants them."""
    offer, now, held, shown = key_of(f"drawn {next(_numbers)}"), 1_000 * DAY - 600, [], []
    budget = BudgetBound(offer, daily_max=4, lifetime_max=7)
    for what, passed in walk:
        now += passed
        moment = Moment(now, math.floor(now / DAY), 180)
        if what == "take":
            live = [m for m in held if (m.minute + 1) * 60 + 180 > now]
            lifetime = len(shown) + len(live) >= 7
            daily = sum(m.day == moment.day for m in (*shown, *live)) >= 4
            assert shop.budgets([budget], moment) == ["lifetime" if lifetime else "daily" if daily else ""]
            if not (lifetime or daily):
                held = [*live, moment]
            continue
        if held:
            given_back = held.pop(passed % len(held))
            shop.run((shop.ledger.confirm if what == "confirm" else shop.ledger.give_back)([offer], given_back))
            shown += [given_back] * (what == "confirm")


def test_zz_the_same_cases_ran_on_all(capsys: pytest.CaptureFixture[str]) -> None:
    """Says how many cases ran on each store: as many on one as on the other, and some."""
    with capsys.disabled():
        print("\nledger model:", *(f"{ran[kind]} cases on {kind};" for kind in KINDS), find_server()[1])
    assert ran["embedded"] > 0
    for kind in KINDS[1:]:
        assert ran[kind] == (ran["embedded"] if find_server()[0] else 0)
