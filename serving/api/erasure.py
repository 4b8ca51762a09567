"""`DELETE /v1/customers/{id}`: forgetting, done by another process, so that no request waits for it.

What does it is a command that is given (`opportune forget - --json`): it takes the id from its standard input, where no
list of processes shows it, and answers with JSON. One runs at a time in each worker; the command itself waits for those
of other workers. One that takes longer than an answer may take goes on; asking again waits for it, or does what is
left.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from typing import NoReturn

import msgspec

from features.common.types import ID_CHARACTERS_MAX, ID_TEXT
from serving.http import problems
from serving.http.problems import Problem
from serving.http.routing import JSON_HEADERS, Answer, Call, Route

logger = logging.getLogger("opportune.forgetting")

ANSWER_SECONDS_MAX = 50.0
"""Beyond, the answer is 202 and the work goes on."""
RUN_SECONDS_MAX = 3_600.0
"""Beyond, the process is ended; what it has not done is gone on with later."""
BEGUN = 75
"""Exit status of a command that has begun and could not go on."""
RETRY_AFTER_SECONDS = 5

_UNIT = re.compile(rf"~?{ID_TEXT}")
_encode = msgspec.json.Encoder().encode


class ForgettingBusy(Problem):
    status, slug, title = 409, "forgetting-busy", "Another customer is being forgotten"
    text = "One customer is forgotten at a time. Wait as long as Retry-After says, and ask again."
    fixed_headers = ((b"retry-after", b"%d" % RETRY_AFTER_SECONDS),)


class ForgettingFailed(Problem):
    status, slug, title = 503, "forgetting-failed", "The forgetting could not be begun"
    text = "Nothing was removed. The service's log says why; ask again later, or use `opportune forget` on the machine."
    fixed_headers = ((b"retry-after", b"%d" % RETRY_AFTER_SECONDS),)


class PlaceCounted(msgspec.Struct, frozen=True):
    """What one place had of the customer, what was removed, and what a re-read finds."""

    found: int
    removed: int
    left: int
    how: str = ""


class Proof(msgspec.Struct, frozen=True):
    """How much was looked through for the id, how many files hold it, and which."""

    files: int
    bytes: int
    plaintext_hits: int
    where: list[str]
    not_looked_for: int = 0
    """Ids too short to be told from chance in raw bytes: that the places were read again is their proof."""


class Forgotten(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer; `done` is true when nothing is left anywhere. With 202 it is false: ask again."""

    done: bool
    at: str = ""
    """What happened before is refused, should it be told of later."""
    units: int = 0
    """The customer and the anonymous ids that were linked."""
    places: dict[str, PlaceCounted] = {}
    proof: Proof | None = None
    seconds: float = 0.0
    sources: str = ""


class Forgetting:
    """The handler of one worker.

    Args:
        command: what forgets the unit that it reads from its standard input, as a list of arguments.
    """

    def __init__(
        self,
        command: Sequence[str],
        answer_seconds_max: float = ANSWER_SECONDS_MAX,
        run_seconds_max: float = RUN_SECONDS_MAX,
    ) -> None:
        self._command = tuple(command)
        self._answer_seconds_max, self._run_seconds_max = answer_seconds_max, run_seconds_max
        self._unit = ""
        self._running: asyncio.Task[tuple[int, bytes]] | None = None

    async def delete(self, body: bytes, call: Call) -> Answer:
        """`DELETE /v1/customers/{id}`."""
        unit = call.parameters.get("id", "")
        if not _UNIT.fullmatch(unit) or len(unit.removeprefix("~")) > ID_CHARACTERS_MAX:
            raise problems.invalid("field-format", "/id", f"the id of a customer, or ~ and an anonymous id: {ID_TEXT}")
        if self._running is None or self._running.done():
            self._unit, self._running = unit, asyncio.create_task(self._run(unit))
        elif self._unit != unit:
            raise ForgettingBusy()
        try:
            status, said = await asyncio.wait_for(asyncio.shield(self._running), self._answer_seconds_max)
        except TimeoutError:
            return 202, JSON_HEADERS, _encode(Forgotten(done=False)), ()
        return self._answer(status, said)

    def _answer(self, status: int, said: bytes) -> Answer:
        if status == BEGUN:
            return 202, JSON_HEADERS, _encode(Forgotten(done=False)), ()
        try:
            forgotten = msgspec.json.decode(said, type=Forgotten)
        except msgspec.MsgspecError:
            self._failed(f"it ended with status {status} and no answer")
        return 200 if forgotten.done else 202, JSON_HEADERS, _encode(forgotten), ()

    async def _run(self, unit: str) -> tuple[int, bytes]:
        """Exit status of the command, and what it said."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self._failed(error.strerror or "it cannot be started")
        try:
            said, _ = await asyncio.wait_for(process.communicate(unit.encode() + b"\n"), self._run_seconds_max)
        except TimeoutError:
            process.kill()
            await process.wait()
            return BEGUN, b""
        return process.returncode or 0, said

    def _failed(self, why: str) -> NoReturn:
        logger.error("a customer was to be forgotten, and %s could not do it: %s", self._command[0], why)
        raise ForgettingFailed()

    def route(self) -> Route:
        """Return the route table's part that is about forgetting."""
        return Route(
            method="DELETE",
            path="/v1/customers/{id}",
            name="forget",
            summary="Forget a customer, or an anonymous id, everywhere, with the proof.",
            roles=frozenset(("admin",)),
            handler=self.delete,
            response=Forgotten,
            statuses={200: "Done, and proved.", 202: "Begun: late events are refused already. Ask again for the rest."},
            problems=(ForgettingBusy, ForgettingFailed, problems.FieldFormat),
        )
