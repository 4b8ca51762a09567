"""The online store is slow, damaged, gone or emptied while a server answers: 200s that say so, and recovery by
itself.
"""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from features.validation.load import load
from features.workspace.workspace import ONLINE_URL_VARIABLE, Workspace
from tests.serving.live import Answer, Live, load_on, serving_copy, wait_for
from tests.stores import Server, find_server
from tests.trained import copy_of
from tests.waiting import ANSWER_S

pytestmark = pytest.mark.slow

DEGRADED = (["features_unavailable"], ["features_unavailable", "contacts_unavailable"])
"""On Redis, the ledger is away with the features."""

needs_redis = pytest.mark.skipif(not find_server()[0], reason=find_server()[1] or "there is one")


def degraded(live: Live, customer: str = "436600000") -> bool:
    """Whether an answer says that a store was away; it is a full answer all the same. Rows may come back before the
    ledger does.
    """
    answer = live.decide(customer)
    assert answer["degraded"] in ([], ["contacts_unavailable"], *DEGRADED)
    assert len(answer["offers"]) == 3
    return bool(answer["degraded"])


def personalised(live: Live, wanted: dict[str, Any]) -> bool:
    """Whether the customers get what they got when all was well."""
    return not degraded(live) and all(
        [offer["offer_id"] for offer in live.decide(customer)["offers"]] == offers
        for customer, offers in wanted.items()
    )


def rankings(live: Live) -> dict[str, Any]:
    """What some customers are shown; not all of them the same."""
    found = {
        f"436{number}": [offer["offer_id"] for offer in live.decide(f"436{number}")["offers"]]
        for number in range(600_000, 600_012)
    }
    assert len({str(offers) for offers in found.values()}) > 1
    return found


def all_answered(seen: list[Answer]) -> None:
    """Nothing but 200s, each within its bound."""
    assert Counter(answer.status for answer in seen) == {200: len(seen)}
    assert max(answer.seconds for answer in seen) < ANSWER_S


def degraded_in(seen: list[Answer]) -> int:
    """How many of the answers say that they had no features."""
    return sum(answer.json["degraded"] in DEGRADED for answer in seen)


# Embedded
# -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    server = Live(serving_copy(trained_workspace, tmp_path_factory.mktemp("embedded") / "shop")).start()
    yield server
    server.stop()


def online(live: Live) -> Path:
    return load(live.workspace, sources=False).online


def test_embedded_store_is_removed_and_comes_back(embedded: Live) -> None:
    """Without its folder the server answers degraded, under load and without an error; with it, as before."""
    wanted, place = rankings(embedded), online(embedded)
    before = embedded.metrics()
    with load_on(embedded.port) as seen:
        wait_for(lambda: len(seen) > 50)
        place.rename(place.with_name("away"))
        wait_for(lambda: degraded(embedded), what="a degraded answer")
        at = len(seen)
        wait_for(lambda: len(seen) > at + 50)
        assert degraded_in(seen[at + 8 :]) == len(seen[at + 8 :]), "none pretends"
        assert embedded.ask("GET", "/readyz").status == 200
        place.with_name("away").rename(place)
        wait_for(lambda: personalised(embedded, wanted), what="recovery")
    all_answered(seen)
    after = embedded.metrics()
    name = 'opportune_degraded_total{reason="features_unavailable"}'
    assert after[name] - before[name] >= degraded_in(seen) > 50


def test_embedded_store_is_deleted_and_written_again(embedded: Live, tmp_path: Path) -> None:
    """Another store in the place of a deleted one is taken up."""
    wanted, place = rankings(embedded), online(embedded)
    shutil.copytree(place, tmp_path / "kept")
    shutil.rmtree(place)
    wait_for(lambda: degraded(embedded), what="a degraded answer")
    shutil.copytree(tmp_path / "kept", place)
    wait_for(lambda: personalised(embedded, wanted), what="recovery")


