"""The body of `POST /v1/events`, item by item: what cannot be an event becomes poison, with where and why, and spoils
no other.

A body is refused as a whole only where it cannot be told what its items are: it is no JSON, has a key twice, is nested
too deeply, has no list of events, or too many.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, NamedTuple

import msgspec

from features.common.types import EVENTS_MAX, ID_CHARACTERS_MAX, Event, unit_of
from features.events.semantics import InvalidEvent
from serving.http import problems
from serving.http.strict_json import DEPTH_MAX, StrictDecoder, deeper_than, once_each, refused_texts, unreadable
from serving.runtime.cooperative import turn

KEY, EVENTS = "key", "events"
ITEMS_A_TURN = 8
"""Items that are read before others have their turn."""

ITEM_CODES = (
    *(
        "not-an-object",
        "field-unknown",
        "field-missing",
        "field-type",
        "field-length",
        "field-format",
        "field-value",
        "out-of-range",
    ),
    *("number-not-finite", "too-many-items"),
)
"""Codes of items that are no event."""


Events = Annotated[list[Event], msgspec.Meta(min_length=1, max_length=EVENTS_MAX)]


class EventsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is sent: 1 to 500 events, each taken or refused by itself."""

    events: Events


class EventsBeacon(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a page sends as text/plain when it is left: the same, with the key in it, as `navigator.sendBeacon` can set
    no header field.
    """

    events: Events
    key: str | msgspec.UnsetType = msgspec.UNSET


class _Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    events: list[msgspec.Raw]
    key: str | msgspec.UnsetType = msgspec.UNSET


class Bad(NamedTuple):
    """An item that is no event."""

    poison: InvalidEvent
    unit: str
    """Whose it seems to be; empty where that cannot be told."""
    body: bytes
    """The item as JSON."""


_parse = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_split = msgspec.json.Decoder(_Split).decode
_decode = msgspec.json.Decoder(Event).decode
_convert = msgspec.convert
_strictly = StrictDecoder(Event)


async def read_events(body: bytes, *, beacon: bool = False) -> list[Event | Bad]:
    """Return the items of a body, in order. Others have their turn on the loop in between: a full body takes some
    milliseconds.

    Args:
        beacon: whether it may carry a key.

    Raises:
        Problem: the body is refused as a whole.
    """
    if (events := await _quickly(body, beacon)) is not None:
        return events
    parsed, plain = _whole(body)
    read: list[Event | Bad] = []
    for at, item in enumerate(_items(parsed, beacon)):
        if at and at % ITEMS_A_TURN == 0:
            await turn()
        read.append(_item(item, plain))
    return read


async def _quickly(body: bytes, beacon: bool) -> list[Event | Bad] | None:
    """Return the events of a body in which nothing needs a second look, in a third of the time; None where something
    does.
    """
    if not _is_plain(body):
        return None
    events: list[Event | Bad] = []
    try:
        split = _split(body)
        # What was dropped, as a key that comes twice, and what says a default, would be less when it is written again.
        if (
            not 0 < len(split.events) <= EVENTS_MAX
            or not (beacon or split.key is msgspec.UNSET)
            or _texts(split) != body.count(b'"')
        ):
            return None
        for at, raw in enumerate(split.events):
            if at and at % ITEMS_A_TURN == 0:
                await turn()
            event = _decode(raw)
            if _texts(event) != bytes(raw).count(b'"'):
                return None
            events.append(event)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return events


def _texts(value: _Split | Event) -> int:
    """Quotation marks of a value as JSON."""
    return _encode(value).count(b'"')


def _is_plain(body: bytes) -> bool:
    """Return whether it is certain that no text holds control or format characters, and that a quotation mark begins or
    ends a text.
    """
    return b"\\" not in body and ((body.isascii() and b"\x7f" not in body) or _printable(body))


def _whole(body: bytes) -> tuple[Any, bool]:
    """Return the body as builtins, and whether it is certain that no text in it and no number needs a look."""
    try:
        parsed, finite = _parse(body), True
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as refusal:
        if not str(refusal).startswith("Number out of range"):
            unreadable(body, refusal)
        parsed, finite = _with_infinities(body), False
    if body.count(b"{") + body.count(b"[") > DEPTH_MAX and deeper_than(parsed, DEPTH_MAX):
        raise problems.JsonTooDeep()
    # Without escapes a quotation mark begins or ends a text: as many as of what was kept, so nothing was dropped.
    if finite and (b"\\" in body or _encode(parsed).count(b'"') != body.count(b'"')):
        json.loads(body, object_pairs_hook=once_each)
    return parsed, finite and _is_plain(body)


def _printable(body: bytes) -> bool:
    # Blanks between the items are no text.
    try:
        return body.decode().translate({9: " ", 10: " ", 13: " "}).isprintable()
    except UnicodeDecodeError:
        return False


def _with_infinities(body: bytes) -> Any:
    """Return a body with numbers beyond 64 bits: its items that hold them are poison, the others are not."""
    try:
        return json.loads(body, object_pairs_hook=_pairs, parse_constant=_constant)
    except RecursionError:
        raise problems.JsonTooDeep() from None
    except ValueError:
        raise problems.JsonInvalid() from None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    once_each(pairs)
    return dict(pairs)


def _constant(_: str) -> Any:
    raise ValueError("NaN and Infinity are not JSON")


def _items(parsed: Any, beacon: bool) -> list[Any]:
    """Return the list of events, held against the limits of a batch."""
    if type(parsed) is not dict:
        raise problems.invalid("not-an-object", "", "object")
    if not parsed.keys() <= {EVENTS, KEY} or (KEY in parsed and not beacon):
        raise problems.invalid("field-unknown", "", f"one of: {EVENTS}" + (f", {KEY}" if beacon else ""))
    if beacon and not isinstance(parsed.get(KEY, ""), str):
        raise problems.invalid("field-type", f"/{KEY}", "str")
    if EVENTS not in parsed:
        raise problems.invalid("field-missing", f"/{EVENTS}", "a value")
    items = parsed[EVENTS]
    if type(items) is not list:
        raise problems.invalid("field-type", f"/{EVENTS}", "array")
    if not items:
        raise problems.invalid("too-few-items", f"/{EVENTS}", "at least 1 items")
    if len(items) > EVENTS_MAX:
        raise problems.BatchSize(
            errors=(problems.FieldError(f"/{EVENTS}", problems.BatchSize.slug, f"at most {EVENTS_MAX} items"),)
        )
    return items


def _item(item: Any, plain: bool) -> Event | Bad:
    try:
        event = None if type(item) is not dict else _convert(item, Event)
    except msgspec.ValidationError:
        event = None
    if event is not None and (plain or (not any(refused_texts(item, ())) and _finite(item))):
        return event
    body = json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Bad(_why(item, body), _unit(item), body)


def _why(item: Any, body: bytes) -> InvalidEvent:
    if not _finite(item):
        return InvalidEvent("number-not-finite", "", "numbers that fit into 64 bits (IEEE 754)")
    try:
        _strictly(body)
    except problems.Problem as problem:
        error = problem.errors[0] if problem.errors else None
        if error is not None and error.code in ITEM_CODES:
            return InvalidEvent(error.code, error.pointer, error.expected)
    return InvalidEvent("field-format", "", "what /openapi.json documents")


def _finite(value: Any) -> bool:
    pending = [value]
    while pending:
        value = pending.pop()
        if type(value) is dict:
            pending.extend(value.values())
        elif type(value) is list:
            pending.extend(value)
        elif type(value) is float and not math.isfinite(value):
            return False
    return True


def _unit(item: Any) -> str:
    """Return whose an item seems to be, so that it can be forgotten."""
    if type(item) is not dict:
        return ""
    given = [item.get(name) for name in ("customer_id", "anonymous_id")]
    return unit_of(
        *(one if isinstance(one, str) and len(one) <= ID_CHARACTERS_MAX and one.isascii() else "" for one in given)
    )
