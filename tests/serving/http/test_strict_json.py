"""Bytes to a typed request: rows 1 to 23 of the bad-input table, and that the quick screens never let anything
through.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from features.common.types import DecisionRequest, Event
from serving.http.problems import ERRORS_MAX, Problem
from serving.http.strict_json import StrictDecoder

CONTEXT = frozenset({"channel", "device", "hour", "note"})
decode = StrictDecoder(DecisionRequest, {"context": CONTEXT})
HEAD = b'{"customer_id":"1042","placement":"checkout"'


def more(text: str | bytes) -> bytes:
    return HEAD + b"," + (text.encode() if isinstance(text, str) else text) + b"}"


def customer(text: str) -> bytes:
    return b'{"placement":"checkout","customer_id":' + text.encode() + b"}"


CANARY = "CANARY-7f3a"
ROWS: list[tuple[str, bytes, int, str, str | None]] = [
    ("1 empty", b"", 400, "body-empty", None),
    ("1 blank", b" \r\n\t", 400, "body-empty", None),
    ("2 truncated", b"{", 400, "json-invalid", None),
    ("2 truncated text", b'{"customer_id":"10', 400, "json-invalid", None),
    ("3 trailing", HEAD + b"} x", 400, "json-invalid", None),
    ("3 trailing NUL", HEAD + b"}\0", 400, "json-invalid", None),
    ("3 two documents", HEAD + b"}" + HEAD + b"}", 400, "json-invalid", None),
    ("4 trailing comma", HEAD + b",}", 400, "json-invalid", None),
    ("4 comment", HEAD + b"/* x */}", 400, "json-invalid", None),
    ("4 single quotes", b"{'customer_id':'1'}", 400, "json-invalid", None),
    ("5 NaN", more('"limit":NaN'), 400, "json-invalid", None),
    ("5 Infinity", more('"context":{"hour":Infinity}'), 400, "json-invalid", None),
    ("5 -Infinity", more('"context":{"hour":-Infinity}'), 400, "json-invalid", None),
    ("6 1e400", more('"context":{"hour":1e400}'), 422, "number-not-finite", ""),
    ("6 -1e400", more('"context":{"hour":-1e400}'), 422, "number-not-finite", ""),
    ("7 duplicate", more('"placement":"home"'), 400, "json-duplicate-key", None),
    ("7 duplicate equal", more('"placement":"checkout"'), 400, "json-duplicate-key", None),
    ("7 duplicate nested", more('"context":{"hour":1,"hour":2}'), 400, "json-duplicate-key", None),
    ("7 duplicate object", more('"context":{"hour":1},"context":{"hour":2}'), 400, "json-duplicate-key", None),
    ("7 duplicate empty", more('"context":{},"context":{}'), 400, "json-duplicate-key", None),
    ("7 duplicate escaped", more('"plac\\u0065ment":"home"'), 400, "json-duplicate-key", None),
    ("7 duplicate unknown", b'{"a":1,"a":2}', 400, "json-duplicate-key", None),
    ("7 duplicate, wrong type", more('"limit":"a","limit":"b"'), 400, "json-duplicate-key", None),
    ("7 duplicate in a list", b'[{"a":1,"a":2}]', 400, "json-duplicate-key", None),
    (
        "7 duplicate, escaped colon",
        more('"context":{"note":"\\u003a","hour":1,"hour":2}'),
        400,
        "json-duplicate-key",
        None,
    ),
    ("8 deep 17", more('"context":' + '{"hour":' * 16 + "1" + "}" * 16), 400, "json-too-deep", None),
    ("8 deep 1,000", b"[" * 1000 + b"]" * 1000, 400, "json-too-deep", None),
    ("8 deep 100,000", b"[" * 100_000, 400, "json-too-deep", None),
    ("8 deep 100,000 objects", b'{"a":' * 100_000, 400, "json-too-deep", None),
    ("9 not UTF-8", b'{"customer_id":"\xff","placement":"checkout"}', 400, "json-invalid", None),
    ("9 overlong", b'{"customer_id":"\xc0\x80","placement":"checkout"}', 400, "json-invalid", None),
    ("9 not UTF-8 in a key", b'{"\xff":1}', 400, "json-invalid", None),
    ("10 byte order mark", b"\xef\xbb\xbf" + HEAD + b"}", 400, "json-invalid", None),
    ("10 UTF-16", (HEAD + b"}").decode().encode("utf-16"), 400, "json-invalid", None),
    ("10 UTF-16 without mark", (HEAD + b"}").decode().encode("utf-16-le"), 400, "json-invalid", None),
    ("11 lone high surrogate", more('"context":{"note":"\\ud800"}'), 400, "json-invalid", None),
    ("11 lone low surrogate", more('"context":{"note":"\\udc00x"}'), 400, "json-invalid", None),
    ("11 raw surrogate", b'{"customer_id":"\xed\xa0\x80"}', 400, "json-invalid", None),
    ("12 array", b"[]", 422, "not-an-object", ""),
    ("12 null", b"null", 422, "not-an-object", ""),
    ("12 string", b'"x"', 422, "not-an-object", ""),
    ("12 number", b"3", 422, "not-an-object", ""),
    ("13 unknown field", more(f'"{CANARY}":1'), 422, "field-unknown", ""),
    ("13 tenant", more('"tenant":"b"'), 422, "field-unknown", ""),
    ("14 unknown nested field", more(f'"context":{{"{CANARY.lower()}":1}}'), 422, "field-unknown", "/context"),
    ("16 number", customer("1042"), 422, "field-type", "/customer_id"),
    ("16 bool", customer("true"), 422, "field-type", "/customer_id"),
    ("16 null", customer("null"), 422, "field-type", "/customer_id"),
    ("16 list", customer('["a"]'), 422, "field-type", "/customer_id"),
    ("16 nested", more('"context":{"channel":"app","hour":{"a":1}}'), 422, "field-type", "/context/hour"),
    ("16 in a list", more('"exclude":["a","b",3]'), 422, "field-type", "/exclude/2"),
    ("17 empty text", customer('""'), 422, "field-length", "/customer_id"),
    ("17 65 characters", customer('"' + "a" * 65 + '"'), 422, "field-length", "/customer_id"),
    *[
        (f"18 {name}", customer(f'"a{text}"'), 422, "field-format", "/customer_id")
        for name, text in {
            "NUL": "\\u0000",
            "newline": "\\n",
            "ESC": "\\u001b",
            "override": "\u202e",
            "path": "/../x",
            "emoji": "\U0001f600",
            "Arabic digit": "\u0663",
            "blank": " ",
            "DEL": "\x7f",
        }.items()
    ],
    ("18 raw newline", b'{"placement":"checkout","customer_id":"a\nb"}', 400, "json-invalid", None),
    ("18 format character in a free text", more('"context":{"note":"a\u202eb"}'), 422, "field-format", "/context/note"),
    ("18 control in a free text", more('"context":{"note":"a\\u0007"}'), 422, "field-format", "/context/note"),
    ("18 DEL in a free text", more('"context":{"note":"a\x7f"}'), 422, "field-format", "/context/note"),
    ("18 line separator in a free text", more('"context":{"note":"a\\u2028"}'), 422, "field-format", "/context/note"),
    ("18 control in a key", more('"context":{"no\\u0000te":1}'), 422, "field-format", "/context"),
    ("19 text", more('"limit":"3"'), 422, "field-type", "/limit"),
    ("19 fraction", more('"limit":3.5'), 422, "field-type", "/limit"),
    ("19 whole, and a fault", more('"limit":3.0,"explain":1.0'), 422, "field-type", "/explain"),
    ("19 whole, beyond", more('"limit":51.0'), 422, "out-of-range", "/limit"),
    ("19 whole, too large", more('"limit":1e300'), 422, "field-type", "/limit"),
    ("19 bool", more('"limit":true'), 422, "field-type", "/limit"),
    ("20 zero", more('"limit":0'), 422, "out-of-range", "/limit"),
    ("20 negative", more('"limit":-1'), 422, "out-of-range", "/limit"),
    ("20 51", more('"limit":51'), 422, "out-of-range", "/limit"),
    ("21 20 digits", more('"limit":12345678901234567890'), 422, "out-of-range", "/limit"),
    ("21 5,000 digits", more('"limit":' + "1" * 5000), 400, "json-invalid", None),
    (
        "21 20 digits in the context",
        more('"context":{"hour":12345678901234567890}'),
        422,
        "out-of-range",
        "/context/hour",
    ),
    ("22 long context text", more('"context":{"note":"' + "x" * 257 + '"}'), 422, "field-length", "/context/note"),
    (
        "22 51 context keys",
        more('"context":{' + ",".join(f'"k{number}":1' for number in range(51)) + "}"),
        422,
        "too-many-items",
        "/context",
    ),
    ("22 201 exclusions", more('"exclude":[' + ",".join(['"a"'] * 201) + "]"), 422, "too-many-items", "/exclude"),
]


@pytest.mark.parametrize(("body", "status", "slug", "pointer"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_row(body: bytes, status: int, slug: str, pointer: str | None) -> None:
    """Each row of the bad-input table gets its status, its slug and, with 422, a pointer and what was expected."""
    with pytest.raises(Problem) as raised:
        decode(body)
    assert (raised.value.status, raised.value.slug) == (status, slug)
    if pointer is None:
        assert raised.value.errors == ()
    else:
        (error,) = raised.value.errors[:ERRORS_MAX]
        assert (error.pointer, error.code) == (pointer, slug)
        assert error.expected
        assert CANARY.lower() not in str(error).lower()


def test_a_missing_field_is_named() -> None:
    """Row 15: what lacks a field that its type requires is told which; of a decision nothing is required here, see
    `serving.hub.request_check`.
    """
    with pytest.raises(Problem) as raised:
        StrictDecoder(Event)(b'{"event_id":"e1","type":"click"}')
    (error,) = raised.value.errors
    assert (raised.value.status, raised.value.slug, error.pointer, error.code) == (
        422,
        "field-missing",
        "/occurred_at",
        "field-missing",
    )
    assert decode(b'{"placement":"checkout","anonymous_id":"a1"}').unit == "~a1"
    assert decode(b'{"placement":"checkout"}').unit == ""


@pytest.mark.parametrize(
    "body",
    [
        HEAD + b"}",
        b" \n" + HEAD + b" }\n ",
        more('"limit":null'),
        more('"limit":50,"exclude":[],"explain":false,"context":{}'),
        more('"context":{"note":"Köln: 12:30","hour":-0.5e3,"channel":null,"device":true}'),
        more('"context":{"note":"quote \\" backslash \\\\ solidus \\/ pair \\ud83d\\ude00"}'),
        customer('"urn:x:1:2"'),
        customer('"\\u0031"'),
        more('"context":{"note":"{[{[{[{[{[{[{[{[{["}'),
        more('"context":{"hour":' + str(2**53) + "}"),
        more('"exclude":["a:b","c"]'),
    ],
)
def test_good(body: bytes) -> None:
    """What the contract allows is accepted, and read as msgspec reads it, colons, escapes and blanks included."""
    assert decode(body) == msgspec.json.decode(body, type=DecisionRequest)


def _has_duplicate(body: bytes) -> bool:
    found = False

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        found = found or len({key for key, _ in pairs}) != len(pairs)
        return dict(pairs)

    json.loads(body, object_pairs_hook=once)
    return found


def _characters(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*(_characters(part) for pair in value.items() for part in pair))
    return set(value) if isinstance(value, str) else set()


_keys = st.sampled_from(["customer_id", "placement", "limit", "context", "exclude", "channel", "note", ":", "a"])
_texts = st.text(st.characters(codec="utf-8") | st.sampled_from(':"\\{}[],\u202e\n'), max_size=8)
_leaves = (
    st.none() | st.booleans() | st.integers(-3, 60) | st.floats(-5, 5, allow_nan=False) | _texts | st.just("checkout")
)


@st.composite
def _documents(draw: st.DrawFn, depth: int = 0) -> str:
    """JSON objects written with repeated keys, escapes and blanks, near the shape of a request."""
    members = [
        (key, draw(st.sampled_from([json.dumps(value), json.dumps(value, ensure_ascii=False)])))
        for key, value in draw(st.lists(st.tuples(_keys, _leaves), max_size=4))
    ]
    if depth < 2 and draw(st.booleans()):
        members.append((draw(_keys), draw(_documents(depth + 1))))
    if depth == 0 and draw(st.booleans()):
        members += [("customer_id", '"1"'), ("placement", '"home"')]
    blank = draw(st.sampled_from(["", " ", "\n"]))
    return "{" + ",".join(f"{blank}{json.dumps(key)}{blank}:{value}" for key, value in members) + "}"


class _Anything(msgspec.Struct):
    """A type that accepts any object, so that only the screens can refuse."""

    context: dict[str, Any] = {}
    customer_id: Any = None
    placement: Any = None
    limit: Any = None
    exclude: Any = None


@settings(max_examples=400, deadline=None)
@given(_documents())
@example('{"context":{":":1},"a":{"b":"::"}}')
@example('{"a":"\\u003a","a":1}')
@example('{"context":{"a":1,"a":2},"note":":"}')
def test_screens_are_exact(text: str) -> None:
    """Whatever is accepted has no duplicate key and no control or format character, and what has none is not refused
    for it.
    """
    body = text.encode()
    for decoder in (decode, StrictDecoder(_Anything)):
        try:
            decoder(body)
            slug = None
        except Problem as problem:
            slug = problem.slug
        assert (slug == "json-duplicate-key") == _has_duplicate(body)
        if slug is None:
            assert not {"\u202e", "\n"}.intersection(_characters(json.loads(body)))


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60)
    | _documents().map(str.encode).flatmap(lambda body: st.integers(0, 9).map(lambda n: body[: -n or None]))
)
def test_never_anything_but_a_problem(body: bytes) -> None:
    """Any bytes are either a request or a `Problem` of 400 or 422: nothing else escapes."""
    try:
        assert isinstance(decode(body), DecisionRequest)
    except Problem as problem:
        assert problem.status in (400, 422)
