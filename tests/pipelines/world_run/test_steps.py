"""`opportune simulate-world` from its command line: a small world end to end in this process, and a service behind
HTTP.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from features.common.timestamps import now, to_microseconds
from features.common.types import Decision, DecisionRequest, Event
from pipelines.cli import world as world_verbs
from pipelines.world.port import DeciderRefused, Port
from pipelines.world.settings import DAY, NOW, WINDOW_DAYS
from pipelines.world_run.driver import Driven, drive, live_visits
from pipelines.world_run.in_process import DeskPort
from pipelines.world_run.over_http import HttpPort
from pipelines.world_run.report import WorldReport
from pipelines.world_run.steps import prepared, shift, world_in
from tests.pipelines.world_service import Service

CUSTOMERS, OFFERS, DECISIONS = 300, 20, 2_000
app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})
world_verbs.register(app)
app.callback()(lambda: None)


def command(*arguments: str | Path | int) -> Result:
    return CliRunner().invoke(app, ["simulate-world", *map(str, arguments)])


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world, not written yet."""
    return tmp_path_factory.mktemp("worlds") / "world"


@pytest.fixture(scope="module")
def made(folder: Path) -> Result:
    """The first run: it writes, imports, trains, publishes, decides and judges."""
    return command(
        folder, "--customers", CUSTOMERS, "--offers", OFFERS, "--decisions", DECISIONS, "--seed", 7, "--json"
    )


def report_of(done: Result) -> WorldReport:
    assert done.exit_code == 0, (done.output, done.exception)
    return msgspec.json.decode(done.stdout.encode(), type=WorldReport)


def test_small_world_learns_and_beats_uniform(made: Result) -> None:
    """From a seed to a report in one command: what was learnt is worth far more than chance, and the truth holds."""
    report = report_of(made)
    assert report.decisions == DECISIONS and report.offers_shown == 4 * DECISIONS and report.eligible_differs == 0
    assert report.settings.customers == CUSTOMERS and report.settings.offers == OFFERS and report.decider == "desk"
    regret = report.regret
    assert regret.uniform < 0.8 * regret.served < regret.served < regret.oracle
    assert regret.captured is not None and regret.captured > 0.2
    assert abs(report.conversion[0].off) < 4 and report.conversion[2].accepted == 0
    known = {one.group: one for one in report.calibration}["known"]
    assert known.ece < 0.5 * known.true, "propensities are far from the truth"
    assert report.degraded == {} and report.told is None
    assert set(report.events) == {
        "impression",
        "click",
        "acceptance",
        "dismissal",
        "purchases",
        "complaints",
        "identify",
    }


class Recorder:
    """A port that keeps the events, and hands everything on."""

    def __init__(self, inner: Port, deaf: bool = False) -> None:
        self.inner, self.told, self.name, self.deaf = inner, inner.told, inner.name, deaf
        self.events: list[Event] = []

    def turn(self, moment: int) -> int:
        return self.inner.turn(moment)

    def decide(self, request: DecisionRequest) -> Decision:
        return self.inner.decide(request)

    def tell(self, events: Sequence[Event]) -> None:
        self.events += events
        if not self.deaf:
            self.inner.tell(events)

    def close(self) -> None:
        self.inner.close()


def run(folder: Path, deaf: bool = False) -> tuple[Driven, list[Event]]:
    world, workspace = world_in(folder), prepared(folder)
    moved = shift(workspace)
    port = Recorder(DeskPort(workspace, NOW, moved), deaf)
    driven = drive(world, live_visits(world, 600), port, "w7", moved)
    port.close()
    return driven, port.events


def test_runs_reproduce_to_the_byte(made: Result, folder: Path) -> None:
    """The command again gives the same report, the run again the same decisions and events; nothing is made a second
    time.
    """
    before = {file: file.stat().st_mtime_ns for file in (folder / ".opportune" / "bundles").rglob("*")}
    assert command(folder, "--decisions", DECISIONS, "--json").stdout == made.stdout
    one, again = run(folder), run(folder)
    assert (
        msgspec.json.encode(one[1]) == msgspec.json.encode(again[1])
        and len(one[1]) == sum(one[0].events.values()) > 1_000
    )
    assert np.array_equal(one[0].slates, again[0].slates) and np.array_equal(one[0].propensities, again[0].propensities)
    assert {file: file.stat().st_mtime_ns for file in (folder / ".opportune" / "bundles").rglob("*")} == before


def test_what_happens_counts_for_what_follows(made: Result, folder: Path) -> None:
    """A desk that hears events decides otherwise than one that does not, once there were some, and as before until
    then.
    """
    assert made.exit_code == 0
    heard, deaf = run(folder)[0], run(folder, deaf=True)[0]
    differs = (heard.propensities != deaf.propensities).any(1)
    assert not differs[0] and differs[100:].mean() > 0.3


