"""Experiments over HTTP, for A/B frameworks: what there is, and which arm a unit has. Asking changes nothing."""

from __future__ import annotations

import re

import msgspec

from features.common.missing import EXPECTED_ID, NOBODY
from features.common.types import (
    ANONYMOUS,
    ID_CHARACTERS_MAX,
    ID_PATTERN,
)
from features.config.experiments import Unit
from features.workspace.workspace import Workspace
from serving.api.experiment_views import (
    AssignmentRequest,
    AssignmentRequests,
    AssignmentsAnswer,
    AssignmentsView,
    ExperimentsAnswer,
    UnitAssignment,
    assignment_view,
    experiments_view,
)
from serving.api.preview import Answered, Enquiry
from serving.assignment.assignment import Units
from serving.http import problems
from serving.http.auth import Role
from serving.http.routing import EVENTS_BODY_BYTES_MAX, JSON_HEADERS, Answer, Call, Route
from serving.http.strict_json import StrictDecoder
from serving.hub.request_check import BadContext, check_context
from serving.runtime.cooperative import turn
from serving.state.snapshot import Snapshot

ITEMS_A_TURN = 16
"""Requests that are answered before others have their turn on the loop."""

_encode = msgspec.json.Encoder().encode
_is_id = re.compile(ID_PATTERN).match


class ExperimentRoutes:
    """Handlers of experiments for one worker."""

    def __init__(self, enquiry: Enquiry) -> None:
        self._enquiry = enquiry
        self._decode = StrictDecoder(AssignmentRequests)

    async def listed(self, _: bytes, __: Call) -> Answer:
        """`GET /v1/experiments`."""
        return 200, JSON_HEADERS, _encode(experiments_view(self._enquiry.serving())), ()

    async def one(self, _: bytes, call: Call) -> Answer:
        """`GET /v1/experiments/{key}/assignments/{unit}`."""
        loaded = self._enquiry.serving()
        key, unit = call.parameters["key"], call.parameters["unit"]
        entry = loaded.workspace.experiments.experiments.get(key)
        if entry is None:
            raise problems.NotFound("This workspace has no such experiment; GET /v1/experiments lists them.")
        answered = await self._enquiry.ask(loaded, _units(entry.unit, unit), {}, key)
        lacked = self._enquiry.lacked(loaded, answered, key)
        return (
            200,
            JSON_HEADERS,
            _encode(UnitAssignment(unit, answered.assigned.group.name, assignment_view(answered.of(key)), lacked)),
            (),
        )

    async def many(self, body: bytes, _: Call) -> Answer:
        """`POST /v1/assignments`."""
        asked = self._decode(body).requests
        loaded = self._enquiry.serving()
        for at, request in enumerate(asked):
            _check(loaded.workspace, request, f"/requests/{at}")
        results = []
        for at, request in enumerate(asked):
            if at and at % ITEMS_A_TURN == 0:
                await turn()
            units = Units(request.customer_id, request.anonymous_id or "", request.account or "")
            only = request.experiments[0] if request.experiments is not None and len(request.experiments) == 1 else ""
            results.append(
                self._chosen(loaded, await self._enquiry.ask(loaded, units, request.context, only), request.experiments)
            )
        return 200, JSON_HEADERS, _encode(AssignmentsAnswer(tuple(results))), ()

    def _chosen(self, loaded: Snapshot, answered: Answered, keys: list[str] | None) -> AssignmentsView:
        """Return what was asked for, and why any of it may be less than it could be."""
        wanted = None if keys is None else frozenset(keys)
        chosen = [one for one in answered.assigned.assignments if wanted is None or one.experiment in wanted]
        lacked = dict.fromkeys(
            reason for one in chosen for reason in self._enquiry.lacked(loaded, answered, one.experiment)
        )
        return AssignmentsView(answered.assigned.group.name, tuple(map(assignment_view, chosen)), tuple(lacked))

    def routes(self) -> tuple[Route, ...]:
        """Return the route table's part that is about experiments."""
        roles: frozenset[Role] = frozenset(("experiments", "admin"))
        return (
            Route(
                method="GET",
                path="/v1/experiments",
                name="experiments",
                summary="All experiments with their arms, the holdout and the control groups.",
                roles=roles,
                handler=self.listed,
                response=ExperimentsAnswer,
                problems=(problems.NotReady,),
            ),
            Route(
                method="GET",
                path="/v1/experiments/{key}/assignments/{unit}",
                name="assignment",
                summary="Which arm a unit has, by the experiment's own kind of unit; nothing is written.",
                roles=roles,
                handler=self.one,
                response=UnitAssignment,
                problems=(problems.NotReady, problems.NotFound, problems.FieldFormat),
            ),
            Route(
                method="POST",
                path="/v1/assignments",
                name="assignments",
                summary="Which arms several units have, 1 to 500; nothing is written.",
                roles=roles,
                handler=self.many,
                body_bytes_max=EVENTS_BODY_BYTES_MAX,
                request=AssignmentRequests,
                response=AssignmentsAnswer,
                problems=(problems.NotReady,),
            ),
        )


def _units(kind: Unit, text: str) -> Units:
    """Return a unit as it stands in a path, by the kind that the experiment randomizes."""
    unit = text.removeprefix(ANONYMOUS) if kind == "anonymous" else text
    if len(unit) > ID_CHARACTERS_MAX or not _is_id(unit):
        expected = (
            f"the id of the experiment's unit ({kind}): 1 to {ID_CHARACTERS_MAX} letters, digits and . _ : @ + = | ~ -"
        )
        raise problems.invalid("field-format", "/unit", expected)
    if unit in NOBODY:
        raise problems.invalid("field-value", "/unit", EXPECTED_ID)
    return Units(**{kind: unit})


def _check(workspace: Workspace, request: AssignmentRequest, at: str) -> None:
    if not request.customer_id and not request.anonymous_id and not request.account:
        raise problems.invalid("field-missing", f"{at}/customer_id", "a customer_id, an anonymous_id or an account")
    for name in ("customer_id", "anonymous_id", "account"):
        if getattr(request, name) in NOBODY:
            raise problems.invalid("field-value", f"{at}/{name}", EXPECTED_ID)
    if request.experiments is not None:
        for place, key in enumerate(request.experiments):
            if key not in workspace.experiments.experiments:
                raise problems.invalid("field-value", f"{at}/experiments/{place}", "an experiment of this workspace")
    try:
        check_context(workspace.features.context, request.context)
    except BadContext as error:
        known = error.name in workspace.features.context  # what a client made up is not repeated
        raise problems.invalid(
            error.code, f"{at}/context/{error.name}" if known else f"{at}/context", error.expected
        ) from None
