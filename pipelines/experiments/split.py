"""Whether an experiment's arms have the units that the split gives them; and if not, what the data say of the cause.

A split that changed is no mismatch: the units of each day are held against the probabilities that were written down on
that day. Days on which it changed are left out of the test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from msgspec import Struct

from pipelines.experiments.cohort import DrawnUnits, Question
from pipelines.experiments.data import BOT_EXPOSURES, DIMENSIONS, OVERLAPPING, Read, Tally
from pipelines.statistics.sample_ratio import MISMATCH_P, mismatch
from pipelines.statistics.summaries import Floats

SEVERAL_SHARE_MAX = 0.01
"""Of units in two arms; beyond it something is wrong with ids or hashing."""
DIMENSION_P = 0.001
CAUSES_MAX = 8


class SplitReport(Struct, frozen=True):
    """The verdict on the split; tuples by arm.

    Attributes:
        units: those that were tested.
        expected: what the split gives each arm of them.
        alarm: P below `MISMATCH_P`; then no other figure can be trusted.
        causes: what the data say; for an alarm the likely causes.
        warnings: what is worth knowing whether there is an alarm or not.
    """

    units: tuple[int, ...]
    expected: tuple[float, ...]
    chi_square: float
    p: float
    alarm: bool
    several: int
    several_share: float
    changed: bool
    causes: tuple[str, ...]
    warnings: tuple[str, ...]


def split_report(read: Read, question: Question, shares: Sequence[float]) -> SplitReport:
    """Test the split.

    Args:
        shares: of the arms, as the file says today; what holds where nobody wrote probabilities down.
    """
    tested, given = _tested(read.drawn, shares)
    counts, expected = held_against(read.drawn, shares)
    found = mismatch(counts, expected)
    splits = {tuple(np.round(of_day, 4)) for of_day in given}
    is_changed = len(splits) > 1 or len(tested) < len(read.drawn)
    total = sum(read.units) + read.several
    share = read.several / total if total else 0.0
    warnings = tuple(_warnings(read, question, share, is_changed, len(read.drawn) - len(tested)))
    causes = tuple(_causes(read, question, counts, expected, share, is_changed))[:CAUSES_MAX] if found.is_alarm else ()
    return SplitReport(
        tuple(int(count) for count in counts),
        tuple(float(one) for one in expected),
        float(found.chi_square),
        float(found.p),
        found.is_alarm,
        read.several,
        share,
        is_changed,
        causes,
        warnings,
    )


def held_against(drawn: Sequence[DrawnUnits], shares: Sequence[float]) -> tuple[Floats, Floats]:
    """Return units by arm and what the split gave each arm of them, over the days on which it did not change; see
    `split_report`.
    """
    tested, given = _tested(drawn, shares)
    counts = np.array([day.units for day in tested], np.float64).reshape(-1, len(shares))
    return np.asarray(counts.sum(0)), np.asarray((given * counts.sum(1, keepdims=True)).sum(0))


def _tested(drawn: Sequence[DrawnUnits], shares: Sequence[float]) -> tuple[list[DrawnUnits], Floats]:
    """Return the days whose split was one all day, all days where none was, and their splits, shape (days, arms)."""
    tested = [day for day in drawn if not day.is_mixed] or list(drawn)
    return tested, np.array([_shares_of(day, shares) for day in tested]).reshape(-1, len(shares))


def _shares_of(day: DrawnUnits, shares: Sequence[float]) -> Floats:
    """Return the split of a day: what was written down; an arm that nobody wrote of, because nobody came, has what the
    others leave.
    """
    known = [probability for probability in day.probabilities if probability is not None]
    if not known:
        return np.asarray(shares, np.float64) / sum(shares)
    unknown = sum(share for share, probability in zip(shares, day.probabilities, strict=True) if probability is None)
    left = max(1 - sum(known), 0.0) / unknown if unknown > 0 else 0.0
    found = np.array(
        [left * share if given is None else given for share, given in zip(shares, day.probabilities, strict=True)]
    )
    return np.asarray(found / found.sum())


def _warnings(read: Read, question: Question, several: float, is_changed: bool, mixed: int) -> Iterator[str]:
    if read.several:
        yield f"{read.several:,} units ({several:.2%}) were seen in two arms and are left out" + (
            ": more than can be left out without harm" if several > SEVERAL_SHARE_MAX else ""
        )
    if is_changed:
        days = f"; {mixed} days on which it changed are not tested" if mixed else ""
        yield (
            f"the split changed over time{days}. Sums over days with different splits mix days with arms: --since takes"
            " the last split alone"
        )
    if read.others:
        yield f"{read.others:,} units were in arms that the experiment no longer has, and are left out"
    for at, arm in enumerate(question.arms):
        if not read.units[at]:
            yield f"the arm {arm} has no units"


def _causes(
    read: Read, question: Question, counts: Floats, expected: Floats, several: float, is_changed: bool
) -> Iterator[str]:
    """Likely causes, the surest first."""
    if several > SEVERAL_SHARE_MAX:
        yield (
            f"{several:.1%} of the units were seen in two arms: their ids change between requests, services hash"
            " differently, or bucket_version was raised. They are left out of both arms, unevenly where the arms are"
            " uneven"
        )
    for dimension in () if is_changed else DIMENSIONS:  # shares of all days together are no measure of a part of them
        yield from _alone(dimension, [tally for tally in read.tallies if tally.dimension == dimension], expected)
    yield from _unheard(read, question)
    if is_changed:
        yield "the split changed: units that were drawn before and exposed after are counted with the later split"
    yield from _short(question, counts, expected)


def _alone(dimension: str, tallies: list[Tally], expected: Floats) -> Iterator[str]:
    """Return the values of a dimension that are off, where the rest of the units is even."""
    if len(tallies) < 2:
        return
    units = np.array([tally.units for tally in tallies], np.float64)
    each = mismatch(units, expected).p
    off = each < DIMENSION_P / len(tallies)
    if not off.any() or off.all() or units[~off].sum() == 0:
        return
    if dimension in OVERLAPPING:  # no sum, which would count a unit more than once: Bonferroni's bound over the values
        p = min(float(each[~off].min()) * int((~off).sum()), 1.0)
    else:
        p = float(mismatch(units[~off].sum(0), expected).p)
    if p < MISMATCH_P:
        return
    named = ", ".join(
        f"{tally.value} ({' : '.join(f'{count:,}' for count in tally.units)})"
        for tally, is_off in zip(tallies, off, strict=True)
        if is_off
    )
    if dimension == "exposures":
        yield (
            f"units that were exposed more than {BOT_EXPOSURES} times are uneven, the rest is even (p = {p:.3f}): bots"
            " or monitoring"
        )
    else:
        yield f"only {dimension} {named} is uneven, the rest is even (p = {p:.3f}): look what is different there"


def _unheard(read: Read, question: Question) -> Iterator[str]:
    """Arms of whose units fewer were ever heard of again."""
    units, heard = np.array(read.units, np.float64), np.array(read.heard, np.float64)
    if not heard.any() or not (units > heard).any():
        return
    if not mismatch(heard, units).p < MISMATCH_P:
        return
    parts = ", ".join(
        f"{arm} {one / max(count, 1):.1%}" for arm, one, count in zip(question.arms, heard, units, strict=True)
    )
    yield (
        f"of some arms fewer units sent any impression or outcome ({parts}): redirects, crashes or lost events in"
        " one arm"
    )


def _short(question: Question, counts: Floats, expected: Floats) -> Iterator[str]:
    """Return the arm that is off, where without it the rest is even; of two arms the one that is short."""
    arms = range(len(question.arms))
    short = min(arms, key=lambda at: counts[at] / expected[at] if expected[at] else np.inf)
    for at in sorted(arms, key=lambda at: at != short):
        others = [other for other in arms if other != at]
        if len(arms) > 2 and mismatch(counts[others], expected[others]).p < MISMATCH_P:
            continue
        change = counts[at] / expected[at] - 1 if expected[at] else np.inf
        what = "missing" if change < 0 else "too many"
        more = "; the other arms are even among themselves" if len(arms) > 2 else ""
        yield (
            f"exposures of {question.arms[at]} are {what}: {change:+.1%} against the split{more}: look where that arm"
            " decides"
        )
        return
