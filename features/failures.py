"""What can be expected to go wrong, said so that a person can act on it."""

from __future__ import annotations


class Failure(Exception):
    """Base of the errors whose text is meant for people: what was expected, what came, where, and the way out.

    The command line prints the text and ends with a status that is not zero; anything else is a fault of the program and
    shows where it happened.
    """
