"""Files that cannot be read as the table they should be."""

from __future__ import annotations

from features.common.errors import Failure


class BadTable(Failure):
    """A file that cannot be read as the table it should be; says the table, the file, where known its line, and the way
    out.
    """


class BadFile(Exception):
    """What is wrong within one file; whoever knows the table makes a `BadTable` of it.

    Args:
        told: what was expected, what came, and the way out.
        line: from 1; None where the fault is of the whole file.
        column: as the file's header calls it.
    """

    def __init__(self, told: str, line: int | None = None, column: str | None = None) -> None:
        place = "" if line is None else f"line {line:,}"
        place += f"{', ' if place else ''}column `{column}`" if column else ""
        super().__init__(f"{place}: {told}" if place else told)
