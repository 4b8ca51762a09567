"""What can be wrong with a request: one class a problem, with its status, slug, title and public text (RFC 9457).

A text is a constant or speaks of positions, types and limits; it never repeats what the client sent.
Bytes that cannot be read are 400; what can be read and breaks the contract is 422.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import msgspec
from msgspec import Struct

Headers = list[tuple[bytes, bytes]]

TYPE_PREFIX = "urn:opportune:problem:"
MEDIA_TYPE = "application/problem+json"
ERRORS_MAX = 20
RETRY_AFTER_SECONDS = 1


class FieldError(Struct, frozen=True):
    """One field that breaks the contract; `pointer` (RFC 6901) names only fields that the contract knows."""

    pointer: str
    code: str
    expected: str


class ProblemDocument(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of every answer that is not a success."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: tuple[FieldError, ...] = ()


class Problem(Exception):
    """A refusal. Raise it anywhere behind the front door; the front door answers it and counts it by its slug."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = ""
    title: ClassVar[str] = ""
    text: ClassVar[str] = ""
    fixed_headers: ClassVar[tuple[tuple[bytes, bytes], ...]] = ()
    closes: ClassVar[bool] = False
    """Whether the connection ends with the answer, because unread bytes may follow."""

    def __init__(
        self,
        text: str | None = None,
        errors: tuple[FieldError, ...] = (),
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(self.slug)
        self.detail = self.text if text is None else text
        self.errors = errors[:ERRORS_MAX]
        self.headers = self.fixed_headers + headers


class Unreadable(Problem):
    """400: the body is not JSON as RFC 8259 and we mean it."""

    status = 400


class BodyEmpty(Unreadable):
    slug, title = "body-empty", "The body is empty"
    text = "Expected a JSON object as the body, came nothing. Send the document that /openapi.json describes."


class JsonInvalid(Unreadable):
    slug, title = "json-invalid", "The body is not valid JSON"
    text = "Expected JSON in UTF-8 without a byte order mark (RFC 8259)."


class JsonDuplicateKey(Unreadable):
    slug, title = "json-duplicate-key", "An object has a key twice"
    text = "Expected every key once in its object, came one key twice. Send each key once."


class JsonTooDeep(Unreadable):
    slug, title = "json-too-deep", "The body is nested too deeply"
    text = "Expected at most 16 levels of arrays and objects."


class Refused(Problem):
    status, slug, title = 400, "request-refused", "The service refused the request"
    text = "The body is valid JSON but not what this route takes. /openapi.json describes it."


class Malformed(Problem):
    status, slug, title, closes = 400, "parser", "The HTTP request is malformed", True
    text = "Expected a well-formed HTTP/1.1 request with one Host and each framing field once."


class Unauthenticated(Problem):
    status, slug, title = 401, "unauthenticated", "A valid key is needed"
    text = "Expected a valid key as `Authorization: Bearer KEY` or `X-API-Key: KEY`."
    fixed_headers = ((b"www-authenticate", b'Bearer realm="opportune"'),)


class Forbidden(Problem):
    status, slug, title = 403, "forbidden", "The key may not use this route"
    text = "The key is valid but has none of the roles that this route asks for; /openapi.json names them."


class NotFound(Problem):
    status, slug, title = 404, "not-found", "No such resource"
    text = (
        "Paths are compared byte by byte: no trailing slash, no percent-encoding but in ids and keys. /openapi.json"
        " lists them."
    )


class MethodNotAllowed(Problem):
    status, slug, title = 405, "method", "The method is not allowed here"
    text = "Expected one of the methods in the Allow header."


class NotAcceptable(Problem):
    status, slug, title = 406, "not-acceptable", "No acceptable representation"
    text = "The Accept header excludes what this route answers. Leave it out or send `Accept: application/json`."


class ReceiveTimeout(Problem):
    status, slug, title, closes = 408, "timeout", "The request came too slowly", True
    text = "Expected the whole request within its time limit. Send it in one piece and try again."


class BodyTooLarge(Problem):
    status, slug, title, closes = 413, "body-too-large", "The body is too large", True
    text = "The body is larger than this route takes; docs/http-api.md names the limits."


class BatchSize(Problem):
    status, slug, title = 413, "batch-size", "The batch has too many items"
    text = "Expected at most 500 events in one call. Send the others in another."


class UriTooLong(Problem):
    status, slug, title, closes = 414, "uri-too-long", "The request target is too long", True
    text = "Expected at most 8 KiB of path and query."


class MediaType(Problem):
    status, slug, title = 415, "media-type", "The content type is not supported"
    text = "Expected `Content-Type: application/json`, with no charset or utf-8."
    fixed_headers = ((b"accept-post", b"application/json"),)


class ContentEncoding(Problem):
    status, slug, title = 415, "content-encoding", "The content encoding is not supported"
    text = "Expected no Content-Encoding or identity: a body is never inflated."
    fixed_headers = ((b"accept-post", b"application/json"), (b"accept-encoding", b"identity"))


class OriginNotLocal(Problem):
    status, slug, title = 403, "origin-not-local", "This service takes beacons of local pages only"
    text = (
        "No keys are configured, so a body of text/plain, which any web page can send, is taken only from pages of this"
        " machine. Configure keys (OPPORTUNE_KEYS_FILE) to serve others."
    )


class HostNotLocal(Problem):
    status, slug, title = 421, "host-not-local", "This service answers on loopback only"
    text = (
        "No keys are configured, so only clients on this machine that name the host localhost, 127.0.0.1 or [::1] are "
        "served. Configure keys (OPPORTUNE_KEYS_FILE) to serve others."
    )


class RateLimited(Problem):
    status, slug, title = 429, "rate-limited", "Too many requests"
    text = "The key has used up its rate. Wait as long as Retry-After says."
    fixed_headers = ((b"retry-after", b"%d" % RETRY_AFTER_SECONDS),)


class HeadersTooLarge(Problem):
    status, slug, title, closes = 431, "headers-too-large", "The header section is too large", True
    text = "Expected at most 100 header fields of 16 KiB together."


class Internal(Problem):
    status, slug, title = 500, "internal", "The service failed"
    text = "The failure is in the service's log under the request id. Trying again may help."


class Overloaded(Problem):
    status, slug, title = 503, "overloaded", "The service is at its limit"
    text = "Too many requests are in flight. Wait as long as Retry-After says."
    fixed_headers = ((b"retry-after", b"%d" % RETRY_AFTER_SECONDS),)


class EventsUnavailable(Problem):
    status, slug, title = 503, "events-unavailable", "Events cannot be kept now"
    text = "Nothing of this request is acknowledged. Send it again, unchanged: what was kept is recognised."
    fixed_headers = ((b"retry-after", b"%d" % RETRY_AFTER_SECONDS),)


class NotReady(Problem):
    status, slug, title = 503, "not-ready", "The service is not ready"
    text = "The service is starting: no bundle has passed its rehearsal yet."
    fixed_headers = ((b"retry-after", b"%d" % RETRY_AFTER_SECONDS),)


class Draining(Problem):
    status, slug, title, closes = 503, "draining", "The service is stopping", True
    text = "This server is about to stop. Send the request to another, or here again in a moment."
    fixed_headers = ((b"retry-after", b"%d" % RETRY_AFTER_SECONDS),)


class Invalid(Problem):
    """422: readable JSON that breaks the contract; `errors` say where and what was expected."""

    status = 422
    text = "The body is JSON but breaks the contract; `errors` say where and what was expected."


class NotAnObject(Invalid):
    slug, title = "not-an-object", "The body is not a JSON object"


class FieldUnknown(Invalid):
    slug, title = "field-unknown", "A field is not part of the contract"


class FieldMissing(Invalid):
    slug, title = "field-missing", "A required field is missing"


class FieldType(Invalid):
    slug, title = "field-type", "A field has the wrong type"


class FieldLength(Invalid):
    slug, title = "field-length", "A text is too short or too long"


class FieldFormat(Invalid):
    slug, title = "field-format", "A text has the wrong form"


class FieldValue(Invalid):
    slug, title = "field-value", "A value is not one of the known ones"


class OutOfRange(Invalid):
    slug, title = "out-of-range", "A number is out of range"


class NumberNotFinite(Invalid):
    slug, title = "number-not-finite", "A number is not finite"


class TooManyItems(Invalid):
    slug, title = "too-many-items", "A list or object has too many items"


class TooFewItems(Invalid):
    slug, title = "too-few-items", "A list or object has too few items"


def _concrete(base: type[Problem]) -> Iterator[type[Problem]]:
    for kind in base.__subclasses__():
        if kind.slug:
            yield kind
        yield from _concrete(kind)


def catalogue() -> dict[str, type[Problem]]:
    """Return every problem that this service can answer, by slug; other rooms may add their own subclasses before
    boot.
    """
    return {kind.slug: kind for kind in sorted(_concrete(Problem), key=lambda kind: (kind.status, kind.slug))}


def invalid(code: str, pointer: str, expected: str) -> Problem:
    """Return the 422 whose slug is `code`, about one field."""
    return catalogue()[code](errors=(FieldError(pointer, code, expected),))


_encode = msgspec.json.Encoder().encode


def document(problem: Problem, request_id: bytes) -> bytes:
    """Return the answer's body: constants, limits and the id that the answer carries anyway."""
    return _encode(
        ProblemDocument(
            type=TYPE_PREFIX + problem.slug,
            title=problem.title,
            status=problem.status,
            detail=problem.detail,
            instance="urn:request:" + request_id.decode("ascii"),
            errors=problem.errors,
        )
    )


def headers(problem: Problem, body: bytes, request_id: bytes, media_type: str = MEDIA_TYPE) -> Headers:
    """Return the answer's header fields, `Connection: close` included where unread bytes may follow."""
    fields: Headers = [
        *([(b"content-type", media_type.encode())] if body else []),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-request-id", request_id),
        *problem.headers,
    ]
    if problem.closes:
        fields.append((b"connection", b"close"))
    return fields
