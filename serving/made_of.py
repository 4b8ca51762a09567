"""What a loaded state was made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MadeOf:
    """What a state is made of: when any of it changes, it is made again."""

    bundle: str
    manifest: int
    catalogue: int
    everyone: tuple[float, ...]
    turn: int
    config: str
