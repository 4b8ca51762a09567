"""Rows of the lake hold what lines of the journal and events say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from features.common.types import Event
from features.lake import lake
from features.lake.loop_tables import GROUPS, USUAL
from pipelines.shipping.ship import ship
from tests.pipelines.loops import (
    events,
    line,
    log_events,
    workspace_in,
    write_lines,
)


def test_rows_hold_what_lines_and_events_say(tmp_path: Path) -> None:
    """Placements of each offer, context in the types that are declared, what the model saw to the bit, and the
    stamps.
    """
    workspace = workspace_in(tmp_path / "w")
    several = line(
        3,
        shown=3,
        placement="home,bill",
        placements=("home", "bill", "bill"),
        context={"channel": "web", "hour": 7, "roaming_now": False},
    )
    write_lines(workspace, "a", [several, line(4, customer_id="")])
    log_events(workspace, events(0, 7))
    assert ship(workspace).rows == 3 * 2 + 2 + 8
    con = lake.connect(workspace)
    rows = con.execute(
        "SELECT placement, offer_id, channel, hour, roaming_now, event_id, received FROM decisions ORDER BY offer_id"
    ).fetchall()
    assert rows == [
        (placement, f"offer-{at:02d}", "web", 7.0, False, several.decision_id, several.at)
        for at, placement in enumerate(several.placements)
    ]
    found = con.execute(
        f"SELECT columns, position, considered, propensity FROM recorded WHERE decision_id = '{several.decision_id}'"
        " ORDER BY position"
    )
    for at, (columns, position, considered, propensity) in enumerate(found.fetchall()):
        assert np.array(columns).tobytes() == several.columns()[at].tobytes()
        assert (position, considered, propensity) == (at, 8, (3 + at) / 1000)
    assert con.execute("SELECT count(*) FROM recorded WHERE customer_id IS NULL").fetchall() == [(2,)]
    ids = con.execute("SELECT event_id, received FROM outcomes ORDER BY received").fetchall()
    assert [name for name, _ in ids] == ["e1", "e2"] and ids[0][1] < ids[1][1]
    assert con.execute("SELECT amount, method FROM streams_payments").fetchall() == [(5.0, "card")]
    con.close()


def test_linked_units_are_seen_as_their_customer(tmp_path: Path) -> None:
    """Views show rows of an anonymous unit under the customer of the link that was received first; others stay as they
    are.
    """
    workspace = workspace_in(tmp_path / "w")
    moment = events(0, 1)[0].occurred_at

    def event(number: int, kind: str, **fields: Any) -> Event:
        return Event(event_id=f"l{number}", type=kind, occurred_at=moment, **fields)

    log_events(
        workspace,
        [event(1, "calls", anonymous_id="x"), event(2, "calls", anonymous_id="y"), event(3, "calls", customer_id="c1")],
    )
    log_events(workspace, [event(4, "identify", anonymous_id="x", customer_id="c1")])
    log_events(workspace, [event(5, "identify", anonymous_id="x", customer_id="c2")])
    ship(workspace)
    con = lake.connect(workspace)
    assert con.execute("SELECT customer_id, count(*) FROM streams_calls GROUP BY 1 ORDER BY 1").fetchall() == [
        ("c1", 2),
        ("~y", 1),
    ]
    con.close()


def test_what_is_no_longer_declared_is_not_lost(tmp_path: Path) -> None:
    """An event of a stream that is gone goes into the stream's table where there is one, else whole into
    `unclaimed`.
    """
    workspace = workspace_in(tmp_path / "w")
    moment = events(0, 1)[0].occurred_at
    gone = [
        Event(event_id=f"g{at}", type=kind, occurred_at=moment, customer_id="c1", fields={"old": 1.5})
        for at, kind in enumerate(("faxes", "telexes"))
    ]
    (workspace.lake / "streams" / "telexes").mkdir(parents=True)
    log_events(workspace, gone)
    assert ship(workspace).left_out == {"faxes": 1}
    con = lake.connect(workspace)
    [(body,)] = con.execute("SELECT body FROM unclaimed").fetchall()
    assert msgspec.json.decode(body, type=Event) == gone[0]
    rows = con.execute(
        f"SELECT event_id, customer_id, old FROM {lake.reader(lake.counting(workspace.lake / 'streams' / 'telexes'))}"
    ).fetchall()
    assert rows == [("g1", "c1", 1.5)]
    con.close()


def test_exposures_come_from_decisions(tmp_path: Path) -> None:
    """A row for each arm to which a decision exposed its unit, once; not for an arm that changes nothing there, nor for
    older lines.
    """
    workspace = workspace_in(tmp_path / "w")
    given = (
        ("one", "a", 0.5, 0.2, "split", True),
        ("two", "b", 1.0, 1.0, "sticky", False),
        ("firm", "x", 0.25, 1.0, "split", True),
    )
    own, others = given[:2], ("c9", "c9", "@acme")
    lines = [
        line(1),
        line(2, experiments=own),
        line(3, shown=0, experiments=given, units=others, customer_id="c9", group_probability=0.9),
    ]
    write_lines(workspace, "a", lines)
    ship(workspace)
    ship(workspace)
    with lake.connect(workspace) as connection:
        files = str(workspace.lake / "exposures" / "**" / "*.parquet")
        columns = "customer_id, experiment, arm, probability, covered, reason, decision_id, event_id, unit, placement"
        query = f"SELECT {columns} FROM read_parquet(?) ORDER BY ALL"
        found = connection.execute(query, [files]).fetchall()
    first, second = lines[1].decision_id, lines[2].decision_id
    assert found == sorted(
        [
            (lines[1].customer_id, "one", "a", 0.5, 0.2, "split", first, first, None, "home"),
            ("c9", "one", "a", 0.5, 0.2, "split", second, second, None, "home"),
            ("c9", "firm", "x", 0.25, 1.0, "split", second, second, "@acme", "home"),
            ("c9", GROUPS, USUAL, 0.9, 1.0, "group", second, second, None, "home"),
        ]
    )
