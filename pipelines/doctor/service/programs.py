"""Checks of what is installed: Python, the packages beside what they ask for and beside the lock, native libraries, the
port.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from features.common.files import ROOT
from pipelines.deploy.requirements import LOCK, read_lock
from pipelines.doctor.facts.check import CannotSay, Finding, Seen, listed
from pipelines.doctor.facts.gather import Facts
from pipelines.materialize.damage import servers_run

OURS = "opportune"
NAMED_MAX = 8


def python_version(facts: Facts) -> Seen:
    """The Python that runs is none of those that are supported."""
    try:
        wanted = importlib.metadata.metadata(OURS)["Requires-Python"]
    except importlib.metadata.PackageNotFoundError:
        raise CannotSay("the package opportune is not installed: it runs from its folder") from None
    if not wanted:
        raise CannotSay("the package says nothing of Python")
    here = platform.python_version()
    if SpecifierSet(wanted).contains(here, prereleases=True):
        return Seen(f"Python {here}, wanted {wanted}")
    evidence: dict[str, float | str] = {"python": here, "wanted": wanted}
    todo = "Make the environment again with a Python that is supported: `make env PYTHON=python3.12`."
    return Seen(
        "the version of Python", [Finding("python_version", "error", "this Python is not supported", evidence, todo)]
    )


def packages(facts: Facts) -> Seen:
    """Packages are missing, or have versions that whoever needs them does not take."""
    wrong, looked = list[str](), 0
    for needed_by, wanted in _needed():
        looked += 1
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing ({needed_by})")
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            wrong.append(f"{wanted.name} {version}, {needed_by} wants {wanted.specifier}")
    if not looked:
        raise CannotSay("the package opportune is not installed: nobody says what it needs")
    seen = f"{looked} requirements"
    if not wrong:
        return Seen(seen)
    todo = (
        "Make the environment again from the lock (`make env`), or install the package again: `pip install"
        " --force-reinstall opportune`."
    )
    what = f"packages are missing or have other versions than are wanted: {listed(wrong, NAMED_MAX)}"
    return Seen(seen, [Finding("packages", "error", what, {"requirements": looked, "wrong": len(wrong)}, todo)])


def _needed() -> Iterator[tuple[str, Requirement]]:
    """Yield each requirement that holds here, of ours and of what they need in turn, with the name of who has it."""
    done, waiting = set[tuple[str, frozenset[str]]](), [(OURS, frozenset[str]())]
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in done:
            continue
        done.add((name, extras))
        try:
            texts = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # told where it was asked for
        for text in texts:
            with contextlib.suppress(InvalidRequirement):
                wanted = Requirement(text)
                marker = wanted.marker
                if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
                    yield name, wanted
                    waiting.append((canonicalize_name(wanted.name), frozenset(wanted.extras)))


def packages_locked(facts: Facts) -> Seen:
    """Packages have other versions than the lock beside the code."""
    lock = ROOT / LOCK
    if not lock.exists():
        raise CannotSay("there is no lock beside the code: it was installed as a package")
    pins, other, looked = read_lock(lock.read_text()), list[str](), 0
    for distribution in importlib.metadata.distributions():
        name = canonicalize_name(distribution.metadata["Name"] or "")
        if name in pins:
            looked += 1
            locked = sorted({pin.version for pin in pins[name]})
            if distribution.version not in locked:
                other.append(f"{name} {distribution.version} (locked {', '.join(locked)})")
    if not looked:
        raise CannotSay("no installed package is in the lock")
    if not other:
        return Seen(f"{looked} installed packages that the lock names")
    todo = "Make the environment again from the lock: `make env`. What was tested is the lock."
    what = f"packages have other versions than the lock: {listed(sorted(other), NAMED_MAX)}"
    return Seen(
        "packages", [Finding("packages_locked", "warning", what, {"packages": looked, "other": len(other)}, todo)]
    )


def native_libraries(facts: Facts) -> Seen:
    """LightGBM, which training needs, cannot be loaded: mostly the system lacks libgomp."""
    try:
        from training.fitting import fit
    except ModuleNotFoundError as error:
        raise CannotSay(f"{error.name} is not installed: this environment only serves") from None
    except (ImportError, OSError) as error:
        todo = (
            "Install the system's OpenMP library (Debian: `apt-get install libgomp1`; Fedora: `dnf install libgomp`)."
        )
        what = "LightGBM cannot be loaded: `train`, `evaluate` and `publish` fail, serving does not need it"
        return Seen("LightGBM", [Finding("native_libraries", "error", what, {"why": str(error)}, todo)])
    return Seen(f"LightGBM and its OpenMP library, by {fit.__name__}")


def port_taken(facts: Facts) -> Seen:
    """The address that was named is another program's."""
    if facts.url is None:
        raise CannotSay("no server was named: give --url")
    facts.server  # noqa: B018 (says where the address is none)
    parts = urlsplit(facts.url)
    if not facts.server.loopback:
        raise CannotSay("the address is not of this machine's loopback")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    with socket.socket(socket.AF_INET6 if ":" in str(parts.hostname) else socket.AF_INET) as probe:
        probe.settimeout(1)
        listens = probe.connect_ex((str(parts.hostname), port)) == 0
    seen = f"port {port}"
    if not listens or servers_run(facts.workspace):
        return Seen(seen)
    todo = f"See whose it is (`ss -ltnp 'sport = :{port}'`), and start ours on another one: `opportune up --port`."
    what = f"another program listens on port {port}: no server of this workspace runs here"
    return Seen(seen, [Finding("port_taken", "warning", what, {"port": port}, todo)])


CHECKS = (python_version, packages, packages_locked, native_libraries, port_taken)
