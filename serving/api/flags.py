"""The flags of OFREP: `experiment.<key>` is the arm of a unit, `offers.<placement>` what is offered there, best first.

A single evaluation of offers is a decision: it is journalled, and takes contacts. One of a sticky experiment writes the
arm down. The bulk evaluation is for clients that fetch all flags beforehand, whether or not they use them: it exposes
nobody, takes nothing, writes nothing.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, cast

import msgspec

from features.common.types import Decision, DecisionRequest
from serving.api.decisions import Decisions
from serving.api.ofrep import (
    EXPERIMENT,
    FLAGS_PATH,
    OFFERS,
    REFUSAL,
    Evaluation,
    EvaluationFailure,
    EvaluationRequest,
    Evaluations,
    FlagNotFound,
    FlagQuery,
    InvalidContext,
    Reason,
    Scalar,
    TargetingKeyMissing,
    failure_of,
    flag_of,
    read_evaluation,
)
from serving.api.preview import Enquiry
from serving.api.rate_limit import Rate
from serving.assignment.assignment import HOLDOUT, Assignment
from serving.decision.answer import CONTACTS_UNAVAILABLE
from serving.http import problems
from serving.http.auth import Caller, Role
from serving.http.routing import JSON_HEADERS, NOT_MODIFIED, Answer, Call, Route
from serving.hub.request_check import BadContext, BadRequest, UnknownPlacement
from serving.runtime.cooperative import turn
from serving.state.snapshot import Snapshot

ETAG_BYTES = 12
POLLING_MILLISECONDS_MIN = 60_000
DEGRADED = "degraded"
"""Of metadata: why an evaluation is less than it could be, with commas."""

_CONFIGURATION = msgspec.json.encode(
    {
        "name": "Opportune",
        "capabilities": {
            "cacheInvalidation": {"polling": {"enabled": True, "minPollingIntervalMs": POLLING_MILLISECONDS_MIN}},
            "flagEvaluation": {"supportedTypes": ["string", "object"]},
        },
    }
)
_OF_OFFERS = frozenset(("decide", "admin"))
_PROBLEMS = (problems.NotReady, problems.RateLimited, TargetingKeyMissing, InvalidContext)

_encode = msgspec.json.Encoder().encode


class Flags:
    """Handlers of flags for one worker."""

    def __init__(self, enquiry: Enquiry, decisions: Decisions, per_second: int | None = None) -> None:
        self._enquiry, self._decisions = enquiry, decisions
        self._rate = None if per_second is None else Rate(per_second)

    async def one(self, body: bytes, call: Call) -> Answer:
        """`POST /ofrep/v1/evaluate/flags/{key}`."""
        loaded = self._admitted(call)
        flag = flag_of(call.parameters["key"])
        if flag.startswith(EXPERIMENT):
            evaluation = await self._arm(flag, loaded, body)
        elif flag.startswith(OFFERS) and _may_decide(call.caller):
            evaluation = await self._offers(flag, loaded, body)
        else:
            raise FlagNotFound()
        return 200, JSON_HEADERS, _encode(evaluation), ()

    async def _arm(self, flag: str, loaded: Snapshot, body: bytes) -> Evaluation:
        key = flag[len(EXPERIMENT) :]
        if key not in loaded.workspace.experiments.experiments:
            raise FlagNotFound()
        asked = read_evaluation(body, loaded.workspace.features.context)
        answered = await self._enquiry.ask(loaded, asked.units, asked.context, key)
        lacked, one = self._enquiry.lacked(loaded, answered, key), await self._enquiry.settle(loaded, answered, key)
        if one.to_store is not None and CONTACTS_UNAVAILABLE not in lacked:  # it wants to be written down, still
            lacked = (*lacked, CONTACTS_UNAVAILABLE)
        if one.arm is not None:
            self._decisions.arms.flagged(key, one.arm)
        return _evaluation(flag, one, answered.assigned.group.name, loaded, lacked)

    async def _offers(self, flag: str, loaded: Snapshot, body: bytes) -> Evaluation:
        placement = flag[len(OFFERS) :]
        if placement not in loaded.workspace.offers.placements:
            raise FlagNotFound()
        asked = read_evaluation(body, loaded.workspace.features.context)
        try:
            decision = await self._decisions.answer(_request(asked, placement))
        except problems.Invalid as invalid:
            raise _unfit(invalid) from None
        return _ranked(flag, decision, decision.decision_id)

    async def all(self, body: bytes, call: Call) -> Answer:
        """`POST /ofrep/v1/evaluate/flags`."""
        loaded = self._admitted(call)
        asked = read_evaluation(body, loaded.workspace.features.context)
        answered = await self._enquiry.ask(loaded, asked.units, asked.context)
        group = answered.assigned.group.name
        flags: list[Evaluation | EvaluationFailure] = [
            _evaluation(
                EXPERIMENT + one.experiment, one, group, loaded, self._enquiry.lacked(loaded, answered, one.experiment)
            )
            for one in answered.assigned.assignments
        ]
        if _may_decide(call.caller):
            for placement in loaded.workspace.offers.placements:
                await turn()  # a decision each: others have their turn in between
                flags.append(await self._glimpse(OFFERS + placement, asked, placement))
        return _unless_known(_encode(_together(flags)), call)

    async def _glimpse(self, flag: str, asked: FlagQuery, placement: str) -> Evaluation | EvaluationFailure:
        """Return what would be offered. No decision has this answer, so that it has no id either."""
        try:
            return _ranked(flag, await self._enquiry.glimpse(_request(asked, placement)), None)
        except (BadContext, BadRequest) as unfit:
            return failure_of(InvalidContext(f"Expected {unfit}."), flag)
        except UnknownPlacement:  # files without it were taken while this answer was under way
            return failure_of(FlagNotFound(), flag)

    async def configuration(self, _: bytes, call: Call) -> Answer:
        """`GET /ofrep/v1/configuration`, which clients of OFREP 0.1 ask for."""
        return _unless_known(_CONFIGURATION, call)

    def _admitted(self, call: Call) -> Snapshot:
        if self._rate is not None:
            self._rate.take("" if call.caller is None else call.caller.name)
        return self._enquiry.serving()

    def routes(self) -> tuple[Route, ...]:
        """Return the route table's part that is about flags."""
        roles: frozenset[Role] = frozenset(("decide", "experiments", "admin"))
        return (
            Route(
                method="POST",
                path=FLAGS_PATH + "/{key}",
                name="ofrep_flag",
                summary="OFREP: one flag. `offers.<placement>` is a decision, and needs the role decide or admin.",
                roles=roles,
                handler=self.one,
                request=EvaluationRequest,
                response=Evaluation,
                open_ended=True,
                problems=(*_PROBLEMS, FlagNotFound),
                refusal=REFUSAL,
            ),
            Route(
                method="POST",
                path=FLAGS_PATH,
                name="ofrep_flags",
                summary="OFREP: all flags that the key may ask for; nothing is decided, written or counted.",
                roles=roles,
                handler=self.all,
                request=EvaluationRequest,
                response=Evaluations,
                statuses={200: "All flags, with an ETag.", NOT_MODIFIED: "As `If-None-Match` knows them."},
                problems=_PROBLEMS,
                refusal=REFUSAL,
            ),
            Route(
                method="GET",
                path="/ofrep/v1/configuration",
                name="ofrep_configuration",
                summary="OFREP 0.1: what the service can do.",
                roles=roles,
                handler=self.configuration,
                statuses={200: "What this service can do, with an ETag.", NOT_MODIFIED: "As `If-None-Match` knows it."},
                refusal=REFUSAL,
            ),
        )


