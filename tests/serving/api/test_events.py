"""`POST /v1/events`: items one by one, durable before it is acknowledged, heard before it is acknowledged or soon
after, beacons.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.columns.catalogue import Catalogue
from features.columns.rows import StoreUnavailable
from features.common.timestamps import from_microseconds, rfc3339
from features.common.types import Budget as OfferBudget
from features.common.types import Event, Offer
from features.config.policies import PoliciesFile
from features.events import consumers, dead_letters
from features.events.log import EventLog, counts, read_all
from features.events.rows import event_item
from features.events.semantics import EventSchema, time_of
from features.events.sqlite_file import LogLimits
from features.events.writer import EventWriter
from features.ledger.budgets import BudgetBound
from features.ledger.history import ContactPolicy, key_of
from features.ledger.ledger import Ledger
from features.ledger.lmdb_ledger import LmdbLedger
from features.ledger.recent import Heard
from features.validation.load import load
from features.workspace.workspace import Workspace
from serving.api import events_body
from serving.api.event_delivery import EventContext, EventDelivery, Understandings
from serving.api.events import REASONS, Events
from serving.api.events_body import Bad
from serving.api.watermark import Watermark
from serving.http import problems
from serving.http.app import FrontDoor
from serving.http.auth import Keys
from serving.http.problems import Problem
from serving.http.routing import Call
from serving.hub.contact_policy import STOCK, Contacting
from serving.runtime.metrics import Metrics
from tests.serving import edge_server as edge
from tests.serving.edge_server import ROLE_KEYS, post, problem, raw, split
from tests.workspaces import make_workspace

NOW = 1_795_348_800_000_000
SECONDS = NOW / 1e6
OFFERS = [
    Offer("o1", group="loans", attributes={"topic": "roaming"}),
    Offer("o2", budget=OfferBudget(lifetime=5, stock=4)),
]


class Deaf:
    """A ledger that can be told not to answer, and remembers how many it was told of at once."""

    def __init__(self, ledger: LmdbLedger) -> None:
        self.ledger, self.deaf, self.calls, self.synced = ledger, False, [0], 0

    async def hear(self, heard: Sequence[Heard], policy: ContactPolicy, now: float) -> list[bool]:
        if self.deaf:
            raise StoreUnavailable("deaf")
        self.calls.append(len({one.unit for one in heard}))
        return await self.ledger.hear(heard, policy, now)

    def sync(self) -> None:
        self.synced += 1
        self.ledger.sync()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ledger, name)


class Shop:
    """A worker's part that takes events, on a folder; another on the same folder is another worker."""

    def __init__(self, folder: Path, workspace: Workspace, limits: LogLimits | None = None) -> None:
        contacting = Contacting(PoliciesFile(), Catalogue(OFFERS), (), ("accepted", "acceptance", "conversion"), "UTC")
        positions = {offer.offer_id: at for at, offer in enumerate(OFFERS)}
        happenings = EventSchema(workspace, OFFERS)
        late = 30 * 86_400 * 10**6
        self.understanding = EventContext(
            happenings, frozenset(("accepted", "acceptance", "conversion")), late, contacting, positions
        )
        self.ledger, self.metrics = Deaf(LmdbLedger(folder / "ledger")), Metrics()
        self.folder = folder / "events"
        self.writer = EventWriter(self.folder, limits or LogLimits(free_bytes_min=0), clock=lambda: NOW)
        ledger: Any = self.ledger
        self.hearing = EventDelivery(
            lambda: self.understanding, lambda: ledger, self.writer, self.metrics, clock=lambda: NOW
        )
        self.events = Events(lambda: self.understanding, self.hearing, self.writer, self.metrics, clock=lambda: NOW)

    async def post(self, *items: Any) -> dict[str, Any]:
        status, _, answer, stages = await self.events.post(
            json.dumps({"events": items}).encode(), Call(b"r", None, {}, {})
        )
        assert status == 202
        assert len(stages) == 3
        found: dict[str, Any] = json.loads(answer)
        return found

    def recent(self, unit: str = "c1") -> set[int]:
        return {event.key for event in self.ledger.look_now(unit).recent.events}

    def close(self) -> None:
        self.writer.close()
        self.ledger.close()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return load(make_workspace(tmp_path_factory.mktemp("events")), sources=False)


