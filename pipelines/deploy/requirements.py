"""What a package of the service asks an installer for: exact versions of all that it needs, with the hashes of the
lock.

The versions are those that are installed here, which is what the service was seen to work with. A distribution that is
not installed here, because another Python or system needs it, comes from the lock with its marker.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from features.common.files import ROOT

LOCK = "requirements.lock"
"""At the root of a checkout; in the folder `pipelines` of an installed package."""

_PIN = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>[^\s;]+)[ ]*(?:;[ ]*(?P<marker>[^\\\n]*?))?[ ]*\\?\n(?P<hashes>(?:[ ]+--hash=\S+["
    r" ]*\\?\n)*)",
    re.M,
)


class Pin(NamedTuple):
    """One line of the lock: a version, for which environments it is, and the hashes of its files."""

    version: str
    marker: str
    hashes: tuple[str, ...]


def lock_file() -> Path | None:
    """Return where the lock lies, or None for an installation without one."""
    return next((place for place in (ROOT / "pipelines" / LOCK, ROOT / LOCK) if place.is_file()), None)


def read_lock(text: str) -> dict[NormalizedName, list[Pin]]:
    """Return the pins of a lock by name; a name has several where environments differ."""
    pins: dict[NormalizedName, list[Pin]] = {}
    for found in _PIN.finditer(text):
        hashes = tuple(re.findall(r"--hash=(\S+)", found["hashes"]))
        pins.setdefault(canonicalize_name(found["name"]), []).append(
            Pin(found["version"], (found["marker"] or "").strip(), hashes)
        )
    return pins


def pinned(wanted: Iterable[str], lock: str) -> str:
    """Return the text of a `requirements.txt` for distributions and all that they need, each with its exact version.

    Args:
        wanted: requirements, for example `bentoml` or `feast[redis]`; they must be installed.
        lock: the text of `requirements.lock`; empty where there is none.

    Returns:
        One requirement a line, by name. With hashes if the lock has them for every version that is installed; an
        installer asks for all hashes or for none.
    """
    locked = read_lock(lock)
    lines: list[tuple[str, tuple[str, ...]]] = []
    for name in sorted(closure(wanted)):
        version, pins = _installed(name), locked.get(name, [])
        if version is not None and version not in {pin.version for pin in pins}:
            pins = [Pin(version, "", ())]
        lines += [(f"{name}=={pin.version}" + (f" ; {pin.marker}" if pin.marker else ""), pin.hashes) for pin in pins]
    hashed = all(hashes for _, hashes in lines)
    return "".join(
        " \\\n    ".join([line, *(f"--hash={one}" for one in hashes if hashed)]) + "\n" for line, hashes in lines
    )


def closure(wanted: Iterable[str]) -> set[NormalizedName]:
    """Return the names of distributions and of all that they need, in any environment that their metadata speak of."""
    seen: set[tuple[NormalizedName, str]] = set()
    waiting = [Requirement(text) for text in wanted]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += _needs(name, extra)
    return {name for name, _ in seen}


def _needs(name: str, extra: str) -> Iterator[Requirement]:
    """Return what a distribution needs, or what one of its extras adds; nothing for one that is not installed."""
    try:
        texts = distribution(name).requires or []
    except PackageNotFoundError:
        return
    for requirement in map(Requirement, texts):
        marker = requirement.marker
        if marker is None or "extra" not in str(marker):
            if not extra:
                yield requirement
        elif extra and marker.evaluate({"extra": extra}):
            yield requirement


def _installed(name: str) -> str | None:
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return None