def _may_decide(caller: Caller | None) -> bool:
    return caller is None or not caller.roles.isdisjoint(_OF_OFFERS)


def _request(asked: FlagQuery, placement: str) -> DecisionRequest:
    units = asked.units
    return DecisionRequest(units.customer, placement, context=asked.context, anonymous_id=units.anonymous)


def _unfit(invalid: problems.Invalid) -> InvalidContext:
    return InvalidContext(
        "; ".join(f"Expected {error.pointer[1:].replace('/', '.')}: {error.expected}" for error in invalid.errors) + "."
    )


def _evaluation(flag: str, one: Assignment, group: str | None, loaded: Snapshot, lacked: tuple[str, ...]) -> Evaluation:
    metadata: dict[str, Scalar] = {"assignment": one.reason, "covered": one.covered}
    if lacked:
        metadata[DEGRADED] = ",".join(lacked)
    if one.bucket is not None:
        metadata["bucket"] = one.bucket
    metadata |= _group(group)
    if one.arm is None:
        return Evaluation(flag, "DISABLED", "", metadata=metadata)
    if one.probability is not None:
        metadata["probability"] = one.probability
    return Evaluation(flag, _reason(one, loaded), one.arm, one.arm, metadata)


def _group(name: str | None) -> dict[str, Scalar]:
    if name is None:
        return {}
    return {"holdout": True} if name == HOLDOUT else {"controlGroup": name}


def _reason(one: Assignment, loaded: Snapshot) -> Reason:
    """An arm that everybody gets who may get one is no split."""
    if one.probability is None or one.probability < 1 or one.covered < 1:
        return "SPLIT"
    return "STATIC" if loaded.workspace.experiments.experiments[one.experiment].targeting is None else "TARGETING_MATCH"


def _ranked(flag: str, decision: Decision, decision_id: str | None) -> Evaluation:
    arms = {one.key: one.arm for one in decision.experiments or ()}
    group = decision.group or None
    metadata: dict[str, Scalar] = {"model": decision.model.version, "config": decision.config}
    if decision_id is not None:
        metadata |= {"decisionId": decision_id, "expiresAt": decision.expires_at}
    if decision.degraded:
        metadata[DEGRADED] = ",".join(decision.degraded)
    metadata |= _group(group)
    reason: Reason = "TARGETING_MATCH"
    if group == HOLDOUT:
        reason = "DISABLED"
    elif arms or group is not None:
        reason = "SPLIT"
    elif decision.degraded or not decision.offers:
        reason = "STATIC"
    value: dict[str, Any] = {"decision_id": decision_id, "offers": decision.offers}
    return Evaluation(flag, reason, ",".join(f"{key}={arm}" for key, arm in arms.items()), value, metadata)


def _together(flags: list[Evaluation | EvaluationFailure]) -> Evaluations:
    lacked = [str(one.metadata[DEGRADED]) for one in flags if isinstance(one, Evaluation) and DEGRADED in one.metadata]
    reasons = dict.fromkeys(",".join(lacked).split(",")) if lacked else {}
    return Evaluations(cast(list[Evaluation], flags), {DEGRADED: ",".join(reasons)} if reasons else {})


def _unless_known(answer: bytes, call: Call) -> Answer:
    """Return the answer with its ETag, or 304 where `If-None-Match` has it."""
    etag = b'"%s"' % blake2b(answer, digest_size=ETAG_BYTES).hexdigest().encode()
    headers = [*JSON_HEADERS, (b"etag", etag)]
    if _matches(call.fields.get(b"if-none-match"), etag):
        return NOT_MODIFIED, headers[1:], b"", ()
    return 200, headers, answer, ()


def _matches(given: bytes | None, etag: bytes) -> bool:
    return given is not None and any(one.strip(b" \t").removeprefix(b"W/") in (etag, b"*") for one in given.split(b","))
