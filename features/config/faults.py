"""What is wrong in a workspace, said so that it can be mended: where, what was expected, what came, and the way out."""

from __future__ import annotations

from dataclasses import dataclass

from features.common.errors import Failure

Path = tuple[str | int, ...]
"""Keys and positions that lead to a part of a file."""

FAULTS_MAX = 50


def shown(path: Path) -> str:
    """`$.offers[3].name`"""
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a workspace file, and the way out."""

    file: str
    path: str
    expected: str
    got: str
    line: int | None = None
    remedy: str = ""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: at {self.path}: expected {self.expected}, got {self.got}" + (
            f". {self.remedy}" if self.remedy else ""
        )


class BadWorkspace(Failure):
    """A workspace that cannot be used, with every fault that was found."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        super().__init__("\n".join(map(str, faults[:FAULTS_MAX])))
