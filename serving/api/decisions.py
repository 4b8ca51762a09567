"""The routes of the service: the decision over HTTP, and the same through BentoML's own API, for BentoML's own
clients.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Annotated, Any

import msgspec

from features.common.types import OFFERS_CONSIDERED, Decision, DecisionRequest
from features.events.journal import Line
from features.workspace.workspace import Workspace
from serving.api.experiment_metrics import ArmCounts
from serving.decision.answer import DEGRADED
from serving.decision.case import DecisionInputs
from serving.decision.decide import STAGES, deciding
from serving.http import problems
from serving.http.auth import Role
from serving.http.passthrough import ask
from serving.http.routing import EVENTS_BODY_BYTES_MAX, JSON_HEADERS, Answer, AsgiApp, Call, Handler, Route
from serving.http.strict_json import StrictDecoder
from serving.hub.request_check import BadContext, BadRequest, UnknownPlacement, check_request
from serving.journal.journal import Journal
from serving.reload.reloader import REFUSED, Reloader
from serving.runtime.cooperative import turn
from serving.runtime.metrics import Metrics
from serving.state.snapshot import Snapshot

MANY_REQUESTS_MAX = 500

OTHER = "other"
"""The label of placements that were declared after this worker's start."""

RECORDED, FAILED = RESULTS = ("recorded", "failed")

_encode = msgspec.json.Encoder().encode


