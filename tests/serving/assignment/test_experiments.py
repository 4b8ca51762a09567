"""Decisions under experiments: each change does what it says, groups follow their logic, and without experiments
nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from features.events.journal import Line
from features.ledger.recent import KeptArm
from serving.assignment.arm_states import LOGICS
from serving.assignment.assignment import Assigner, StickyArm, Units
from serving.state.snapshot import Snapshot
from tests.serving.arms import NOW, OFFERS, POLICIES, answer, group_of, kept_by, made, one_arm, sticky, told
from tests.serving.decisions import decide
from tests.serving.hubs import Hubs, asked, opened, shown
from training.bundle.bundle import BadBundle, Bundle


@pytest.fixture(scope="module")
def hubs(trained_workspace: Path) -> Iterator[Hubs]:
    yield from opened(trained_workspace)


def test_without_experiments_nothing_changes(hubs: Hubs) -> None:
    """Files without a running experiment answer and record to the byte as those without any, and have no new fields."""
    draft = {"experiments": {"e": {"arms": {"a": {}, "b": {"changes": {"placements": {"home": {"limit": 1}}}}}}}}
    stopped = {"experiments": {"e": draft["experiments"]["e"] | {"status": "stopped"}}}
    row = hubs.row(lines=1)
    for customer in ("c1", "c2", "c3"):
        lines: list[Line] = []
        plain = answer(made(hubs), customer, row, lines)
        assert not {"experiments", "group", "probability"} & set(
            msgspec.json.encode(plain).decode().replace('"', " ").split()
        )
        for idle in (draft, stopped):
            other = answer(made(hubs, idle), customer, row, lines)
            assert msgspec.json.encode(msgspec.structs.replace(other, config=plain.config)) == msgspec.json.encode(
                plain
            )
        assert (
            len({msgspec.msgpack.encode(msgspec.structs.replace(line, config="", took_us=None)) for line in lines}) == 1
            and len(lines) == 3
        )


def test_arms_that_change_nothing_decide_as_before(hubs: Hubs) -> None:
    """An A/A experiment gives its arms, shares the very state, and shows what is shown without it."""
    loaded = made(hubs, {"experiments": {"e": {"status": "running", "arms": {"a": {}, "b": {}}}}})
    row, arms = hubs.row(lines=1), set[str]()
    for number in range(20):
        found = answer(loaded, f"c{number}", row)
        assert told(found) == told(answer(made(hubs), f"c{number}", row)) and found.group is None
        assert [one.probability for one in found.offers] == [1.0] * len(found.offers)
        (given,) = found.experiments or ()
        assert (given.key, given.probability, given.reason) == ("e", 0.5, "split")
        arms.add(given.arm)
        assigned = loaded.experiment_states.assigned(Units(f"c{number}"), row, {}, now=NOW)
        assert loaded.experiment_states.state(assigned) is loaded
    assert arms == {"a", "b"}


@pytest.mark.parametrize(
    ("changes", "as_if"),
    [
        (
            {"arbitration": {"groups": {"even": 1.0, "odd": 20.0}}},
            {"arbitration": {"groups": {"even": 1.0, "odd": 20.0}}},
        ),
        ({"arbitration": {"offers": {"o3": 99.0}}}, {"arbitration": {"offers": {"o3": 99.0}}}),
        ({"arbitration": {"formula": "value"}}, {"arbitration": {"formula": "value"}}),
        (
            {"arbitration": {"weights": {"many": 0.0}}},
            {"arbitration": {"weights": {"many": POLICIES["arbitration"]["weights"]["many"] | {"weight": 0.0}}}},
        ),
        ({"rules": {"off": ["fitting"]}}, {"rules": {"grown": POLICIES["rules"]["grown"]}}),
        ({"exploration": {"gamma": 5.0, "floor": 0.2}}, {"exploration": {"gamma": 5.0, "floor": 0.2}}),
    ],
    ids=["levers", "offer", "formula", "weights", "rules", "exploration"],
)
def test_an_arm_decides_as_if_the_files_said_so(hubs: Hubs, changes: dict[str, Any], as_if: dict[str, Any]) -> None:
    """The oracle of each change is a workspace whose files say it; and it changes something for somebody."""
    said = POLICIES | {
        key: POLICIES.get(key, {}) | value if key == "arbitration" else value for key, value in as_if.items()
    }
    loaded, other, before = made(hubs, one_arm(changes)), made(hubs, policies=said), made(hubs)
    differs = 0
    for number in range(12):
        row = hubs.row(lines=number % 5)
        found = answer(loaded, f"c{number}", row)
        assert told(found) == told(answer(other, f"c{number}", row))
        assert found.config == loaded.hub.config
        differs += told(found) != told(answer(before, f"c{number}", row))
    assert differs


def test_placement_changes_concern_their_placement(hubs: Hubs) -> None:
    """Another limit holds at its placement; the other one is as it was, and its decisions expose nobody."""
    loaded, lines = made(hubs, one_arm({"placements": {"home": {"limit": 2}}})), list[Line]()
    assert (
        len(answer(loaded, lines=lines).offers) == 2 and len(answer(loaded, placement="bill", lines=lines).offers) > 2
    )
    assert [line.experiments for line in lines] == [
        (("e", "other", 1.0, 1.0, "split", exposed),) for exposed in (True, False)
    ]
    assert (
        len(answer(loaded, placement=None, placements=["bill", "home"], lines=lines).offers) > 2
        and lines[-1].experiments[0][-1]
    )
    assert [line.units for line in lines] == [()] * 3
    client = {"experiments": {"e": {"status": "running", "arms": {"a": {}, "b": {}}}}}
    answer(made(hubs, client), lines=lines)
    assert not lines[-1].experiments[0][-1], "an experiment of the client is exposed when it is seen there"


def test_another_model_scores_for_its_arm(hubs: Hubs) -> None:
    """An arm's model answers with its own stamp and propensities; one that was not published is refused with the way
    out.
    """
    bundle = hubs.trained.bundle
    calibration = type(bundle.calibration)("sigmoid", 1.0, 0.3)
    golden = [
        msgspec.structs.replace(case, propensities=calibration.probabilities(np.array(case.raw)).tolist())
        for case in bundle.golden
    ]
    other: Bundle = msgspec.structs.replace(
        bundle,
        id="sha256:other",
        calibration=calibration,
        golden=golden,
        manifest=msgspec.structs.replace(bundle.manifest, version="2"),
    )
    contract = hubs.make().bundle.contract
    other = msgspec.structs.replace(other, contract=contract)
    loaded = made(hubs, one_arm({"model": "challenger"}), models={"challenger": other})
    found, before = answer(loaded), answer(made(hubs))
    assert (found.model.version, before.model.version) == ("2", "1")
    assert {one.propensity for one in found.offers}.isdisjoint({one.propensity for one in before.offers})
    assert [load.bundle.id for load in loaded.experiment_states.loads] == ["sha256:other"]
    with pytest.raises(BadBundle, match="model `challenger`.*run `opportune publish --alias challenger`"):
        _ = made(hubs, one_arm({"model": "challenger"})).experiment_states


def test_the_holdout_is_not_personal_and_rules_hold(hubs: Hubs) -> None:
    """The held out are scored as nobody and weighed as nobody, but rules see who they are; they are in no
    experiment.
    """
    loaded = made(hubs, {"holdout": {"share": 0.3}} | one_arm({"exploration": {"floor": 1.0}}))
    customer, lines = group_of("holdout", loaded), list[Line]()
    plain = POLICIES | {"arbitration": {"groups": {"even": 50.0}}}
    found = answer(loaded, customer, hubs.row(lines=4), lines)
    assert (found.group, found.experiments) == ("holdout", ())
    assert (lines[0].group, lines[0].group_probability, lines[0].experiments) == ("holdout", pytest.approx(0.3), ())
    as_nobody = answer(made(hubs, policies=plain | {"rules": {}}), customer, None)
    known = {one.offer_id: one.score for one in as_nobody.offers}
    assert all(known[one.offer_id] == one.score for one in found.offers)
    assert "o2" not in shown(found) and "o1" in shown(found), "rules look at the customer"
    assert "o1" not in shown(answer(loaded, customer, hubs.row(lines=0)))
    assert not found.degraded and [one.probability for one in found.offers] == [1.0] * len(found.offers)


def test_control_groups_follow_their_logic(hubs: Hubs) -> None:
    """Each group decides as a workspace whose files say its logic, or draws with the probabilities that it states."""
    shares = {name: 0.2 for name in LOGICS if name != "holdout"}
    loaded, row = made(hubs, {"control_groups": shares}), hubs.row(lines=3)
    arbitration = POLICIES["arbitration"]
    oracles = {
        "propensity_only": POLICIES | {"arbitration": arbitration | {"formula": "propensity"}},
        "no_levers": POLICIES | {"arbitration": {"weights": arbitration["weights"]}},
        "eligibility_only": POLICIES | {"rules": {"grown": POLICIES["rules"]["grown"]}},
    }
    before = told(answer(made(hubs), "c1", row))
    for name, policies in oracles.items():
        customer = group_of(name, loaded)
        found = answer(loaded, customer, row)
        assert (found.group, told(found)) == (name, told(answer(made(hubs, policies=policies), customer, row)))
        assert told(found) != before
    lines: list[Line] = []
    random = answer(loaded, group_of("random_eligible", loaded), row, lines)
    count = random.considered
    assert [one.probability for one in random.offers] == pytest.approx([1 / (count - at) for at in range(count)])
    assert np.frombuffer(lines[0].probabilities).tolist() == [one.probability for one in random.offers]
    blind = answer(loaded, group_of("random_propensity", loaded), row)
    weights = [one.score for one in blind.offers]
    assert [one.probability for one in blind.offers] == pytest.approx(
        [weight / sum(weights[at:]) for at, weight in enumerate(weights)]
    )
    assert {one.offer_id: one.propensity for one in blind.offers}["o0"] == {
        one.offer_id: one.propensity for one in random.offers
    }["o0"]


def test_groups_and_exploration_replay_the_same(hubs: Hubs) -> None:
    """The same request, row and moment give the same answer, in another state of the same files too."""
    said = {"control_groups": {"random_eligible": 0.5, "random_propensity": 0.5}}
    row = hubs.row(lines=1)
    one, other = made(hubs, said), made(hubs, said)
    for number in range(30):
        found = answer(one, f"c{number}", row)
        assert found == answer(other, f"c{number}", row)


def test_targeting_sees_what_is_allowed_only(hubs: Hubs) -> None:
    """Targeting looks at customer and context; what is unknown, or withheld, is not true."""
    loaded = made(hubs, one_arm({}, targeting='customer.lines >= 2 and context.channel == "app"'))
    assert answer(loaded, row=hubs.row(lines=2), context={"channel": "app"}).experiments
    for row, context in (
        (hubs.row(lines=1), {"channel": "app"}),
        (hubs.row(lines=2), {"channel": "web"}),
        (None, {"channel": "app"}),
    ):
        assert answer(loaded, row=row, context=context).experiments == ()
    with pytest.raises(ValueError, match="a condition that reads"):
        _ = made(hubs, one_arm({}, targeting="customer.lines >=")).experiment_states


def test_a_split_that_changes_keeps_sticky_units(hubs: Hubs) -> None:
    """What was written first holds when the split turns round, before and after it is read back; a bucket version draws
    again.
    """
    store: dict[str, dict[str, KeptArm]] = {}
    ask = asked(customer_id="c1")
    first = decide(ask, made(hubs, sticky(1.0)), None, NOW, take=kept_by(store))
    assert [(one.arm, one.reason) for one in first.experiments or ()] == [("a", "split")] and store == {
        "c1": {"e": ("a", 0, 1.0)}
    }
    turned = made(hubs, sticky(0.0))
    raced = decide(ask, turned, None, NOW, take=kept_by(store))
    kept = {"e": StickyArm(*store["c1"]["e"])}
    later = decide(ask, turned, None, NOW, take=kept_by(store), sticky=kept)
    for found in (raced, later):
        assert [(one.arm, one.probability, one.reason) for one in found.experiments or ()] == [("a", 1.0, "sticky")]
        assert len(found.offers) > 1
    again = decide(ask, made(hubs, sticky(0.0, bucket_version=1)), None, NOW, take=kept_by({}), sticky=kept)
    assert [(one.arm, one.reason) for one in again.experiments or ()] == [("b", "split")] and len(again.offers) == 1


def test_without_the_ledger_the_hash_decides_and_says_so(hubs: Hubs) -> None:
    """Where sticky assignments cannot be read, or written, the arm is the hash's, nothing is written, and the answer is
    degraded.
    """
    loaded, store = made(hubs, sticky(1.0)), dict[str, dict[str, KeptArm]]()
    for kept, away in ((None, False), ({}, True)):
        found = decide(asked(), loaded, None, NOW, take=kept_by(store, away), sticky=kept)
        assert [(one.arm, one.reason) for one in found.experiments or ()] == [("a", "split")]
        assert "contacts_unavailable" in found.degraded and store == {}


def test_units_of_other_kinds_are_named_in_the_journal(hubs: Hubs) -> None:
    """An experiment on anonymous ids, or accounts, keeps and records its own unit."""
    entry = one_arm({}, unit="anonymous")["experiments"]["e"]
    loaded = made(
        hubs, {"account": "context.channel", "experiments": {"anon": entry, "firm": entry | {"unit": "account"}}}
    )
    lines: list[Line] = []
    answer(loaded, "c1", lines=lines, anonymous_id="a1", context={"channel": "app"})
    assert lines[0].units == ("~a1", "@app") and [one[0] for one in lines[0].experiments] == ["anon", "firm"]
    assert [one.key for one in answer(loaded, "c1").experiments or ()] == ["firm"], (
        "the channel has a default, and so an account"
    )


def test_every_combination_has_its_state(hubs: Hubs) -> None:
    """Two experiments that meet decide with both changes; whoever is in one alone, with that one."""
    entry = {"status": "running", "arms": {"plain": {}, "loud": {"changes": {"arbitration": {"groups": {"odd": 9.0}}}}}}
    short = {"status": "running", "arms": {"plain": {}, "short": {"changes": {"placements": {"home": {"limit": 3}}}}}}
    loaded, seen = made(hubs, {"experiments": {"one": entry, "two": short}}), set[tuple[str | None, ...]]()
    states: dict[tuple[str | None, ...], Snapshot] = {}
    for number in range(60):
        assigned = loaded.experiment_states.assigned(Units(f"c{number}"), None, {}, now=NOW)
        arms = tuple(one.arm for one in assigned.assignments)
        state = loaded.experiment_states.state(assigned)
        assert states.setdefault(arms, state) is state
        assert len(answer(loaded, f"c{number}").offers) == (3 if arms[1] == "short" else len(OFFERS) - 1)
        assert state.workspace.policies.arbitration.groups.get("odd", 1.0) == (9.0 if arms[0] == "loud" else 1.0)
        seen.add(arms)
    assert len(seen) == 4 and len({id(state) for state in states.values()}) == 4
    assert all(state.kernel is loaded.kernel and state.layout is loaded.layout for state in states.values())


def test_assignment_is_that_of_the_assigner(hubs: Hubs) -> None:
    """What a decision says of arms and groups is what the pure function says."""
    said = {"holdout": {"share": 0.1}, "control_groups": {"no_levers": 0.1}} | one_arm({}, coverage=0.5)
    loaded = made(hubs, said)
    asking = Assigner.of(loaded.experiment_states.experiments)
    for number in range(50):
        expected = asking.assign(Units(f"c{number}"), lambda _: True, NOW)
        found = answer(loaded, f"c{number}")
        assert found.group == expected.group.name
        assert [one.arm for one in found.experiments or ()] == [one.arm for one in expected.assignments if one.arm]
