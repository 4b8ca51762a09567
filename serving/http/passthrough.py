"""Asks an inner ASGI application, after the front door has admitted the request and received its body within the
limits.

The inner application's refusals quote input and have a form of their own: only their status counts, the text is ours.
"""

from __future__ import annotations

import asyncio

from serving.http import problems
from serving.http.problems import Headers, Problem
from serving.http.routing import Answer, AsgiApp, Call, Message

_REPLACED = frozenset({b"content-length", b"transfer-encoding", b"connection", b"x-request-id", b"server"})


async def ask(inner: AsgiApp, body: bytes, call: Call) -> Answer:
    """Return the inner application's answer, gathered whole; its failures as problems."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    status, headers, parts = 500, [], bytearray()

    async def receive() -> Message:
        if left:
            return left.pop()
        await asyncio.Event().wait()  # the body was all; an inner listener for the end of the connection waits
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            parts.extend(message.get("body", b""))

    await inner(call.scope, receive, send)
    if status >= 400:
        raise _problem(status)
    kept: Headers = [(name, value) for name, value in headers if name.lower() not in _REPLACED]
    return status, kept, bytes(parts), ()


def _problem(status: int) -> Problem:
    if status in (429, 503, 504):
        return problems.Overloaded()
    return problems.Internal() if status >= 500 else problems.Refused()