@pytest.fixture
def shop(tmp_path: Path, workspace: Workspace) -> Iterator[Shop]:
    made = Shop(tmp_path, workspace)
    yield made
    made.close()


def row(event_id: str = "e1", kind: str = "calls", **fields: Any) -> dict[str, Any]:
    given = {"event_id": event_id, "type": kind, "occurred_at": rfc3339(NOW - 5_000_000), "customer_id": "c1", **fields}
    return {name: value for name, value in given.items() if value is not None}


def read_events(body: bytes) -> list[Event | Bad]:
    return asyncio.run(events_body.read_events(body))


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]


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


def test_ledger_hears_a_few_units_at_a_time(shop: Shop) -> None:
    """Many customers in one batch are heard in parts, with turns for others between them, all before the answer."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def scenario() -> None:
        beside = asyncio.create_task(others())
        await shop.post(*(row(f"e{at}", customer_id=f"c{at}") for at in range(100)))
        beside.cancel()
        assert all(shop.recent(f"c{at}") == {key_of(f"e{at}")} for at in range(100))

    run(scenario)
    assert max(shop.ledger.calls) <= 8
    assert turns >= 12


def test_unheard_events_are_heard_later(shop: Shop) -> None:
    """While the ledger does not answer, events are kept and the answer says so; then they are heard, and the mark
    follows only then.
    """

    async def scenario() -> None:
        await shop.post(row("e0"))
        shop.ledger.deaf = True
        answer = await shop.post(row("e1"), row("e2", customer_id="c2"))
        assert (answer["stored"], answer["degraded"]) == (2, ["contacts_unavailable"])
        await shop.hearing.look()
        places = [logged.seq for logged in read_all(shop.folder, 0)]
        assert shop.hearing.watermark.place == places[0]
        assert shop.hearing.watermark.behind
        shop.ledger.deaf = False
        assert (await shop.post(row("e3")))["degraded"] == []
        assert shop.hearing.watermark.place == places[0]
        await shop.hearing.look()
        assert shop.recent("c1") == {key_of("e0"), key_of("e1"), key_of("e3")}
        assert shop.recent("c2") == {key_of("e2")}
        assert not shop.hearing.watermark.behind
        assert shop.hearing.watermark.place == [logged.seq for logged in read_all(shop.folder, 0)][-1]
        assert shop.ledger.synced >= 1

    run(scenario)


def test_duplicate_of_an_unheard_event_is_heard(tmp_path: Path, workspace: Workspace) -> None:
    """A worker that died before the ledger heard leaves nothing unheard: who sends again is heard, and another worker
    hears the rest.
    """
    alive = consumers.begin(tmp_path / "events")
    dying = EventLog(tmp_path / "events", LogLimits(free_bytes_min=0), clock=lambda: NOW, worker=alive.worker)
    events = [Event(name, "calls", from_microseconds(NOW - 5_000_000), "c1") for name in ("e1", "e2")]
    dying.append([event_item(event, time_of(event)) for event in events])
    dying.close()
    shop = Shop(tmp_path, workspace)

    async def scenario() -> None:
        answer = await shop.post(row("e1"))
        assert (answer["duplicates"], shop.recent()) == (1, {key_of("e1")})
        await shop.hearing.look()
        assert shop.recent() == {key_of("e1")}  # it lives, as far as anybody knows
        alive.release()
        await shop.hearing.look()
        assert shop.recent() == {key_of("e1"), key_of("e2")}
        assert list(consumers.dead(shop.folder)) == []
        calls = len(shop.ledger.calls)
        assert (await shop.post(row("e1"), row("e2")))["duplicates"] == 2
        assert len(shop.ledger.calls) == calls  # known to be heard: old duplicates are not told again

    run(scenario)
    shop.close()


def test_nothing_is_heard_before_anything_serves(shop: Shop) -> None:
    """Before the first bundle, events are kept and answered as degraded, and heard once there is a state."""

    async def scenario() -> None:
        serving, shop.understanding = shop.understanding, EventContext.of(load_again)
        assert (await shop.post(row("e1", "click", offer_id="unknown-yet")))["degraded"]
        await shop.hearing.look()
        assert shop.recent() == set()
        shop.understanding = serving
        await shop.hearing.look()
        assert shop.recent() == {key_of("e1")}

    load_again = load(shop_workspace(shop), sources=False)
    run(scenario)


def shop_workspace(shop: Shop) -> Path:
    """Another workspace like the shop's."""
    return make_workspace(shop.folder.parent / "workspace")


