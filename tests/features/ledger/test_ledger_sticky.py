"""Sticky assignments in the ledgers: the first write holds, whoever else writes; they move with a link, and go with the
customer.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from features.ledger.recent import KEPT_MAX, NOTHING, Heard, KeptArm, Recent, decode, encode
from features.ledger.recent_updates import settled
from tests.features.ledger.ledger_cases import KINDS, Shop, urls
from tests.features.ledger.test_ledger_recent import T, happened, hear, look
from tests.features.sticky_race import settle
from tests.stores import find_server

__all__ = ["urls"]
A, B = ("a", 0, 0.5), ("b", 0, 0.25)
UNITS, AT_ONCE = 60, 50


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, tmp_path: Path, urls: dict[str, str]) -> Iterator[Shop]:
    if request.param not in urls:
        pytest.skip(find_server()[1])
    found = Shop(request.param, tmp_path, urls[request.param])
    yield found
    found.close()


def keep(
    shop: Shop, unit: str, wanted: dict[str, KeptArm], over: dict[str, KeptArm] | None = None
) -> dict[str, KeptArm]:
    found: dict[str, KeptArm] = shop.run(shop.ledger.settle(unit, wanted, over or {}))
    return dict(found)


def test_the_first_write_holds(shop: Shop) -> None:
    """What is kept stays, beside what else is kept; a higher bucket version replaces it, a lower one does not."""
    assert keep(shop, "1", {"e": A}) == {"e": A}
    assert keep(shop, "1", {"e": B, "f": B}) == {"e": A, "f": B}
    assert look(shop, "1").recent.kept == {"e": A, "f": B} and look(shop, "2").recent == NOTHING
    newer = ("b", 2, 0.5)
    assert keep(shop, "1", {"e": newer})["e"] == newer
    assert keep(shop, "1", {"e": ("a", 1, 0.5)})["e"] == newer
    hear(shop, Heard("1", event=happened(1)))
    assert look(shop, "1").recent == Recent(events=(happened(1),), kept={"f": B, "e": newer})


def test_an_arm_that_is_gone_is_replaced_by_who_saw_it(shop: Shop) -> None:
    """What was read may be replaced, once: who read the same later gets what holds by then."""
    keep(shop, "1", {"e": A})
    assert keep(shop, "1", {"e": B}, {"e": A}) == {"e": B}
    assert keep(shop, "1", {"e": ("c", 0, 0.1)}, {"e": A}) == {"e": B}


def test_assignments_move_with_a_link_and_go_with_the_customer(shop: Shop) -> None:
    """The customer's own win, the anonymous id's come where there are none, later writes go to the customer; forgetting
    takes all.
    """
    keep(shop, "~a", {"e": A, "f": A})
    keep(shop, "c", {"e": B})
    hear(shop, Heard("~a", identify="c", received=T))
    assert look(shop, "~a") == look(shop, "c") and look(shop, "c").recent.kept == {"e": B, "f": A}
    assert keep(shop, "~a", {"e": A, "g": A}) == {"e": B, "f": A, "g": A} == look(shop, "c").recent.kept
    shop.run(shop.ledger.forget("c"))
    assert look(shop, "c").recent == NOTHING


def test_two_processes_agree(shop: Shop, tmp_path: Path, urls: dict[str, str]) -> None:
    """Two processes want other arms for the same units, 50 times at once each: every unit has one arm, for all of them,
    for good.
    """
    context = multiprocessing.get_context("spawn")
    gates, workers = [], []
    for arm in ("a", "b"):
        ours, theirs = context.Pipe()
        arguments = (shop.url, tmp_path / "ledger", "race" + shop.kind, arm, UNITS, AT_ONCE, theirs)
        workers.append(context.Process(target=settle, args=arguments, daemon=True))
        gates.append(ours)
    for worker in workers:
        worker.start()
    assert [gate.recv() for gate in gates] == ["ready"] * 2
    for gate in gates:
        gate.send("go")
    one, other = (gate.recv() for gate in gates)
    for worker in workers:
        worker.join(60)
    assert one == other and all(len(found) == 1 for found in one) and len(one) == UNITS


def test_a_record_has_bounds_and_older_ones_are_read() -> None:
    """The oldest assignments go beyond the bound; what holds changes nothing; a record without the field has none."""
    recent = NOTHING
    for number in range(KEPT_MAX + 3):
        recent = settled(recent, {f"e{number}": A})
    assert list(recent.kept) == [f"e{number}" for number in range(3, KEPT_MAX + 3)]
    assert settled(recent, {"e9": B}) is recent and decode(encode(recent)) == recent
    before: Any = b"\x94\xa1c\x80\x90\x07"
    assert decode(before) == Recent("c", {}, (), 7)
