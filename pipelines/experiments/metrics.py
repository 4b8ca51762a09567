"""The metrics of an experiment's report: goals, on which it is decided, and guardrails, which may only tell of harm."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from pipelines.experiments.data import NUMBERS
from pipelines.statistics.inference import MetricColumns

Role = Literal["goal", "guardrail"]


class Metric(Struct, frozen=True):
    """What is compared, in names of `NUMBERS`.

    Attributes:
        per: the denominator; None for units.
        before: the covariate, what the unit did in a window of the same length before its first exposure.
        events: what is counted to tell whether there is enough to say anything.
    """

    name: str
    numerator: str
    role: Role
    per: str | None = None
    before: str | None = None
    events: str = "converted"

    def measure(self, recorded: frozenset[str], use_before: bool = True) -> MetricColumns | None:
        """Return where the metric stands in a summary; None where nothing of it was recorded."""
        if self.numerator not in recorded or (self.per is not None and self.per not in recorded):
            return None
        covariate = (
            NUMBERS.index(self.before) if use_before and self.before in recorded and self.before is not None else None
        )
        return MetricColumns(
            NUMBERS.index(self.numerator), None if self.per is None else NUMBERS.index(self.per), covariate
        )


GOALS = (
    Metric("conversion", "converted", "goal", before="before_conversions"),
    Metric("value per unit", "value", "goal", before="before_value"),
    Metric("value per decision", "value", "goal", per="decisions"),
    Metric("clicks per impression", "clicks", "goal", per="impressions", events="clicks"),
)
"""More is better."""
GUARDRAILS = (
    Metric("dismissals per unit", "dismissals", "guardrail", events="dismissals"),
    Metric("consents withdrawn per unit", "withdrawn", "guardrail", events="withdrawn"),
    Metric("degraded part of decisions", "degraded", "guardrail", per="decisions", events="degraded"),
    Metric("slow part of decisions", "slow", "guardrail", per="decisions", events="slow"),
)
"""More is worse. Slow is what takes longer than 95 % of the control's decisions, so that the control has 5 %."""