def confirmed(ledger: Any) -> tuple[int, int]:
    """Shows and pieces of stock of o2 that are counted for good."""
    budgets = [BudgetBound(key_of("o2"), lifetime_max=99), BudgetBound(key_of(STOCK + "o2"), lifetime_max=99)]
    used = []
    for budget in budgets:
        free = 0
        while True:
            asked = BudgetBound(budget.offer, lifetime_max=free)
            moment = Contacting(PoliciesFile(), Catalogue([]), (), (), "UTC").moment(SECONDS)
            if not any(ledger.take_budgets_now([asked], moment)):
                break
            free += 1
        used.append(free - 1)
    return used[0], used[1]


def test_budgets_are_confirmed_once(shop: Shop) -> None:
    """A show counts when its impression is new, a piece of stock at the first acceptance of its decision, each once
    however often it is sent.
    """

    async def scenario() -> None:
        decision = f"{NOW - 9_000_000:x}-1a2b-7"
        seen = row("i1", "impression", offer_id="o2", decision_id=decision)
        for _ in range(3):
            await shop.post(seen)
        await shop.post(
            row("a1", "accepted", offer_id="o2", decision_id=decision),
            row("k1", "click", offer_id="o2", decision_id=decision),
        )
        await shop.post(
            row("a2", "conversion", offer_id="o2", decision_id=decision, occurred_at=rfc3339(NOW - 1_000_000), value=3)
        )
        await shop.post(
            row("i2", "impression", offer_id="o2", customer_id="c2"), row("i3", "impression", offer_id="o1")
        )

    run(scenario)
    assert confirmed(shop.ledger) == (2, 1)


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


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["begin", "stored", "done", "missed", "again"]), st.integers(0, 5)), max_size=40)
)
def test_watermark_is_never_ahead(steps: list[tuple[str, int]]) -> None:
    """Whatever requests do in whatever order, all events up to the place were heard, and at rest it is the last."""
    watermark, place = Watermark(), 0
    open_tokens: dict[int, list[int]] = {}
    unheard: set[int] = set()
    for what, which in steps:
        tokens = sorted(open_tokens)
        if what == "begin":
            open_tokens[watermark.begin()] = []
        elif what == "stored" and tokens:
            place += 1
            open_tokens[tokens[which % len(tokens)]].append(place)
            unheard.add(place)
            watermark.stored(place)
        elif what in ("done", "missed") and tokens:
            token = tokens[which % len(tokens)]
            mine = open_tokens.pop(token)
            if what == "done":
                unheard -= set(mine)
                watermark.done(token)
            else:
                watermark.missed(token)
        elif what == "again" and (missed := watermark.take_missed()) is not None:
            token, floor = missed
            unheard = {seq for seq in unheard if seq <= floor}
            watermark.done(token)
        assert all(seq > watermark.place for seq in unheard)
    for token in open_tokens:
        watermark.missed(token)
    if (missed := watermark.take_missed()) is not None:
        watermark.done(missed[0])
    assert watermark.place == place


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


def test_ledger_protocol_is_enough(shop: Shop) -> None:
    """What hearing asks of a ledger is in the interface."""
    assert {"hear", "confirm", "look", "look_now", "sync"} <= set(dir(Ledger))
    assert shop.writer.worker > 0


def test_understanding_follows_the_state(workspace: Workspace, shop: Shop) -> None:
    """Before anything serves every offer is taken and nothing is heard; a state that was prepared is not made again."""
    made = Understandings(workspace)
    before = made.of(None)
    assert before.contacting is None
    click = Event("e1", "click", from_microseconds(NOW), "c1", offer_id="unknown")
    assert before.happenings.poison(click, NOW) is None
    state: Any = SimpleNamespace(
        workspace=workspace, catalogue=Catalogue(OFFERS), hub=SimpleNamespace(contacting=shop.understanding.contacting)
    )
    made.prepare(state)
    found = made.of(state)
    assert found is made.of(state)
    assert (found.positions, found.contacting) == ({"o1": 0, "o2": 1}, shop.understanding.contacting)
    poison = found.happenings.poison(click, NOW)
    assert poison is not None
    assert poison.code == "offer-unknown"
    assert found is not made.of(SimpleNamespace(**vars(state)))  # type: ignore[arg-type]
    assert "accepted" in found.acceptances
