"""The near cache by itself, and against a server that says what the test wants: order of news, silence, refusals, what
goes first.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.columns.rows import KeyedRow, OnlineRow
from features.redis_store.engine import RedisEngine
from features.redis_store.tracking_cache import (
    NEAR_CACHE_AGE_SECONDS_MAX,
    NEAR_CACHE_PROBE_SECONDS,
    NEAR_CACHE_SILENCE_SECONDS_MAX,
    NearCache,
)
from tests.features.tracking_cases import ALL, KEY, ROW, Fake, age_of, engine_at, news, until, until_read


def against(
    work: Callable[[Fake, RedisEngine], Coroutine[Any, Any, None]], clock: Callable[[], float] = lambda: 1.0
) -> None:
    async def case() -> None:
        async with Fake() as fake:
            engine = engine_at(fake.url, clock=clock)
            try:
                await work(fake, engine)
            finally:
                engine.close()
                await asyncio.sleep(0)

    asyncio.run(case())


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (ROW, True),
        (ROW + news(b"another", b"and another"), True),
        (ROW + b">2\r\n$5\r\nother\r\n$4\r\nnews\r\n", True),
        (ROW + news(KEY), False),
        (news(KEY) + ROW, False),
        (news(b"another", KEY) + ROW, False),
        (ROW + ALL, False),
        (ALL + ROW, False),
    ],
    ids=["alone", "other keys", "other news", "after", "before", "before, among others", "all after", "all before"],
)
def test_news_while_a_read_is_on_its_way(answer: bytes, kept: bool) -> None:
    """News of a key that arrives with the reply, before or after it, keeps the reply out; what comes next is kept
    again.
    """

    async def case(fake: Fake, engine: RedisEngine) -> None:
        fake.answers[b"HMGET"] = answer
        assert age_of(await engine.read("1")) == 7.0
        assert (engine.read_now("1") is not None) == kept
        fake.answers[b"HMGET"] = ROW
        await engine.read("1")
        assert age_of(engine.read_now("1")) == 7.0
        assert fake.asked.count(b"HELLO") == 1, "the connection was not lost"

    against(case)


def test_news_voids_only_reads_that_were_sent_before() -> None:
    """Of two reads of one key with news between them, the later is kept; a cancelled one stands in nobody's way."""

    async def case(fake: Fake, engine: RedisEngine) -> None:
        await engine.read("warm")
        fake.answers[b"HMGET"] = b""
        first = asyncio.ensure_future(engine.read("1"))
        await until(lambda: fake.asked.count(b"HMGET") == 2, "the first read")
        fake.say(news(KEY))
        fake.answers[b"HMGET"] = b""
        cancelled = asyncio.ensure_future(engine.read("2"))
        await until(lambda: fake.asked.count(b"HMGET") == 3, "the second read")
        second = asyncio.ensure_future(engine.read("1"))
        await until(lambda: fake.asked.count(b"HMGET") == 4, "the third read")
        cancelled.cancel()
        fake.say(ROW + ROW)
        assert age_of(await first) == 7.0
        assert engine.read_now("1") is None
        fake.say(ROW)
        assert age_of(await second) == 7.0
        assert age_of(engine.read_now("1")) == 7.0
        assert engine.read_now("2") is None
        fake.answers[b"HMGET"] = ROW
        await engine.read("2")
        assert age_of(engine.read_now("2")) == 7.0

    against(case)


def test_of_reads_at_once_the_first_is_kept() -> None:
    """Reads of one key that overlap without end keep none of them from being kept."""

    async def case(fake: Fake, engine: RedisEngine) -> None:
        await engine.read("warm")
        fake.answers[b"HMGET"] = b""
        first, second = (asyncio.ensure_future(engine.read("1")) for _ in range(2))
        await until(lambda: fake.asked.count(b"HMGET") == 3, "both reads")
        fake.say(ROW)
        await first
        assert age_of(engine.read_now("1")) == 7.0
        assert not second.done()
        fake.say(ROW)
        assert age_of(await second) == 7.0
        assert age_of(engine.read_now("1")) == 7.0

    against(case)


def test_rows_in_use_are_proven() -> None:
    """A hit on a silent connection sends one PING; its answer extends what is kept, its absence ends it at the
    bound.
    """
    now = 1_000.0

    async def case(fake: Fake, engine: RedisEngine) -> None:
        nonlocal now
        await engine.read("1")
        pings = fake.asked.count(b"PING")
        now += NEAR_CACHE_PROBE_SECONDS / 2
        assert engine.read_now("1") is not None
        now += NEAR_CACHE_PROBE_SECONDS
        assert [engine.read_now("1") is not None for _ in range(3)] == [True] * 3
        await until(lambda: fake.asked.count(b"PING") > pings, "a PING")
        assert fake.asked.count(b"PING") == pings + 1
        now += NEAR_CACHE_SILENCE_SECONDS_MAX - 0.01  # more since the read, less since the PING
        await until(lambda: engine.read_now("1") is not None, "the answer counts")
        fake.answers[b"PING"] = b""
        now += NEAR_CACHE_SILENCE_SECONDS_MAX + 0.02  # beyond the second PING too, which was sent just now
        assert engine.read_now("1") is None
        fake.answers[b"PING"] = b"+PONG\r\n"

    against(case, lambda: now)


