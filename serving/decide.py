"""One decision: which offers, in which order. A function of plain values; the clock and the customer's row are arguments.

Replay, the command line, tests and the server call this same function. Chance comes from a hash of the request, never from
the process: the same request, row and `Loaded` give the same answer.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from functools import lru_cache
from time import perf_counter_ns
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.buckets import fnv1a
from features.formats import ContextColumn, Placement
from features.journal_lines import Line, line_of
from features.moments import MICROSECONDS, rfc3339
from features.online import OnlineRow
from features.vocabulary import OFFERS_CONSIDERED, ContextValue, Decision, DecisionRequest, RankedOffer
from features.workspace import Workspace
from serving import ranking
from serving.loaded import ANY_CHANNEL, Loaded

FEATURES_UNAVAILABLE = "features_unavailable"
DEGRADED = (FEATURES_UNAVAILABLE,)
"""Every reason for which an answer may be less than it could be."""

STAGES = ("read", "eligible", "score", "rank", "record")
"""Timed parts of a decision, in order; `read` is timed by the caller."""

EXPLAINED_OFFERS_MAX = 20
CHANNEL = "channel"
"""The context column that chooses among an offer's treatments."""

_worker = secrets.token_hex(4)
_count = itertools.count(1)


class UnknownPlacement(ValueError):
    """The request names a placement that the workspace does not have."""


class BadContext(ValueError):
    """A value of the request's context is not what its column may be."""

    def __init__(self, name: str, code: str, expected: str) -> None:
        super().__init__(f"context.{name}: expected {expected}")
        self.name, self.code, self.expected = name, code, expected


def unknown_row(loaded: Loaded) -> OnlineRow:
    """The row of a customer of whom nothing is known."""
    return loaded.layout.plan.nobody()


def check_request(workspace: Workspace, request: DecisionRequest) -> Placement:
    """What the type of a request leaves open; returns the placement.

    Raises:
        UnknownPlacement, BadContext: the request does not fit the workspace.
    """
    check_context(workspace.features.context, request.context)
    placement = workspace.offers.placements.get(request.placement)
    if placement is None:
        raise UnknownPlacement(request.placement)
    return placement


def check_context(columns: dict[str, ContextColumn], context: dict[str, ContextValue]) -> None:
    """Hold each value against its declared column.

    Raises:
        BadContext: for an unknown name, a wrong type, or a value outside the declared ones.
    """
    for name, value in context.items():
        column = columns.get(name)
        if column is None or name == OFFERS_CONSIDERED:
            known = ", ".join(declared for declared in columns if declared != OFFERS_CONSIDERED)
            raise BadContext(name, "field-unknown", f"one of {known or 'no fields: the workspace declares none'}")
        if value is None:
            continue
        if column.dtype == "category":
            if not isinstance(value, str):
                raise BadContext(name, "field-type", "string")
            if column.values is not None and value not in column.values:
                raise BadContext(name, "field-value", f"one of {', '.join(column.values)}")
        elif column.dtype == "boolean":
            if not isinstance(value, bool):
                raise BadContext(name, "field-type", "boolean")
        elif isinstance(value, bool) or not isinstance(value, int if column.dtype == "integer" else (int, float)):
            raise BadContext(name, "field-type", "integer" if column.dtype == "integer" else "number")
        elif (column.minimum is not None and value < column.minimum) or (column.maximum is not None and value > column.maximum):
            raise BadContext(name, "out-of-range", f"{column.dtype} from {column.minimum} to {column.maximum}")


def decide(
    request: DecisionRequest,
    loaded: Loaded,
    row: OnlineRow | None,
    now: int,
    stages: list[int] | None = None,
    decision_id: str | None = None,
    record: Callable[[Line], object] | None = None,
) -> Decision:
    """Answer one request.

    Args:
        row: what the online store knows of the customer; None when it could not be read.
        now: microseconds since 1970.
        stages: takes the nanoseconds of `STAGES[1:]`.

    Raises:
        UnknownPlacement, BadContext: the request does not fit the workspace.
    """
    begin = perf_counter_ns()
    placement = check_request(loaded.workspace, request)
    degraded = () if row is not None else (FEATURES_UNAVAILABLE,)
    customer, seconds = row if row is not None else unknown_row(loaded), now / MICROSECONDS
    funnel: list[tuple[str, NDArray[np.bool_]]] | None = [] if request.explain else None
    allowed, chosen = _considered(request, loaded, customer, now, funnel)
    eligible_at = perf_counter_ns()
    shared = loaded.layout.shared_values(customer, request.context | {OFFERS_CONSIDERED: len(chosen)}, seconds)
    pairs = loaded.layout.pair_values(customer, loaded.everyone, loaded.offer_values, chosen, seconds)
    raw = np.empty(len(chosen))
    loaded.kernel.score(shared, loaded.table, chosen, pairs, raw)
    scored_at = perf_counter_ns()
    best = ranking.best(raw, loaded.draws, chosen, fnv1a(request.customer_id), request.limit or placement.limit)
    shown, propensities = chosen[best], loaded.calibrate(raw[best])
    offers_shown = shown.tolist()
    reasons = _reasons(loaded, customer, chosen, best, pairs, seconds) if loaded.reasons else [()] * len(best)
    channel = _channel(loaded, request)
    offers = [
        RankedOffer(
            rank=place + 1,
            offer_id=loaded.catalogue.offers[offer].offer_id,
            score=propensity,
            propensity=propensity,
            treatment=loaded.treatment(offer, channel),
            reasons=reasons[place],
        )
        for place, (offer, propensity) in enumerate(zip(offers_shown, propensities.tolist(), strict=True))
    ]
    decision = Decision(
        decision_id=decision_id or f"{now:x}-{_worker}-{next(_count):x}",
        customer_id=request.customer_id,
        placement=request.placement,
        offers=offers,
        model=loaded.stamp,
        degraded=degraded,
        considered=len(chosen),
        expires_at=_expiry(loaded, offers_shown, now),
        explanation=msgspec.UNSET if funnel is None else explanation(loaded, funnel, shared, pairs, chosen, raw, best),
    )
    ranked_at = perf_counter_ns()
    if record is not None:
        line = line_of(
            request, decision, now, loaded.versions, allowed, chosen, best, shown, propensities, raw, shared, pairs, loaded.offer_values
        )
        record(line)
    if stages is not None:
        done = perf_counter_ns()
        stages += [eligible_at - begin, scored_at - eligible_at, ranked_at - scored_at, done - ranked_at]
    return decision


