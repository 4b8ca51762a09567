"""The body of `POST /v1/events` is read item by item, or refused as a whole."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.common.types import Event
from serving.events import body as events_body
from serving.events.body import Bad
from serving.events.events import REASONS
from serving.http.problems import Problem
from tests.serving.event_shop import row


def read_events(body: bytes) -> list[Event | Bad]:
    return asyncio.run(events_body.read_events(body))


GOOD = json.dumps(row("e1"))
WHOLE: list[tuple[bytes, int, str]] = [
    (b"", 400, "body-empty"),
    (b"{", 400, "json-invalid"),
    (b'{"events":[NaN]}', 400, "json-invalid"),
    (b'{"events":[1e400, NaN]}', 400, "json-invalid"),
    (b'{"events":[1e400],"events":[]}', 400, "json-duplicate-key"),
    (b'{"events":[%s],"events":[]}' % GOOD.encode(), 400, "json-duplicate-key"),
    (b'{"events":[{"event_id":"e1","event_id":"e2"}]}', 400, "json-duplicate-key"),
    (b'{"events":[{"fields":{"a":1,"a":2}}]}', 400, "json-duplicate-key"),
    (b'{"events":[{"fields":{"a":1,"\\u0061":2}}]}', 400, "json-duplicate-key"),
    (b'{"events":' + b"[" * 17 + b"]" * 17 + b"}", 400, "json-too-deep"),
    (b'{"events":' + b"[" * 5000, 400, "json-too-deep"),
    (b"[]", 422, "not-an-object"),
    (b"{}", 422, "field-missing"),
    (b'{"events":{}}', 422, "field-type"),
    (b'{"events":[]}', 422, "too-few-items"),
    (b'{"events":[%s]}' % b",".join([b"{}"] * 501), 413, "batch-size"),
    (b'{"events":[{}],"more":1}', 422, "field-unknown"),
    (b'{"events":[{}],"key":"name.secret"}', 422, "field-unknown"),
]


@pytest.mark.parametrize(("body", "status", "slug"), WHOLE, ids=[f"{slug} {at}" for at, (*_, slug) in enumerate(WHOLE)])
def test_body_is_refused_as_a_whole(body: bytes, status: int, slug: str) -> None:
    """Where it cannot be told what the items are, or there are too many, nothing of the body is taken."""
    with pytest.raises(Problem) as raised:
        read_events(body)
    assert (raised.value.status, raised.value.slug) == (status, slug)


ITEMS: list[tuple[str, str]] = [
    ('{"event_id":"e1","value":1e400}', "number-not-finite"),
    ('{"event_id":"e\\u0000"}', "field-format"),
    ('{"event_id":7}', "field-type"),
    ('{"event_id":""}', "field-length"),
    ("[]", "not-an-object"),
    ("null", "not-an-object"),
    ("{}", "field-missing"),
    (GOOD[:-1] + ',"fields":{"a":true}}', "field-type"),
    (GOOD[:-1] + ',"fields":{"a":"x\\u202e"}}', "field-format"),
    (GOOD[:-1] + ',"fields":{"a":"x\u202e"}}', "field-format"),
    (GOOD[:-1] + ',"fields":{"a":"' + "x" * 257 + '"}}', "field-length"),
    (GOOD[:-1] + ',"fields":{' + ",".join(f'"f{at}":1' for at in range(201)) + "}}", "too-many-items"),
    (GOOD.replace("Z", ""), "field-format"),
    (GOOD.replace('"c1"', '"c 1"'), "field-format"),
    (GOOD.replace('"c1"', "18446744073709551617"), "field-type"),
]


@pytest.mark.parametrize(("text", "code"), ITEMS, ids=[f"{code} {at}" for at, (_, code) in enumerate(ITEMS)])
def test_item_that_is_no_event(text: str, code: str) -> None:
    """It becomes poison with its code, wherever it stands, and the events beside it are read as without it."""
    read = read_events(('{"events":[' + GOOD + "," + text + "," + GOOD + "]}").encode())
    assert isinstance(read[1], Bad)
    assert read[1].poison.code == code
    assert code in REASONS
    assert read[0] == read[2] == read_events(b'{"events":[%s]}' % GOOD.encode())[0]
    assert isinstance(read[0], Event)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([GOOD, *(text for text, _ in ITEMS)]), min_size=1, max_size=12))
def test_each_item_is_read_by_itself(texts: list[str]) -> None:
    """An item is the same, event or poison, alone and in any company."""
    alone = {text: read_events(f'{{"events":[{text}]}}'.encode())[0] for text in set(texts)}
    assert read_events(f'{{"events":[{",".join(texts)}]}}'.encode()) == [alone[text] for text in texts]


def test_texts_of_other_languages_are_events() -> None:
    """Letters of any script, escaped or not, are the same event."""
    plain, escaped = (
        GOOD[:-1] + ',"fields":{"topic":"Zürich ☂"}}',
        GOOD[:-1] + ',"fields":{"topic":"Z\\u00fcrich \\u2602"}}',
    )
    first, second = read_events(f'{{"events":[{plain},\n\t{escaped}]}}'.encode())
    assert first == second
    assert isinstance(first, Event)