class DecisionRequests(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Several requests, answered in order."""

    requests: Annotated[list[DecisionRequest], msgspec.Meta(min_length=1, max_length=MANY_REQUESTS_MAX)]


class Decisions:
    """Handlers of decisions for one worker."""

    def __init__(
        self, reloader: Reloader, workspace: Workspace, metrics: Metrics, journal: Journal | None = None
    ) -> None:
        self.reloader, self.journal = reloader, journal
        self._customers, self._effects = reloader.stores.customers, reloader.stores.effects
        self._workspace = workspace
        self._decode = _decoder(workspace)
        self._decode_many = StrictDecoder(DecisionRequests)
        self._placements = frozenset(workspace.offers.placements)  # those of the start: a metric's labels cannot grow
        labels = (*workspace.offers.placements, OTHER)
        self._decisions = metrics.counter(
            "opportune_decisions_total", "Answered decisions, by placement.", placement=labels
        )
        self._degraded = metrics.counter(
            "opportune_degraded_total", "Decisions that were less than they could be.", reason=DEGRADED
        )
        self._offers = metrics.counter("opportune_offers_shown_total", "Offers in answered decisions.")
        self._lines = metrics.counter(
            "opportune_journal_lines_total", "Answered decisions, by whether they were recorded.", result=RESULTS
        )
        refused = metrics.counter("opportune_refused_total", "Times that a worker refused what is new.", what=REFUSED)
        metrics.info(
            "opportune_bundle_info", "The bundle and the policies that serve.", "name", "version", "bundle", "config"
        )
        self._metrics, self.arms = metrics, ArmCounts(metrics)
        reloader.on_load, reloader.on_refusal = self._loaded, refused.add

    def _loaded(self, loaded: Snapshot) -> None:
        self._workspace, self._decode = loaded.workspace, _decoder(loaded.workspace)
        self.arms.prepare(loaded)
        self._metrics.set_info(loaded.stamp.name, loaded.stamp.version, loaded.stamp.bundle, loaded.hub.config)

    async def post(self, body: bytes, call: Call) -> Answer:
        """`POST /v1/decisions`."""
        request = self._decode(body)
        _check_role(request, call)
        stages: list[int] = []
        decision = await self.answer(request, stages)
        return 200, JSON_HEADERS, _encode(decision), stages

    async def answer(self, request: DecisionRequest, stages: list[int] | None = None) -> Decision:
        """Return one decision.

        Raises:
            Problem: what the request says does not fit the workspace, or nothing serves yet.
        """
        loaded = self._serving()
        begin = perf_counter_ns()
        now = self.reloader.clock()
        customer = self._customers.known_now(request.unit, loaded, now)
        if customer is None:
            customer = await self._customers.known(request.unit, loaded, now, request)
        if stages is not None:
            stages.append(perf_counter_ns() - begin)
        record = None if self.journal is None else self._record
        steps = deciding(DecisionInputs(request, loaded, customer, now, stages=stages, record=record))
        try:
            effect = next(steps)
            while True:
                effect = steps.send(await self._effects.run(effect, customer.contacts))
        except StopIteration as done:
            decision: Decision = done.value
        except (UnknownPlacement, BadContext, BadRequest) as error:
            raise self._invalid(error) from error
        for placement in request.asked:
            self._decisions.add(placement if placement in self._placements else OTHER)
        self._offers.add(count=len(decision.offers))
        for reason in decision.degraded:
            self._degraded.add(reason)
        if loaded.experiment_states.active:
            self.arms.decided(decision, loaded.experiment_states, request.asked)
        return decision

    def _record(self, line: Line) -> None:
        assert self.journal is not None
        self._lines.add(RECORDED if self.journal.append(line) else FAILED)

    def _invalid(self, error: UnknownPlacement | BadContext | BadRequest, at: str = "") -> problems.Problem:
        if isinstance(error, BadRequest):
            return problems.invalid(error.code, f"{at}/{error.field}", error.expected)
        if isinstance(error, BadContext):
            known = error.name in self._workspace.features.context  # what a client made up is not repeated
            return problems.invalid(
                error.code, f"{at}/context/{error.name}" if known else f"{at}/context", error.expected
            )
        return problems.invalid(
            "field-value", f"{at}/placement", f"one of {', '.join(self._workspace.offers.placements)}"
        )

    async def plain(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a decision for BentoML's API, which brings builtins and wants builtins; as strict as the HTTP
        route.
        """
        return dict(msgspec.to_builtins(await self.answer(self._decode(_encode(request)))))

    async def many(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Several decisions in order; between two of them others have their turn."""
        answers = []
        for request in requests:
            answers.append(await self.plain(request))
            await turn()
        return answers

    def _through(self, inner: AsgiApp, requests: Callable[[bytes], list[tuple[str, DecisionRequest]]]) -> Handler:
        """Return a handler that checks all that `answer` would refuse, for what is raised within BentoML loses its
        form, then asks BentoML.
        """

        async def handler(body: bytes, call: Call) -> Answer:
            for at, request in requests(body):
                _check_role(request, call)
                try:
                    check_request(self._workspace, request)
                except (UnknownPlacement, BadContext, BadRequest) as error:
                    raise self._invalid(error, at) from error
            self._serving()
            return await ask(inner, body, call)

        return handler

    def _one(self, body: bytes) -> list[tuple[str, DecisionRequest]]:
        return [("", self._decode(body))]

    def _several(self, body: bytes) -> list[tuple[str, DecisionRequest]]:
        return [(f"/requests/{at}", request) for at, request in enumerate(self._decode_many(body).requests)]

    def _serving(self) -> Snapshot:
        if self.reloader.loaded is None:
            raise problems.NotReady(self.reloader.refusal or "the worker is loading")
        return self.reloader.loaded

    def ready(self) -> str | None:
        """None when this worker may be asked, else why not."""
        return None if self.reloader.loaded is not None else (self.reloader.refusal or "the worker is loading")

    def routes(self, inner: AsgiApp) -> tuple[Route, ...]:
        """Return the route table's part that is about decisions; `inner` is BentoML's application."""
        roles: frozenset[Role] = frozenset(("decide", "admin"))
        return (
            Route(
                method="POST",
                path="/v1/decisions",
                name="decisions",
                summary="Which offers, in which order, for this customer, here and now.",
                roles=roles,
                handler=self.post,
                request=DecisionRequest,
                response=Decision,
                stages=STAGES,
                problems=(problems.NotReady,),
            ),
            Route(
                method="POST",
                path="/decide",
                name="decide",
                summary="The same for BentoML's own clients.",
                roles=roles,
                handler=self._through(inner, self._one),
                request=DecisionRequest,
                response=Decision,
                problems=(problems.NotReady, problems.Refused),
            ),
            Route(
                method="POST",
                path="/decide_many",
                name="decide_many",
                summary="Several decisions in one call, for BentoML's own clients.",
                roles=roles,
                handler=self._through(inner, self._several),
                body_bytes_max=EVENTS_BODY_BYTES_MAX,
                request=DecisionRequests,
                response=list[Decision],
                problems=(problems.NotReady, problems.Refused),
            ),
            Route(
                method="GET",
                path="/schema.json",
                name="schema",
                summary="What BentoML's own clients read first: the methods and their types.",
                roles=roles,
            ),
        )


def _decoder(workspace: Workspace) -> StrictDecoder[DecisionRequest]:
    return StrictDecoder(DecisionRequest, {"context": frozenset(workspace.features.context) - {OFFERS_CONSIDERED}})


def _check_role(request: DecisionRequest, call: Call) -> None:
    if request.explain and call.caller is not None and "admin" not in call.caller.roles:
        raise problems.Forbidden(
            "Expected a key with the role admin for `explain`: an explanation shows the customer's data."
        )
