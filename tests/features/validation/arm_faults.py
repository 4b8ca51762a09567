"""Changes that make a fault in the arms, the hash or the ramp of an experiment, each with a part of its message."""

from __future__ import annotations

from typing import Any

OTHER = "experiments.other"
HALF = {"a": {"weight": 0.5}, "b": {"weight": 0.5}}


def other(**more: Any) -> dict[str, Any]:
    """An experiment without a namespace."""
    return {"arms": HALF} | more


def ramped(ramp: dict[str, Any] | None = None, hash: str = "growthbook-v2", **more: Any) -> dict[str, Any]:  # noqa: A002 (the file's word)
    """An experiment whose arm `b` is ramped; what is no key of an experiment is the ramp's."""
    of_entry = {name: more.pop(name) for name in ("arms", "coverage", "sticky", "unit") if name in more}
    return {"arms": {"a": {}, "b": {}}, "hash": hash, "ramp": {"arm": "b"} | more if ramp is None else ramp} | of_entry


ARM_FAULTS: list[tuple[str, Any, str]] = [
    # hashes
    (
        f"{OTHER}.salt",
        "x",
        "$.experiments.other.salt: expected seed and encoding at most, got `salt`, which `growthbook-v2` does not take",
    ),
    (
        OTHER,
        other(hash="eppo", encoding="utf-16"),
        "expected salt and traffic_salt at most, got `encoding`, which `eppo` does not take",
    ),
    (f"{OTHER}.seed", 5, "$.experiments.other.seed: expected a text, got `5`. Put it in quotes."),
    (OTHER, other(hash="launchdarkly", seed="5"), "$.experiments.other.seed: expected a whole number, got `5`"),
    (
        f"{OTHER}.min_bucket_version",
        1,
        "$.experiments.other.min_bucket_version: expected at most `bucket_version`, got 1",
    ),
    # arms
    (f"{OTHER}.arms.a.control", True, "$.experiments.other.arms.b.control: expected one control arm, got 2"),
    (
        f"{OTHER}.arms.b.weight",
        0.5,
        "$.experiments.other.arms.a: expected a weight for each arm, or for none, got none",
    ),
    (
        OTHER,
        other(arms={"a": {"weight": 2}, "b": {"weight": 1}}),
        "$.experiments.other.arms: expected weights that add up to 1, got 3",
    ),
    (OTHER, other(arms={"a": {"weight": 0.995}, "b": {"weight": 0.01}}), ""),
    (
        OTHER,
        other(hash="eppo", arms={"a": {"weight": 0.995}, "b": {"weight": 0.01}}),
        "expected weights that add up to 1, got 1.005",
    ),
    (
        OTHER,
        other(hash="unleash", arms={"a": {"weight": 0.5}, "b": {"weight": 1}}),
        "$.experiments.other.arms.a.weight: expected a whole number",
    ),
    (
        OTHER,
        other(hash="unleash", arms={"a": {"weight": 0}, "b": {"weight": 0}}),
        "expected weights that add up to 1 at least",
    ),
    (OTHER, other(hash="unleash", arms={"a": {"weight": 330}, "b": {"weight": 670}}), ""),
    (
        OTHER,
        other(hash="unleash", arms={"a": {}, "b": {}}, coverage=0.125),
        "$.experiments.other.coverage: expected a whole number of 100 parts",
    ),
    (
        OTHER,
        other(hash="statsig", coverage=0.12345),
        "$.experiments.other.coverage: expected a whole number of 10,000 parts",
    ),
    (OTHER, other(coverage=0.12345), ""),
    (
        OTHER,
        other(hash="launchdarkly", arms={"a": {"weight": 0.333333}, "b": {"weight": 0.666667}}),
        "expected weights of at most 5 digits",
    ),
    (
        OTHER,
        other(arms={"a": {"ranges": [[0, 0.5]]}, "b": {"ranges": [[0.4, 1]]}}),
        "$.experiments.other.arms.b.ranges: expected ranges apart",
    ),
    (
        OTHER,
        other(arms={"a": {"ranges": [[0.5, 0]]}, "b": {"ranges": [[0.6, 1]]}}),
        "arms.a.ranges[0]: expected a range that begins before",
    ),
    (
        OTHER,
        other(arms={"a": {"ranges": [[0, 0]]}, "b": {}}),
        "$.experiments.other.arms: expected at least one range that holds a bucket",
    ),
    (
        OTHER,
        other(arms={"a": {"ranges": [[0, 0.5]]}, "b": {"weight": 1}}),
        "$.experiments.other.arms.b.weight: expected weights or ranges",
    ),
    (
        OTHER,
        other(coverage=0.5, arms={"a": {"ranges": [[0, 0.5]]}, "b": {}}),
        "expected ranges, or a coverage, got both",
    ),
    (
        OTHER,
        other(hash="unleash", arms={"a": {"ranges": [[0, 0.5]]}, "b": {}}),
        "expected weights: `unleash` knows no ranges",
    ),
    # ramps
    (OTHER, ramped(), ""),
    (OTHER, ramped(hash="unleash", unit="account"), ""),
    (OTHER, ramped(ramp={}), "$.experiments.other.ramp: expected the key `arm`, got a mapping without it"),
    (
        OTHER,
        ramped(arms={"a": {}, "b": {}, "c": {}}),
        "$.experiments.other.arms: expected two arms, the control and the one that is ramped",
    ),
    (
        OTHER,
        ramped(ramp={"arm": "c"}),
        "$.experiments.other.ramp.arm: expected an arm of the experiment, got `c`. Declared: a, b.",
    ),
    (
        OTHER,
        ramped(ramp={"arm": "a"}),
        "$.experiments.other.ramp.arm: expected another arm than the control, got `a`. The first arm",
    ),
    (
        OTHER,
        ramped(arms={"a": {}, "b": {"weight": 1}}),
        "$.experiments.other.arms.b.weight: expected the shares of `ramp`, got `weight`",
    ),
    (
        OTHER,
        ramped(arms={"a": {"ranges": [[0, 1]]}, "b": {}}),
        "$.experiments.other.arms.a.ranges: expected the shares of `ramp`",
    ),
    (
        OTHER,
        ramped(coverage=0.5),
        "$.experiments.other.coverage: expected the shares of `ramp`, got `coverage` too. Remove it",
    ),
    (
        OTHER,
        ramped(sticky=True),
        "$.experiments.other.sticky: expected no `sticky` beside `ramp`, got true. A ramp moves nobody",
    ),
    (OTHER, ramped(steps=[0.01, 0.0125]), "$.experiments.other.ramp.steps[1]: expected a whole number of 1,000 parts"),
    (
        OTHER,
        ramped(steps=[0.1, 0.1]),
        "$.experiments.other.ramp.steps[1]: expected more than 0.1, got 0.1. Steps rise.",
    ),
    (OTHER, ramped(steps=[0]), "$.experiments.other.ramp.steps[0]: expected a number > 0"),
    (
        OTHER,
        ramped(window="2d"),
        "$.experiments.other.ramp.window: expected at most `hold`, which is 1d, got 2d. Units count",
    ),
    (
        OTHER,
        ramped(patience="1d"),
        "$.experiments.other.ramp.patience: expected more than `hold`, which is 1d, got 1d.",
    ),
    (OTHER, ramped(patience=None, guardrails={"slow": None, "conversion": 0.02}), ""),
]
