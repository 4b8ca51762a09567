"""Which part of the suite a test belongs to, told from what it uses, so that nobody has to keep a list."""

from __future__ import annotations

import pytest

TRAINED, PROCESS, SLOW = "trained", "process", "slow"
STARTERS = frozenset(("Live", "Server", "find_server", "multiprocessing", "subprocess"))
"""Names in a test's module with which it starts processes."""
SECONDS = {SLOW: 15.0, PROCESS: 3.0, TRAINED: 1.0, "": 0.1}
"""What a test of each part takes, roughly: only the order of files depends on it."""


def mark(item: pytest.Item) -> None:
    """Mark a test as `trained` where it uses the trained workspace, and as `process` where its module starts others."""
    if "trained_workspace" in getattr(item, "fixturenames", ()):
        item.add_marker(TRAINED)
    if STARTERS & vars(getattr(item, "module", object)).keys():
        item.add_marker(PROCESS)


def in_order(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests with the files that take longest first, so that no worker begins a long one when the other has
    ended.
    """
    files: dict[object, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    return [item for path in sorted(files, key=lambda path: -sum(map(seconds, files[path]))) for item in files[path]]


def seconds(item: pytest.Item) -> float:
    """Return roughly what a test takes."""
    return next((SECONDS[part] for part in (SLOW, PROCESS, TRAINED) if item.get_closest_marker(part)), SECONDS[""])
