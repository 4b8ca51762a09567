"""A Redis Cluster of three: read from any node, while slots move, and by the near cache too."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from features.columns.rows import StoreUnavailable
from features.online.engines import open_engine
from features.redis_store.engine import RedisEngine
from features.redis_store.feast_format import entity_key
from features.redis_store.routing import slot_of
from tests.features.feast_fixtures import feast_store, view
from tests.features.store_cases import Arena, same_as_sdk, write
from tests.features.tracking_cases import WAIT_SECONDS_MAX, Hand, age_of, engine_at
from tests.stores import Server, find_server, form_cluster

pytestmark = pytest.mark.skipif(not find_server()[0], reason=find_server()[1] or "there is one")

SHOP = view("shop", {"age": "number", "city": "category"}, {"by_group": ["spend"]})


def row(i: int) -> dict[str, object]:
    return {"age": float(i), "city": f"city {i}", "by_group__keys": [f"g{i}"], "by_group__spend": [float(i)]}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[Server]]:
    """A cluster of three."""
    nodes = [
        Server(tmp_path / f"node{i}", "--cluster-enabled", "yes", "--cluster-node-timeout", "1000").start()
        for i in range(3)
    ]
    try:
        form_cluster(nodes)
        yield nodes
    finally:
        for node in nodes:
            node.stop()


def test_cluster(cluster: list[Server], tmp_path: Path) -> None:
    """A cluster is read from any of its nodes, also after slots have moved; a dead node costs its own customers
    only.
    """
    arena = Arena("redis", tmp_path, cluster[0])
    everyone = view("everyone_shop", {}, {"by_group": ["spend"]}, entity="everyone")
    nodes = ",".join(f"127.0.0.1:{node.port}" for node in cluster)
    try:
        store = feast_store(
            tmp_path,
            {"type": "redis", "redis_type": "redis_cluster", "connection_string": nodes},
            (SHOP, everyone),
            project="shop",
        )
        write(store, SHOP, [(str(i), row(i), 1.0) for i in range(60)])
        write(store, everyone, [("*", {"by_group__keys": ["g1"], "by_group__spend": [1.0]}, 1.0)])
        engine = open_engine(f"redis+cluster://127.0.0.1:{cluster[1].port}", tmp_path, (SHOP, everyone), 300, "shop")
        arena.engines.append(engine)
        for i in range(60):
            same_as_sdk(engine, arena.read(engine, str(i)), store, (SHOP,), str(i))
        assert engine.everyone().known
        assert isinstance(engine, RedisEngine)

        # A map that is out of date: every answer is MOVED.
        routes = engine._routes
        routes._slots = [routes._slots[-1]] * len(routes._slots)  # type: ignore[union-attr]
        assert all(arena.read(engine, str(i)).known for i in range(60))

        cluster[2].kill()
        answers = []
        for i in range(60):
            try:
                answers.append(arena.read(engine, str(i)).known)
            except StoreUnavailable:
                answers.append(False)
        assert any(answers)
        assert not all(answers)
    finally:
        arena.close()


class Move:
    """The slot of one customer's key, on its way from the first node of a cluster to the second."""

    def __init__(self, cluster: list[Server]) -> None:
        self.cluster = cluster
        self.source, self.target = cluster[:2]
        self.ids = [node.ask("CLUSTER", "MYID").split()[1].decode() for node in cluster]
        of_source = [str(i) for i in range(1_000) if slot_of(_key(str(i))) < 5_461]
        self.customer, self.other = of_source[:2]
        self.slot = slot_of(_key(self.customer))
        assert self.slot != slot_of(_key(self.other))

    def begin(self) -> None:
        assert b"OK" in self.target.ask("CLUSTER", "SETSLOT", str(self.slot), "IMPORTING", self.ids[0])
        assert b"OK" in self.source.ask("CLUSTER", "SETSLOT", str(self.slot), "MIGRATING", self.ids[1])

    def migrate(self, hand: Hand) -> None:
        told = hand.client.execute_command("MIGRATE", "127.0.0.1", self.target.port, _key(self.customer), 0, 5_000)
        assert told in (b"OK", "OK", True)

    def end(self) -> None:
        for node in (self.target, self.source, self.cluster[2]):
            assert b"OK" in node.ask("CLUSTER", "SETSLOT", str(self.slot), "NODE", self.ids[1])


