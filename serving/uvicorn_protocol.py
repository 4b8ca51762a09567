"""uvicorn's HTTP protocol with a time and a size for the head of a request and one write an answer, which it lacks.

BentoML's worker makes `uvicorn.Config` itself with `http="auto"`; `install` puts our class where uvicorn looks that
name up, which must happen before the server starts: the service module's import is early enough.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sized
from typing import Any, cast

from uvicorn import config as uvicorn_config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from serving.http import problems
from serving.http.admission import SHOWN, Newcomers, RequestLimits
from serving.settings import KEEP_ALIVE_SECONDS

HEAD_SECONDS_MAX = 5.0
PIPELINED_MAX = 128
"""Requests of a connection that wait for the answer to the one before; what comes beyond them is dropped, and the
connection is closed after the last answer.
"""
UNSENT_SECONDS_MAX = 10.0
"""For which a client may leave unread what its connection can hold no more; it is then cut off."""
LINGER_BYTES_MAX = 64 * 1024 * 1024
"""Read and dropped after an answer that ends the connection, so that a client that writes first can read it."""
LINGER_SECONDS_MAX = 5.0
TRAILER_BYTES_MAX = RequestLimits().header_bytes_max
"""Of trailer fields, beyond the read in which they begin; they are dropped unseen in any case."""
TRAILER_FIELDS_MAX = RequestLimits().header_fields_max
_URI_BYTES_MAX = RequestLimits().uri_bytes_max
_CONTINUE = b"HTTP/1.1 100 "
_SLACK_BYTES = 4 * 1024  # the request line's other parts, colons and line ends


class _OneWrite:
    """A transport that holds an answer's head until its body follows: one system call and one wake-up of the client,
    not two.

    What is held leaves with the next write, with `flush` at the end of the answer, or with `close`.

    Args:
        unread: returns whether the client may be writing still when we close. The connection then lingers: we send no
            more, and read a while; with what is unread a close is a reset, which takes the answer along.
    """

    __slots__ = (
        "_held",
        "_transport",
        "_unread",
        "abort",
        "get_extra_info",
        "lingering",
        "pause_reading",
        "resume_reading",
    )

    def __init__(self, transport: asyncio.Transport, unread: Callable[[], bool]) -> None:
        self._transport, self._held, self._unread = transport, b"", unread
        self.abort, self.get_extra_info = transport.abort, transport.get_extra_info
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading
        self.lingering = False

    def is_closing(self) -> bool:
        return self.lingering or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        if self.lingering:
            return
        if self._held:
            data, self._held = self._held + data, b""
            self._transport.write(data)
        elif data.startswith(_CONTINUE):
            self._transport.write(data)
        else:
            self._held = data

    def flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)

    def close(self) -> None:
        self.flush()
        if self.lingering or self._transport.is_closing() or not self._unread():
            self._transport.close()
            return
        self.lingering = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()


class _Flow(FlowControl):
    """Reads no further while pipelined requests wait."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if self.read_paused and not self._pipeline:
            super().resume_reading()


