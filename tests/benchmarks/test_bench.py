"""The benchmark measures what it says: the open loop, the oracle, the bars, and the form of what it writes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from benchmarks import bars, load, report, session
from benchmarks.oracle import Oracle, WrongAnswer
from features.common.timestamps import now
from features.common.types import DecisionRequest
from features.validation.load import load as load_workspace
from tests.serving.decisions import decide

DELAY_SECONDS = 0.03
ANSWER = b"HTTP/1.1 200 OK\r\nserver-timing: read;dur=0.5, score;dur=1.5\r\ncontent-length: 2\r\n\r\n{}"


@contextmanager
def slow_server(wait: Callable[[int], None]) -> Iterator[int]:
    """A server that answers the n-th request after `wait(n)`, each connection in a thread of its own."""
    counted, counting = iter(range(1 << 30)), threading.Lock()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            while connection.recv(65_536):
                with counting:
                    number = next(counted)
                wait(number)
                connection.sendall(ANSWER)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture
def bodies(tmp_path: Path) -> str:
    file = tmp_path / "bodies.txt"
    file.write_text('{"customer_id":"a","placement":"home"}\n{"customer_id":"b","placement":"home"}')
    return str(file)


def test_open_loop_tells_the_delay_of_the_server(bodies: str) -> None:
    """Every request that was due is sent and timed, and half of them take about as long as the server waits."""
    with slow_server(lambda _: time.sleep(DELAY_SECONDS)) as port:
        outcome = load.run(
            load.Plan(port, bodies, connections=16, seconds=1.0, rate=100.0, keep_every=10, timings=True)
        )
    found = outcome.percentiles()
    assert outcome.sent == 100 and outcome.refused == 0
    assert DELAY_SECONDS * 1e3 <= found["p50"] < DELAY_SECONDS * 1e3 + 30
    assert len(outcome.kept) == 10 and {one.request for one in outcome.kept} <= set(
        Path(bodies).read_text().splitlines()
    )
    assert session._parsed(outcome.timings[0]) == {"read": 0.5, "score": 1.5}


def test_open_loop_omits_nothing_while_the_server_stalls(bodies: str) -> None:
    """One stall delays all requests that were due meanwhile, not only the one that met it."""
    with slow_server(lambda number: time.sleep(0.5 if number == 20 else 0)) as port:
        outcome = load.run(load.Plan(port, bodies, connections=1, seconds=1.0, rate=100.0))
    late = sum(latency > 100 for latency in outcome.latencies)
    assert outcome.sent == 100
    assert late >= 30


def test_what_is_never_answered_is_infinitely_late() -> None:
    """Percentiles count what was due and got no answer, and refuse to be made of nothing."""
    found = load.percentiles([1.0] * 98 + [-1.0] * 2)
    assert found["p50"] == 1.0 and found["p99"] == float("inf")
    with pytest.raises(ValueError, match="ran nothing"):
        load.percentiles([])


def test_oracle_notices_a_wrong_answer(trained_workspace: Path) -> None:
    """The server's own code passes; another customer, order, propensity or offer does not."""
    workspace = load_workspace(trained_workspace)
    oracle = Oracle(workspace, workspace)
    engine, loaded, _ = oracle.parts()
    request = DecisionRequest("436600003", "home")
    decision = decide(request, loaded, engine.read_now(request.customer_id), now())
    asked, right = msgspec.json.encode(request).decode(), msgspec.json.encode(decision)
    oracle.check(asked, right)
    assert oracle.checked == 1
    first, second, *rest = decision.offers
    wrong = [
        msgspec.structs.replace(decision, customer_id="436600004"),
        msgspec.structs.replace(decision, offers=[second, first, *rest]),
        msgspec.structs.replace(decision, offers=[first, first, *rest]),
        msgspec.structs.replace(
            decision, offers=[msgspec.structs.replace(first, propensity=first.propensity * (1 + 1e-9)), second, *rest]
        ),
        msgspec.structs.replace(decision, offers=[first]),
    ]
    for answer in wrong:
        with pytest.raises(WrongAnswer):
            oracle.check(asked, msgspec.json.encode(answer))
    assert oracle.checked == 1


def test_a_bar_that_was_not_measured_is_not_reached() -> None:
    """Every bar is listed; what is missing, infinite or not a number counts as missed, with a reason."""
    values = {bar.key: bar.bar for bar in bars.BARS} | {"kernel": float("nan"), "open_p99": float("inf")}
    del values["start"]
    judged = {one.key: one for one in bars.judged(values, {"start": "the server did not start"})}
    assert len(judged) == len(bars.BARS)
    assert {key for key, one in judged.items() if not one.ok} == {"kernel", "open_p99", "start"}
    assert judged["start"].reason == "the server did not start" and judged["kernel"].reason


def test_latest_json_has_the_agreed_form(tmp_path: Path) -> None:
    """Machine, rows, and a bar for each figure of the issue, with these keys."""
    made = report.Report(
        {"date": "2026-11-22T08:00:00+00:00"}, [{"kind": "latency"}], bars.judged({"start": 1.0}, {}), {}, {}, True, 3
    )
    written = msgspec.json.decode(report.write(made, tmp_path).read_bytes())
    assert {"machine", "rows", "bars"} <= set(written)
    assert [one["name"] for one in written["bars"]] == [bar.name for bar in bars.BARS]
    assert all({"name", "value", "bar", "unit", "ok"} <= set(one) for one in written["bars"])
    assert (tmp_path / "202611220800.json").read_bytes() == (tmp_path / "latest.json").read_bytes()


def test_committed_results_name_every_bar() -> None:
    """The last full run that is kept with the code is of this form, was checked, and has a figure for each bar."""
    file = Path(__file__).parents[2] / "benchmarks" / "results" / "latest.json"
    if not file.exists():
        pytest.skip("no full run was kept yet: make bench")
    kept = msgspec.json.decode(file.read_bytes(), type=report.Report)
    assert {one.key for one in kept.bars} == {bar.key for bar in bars.BARS}
    assert kept.checked > 0 and not kept.quick
