"""Assigners of experiments as their YAML says them, and how even a split must be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from features.common.timestamps import parse_moment
from features.config.experiments import ExperimentsFile
from features.config.features_file import FeaturesFile
from features.config.policies import PoliciesFile
from features.workspace.experiments import read_experiments
from features.workspace.rulebook import read_rules
from serving.assignment.assignment import Assigner, Assignment, StickyArm, Units

NOW = parse_moment("2026-11-22T12:00:00Z")
FEATURES = msgspec.convert({"context": {"channel": {"dtype": "category"}}}, FeaturesFile)
BOOK = read_rules(PoliciesFile(), FEATURES, "EUR")
ARMS = {"control": {}, "treatment": {}}
SIGMAS = 5.0
"""A bound that an even split leaves once in two million times; the hashes are fixed, so that a test that passes once
always does.
"""


def assigner(experiments: Mapping[str, Any], **more: Any) -> Assigner:
    """Of experiments that run, unless they say otherwise."""
    given_ = {key: {"status": "running", "arms": ARMS} | entry for key, entry in experiments.items()}
    return Assigner.of(read_experiments(msgspec.convert({"experiments": given_} | more, ExperimentsFile), BOOK))


def everybody(key: str) -> bool:
    """All are targeted."""
    return True


def ask(asked: Assigner, unit: str = "1042", kept: Mapping[str, StickyArm] | None = None, now: int = NOW) -> Assignment:
    """What the only experiment says to a customer."""
    (found,) = asked.assign(Units(unit), everybody, now, kept or {}).assignments
    return found


def within(count: int, of: int, share: float) -> bool:
    """Whether a count is what a share allows."""
    return abs(count - of * share) <= SIGMAS * math.sqrt(of * share * (1 - share))
