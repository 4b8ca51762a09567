"""The decision over a step of a ramp keeps its promises whatever the evidence."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.common.timestamps import MICROSECONDS, duration_seconds
from features.workspace.ramps import Evidence, RampState, Watched
from pipelines.ramps.steps import next_step
from pipelines.statistics.sample_ratio import MISMATCH_P
from tests.pipelines.experiment_lakes import DAY, START
from tests.pipelines.ramp_lakes import PLAN, STEPS

VERDICTS = ("harm", "no harm shown", "too few yet", "not recorded")
watched = st.builds(
    lambda verdict, p: Watched(guardrail="conversion", tolerated=0.0, verdict=verdict, p=p),
    st.sampled_from(VERDICTS),
    st.floats(0, 1),
)
evidences = st.builds(
    Evidence,
    exposed=st.tuples(st.integers(0, 2_000), st.integers(0, 2_000)),
    fresh=st.tuples(st.integers(0, 600), st.integers(0, 600)),
    mismatch_p=st.none() | st.floats(0, 1),
    guardrails=st.lists(watched, max_size=3).map(tuple),
    lacks=st.sampled_from(["", "", "nothing there"]),
)
standings = st.builds(
    lambda share, damaged: RampState(
        share, "rising" if share < 1 else "finished", START, START, frozenset(), 1, damaged
    ),
    st.sampled_from((*STEPS, 0.3, 0.75)),
    st.booleans(),
)
moments = st.integers(0, 20 * DAY).map(lambda after: START + after)
GOOD = Evidence(
    exposed=(900, 900),
    fresh=(500, 500),
    mismatch_p=1.0,
    guardrails=(Watched(guardrail="slow", tolerated=0, p=0.9, verdict="no harm shown"),),
)
RISING = RampState(0.05, "rising", START, START, frozenset(), 1)


def is_broken(evidence: Evidence) -> bool:
    """Whether harm or a broken split is shown."""
    broken = evidence.mismatch_p is not None and evidence.mismatch_p < MISMATCH_P
    return broken or any(one.verdict == "harm" for one in evidence.guardrails)


@given(standing=standings, evidence=evidences, now=moments)
def test_a_ramp_rises_only_on_good_evidence(standing: RampState, evidence: Evidence, now: int) -> None:
    """An arm rises by one step and never skips one, after its time, with its units, with a guardrail that has data and
    none that has harm.
    """
    step = next_step(PLAN, standing, evidence, now)
    assert step.reason and step.share in (0.0, standing.share, *STEPS)
    if is_broken(evidence):
        assert (step.verdict, step.share) == ("roll_back", 0.0)
    if step.share > standing.share:
        assert step.share == min(one for one in STEPS if one > standing.share)
        assert step.verdict == ("finish" if step.share == STEPS[-1] else "proceed")
        assert now - standing.begun >= duration_seconds(PLAN.hold) * MICROSECONDS  # type: ignore[operator]
        assert min(evidence.fresh) >= PLAN.units and not evidence.lacks and not standing.is_damaged
        assert any(one.verdict == "no harm shown" for one in evidence.guardrails)
    elif step.share == standing.share:
        assert step.verdict == "hold"
        assert standing.state == "finished" or now - standing.begun < duration_seconds("14d") * MICROSECONDS  # type: ignore[operator]


@given(standing=standings, evidence=evidences, now=moments, data=st.data())
def test_worse_evidence_never_raises_more(
    standing: RampState, evidence: Evidence, now: int, data: st.DataObject
) -> None:
    """Fewer units, a smaller p of the split, or one more harm never gives a larger share; with the usual patience, nor
    does less time.
    """
    worse = [
        msgspec.structs.replace(evidence, fresh=(max(evidence.fresh[0] - 100, 0), evidence.fresh[1])),
        msgspec.structs.replace(evidence, mismatch_p=(evidence.mismatch_p or 0) / 10),
        msgspec.structs.replace(
            evidence, guardrails=(*evidence.guardrails, Watched(guardrail="x", tolerated=0, p=0.001, verdict="harm"))
        ),
        msgspec.structs.replace(evidence, lacks="nothing"),
    ]
    step = next_step(PLAN, standing, evidence, now)
    assert all(next_step(PLAN, standing, one, now).share <= step.share for one in worse)
    earlier = data.draw(st.integers(START, now))
    patient = msgspec.structs.replace(PLAN, patience=None)
    assert next_step(patient, standing, evidence, earlier).share <= next_step(patient, standing, evidence, now).share


@given(evidence=evidences, now=moments, state=st.sampled_from(["not_started", "rolled_back"]))
def test_a_ramp_that_does_not_run_stays_so(evidence: Evidence, now: int, state: Any) -> None:
    """Neither good evidence nor time begins a ramp, or begins it again: a person does."""
    step = next_step(PLAN, RampState(0.0, state, START, START, frozenset(), 3), evidence, now)
    assert (step.verdict, step.share, step.code) == ("hold", 0.0, state) and "--start" in step.reason


@pytest.mark.parametrize(
    ("days", "changes", "standing", "expected"),
    [
        (2, {}, {}, ("proceed", 0.10, "next_step")),
        (1.9, {}, {}, ("hold", 0.05, "hold_time")),
        (2, {"fresh": (500, 299)}, {}, ("hold", 0.05, "units")),
        (2, {"guardrails": ()}, {}, ("hold", 0.05, "no_evidence")),
        (2, {"lacks": "no lake"}, {}, ("hold", 0.05, "no_evidence")),
        (2, {}, {"is_damaged": True}, ("hold", 0.05, "damaged")),
        (14, {"lacks": "no lake"}, {}, ("roll_back", 0.0, "patience")),
        (14, {}, {}, ("proceed", 0.10, "next_step")),
        (2, {}, {"share": 0.5}, ("finish", 1.0, "last_step")),
        (99, {"lacks": "no control"}, {"share": 1.0, "state": "finished"}, ("hold", 1.0, "finished")),
        (0, {"mismatch_p": 1e-4}, {}, ("roll_back", 0.0, "split")),
    ],
)
def test_each_reason_is_told(
    days: float, changes: dict[str, Any], standing: dict[str, Any], expected: tuple[str, float, str]
) -> None:
    """Each case has its verdict and its reason."""
    step = next_step(
        PLAN, RISING._replace(**standing), msgspec.structs.replace(GOOD, **changes), START + int(days * DAY)
    )
    assert (step.verdict, step.share, step.code) == expected
