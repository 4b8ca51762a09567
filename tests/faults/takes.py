"""What the tests of both ledgers take, and how they end the processes that take it."""

from __future__ import annotations

from multiprocessing.process import BaseProcess

from features.common import clock
from features.contact_history.limits import ContactPolicy
from features.contact_history.takes import Take
from tests.features.ledger_writer import (
    GROUP,
    OFFERS,
    SCARCE,
    WEB,
)

CONTACT = SCARCE.contact(OFFERS[0], GROUP, WEB, [0])


def ended(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.kill()
        process.join()
        process.close()


def take(customer: str, decision: int, policy: ContactPolicy = SCARCE) -> Take:
    return Take(customer, decision, clock.now_s(), (CONTACT,), policy)
