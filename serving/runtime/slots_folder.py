"""Where the files of metrics live."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path


def memory_directory(data_directory: Path) -> Path:
    """Return where the slots of the service with this data directory live: on /dev/shm where there is one, else within
    it.

    Raises RuntimeError when the place on /dev/shm belongs to someone else.
    """
    shared = Path("/dev/shm")  # noqa: S108 (a private directory in it, whose owner is checked)
    if not os.access(shared, os.W_OK):
        return data_directory / "metrics"
    digest = hashlib.sha256(os.fsencode(data_directory.resolve())).hexdigest()[:16]
    place = shared / f"opportune-{os.geteuid()}-{digest}"
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise RuntimeError(f"{place}: expected a directory of this user: remove it")
    return place
