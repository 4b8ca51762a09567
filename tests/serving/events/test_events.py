"""`POST /v1/events`: each item is durable before it is acknowledged, and pages may send it by a beacon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from features.common.timestamps import rfc3339
from features.contact_history.history import key_of
from features.events import dead_letters
from features.events.log import counts, read_all
from features.events.sqlite_file import LogLimits
from features.workspace.workspace import Workspace
from serving.events.events import REASONS
from serving.http import problems
from serving.http.app import FrontDoor
from serving.http.auth import Keys
from tests.serving import edge_server as edge
from tests.serving.edge_server import ROLE_KEYS, post, problem, raw, split
from tests.serving.event_shop import NOW, Shop, row, run


def test_batch_is_taken_item_by_item(shop: Shop) -> None:
    """Neighbours of poison are stored and heard; what is refused says where and why, and never repeats what came."""

    async def scenario() -> None:
        items = [
            row("e1", fields={"minutes": 3}),
            row("e1", fields={"minutes": 3.0}),
            row("e1", fields={"minutes": 4}),
            row("e2", fields={"minutes": "secret-7"}),
            row("e3", "secret_7"),
            row("e4", occurred_at="secret-7"),
            {"secret-7": 1},
            "secret-7",
            row("e5", "click", offer_id="o1", decision_id="d", surprise="secret-7"),
            row("e6", "click", offer_id="o1"),
            row("e7", occurred_at=rfc3339(NOW + 600_000_000)),
        ]
        answer = await shop.post(*items)
        assert {name: answer[name] for name in ("accepted", "stored", "duplicates", "dead", "degraded")} == {
            "accepted": 11,
            "stored": 2,
            "duplicates": 1,
            "dead": 8,
            "degraded": [],
        }
        assert [(one["index"], one["code"], one["pointer"]) for one in answer["refused"]] == [
            (2, "idempotency-conflict", "/events/2/event_id"),
            (3, "field-type", "/events/3/fields/minutes"),
            (4, "type-unknown", "/events/4/type"),
            (5, "field-format", "/events/5/occurred_at"),
            (6, "field-unknown", "/events/6"),
            (7, "not-an-object", "/events/7"),
            (8, "field-unknown", "/events/8"),
            (10, "clock-skew", "/events/10/occurred_at"),
        ]
        assert "secret" not in json.dumps(answer)
        assert shop.recent() == {key_of("e1"), key_of("e6")}
        letters = list(dead_letters.letters(shop.folder))
        assert [letter.reason for letter in letters] == [one["code"] for one in answer["refused"]]
        assert all(b"secret" in letter.body for letter in letters[1:7])
        assert {letter.reason for letter in letters} <= set(REASONS)

    run(scenario)
    found = counts(shop.folder)
    assert found.accepted == found.stored + found.duplicates + found.dead == 11


def test_disk_without_room_is_503_and_recovers(tmp_path: Path, workspace: Workspace) -> None:
    """Where the log cannot take events nothing is acknowledged, the reason is safe for anybody, and it goes on by
    itself.
    """
    limits = LogLimits(free_bytes_min=1 << 62, retry_seconds=0.0)
    shop = Shop(tmp_path, workspace, limits)

    async def scenario() -> None:
        with pytest.raises(problems.EventsUnavailable) as refused:
            await shop.post(row("e1"))
        assert (b"retry-after", b"1") in refused.value.headers
        assert refused.value.detail.startswith(
            "The disk of the event log has less room than is kept in reserve. Nothing of this"
        )
        shop.writer.log.file.limits = LogLimits(free_bytes_min=0)
        assert (await shop.post(row("e1")))["stored"] == 1

    run(scenario)
    shop.close()
    assert counts(shop.folder)[:2] == (1, 1)


TEXT = "Content-Type: text/plain;charset=UTF-8"


def sent(port: int, body: bytes, *fields: str, path: str = "/v1/events") -> bytes:
    return raw(port, post(body, *(fields or ("Content-Type: application/json",)), path=path))


def batch(event_id: str, **top: Any) -> bytes:
    return json.dumps({"events": [row(event_id)], **top}).encode()


def test_beacons_and_keys(shop: Shop) -> None:
    """With keys, text/plain is taken here alone, with the key in its body or its head; the key is neither stored nor
    answered.
    """
    lane = FrontDoor([*shop.events.routes(), edge.routes()[0]], edge.all_keys(), metrics=shop.metrics)
    with edge.served(lane) as port:
        good, wrong = ROLE_KEYS["events"], ROLE_KEYS["decide"]
        status, fields, body = split(sent(port, batch("b1", key=good), TEXT, "Origin: https://shop.example"))
        assert (status, json.loads(body)["stored"]) == (202, 1)
        assert "access-control-allow-origin" not in fields
        assert "server-timing" in fields
        assert good.encode() not in body
        assert problem(sent(port, batch("b2"), TEXT)) == (401, "unauthenticated")
        assert problem(sent(port, batch("b2", key="events-key.nonsense"), TEXT)) == (401, "unauthenticated")
        assert problem(sent(port, batch("b2", key=7), TEXT)) == (401, "unauthenticated")
        assert problem(sent(port, batch("b2", key=wrong), TEXT)) == (403, "forbidden")
        assert problem(sent(port, batch("b2", key=good), TEXT, f"X-API-Key: {wrong}")) == (
            403,
            "forbidden",
        )  # the head wins
        assert split(sent(port, batch("b2", key="x"), TEXT, f"X-API-Key: {good}"))[0] == 202
        assert problem(sent(port, batch("b3", key=good), "Content-Type: application/json")) == (401, "unauthenticated")
        head = ("Content-Type: application/json", f"Authorization: Bearer {good}")
        assert problem(sent(port, batch("b3", key=good), *head)) == (422, "field-unknown")
        assert split(sent(port, batch("b3"), *head))[0] == 202
        assert problem(sent(port, batch("b4", key=good) + b" " * 65_536, TEXT)) == (413, "body-too-large")
        assert split(sent(port, batch("b4") + b" " * 65_536, *head))[0] == 202
        assert problem(sent(port, batch("b5", key=good), "Content-Type: text/html")) == (401, "unauthenticated")
        assert problem(sent(port, batch("b5"), "Content-Type: text/html", f"X-API-Key: {good}")) == (415, "media-type")
        decide = sent(port, edge.GOOD, TEXT, f"X-API-Key: {wrong}", path="/v1/decisions")
        assert problem(decide) == (415, "media-type")
    assert counts(shop.folder).stored == 4
    assert not any(good.encode() in path.read_bytes() for path in shop.folder.iterdir() if path.suffix != ".db")
    assert all(good.encode() not in logged.body for logged in read_all(shop.folder, 0))


def test_beacons_without_keys_come_from_this_machine(shop: Shop) -> None:
    """Without keys, a page of another site cannot send a beacon to this machine; one of this machine, or no page at
    all, can.
    """
    with edge.served(FrontDoor(shop.events.routes(), Keys(), metrics=shop.metrics)) as port:
        for fields in (
            (),
            ("Origin: http://localhost:8080",),
            ("Origin: http://[::1]",),
            ("Sec-Fetch-Site: same-origin",),
        ):
            assert split(sent(port, batch(f"ok{len(fields)}-{len(''.join(fields))}"), TEXT, *fields))[0] == 202
        evil = (
            "Origin: https://evil.example",
            "Origin: null",
            "Origin: http://localhost.evil.example",
            "Origin: http://[",
        )
        for field in (*evil, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"):
            assert problem(sent(port, batch("evil"), TEXT, field)) == (403, "origin-not-local")
        status, _, body = split(raw(port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
        assert status == 200
        assert b'opportune_events_total{result="stored"} 4' in body
    assert counts(shop.folder).stored == 4
