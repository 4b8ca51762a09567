"""What a request's Content-Type and Accept say, read the slow and exact way; the lane remembers the answers."""

from __future__ import annotations

_CHARSETS = frozenset({b"utf-8", b'"utf-8"'})


def is_json(content_type: bytes) -> bool:
    """Exactly application/json, with no parameter but charset=utf-8 (RFC 9110, 8.3)."""
    return _is(b"application/json", content_type)


def is_beacon(content_type: bytes) -> bool:
    """The same of text/plain: what `navigator.sendBeacon` says of a text, and what a page may send anywhere without being asked."""
    return _is(b"text/plain", content_type)


def _is(expected: bytes, content_type: bytes) -> bool:
    kind, *parameters = (part.strip(b" \t").lower() for part in content_type.split(b";"))
    if kind != expected or len(parameters) > 1:
        return False
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name != b"charset" or value not in _CHARSETS:
            return False
    return True


def accepts(accept: bytes, media_type: bytes) -> bool:
    """Whether the most specific range of an Accept field that covers `media_type` has a weight above 0 (RFC 9110, 12.5.1)."""
    main = media_type.partition(b"/")[0]
    precision = {b"*/*": 1, main + b"/*": 2, media_type: 3}
    ranges = [item for item in accept.lower().split(b",") if item.strip(b" \t")]
    best, welcome = 0, not ranges
    for item in ranges:
        kind, *parameters = (part.strip(b" \t") for part in item.split(b";"))
        rank = precision.get(kind, 0)
        if rank > best:
            weights = [parameter[2:] for parameter in parameters if parameter.startswith(b"q=")]
            best, welcome = rank, not weights or weights[-1].strip(b"0.") != b""
    return welcome
