"""Which accounts are a customer's alone: what experiments keep of an account is personal only where nobody else belongs
to it.

An account of several customers stays: its assignment says nothing of any of them. Exposures under it that this
customer's decisions or events made are rows of the customer, and go with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import duckdb

from features.common.types import ACCOUNT
from features.events.journal import Line
from features.lake import lake
from features.lake.lake import literal, quoted
from features.lake.loop_tables import EXPOSURES
from features.lake.tables import Table, tables_of
from features.workspace.workspace import Workspace
from pipelines.erasure.lake import BadParquet
from pipelines.shipping.journal_files import READ_BYTES_MAX, journal_folder, lines, listed, read_part
from pipelines.shipping.state import state_of

Seen = set[tuple[str, str]]
"""Units of accounts, and who was seen in them."""


def accounts_of(workspace: Workspace, units: Sequence[str]) -> list[str]:
    """Units of accounts (`@` and the text) in which some of these units was seen, and nobody else, sorted.

    Args:
        units: a customer and the anonymous units that are linked to them.

    Raises:
        BadParquet: the lake cannot be read.
    """
    waiting = _in_journals(workspace)  # before the lake: what is shipped meanwhile is seen twice rather than never
    con = duckdb.connect()  # not the lake's: its views look at every file of it
    try:
        con.execute("CREATE TABLE waiting (account VARCHAR, customer_id VARCHAR)")
        if waiting:
            con.executemany("INSERT INTO waiting VALUES (?, ?)", sorted(waiting))
        theirs = ", ".join(map(literal, units))
        query = f"""
            SELECT account FROM ({" UNION ".join(["SELECT * FROM waiting", *_in_lake(workspace)])})
            GROUP BY account HAVING bool_and(customer_id IN ({theirs})) ORDER BY 1"""
        return [account for (account,) in con.execute(query).fetchall()]
    except duckdb.Error as error:
        said = (str(error).splitlines() or [""])[0]
        raise BadParquet(
            f"expected readable tables in {workspace.lake}, got: {said}. Remove the file that is named there"
        ) from error
    finally:
        con.close()


def _in_lake(workspace: Workspace) -> Iterator[str]:
    """SQL of who was seen in which account: exposures, and the tables that have the account's column."""
    if lake.files(workspace, EXPOSURES):
        exposed = lake.select(workspace, EXPOSURES)
        yield f"SELECT unit, customer_id FROM ({exposed}) WHERE starts_with(unit, {literal(ACCOUNT)})"
    kind, _, name = (workspace.experiments.account or "").partition(".")
    table = tables_of(workspace)["customers" if kind == "customer" else "decisions"]
    if name and _has(table, name) and lake.files(workspace, table):
        rows = lake.select(workspace, table)
        yield f"SELECT {literal(ACCOUNT)} || {quoted(name)}, customer_id FROM ({rows}) WHERE {quoted(name)} <> ''"


def _has(table: Table, name: str) -> bool:
    """An account may be a column that is computed, of which no table knows; then exposures alone tell."""
    return any(field.name == name for field in table.fields)


def _in_journals(workspace: Workspace) -> Seen:
    """Return the same of decisions that are not in the lake yet."""
    named = workspace.experiments.account
    if named is None:
        return set()
    kind, _, name = named.partition(".")
    found: Seen = set()
    for line in _unshipped(workspace):
        accounts = {unit for unit in line.units if unit.startswith(ACCOUNT)}
        if kind == "context" and (account := line.context.get(name)):
            accounts.add(f"{ACCOUNT}{account}")
        found |= {(account, line.customer_id) for account in accounts}
    return found


def _unshipped(workspace: Workspace) -> Iterable[Line]:
    folder, reached = journal_folder(workspace.data), state_of(workspace).journals
    for file in listed(folder):
        begin = reached.get(file.stem, 0)
        while begin < file.size and (content := read_part(folder, file.stem, begin, READ_BYTES_MAX)):
            end = 0
            for end, line, _ in lines(content, []):  # noqa: B007
                if isinstance(line, Line):
                    yield line
            if not end:
                break
            begin += end
