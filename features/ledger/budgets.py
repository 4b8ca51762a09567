"""Budgets: how often an offer may be shown to everybody, in a day and in its life. Global counters, one small record an
offer.

A show is reserved when it is decided, confirmed when its impression is reported, and given back when the decision did
not come about. A reservation of which nothing is heard is released by time alone. To stay small, a record counts
reservations by the minute in which they were made; a reservation is released when the whole of its minute is beyond the
hold, so at most a minute late.

A record is little-endian doubles, which the Redis script reads as they are:

    used            shows that were confirmed, ever
    n               number of days that follow, at most DAYS_MAX; the youngest are kept
    (day, used)     [n]
    (minute, day, count)   open reservations, to the end of the record

The day is a whole number that the caller counts in the workspace's time zone. What is confirmed after its release is
counted all the same: it was shown. A budget can be exceeded by such late ones, and by what is confirmed after a loss of
the store.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from features.common.moments import Seconds
from features.contact_history.takes import CHOSEN_MAX

BUDGET_HOLD_SECONDS_MAX = 7_200.0
"""Bound on the hold of budgets, and so on a record: 122 minutes."""
DAYS_MAX = 3
"""Days that a record tells apart: yesterday's late impressions, today, and a worker whose clock is ahead."""
DAY_MAX = 1 << 31
MINUTE_SECONDS = 60

Fell = Literal["", "daily", "lifetime"]
"""Which budget of an offer is used up; empty: granted."""
FELL: tuple[Fell, ...] = ("", "daily", "lifetime")

_ASKED = struct.Struct("<Qdd")
_MOMENT = struct.Struct("<ddd")


class BudgetBound(NamedTuple):
    """An offer and how often it may be shown; infinity: no bound."""

    offer: int
    """`key_of` the offer's id."""
    daily_max: float = math.inf
    lifetime_max: float = math.inf


class Moment(NamedTuple):
    """When budgets are taken. The same moment names the reservations when they are confirmed or given back."""

    now: Seconds
    """Seconds since 1970."""
    day: int
    hold_seconds: float

    @property
    def minute(self) -> int:
        """The minute that the reservations are counted in."""
        return math.floor(self.now / MINUTE_SECONDS)

    def pack(self) -> bytes:
        """As the script reads it.

        Raises:
            ValueError: when a value is out of its bounds.
        """
        if not (
            0 <= self.now < math.inf
            and -DAY_MAX < self.day < DAY_MAX
            and 0 < self.hold_seconds <= BUDGET_HOLD_SECONDS_MAX
        ):
            raise ValueError(
                f"expected a time, a day and a hold of at most {BUDGET_HOLD_SECONDS_MAX:.0f} seconds, got {self}"
            )
        return _MOMENT.pack(self.now, self.day, self.hold_seconds)


def asked(budgets: Sequence[BudgetBound]) -> bytes:
    """Budgets as the script reads them.

    Raises:
        ValueError: when there are too many, or an offer is there twice.
    """
    if len({budget.offer for budget in budgets}) != len(budgets) or len(budgets) > CHOSEN_MAX:
        raise ValueError(f"expected at most {CHOSEN_MAX} budgets of different offers, got {len(budgets)}")
    return b"".join([_ASKED.pack(*budget) for budget in budgets])


@dataclass(slots=True)
class BudgetRecord:
    """The counters of one offer."""

    used: int = 0
    days: dict[int, int] = field(default_factory=dict)
    open: dict[tuple[int, int], int] = field(default_factory=dict)
    """(minute, day) -> reservations."""

    @staticmethod
    def unpack(data: bytes) -> BudgetRecord:
        """Raises ValueError when the data is no record."""
        if not data:
            return BudgetRecord()
        numbers = array("d", data)
        head = 2 + 2 * int(numbers[1])
        if len(numbers) < head or (len(numbers) - head) % 3:
            raise ValueError("a budget's record is damaged")
        whole = [int(number) for number in numbers]
        days = dict(zip(whole[2:head:2], whole[3:head:2], strict=True))
        return BudgetRecord(
            whole[0], days, {(m, d): c for m, d, c in zip(*(whole[head + i :: 3] for i in range(3)), strict=True)}
        )

    def pack(self) -> bytes:
        days = [number for pair in self.days.items() for number in pair]
        reserved = [number for (minute, day), count in self.open.items() for number in (minute, day, count)]
        return array("d", [self.used, len(self.days), *days, *reserved]).tobytes()

    def release(self, moment: Moment) -> None:
        """Forgets the reservations that were held long enough."""
        for minute, day in list(self.open):
            if (minute + 1) * MINUTE_SECONDS + moment.hold_seconds <= moment.now:
                del self.open[minute, day]

    def fell(self, budget: BudgetBound, day: int) -> Fell:
        """Return which budget one more show would exceed. Of a day that is no longer counted nothing is known: then it
        falls.
        """
        if self.used + sum(self.open.values()) >= budget.lifetime_max:
            return "lifetime"
        forgotten = len(self.days) >= DAYS_MAX and day < min(self.days)
        shown = self.days.get(day, 0) + sum(count for (_, reserved), count in self.open.items() if reserved == day)
        return "daily" if budget.daily_max < math.inf and (forgotten or shown >= budget.daily_max) else ""

    def reserve(self, moment: Moment) -> None:
        place = (moment.minute, moment.day)
        self.open[place] = self.open.get(place, 0) + 1

    def give_back(self, moment: Moment) -> None:
        """Remove one reservation of that moment, if it is still there."""
        place = (moment.minute, moment.day)
        left = self.open.pop(place, 0) - 1
        if left > 0:
            self.open[place] = left

    def confirm(self, moment: Moment) -> None:
        """Count a reservation of that moment as shown."""
        self.give_back(moment)
        self.used += 1
        self.days[moment.day] = self.days.get(moment.day, 0) + 1
        if len(self.days) > DAYS_MAX:
            del self.days[min(self.days)]
