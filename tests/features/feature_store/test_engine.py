"""The Feast engine: faults of foreign stores, the bounds of its threads, and a whole workspace that serves from
SQLite.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sqlite3
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import yaml
from feast.protos.feast.types.Value_pb2 import DoubleList, StringList, Value

from features.columns.rows import OnlineRow, StoreUnavailable
from features.common.timestamps import now
from features.common.types import DecisionRequest
from features.config.documents import BadWorkspace
from features.feature_store import definitions
from features.feature_store.engine import FAILURES_MAX, FeastEngine
from features.feature_store.reader_pool import STAND_INS_MAX, THREADS, WAITING_MAX
from features.feature_store.store_config import ALLOW_VARIABLE
from features.validation.load import load
from features.workspace.workspace import ONLINE_URL_VARIABLE
from pipelines.materialize import steps
from serving.reload.reloader import Reloader
from tests.features.fake_feast_store import ACTS, USERS, Read
from tests.features.feast_fixtures import feast_store, view
from tests.features.store_cases import PATIENT_MS, Arena, moment, same_as_sdk, write
from tests.serving.decisions import decide
from tests.trained import copy_of
from tests.waiting import ANSWER_S
from tests.workspaces import make_workspace

SHOP = view(
    "shop",
    {"age": "number", "visits": "integer", "city": "category", "since": "time"},
    {"by_group": ["spend", "count"]},
)
EVERYONE = view("everyone_shop", {"age": "number"}, entity="everyone")
SECONDS_MAX = 120.0
SOON_MS = 50.0
GOOD: Read = (moment(1.0), {"age": Value(double_val=3.0)})
_names = itertools.count()


class Foreign:
    """An engine over a foreign store that does as it is told, and the loop that it is read from."""

    def __init__(self) -> None:
        self.name = f"foreign{next(_names)}"
        self.runner = asyncio.Runner()
        self.engines: list[FeastEngine] = []
        self.released = threading.Event()

    def acts(self, act: Callable[[str, str], Read]) -> None:
        ACTS[self.name] = act

    def hangs(self, view: str = "", customer: str = "") -> Read:
        """An act that does not end before the test does."""
        self.released.wait(SECONDS_MAX * 4)
        return GOOD

    def engine(self, *views: Any, timeout_ms: float = PATIENT_MS, **given: Any) -> FeastEngine:
        section = {"type": "tests.features.fake_feast_store.ForeignOnlineStore", "name": self.name}
        made = FeastEngine(section, views or (SHOP,), timeout_ms, "shop", **given)
        self.engines.append(made)
        return made

    def run(self, work: Awaitable[Any]) -> Any:
        async def running() -> Any:
            return await work

        return self.runner.run(running())

    def until(self, good: Callable[[], bool]) -> None:
        """Lets the loop run until something holds."""
        end = time.monotonic() + SECONDS_MAX
        while not good():
            assert time.monotonic() < end, "it did not come to that"
            self.run(asyncio.sleep(0.005))

    def answers(self, engine: FeastEngine) -> bool:
        try:
            return bool(self.run(engine.read("1")).known)
        except StoreUnavailable:
            return False


def readers() -> set[threading.Thread]:
    """The threads of all engines that are alive, those of earlier tests that are about to end among them."""
    return {thread for thread in threading.enumerate() if thread.name == "opportune-reader"}


@pytest.fixture
def foreign() -> Iterator[Foreign]:
    made = Foreign()
    made.acts(lambda view, customer: GOOD)
    yield made
    made.released.set()
    for engine in made.engines:
        engine.close()
    made.run(asyncio.sleep(0))
    made.runner.close()


def test_what_a_foreign_store_gives(foreign: Foreign) -> None:
    """A naive time is UTC; values of another type, of no known age or of another length are missing and counted."""
    families = {
        "by_group__keys": Value(string_list_val=StringList(val=["a", "b"])),
        "by_group__spend": Value(string_val="x"),
    }
    lists = {**families, "by_group__count": Value(double_list_val=DoubleList(val=[1.0, 2.0]))}
    values = {
        "age": Value(int64_val=3),
        "visits": Value(int64_val=7),
        "since": Value(unix_timestamp_val=-(1 << 63)),
        "other": Value(),
    }
    reads: dict[str, Read] = {
        "naive": (datetime(2026, 1, 2, 3, 4, 5, 6), {**values, **lists}),  # noqa: DTZ001 - what is shown
        "ageless": (None, {"age": Value(double_val=1.0)}),
        "absent": (None, None),
        "null": (moment(2.0), {"age": Value(null_val=0), "by_group__keys": Value()}),
    }
    foreign.acts(lambda view, customer: reads.get(customer, GOOD))
    engine = foreign.engine()
    row: OnlineRow = foreign.run(engine.read("naive"))
    assert row.event_times.tolist() == [datetime(2026, 1, 2, 3, 4, 5, 6, UTC).timestamp()]
    np.testing.assert_array_equal(row.numbers, [np.nan, 7.0, np.nan, np.nan])
    assert row.families[0] is not None
    np.testing.assert_array_equal(row.families[0].values, [[np.nan, np.nan], [1.0, 2.0]])
    assert [engine.words.texts[key] for key in row.families[0].keys] == ["a", "b"]
    assert engine.damaged == 2
    assert not foreign.run(engine.read("ageless")).known
    assert engine.damaged == 3
    assert not foreign.run(engine.read("absent")).known
    row = foreign.run(engine.read("null"))
    assert row.known
    assert np.isnan(row.numbers).all()
    assert row.families == [None]
    assert engine.damaged == 3


@pytest.mark.parametrize(
    "thrown", [ValueError("odd"), OSError("no route"), KeyError("x"), RuntimeError("x" * 10_000), StopIteration()]
)
def test_whatever_a_store_throws(foreign: Foreign, thrown: Exception) -> None:
    """Any exception of a store is StoreUnavailable with its message, opens the breaker, and is over when the store
    mends.
    """

    def throws(view: str, customer: str) -> Read:
        raise thrown

    foreign.acts(throws)
    engine = foreign.engine(SHOP, EVERYONE)
    with pytest.raises(StoreUnavailable, match=type(thrown).__name__):
        engine.everyone()
    for _ in range(FAILURES_MAX):
        with pytest.raises(StoreUnavailable, match=type(thrown).__name__) as caught:
            foreign.run(engine.read("1"))
        assert len(str(caught.value)) < 400
    assert engine.open
    with pytest.raises(StoreUnavailable, match=type(thrown).__name__):
        foreign.run(engine.read("1"))
    with pytest.raises(StoreUnavailable, match=type(thrown).__name__):
        engine.everyone()
    foreign.acts(lambda view, customer: GOOD)
    foreign.until(lambda: foreign.answers(engine))
    assert not engine.open
    assert engine.everyone().known


def test_half_closed(foreign: Foreign) -> None:
    """After a read that was tried succeeds, one more failure opens the breaker again, and a success forgets all
    failures.
    """
    broken = threading.Event()
    broken.set()

    def act(view: str, customer: str) -> Read:
        if broken.is_set():
            raise OSError("gone")
        return GOOD

    foreign.acts(act)
    engine = foreign.engine()
    for _ in range(FAILURES_MAX):
        assert not foreign.answers(engine)
    broken.clear()
    foreign.until(lambda: not engine.open)
    assert engine.failures == FAILURES_MAX - 1
    broken.set()
    assert not foreign.answers(engine)
    assert engine.open
    broken.clear()
    foreign.until(lambda: foreign.answers(engine))
    assert engine.failures == 0


def test_a_store_that_hangs(foreign: Foreign) -> None:
    """Reads of a store that hangs end in time, the breaker opens, threads and queue stay bounded, and it is over when
    it answers.
    """
    before = readers()
    hanging = threading.Event()
    foreign.acts(lambda view, customer: foreign.hangs() if hanging.is_set() else GOOD)
    engine = foreign.engine(timeout_ms=SOON_MS)
    foreign.until(lambda: foreign.answers(engine))
    hanging.set()

    async def crowd() -> list[OnlineRow | BaseException]:
        return await asyncio.gather(*(engine.read(str(i)) for i in range(WAITING_MAX * 2)), return_exceptions=True)

    found = foreign.run(crowd())
    assert {type(each) for each in found} == {StoreUnavailable}
    texts = {str(each) for each in found}
    assert texts == {"too many reads are waiting for the online store", "the online store did not answer within 50 ms"}
    assert engine.open
    with pytest.raises(StoreUnavailable, match="did not answer within 50 ms"):
        foreign.run(engine.read("1"))
    assert len(readers() - before) <= THREADS
    foreign.released.set()
    hanging.clear()
    foreign.until(lambda: foreign.answers(engine))


def test_answers_that_never_come(foreign: Foreign) -> None:
    """Threads that hang for good are stood in for, within a bound, and the store is read again once it answers."""
    before = readers()
    foreign.acts(foreign.hangs)
    engine = foreign.engine(timeout_ms=SOON_MS, hang_seconds=0.1)
    for _ in range(FAILURES_MAX):
        assert not foreign.answers(engine)
    foreign.until(lambda: len(readers() - before) > THREADS)
    foreign.acts(lambda view, customer: GOOD)
    foreign.until(lambda: foreign.answers(engine))
    assert len(readers() - before) <= THREADS + STAND_INS_MAX
    assert not foreign.released.is_set()


def test_stand_ins_are_bounded(foreign: Foreign) -> None:
    """A store that goes on hanging takes no more threads than were allowed to it."""
    before = readers()
    foreign.acts(foreign.hangs)
    engine = foreign.engine(timeout_ms=SOON_MS, hang_seconds=0.02)
    for _ in range(FAILURES_MAX):
        assert not foreign.answers(engine)
    foreign.until(lambda: len(readers() - before) == THREADS + STAND_INS_MAX)
    foreign.run(asyncio.sleep(0.3))
    assert len(readers() - before) == THREADS + STAND_INS_MAX
    engine.close()
    foreign.released.set()
    foreign.until(lambda: not readers() - before)


def test_a_read_that_is_given_up_still_counts(foreign: Foreign) -> None:
    """Who asks may stop waiting before the engine's deadline: the store is held to it all the same."""
    hanging = threading.Event()
    foreign.acts(lambda view, customer: foreign.hangs() if hanging.is_set() else GOOD)
    engine = foreign.engine(timeout_ms=SOON_MS)
    foreign.until(lambda: foreign.answers(engine))
    hanging.set()

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.read("1"), 0.001)

    for _ in range(FAILURES_MAX):
        foreign.run(impatient())
    foreign.until(lambda: engine.open)


