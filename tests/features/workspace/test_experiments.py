"""experiments.yaml: what it may say, each fault with its message and its way out, and how it is read."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from features.common.timestamps import parse_moment
from features.config.documents import BadWorkspace, Document
from features.config.experiments import CONTROL_GROUPS, ControlGroups, ExperimentsFile
from features.validation.experiments import EXPERIMENT_CHECKS, faults_of_experiments
from features.validation.load import load
from features.workspace.experiments import control_groups_of, overlapping, read_experiments
from features.workspace.rulebook import read_rules
from features.workspace.workspace import Workspace

WORKSPACE: dict[str, Any] = {
    "workspace": {"name": "fernruf", "currency": "EUR"},
    "features": {
        "customer": {
            "attributes": {
                "tenure_days": {"dtype": "number", "unit": "days"},
                "household": {"dtype": "category", "model": False},
                "tariff": {"dtype": "category"},
            }
        },
        "offer": {"topic": {"dtype": "category"}},
        "context": {
            "channel": {"dtype": "category", "values": ["app", "web"]},
            "page": {"dtype": "category", "model": False},
        },
    },
    "offers": {
        "placements": {"home": {"limit": 3}, "bill": {"limit": 1}},
        "offers": [
            {"offer_id": "data-5", "group": "sales", "value": 5, "values": {"service": 1}},
            {"offer_id": "repair", "group": "help", "value": 0},
        ],
    },
    "policies": {
        "segments": {"loyal": "customer.tenure_days >= 730", "dear": "offer.value > 3"},
        "rules": {
            "known": {"when": "customer.tenure_days >= 90", "groups": ["sales"]},
            "cheap": {"when": "offer.value < 50", "stage": "suitability"},
        },
        "arbitration": {
            "worth": {"service": 2},
            "weights": {"on_app": {"when": 'context.channel == "app"', "weight": 2}},
        },
    },
    "model": {"name": "accepts", "label": {"outcome": "accepted"}},
}

EXPERIMENTS: dict[str, Any] = {
    "account": "customer.household",
    "holdout": {"share": 0.02, "salt": "2026-h2"},
    "control_groups": {"random_eligible": 0.01, "no_levers": 0.02},
    "experiments": {
        "louder-levers": {
            "description": "Levers twice as loud.",
            "status": "running",
            "unit": "account",
            "start": "2026-11-01",
            "end": "2026-12-01T00:00:00+01:00",
            "coverage": 0.5,
            "sticky": True,
            "bucket_version": 3,
            "min_bucket_version": 2,
            "targeting": 'segment.loyal and context.channel == "app"',
            "namespace": {"name": "levers", "range": [0, 0.5]},
            "arms": {
                "control": {"weight": 0.4},
                "treatment": {
                    "weight": 0.6,
                    "changes": {
                        "model": "challenger",
                        "arbitration": {
                            "formula": "propensity * value * lever",
                            "worth": {"service": 3},
                            "weights": {"on_app": 4},
                            "offers": {"data-5": 1.5},
                            "groups": {"help": 0.5},
                        },
                        "rules": {"off": ["cheap"]},
                        "placements": {"home": {"limit": 2, "groups": ["help"], "fallback": ["repair"]}},
                        "exploration": {"gamma": 100, "floor": 0.05},
                    },
                },
            },
        },
        "other": {
            "namespace": {"name": "levers", "range": [0.5, 1]},
            "unit": "account",
            "arms": {"a": {}, "b": {"control": True}, "c": {}},
        },
    },
}

OTHER = "experiments.other"
LOUDER = "experiments.louder-levers"
CHANGES = f"{LOUDER}.arms.treatment.changes"
HALF = {"a": {"weight": 0.5}, "b": {"weight": 0.5}}


def other(**more: Any) -> dict[str, Any]:
    """An experiment without a namespace."""
    return {"arms": HALF} | more


def ramped(ramp: dict[str, Any] | None = None, hash: str = "growthbook-v2", **more: Any) -> dict[str, Any]:  # noqa: A002 (the file's word)
    """An experiment whose arm `b` is ramped; what is no key of an experiment is the ramp's."""
    of_entry = {name: more.pop(name) for name in ("arms", "coverage", "sticky", "unit") if name in more}
    return {"arms": {"a": {}, "b": {}}, "hash": hash, "ramp": {"arm": "b"} | more if ramp is None else ramp} | of_entry


