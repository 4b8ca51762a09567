"""Records of the Redis ledger as a server answers them: a history, and what is new of a unit."""

from __future__ import annotations

from typing import NamedTuple

import hiredis

from features.columns.rows import StoreUnavailable
from features.contact_history.history import ENTRY_BYTES
from features.contact_history.limits import ContactPolicy
from features.ledger.recent import decode
from features.ledger.recent_updates import UnitState


def history_of(reply: object) -> bytes:
    """Return the history that a server answered to a `read_request`.

    Raises:
        StoreUnavailable: when it is an error, or no history.
    """
    history = good(reply)
    if history is None:
        return b""
    if not isinstance(history, bytes) or len(history) % ENTRY_BYTES:
        raise StoreUnavailable("a history of the ledger is damaged; `forget` the customer to begin it anew")
    return history


class Stored(NamedTuple):
    """What the server holds of a unit: decoded, and what is new of it as the bytes that they are, to be compared."""

    state: UnitState
    record: bytes


def stored_of(reply: object) -> Stored:
    """Return history and what is new, as a server answered to a look.

    Raises:
        StoreUnavailable: when it is an error, or does not decode.
    """
    found = good(reply)
    if not isinstance(found, list) or len(found) != 2:
        raise StoreUnavailable("the ledger answered what was not asked")
    try:
        return Stored(UnitState(history_of(found[0]), decode(found[1] or b"")), found[1] or b"")
    except ValueError as error:
        raise StoreUnavailable(
            "what is new of a customer is damaged in the ledger; `forget` the customer to begin it anew"
        ) from error


def good(reply: object) -> object:
    """Return a reply that is no error.

    Raises:
        StoreUnavailable: with what the server said.
    """
    if isinstance(reply, hiredis.ReplyError):
        raise StoreUnavailable(f"the ledger answered: {reply}")
    return reply


def expiry_ms(policy: ContactPolicy) -> int:
    """Return how long a history is kept, in milliseconds: a minute longer than anything is looked back at."""
    return int(policy.horizon_seconds * 1_000) + 60_000
