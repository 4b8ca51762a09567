"""The records of the embedded ledger: their keys, their checksums, and what they say."""

from __future__ import annotations

from hashlib import blake2b
from zlib import crc32

import lmdb

from features.columns.rows import StoreUnavailable
from features.contact_history.history import ENTRY_BYTES
from features.ledger.budgets import BudgetRecord
from features.ledger.recent import NOTHING, Recent, decode, encode
from features.ledger.recent_updates import UnitState

CUSTOMERS, RECENT, BUDGETS = b"c", b"t", b"b"


def hash_of(unit: str) -> bytes:
    """Part of a unit's keys: what was forgotten leaves no id in free pages, and ids of any length have a key."""
    return blake2b(unit.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def customer_key(customer_id: str) -> bytes:
    """Key of the contact history of a unit."""
    return CUSTOMERS + hash_of(customer_id)


def offer_key(offer: int) -> bytes:
    """Key of an offer's budgets."""
    return BUDGETS + offer.to_bytes(8, "little")


def checked(data: bytes) -> bytes:
    """Return a record with its checksum."""
    return data + crc32(data).to_bytes(4, "little")


def unchecked(record: bytes | None) -> bytes:
    """Return a record without its checksum; empty where there is none.

    Raises:
        StoreUnavailable: when they do not fit. So do those below.
    """
    if record is None:
        return b""
    data = record[:-4]
    if crc32(data) != int.from_bytes(record[-4:], "little"):
        raise StoreUnavailable("a record of the ledger is damaged; `forget` the customer to begin a history anew")
    return data


def history_of(record: bytes | None) -> bytes:
    """Return a contact history from its record."""
    history = unchecked(record)
    if len(history) % ENTRY_BYTES:
        raise StoreUnavailable("a history of the ledger is damaged; `forget` the customer to begin it anew")
    return history


def recent_of(record: bytes | None) -> Recent:
    """Return what is new of a unit, from its record."""
    if record is None:
        return NOTHING
    try:
        return decode(unchecked(record))
    except ValueError as error:
        raise StoreUnavailable(
            "what is new of a customer is damaged in the ledger; `forget` the customer to begin it anew"
        ) from error


def state_of(transaction: lmdb.Transaction[bytes], unit: str) -> UnitState:
    """Both of a unit."""
    key = hash_of(unit)
    return UnitState(history_of(transaction.get(CUSTOMERS + key)), recent_of(transaction.get(RECENT + key)))


def put_state(transaction: lmdb.Transaction[bytes], unit: str, before: UnitState, after: UnitState) -> None:
    """Writes what changed of a unit."""
    key = hash_of(unit)
    if after.contacts is not before.contacts:
        put_record(transaction, CUSTOMERS + key, after.contacts)
    if after.recent is not before.recent:
        put_record(transaction, RECENT + key, encode(after.recent))


def put_record(transaction: lmdb.Transaction[bytes], key: bytes, data: bytes) -> None:
    """Writes a record; an empty one is deleted."""
    if data:
        transaction.put(key, checked(data))
    else:
        transaction.delete(key)


def budget_of(transaction: lmdb.Transaction[bytes], offer: int) -> BudgetRecord:
    """Return the budgets of an offer."""
    try:
        return BudgetRecord.unpack(unchecked(transaction.get(offer_key(offer))))
    except ValueError as error:
        raise StoreUnavailable(str(error)) from error
