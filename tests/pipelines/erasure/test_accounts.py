"""What experiments keep of accounts, when a customer is forgotten: an account that is theirs alone goes, a shared one
loses their link.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from features.common.timestamps import now
from features.events.journal import Line, Settled, write_frame
from features.ledger.ledger import ledger_of
from features.ledger.recent import KeptArm
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.erasure.accounts import accounts_of
from pipelines.erasure.erase import forget
from pipelines.erasure.scan import scan
from pipelines.materialize import rebuild, steps
from pipelines.shipping.journal_files import journal_folder, lines
from pipelines.shipping.ship import ship
from serving.journal.files import SEALED
from tests.pipelines.loops import line, write_lines
from tests.workspaces import make_workspace

VICTIM, OTHER, VISITOR = "436600003", "436600005", "~canary-visitor"
ALONE, ALSO_ALONE, SHARED = "@only-theirs-91", "@by-decisions-92", "@of-two-people"
ARM: KeptArm = ("a", 0, 0.5)
EXPERIMENTS: dict[str, Any] = {
    "account": "customer.tariff",
    "experiments": {"firm": {"status": "running", "sticky": True, "unit": "account", "arms": {"a": {}, "b": {}}}},
}


def decided(number: int, who: str, account: str) -> Line:
    """A decision that exposed an account."""
    given = (("firm", "a", 0.5, 1.0, "sticky", True),)
    return line(number, customer_id=who, decision_id=f"d-{number}", experiments=given, units=(account,))


def settle(workspace: Workspace, *units: str) -> None:
    """Accounts that keep their arm, as the ledger and the journal have it."""

    async def work() -> None:
        ledger = ledger_of(workspace)
        for unit in units:
            await ledger.settle(unit, {"firm": ARM}, {})
        ledger.close()

    asyncio.run(work())
    content, buffer = b"", bytearray()
    for at, unit in enumerate(units):
        write_frame(Settled(unit, now() - 1_000 + at, {"firm": ARM}, {}), buffer)
        content += bytes(buffer)
    (journal_folder(workspace.data) / f"20261120T230000.000000Z-{now():x}{SEALED}").write_bytes(content)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """The victim has an account of their own by their column and one by decisions, and shares one; a part was
    shipped.
    """
    folder = make_workspace(tmp_path / "shop", customers=9, decisions=1, days=4)
    table = pq.read_table(folder / "data" / "customers.parquet").to_pylist()
    rows = [row | {"tariff": ALONE[1:]} if row["msisdn"] == VICTIM else row | {"tariff": "common"} for row in table]
    pq.write_table(pa.Table.from_pylist(rows), folder / "data" / "customers.parquet")
    (folder / "experiments.yaml").write_text(yaml.safe_dump(EXPERIMENTS))
    made = load(folder)
    steps.import_tables(made, now())
    shown = [
        decided(1, VICTIM, SHARED),
        decided(2, OTHER, SHARED),
        decided(3, VICTIM, ALSO_ALONE),
        decided(4, OTHER, "@common"),
    ]
    write_lines(made, "0000000a", shown)
    settle(made, ALONE, SHARED)
    ship(made)
    settle(made, ALSO_ALONE)
    write_lines(
        made, "0000000b", [decided(5, VICTIM, SHARED), decided(6, VICTIM, "@one-day"), decided(7, VISITOR, "@one-day")]
    )
    return load(folder, sources=False)


def kept(workspace: Workspace) -> set[str]:
    """Those accounts of which the ledger keeps an arm."""
    ledger = ledger_of(workspace)
    found = {unit: ledger.look_now(unit) for unit in (ALONE, ALSO_ALONE, SHARED)}
    ledger.close()
    return {unit for unit, known in found.items() if known is not None and known.recent.kept == {"firm": ARM}}


def in_lake(workspace: Workspace, table: str, columns: str) -> Counter[Any]:
    """Rows of a table, each as often as it occurs."""
    return Counter(duckdb.execute(f"SELECT {columns} FROM '{workspace.lake / table}/**/*.parquet'").fetchall())


def in_journal(workspace: Workspace) -> set[str]:
    """Units whose assignments stand in the journal."""
    files = journal_folder(workspace.data).glob("2*")
    return {one.unit for file in files for _, one, _ in lines(file.read_bytes(), []) if isinstance(one, Settled)}


def test_whose_an_account_is(workspace: Workspace) -> None:
    """By column, exposures and decisions that wait to be shipped: alone where nobody else was ever seen in it."""
    assert accounts_of(workspace, [VICTIM]) == [ALSO_ALONE, ALONE]
    assert accounts_of(workspace, [VICTIM, VISITOR]) == [ALSO_ALONE, "@one-day", ALONE]
    assert accounts_of(workspace, [OTHER]) == [] and accounts_of(workspace, ["nobody"]) == []


def test_an_account_of_one_goes_and_a_shared_one_loses_the_link(workspace: Workspace) -> None:
    """Ledger, journal, lake and every file's bytes have nothing of accounts that were theirs alone; the shared one
    keeps its arm.
    """
    assert kept(workspace) == {ALONE, ALSO_ALONE, SHARED} == in_journal(workspace)
    assert scan(workspace.data, [ALONE]).plaintext_hits and scan(workspace.data, [ALSO_ALONE]).plaintext_hits
    before = in_lake(workspace, "exposures", "customer_id, unit, decision_id")
    assert before[VICTIM, SHARED, "d-1"] == before[OTHER, SHARED, "d-2"] == before[VICTIM, ALSO_ALONE, "d-3"] == 1
    done = forget(workspace, VICTIM)
    assert (done.done, done.units, done.proof.plaintext_hits) == (True, 3, 0)
    assert {place.left for place in done.places.values()} == {0} and done.places["ledger"].found == 2
    said = msgspec.json.encode(done).decode()
    assert ALONE not in said and ALSO_ALONE not in said
    assert kept(workspace) == {SHARED} == in_journal(workspace)
    assert in_lake(workspace, "kept", "unit, arm") == {(SHARED, "a"): 1}
    after = in_lake(workspace, "exposures", "customer_id, unit, decision_id")
    assert after == {row: count for row, count in before.items() if row[0] != VICTIM} and len(after) == 2
    assert scan(workspace.data, [ALONE, ALSO_ALONE, VICTIM]).plaintext_hits == 0
    rebuild.rebuild_ledger(workspace, "a test")
    assert kept(workspace) == {SHARED}, "what was forgotten does not come back"


def test_what_is_kept_of_a_customer_is_found(workspace: Workspace) -> None:
    """A customer of whom the ledger has nothing but an arm is counted, and after the forgetting it has nothing."""
    settle(workspace, OTHER)
    done = forget(workspace, OTHER)
    assert done.done and (done.places["ledger"].found, done.places["ledger"].removed, done.places["ledger"].left) == (
        1,
        1,
        0,
    )
    assert kept(workspace) == {ALONE, ALSO_ALONE, SHARED} and OTHER not in in_journal(workspace)