SHORT: dict[str, Any] = {
    "status": "running",
    "arms": {"plain": {}, "short": {"changes": {"placements": {"home": {"limit": 1}}}}},
}
MANY = {f"short-{number}": SHORT for number in range(7)}

FAULTS: list[tuple[str, Any, str]] = [
    ("goals", {"value": {"cap": 500}, "clicks": {"winsorize": 0.99}}, ""),
    (
        "goals",
        {"value": {}},
        "$.goals.value: expected `cap` or `winsorize`, got neither. For example {winsorize: 0.99}.",
    ),
    ("goals", {"value": {"cap": 0}}, "$.goals.value.cap: expected"),
    ("goals", {"clicks": {"winsorize": 1.0}}, "$.goals.clicks.winsorize: expected"),
    (
        "experiments.other.goals",
        {"value": {"cap": 5, "winsorize": 0.9}},
        "goals.value: expected `cap` or `winsorize`, got both.",
    ),
    # form
    ("experiment", {}, "$.experiment: expected a known key, got `experiment`. Did you mean `experiments`?"),
    (
        f"{OTHER}.coverge",
        1,
        "$.experiments.other.coverge: expected a known key, got `coverge`. Did you mean `coverage`?",
    ),
    (
        f"{OTHER}.arms.c.wieght",
        1,
        "$.experiments.other.arms.c.wieght: expected a known key, got `wieght`. Did you mean `weight`?",
    ),
    (f"{OTHER}.arms", {"a": {}}, "$.experiments.other.arms: expected two arms at least, got 1"),
    (f"{OTHER}.status", "runing", "expected one of draft, running, stopped, got 'runing'. Did you mean `running`?"),
    (f"{OTHER}.hash", "growthbook", "$.experiments.other.hash: expected one of"),
    (f"{OTHER}.coverage", 1.5, "$.experiments.other.coverage: expected a number <= 1"),
    ("experiments.a b", other(), "expected a name of letters, digits and . _ -, got `a b`"),
    (f"{CHANGES}.model", 12, f"$.{CHANGES}.model: expected a text or nothing, got 12. Put it in quotes."),
    (f"{CHANGES}.rules.on", ["cheap"], "expected a known key, got `on`"),
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
    # moments, units, namespaces
    (
        f"{OTHER}.start",
        "2026-02-30",
        "$.experiments.other.start: expected a moment that the calendar has, got `2026-02-30`",
    ),
    (f"{LOUDER}.end", "2026-11-01", "$.experiments.louder-levers.end: expected a moment after start, got `2026-11-01`"),
    (
        "account",
        "customer.houshold",
        "$.account: expected a category of customer or context, got `customer.houshold`. Did you mean",
    ),
    (
        "account",
        "customer.tenure_days",
        "$.account: expected a category of customer or context, got `customer.tenure_days`",
    ),
    (
        "control_groups",
        {"no_levers": 0.1, "salt": "2026-h2"},
        "$.control_groups: expected another salt than that of `holdout`, got `2026-h2`.",
    ),
    (
        "control_groups",
        {"no_levers": 0.6, "random_eligible": 0.6},
        "$.control_groups: expected shares that add up to at most 1, got 1.2",
    ),
    (
        f"{OTHER}.namespace.range",
        [0.4, 1],
        "$.experiments.other.namespace.range: expected a range of `levers` apart from that of `louder-levers`",
    ),
    (
        f"{OTHER}.namespace.range",
        [1, 0.5],
        "$.experiments.other.namespace.range: expected a range that begins before it ends, got [1, 0.5]",
    ),
    (OTHER, other(unit="account", status="stopped", namespace={"name": "levers", "range": [0, 1]}), ""),
    (
        f"{OTHER}.unit",
        "customer",
        "$.experiments.other.unit: expected one unit in the namespace `levers`, got `customer` and `account`",
    ),
    # expressions
    (
        f"{OTHER}.targeting",
        "customer.tenure >= 5",
        "$.experiments.other.targeting: expected a name of customer, got `customer.tenure`",
    ),
    (
        f"{OTHER}.targeting",
        "offer.value > 5",
        "expected columns of customer and context, and segments of them, got `offer.value`. Who takes",
    ),
    (
        f"{OTHER}.targeting",
        "segment.dear",
        "expected columns of customer and context, and segments of them, got `offer.value`",
    ),
    (f"{OTHER}.targeting", "customer.tenure_days >=", "$.experiments.other.targeting: expected"),
    (f"{CHANGES}.arbitration.formula", "propensty * value", f"$.{CHANGES}.arbitration.formula: expected"),
    # changes
    (
        f"{CHANGES}.rules.off",
        ["cheep"],
        f"$.{CHANGES}.rules.off[0]: expected a rule of policies.yaml, got `cheep`. Did you mean `cheap`?",
    ),
    (
        f"{CHANGES}.rules.off",
        ["known"],
        f"$.{CHANGES}.rules.off[0]: expected a rule of another stage than eligibility, got `known`",
    ),
    (
        f"{CHANGES}.arbitration.weights.on_ap",
        2,
        "expected a weight of policies.yaml, got `on_ap`. Did you mean `on_app`?",
    ),
    (f"{CHANGES}.arbitration.worth.money", 2, "expected a kind of value of policies.yaml, got `money`"),
    (
        f"{CHANGES}.arbitration.groups.hlp",
        2,
        f"$.{CHANGES}.arbitration.groups.hlp: expected a group that some offer has, got `hlp`",
    ),
    (
        f"{CHANGES}.arbitration.offers.data-6",
        2,
        f"$.{CHANGES}.arbitration.offers.data-6: expected an offer, got `data-6`",
    ),
    (
        f"{CHANGES}.placements.hme",
        {"limit": 1},
        f"$.{CHANGES}.placements.hme: expected a declared placement, got `hme`",
    ),
    (
        f"{CHANGES}.placements.home.fallback",
        ["sorry"],
        f"$.{CHANGES}.placements.home.fallback[0]: expected an offer, got `sorry`",
    ),
    (
        f"{CHANGES}.placements.home.groups",
        ["sale"],
        f"$.{CHANGES}.placements.home.groups[0]: expected a group that some offer has",
    ),
    (
        "experiments",
        MANY,
        "$.experiments: expected at most 64 combinations of arms that change something, got 128. Put experiments",
    ),
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("experiments")
    for name, content in WORKSPACE.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return load(folder)


def document(content: Any) -> Document:
    return Document(
        Path("experiments.yaml"), "experiments.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    )


def faults_in(workspace: Workspace, content: Any) -> list[str]:
    """What is wrong with a file, form first."""
    given = document(content)
    try:
        file = given.convert(ExperimentsFile)
    except BadWorkspace as bad:
        return list(map(str, bad.faults))
    return list(map(str, faults_of_experiments(workspace, given, file)))


def test_a_file_without_faults(workspace: Workspace) -> None:
    """The file that the faults below are changes of has none, and so has an empty one."""
    assert faults_in(workspace, EXPERIMENTS) == []
    assert faults_in(workspace, {}) == []


@pytest.mark.parametrize(
    ("path", "value", "message"), FAULTS, ids=[f"{path}-{at}" for at, (path, _, _) in enumerate(FAULTS)]
)
def test_a_fault_has_its_message(workspace: Workspace, path: str, value: Any, message: str) -> None:
    """One change makes one fault, told with file, line, path, what was expected, what came, and what to do."""
    content: Any = copy.deepcopy(EXPERIMENTS)
    *steps, last = path.split(".")
    node = content
    for step in steps:
        node = node[step]
    node[last] = value
    faults = faults_in(workspace, content)
    assert len(faults) == bool(message), faults
    if message:
        assert message in faults[0]
        assert faults[0].startswith("experiments.yaml:")


def test_an_account_needs_its_column(workspace: Workspace) -> None:
    """Experiments on accounts say where the account stands."""
    content = copy.deepcopy(EXPERIMENTS)
    del content["account"]
    assert [fault.partition("expected ")[2] for fault in faults_in(workspace, content)] == [
        (
            "a unit that the file knows, got `account`, without its column. For example"
            " `account: customer.household` at the top of the file."
        )
    ] * 2


def test_every_check_can_fail(workspace: Workspace) -> None:
    """No check stays silent over all the faults above."""
    failed = set()
    for path, value, _ in FAULTS:
        content: Any = copy.deepcopy(EXPERIMENTS)
        node = content
        *steps, last = path.split(".")
        for step in steps:
            node = node[step]
        node[last] = value
        given = document(content)
        try:
            file = given.convert(ExperimentsFile)
        except BadWorkspace:
            continue
        failed |= {check.__name__ for check in EXPERIMENT_CHECKS if any(check(workspace, given, file))}
    assert failed == {check.__name__ for check in EXPERIMENT_CHECKS}


def test_what_is_read(workspace: Workspace) -> None:
    """Moments are numbers, conditions are parsed, the control is the arm that says so or the first, shares are
    exact.
    """
    book = read_rules(workspace.policies, workspace.features, "EUR")
    louder, second = read_experiments(document(EXPERIMENTS).convert(ExperimentsFile), book).experiments
    assert (louder.start, louder.end) == (parse_moment("2026-11-01"), parse_moment("2026-11-30T23:00:00Z"))
    assert louder.targeting is not None and louder.targeting.names == ("context.channel", "customer.tenure_days")
    assert list(louder.formulas) == ["treatment"]
    assert (louder.control, second.control, second.arms) == ("control", "b", ("a", "b", "c"))
    assert louder.split.shares == pytest.approx((0.4, 0.6)) and louder.split.covered == pytest.approx(0.5)
    assert second.split.shares == pytest.approx((1 / 3,) * 3, abs=1e-4) and sum(second.split.shares) == pytest.approx(1)
    assert louder.namespace_share == second.namespace_share == 0.5
    assert (second.start, second.end, second.targeting) == (None, None, None)


def test_control_groups_are_those_of_the_file() -> None:
    """Each field of the control groups is one of them, in the order in which shares are cut."""
    assert [name for name in ControlGroups.__struct_fields__ if name != "salt"] == list(CONTROL_GROUPS)
    split = control_groups_of(ControlGroups(no_levers=0.1, random_propensity=0.3))
    assert split.covered == pytest.approx(0.4) and split.shares == pytest.approx((0, 0, 0.25, 0, 0.75))


def test_overlaps() -> None:
    """Ranges that only touch are apart; one within another is not, wherever it stands."""
    assert overlapping([((0, 0.5), "a"), ((0.5, 1), "b"), ((0.5, 0.5), "c")]) == []
    assert overlapping([((0.2, 0.3), "b"), ((0, 1), "a"), ((0.9, 1), "c")]) == [("b", "a"), ("c", "a")]


def test_an_empty_file_has_no_experiments(workspace: Workspace) -> None:
    """An absent file is an empty one: nothing is assigned, nobody is held out."""
    file = Document(Path("experiments.yaml"), "experiments.yaml", "").convert(ExperimentsFile)
    assert file == ExperimentsFile()
    read = read_experiments(file, read_rules(workspace.policies, workspace.features, "EUR"))
    assert read.experiments == () and file.holdout is None and file.control_groups is None
