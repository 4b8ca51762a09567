"""How long a store may take to answer a decision."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Deadline:
    """One value that all who ask the stores of a worker share; it follows the workspace's files."""

    seconds: float