def test_each_thread_has_a_store_of_its_own(foreign: Foreign) -> None:
    """Concurrent reads give each customer their own row, and no store object is used by two threads."""

    def act(view: str, customer: str) -> Read:
        time.sleep(0.001)  # long enough for all threads to have something to do
        return moment(1.0), {"age": Value(double_val=float(customer or 0))}

    foreign.acts(act)
    engine = foreign.engine()

    async def crowd() -> list[OnlineRow]:
        return await asyncio.gather(*(engine.read(str(i)) for i in range(WAITING_MAX - THREADS)))

    for _ in range(5):
        assert [row.numbers[0] for row in foreign.run(crowd())] == [*map(float, range(WAITING_MAX - THREADS))]
    stores, threads = zip(*USERS[foreign.name], strict=True)
    assert len(stores) == len(set(stores)) == len(set(threads)) == THREADS


def test_closed(foreign: Foreign) -> None:
    """A closed engine says so, and its threads end."""
    before = readers()
    engine = foreign.engine(SHOP, EVERYONE)
    foreign.until(lambda: foreign.answers(engine))
    engine.close()
    engine.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        engine.everyone()
    with pytest.raises(StoreUnavailable, match="closed"):
        foreign.run(engine.read("1"))
    foreign.until(lambda: not readers() - before)


