"""What is told where a package is absent because the server alone was installed."""

from __future__ import annotations

from features.common.release import FULL, SERVER, installed


def is_server_alone() -> bool:
    """Return whether the distribution that only serves is installed."""
    found = installed()
    return found is not None and found[0] == SERVER


def told(error: ModuleNotFoundError) -> str:
    """Return what is told of a module that is absent: what it is for, and what to install."""
    return (
        f"expected the package `{(error.name or '?').partition('.')[0]}`, which `{SERVER}` leaves out: it serves what"
        f" was published, and nothing else. Install `{FULL}` in its place to import, train, publish and evaluate"
    )
