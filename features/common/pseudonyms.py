"""Names that logs, errors and file names may carry in place of a customer's id: a keyed hash, the key in the data
folder.

    <data>/secret      32 random bytes, readable by its owner alone, made at first use

The same id has the same pseudonym as long as the secret stays, so that lines about one customer can be told to belong
together; who does not have the secret cannot try ids.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b
from pathlib import Path

from features.common.files import write_once

SECRET = "secret"  # noqa: S105 - the name of a file
SECRET_BYTES = 32
PSEUDONYM_BYTES = 6


def pseudonym(data: Path, customer_id: str, size_bytes: int = PSEUDONYM_BYTES) -> str:
    """Return the pseudonym of a customer or an anonymous unit: 12 hex digits, unless another size is asked for.

    Args:
        data: the workspace's data folder.
    """
    return blake2b(customer_id.encode("utf-8", "surrogatepass"), key=secret(data), digest_size=size_bytes).hexdigest()


def secret(data: Path) -> bytes:
    """Return the key of this data folder; of several processes that make it at once, one wins and all have its key.

    Raises:
        OSError: it can be neither read nor made.
        ValueError: the file is shorter than a key: cut off, or written by somebody else.
    """
    file = data / SECRET
    try:
        found = file.read_bytes()
    except FileNotFoundError:
        found = _made(file)
    if len(found) < SECRET_BYTES:
        raise ValueError(f"expected {SECRET_BYTES} bytes in {file}, got {len(found)}: remove it, and a new one is made")
    return found[:SECRET_BYTES]


def _made(file: Path) -> bytes:
    write_once(file, secrets.token_bytes(SECRET_BYTES), 0o600)
    return file.read_bytes()
