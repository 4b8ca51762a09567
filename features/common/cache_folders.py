"""Where libraries keep what they can make again, when neither the code's folder nor the home folder can be written.

numba wants a folder for machine code, and ends the process where it finds none; BentoML, MLflow and matplotlib want a
home folder. Both get one below the workspace's data folder, or below the temporary folder where that cannot be written
either.

numba's cache holds pickles, so whoever writes it can run code. A workspace may come from somebody else: the folder's
name is made of the random id of this start of the machine, which nobody can put into a workspace beforehand.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from features.common.errors import Failure
from features.common.files import ROOT, make_private

NUMBA_VARIABLE = "NUMBA_CACHE_DIR"
COMPILED_PACKAGES = ("features", "serving")
"""Packages with functions that numba compiles."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class NothingWritable(Failure):
    """No folder was found in which libraries may write."""


def settle(data: Path | None) -> None:
    """Set HOME and NUMBA_CACHE_DIR for this process and its children, where the usual folders cannot be written.

    Call it before numba is imported. Where the usual folders can be written, or the environment names others, nothing
    changes.

    Args:
        data: the data folder of the workspace; None where there is none.

    Raises:
        NothingWritable: folders are needed, and none can be made.
    """
    home = _home()
    home_lacks = home is None or not home.is_dir() or not _writable(home)
    if home_lacks:
        os.environ["HOME"] = str(_made(data, "home"))
        for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
            if os.environ.get(name) and not _writable(Path(os.environ[name])):
                del os.environ[name]  # it then lies below the home folder
    if not os.environ.get(NUMBA_VARIABLE) and not all(
        _writable(ROOT / name / "__pycache__") for name in COMPILED_PACKAGES
    ):
        usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        os.environ[NUMBA_VARIABLE] = str(
            _made(data, "numba") if home_lacks or not _writable(usual) else usual / "opportune" / "numba"
        )


def compiled_folder(package: Path) -> Path:
    """Return where numba looks for the machine code of a package's modules, as `numba.core.caching` decides it."""
    given = os.environ.get(NUMBA_VARIABLE)
    if not given:
        return package / "__pycache__"
    digest = hashlib.sha1(str(package.absolute()).encode(), usedforsecurity=False).hexdigest()
    return Path(given) / f"{package.name}_{digest}"


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # HOME is not set, and the user has no entry among the users of the system
        return None


def _writable(folder: Path) -> bool:
    """Return whether files can be made in a folder, or in the nearest one above it that exists: it can be made
    there.
    """
    place = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def _made(data: Path | None, name: str) -> Path:
    """Return a folder of this name that can be written, made if need be."""
    tried = []
    for base in (_below(data), _temporary()):
        if base is None:
            continue
        place = base / name
        tried.append(str(place))
        if _writable(place):
            try:
                if data is not None and base.is_relative_to(data.absolute()):
                    make_private(data)
                base.parent.mkdir(parents=True, exist_ok=True)
                base.mkdir(mode=0o700, exist_ok=True)
                place.mkdir(mode=0o700, exist_ok=True)
            except OSError:
                continue
            return place
    raise NothingWritable(
        "expected a folder that can be written for the files of libraries, got none among"
        f" {', '.join(tried) or tempfile.gettempdir()}: make the workspace's data folder writable, or set HOME and"
        f" {NUMBA_VARIABLE}"
    )


def _below(data: Path | None) -> Path | None:
    """Return a folder of the data folder whose name is known only on this machine; None where the system has no such
    secret.
    """
    if data is None:
        return None
    try:
        secret = _BOOT_ID.read_text()
    except OSError:
        return None
    digest = hashlib.sha256(f"{secret.strip()} {os.geteuid()}".encode()).hexdigest()
    return data.absolute() / "cache" / digest[:32]


def _temporary() -> Path | None:
    """This user's own folder among the temporary ones; another user may have made one of that name."""
    try:
        place = Path(tempfile.gettempdir()) / f"opportune-{os.geteuid()}"
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077:
            return place
        return Path(tempfile.mkdtemp(prefix="opportune-"))
    except OSError:  # no temporary folder, or none that can be written
        return None
