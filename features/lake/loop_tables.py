"""Tables of the lake that only events and journals fill, beside the canonical ones: what belongs to whom, what is
allowed, what was seen.

Rows that came from events and journals carry `event_id` (of decisions: the decision's id) and `received` in every
table.
"""

from __future__ import annotations

from features.lake.tables import CUSTOMER, OFFER, TIME, Field, Table

LINKS = Table("links", "time", (Field("unit", "category", required=True), CUSTOMER, TIME))
"""`unit`, an anonymous one (`~` and its id), belongs to the customer. The first link that was received holds."""

CONSENTS = Table("consents", "time", (CUSTOMER, TIME, Field("purpose", "category"), Field("allowed", "boolean")))
"""A row a purpose; the latest counts."""

RECORDED = Table(
    "recorded",
    "time",
    (
        Field("decision_id", "category", required=True, id=True),
        CUSTOMER,
        TIME,
        Field("placement", "category"),
        OFFER,
        Field("bundle", "category"),
        Field("contract", "category"),
        Field("config", "category"),
        Field("position", "integer"),
        Field("considered", "integer"),
        Field("action_probability", "number"),
        Field("propensity", "number"),
        Field("score", "number"),
        Field("degraded", "texts"),
        Field("columns", "numbers"),
    ),
    ("decision_id", "placement", "offer_id"),
)
"""A row an offer that was shown. `position` counts from 0 within the answer, `considered` the offers scored; `columns`
are what the model saw, in the order of the bundle's columns, NaN where missing (see
`features/lake/recorded_bundles.py`).
"""

UNCLAIMED = Table("unclaimed", "time", (CUSTOMER, TIME, Field("type", "category"), Field("body", "category")))
"""Events of streams that are no longer declared and have no table, whole, as JSON: nothing that was accepted is lost.
"""

EXPOSURES = Table(
    "exposures",
    "time",
    (
        CUSTOMER,
        Field("experiment", "category", required=True),
        Field("arm", "category", required=True),
        TIME,
        Field("probability", "number"),
        Field("covered", "number"),
        Field("reason", "category"),
        Field("decision_id", "category"),
        Field("unit", "category"),
        Field("channel", "category"),
        Field("placement", "category"),
        Field("degraded", "texts"),
        Field("took_us", "integer"),
    ),
)
"""A row an exposure: a decision that an arm changed, or could have, and an event `exposure` of a client. Assignment
alone is none. `customer_id` is who was answered, `unit` what was randomized where that is another: `~` and an anonymous
id, `@` and an account. `reason` is the assignment's, or `client`. `degraded` and `took_us`, the microseconds that the
decision took, are missing of what a client told. Rows that were written before `unit` was have the unit as
`customer_id`, and nothing in what follows it.
"""

GROUPS, USUAL = "@groups", "usual"
"""Where there is a holdout or a control group, each decision has a row of the experiment `GROUPS` in `exposures` too,
for the unit that the groups are drawn from: its arm is the group, or `USUAL`, its reason `GROUP`. No experiment and no
group can be called so.
"""
GROUP = "group"

KEPT = Table(
    "kept",
    "time",
    (
        Field("unit", "category", required=True),
        Field("experiment", "category", required=True),
        Field("arm", "category", required=True),
        TIME,
        Field("bucket_version", "integer"),
        Field("probability", "number"),
        Field("over_arm", "category"),
        Field("over_version", "integer"),
    ),
)
"""A row a sticky assignment of a unit that was to be written down, as it held from then on. `over_arm` and
`over_version` say which one it was to replace; they are missing where there was none. A ledger that is rebuilt has its
sticky assignments from here.
"""

LOOP_TABLES = (LINKS, CONSENTS, RECORDED, UNCLAIMED, EXPOSURES, KEPT)