def _cut(file: Path) -> None:
    with file.open("r+b") as handle:
        handle.truncate(file.stat().st_size // 2 // 4096 * 4096)


def _overwrite(file: Path) -> None:
    with file.open("r+b") as handle:
        handle.write(b"\xa5" * 16_384)


def _empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _overwrite, _empty])
def test_server_starts_on_a_damaged_store(
    trained_workspace: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """A damaged store keeps no server from starting; a good one in its place is taken up."""
    folder = serving_copy(trained_workspace, tmp_path / "shop")
    place = load(folder, sources=False).online
    shutil.copytree(place, tmp_path / "kept")
    files = sorted(place.rglob("data.mdb"))
    assert files
    for file in files:
        damage(file)
    live = Live(folder).start()
    try:
        assert degraded(live)
        shutil.rmtree(place)
        shutil.copytree(tmp_path / "kept", place)
        wait_for(lambda: not degraded(live), what="recovery")
        assert len(rankings(live)) == 12
    finally:
        live.stop()


# Redis
# --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("valkey")).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def shop(trained_workspace: Path, valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace whose online store is the Redis, by the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ONLINE_URL_VARIABLE, valkey.url)
        folder = copy_of(trained_workspace, tmp_path_factory.mktemp("redis") / "shop")
        yield load(folder)


def fill(shop: Workspace) -> None:
    """What `opportune materialize` does."""
    from pipelines.materialize import steps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert steps.materialize(shop) > 10


@pytest.fixture(scope="module")
def remote(shop: Workspace, valkey: Server) -> Iterator[Live]:
    fill(shop)
    server = Live(shop.folder, workers=2, environment={ONLINE_URL_VARIABLE: valkey.url}).start()
    yield server
    server.stop()


@needs_redis
def test_redis_hangs_under_load(remote: Live, valkey: Server) -> None:
    """A Redis that is stopped by SIGSTOP costs the features and nothing else; with SIGCONT they are back."""
    wanted = rankings(remote)
    with load_on(remote.port) as seen:
        wait_for(lambda: len(seen) > 50)
        valkey.pause()
        try:
            wait_for(lambda: degraded(remote), what="a degraded answer")
            at = len(seen)
            wait_for(lambda: len(seen) > at + 100)
            assert degraded_in(seen[at + 8 :]) == len(seen[at + 8 :])
        finally:
            valkey.resume()
        wait_for(lambda: personalised(remote, wanted), what="recovery")
    all_answered(seen)


@needs_redis
def test_redis_is_killed_and_restarted_empty(remote: Live, valkey: Server, shop: Workspace) -> None:
    """kill -9 and a restart without data: degraded while it is away and while it is empty, personalised once it is
    filled again.
    """
    wanted = rankings(remote)
    with load_on(remote.port) as seen:
        wait_for(lambda: len(seen) > 50)
        valkey.kill()
        wait_for(lambda: degraded(remote), what="a degraded answer")
        at = len(seen)
        wait_for(lambda: len(seen) > at + 100)
        assert degraded_in(seen[at + 8 :]) == len(seen[at + 8 :])
        valkey.start()
        at = len(seen)
        wait_for(lambda: len(seen) > at + 100)
        assert degraded_in(seen[at:]) == len(seen[at:]), "customers of an empty store are no strangers"
        fill(shop)
        wait_for(lambda: personalised(remote, wanted), what="recovery")
    all_answered(seen)


@needs_redis
def test_redis_is_emptied(remote: Live, valkey: Server, shop: Workspace) -> None:
    """FLUSHALL makes strangers of all customers without an error: it is noticed, said, and over when the store is
    filled again.
    """
    wanted = rankings(remote)
    wait_for(
        lambda: not any(degraded(remote, "who-is-this") for _ in range(10)),
        what="a stranger alone, who is no sign of it",
    )
    assert b"OK" in valkey.ask("FLUSHALL")
    wait_for(lambda: all(degraded(remote) for _ in range(10)), what="both workers' notice")
    assert "the online store is empty" in (remote.workspace / ".opportune" / "logs" / "server.log").read_text()
    fill(shop)
    wait_for(lambda: personalised(remote, wanted), what="recovery")
    wait_for(lambda: not any(degraded(remote, "who-is-this") for _ in range(10)), what="strangers are strangers again")


@needs_redis
def test_server_starts_without_its_redis(shop: Workspace, valkey: Server, remote: Live) -> None:
    """A server starts while its Redis is away, answers degraded, and finds it when it comes."""
    fill(shop)
    wanted = rankings(remote)
    valkey.pause()
    try:
        live = Live(shop.folder, environment={ONLINE_URL_VARIABLE: valkey.url}).start()
        try:
            assert degraded(live)
            valkey.resume()
            wait_for(lambda: personalised(live, wanted), what="recovery")
        finally:
            live.stop()
    finally:
        valkey.resume()
