"""One decision: which offers, in which order. A function of plain values; the clock and what is known of the customer
are among them.

Replay, simulation, the command line, tests and the server call this same code. Chance comes from a hash of the request,
never from the process: the same request, customer, moment and `Snapshot` give the same answer.

Where limits are in play, contacts and budgets of a slate must be taken in the ledger before it is shown, which may need
a round trip: `deciding` is a generator that yields effects and goes on with their results. `decide` runs it where
nothing need be waited for.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Generator
from time import perf_counter_ns

from features.common.types import Decision
from serving.decision.answer import answer
from serving.decision.arms import assign
from serving.decision.case import DecisionInputs
from serving.decision.effects import Effect, EffectResult, grant
from serving.decision.eligibility import consider
from serving.decision.record import line_of_case
from serving.decision.scoring import score
from serving.decision.slates import arrange
from serving.decision.takes import take
from serving.decision.withholding import open_case

STAGES = ("read", "eligible", "score", "rank", "record")
"""Timed parts of a decision, in order; `read` is timed by the caller."""

_process_tag = secrets.token_hex(4)
_numbers = itertools.count(1)


def decide(inputs: DecisionInputs, run: Callable[[Effect], EffectResult] = grant) -> Decision:
    """Answer one request; see `deciding`.

    Args:
        run: runs effects at once; by default nothing is taken and all is granted, for replay and simulation.
    """
    steps = deciding(inputs)
    try:
        effect = next(steps)
        while True:
            effect = steps.send(run(effect))
    except StopIteration as done:
        decision: Decision = done.value
        return decision


def deciding(inputs: DecisionInputs) -> Generator[Effect, EffectResult, Decision]:
    """Answer one request, yielding the effects that it needs.

    Raises:
        UnknownPlacement, BadContext, BadRequest: the request does not fit the workspace.
    """
    begin = perf_counter_ns()
    case = open_case(inputs)
    if inputs.serving.experiment_states.active:
        yield from assign(case, inputs.customer.sticky)
    consider(case)
    eligible_at = perf_counter_ns()
    score(case)
    scored_at = perf_counter_ns()
    decision_id = inputs.decision_id or f"{inputs.now:x}-{_process_tag}-{next(_numbers):x}"
    arrange(case)
    if case.deciding.hub.contacting.limits:
        case.copy_scratch()
        yield from take(case, decision_id)
    decision = answer(case, decision_id, row_read=inputs.customer.row is not None)
    ranked_at = perf_counter_ns()
    stages = inputs.stages
    if inputs.record is not None:
        inputs.record(line_of_case(case, decision, (ranked_at - begin + sum(stages or ())) // 1_000))
    if inputs.inspect is not None:
        inputs.inspect(case)
    if stages is not None:
        done = perf_counter_ns()
        stages += [eligible_at - begin, scored_at - eligible_at, ranked_at - scored_at, done - ranked_at]
    return decision
