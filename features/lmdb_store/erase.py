"""Removing a customer from the embedded store for good: the record, and what LMDB leaves of it in pages that it no
longer uses.

LMDB writes every change to new pages; the old ones keep their bytes until they are used again. So the record is deleted
at once, which every worker sees at its next read, and then what is live is copied into a new generation that is swapped
in; the old files go.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from features.columns.rows import CUSTOMER_JOIN_KEY, StoreUnavailable
from features.common.files import sync
from features.lmdb_store.engine import CHECK_SECONDS
from features.lmdb_store.environment import (
    Environment,
    attach,
    attach_folder,
    current,
    failing,
    new_generation,
    publish,
)
from features.lmdb_store.record import entity_key

COPY_RECORDS = 20_000
"""Records a transaction of a copy: each is made durable."""


def exists(root: Path, customer_id: str) -> bool:
    """Return whether the store has a record of a customer; a store that was never made has none.

    Raises:
        StoreUnavailable: the store is damaged.
    """
    key = entity_key(CUSTOMER_JOIN_KEY, customer_id)
    if key is None or not current(root):
        return False
    environment = attach(root)
    try:
        with failing("read the online store"), environment.begin() as transaction:
            return transaction.get(key) is not None
    finally:
        environment.release()


def delete(root: Path, customer_id: str) -> bool:
    """Deletes a customer's record, durably; whether there was one.

    Raises:
        StoreUnavailable: the store is damaged, or the disk refuses.
    """
    key = entity_key(CUSTOMER_JOIN_KEY, customer_id)
    if key is None or not current(root):
        return False
    environment = attach(root)
    try:
        with failing("delete from the online store"), environment.write() as transaction:
            return transaction.delete(key)
    finally:
        environment.release()


def compact(root: Path) -> None:
    """Copies what is live into a new generation, swaps it in, and removes all others: no page holds anything that was
    deleted.

    Needs as much space on the disk as the store has. Writers of other processes wait meanwhile; one that had opened the
    old generation and waits for it would write into what is removed, so only one process may bring rows
    (`pipelines/steps.alone`).

    Raises:
        StoreUnavailable: the store is damaged, or the disk refuses; then the old generation serves on.
    """
    if not current(root):
        return
    name = new_generation(root)
    environment = attach(root)
    try:
        with (
            failing("compact the online store"),
            environment.write(),
        ):  # held, so that nothing is written behind the copy
            _copy(environment, root / name)
            publish(root, name)
    except StoreUnavailable:
        shutil.rmtree(root / name, ignore_errors=True)
        raise
    finally:
        environment.release()
    drop_others(root)


def drop_others(root: Path) -> None:
    """Removes the generations before the one in use, once whoever had just read their name has opened them."""
    name = current(root)
    others = [folder for folder in root.glob("g-*") if name and folder.name != name]
    if others:
        time.sleep(2 * CHECK_SECONDS)
        for folder in others:
            shutil.rmtree(folder, ignore_errors=True)
        sync(root)


def _copy(source: Environment, folder: Path) -> None:
    """Records one by one: a copy of pages, LMDB's own compacting one too, brings along what stands behind large
    values.
    """
    target = attach_folder(folder.resolve(), source.env.info()["map_size"])
    try:
        with source.begin() as reading, reading.cursor() as cursor:
            more = cursor.first()
            while more:
                with target.write() as transaction, transaction.cursor() as copy:
                    for _ in range(COPY_RECORDS):
                        copy.put(cursor.key(), cursor.value(), append=True)
                        more = cursor.next()
                        if not more:
                            break
    finally:
        target.release()
    sync(folder)
