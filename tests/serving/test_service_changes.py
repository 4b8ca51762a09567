"""The whole server while its bundle is changed or damaged, a worker is killed, or it is told to stop."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from features.common.types import DecisionRequest
from features.validation.load import load
from serving.reload.reloader import Reloader
from serving.settings import DRAIN_VARIABLE
from tests.serving.decisions import decide
from tests.serving.live import Live, another_bundle, ask, decision, load_on, serving_copy, wait_for
from training.bundle import bundle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def changing(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with two workers whose bundles and workers the tests change."""
    folder = serving_copy(trained_workspace, tmp_path_factory.mktemp("changing") / "shop")
    server = Live(folder, workers=2, environment={DRAIN_VARIABLE: "2"}).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def desk(changing: Live) -> Iterator[Reloader]:
    """The same state in this process."""
    made = Reloader(load(changing.workspace, sources=False))
    made.load()
    assert made.loaded is not None, made.refusal
    yield made
    made.close()


def bundles(live: Live) -> set[str]:
    """The bundles that answers name now, over both workers."""
    return {live.decide()["model"]["bundle"] for _ in range(20)}


def test_another_bundle_under_load(changing: Live) -> None:
    """A published bundle replaces the old one without a failure; each answer is wholly of one of the two."""
    folder = load(changing.workspace, sources=False).bundles
    (before,) = bundles(changing)
    place = another_bundle(changing.workspace, "2")
    after = bundle.read(place).id
    with load_on(changing.port) as seen:
        wait_for(lambda: len(seen) > 100)
        for turn in range(3):  # there, back, and there again
            target = place if turn != 1 else folder / before.removeprefix("sha256:")[: len(place.name)]
            bundle.switch(folder, target)
            wanted = {after} if turn != 1 else {before}
            wait_for(lambda wanted=wanted: bundles(changing) == wanted, what="the switch")
    assert Counter(answer.status for answer in seen) == {200: len(seen)}, "no request failed"
    stamps = {tuple(sorted(answer.json["model"].items())) for answer in seen}
    assert {dict(stamp)["bundle"] for stamp in stamps} == {before, after}
    assert {(dict(stamp)["bundle"] == after, dict(stamp)["version"]) for stamp in stamps} == {(False, "1"), (True, "2")}
    assert bundles(changing) == {after}
    info = [name for name in changing.metrics() if name.startswith("opportune_bundle_info")]
    assert len(info) == 1 and 'version="2"' in info[0]


def test_each_answer_is_of_one_bundle(changing: Live, desk: Reloader) -> None:
    """Propensities are those of the bundle that the answer names, not of the other."""
    folder = load(changing.workspace, sources=False).bundles
    place = another_bundle(changing.workspace, "3", shift=-0.7)
    state = Reloader(load(changing.workspace, sources=False))
    states = {}
    for name in {place, *(folder / name for name in folder.joinpath("history.log").read_text().split())}:
        bundle_read = bundle.read(name)
        bundle.switch(folder, name)
        state.load()
        assert state.loaded is not None and state.loaded.stamp.bundle == bundle_read.id
        states[bundle_read.id] = state.loaded
    with load_on(changing.port) as seen:
        for name in (place, folder / "x", place):
            if name.exists():
                bundle.switch(folder, name)
            wait_for(lambda: len(bundles(changing)) == 1)
            time.sleep(0.3)
    for answer in seen:
        assert answer.status == 200
        told = answer.json
        loaded = states[told["model"]["bundle"]]
        request = msgspec.convert(decision(told["customer_id"]), DecisionRequest)
        again = decide(
            request,
            loaded,
            asyncio.run(state.stores.customers.row(told["customer_id"])),
            int(told["decision_id"].split("-")[0], 16),
            decision_id=told["decision_id"],
        )
        assert json.loads(msgspec.json.encode(again)) == told
    state.close()
    assert len(seen) > 50


@pytest.mark.parametrize("damage", ["forest.npz", "columns.json", "manifest.json", "calibration.json"])
def test_damaged_bundle_is_refused(changing: Live, damage: str) -> None:
    """A bundle that was damaged is refused and counted, the old one serves on; the next good one is taken."""
    folder = load(changing.workspace, sources=False).bundles
    (before,) = bundles(changing)
    good = bundle.current(folder)
    assert good is not None
    refused = changing.metrics()['opportune_refused_total{what="bundle"}']
    place = another_bundle(changing.workspace, f"damaged-{damage}")
    content = bytearray((place / damage).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (place / damage).write_bytes(content)
    (folder / bundle.CURRENT).write_text(place.name)
    wait_for(
        lambda: changing.metrics()['opportune_refused_total{what="bundle"}'] >= refused + 2,
        what="the refusal of both workers",
    )
    assert bundles(changing) == {before}
    assert changing.ask("GET", "/readyz").status == 200
    log = (changing.workspace / ".opportune" / "logs" / "server.log").read_text()
    assert f"bundle {place.name} is refused, the last good one serves on" in log
    bundle.switch(folder, good)
    wait_for(lambda: bundles(changing) == {before})


def test_a_killed_worker_comes_back(changing: Live) -> None:
    """kill -9 of one worker costs the requests it had; the other serves on, and another takes its place."""
    victim, *_ = before = changing.serving()
    connections = 6
    with load_on(changing.port, connections) as seen:
        wait_for(lambda: len(seen) > 100)
        psutil.Process(victim).send_signal(signal.SIGKILL)
        at = len(seen)
        wait_for(lambda: victim not in changing.serving())
        wait_for(lambda: len(seen) > at + 200, what="answers while one is away")
        wait_for(lambda: len(changing.serving()) == 2, what="another worker")
        wait_for(
            lambda: len({changing.decide()["decision_id"].split("-")[1] for _ in range(20)}) == 2,
            what="answers of both workers",
        )
    failed = [answer for answer in seen if answer.status != 200]
    assert len(failed) <= connections, Counter(answer.body for answer in failed)
    assert len({*changing.serving()} - {*before}) == 1


def test_stop_under_load_drains(changing: Live) -> None:
    """SIGTERM under load: what was taken is answered, readiness goes first, connections are closed with their answer,
    all end.
    """
    assert changing.process is not None
    with load_on(changing.port, 8) as seen:
        wait_for(lambda: len(seen) > 100)
        processes = changing.tree()
        changing.process.send_signal(signal.SIGTERM)
        wait_for(lambda: ask(changing.port, "GET", "/readyz").status in (0, 503))
        during = ask(changing.port, "POST", "/v1/decisions", decision())
        assert changing.process.wait(30) == 0
    assert during.status == 200 and during.headers["connection"] == "close"
    first = next((at for at, answer in enumerate(seen) if answer.status == 0), len(seen))
    assert all(answer.status == 200 for answer in seen[:first])
    assert (
        sum(answer.headers["connection"] == "close" for answer in seen[:first] if "connection" in answer.headers) > 20
    ), "it drained"
    errors = Counter(answer.body.split(b":")[0] for answer in seen if answer.status != 200)
    # Reset: in the listening queue when the last worker had closed its side; broken pipe: the same, seen while the
    # request was still being written. Dropped after being taken would be RemoteDisconnected.
    assert set(errors) <= {b"ConnectionRefusedError", b"ConnectionResetError", b"BrokenPipeError"}, errors
    assert errors[b"ConnectionResetError"] <= 40
    _, alive = psutil.wait_procs(processes, 5)
    assert not alive
