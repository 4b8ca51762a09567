"""Overwriting what LMDB leaves behind, in an environment that others go on using: pages that are free, and gaps within
pages.

What was deleted stands in the pages that held it, which are free until they are used again, in the gaps of pages that
were changed since, and behind large values, whose last page is written whole. What is put again is written elsewhere,
without that; so the records in question are put again as they are, and then all that is free is used for zeros, which
are deleted. Each transaction is short: whoever takes contacts meanwhile hardly waits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import lmdb

from features.lmdb_store.environment import DATA, MAP_BYTES, MAP_BYTES_MAX, Environment, attach_folder, failing

FILLER = b"z"
"""First byte of the keys of zeros; no record begins with it."""
RECORDS_A_TRANSACTION = 100
ROUNDS_MAX = 4

_HEAD = struct.Struct("<QHHHH")  # page number, padding, flags, end of the pointers, begin of the nodes
_NODE = struct.Struct("<HHHH")  # size of the value (low, high), flags, size of the key
_LEAF = 0x02

Offsets = Callable[[Path], list[int]]
"""Where a file holds what should be gone, in bytes from its beginning."""


def scrub(folder: Path, offsets: Offsets) -> bool:
    """Overwrite what is free until nothing is found any more; whether that was reached.

    Args:
        folder: of an environment that does not sync its commits, as the ledger's.

    Raises:
        StoreUnavailable: the environment is damaged, or the disk refuses.
    """
    file = folder / DATA
    with failing("overwrite what was deleted"):
        for number in range(ROUNDS_MAX):
            found = offsets(file) if file.exists() else []
            if not found:
                return True
            environment = attach_folder(folder.resolve(), MAP_BYTES, sync=False)
            try:
                _put_again(environment, _keys_at(environment, file, found))
                if number:  # what has stayed may stand behind large values, and nothing tells whose they are
                    _put_again(environment, _large(environment))
                _fill(environment)
                environment.env.sync(True)
            finally:
                environment.release()
        return not offsets(file)


def _keys_at(environment: Environment, file: Path, found: list[int]) -> list[bytes]:
    """Yield one key of each leaf that holds one of the offsets, or did when it was in use."""
    size = environment.env.stat()["psize"]
    keys = {_first_key(_page(file, page, size)) for page in {offset // size for offset in found}}
    return sorted(keys - {b""})


def _large(environment: Environment) -> list[bytes]:
    """Keys of the records that do not lie in a leaf."""
    in_leaf = environment.env.stat()["psize"] // 4  # and some that do
    with environment.begin() as transaction, transaction.cursor() as cursor:
        return [key for key, value in cursor if len(value) > in_leaf]


def _put_again(environment: Environment, keys: list[bytes]) -> None:
    for at in range(0, len(keys), RECORDS_A_TRANSACTION):

        def put(transaction: lmdb.Transaction[bytes], at: int = at) -> None:
            for key in keys[at : at + RECORDS_A_TRANSACTION]:
                value = transaction.get(key)
                if value is not None:  # else it was deleted meanwhile
                    transaction.put(key, bytes(value))

        _write(environment, put)


def _fill(environment: Environment) -> None:
    """Use all free pages once, for zeros, and give them back."""
    stat, info = environment.env.stat(), environment.env.info()
    used = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    free = info["last_pgno"] + 1 - used
    zeros = bytes(stat["psize"] - 16)  # with its head, a page of its own
    batches = 2 + free // RECORDS_A_TRANSACTION
    for batch in range(batches):

        def put(transaction: lmdb.Transaction[bytes], batch: int = batch) -> None:
            for number in range(RECORDS_A_TRANSACTION):
                transaction.put(_filler(batch, number), zeros)

        _write(environment, put)
    for batch in range(batches):

        def delete(transaction: lmdb.Transaction[bytes], batch: int = batch) -> None:
            for number in range(RECORDS_A_TRANSACTION):
                transaction.delete(_filler(batch, number))

        _write(environment, delete)


def _write(environment: Environment, work: Callable[[lmdb.Transaction[bytes]], None]) -> None:
    while True:
        try:
            with environment.write() as transaction:
                work(transaction)
            return
        except lmdb.MapFullError:
            if not environment.grow(MAP_BYTES_MAX):
                raise


def _filler(batch: int, number: int) -> bytes:
    return FILLER + batch.to_bytes(4, "big") + number.to_bytes(4, "big")


def _page(file: Path, number: int, size: int) -> bytes:
    with file.open("rb") as handle:
        handle.seek(number * size)
        return handle.read(size)


def _first_key(page: bytes) -> bytes:
    """Return the key of the first node of a leaf; empty where the page is none, or was never one."""
    if len(page) < _HEAD.size + 2:
        return b""
    _, _, flags, lower, _ = _HEAD.unpack_from(page)
    if not flags & _LEAF or lower <= _HEAD.size:
        return b""
    at = int.from_bytes(page[_HEAD.size : _HEAD.size + 2], "little")
    if at + _NODE.size > len(page):
        return b""
    size = _NODE.unpack_from(page, at)[3]
    return page[at + _NODE.size : at + _NODE.size + size]