def test_events_tell_the_run_in_its_order(made: Result, folder: Path) -> None:
    """Ids are unique, times ascend, outcomes follow their impression within the window, and who is not logged in is
    anonymous.
    """
    assert made.exit_code == 0
    driven, events = run(folder)
    world, moved = world_in(folder), shift(prepared(folder))
    times = [to_microseconds(event.occurred_at) - moved for event in events]
    assert times == sorted(times) and len({event.event_id for event in events}) == len(events)
    assert dict(Counter(event.type for event in events)) == driven.events
    seen: dict[tuple[str | None, str | None], int] = {}
    for event, time in zip(events, times, strict=True):
        which = (event.decision_id, event.offer_id)
        if event.type == "impression":
            seen[which] = time
        elif event.offer_id is not None:
            assert seen[which] < time < seen[which] + WINDOW_DAYS * DAY
        if event.type == "identify":
            assert event.customer_id and event.anonymous_id
        else:
            assert bool(event.customer_id) != bool(event.anonymous_id)
    logged_in = [event for event in events if event.type == "identify"]
    assert len(logged_in) == (world.customers.login > 0).sum() > 0 and any(
        event.anonymous_id for event in events if event.offer_id
    )
    assert sum(event.value or 0.0 for event in events if event.type == "acceptance") == pytest.approx(
        float((world.offers.value[driven.slates] * driven.outcomes.accepted).sum())
    )


def test_people_and_pictures(made: Result, folder: Path, tmp_path: Path) -> None:
    """Without --json there are tables for people; --plots draws three pictures."""
    assert made.exit_code == 0
    done = command(folder, "--decisions", 300, "--plots", tmp_path / "plots")
    assert done.exit_code == 0, done.output
    assert "busy" not in done.output, "300 visits are fewer a day than those of the history"
    for said in (
        "under the oracle",
        "cold starts",
        "without consent",
        "new offers",
        "IPS",
        "Bots:",
        "Events are heard",
    ):
        assert said in done.output, said
    pictures = sorted((tmp_path / "plots").iterdir())
    assert [file.name for file in pictures] == ["new_offers.png", "regret.png", "reliability.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in pictures)


def test_what_cannot_be_simulated_is_refused(made: Result, folder: Path, tmp_path: Path) -> None:
    """Bounds, other settings than the folder's, foreign folders and addresses are refused with what was expected."""
    assert made.exit_code == 0
    for arguments, said in (
        ((folder, "--customers", 5), "greater than or equal to 50"),
        ((folder, "--decisions", 0), "greater than or equal to 100"),
        ((folder, "--key", "k"), "expected --url"),
        ((tmp_path / "fresh", "--url", "http://127.0.0.1:1"), "run without --url first"),
    ):
        done = command(*arguments)
        assert done.exit_code == 2 and said in " ".join(done.output.replace("│", " ").split()), done.output
    other = command(folder, "--seed", 8)
    assert other.exit_code != 0 and "expected 8, got 7" in str(other.exception)
    for url in ("ftp://there", "there", "http://there?x=1"):
        with pytest.raises(DeciderRefused, match="expected an address like"):
            HttpPort(url)
    help_text = command("--help").output
    assert "--url" in help_text and "Examples" in help_text


@pytest.fixture
def service() -> Iterator[Service]:
    """A running stand-in."""
    server = Service([f"o{at:05d}" for at in range(4)])
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_service_over_http(made: Result, folder: Path, service: Service) -> None:
    """Driven over HTTP, every event is accounted for once, through busy answers and one that was lost; flags are
    counted.
    """
    assert made.exit_code == 0
    url, begun = f"http://127.0.0.1:{service.server_port}", now()
    report = report_of(command(folder, "--decisions", 300, "--url", url, "--key", "secret", "--json"))
    assert report.decider == url and report.decisions == 300 and report.degraded == {"slow": 300}
    told = report.told
    assert told is not None and report.conserved and told.sent == sum(report.events.values())
    assert told.stored + told.duplicates == len(service.bodies) and told.duplicates > 0
    assert told.dead == report.events["complaints"] > 0 and told.reasons == {"type-unknown": told.dead}
    assert service.keys == {"Bearer secret"} and service.lost_answers == 0
    assert {slate.offer_id for slate in report.new_offers} and report.eligible_differs == 300, (
        "the stand-in considers four offers"
    )
    times = [to_microseconds(event.occurred_at) for event in service.bodies.values()]
    assert min(times) >= begun and max(times) <= now(), "a service's own clock is the real one"


def test_service_of_something_else_is_refused(made: Result, folder: Path, service: Service) -> None:
    """Offers of another workspace, a route that is not there, and nobody at the address: each is said as what it is."""
    assert made.exit_code == 0
    url = f"http://127.0.0.1:{service.server_port}"
    elsewhere = command(folder, "--decisions", 100, "--url", f"{url}/base")
    assert "expected" in str(elsewhere.exception) and "404" in str(elsewhere.exception)
    service.offers = ["summer-data"]
    foreign = command(folder, "--decisions", 100, "--url", url)
    assert "expected offers of this world" in str(foreign.exception) and "summer-data" in str(foreign.exception)
    service.shutdown()
    service.server_close()
    assert isinstance(command(folder, "--decisions", 100, "--url", url).exception, DeciderRefused)
