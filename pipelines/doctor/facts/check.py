"""What a check of `opportune doctor` gives: what it looked at with what it found, or why it could not look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from msgspec import Struct

from features.common.errors import Failure

Severity = Literal["error", "warning"]
"""An error needs somebody now; a warning is worth a look, and does not fail the command."""


class Finding(Struct, frozen=True):
    """Something that is missing or suspicious."""

    check: str
    """The id of the check, which stays the same from version to version; docs/operations.md explains each."""
    severity: Severity
    what: str
    evidence: dict[str, float | str]
    todo: str
    since: str = ""
    """RFC 3339; empty where nobody knows."""


class Seen(NamedTuple):
    """A check that looked. Without findings all is well."""

    what: str
    """What was looked at, with its count: a check that looked at nothing raises `CannotSay` instead."""
    findings: Sequence[Finding] = ()


class CannotSay(Failure):
    """A check had nothing to look at, or could not look for a reason that another check tells."""


def listed(names: Sequence[str], most: int = 10) -> str:
    """Return the first names, separated by commas, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
