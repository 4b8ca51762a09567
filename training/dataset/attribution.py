"""What followed from recorded decisions: which offers were seen, which were taken within the attribution window.

An outcome belongs to the decision that it names, whoever reports it; one that names none to the latest decision that
showed the offer to the same customer before. Impressions likewise, within a day. A decision counts once, however often
it was sent.

Where a workspace reports impressions, an offer that nobody saw is no failure: it says nothing. An offer counts when its
impression was reported, or any outcome followed. Whether impressions are reported is told day by day (UTC): on days
whose decisions have not a single one, as before the frontends sent any, or when they never do, every offer that was
answered counts as seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.columns.catalogue import Catalogue
from features.common.following import followed_sql
from features.common.moments import Micros
from features.common.timestamps import DAY_SECONDS, duration_seconds
from features.lake.lake import literal
from features.lake.recorded_bundles import RecordedBundle, read_bundle
from features.workspace.workspace import Workspace
from training.dataset.examples import FOREVER, NoExamples

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

IMPRESSION_SECONDS_MAX = DAY_SECONDS
"""After the decision; a later impression that names no decision is of another."""
DECISIONS_MAX = 1_000_000
"""The latest decisions that are learnt from: all is in memory at once."""

ROWS_ORDER = "epoch_us(m.time), s.decision_id, s.position"
"""In which rows of `shown s` stand, with the decision `m` of each."""


@dataclass(frozen=True)
class RecordedDecisions:
    """Matured decisions in the order of time, and their rows, those of one decision together.

    Attributes:
        bundle: of each decision, the position of its bundle in `bundles`.
        first: of each decision, its first row; one more at the end.
        offers, labels: of each row.
    """

    ids: list[str]
    customers: list[str]
    times: Integers
    closes: Integers
    considered: Integers
    bundle: Integers
    bundles: list[RecordedBundle]
    first: Integers
    offers: Integers
    labels: Floats


def attribute(con: duckdb.DuckDBPyConnection, workspace: Workspace, catalogue: Catalogue, now: Micros) -> None:
    """Make the temporary tables `made` (matured decisions) and `shown` (their offers that count) on a connection to the
    lake.

    `made`: decision_id, customer_id, time, closes, bundle, considered. `shown`: decision_id, position (in the
    catalogue), label. Decisions of which no offer counts, or none is in the catalogue, are not there; nor are those of
    a bundle whose columns nobody kept.

    Args:
        now: microseconds since 1970; what happened after it is not known.
    """
    ends = pa.array(np.minimum(catalogue.valid_until, FOREVER))
    con.register(
        "catalogue",
        pa.table({"offer_id": list(catalogue.index), "place": pa.array(np.arange(len(catalogue))), "ends": ends}),
    )
    label = workspace.model.label
    closes = "greatest(r.time, make_timestamptz(c.ends))"
    if label.within != "offer_end":
        closes = f"r.time + to_seconds({duration_seconds(label.within)})"
    until = f"time <= make_timestamptz({now}::BIGINT)"
    con.execute(f"""
        CREATE TEMP TABLE offered AS
        SELECT DISTINCT ON (r.decision_id, r.offer_id) r.decision_id, r.customer_id, r.time, r.bundle, r.considered,
            c.place, {closes} AS closes
        FROM recorded r JOIN catalogue c USING (offer_id) WHERE r.{until};
        CREATE TEMP TABLE made AS
        SELECT decision_id, min(customer_id) AS customer_id, min(time) AS time, max(closes) AS closes, min(bundle) AS
            bundle,
            max(considered) AS considered FROM offered GROUP BY decision_id
        HAVING max(closes) <= make_timestamptz({now}::BIGINT) ORDER BY time DESC, decision_id LIMIT {DECISIONS_MAX};
        CREATE TEMP TABLE candidates AS SELECT o.* FROM offered o SEMI JOIN made USING (decision_id);
        CREATE TEMP TABLE happened AS
        SELECT row_number() OVER () AS number, o.decision_id, o.customer_id, c.place, o.time, o.type =
            {literal(label.outcome)} AS success
        FROM outcomes o JOIN catalogue c USING (offer_id) WHERE o.{until};
        CREATE TEMP TABLE looked AS
        SELECT row_number() OVER () AS number, i.decision_id, i.customer_id, c.place, i.time
        FROM impressions i JOIN catalogue c USING (offer_id) WHERE i.{until};
        CREATE TEMP TABLE followed AS {_followed("happened", "d.closes", ", e.success")};
        CREATE TEMP TABLE seen AS {_followed("looked", f"d.time + to_seconds({IMPRESSION_SECONDS_MAX})", "")};
        CREATE TEMP TABLE reporting AS SELECT DISTINCT date_trunc('day', m.time) AS day FROM made m SEMI JOIN seen
            USING (decision_id);
        CREATE TEMP TABLE shown AS
        SELECT d.decision_id, d.place AS position, f.success IS NOT NULL AND f.success AS label
        FROM candidates d LEFT JOIN (SELECT decision_id, place, bool_or(success) AS success FROM followed GROUP BY ALL)
            f USING (decision_id, place)
        LEFT JOIN (SELECT DISTINCT decision_id, place, true AS was_seen FROM seen) s USING (decision_id, place)
        WHERE f.success IS NOT NULL OR s.was_seen OR date_trunc('day', d.time) NOT IN (SELECT day FROM reporting);
        """)
    con.execute("DELETE FROM made WHERE bundle NOT IN (SELECT unnest(?::VARCHAR[]))", [list(_bundles(workspace, con))])
    con.execute("DELETE FROM made WHERE decision_id NOT IN (SELECT decision_id FROM shown)")
    con.execute("DELETE FROM shown WHERE decision_id NOT IN (SELECT decision_id FROM made)")


def _bundles(workspace: Workspace, con: duckdb.DuckDBPyConnection) -> dict[str, RecordedBundle]:
    """Return the bundles that decided, as far as it is known what their numbers mean."""
    names = [str(row[0]) for row in con.execute("SELECT DISTINCT bundle FROM made ORDER BY bundle").fetchall()]
    return {name: kept for name in names if (kept := read_bundle(workspace, name)) is not None}


def decisions_of(workspace: Workspace, con: duckdb.DuckDBPyConnection) -> RecordedDecisions:
    """Return what `attribute` made.

    Raises:
        NoExamples: there are no decisions, or none had a success.
    """
    known = _bundles(workspace, con)
    made = con.execute(
        "SELECT decision_id, customer_id, epoch_us(time) AS time, epoch_us(closes) AS closes, bundle,"
        " coalesce(considered, 0) AS considered, rows FROM made JOIN (SELECT decision_id, count(*) AS rows FROM shown"
        " GROUP BY decision_id) USING (decision_id) ORDER BY 3, 1"
    ).to_arrow_table()
    rows = con.execute(
        f"SELECT s.position, s.label FROM shown s JOIN made m USING (decision_id) ORDER BY {ROWS_ORDER}"
    ).to_arrow_table()
    if not made.num_rows:
        raise NoExamples(
            "expected recorded decisions with a closed attribution window to learn from, got none: wait, or import"
            " history"
        )
    labels = np.asarray(rows.column("label").to_numpy(), np.float64)
    label = workspace.model.label
    if not labels.any():
        got = (
            f"got none for {made.num_rows} recorded decisions. Send them to /v1/events, or mend `label` in model.yaml."
        )
        raise NoExamples(f"expected outcomes of type `{label.outcome}` within {label.within} of a decision, {got}")
    numbers = {name: made.column(name).to_numpy().astype(np.int64) for name in ("time", "closes", "considered", "rows")}
    order = {bundle: number for number, bundle in enumerate(known)}
    return RecordedDecisions(
        [str(text) for text in made.column("decision_id").to_pylist()],
        [str(customer or "") for customer in made.column("customer_id").to_pylist()],
        numbers["time"],
        numbers["closes"],
        numbers["considered"],
        np.array([order[str(bundle)] for bundle in made.column("bundle").to_pylist()], np.int64),
        list(known.values()),
        np.concatenate([[0], np.cumsum(numbers["rows"])]).astype(np.int64),
        rows.column("position").to_numpy().astype(np.int64),
        labels,
    )


def _followed(events: str, end: str, more: str) -> str:
    """SQL of the decisions that events belong to, with what the events say more."""
    within = f"e.time >= d.time AND e.time < {end}"
    # A decision of a unit without a name is in `recorded` alone, where the views of the lake do not look.
    named = within.replace("e.time", f"({followed_sql('e.time', 'd.time')})")
    return f"""
        SELECT d.decision_id, d.place{more} FROM {events} e JOIN candidates d ON e.decision_id = d.decision_id AND
            e.place = d.place
        WHERE {named}
        UNION ALL
        SELECT decision_id, place{more.replace("e.", "")} FROM (
            SELECT d.decision_id, d.place{more}, e.number, d.time
            FROM {events} e JOIN candidates d ON e.customer_id = d.customer_id AND e.place = d.place
            WHERE e.decision_id IS NULL AND {within}
            QUALIFY row_number() OVER (PARTITION BY e.number ORDER BY d.time DESC, d.decision_id) = 1
        )"""