def _considered(
    request: DecisionRequest, loaded: Loaded, row: OnlineRow, now: int, funnel: list[tuple[str, NDArray[np.bool_]]] | None
) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Which offers may be offered, as truths and as positions; without rules and wishes it is what holds for everybody."""
    if funnel is None and not loaded.requirements and not request.exclude:
        standing = loaded.standing(request.placement, now)
        return standing.mask, standing.positions
    allowed = eligible(request, loaded, row, now, funnel)
    return allowed, np.flatnonzero(allowed).astype(np.int32)


def eligible(
    request: DecisionRequest, loaded: Loaded, row: OnlineRow, now: int, funnel: list[tuple[str, NDArray[np.bool_]]] | None = None
) -> NDArray[np.bool_]:
    """Which offers may be offered, one truth a catalogue entry; `funnel` takes what each step left over."""
    catalogue = loaded.catalogue
    standing = loaded.standing(request.placement, now)
    _note(funnel, "valid", standing.valid)
    _note(funnel, "placement", standing.mask)
    mask = standing.mask.copy()
    for offer_id in request.exclude:
        at = catalogue.index.get(offer_id)
        if at is not None:
            mask[at] = False
    _note(funnel, "not_excluded", mask)
    for rule in loaded.requirements:
        everyone = loaded.layout.is_everyone(rule.column)
        values = loaded.layout.matched(rule.column, loaded.everyone if everyone else row, now / MICROSECONDS)
        allowed = values >= rule.at_least
        if rule.unknown:
            allowed |= np.isnan(values)
        mask &= allowed
        _note(funnel, rule.name, mask)
    return mask


def _note(funnel: list[tuple[str, NDArray[np.bool_]]] | None, step: str, mask: NDArray[np.bool_]) -> None:
    if funnel is not None:
        funnel.append((step, mask.copy()))


def _reasons(
    loaded: Loaded, row: OnlineRow, chosen: NDArray[np.int32], best: NDArray[np.int32], pairs: NDArray[np.float64], seconds: float
) -> list[tuple[str, ...]]:
    """Reason codes of the offers shown: those whose column is above zero."""
    codes: list[list[str]] = [[] for _ in best]
    for name, code in loaded.reasons:
        values = loaded.layout.column(name, row, loaded.everyone, loaded.offer_values, pairs, chosen, seconds)
        for place, at in enumerate(best):
            if values[at] > 0 and code not in codes[place]:
                codes[place].append(code)
    return [tuple(found) for found in codes]


def _channel(loaded: Loaded, request: DecisionRequest) -> str:
    """The channel that the model is told of: the request's, else the declared default."""
    given = request.context.get(CHANNEL)
    if given is None:
        column = loaded.workspace.features.context.get(CHANNEL)
        given = None if column is None else column.default
    return ANY_CHANNEL if given is None else str(given)


def _expiry(loaded: Loaded, shown: list[int], now: int) -> str:
    """An answer is good for the time the workspace says, and never beyond an offer that it shows; whole seconds."""
    end = now + loaded.answer_microseconds
    for offer in shown:
        until = loaded.catalogue.offers[offer].valid_until
        if until is not None and until < end:
            end = until
    return _second(end // MICROSECONDS)


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """RFC 3339 of a whole second: answers of the same second share it."""
    return rfc3339(seconds * MICROSECONDS)


def explanation(
    loaded: Loaded,
    funnel: list[tuple[str, NDArray[np.bool_]]],
    shared: NDArray[np.float64],
    pairs: NDArray[np.float64],
    chosen: NDArray[np.int32],
    raw: NDArray[np.float64],
    best: NDArray[np.int32],
) -> dict[str, Any]:
    """How many offers each step left, and the columns as the model saw them: of those shown, then of the next best.

    For people who may see a customer's data.
    """
    layout = loaded.layout
    order = list(dict.fromkeys([*best.tolist(), *np.argsort(-raw, kind="stable").tolist()]))[: max(len(best), EXPLAINED_OFFERS_MAX)]

    def named(columns: list[Any], values: NDArray[np.float64]) -> dict[str, float | str | None]:
        return {column.name: layout.shown(column, value) for column, value in zip(columns, values, strict=True)}

    return {
        "offers": len(loaded.catalogue),
        "funnel": {step: int(mask.sum()) for step, mask in funnel},
        "customer": named([*layout.customer, *layout.context], shared),
        "considered": [
            {
                "offer_id": loaded.catalogue.offers[chosen[at]].offer_id,
                "name": loaded.catalogue.offers[chosen[at]].name,
                "raw": float(raw[at]),
                "propensity": float(loaded.calibrate(raw[at : at + 1])[0]),
                "columns": named(layout.offer, loaded.offer_values[chosen[at]]) | named(layout.pair, pairs[at]),
            }
            for at in order
        ],
    }
