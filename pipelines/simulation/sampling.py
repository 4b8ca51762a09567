"""Requests to decide again: of past decisions, as the journal or the lake has them, or of customers where there are
none.

Which ones is told by a hash of the seed and the id, so that the same data and seed give the same sample on every
machine.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import msgspec

from features.common.errors import Failure
from features.common.types import ANONYMOUS, OFFERS_CONSIDERED, ContextValue, DecisionRequest
from features.events.journal import Line, read_lines
from features.lake import lake
from features.lake.tables import tables_of
from features.workspace.workspace import Workspace
from serving.hub.request_check import CHANNEL, channel_of
from serving.journal.files import DAMAGED, OPEN, SEALED

Source = Literal["journal", "decisions", "customers"]
JOURNAL_LINES_MAX = 200_000
"""The newest lines of the journal, of which a sample is drawn."""


class NothingToSample(Failure):
    """A workspace without decisions and without customers."""


class Sample(msgspec.Struct):
    """Requests, and where they come from: `journal` (answered), `decisions` (imported), `customers` (asked as strangers
    to history).
    """

    source: Source
    requests: list[DecisionRequest]


def sample_of(workspace: Workspace, size: int, seed: int, placement: str | None = None) -> Sample:
    """At most `size` requests: of the journal where it has so many, else of the imported decisions, else of customers.

    Args:
        placement: only decisions for it; customers are asked for it instead of every placement.

    Raises:
        NothingToSample: there are none of these.
    """
    found = _of_journal(workspace.data / "journal", size, seed, placement)
    if len(found) == size:
        return Sample("journal", found)
    imported = _of_decisions(workspace, size, seed, placement)
    if imported or found:
        return Sample("decisions", imported) if len(imported) >= len(found) else Sample("journal", found)
    asked = _of_customers(workspace, size, seed, placement)
    if not asked:
        where = "" if placement is None else f" for the placement {placement}"
        raise NothingToSample(
            f"expected past decisions{where} or customers to decide for, got none: run `opportune import` first"
        )
    return Sample("customers", asked)


def _drawn(seed: int, text: str) -> bytes:
    return blake2b(f"{seed}:{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _of_journal(folder: Path, size: int, seed: int, placement: str | None) -> list[DecisionRequest]:
    lines = (line for line in _newest(folder) if placement is None or placement in line.placement.split(","))
    drawn = ((_drawn(seed, line.decision_id), at, _asked_again(line)) for at, line in enumerate(lines))
    return [request for *_, request in heapq.nsmallest(size, drawn)]


def _newest(folder: Path) -> Iterator[Line]:
    read = 0
    for file in sorted(
        folder.iterdir() if folder.is_dir() else (), reverse=True
    ):  # names begin with the moment of their making
        if file.suffix not in (OPEN, SEALED, DAMAGED):
            continue
        for line in read_lines(file):
            yield line
            read += 1
        if read >= JOURNAL_LINES_MAX:
            return


def _asked_again(line: Line) -> DecisionRequest:
    names = line.placement.split(",")
    placement, placements = (names[0], None) if len(names) == 1 else (None, names)
    customer, anonymous = _named(line.customer_id)
    return DecisionRequest(
        customer, placement, line.limit, line.context, line.exclude, anonymous_id=anonymous, placements=placements
    )


def _named(unit: str) -> tuple[str, str | None]:
    """Return the ids with which a request names a unit: of a customer, of somebody before log-in."""
    return ("", unit[1:]) if unit.startswith(ANONYMOUS) else (unit, None)


def _of_decisions(workspace: Workspace, size: int, seed: int, placement: str | None) -> list[DecisionRequest]:
    names = [name for name in workspace.features.context if name != OFFERS_CONSIDERED]
    chosen = "".join(f", min({lake.quoted(name)})" for name in names)
    query = f"SELECT min(customer_id), min(placement){chosen} FROM decisions"
    if placement is not None:
        others = ", ".join(lake.literal(name) for name in workspace.offers.placements if name != placement)
        query += f" WHERE placement IS NULL OR placement NOT IN ({others})" if others else ""
    query += f" GROUP BY decision_id ORDER BY md5(decision_id || ':{seed}'), decision_id LIMIT {size}"
    found = []
    for customer, where, *values in _rows(workspace, query):
        context = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        if where not in workspace.offers.placements:
            where, context = _elsewhere(workspace, placement, context)
        customer, anonymous = _named(customer)
        found.append(DecisionRequest(customer, where, context=context, anonymous_id=anonymous))
    return found


def _elsewhere(
    workspace: Workspace, placement: str | None, context: dict[str, ContextValue]
) -> tuple[str, dict[str, ContextValue]]:
    """Where a decision is asked for that was made at a placement which is not declared: at the one wanted, or the first
    of its channel.
    """
    declared, channel = workspace.offers.placements, channel_of(workspace, context)
    names = list(declared) if placement is None else [placement]
    name = next((one for one in names if not declared[one].channels or channel in declared[one].channels), names[0])
    fits = not declared[name].channels or channel in declared[name].channels
    return name, context if fits else context | {CHANNEL: declared[name].channels[0]}


def _of_customers(workspace: Workspace, size: int, seed: int, placement: str | None) -> list[DecisionRequest]:
    """Customers of any table, each asked for each placement, in a channel in which it exists."""
    wanted = list(workspace.offers.placements) if placement is None else [placement]
    tables = [
        table for table in tables_of(workspace).values() if any(field.name == "customer_id" for field in table.fields)
    ]
    everybody = " UNION ".join(f"SELECT customer_id FROM {lake.quoted(lake.view_name(table))}" for table in tables)
    customers = -(-size // len(wanted))
    query = (
        f"SELECT customer_id FROM ({everybody}) ORDER BY md5(customer_id || ':{seed}'), customer_id LIMIT {customers}"
    )
    asked = [_elsewhere(workspace, name, {}) for name in wanted]
    everyone = [_named(row[0]) for row in _rows(workspace, query)]
    found = [
        DecisionRequest(who, name, context=context, anonymous_id=other)
        for who, other in everyone
        for name, context in asked
    ]
    return found[:size]


def _rows(workspace: Workspace, query: str) -> list[tuple[Any, ...]]:
    con = lake.connect(workspace)
    try:
        return con.execute(query).fetchall()
    finally:
        con.close()


def sampled(workspace: Workspace, most: int) -> list[str]:
    """Return some customers of the last decisions, who are likely to have offers now; none where the server alone is
    installed.
    """
    if find_spec("duckdb") is None:
        return []
    con = lake.connect(workspace)
    rows = con.execute(
        "SELECT customer_id FROM (SELECT customer_id, max(time) AS latest FROM decisions GROUP BY customer_id) "
        f"ORDER BY latest DESC, customer_id LIMIT {most}"
    ).fetchall()
    con.close()
    return [str(row[0]) for row in rows]
