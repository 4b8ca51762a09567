"""Checks of experiments.yaml: every name exists, splits are whole, namespaces do not overlap, an arm changes only what
it may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from features.bucketing.hashing import EPPO_SHARDS, OPTIMIZELY_BUCKETS, STATSIG_BUCKETS, STATSIG_EXPERIMENT_BUCKETS
from features.bucketing.splits import (
    LAUNCHDARKLY_WEIGHTS,
    UNLEASH_PERCENT,
    UNLEASH_WEIGHT_SUM_MAX,
    WEIGHT_SUM_MAX,
    WEIGHT_SUM_MIN,
    Range,
)
from features.common.timestamps import duration_seconds, parse_moment
from features.config.documents import Document
from features.config.experiments import (
    STEP_PARTS,
    Arm,
    Changes,
    Experiment,
    ExperimentsFile,
    Goals,
    PlacementChange,
    Ramp,
)
from features.config.faults import Fault, Path
from features.workspace.experiments import HASH_WORDS, WITHOUT_RANGES, expression_problems, overlapping, weights_of
from features.workspace.ramps import control_of
from features.workspace.rulebook import read_rules
from features.workspace.variants import VARIANTS_MAX, count
from features.workspace.workspace import Workspace

WORDS = ("seed", "encoding", "salt", "traffic_salt", "rule", "group", "parent", "flag")
COVERAGE_BUCKETS = {
    "eppo": EPPO_SHARDS,
    "unleash": UNLEASH_PERCENT,
    "optimizely": OPTIMIZELY_BUCKETS,
    "statsig": STATSIG_BUCKETS,
    "statsig-experiment": STATSIG_EXPERIMENT_BUCKETS,
}
"""In how many parts a tool counts its coverage; GrowthBook compares doubles, LaunchDarkly's weights are checked."""
ROUNDING = 1e-6
"""How far a part may be from a whole number of buckets: what doubles lose."""

Check = Callable[[Workspace, Document, ExperimentsFile], Iterable[Fault]]


def faults_of_experiments(workspace: Workspace, document: Document, file: ExperimentsFile) -> list[Fault]:
    """Return all faults of a well-formed experiments.yaml, beside the other files of its workspace."""
    return [fault for check in EXPERIMENT_CHECKS for fault in check(workspace, document, file)]


