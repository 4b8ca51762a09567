"""What events mean: which fit a workspace and why not, and what the ledger hears of those that do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from features.common.timestamps import to_microseconds
from features.common.types import Event, Offer
from features.config.experiments import Arm, Experiment, ExperimentsFile
from features.config.faults import BadWorkspace
from features.contact_history import history
from features.contact_history.history import key_of, word_of
from features.contact_history.takes import ContactEvent
from features.events.semantics import POISON, EventSchema, InvalidEvent, decided_at, outcome_types, time_of
from features.ledger.recent import Heard, RecentEvent
from features.validation.load import load
from features.workspace.workspace import Workspace
from tests.workspace_documents import FEATURES
from tests.workspaces import make_workspace

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
NOW_US = to_microseconds(NOW)
OFFER = Offer("o1", group="loans", attributes={"topic": "roaming", "price": 3.0})


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = load(make_workspace(tmp_path_factory.mktemp("happenings")), sources=False)
    return replace(
        made, experiments=ExperimentsFile(experiments={"colour": Experiment(arms={"red": Arm(), "blue": Arm()})})
    )


@pytest.fixture(scope="module")
def happenings(workspace: Workspace) -> EventSchema:
    return EventSchema(workspace, [OFFER])


def event(kind: str = "click", **fields: Any) -> Event:
    return Event(**{"event_id": "e1", "type": kind, "occurred_at": NOW, "customer_id": "c1", **fields})  # type: ignore[arg-type]


FITS = [
    event("impression", offer_id="o1", channel="app", placement="home", decision_id="d"),
    event("click", offer_id="o1"),
    event("accepted", offer_id="o1", value=-3.5),
    event("calls", fields={"minutes": 3, "topic": "roaming", "country": None}),
    event("calls", customer_id="", anonymous_id="a1"),
    event("payments", fields={"amount": -1e12}),
    event("identify", anonymous_id="a1"),
    event("consent", purposes={"personalization": False, "service": True}),
    event("exposure", experiment="colour", arm="red", decision_id="d1"),
    event("exposure", experiment="colour", arm="blue", customer_id="", anonymous_id="a1"),
    event("click", offer_id="o1", occurred_at=NOW - timedelta(days=30)),
    event("click", offer_id="o1", occurred_at=NOW + timedelta(minutes=5)),
]
DO_NOT: list[tuple[Event, str, str]] = [
    (event("nonsense"), "type-unknown", "/type"),
    (event("decisions"), "type-unknown", "/type"),
    (event("impressions"), "type-unknown", "/type"),
    (event("click", offer_id="o1", occurred_at=NOW - timedelta(days=30, microseconds=1)), "clock-skew", "/occurred_at"),
    (
        event("click", offer_id="o1", occurred_at=NOW + timedelta(minutes=5, microseconds=1)),
        "clock-skew",
        "/occurred_at",
    ),
    (
        event("click", offer_id="o1", occurred_at=datetime.fromisoformat("0001-01-01T00:00:00+14:00")),
        "clock-skew",
        "/occurred_at",
    ),
    (event("click", offer_id="o1", customer_id=""), "field-missing", "/customer_id"),
    (event("click", offer_id="o1", customer_id="undefined"), "field-value", "/customer_id"),
    (event("calls", customer_id="NuLL"), "field-value", "/customer_id"),
    (event("identify", anonymous_id="None"), "field-value", "/anonymous_id"),
    (event("click", offer_id="o1", decision_id="NaN"), "field-value", "/decision_id"),
    (event("click"), "field-missing", "/offer_id"),
    (event("impression", offer_id="o2"), "offer-unknown", "/offer_id"),
    (event("conversion", offer_id="o1", value=1.1e12), "out-of-range", "/value"),
    (event("impression", offer_id="o1", value=1.0), "field-unknown", "/value"),
    (event("click", offer_id="o1", fields={"minutes": 1.0}), "field-unknown", "/fields"),
    (event("calls", purposes={"service": True}), "field-unknown", "/purposes"),
    (event("calls", fields={"other": 1.0}), "field-unknown", "/fields"),
    (event("calls", fields={"minutes": "3"}), "field-type", "/fields/minutes"),
    (event("calls", fields={"topic": 3.0}), "field-type", "/fields/topic"),
    (event("calls", fields={"minutes": -2e12}), "out-of-range", "/fields/minutes"),
    (event("identify"), "field-missing", "/anonymous_id"),
    (event("identify", customer_id="", anonymous_id="a"), "field-missing", "/customer_id"),
    (event("identify", anonymous_id="a", value=1.0), "field-unknown", "/value"),
    (event("exposure"), "field-missing", "/experiment"),
    (event("exposure", experiment="colour"), "field-missing", "/arm"),
    (event("exposure", experiment="nonsense", arm="red"), "field-value", "/experiment"),
    (event("exposure", experiment="colour", arm="other"), "field-value", "/arm"),
    (event("exposure", experiment="colour", arm="red", value=1.0), "field-unknown", "/value"),
    (event("click", offer_id="o1", experiment="colour"), "field-unknown", "/experiment"),
    (event("impression", offer_id="o1", arm="red"), "field-unknown", "/arm"),
    (event("calls", experiment="colour", arm="red"), "field-unknown", "/experiment"),
    (event("consent"), "field-missing", "/purposes"),
    (event("consent", purposes={"espionage": True}), "field-value", "/purposes"),
]


@pytest.mark.parametrize("fitting", FITS, ids=lambda one: one.type)
def test_fits(happenings: EventSchema, fitting: Event) -> None:
    """Events of every kind fit, at both ends of what is allowed."""
    assert happenings.poison(fitting, NOW_US) is None


@pytest.mark.parametrize(
    ("poison", "code", "pointer"), DO_NOT, ids=[f"{one.type} {code} {pointer}" for one, code, pointer in DO_NOT]
)
def test_does_not_fit(happenings: EventSchema, poison: Event, code: str, pointer: str) -> None:
    """What does not fit has a code from a closed set, a place, and what was expected there; it never repeats what
    came.
    """
    found = happenings.poison(poison, NOW_US)
    assert isinstance(found, InvalidEvent)
    assert found[:2] == (code, pointer)
    assert code in POISON
    assert found.expected
    assert not {"nonsense", "other", "espionage"} & set(found.expected.replace(",", " ").split())


def test_offers_that_are_not_known_yet_are_taken(workspace: Workspace) -> None:
    """Without a catalogue every offer fits, and its categories are missing."""
    early = EventSchema(workspace, None)
    assert early.poison(event(offer_id="o9"), NOW_US) is None
    assert early.heard(event("accepted", offer_id="o9"), 7).event == RecentEvent(
        key_of("e1"), "outcomes", NOW_US, 7, {"offer_id": "o9", "type": "accepted"}
    )


def test_outcome_is_heard(happenings: EventSchema) -> None:
    """An outcome is an entry of the contact history and an event of the stream, with the categories of its offer."""
    heard = happenings.heard(
        event("accepted", offer_id="o1", decision_id="d1", channel="app", value=2, placement="home"), 5
    )
    contact = ContactEvent(
        history.OUTCOME, NOW_US / 1e6, key_of("o1"), key_of("d1"), key_of("loans"), word_of("app"), word_of("accepted")
    )
    fields: dict[str, float | str] = {"offer_id": "o1", "offer_topic": "roaming", "type": "accepted", "value": 2.0}
    assert heard == Heard("c1", contact, RecentEvent(key_of("e1"), "outcomes", NOW_US, 5, fields))


def test_impression_is_heard(workspace: Workspace, happenings: EventSchema) -> None:
    """An impression is an entry of the history, and an event where some window looks at impressions."""
    seen = event("impression", offer_id="o1", placement="home", channel="app")
    contact = ContactEvent(history.IMPRESSION, NOW_US / 1e6, key_of("o1"), 0, key_of("loans"), word_of("app"), 0)
    assert happenings.heard(seen, 5) == Heard("c1", contact)
    pair = {"stream": "impressions", "aggregate": "count", "key": "offer_id", "match": "offer_id"}
    pairs = {**FEATURES["pairs"], "seen": pair}
    features = msgspec.convert({**FEATURES, "pairs": pairs}, type(workspace.features))
    looked_at = EventSchema(with_features(workspace, features), [OFFER])
    fields: dict[str, float | str] = {"offer_id": "o1", "offer_topic": "roaming", "placement": "home", "channel": "app"}
    assert looked_at.heard(seen, 5) == Heard("c1", contact, RecentEvent(key_of("e1"), "impressions", NOW_US, 5, fields))


def with_features(workspace: Workspace, features: Any) -> Workspace:
    return replace(workspace, features=features)


def test_an_exposure_is_no_matter_of_decisions(happenings: EventSchema) -> None:
    """The ledger hears nothing of an exposure: it is there to be counted."""
    assert happenings.heard(event("exposure", experiment="colour", arm="red"), 5) == Heard("c1")


def test_stream_identity_and_consent_are_heard(happenings: EventSchema) -> None:
    """A row of a stream without what is missing, a link from the anonymous unit, and purposes with their time."""
    row = event("calls", customer_id="", anonymous_id="a1", fields={"minutes": 3, "topic": "roaming", "country": None})
    assert happenings.heard(row, 5) == Heard(
        "~a1", event=RecentEvent(key_of("e1"), "calls", NOW_US, 5, {"minutes": 3.0, "topic": "roaming"})
    )
    assert happenings.heard(event("identify", anonymous_id="a1"), 5) == Heard("~a1", identify="c1", received=5)
    assert happenings.heard(event("consent", purposes={"service": False}), 5) == Heard(
        "c1", consent={"service": (NOW_US, False)}
    )


def test_moment_of_a_decision_is_in_its_id() -> None:
    """Ids of ours tell when they were made; those of others, and moments that cannot be, do not."""
    late = 30 * 86_400 * 10**6
    assert decided_at(f"{NOW_US:x}-170eb82a-1", NOW_US + 5, late) == NOW_US
    for strange in (
        "",
        "d1",
        "order-7",
        f"{NOW_US:x}",
        f"{NOW_US - late - 1:x}-w-1",
        f"{NOW_US + 10**9:x}-w-1",
        "zz660d8cccaa83f-1",
    ):
        assert decided_at(strange, NOW_US, late) is None


def test_moment_is_exact() -> None:
    """Microseconds are those of the calendar, whatever the offset."""
    there = datetime.fromisoformat("2026-11-22T13:00:00.000001+01:00")
    assert time_of(event(occurred_at=there)) == to_microseconds(there) == NOW_US + 1


def written(folder: Path, **files: Any) -> Path:
    """A workspace with other files."""
    make_workspace(folder)
    for name, said in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(said))
    return folder


@pytest.mark.parametrize("name", ["click", "impression", "identify", "consent", "exposure", "accepted", "bored"])
def test_streams_do_not_take_the_names_of_other_events(tmp_path: Path, name: str) -> None:
    """A stream may not be named as a reserved type, an outcome, the label's or a pause's."""
    features = {**FEATURES, "streams": {**FEATURES["streams"], name: {"numbers": ["n"]}}}
    folder = written(tmp_path, features=features, policies={"pauses": {"p": {"outcome": "bored", "pause": "1d"}}})
    with pytest.raises(BadWorkspace, match="no type of event already"):
        load(folder, sources=False)


def test_outcomes_are_not_other_types(tmp_path: Path, workspace: Workspace) -> None:
    """A pause may not wait for an impression as if it were an outcome."""
    folder = written(tmp_path, policies={"pauses": {"p": {"outcome": "impression", "pause": "1d"}}})
    with pytest.raises(BadWorkspace, match="a type of outcome"):
        load(folder, sources=False)
    assert {"accepted", "click", "dismissal"} <= outcome_types(workspace.policies, workspace.model)


def test_an_event_follows_the_decision_that_it_names(happenings: EventSchema) -> None:
    """A clock of whole seconds, or one that is a little behind, counts at the decision's moment for limits and windows;
    an hour is too much.
    """
    decided = NOW_US + 412_000
    name = f"{decided:x}-170eb82a-1"
    for behind, counts in ((0, decided), (30, decided), (301, NOW_US - 301 * 1_000_000), (-5, NOW_US + 5_000_000)):
        heard = happenings.heard(
            event("accepted", offer_id="o1", decision_id=name, occurred_at=NOW - timedelta(seconds=behind)), NOW_US
        )
        assert heard.contact is not None and heard.contact.time == counts / 1_000_000
    assert decided_at(name, NOW_US, 86_400_000_000) == decided
