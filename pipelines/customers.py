"""Customers to try things with."""

from __future__ import annotations

from features import lake
from features.workspace import Workspace


def sampled(workspace: Workspace, most: int) -> list[str]:
    """Some customers of the last decisions: they are likely to have offers now."""
    con = lake.connect(workspace)
    rows = con.execute(
        "SELECT customer_id FROM (SELECT customer_id, max(time) AS latest FROM decisions GROUP BY customer_id) "
        f"ORDER BY latest DESC, customer_id LIMIT {most}"
    ).fetchall()
    con.close()
    return [str(row[0]) for row in rows]
