"""Freshness of a row as a whole: whether some value that the model uses has outlived its limit and is missing for that
alone.

The values themselves are judged where they are laid, one by one (`features/columns/layout.py`,
`serving/conditions/inputs.py`); this is the flag that answers carry, so that nobody takes a cold ranking for a personal
one.
"""

from __future__ import annotations

from features.columns.contract import Contract
from features.columns.rows import Floats, RowSchema
from features.common.moments import Seconds


class Freshness:
    """The tightest freshness limit of each view of a plan, over the columns of a contract; made once a catalogue load.

    A view that is absent (its event time is NaN) is unknown and not stale. A value exactly as old as its limit is
    fresh. What rules alone use is not looked at: the model goes on without it.

    Args:
        contract: the columns that the model sees; its auxiliary ones are passed over.
        plan: of customers, or of everyone; columns of the other's views are passed over.

    Attributes:
        limits: view's position in the plan and its tightest limit in seconds, of those that have one.
    """

    __slots__ = ("limits",)

    def __init__(self, contract: Contract, plan: RowSchema) -> None:
        places = {view.name: at for at, view in enumerate(plan.views)}
        tightest: dict[int, float] = {}
        for column in contract.columns:
            at = places.get(column.source.partition(".")[0]) if _stored(column.kind, column.match) else None
            if at is not None and column.freshness_seconds is not None:
                tightest[at] = min(tightest.get(at, float("inf")), float(column.freshness_seconds))
        self.limits = tuple(sorted(tightest.items()))

    def stale(self, event_times: Floats, now: Seconds) -> bool:
        """Return whether a value of the row is older than its limit.

        Args:
            event_times: of an `OnlineRow`, seconds since 1970, one a view of the plan.
            now: seconds since 1970 of the decision.
        """
        return any(now - event_times.item(at) > limit for at, limit in self.limits)


def _stored(kind: str, match: str) -> bool:
    """Return whether a column's source is a view of the online store: context comes with the request, offers' facts
    with the catalogue.
    """
    return kind == "customer" or bool(match)
