"""What can be expected to go wrong, said so that a person can act on it."""

from __future__ import annotations

from typing import ClassVar


class Failure(Exception):
    """Base of the errors whose text is meant for people: what was expected, what came, where, and the way out.

    The command line prints the text and ends with `exit_status`, which is not zero; anything else is a fault of the
    program.
    """

    exit_status: ClassVar[int] = 1