class _Trailers:
    """Takes the place of the head's fields once the head is complete: what comes later is counted and dropped, since a
    trailer is no field of the head (RFC 9110, 6.5.1).
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def append(self, _: tuple[bytes, bytes]) -> None:
        self.count += 1


class GuardedProtocol(HttpToolsProtocol):
    """Closes a connection whose next request's head or trailers are not complete in time, or grow beyond their
    limit.
    """

    head_bytes_max = _URI_BYTES_MAX + RequestLimits().header_bytes_max + _SLACK_BYTES
    head_seconds_max = HEAD_SECONDS_MAX
    linger_seconds_max = LINGER_SECONDS_MAX
    unsent_seconds_max = UNSENT_SECONDS_MAX
    keep_alive_seconds = KEEP_ALIVE_SECONDS
    """A connection is closed after so long without a request; uvicorn's option of that name is not asked: BentoML sets
    it to 5 s.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.timeout_keep_alive = self.keep_alive_seconds  # type: ignore[assignment]  # fractions are fine for a timer
        self.access_log = False  # it would write targets that clients make up, for every request; the metrics count
        self._in_head, self._head_bytes = True, 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._trailers, self._trailer_bytes = _Trailers(), 0
        self._unsent_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._dropping, self._dropped_bytes = False, 0
        self._chunk_reads = 0
        """Reads since the line that began a chunk, while none of its data came: beyond one, it is the last chunk."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # `pause_writing` is called as soon as the system takes no more
        self._answer = _OneWrite(transport, self._linger)
        self.flow = _Flow(transport, self.pipeline)
        self.transport = cast(asyncio.Transport, self._answer)
        self._head_timer = self.loop.call_later(self.head_seconds_max, self._refuse_head, problems.ReceiveTimeout)
        self._newcomers: Newcomers = vars(self.server_state).setdefault("newcomers", Newcomers())
        self._new = True
        self._newcomers.add(self, transport.abort)

    def _shown(self) -> None:
        self._new = False
        self._newcomers.discard(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._shown()
        self._stop_timer()
        for timer in (self._unsent_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unsent_timer is None:
            self._unsent_timer = self.loop.call_later(self.unsent_seconds_max, self._answer.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unsent_timer is not None:
            self._unsent_timer.cancel()
            self._unsent_timer = None

    def data_received(self, data: bytes) -> None:
        if self._dropping:
            self._dropped_bytes += len(data)
            if self._dropped_bytes > LINGER_BYTES_MAX:
                self._answer.close()
            return
        super().data_received(data)
        # Bytes that leave no request being answered belong to a head, or to nothing: both have limited time and size.
        if self._in_head or not self._answering():
            if self._drops():
                return
            self._head_bytes += len(data)
            if self._head_bytes > self.head_bytes_max and self._in_head:
                long = len(self.url) > _URI_BYTES_MAX
                self._refuse_head(problems.UriTooLong if long else problems.HeadersTooLarge)
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(
                    self.head_seconds_max, self._refuse_head, problems.ReceiveTimeout
                )
        elif self._chunk_reads:
            self._bound_trailers(len(data))

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        # The parser fails beyond 64 KiB; what is over the limit is cut to just over it, for the front door to refuse by
        # 414.
        self.url = self.url[: _URI_BYTES_MAX + 2]
        if len(self.pipeline) >= PIPELINED_MAX:
            self._dropping = True
            self.pipeline[0][0].keep_alive = False  # the last one that came
            return
        if self._new:
            self.scope[SHOWN] = self._shown  # type: ignore[literal-required]
        super().on_headers_complete()
        self.headers = cast(list[tuple[bytes, bytes]], self._trailers)

    def on_body(self, body: bytes) -> None:
        if self._chunk_reads:
            self._end_trailers()
        if not self._dropping:
            super().on_body(body)

    def on_chunk_header(self) -> None:
        """Called by the parser after the line with a chunk's size, which it does not tell."""
        self._chunk_reads, self._trailer_bytes, self._trailers.count = 1, 0, 0

    def on_chunk_complete(self) -> None:
        """Called by the parser after a chunk, and after the last one's trailers."""
        if self._chunk_reads:
            self._end_trailers()

    def on_response_complete(self) -> None:
        self._answer.flush()
        super().on_response_complete()

    def _should_upgrade(self) -> bool:
        return False

    def _unsupported_upgrade_warning(self) -> None:
        """Said nothing: an Upgrade field is ignored, as RFC 9110 allows."""

    def _bound_trailers(self, size: int) -> None:
        """Holds what follows the line of a chunk without data against the limits of a head."""
        if self._chunk_reads > 1:
            self._trailer_bytes += size
        if self._trailer_bytes > TRAILER_BYTES_MAX or self._trailers.count > TRAILER_FIELDS_MAX:
            self._refuse_head(problems.HeadersTooLarge)
        elif self._head_timer is None and (self._chunk_reads > 1 or self._trailers.count):
            self._head_timer = self.loop.call_later(self.head_seconds_max, self._refuse_head, problems.ReceiveTimeout)
        self._chunk_reads += 1

    def _end_trailers(self) -> None:
        self._chunk_reads = 0
        self._stop_timer()

    def _drops(self) -> bool:
        return self._dropping

    def _linger(self) -> bool:
        """Return whether the client may be writing still; if so, the time for that begins."""
        cycle: RequestResponseCycle | None = self.cycle
        late = self._head_bytes > self.head_bytes_max if self._in_head else cycle is not None and cycle.more_body
        writing = self._drops() or late
        if writing:
            self._dropping = True
            self._linger_timer = self.loop.call_later(self.linger_seconds_max, self._answer.close)
        return writing

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse_head(self, kind: type[problems.Problem]) -> None:
        self._stop_timer()
        if self.transport.is_closing():
            return
        if self._unanswered():
            problem, request_id = kind(), b"wire"
            body = problems.document(problem, request_id)
            lines = [STATUS_LINE[kind.status]]
            lines += [b"%s: %s\r\n" % field for field in problems.headers(problem, body, request_id)]
            self.transport.write(b"".join([*lines, b"\r\n", body]))
        if self._answering():  # what waits for the rest of the request waits no longer
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _unanswered(self) -> bool:
        """Return whether an answer of ours would be the one that the client waits for."""
        if self._in_head:
            return self._begun() and not self._answering()
        return self._answering() and not self.cycle.response_started and not self.pipeline

    def _begun(self) -> bool:
        """Return whether the client has begun a request, so that an answer has something to answer."""
        return bool(getattr(self, "url", b""))


def install(keep_alive_seconds: float = KEEP_ALIVE_SECONDS) -> None:
    """Make `http="auto"` mean the guarded protocol in this process, with this time for idle connections."""
    GuardedProtocol.keep_alive_seconds = keep_alive_seconds
    uvicorn_config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{GuardedProtocol.__name__}"
