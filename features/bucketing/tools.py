"""Every experimentation tool whose split we repeat, a class each. A new one is a class here, named in `TOOLS`.

A tool says which words of an experiment it takes, how it cuts the arms, how it ramps one, and which weights it would
not split as they stand. The hashes are in `hashing.py`, the ways from a bucket to an arm in `splits.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from features.bucketing import hashing, splits
from features.bucketing.hashing import Encoding
from features.bucketing.splits import Range, Split

ROUNDING = 1e-6
"""How far a part may be from a whole number of buckets: what doubles lose."""


@dataclass(frozen=True, slots=True)
class Words:
    """What an experiment says that its tool hashes. None: the key of the experiment, or what the tool puts there."""

    key: str
    seed: str | int | None = None
    encoding: Encoding = "utf-8"
    salt: str | None = None
    traffic_salt: str | None = None
    rule: str | None = None
    group: str | None = None
    parent: str | None = None
    flag: str | None = None

    def or_key(self, word: str | int | None) -> str:
        """Return a word, or the key of the experiment where it is not said."""
        return self.key if word is None else str(word)


WORDS = tuple(field.name for field in fields(Words) if field.name != "key")
"""Words that an experiment may say for its tool."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How an experiment divides its units.

    Attributes:
        weights: of the arms; None for those that say none.
        ranges: of the arms, where any of them says its buckets itself.
        coverage: the part of units that takes part, 0 to 1.
    """

    weights: tuple[float | None, ...]
    ranges: tuple[Sequence[Range], ...] | None = None
    coverage: float = 1.0

    @property
    def shares(self) -> list[float]:
        """Return the weights of all arms; equal ones where none is said."""
        if all(weight is None for weight in self.weights):
            return [1 / len(self.weights)] * len(self.weights)
        return [weight or 0.0 for weight in self.weights]

    def with_holes(self) -> Sequence[Sequence[Range]]:
        """Return the ranges of each arm, with the hole of the coverage after each."""
        return self.ranges or [[cut] for cut in splits.growthbook_ranges(self.shares, self.coverage)]

    def side_by_side(self, coverage: float) -> Sequence[Sequence[Range]]:
        """Return the ranges of each arm, one after the other, with the rest at the end."""
        return self.ranges or [[cut] for cut in splits.side_by_side(self.shares, coverage)]


@dataclass(frozen=True, slots=True)
class WeightFault:
    """Weights that a tool would not split as they stand. `arm` is None where all of them together are wrong."""

    arm: int | None
    expected: str
    got: str
    remedy: str = ""


class Tool:
    """One algorithm of an experimentation tool."""

    name: ClassVar[str]
    """What `hash:` says in experiments.yaml."""
    takes: ClassVar[tuple[str, ...]]
    """Words of an experiment that it hashes: fields of `Words`."""
    seed_is_number: ClassVar[bool] = False
    """Whether `seed` is a whole number; else a text."""
    knows_ranges: ClassVar[bool] = True
    """Whether the tool can give an arm the very buckets; else weights only."""
    covers_ranges: ClassVar[bool] = False
    """Whether a coverage may stand beside ranges, because another hash draws who takes part."""
    coverage_parts: ClassVar[int | None] = None
    """In how many parts it counts its coverage; None: any double will do."""

    def split(self, words: Words, cut: Cut) -> Split:
        """Return the split as the tool would cut it."""
        raise NotImplementedError

    def ramped(self, words: Words, ranges: Sequence[Sequence[Range]]) -> Split:
        """Return the split by the ranges of a ramp, over the buckets of the tool's own hash.

        A tool that knows weights only has this split with a third variant, of nobody, between the two.
        """
        raise NotImplementedError

    def weight_faults(self, cut: Cut) -> Iterator[WeightFault]:
        """Yield what is wrong with weights that are said for all arms or for none."""
        total = sum(cut.shares)
        if abs(total - 1) > ROUNDING:
            yield WeightFault(None, "weights that add up to 1", f"{total:g}", "For example 0.5 and 0.5.")


def is_whole(part: float, of: int) -> bool:
    """Return whether a part is a whole number of so many buckets."""
    return abs(part * of - round(part * of)) <= ROUNDING * of


class _GrowthBook(Tool):
    takes = ("seed", "encoding")
    version: ClassVar[int]

    def split(self, words: Words, cut: Cut) -> Split:
        return splits.growthbook(self.version, words.or_key(words.seed), cut.with_holes(), words.encoding)

    def weight_faults(self, cut: Cut) -> Iterator[WeightFault]:
        total = sum(cut.shares)
        if not splits.WEIGHT_SUM_MIN <= total <= splits.WEIGHT_SUM_MAX:
            remedy = "GrowthBook would split equally without a word."
            yield WeightFault(None, "weights that add up to 1", f"{total:g}", remedy)


class GrowthBookV2(_GrowthBook):
    """GrowthBook, hash version 2."""

    name, version = "growthbook-v2", 2

    def ramped(self, words: Words, ranges: Sequence[Sequence[Range]]) -> Split:
        hash_ = hashing.growthbook_v2(words.or_key(words.seed), words.encoding)
        return splits.by_ends(hash_, hashing.GROWTHBOOK_V2_BUCKETS, ranges)


class GrowthBookV1(_GrowthBook):
    """GrowthBook, hash version 1."""

    name, version = "growthbook-v1", 1

    def ramped(self, words: Words, ranges: Sequence[Sequence[Range]]) -> Split:
        hash_ = hashing.growthbook_v1(words.or_key(words.seed), words.encoding)
        return splits.by_ends(hash_, hashing.GROWTHBOOK_V1_BUCKETS, ranges)


class Eppo(Tool):
    """Eppo: one hash draws who takes part, another which arm."""

    name, takes = "eppo", ("salt", "traffic_salt")
    covers_ranges = True
    coverage_parts = hashing.EPPO_SHARDS

    def split(self, words: Words, cut: Cut) -> Split:
        salt = words.or_key(words.salt)
        traffic = f"{salt}-traffic" if words.traffic_salt is None else words.traffic_salt
        return splits.eppo(salt, traffic, cut.side_by_side(1.0), cut.coverage)

    def ramped(self, words: Words, ranges: Sequence[Sequence[Range]]) -> Split:
        return splits.eppo(words.or_key(words.salt), "", ranges, 1.0)


class Unleash(Tool):
    """Unleash: a gradual rollout, then variants with whole weights."""

    name, takes = "unleash", ("group",)
    knows_ranges = False
    coverage_parts = splits.UNLEASH_PERCENT

    def split(self, words: Words, cut: Cut) -> Split:
        equal = all(weight is None for weight in cut.weights)
        whole = [1 if equal else round(weight or 0) for weight in cut.weights]
        return splits.unleash(words.or_key(words.group), whole, cut.coverage)

    def ramped(self, words: Words, ranges: Sequence[Sequence[Range]]) -> Split:
        total = splits.UNLEASH_RAMP_WEIGHTS
        return splits.by_ends(
            hashing.unleash(words.or_key(words.group), total, hashing.UNLEASH_VARIANT_SEED), total, ranges
        )

    def weight_faults(self, cut: Cut) -> Iterator[WeightFault]:
        for arm, weight in enumerate(cut.weights):
            if weight is not None and weight != round(weight):
                yield WeightFault(arm, "a whole number: Unleash's weights are", f"{weight}", "For example 500.")
        total, most = sum(cut.shares), splits.UNLEASH_WEIGHT_SUM_MAX
        if not (cut.weights[0] is None or 1 <= total <= most):
            yield WeightFault(None, f"weights that add up to 1 at least and {most} at most", f"{total:g}")


class Optimizely(Tool):
    """Optimizely's traffic allocation."""

    name, takes = "optimizely", ("parent",)
    coverage_parts = hashing.OPTIMIZELY_BUCKETS

    def split(self, words: Words, cut: Cut) -> Split:
        return self.ramped(words, cut.side_by_side(cut.coverage))

    def ramped(self, words: Words, ranges: Sequence[Sequence[Range]]) -> Split:
        return splits.optimizely(words.or_key(words.parent), ranges)


