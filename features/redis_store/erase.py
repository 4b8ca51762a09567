"""Removing a customer from a Redis store: the hash that Feast keeps, one key. The server tells near caches of it by
itself.
"""

from __future__ import annotations

from features.columns.rows import CUSTOMER_JOIN_KEY, StoreUnavailable
from features.redis_store.address import Address, command
from features.redis_store.feast_format import entity_key


def exists(url: str, project: str, customer_id: str, seconds_max: float) -> bool:
    """Return whether the store has a hash of a customer; blocking.

    Raises:
        StoreUnavailable: it does not answer in time, or refuses.
    """
    return _asked(url, b"EXISTS", project, customer_id, seconds_max)


def delete(url: str, project: str, customer_id: str, seconds_max: float) -> bool:
    """Deletes a customer's hash; whether there was one. Blocking.

    Raises:
        StoreUnavailable: it does not answer in time, or refuses.
    """
    return _asked(url, b"DEL", project, customer_id, seconds_max)


def _asked(url: str, what: bytes, project: str, customer_id: str, seconds_max: float) -> bool:
    key = entity_key(CUSTOMER_JOIN_KEY, customer_id, project)
    reply = Address.parse(url).ask(command(what, key), seconds_max)
    if not isinstance(reply, int):
        raise StoreUnavailable(
            f"expected the online store to answer {what.decode()} with a number, got another kind of answer"
        )
    return reply > 0
