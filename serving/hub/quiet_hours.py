"""Quiet hours: times of the day, in the customer's time zone, in which nothing is offered in some channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache

from features.columns.catalogue import Catalogue
from features.columns.layout import Layout
from features.columns.rows import Dictionary, OnlineRow
from features.common.moments import Seconds
from features.common.time_zones import zone_of
from features.common.types import ContextValue
from features.config.features_file import ContextColumn
from features.config.policies import QuietHours
from features.expressions.scope import scope_of
from features.workspace.workspace import Workspace
from serving.conditions.inputs import ConditionInputs
from serving.hub.rules import concerned

ZONES_MAX = 1_024
QUARTER_SECONDS = 900
"""The clock of a zone is looked up once a quarter of an hour: offsets of zones are whole quarters."""

_FIRST_DAY = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class _Bound:
    name: str
    begin: int
    end: int
    """Minutes of the day; begin is in, end is out."""
    channels: frozenset[str]
    placements: frozenset[str]
    concerned: int
    column: int | None
    """Place of the zone's column in the facts."""
    zone: str

    def holds(self, minute: int) -> bool:
        if self.begin < self.end:
            return self.begin <= minute < self.end
        return minute >= self.begin or minute < self.end


class Quiet:
    """All quiet hours of a workspace on a catalogue."""

    def __init__(
        self,
        workspace: Workspace,
        catalogue: Catalogue,
        layout: Layout,
        columns: Mapping[str, ContextColumn],
        words: Dictionary,
    ):
        hours = workspace.policies.quiet_hours
        zones = [
            one.time_zone
            for one in hours.values()
            if one.time_zone is not None and one.time_zone.startswith(("customer.", "context."))
        ]
        scope = scope_of(workspace.features)
        terms = {name: scope[name] for name in sorted(set(zones))}
        self._facts = ConditionInputs(terms, layout.plan, columns, words)
        self._needs_facts = bool(terms)
        zone_of("UTC+0")  # reads the names of all zones, which takes milliseconds, before the first request does
        self.hours = [_bound(name, one, list(terms), workspace, catalogue) for name, one in hours.items()]

    def fallen(
        self, placement: str, channel: str, row: OnlineRow, context: Mapping[str, ContextValue], now: Seconds
    ) -> list[tuple[str, int]]:
        """Return the quiet hours that hold now, with the offers that they keep away, as sets.

        Args:
            now: seconds since 1970.
        """
        if not self.hours:
            return []
        facts = self._facts(row, context, now) if self._needs_facts else []
        found = []
        for one in self.hours:
            if one.channels and channel not in one.channels:
                continue
            if one.placements and placement not in one.placements:
                continue
            stated = facts[one.column] if one.column is not None else None
            if one.holds(
                minute_of_day(now, stated if isinstance(stated, str) and zone_of(stated) is not None else one.zone)
            ):
                found.append((one.name, one.concerned))
        return found


def _bound(name: str, one: QuietHours, columns: list[str], workspace: Workspace, catalogue: Catalogue) -> _Bound:
    from_column = one.time_zone is not None and one.time_zone in columns
    return _Bound(
        f"quiet_hours {name}",
        _minutes(one.begin),
        _minutes(one.end),
        frozenset(one.channels),
        frozenset(one.placements),
        concerned(one, catalogue),
        columns.index(str(one.time_zone)) if from_column else None,
        workspace.settings.time_zone if from_column or one.time_zone is None else one.time_zone,
    )


def _minutes(clock: str) -> int:
    hours, _, minutes = clock.partition(":")
    return 60 * int(hours) + int(minutes)


def minute_of_day(now: Seconds, zone: str) -> int:
    """Minutes since midnight in a time zone."""
    quarter = int(now // QUARTER_SECONDS)
    return _quarter_begins(quarter, zone)[1] + int(now - quarter * QUARTER_SECONDS) // 60


def day_of(now: Seconds, zone: str) -> int:
    """Return the day of the calendar in a time zone, counted from 1970-01-01."""
    return _quarter_begins(int(now // QUARTER_SECONDS), zone)[0]


@lru_cache(maxsize=ZONES_MAX)
def _quarter_begins(quarter: int, zone: str) -> tuple[int, int]:
    """Day and minute of the day."""
    local = datetime.fromtimestamp(quarter * QUARTER_SECONDS, UTC).astimezone(zone_of(zone) or UTC)
    return local.toordinal() - _FIRST_DAY, 60 * local.hour + local.minute