def _key(customer: str) -> bytes:
    return entity_key("customer_id", customer, "shop")


async def told_by_all(engine: RedisEngine) -> None:
    """Waits until what each node told before is dealt with: among so many customers there are some of each."""
    for i in range(20):
        await engine.read(f"nobody {i}")


def test_a_slot_that_moves(cluster: list[Server]) -> None:
    """Through all steps of a slot's move (ASK, MOVED), a read gives what was written last, with the near cache as
    without.
    """
    move, hands = Move(cluster), [Hand(node) for node in cluster]
    url = f"redis+cluster://127.0.0.1:{cluster[2].port}"

    async def case() -> None:
        plain, near = (engine_at(url, rows=rows) for rows in (0, 100))

        async def both(age: float) -> None:
            """Both engines read it, and the near cache serves nothing else."""
            await told_by_all(near)
            assert age_of(near.read_now(move.customer)) in (None, age)
            assert age_of(await plain.read(move.customer)) == age
            assert age_of(await near.read(move.customer)) == age

        def kept() -> float | None:
            return age_of(near.read_now(move.customer))

        hands[0].put(move.customer, 1.0)
        hands[0].put(move.other, 100.0)
        await both(1.0)
        assert kept() == 1.0
        move.begin()
        await both(1.0)
        hands[0].put(move.customer, 2.0)
        await both(2.0)
        await both(2.0)
        assert kept() == 2.0, "it is still at its old place"
        move.migrate(hands[0])
        await told_by_all(near)
        assert kept() is None, "the old node told that it is gone"
        await both(2.0)
        assert kept() is None, "what is read with ASKING is not kept"
        hands[1].put(move.customer, 3.0, asking=True)
        await both(3.0)
        assert age_of(await near.read(move.other)) == 100.0
        assert age_of(near.read_now(move.other)) == 100.0
        move.end()
        await both(3.0)
        assert near.read_now(move.other) is None, "the old node's rows count no more"
        await both(3.0)
        assert kept() == 3.0
        hands[1].put(move.customer, 4.0)
        await both(4.0)
        hands[1].client.flushall()
        await told_by_all(near)
        assert not (near.read_now(move.customer) or await near.read(move.customer)).known
        assert near.read_now(move.customer) is None, "a missing key leaves no trace when its slot moves"
        for engine in (plain, near):
            engine.close()
        await asyncio.sleep(0)

    asyncio.run(case())
    for hand in hands:
        hand.client.close()


def test_a_new_map_ends_what_was_kept(cluster: list[Server]) -> None:
    """When another node's failure makes the engine look at the map, the rows of a node that has lost slots count no
    more.
    """
    move, hand = Move(cluster), Hand(cluster[0])
    url = f"redis+cluster://127.0.0.1:{cluster[1].port}"

    async def case() -> None:
        near = engine_at(url, timeout_ms=500)
        hand.put(move.other, 100.0)
        await near.read(move.other)
        assert age_of(near.read_now(move.other)) == 100.0
        move.begin()
        move.end()
        cluster[2].kill()
        lost = next(str(i) for i in range(1_000) if slot_of(_key(str(i))) >= 10_923)

        async def looked() -> bool:
            with contextlib.suppress(StoreUnavailable):
                await near.read(lost)
            return near.read_now(move.other) is None

        end = time.monotonic() + WAIT_SECONDS_MAX
        while not await looked():
            assert time.monotonic() < end, "the rows of the old map are still served"
            await asyncio.sleep(0.02)
        near.close()
        await asyncio.sleep(0)

    asyncio.run(case())
    hand.client.close()
