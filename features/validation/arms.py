"""Checks of the arms of experiments.yaml: words of the tool, weights or ranges that make a split, and ramps."""

from __future__ import annotations

from collections.abc import Iterable

from features.bucketing.splits import Range
from features.bucketing.tools import TOOLS, WORDS, is_whole
from features.common.timestamps import duration_seconds
from features.config.documents import Document
from features.config.experiments import STEP_PARTS, Experiment, ExperimentsFile, Ramp
from features.config.faults import Fault, Path
from features.workspace.experiments import cut_of, overlapping
from features.workspace.ramps import control_of
from features.workspace.workspace import Workspace


def algorithms(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """Check that an experiment says words that its tool takes, and none of another tool."""
    for key, entry in file.experiments.items():
        path: Path = ("experiments", key)
        tool = TOOLS[entry.hash]
        for word in WORDS:
            if word not in tool.takes and getattr(entry, word) not in (None, "utf-8"):
                got = f"`{word}`, which `{entry.hash}` does not take"
                yield document.fault(
                    (*path, word), f"{' and '.join(tool.takes)} at most", got, "Remove it, or name another `hash`."
                )
        if "seed" in tool.takes and entry.seed is not None and isinstance(entry.seed, int) != tool.seed_is_number:
            expected, remedy = ("a whole number", "") if tool.seed_is_number else ("a text", "Put it in quotes.")
            yield document.fault((*path, "seed"), expected, f"`{entry.seed}`", remedy)
        if entry.min_bucket_version > entry.bucket_version:
            remedy = "With it nobody would be in the experiment for good."
            yield document.fault(
                (*path, "min_bucket_version"), "at most `bucket_version`", str(entry.min_bucket_version), remedy
            )


def arms(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """Check that weights or ranges of arms make a split, and that at most one arm is the control."""
    for key, entry in file.experiments.items():
        path: Path = ("experiments", key, "arms")
        controls = [name for name, arm in entry.arms.items() if arm.control]
        if len(controls) > 1:
            yield document.fault(
                (*path, controls[1], "control"),
                "one control arm",
                f"{len(controls)}",
                "The others are compared with it.",
            )
        given = list(entry.arms.values())
        if entry.ramp is not None:
            continue  # its arms are `ramps`' matter
        if len(given) < 2:
            yield document.fault(
                path, "two arms at least", str(len(given)), "One of them is the control, which may change nothing."
            )
        elif any(arm.ranges is not None for arm in given):
            yield from _ranges(document, path, entry)
        elif any(arm.weight is None for arm in given) and any(arm.weight is not None for arm in given):
            missing = next(name for name, arm in entry.arms.items() if arm.weight is None)
            yield document.fault(
                (*path, missing), "a weight for each arm, or for none", "none", "Without weights all arms are equal."
            )
        else:
            yield from _weights(document, path, entry)
        yield from _coverage(document, ("experiments", key, "coverage"), entry)


def _ranges(document: Document, path: Path, entry: Experiment) -> Iterable[Fault]:
    """Check ranges: all arms have them, without weights, and without a coverage where the tool leaves holes."""
    if not TOOLS[entry.hash].knows_ranges:
        remedy = "Say it by weights, as the tool does."
        yield document.fault(path, f"weights: `{entry.hash}` knows no ranges", "`ranges`", remedy)
        return
    if entry.coverage != 1 and not TOOLS[entry.hash].covers_ranges:
        remedy = "Leave `coverage` out: ranges say who is covered."
        yield document.fault(path, "ranges, or a coverage", "both", remedy)
    named: list[tuple[Range, str]] = []
    for name, arm in entry.arms.items():
        if arm.weight is not None:
            yield document.fault(
                (*path, name, "weight"), "weights or ranges", "both in one experiment", "Remove the weights."
            )
        for at, (start, end) in enumerate(arm.ranges or ()):
            if start > end:
                yield document.fault(
                    (*path, name, "ranges", at), "a range that begins before it ends", f"[{start}, {end}]"
                )
            named.append(((start, end), name))
    for one, other in overlapping(named):
        remedy = "A bucket has one arm."
        yield document.fault((*path, one, "ranges"), f"ranges apart from those of `{other}`", "an overlap", remedy)
    if all(start >= end for (start, end), _ in named):
        yield document.fault(path, "at least one range that holds a bucket", "none", "For example [[0, 0.5]].")


def _weights(document: Document, path: Path, entry: Experiment) -> Iterable[Fault]:
    names = tuple(entry.arms)
    for fault in TOOLS[entry.hash].weight_faults(cut_of(entry)):
        place = path if fault.arm is None else (*path, names[fault.arm], "weight")
        yield document.fault(place, fault.expected, fault.got, fault.remedy)


def _coverage(document: Document, path: Path, entry: Experiment) -> Iterable[Fault]:
    buckets = TOOLS[entry.hash].coverage_parts
    if buckets is not None and not is_whole(entry.coverage, buckets):
        expected = f"a whole number of {buckets:,} parts: `{entry.hash}` counts so"
        yield document.fault(path, expected, f"{entry.coverage:g}", "For example 0.25.")


def ramps(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """Check that a ramp has two arms without a split of their own, rising steps, and windows shorter than a step."""
    for key, entry in file.experiments.items():
        if entry.ramp is not None:
            yield from _ramp(document, ("experiments", key), entry, entry.ramp)


def _ramp(document: Document, path: Path, entry: Experiment, plan: Ramp) -> Iterable[Fault]:
    if len(entry.arms) != 2:
        yield document.fault((*path, "arms"), "two arms, the control and the one that is ramped", str(len(entry.arms)))
    elif plan.arm not in entry.arms:
        yield document.unknown((*path, "ramp", "arm"), "an arm of the experiment", plan.arm, entry.arms)
    elif plan.arm == control_of(entry):
        remedy = "The first arm is the control unless another says `control: true`."
        yield document.fault((*path, "ramp", "arm"), "another arm than the control", f"`{plan.arm}`", remedy)
    for name, arm in entry.arms.items():
        word = "weight" if arm.weight is not None else "ranges"
        if getattr(arm, word) is not None:
            yield document.fault(
                (*path, "arms", name, word),
                "the shares of `ramp`",
                f"`{word}` too",
                "Remove it: the ramp gives the split.",
            )
    if entry.coverage != 1:
        yield document.fault(
            (*path, "coverage"), "the shares of `ramp`", "`coverage` too", "Remove it: the ramp says who is covered."
        )
    if entry.sticky:
        yield document.fault(
            (*path, "sticky"),
            "no `sticky` beside `ramp`",
            "true",
            "A ramp moves nobody from arm to arm, up to one half.",
        )
    for at, share in enumerate(plan.steps):
        if not is_whole(share, STEP_PARTS):
            expected = f"a whole number of {STEP_PARTS:,} parts: buckets of every hash give no less"
            yield document.fault((*path, "ramp", "steps", at), expected, f"{share:g}", "For example 0.025.")
        if at and share <= plan.steps[at - 1]:
            yield document.fault(
                (*path, "ramp", "steps", at), f"more than {plan.steps[at - 1]:g}", f"{share:g}", "Steps rise."
            )
    hold, window = duration_seconds(plan.hold), duration_seconds(plan.window)
    if window > hold:
        remedy = "Units count when their window is over: make `hold` longer, or `window` shorter."
        yield document.fault((*path, "ramp", "window"), f"at most `hold`, which is {plan.hold}", plan.window, remedy)
    if plan.patience is not None and duration_seconds(plan.patience) <= hold:
        remedy = "Otherwise every step would be rolled back."
        yield document.fault(
            (*path, "ramp", "patience"), f"more than `hold`, which is {plan.hold}", plan.patience, remedy
        )