def test_another_time_zone_is_refused(foreign: Foreign, monkeypatch: pytest.MonkeyPatch) -> None:
    """Feast's SQLite store shifts times by the zone of the process, so that a process in another than UTC does not
    begin.
    """
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        with pytest.raises(ValueError, match=r"expected a process in UTC .* got one in E[SD]T"):
            foreign.engine()
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    found = Arena("feast", tmp_path, None)
    yield found
    found.close()


def test_a_locked_database(arena: Arena) -> None:
    """A SQLite file that another process keeps locked is unavailable in time, and read again when it is let go."""
    store = feast_store(
        arena.folder, arena.online, (SHOP,), project=arena.project
    )  # in the mode in which a writer locks readers out
    write(store, SHOP, [("1", {"age": 3.0}, 1.0)])
    engine = arena.engine(SHOP, timeout_ms=SOON_MS)
    arena.recovers(engine)
    with closing(sqlite3.connect(arena.folder / "online.db", timeout=SECONDS_MAX, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        for _ in range(FAILURES_MAX):
            assert arena.unavailable(engine) < ANSWER_S
        holder.execute("COMMIT")
    arena.recovers(engine)
    same_as_sdk(engine, arena.read(engine, "1"), store, (SHOP,), "1")


def test_a_deleted_database(arena: Arena) -> None:
    """A SQLite file that is deleted is noticed and not made anew by reading; another one in its place is read."""
    write(arena.store(SHOP), SHOP, [("1", {"age": 3.0}, 1.0)])
    engine = arena.engine(SHOP)
    arena.recovers(engine)
    for file in arena.folder.glob("online.db*"):
        file.unlink()
    for _ in range(FAILURES_MAX + 1):
        arena.unavailable(engine)
    assert not (arena.folder / "online.db").exists()
    store = arena.store(SHOP)
    write(store, SHOP, [("1", {"age": 4.0}, 2.0)])
    arena.recovers(engine, good=lambda row: row.numbers[0] == 4.0)


def test_a_damaged_database(arena: Arena) -> None:
    """A SQLite file that is none is unavailable, and read again when a good one has been put in its place."""
    store = feast_store(arena.folder, arena.online, (SHOP,), project=arena.project)  # one file, without a log beside it
    write(store, SHOP, [("1", {"age": 3.0}, 1.0)])
    place = arena.folder / "online.db"
    good = Path(shutil.copy(place, arena.folder / "good.db"))
    engine = arena.engine(SHOP)
    arena.recovers(engine)
    (arena.folder / "bad.db").write_bytes(b"\x5a" * 8_192)
    (arena.folder / "bad.db").rename(place)
    arena.unavailable(engine)
    with pytest.raises(StoreUnavailable, match="DatabaseError: file is not a database"):
        arena.read(engine, "1")
    good.rename(place)
    arena.recovers(engine)


def test_a_view_that_expired(arena: Arena) -> None:
    """A value that outlived its view's time to live is given with its event time, as by Feast's SDK: freshness is
    judged later.
    """
    store = arena.store(SHOP)
    write(store, SHOP, [("1", {"age": 3.0, "city": "Łódź"}, -500 * 86_400.0)])
    engine = arena.engine(SHOP)
    row = arena.read(engine, "1")
    same_as_sdk(engine, row, store, (SHOP,), "1")
    assert row.numbers[0] == 3.0
    assert row.event_times.tolist() == [moment(-500 * 86_400.0).timestamp()]


def serving_from(folder: Path, feast: Any, url: str | None = None) -> None:
    """Names another online store in the workspace file."""
    file = folder / "workspace.yaml"
    given = yaml.safe_load(file.read_text())
    given["stores"] = {
        "online": {"feast": feast, "timeout_ms": int(PATIENT_MS), **({} if url is None else {"url": url})}
    }
    given["serving"] = {"deadline_ms": int(PATIENT_MS)}
    file.write_text(yaml.safe_dump(given))


def decisions(folder: Path, customers: list[str], at: int) -> list[Any]:
    """What a worker decides for each customer at a moment, but for what is drawn anew each time."""
    workspace = load(folder)
    desk = Reloader(workspace, lambda: at)
    made = []

    async def all_of_them() -> None:
        for customer in customers:
            row = await desk.stores.customers.row(customer)
            assert row is not None
            request = DecisionRequest(customer, next(iter(workspace.offers.placements)), explain=True)
            decision = decide(request, desk.loaded, row, at)  # type: ignore[arg-type]  # it was loaded
            made.append((decision.offers, decision.considered, decision.degraded, decision.explanation))

    try:
        desk.load()
        assert desk.loaded is not None
        asyncio.run(all_of_them())
    finally:
        desk.close()
    return made


@pytest.mark.slow
def test_a_workspace_serves_the_same_from_sqlite(
    trained_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Materialized into Feast's SQLite store, a workspace gives the decisions that it gives from the embedded one."""
    folder, at = copy_of(trained_workspace, tmp_path / "copy"), now()
    known = pyarrow.parquet.read_table(folder / "data" / "customers.parquet")["msisdn"].unique().to_pylist()
    customers = [*known[::20], "stranger"]
    before = decisions(folder, customers, at)
    monkeypatch.setenv("FEAST_TEST_FILE", "online.db")
    serving_from(folder, {"type": "sqlite", "path": ".opportune/${FEAST_TEST_FILE}"})
    workspace = load(folder)
    assert not steps.is_materialized(workspace)
    shutil.rmtree(workspace.online)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert steps.materialize(workspace) > 0
    assert steps.is_materialized(workspace)
    assert (workspace.data / "online.db").exists()
    assert "${FEAST_TEST_FILE}" in (workspace.data / "feast" / "feature_store.yaml").read_text()
    after = decisions(folder, customers, at)
    assert len(after) == len(customers) > 20
    assert all(not degraded for _, _, degraded, _ in before)
    assert before == after


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_workspace(tmp_path / "shop", customers=3, decisions=1, days=2)


@pytest.mark.parametrize(
    ("feast", "url", "told"),
    [
        (
            {"type": "sqlite"},
            "redis://cache",
            "$.stores.online.feast: expected one online store, got both `url` and `feast`. Remove one",
        ),
        (
            {"path": "x"},
            None,
            "$.stores.online.feast: expected Feast's `online_store` section with its `type`, got none. For example",
        ),
        (
            {"type": "postgress"},
            None,
            "$.stores.online.feast.type: expected an online store that Feast knows, got `postgress`. Did you mean",
        ),
        ({"type": "x"}, None, "got `x`. Known are aerospike, "),
        ({"type": "hbase"}, None, "got `hbase`: No module named 'happybase'. Run `pip install 'feast[hbase]=="),
        ({"type": "bigtable"}, None, "Run `pip install 'feast[gcp]=="),
        (
            {"type": "nowhere.OurOnlineStore"},
            None,
            "got `nowhere.OurOnlineStore`: No module named 'nowhere'. Install the package",
        ),
        (
            {"type": "tests.features.fake_feast_store.OurOnlineStore"},
            None,
            "Could not import class 'OurOnlineStoreConfig'",
        ),
        (
            {"type": "sqlite", "pfad": "x"},
            None,
            "$.stores.online.feast.pfad: expected settings that Feast's store takes, got Extra inputs",
        ),
        (
            {"type": "sqlite", "path": "${FEAST_TEST_UNSET}/online.db"},
            None,
            (
                "$.stores.online.feast.path: expected a variable of the environment that is set, got"
                " `${FEAST_TEST_UNSET}`. Set FEAST_TEST_UNSET"
            ),
        ),
        (
            {"type": "hybrid", "online_stores": [{"type": "${FEAST_TEST_UNSET}"}]},
            None,
            "$.stores.online.feast.online_stores[0].type: expected a",
        ),
    ],
)
def test_faults_of_the_workspace_file(
    folder: Path, feast: dict[str, Any], url: str | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A section that cannot serve is a fault with its place and the way out, found when the workspace is loaded."""
    monkeypatch.setenv(ALLOW_VARIABLE, "nowhere.OurOnlineStore, tests.features.fake_feast_store.OurOnlineStore")
    serving_from(folder, feast, url)
    with pytest.raises(BadWorkspace) as caught:
        load(folder)
    assert told in str(caught.value)


def test_secrets_come_from_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A placeholder is filled in where the store is opened, and stays as it is in what is written, shown and told."""
    monkeypatch.setenv(ALLOW_VARIABLE, "1")
    monkeypatch.setenv("FEAST_TEST_SECRET", "pa$$: ${HOME} '\"")
    serving_from(
        folder, {"type": "tests.features.fake_feast_store.ForeignOnlineStore", "name": "a ${FEAST_TEST_SECRET} b"}
    )
    workspace = load(folder)
    assert workspace.online_feast == {
        "type": "tests.features.fake_feast_store.ForeignOnlineStore",
        "name": "a pa$$: ${HOME} '\" b",
    }
    assert definitions.configuration(workspace)["online_store"] == workspace.online_feast
    assert workspace.online_feast_written["name"] == "a ${FEAST_TEST_SECRET} b"
    assert workspace.online_url.startswith("feast:tests.features.fake_feast_store.ForeignOnlineStore#")
    serving_from(
        folder,
        {"type": "tests.features.fake_feast_store.ForeignOnlineStore", "name": "a", "port": "${FEAST_TEST_SECRET}"},
    )
    with pytest.raises(BadWorkspace, match="valid integer") as caught:
        load(folder)
    assert "pa$$" not in str(caught.value)


def test_the_environment_may_name_another_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that names the online store wins over Feast's section, which is then not asked for."""
    serving_from(folder, {"type": "nowhere.OurOnlineStore", "secret": "${FEAST_TEST_UNSET}"})
    monkeypatch.setenv(ONLINE_URL_VARIABLE, "redis://cache")
    workspace = load(folder)
    assert (workspace.online_url, workspace.online_feast) == ("redis://cache", None)


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({}, ".opportune/online.db"),
        ({"path": "a/b.db"}, "a/b.db"),
        ({"path": "/tmp/b.db"}, "/tmp/b.db"),
        ({"path": "${PLACE}/b.db"}, "/c/b.db"),
    ],
)
def test_a_sqlite_file_lies_in_the_workspace(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], place: str
) -> None:
    """A relative path starts at the workspace, a default lies with all that is made, and a placeholder may be the
    beginning.
    """
    monkeypatch.setenv("PLACE", "/c")
    serving_from(folder, {"type": "sqlite", **given})
    found = load(folder).online_feast
    assert found is not None
    assert found["path"] == str(folder / place)
