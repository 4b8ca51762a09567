"""Quiet hours: the clock of any time zone against the standard library's, and what is offered in whose night."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from features.common.time_zones import zone_of
from features.config.features_file import FeaturesFile
from serving.hub.quiet_hours import day_of, minute_of_day
from serving.state.snapshot import Snapshot
from tests.serving import hubs
from tests.serving.decisions import decide
from tests.serving.hubs import Hubs, asked, microseconds, shown

pytestmark = pytest.mark.clock

ZONES = sorted(zoneinfo.available_timezones())
OFFERS = [hubs.offer(at, group="service" if at == 3 else "sales") for at in range(4)]
VIENNA = ZoneInfo("Europe/Vienna")


@pytest.fixture(scope="module")
def made(trained_workspace: Path) -> Iterator[Hubs]:
    yield from hubs.opened(trained_workspace)


@settings(max_examples=2_000, deadline=None)
@given(
    seconds=st.floats(1_451_606_400, 2_200_000_000, allow_nan=False),  # 2016 to 2039
    zone=st.sampled_from(ZONES)
    | st.sampled_from(["Pacific/Norfolk", "Pacific/Apia", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns"]),
)
@example(seconds=1_774_746_000.0 - 1e-6, zone="Europe/Vienna")  # the hour that is left out in March 2026
@example(seconds=1_774_746_000.0, zone="Europe/Vienna")
@example(seconds=1_792_890_000.0, zone="Europe/Vienna")  # the hour that comes twice in October 2026
@example(seconds=1_800_000_000.0, zone="Pacific/Kiritimati")
def test_clock_is_that_of_the_standard_library(seconds: float, zone: str) -> None:
    """Minute and day in a time zone are those of datetime, at any instant, also around a change of clocks and beyond
    half a day from UTC.
    """
    local = datetime.fromtimestamp(seconds // 1, UTC).astimezone(ZoneInfo(zone))
    assert minute_of_day(seconds, zone) == 60 * local.hour + local.minute
    assert day_of(seconds, zone) == (local.date() - date(1970, 1, 1)).days


@pytest.mark.slow
def test_every_change_of_clocks_is_on_a_quarter_of_an_hour() -> None:
    """What the quarter-hourly look-up rests on: at each quarter's begin and at its last second the offset is the same,
    for ten years.
    """
    looked = 0
    for zone in map(ZoneInfo, ZONES):
        begin, end = 1_767_225_600, 2_082_758_400  # 2026 to 2036
        for start in range(begin, end, 86_400):
            before, after = (
                datetime.fromtimestamp(at, UTC).astimezone(zone).utcoffset() for at in (start, start + 86_400)
            )
            if before == after:
                continue
            low, high = start, start + 86_400
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (
                    (middle, high)
                    if datetime.fromtimestamp(middle, UTC).astimezone(zone).utcoffset() == before
                    else (low, middle)
                )
            assert high % 900 == 0, (zone, high)
            looked += 1
    assert looked > 2_000


@pytest.mark.parametrize(
    "text",
    ["", "Vienna", "../../etc/passwd", "/etc/localtime", "Europe", "x" * 5_000, "Europe/Vienna\0", "ä", "tzdata.zi"],
)
def test_what_is_no_zone(text: str) -> None:
    """Whatever a table holds instead of a zone is none, and does no harm."""
    assert zone_of(text) is None


def state(made: Hubs, hours: dict[str, Any], **changes: Any) -> Snapshot:
    """The offers under some quiet hours; a context column `zone` is declared."""
    said = msgspec.to_builtins(made.desk.workspace.features)
    said["context"]["zone"] = {"dtype": "category", "model": False}
    return made.make({"quiet_hours": hours}, OFFERS, features=msgspec.convert(said | changes, FeaturesFile))


def open_at(loaded: Snapshot, made: Hubs, moment: datetime, **customer: Any) -> bool:
    """Whether something is offered at a moment."""
    context = {name: customer.pop(name) for name in ("zone", "channel") if name in customer}
    return bool(
        decide(
            asked(context=context), loaded, made.row(now=moment.timestamp(), **customer), microseconds(moment)
        ).offers
    )


@pytest.mark.parametrize(
    ("clock", "open_"),
    [
        ("20:59:59.999999", True),
        ("21:00", False),
        ("23:59:59", False),
        ("00:00", False),
        ("07:59:59.999999", False),
        ("08:00", True),
        ("12:00", True),
    ],
)
def test_night_reaches_over_midnight(made: Hubs, clock: str, open_: bool) -> None:
    """From 21 to 8 nothing is offered: the begin is in, the end is out, midnight makes no difference; the zone is the
    workspace's.
    """
    loaded = state(made, {"night": {"begin": "21:00", "end": "08:00"}})
    moment = datetime.fromisoformat(f"2026-11-17T{clock}").replace(tzinfo=VIENNA)
    assert open_at(loaded, made, moment) == open_


def test_night_is_the_customers_own(made: Hubs) -> None:
    """The hours are of the zone that a column of the customer holds; of the workspace's where it holds none, nothing
    sensible, or is old.
    """
    loaded = state(made, {"night": {"begin": "21:00", "end": "08:00", "time_zone": "customer.segment"}})
    noon = datetime(2026, 11, 17, 12, tzinfo=VIENNA)
    midnight = datetime(2026, 11, 17, 0, tzinfo=VIENNA)
    assert open_at(loaded, made, noon, segment="Europe/Vienna") and not open_at(
        loaded, made, noon, segment="America/Los_Angeles"
    )
    assert not open_at(loaded, made, midnight, segment="Europe/Vienna") and open_at(
        loaded, made, midnight, segment="America/Los_Angeles"
    )
    for west in ("america/los angeles", "UTC-8", "-08:00"):
        assert not open_at(loaded, made, noon, segment=west) and open_at(loaded, made, midnight, segment=west)
    for unknown in ({}, {"segment": "Middle/Earth"}, {"segment": "America/Los_Angeles", "age": 40 * 86_400.0}):
        assert open_at(loaded, made, noon, **unknown) and not open_at(loaded, made, midnight, **unknown)


def test_night_of_the_moments_own_zone(made: Hubs) -> None:
    """A context column may hold the zone; a fixed one may stand in the file."""
    noon = datetime(2026, 11, 17, 12, tzinfo=VIENNA)
    loaded = state(made, {"night": {"begin": "21:00", "end": "08:00", "time_zone": "context.zone"}})
    assert open_at(loaded, made, noon) and not open_at(loaded, made, noon, zone="America/Los_Angeles")
    fixed = state(made, {"night": {"begin": "21:00", "end": "08:00", "time_zone": "America/Los_Angeles"}})
    assert not open_at(fixed, made, noon, zone="Europe/Vienna")


@pytest.mark.parametrize(
    ("moment", "open_"),
    [
        # The hour from 02:00 to 03:00 does not exist on 2026-03-29, and comes twice on 2026-10-25.
        (datetime(2026, 3, 29, 0, 29, 59, tzinfo=UTC), True),
        (datetime(2026, 3, 29, 0, 30, tzinfo=UTC), False),
        (datetime(2026, 3, 29, 0, 59, tzinfo=UTC), False),
        (datetime(2026, 3, 29, 1, 0, tzinfo=UTC), True),
        (datetime(2026, 10, 24, 23, 30, tzinfo=UTC), False),
        (datetime(2026, 10, 25, 0, 29, 59, tzinfo=UTC), False),
        (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), True),
        (datetime(2026, 10, 25, 1, 15, tzinfo=UTC), False),
        (datetime(2026, 10, 25, 1, 30, tzinfo=UTC), True),
    ],
)
def test_days_on_which_clocks_change(made: Hubs, moment: datetime, open_: bool) -> None:
    """Quiet hours go by the clock on the wall: they are shorter where an hour is left out, and come twice where it
    does.
    """
    loaded = state(made, {"small": {"begin": "01:30", "end": "02:30"}})
    assert open_at(loaded, made, moment) == open_


def test_whom_quiet_hours_concern(made: Hubs) -> None:
    """They hold in their channels and placements only, leave excepted groups alone, and are told by name."""
    hours = {
        "night": {
            "begin": "21:00",
            "end": "08:00",
            "channels": ["app"],
            "placements": ["home"],
            "except_groups": ["service"],
        }
    }
    loaded = state(made, hours)
    moment = microseconds(datetime(2026, 11, 17, 23, tzinfo=VIENNA))
    answer = decide(
        asked(None, placements=["home", "bill"], context={"channel": "app"}, explain=True), loaded, made.row(), moment
    )
    assert (shown(answer, "home"), sorted(shown(answer, "bill"))) == (["o3"], ["o0", "o1", "o2"])
    told = decide(asked(context={"channel": "app"}, explain=True), loaded, made.row(), moment).explanation
    assert isinstance(told, dict)
    assert {one["offer_id"]: one["stopped_by"] for one in told["placements"]["home"]["not_shown"]} == dict.fromkeys(
        ("o0", "o1", "o2"), "quiet_hours night"
    )
    assert len(decide(asked(context={"channel": "web"}), loaded, made.row(), moment).offers) == 4
    assert len(decide(asked(), loaded, made.row(), moment).offers) == 4, "without a channel it is the default, web"