def algorithms(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """Each experiment says what its algorithm takes, and nothing of another's."""
    for key, entry in file.experiments.items():
        path: Path = ("experiments", key)
        takes = HASH_WORDS[entry.hash]
        for word in WORDS:
            if word not in takes and getattr(entry, word) not in (None, "utf-8"):
                got = f"`{word}`, which `{entry.hash}` does not take"
                yield document.fault(
                    (*path, word), f"{' and '.join(takes)} at most", got, "Remove it, or name another `hash`."
                )
        if "seed" in takes and entry.seed is not None and isinstance(entry.seed, int) != (entry.hash == "launchdarkly"):
            expected, remedy = (
                ("a whole number", "") if entry.hash == "launchdarkly" else ("a text", "Put it in quotes.")
            )
            yield document.fault((*path, "seed"), expected, f"`{entry.seed}`", remedy)
        if entry.min_bucket_version > entry.bucket_version:
            remedy = "With it nobody would be in the experiment for good."
            yield document.fault(
                (*path, "min_bucket_version"), "at most `bucket_version`", str(entry.min_bucket_version), remedy
            )


def arms(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """Weights or ranges of arms make a split; at most one arm is the control."""
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
            yield from _weights(document, path, entry, given)
        yield from _coverage(document, ("experiments", key, "coverage"), entry)


def _ranges(document: Document, path: Path, entry: Experiment) -> Iterable[Fault]:
    """Ranges of all arms, without weights and without the holes of a coverage."""
    if entry.hash in WITHOUT_RANGES:
        remedy = "Say it by weights, as the tool does."
        yield document.fault(path, f"weights: `{entry.hash}` knows no ranges", "`ranges`", remedy)
        return
    if entry.coverage != 1 and entry.hash != "eppo":
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


def _weights(document: Document, path: Path, entry: Experiment, given: Sequence[Arm]) -> Iterable[Fault]:
    weights, total = weights_of(given), sum(weights_of(given))
    if entry.hash == "unleash":
        for name, arm in entry.arms.items():
            if arm.weight is not None and arm.weight != round(arm.weight):
                yield document.fault(
                    (*path, name, "weight"),
                    "a whole number: Unleash's weights are",
                    f"{arm.weight}",
                    "For example 500.",
                )
        if not (given[0].weight is None or 1 <= total <= UNLEASH_WEIGHT_SUM_MAX):
            yield document.fault(
                path, f"weights that add up to 1 at least and {UNLEASH_WEIGHT_SUM_MAX} at most", f"{total:g}"
            )
    elif entry.hash.startswith("growthbook"):
        if not WEIGHT_SUM_MIN <= total <= WEIGHT_SUM_MAX:
            remedy = "GrowthBook would split equally without a word."
            yield document.fault(path, "weights that add up to 1", f"{total:g}", remedy)
    elif abs(total - 1) > ROUNDING:
        yield document.fault(path, "weights that add up to 1", f"{total:g}", "For example 0.5 and 0.5.")
    elif entry.hash == "launchdarkly" and given[0].weight is not None:
        finer = [weight for weight in weights if not _whole(weight * entry.coverage, LAUNCHDARKLY_WEIGHTS)]
        if finer:
            got = f"{finer[0] * entry.coverage:g} with the coverage"
            remedy = "LaunchDarkly's weights are whole numbers of 100,000."
            yield document.fault(path, "weights of at most 5 digits after the point", got, remedy)


def _coverage(document: Document, path: Path, entry: Experiment) -> Iterable[Fault]:
    buckets = COVERAGE_BUCKETS.get(entry.hash)
    if buckets is not None and not _whole(entry.coverage, buckets):
        expected = f"a whole number of {buckets:,} parts: `{entry.hash}` counts so"
        yield document.fault(path, expected, f"{entry.coverage:g}", "For example 0.25.")


def _whole(part: float, of: int) -> bool:
    return abs(part * of - round(part * of)) <= ROUNDING * of


def ramps(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """A ramp has two arms without a split of their own, steps that rise, and windows that close before the next
    step.
    """
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
        if not _whole(share, STEP_PARTS):
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


def moments(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """Start and end are moments that the calendar has, in this order."""
    for key, entry in file.experiments.items():
        found: list[int] = []
        for name, text in (("start", entry.start), ("end", entry.end)):
            if text is None:
                continue
            try:
                found.append(parse_moment(text))
            except (ValueError, OverflowError):
                remedy = "For example 2026-11-22 or 2026-11-22T09:30:00Z."
                yield document.fault(("experiments", key, name), "a moment that the calendar has", f"`{text}`", remedy)
        if len(found) == 2 and found[0] >= found[1]:
            yield document.fault(
                ("experiments", key, "end"), "a moment after start", f"`{entry.end}`", "The end is not part of it."
            )


def units(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """The account's column is a category of customer or context; it is there where an experiment wants it."""
    features = workspace.features
    known = [f"customer.{name}" for name, one in features.customer.attributes.items() if one.dtype == "category"]
    known += [f"context.{name}" for name, column in features.context.items() if column.dtype == "category"]
    if file.account is not None and file.account not in known:
        yield document.unknown(("account",), "a category of customer or context", file.account, known)
    for key, entry in file.experiments.items():
        if entry.unit == "account" and file.account is None:
            remedy = "For example `account: customer.household` at the top of the file."
            yield document.fault(
                ("experiments", key, "unit"), "a unit that the file knows", "`account`, without its column", remedy
            )
    if file.holdout is not None and file.control_groups is not None and file.holdout.salt == file.control_groups.salt:
        remedy = "Another salt for one of them: drawn alike, the holdout takes the units of the first groups away."
        yield document.fault(
            ("control_groups",), "another salt than that of `holdout`", f"`{file.holdout.salt}`", remedy
        )
    shares = 0.0 if file.control_groups is None else sum(file.control_groups.shares)
    if shares > 1 + ROUNDING:
        yield document.fault(
            ("control_groups",), "shares that add up to at most 1", f"{shares:g}", "A customer is in one group at most."
        )


def namespaces(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """Experiments of a namespace have ranges apart and one unit; those that were stopped count no more."""
    members: dict[str, list[tuple[str, Experiment, Range]]] = {}
    for key, entry in file.experiments.items():
        if entry.namespace is None:
            continue
        start, end = entry.namespace.range
        if start >= end:
            path: Path = ("experiments", key, "namespace", "range")
            yield document.fault(
                path, "a range that begins before it ends", f"[{start:g}, {end:g}]", "For example [0, 0.5]."
            )
        elif entry.status != "stopped":
            members.setdefault(entry.namespace.name, []).append((key, entry, (start, end)))
    for name, listed in members.items():
        for one, other in overlapping((where, key) for key, _, where in listed):
            remedy = "Experiments of one namespace exclude each other; give each a range of its own."
            expected = f"a range of `{name}` apart from that of `{other}`"
            yield document.fault(("experiments", one, "namespace", "range"), expected, "an overlap", remedy)
        for (_, before, _), (key, entry, _) in pairwise(listed):
            for what in ("unit", "encoding"):
                if getattr(before, what) != getattr(entry, what):
                    remedy = "Otherwise they would not exclude each other."
                    got = f"`{getattr(entry, what)}` and `{getattr(before, what)}`"
                    yield document.fault(
                        ("experiments", key, what), f"one {what} in the namespace `{name}`", got, remedy
                    )


def expressions(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """Targeting and formulas read, and speak of what is declared."""
    book = read_rules(workspace.policies, workspace.features, workspace.settings.currency)
    for path, problem in expression_problems(file, book):
        place = (
            f", at line {problem.line}, column {problem.column} of the expression"
            if problem.column > 1 or problem.line > 1
            else ""
        )
        yield document.fault(path, problem.expected, problem.got + place, problem.remedy)


def changes(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """What arms change is there to be changed."""
    for key, entry in file.experiments.items():
        for name, arm in entry.arms.items():
            yield from _changes(workspace, document, ("experiments", key, "arms", name, "changes"), arm.changes)


def _changes(workspace: Workspace, document: Document, path: Path, change: Changes) -> Iterable[Fault]:
    policies = workspace.policies
    if change.rules is not None:
        for at, rule in enumerate(change.rules.off):
            place = (*path, "rules", "off", at)
            if rule not in policies.rules:
                yield document.unknown(place, "a rule of policies.yaml", rule, policies.rules)
            elif policies.rules[rule].stage == "eligibility":
                remedy = (
                    "What law and contract ask for is no matter of an experiment; give the rule another stage if it is"
                    " none of that."
                )
                yield document.fault(place, "a rule of another stage than eligibility", f"`{rule}`", remedy)
    if change.arbitration is not None:
        place, ours = (*path, "arbitration"), change.arbitration
        for weight in ours.weights:
            if weight not in policies.arbitration.weights:
                yield document.unknown(
                    (*place, "weights", weight), "a weight of policies.yaml", weight, policies.arbitration.weights
                )
        kinds = policies.arbitration.worth
        for kind in ours.worth:
            if kind not in kinds:
                yield document.unknown((*place, "worth", kind), "a kind of value of policies.yaml", kind, kinds)
        yield from _known(
            document,
            {(*place, "groups", group): group for group in ours.groups},
            "a group that some offer has",
            _groups(workspace),
        )
        yield from _known(
            document, {(*place, "offers", offer): offer for offer in ours.offers}, "an offer", _offers(workspace)
        )
    for name, placement in change.placements.items():
        if name in workspace.offers.placements:
            yield from _placement(workspace, document, (*path, "placements", name), placement)
        else:
            yield document.unknown(
                (*path, "placements", name), "a declared placement", name, workspace.offers.placements
            )


def _placement(workspace: Workspace, document: Document, path: Path, change: PlacementChange) -> Iterable[Fault]:
    groups = {(*path, "groups", at): group for at, group in enumerate(change.groups or ())}
    fallback = {(*path, "fallback", at): offer for at, offer in enumerate(change.fallback or ())}
    yield from _known(document, groups, "a group that some offer has", _groups(workspace))
    yield from _known(document, fallback, "an offer", _offers(workspace))


def _known(document: Document, places: dict[Path, str], expected: str, known: set[str] | None) -> Iterable[Fault]:
    for path, name in places.items():
        if known is not None and name not in known:
            yield document.unknown(path, expected, name, known)


def _groups(workspace: Workspace) -> set[str] | None:
    """Groups of offers; None where a table may bring others."""
    return {offer.group for offer in workspace.offers.offers if offer.group} if workspace.offers.group is None else None


def _offers(workspace: Workspace) -> set[str] | None:
    """Offers by id; None where a table may bring others."""
    return {offer.offer_id for offer in workspace.offers.offers} if workspace.settings.sources.offers is None else None


def variants(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """Arms of different experiments meet in one request; each combination that changes something is made ready by every
    server.
    """
    found = count(file)
    if found > VARIANTS_MAX:
        remedy = (
            "Put experiments that change decisions into one namespace, without `sticky`, so that they exclude each"
            " other; or stop some."
        )
        yield document.fault(
            ("experiments",), f"at most {VARIANTS_MAX} combinations of arms that change something", f"{found}", remedy
        )


def goals(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """A number has one bound."""
    places: list[tuple[Path, Goals]] = [(("goals",), file.goals)]
    places += [
        (("experiments", key, "goals"), entry.goals)
        for key, entry in file.experiments.items()
        if entry.goals is not None
    ]
    for path, one in places:
        for name in one.__struct_fields__:
            option = getattr(one, name)
            if option is not None and (option.cap is None) == (option.winsorize is None):
                got = "neither" if option.cap is None else "both"
                yield document.fault((*path, name), "`cap` or `winsorize`", got, "For example {winsorize: 0.99}.")


EXPERIMENT_CHECKS: tuple[Check, ...] = (
    algorithms,
    arms,
    ramps,
    moments,
    units,
    namespaces,
    expressions,
    changes,
    variants,
    goals,
)
