"""A consistent copy of an LMDB environment that others go on using, compacted, made in a process of its own.

    python -m features.lmdb_store.copy FOLDER TARGET

A copy walks the whole tree. One that a power cut has torn may kill whoever walks it (see `verify`): that is then an
answer.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lmdb

from features.columns.rows import CUSTOMER_JOIN_KEY
from features.common.files import ROOT
from features.lmdb_store.environment import CURRENT, DATA, READERS_MAX, ROWS, current, failing

COPY_SECONDS_MAX = 3_600.0
_CUSTOMER = ROWS + CUSTOMER_JOIN_KEY.encode() + b"\0"


def copy_environment(folder: Path, target: Path) -> str:
    """Copy the environment of a folder into another, which is made; why it cannot be copied, or nothing.

    The copy is a snapshot of one moment: all transactions that were committed before it are in it, whole.
    """
    target.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "features.lmdb_store.copy", str(folder.resolve()), str(target.resolve())]
    try:
        told = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=COPY_SECONDS_MAX, check=False)
    except subprocess.TimeoutExpired:
        return f"its copy took longer than {COPY_SECONDS_MAX:g} s"
    if told.returncode == 0:
        return ""
    (target / DATA).unlink(missing_ok=True)
    lines = told.stderr.decode(errors="replace").strip().splitlines()
    return (
        "it is damaged:"
        f" {lines[-1] if told.returncode > 0 and lines else f'its copy ended with status {told.returncode}'}"
    )


def copy_generation(root: Path, target: Path) -> str:
    """Copy the generation in use of an online store; see `copy_environment`."""
    name = current(root)
    if not name or not (root / name / DATA).exists():
        return f"{CURRENT} names no generation that is there"
    wrong = copy_environment(root / name, target / name)
    if not wrong:
        (target / CURRENT).write_text(f"{name}\n")
    return wrong


def customers_in(root: Path) -> int:
    """Count the customers who have a row in the generation in use of an online store that nobody writes; 0 where there
    is none.

    Raises:
        StoreUnavailable: it cannot be read.
    """
    name = current(root)
    return _count(root / name, _CUSTOMER) if name else 0


def records_in(folder: Path) -> int:
    """Count the records of an environment that nobody writes; 0 where there is none."""
    return _count(folder, b"")


def _count(folder: Path, prefix: bytes) -> int:
    if not (folder / DATA).exists():
        return 0
    with (
        failing(f"count the records of {folder}"),
        lmdb.open(str(folder), readonly=True, lock=False) as environment,
        environment.begin() as transaction,
    ):
        if not prefix:
            return int(transaction.stat()["entries"])
        cursor, count = transaction.cursor(), 0
        found = cursor.set_range(prefix)
        while found and cursor.key().startswith(prefix):
            count += 1
            found = cursor.next()
        return count


def main(folder: str, target: str) -> int:
    """Be the process."""
    with lmdb.open(folder, readonly=True, max_readers=READERS_MAX) as environment:
        environment.copy(target, compact=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
