"""The Containerfile, read as its instructions: there may be no container engine where the tests run, so its steps are
run without.
"""

from __future__ import annotations

import json
import shlex
from typing import NamedTuple

from tests.environments import ROOT


class Instruction(NamedTuple):
    """One line of the file."""

    stage: int
    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The words of an exec form, or of a line as a shell reads it."""
        text = self.text.partition("CMD ")[2] if self.name == "HEALTHCHECK" else self.text
        return [str(word) for word in json.loads(text)] if text.startswith("[") else shlex.split(text)


def instructions() -> list[Instruction]:
    """Every instruction, with the number of its stage from 1 on."""
    found: list[Instruction] = []
    stage = 0
    for line in (ROOT / "Containerfile").read_text().replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, text = line.partition(" ")
            stage += name == "FROM"
            found.append(Instruction(stage, name, text.strip()))
    return found


def last(name: str) -> Instruction:
    """The instruction of this name that holds in the image."""
    return [one for one in instructions() if one.name == name][-1]
