"""Customers to try things with."""

from __future__ import annotations

from importlib.util import find_spec

from features import lake
from features.workspace import Workspace


def sampled(workspace: Workspace, most: int) -> list[str]:
    """Return some customers of the last decisions, who are likely to have offers now; none where the server alone is installed."""
    if find_spec("duckdb") is None:
        return []
    con = lake.connect(workspace)
    rows = con.execute(
        "SELECT customer_id FROM (SELECT customer_id, max(time) AS latest FROM decisions GROUP BY customer_id) "
        f"ORDER BY latest DESC, customer_id LIMIT {most}"
    ).fetchall()
    con.close()
    return [str(row[0]) for row in rows]
