"""Ctrl-C and SIGTERM as one exception, which ends a command wherever it is."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(BaseException):
    """Ctrl-C, or SIGTERM: raised wherever the command is, and passed through by everything that ends what it began."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number


_asked: list[int] = []
"""The signals that asked for the end."""


def heed_signals() -> None:
    """Raise `Stopped` from now on when SIGINT or SIGTERM comes, also where the shell that started us in the background
    ignores them.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    _asked.append(number)
    raise Stopped(number)


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` for every error that leaves the block after a signal has come.

    A library in machine code that was interrupted may put an error of its own in place of ours: DuckDB raises
    `RuntimeError("Query interrupted")`.
    """
    try:
        yield
    except Exception as error:
        if not _asked:
            raise
        raise Stopped(_asked[-1]) from error


def ignore_signals() -> None:
    """Ignore further signals: the end has begun and is bounded in time, and another Ctrl-C must not interrupt it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