class Statsig(Tool):
    """The rule of a Statsig gate."""

    name, takes = "statsig", ("salt", "rule")
    coverage_parts = hashing.STATSIG_BUCKETS

    def split(self, words: Words, cut: Cut) -> Split:
        return self.ramped(words, cut.side_by_side(cut.coverage))

    def ramped(self, words: Words, ranges: Sequence[Sequence[Range]]) -> Split:
        return splits.statsig(words.or_key(words.salt), words.or_key(words.rule), ranges)


class StatsigExperiment(Tool):
    """The groups of a Statsig experiment."""

    name, takes = "statsig-experiment", ("salt",)
    coverage_parts = hashing.STATSIG_EXPERIMENT_BUCKETS

    def split(self, words: Words, cut: Cut) -> Split:
        return self.ramped(words, cut.side_by_side(cut.coverage))

    def ramped(self, words: Words, ranges: Sequence[Sequence[Range]]) -> Split:
        return splits.statsig_experiment(words.or_key(words.salt), ranges)


class LaunchDarkly(Tool):
    """LaunchDarkly's rollout: weights of 100,000, added up as doubles."""

    name, takes = "launchdarkly", ("flag", "salt", "seed")
    seed_is_number = True
    knows_ranges = False

    def split(self, words: Words, cut: Cut) -> Split:
        flag, salt, seed = self._words(words)
        return splits.launchdarkly(flag, salt, seed, cut.shares, cut.coverage)

    def ramped(self, words: Words, ranges: Sequence[Sequence[Range]]) -> Split:
        return splits.by_places(hashing.launchdarkly(*self._words(words)), hashing.LAUNCHDARKLY_SCALE, ranges)

    def _words(self, words: Words) -> tuple[str, str, int | None]:
        seed = None if words.seed is None else int(words.seed)
        return words.or_key(words.flag), words.or_key(words.salt), seed

    def weight_faults(self, cut: Cut) -> Iterator[WeightFault]:
        faults = list(super().weight_faults(cut))
        yield from faults
        if not faults and cut.weights[0] is not None:
            parts = [weight * cut.coverage for weight in cut.shares]
            finer = [part for part in parts if not is_whole(part, splits.LAUNCHDARKLY_WEIGHTS)]
            if finer:
                remedy = "LaunchDarkly's weights are whole numbers of 100,000."
                got = f"{finer[0]:g} with the coverage"
                yield WeightFault(None, "weights of at most 5 digits after the point", got, remedy)


_ALL: tuple[Tool, ...] = (
    GrowthBookV2(),
    GrowthBookV1(),
    Eppo(),
    Unleash(),
    Optimizely(),
    Statsig(),
    StatsigExperiment(),
    LaunchDarkly(),
)
TOOLS = {tool.name: tool for tool in _ALL}
"""By name."""
NAMES = tuple(TOOLS)
