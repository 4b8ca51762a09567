"""What a request's Content-Type and Accept say, read the slow and exact way; the front door remembers the answers."""

from __future__ import annotations

_PARAMETERS = frozenset({b"charset=utf-8", b'charset="utf-8"'})


def is_json(content_type: bytes) -> bool:
    """Return whether it is application/json with no parameter but charset=utf-8, once (RFC 9110, 8.3)."""
    return _is(b"application/json", content_type)


def is_beacon(content_type: bytes) -> bool:
    """Return the same of text/plain: what `navigator.sendBeacon` says of a text, and what a page may send anywhere
    without being asked.
    """
    return _is(b"text/plain", content_type)


def _is(expected: bytes, content_type: bytes) -> bool:
    kind, *given = (part.strip(b" \t").lower() for part in content_type.split(b";"))
    parameters = [one for one in given if one]  # a parameter may be empty (RFC 9110, 5.6.6): `application/json;`
    return kind == expected and (not parameters or (len(parameters) == 1 and parameters[0] in _PARAMETERS))


def accepts(accept: bytes, media_type: bytes) -> bool:
    """Return whether the most specific range of an Accept field that covers `media_type` has a weight above 0 (RFC
    9110, 12.5.1).
    """
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