def test_a_late_answer_proves_no_more_than_when_it_was_asked_for() -> None:
    """A reply proves what the server told until the read was sent, however long it was under way."""
    now = 1_000.0

    async def case(fake: Fake, engine: RedisEngine) -> None:
        nonlocal now
        await engine.read("warm")
        fake.answers[b"HMGET"] = b""
        reading = asyncio.ensure_future(engine.read("1"))
        await until(lambda: fake.asked.count(b"HMGET") == 2, "the read")
        now += NEAR_CACHE_SILENCE_SECONDS_MAX - 0.1
        fake.say(ROW)
        await reading
        now += 0.05
        assert engine.read_now("1") is not None
        now += 0.1
        assert engine.read_now("1") is None

    against(case, lambda: now)


def test_rows_grow_old() -> None:
    """However well the server is heard, a row is asked for again after a while."""
    now = 1_000.0

    async def case(fake: Fake, engine: RedisEngine) -> None:
        nonlocal now
        await engine.read("1")
        now += NEAR_CACHE_AGE_SECONDS_MAX - 0.1
        await engine.read("2")
        assert engine.read_now("1") is not None
        now += 0.2
        await engine.read("2")
        assert engine.read_now("1") is None
        assert engine.read_now("2") is not None

    against(case, lambda: now)


@pytest.mark.parametrize("refused", [b"HELLO", b"CLIENT"])
@pytest.mark.parametrize("answer", [b"-ERR unknown command\r\n", None])
def test_refused(refused: bytes, answer: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    """A server that refuses, or hangs up, is read without the cache, which is said once; one that grants it later is
    used with it.
    """

    async def case(fake: Fake, engine: RedisEngine) -> None:
        fake.answers[refused] = answer
        for _ in range(3):
            await until_read(engine, lambda row: age_of(row) == 7.0)
            assert engine.read_now("1") is None
            assert fake.writer is not None
            fake.writer.close()
            await asyncio.sleep(0.02)
        assert engine.near_hits == 0
        fake.answers |= Fake().answers

        def used(_: OnlineRow) -> bool:
            if engine.read_now("1") is None and fake.writer is not None:
                fake.writer.close()  # the next connection asks again
            return engine.near_hits > 0

        await until_read(engine, used)

    with caplog.at_level(logging.WARNING, "opportune.near_cache"):
        against(case)
    assert len([record for record in caplog.records if "the near cache is off" in record.message]) == 1


# The rows themselves
# ------------------------------------------------------------------------------------------------------


def a_row(number: float) -> OnlineRow:
    family = KeyedRow(np.array([1, 2], np.uint32), np.array([[number, 0.0]]))
    return OnlineRow(np.array([number]), [None, family], np.array([1.0]))


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(
        st.tuples(
            st.sampled_from(["get", "keep", "changed", "forget"]), st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
        )
    ),
)
def test_the_least_recently_used_goes_first(rows_max: int, steps: list[tuple[str, bytes]]) -> None:
    """Against an ordered dictionary of ten lines: what is kept, what goes when it is full, and that it never holds
    more.
    """
    cache, holds = NearCache(rows_max, lambda: 1.0), OrderedDict[bytes, float | None]()
    session = cache.session(lambda: None)
    session.heard = 1.0
    for number, (kind, key) in enumerate(steps):
        if kind == "keep":
            reading = cache.begin(key)
            session.sends(reading)
            cache.end(reading, a_row(number))
            holds[key] = float(number)
            holds.move_to_end(key)
            if len(holds) > rows_max:
                holds.popitem(last=False)
        elif kind == "changed":
            cache.changed(key)
            holds.pop(key, None)
        elif kind == "forget":
            session.forget()
            holds.update(dict.fromkeys(holds))  # they count no more, and hold their places until they are asked for
        else:
            found, expected = cache.get(key), holds.get(key)
            assert (None if found is None else found.numbers[0]) == expected
            if expected is None:
                holds.pop(key, None)
            else:
                holds.move_to_end(key)
        assert len(cache) == len(holds) <= rows_max


def test_what_does_not_count_takes_no_place() -> None:
    """A read that was sent in no session, or in one that has ended, pushes no row out."""
    cache = NearCache(10, lambda: 1.0)
    session = cache.session(lambda: None)
    cache.end(cache.begin(b"a"), a_row(1.0))
    reading = cache.begin(b"b")
    session.sends(reading)
    session.forget()
    cache.end(reading, a_row(1.0))
    reading = cache.begin(b"c")
    session.sends(reading)
    session.close()
    cache.end(reading, a_row(1.0))
    assert len(cache) == 0


def test_kept_rows_cannot_be_written() -> None:
    """Who has a row, read or kept, cannot change what the next one gets: arrays are read-only, and the rest is its
    own.
    """
    cache = NearCache(10, lambda: 1.0)
    session = cache.session(lambda: None)
    session.heard = 1.0
    reading, row = cache.begin(b"a"), a_row(5.0)
    session.sends(reading)
    cache.end(reading, row)
    kept = cache.get(b"a")
    assert kept is not None
    family = kept.families[1]
    assert family is not None
    for array in (row.numbers, kept.numbers, kept.event_times, family.keys, family.values):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    kept.families.clear()
    again = cache.get(b"a")
    assert again is not None
    assert again.families[0] is None
    assert again.families[1] is not None
    np.testing.assert_array_equal(again.families[1].values, [[5.0, 0.0]])
