"""Who keeps an arm when the split changes, and who is drawn again."""

from __future__ import annotations

from collections import Counter

from serving.assignment.assignment import StickyArm, Units
from tests.serving.assigners import NOW, ask, assigner, everybody, within


def test_changing_the_split_moves_no_sticky_unit() -> None:
    """Whatever becomes of weights, coverage, namespace and targeting, who was assigned keeps arm and probability;
    others are drawn anew.
    """
    before = assigner({"e": {"sticky": True, "coverage": 0.5, "arms": {"a": {"weight": 0.5}, "b": {"weight": 0.5}}}})
    arms = {"a": {"weight": 0.05}, "b": {"weight": 0.95}}
    changed = {
        "sticky": True,
        "coverage": 0.9,
        "arms": arms,
        "targeting": 'context.channel == "app"',
        "namespace": {"name": "n", "range": [0, 0.1]},
    }
    after, loose = assigner({"e": changed}), assigner({"e": changed | {"sticky": False}})
    kept = {
        str(at): written.writes
        for at in range(5_000)
        if (written := before.assign(Units(str(at)), everybody, NOW)).writes
    }
    assert within(len(kept), 5_000, 0.5)
    for unit, stored in kept.items():
        for targeted in (everybody, lambda key: False):
            (found,) = after.assign(Units(unit), targeted, NOW, stored).assignments
            assert (found.reason, found.arm, found.probability, found.to_store) == (
                "sticky",
                stored["e"].arm,
                0.5,
                None,
            )
        assert loose.assign(Units(unit), everybody, NOW, stored) == loose.assign(Units(unit), everybody, NOW)
    reasons = Counter(ask(after, str(at)).reason for at in range(5_000) if str(at) not in kept)
    assert set(reasons) == {"namespace", "not_covered", "split"}


def test_a_bucket_version_draws_everybody_again() -> None:
    """A higher bucket version passes over what was kept and wants a new write; a lowest version lets older units out
    for good.
    """
    kept = {"e": StickyArm("treatment", 1, 0.5)}
    arms = {"control": {"weight": 1}, "treatment": {"weight": 0}}
    same, higher, blocked = (
        assigner({"e": {"sticky": True, "arms": arms, "bucket_version": version, "min_bucket_version": least}})
        for version, least in ((1, 0), (2, 1), (2, 2))
    )
    assert ask(same, kept=kept)[:3] == ("e", "sticky", "treatment")
    again = ask(higher, kept=kept)
    assert again[:3] == ("e", "split", "control") and again.to_store == StickyArm("control", 2, 1.0)
    assert ask(blocked, kept=kept)[:3] == ("e", "blocked", None)
    assert ask(blocked).reason == "split"


def test_an_arm_that_is_gone_is_drawn_again() -> None:
    """A kept arm that the file no longer has does not hold."""
    asked = assigner({"e": {"sticky": True}})
    found = ask(asked, kept={"e": StickyArm("gone", 0)})
    assert found.reason == "split" and found.to_store is not None


def test_neither_stopped_nor_held_out_units_are_sticky() -> None:
    """Stickiness does not outlast the experiment, and a new holdout takes its units out of it."""
    kept = {"e": StickyArm("treatment", 0)}
    assert ask(assigner({"e": {"sticky": True, "status": "stopped"}}), kept=kept).reason == "stopped"
    assert ask(assigner({"e": {"sticky": True}}, holdout={"share": 1}), kept=kept).reason == "holdout"


def test_the_first_write_holds() -> None:
    """After its write an assignment is what the store holds: its own, or that of a request that was first."""
    asked = assigner({"e": {"sticky": True}})
    mine = ask(asked)
    assert mine.to_store is not None and mine.arm is not None
    assert asked.settled(mine, mine.to_store) == mine._replace(to_store=None)
    rival = StickyArm("control" if mine.arm == "treatment" else "treatment", 0, 0.125)
    assert asked.settled(mine, rival)[:4] == ("e", "sticky", rival.arm, 0.125)
    assert asked.settled(mine, rival._replace(probability=None)).probability == 0.5
    assert asked.settled(mine, rival._replace(bucket_version=7)) == mine
