"""Embedded stores are derived things: rebuilt from journal and lake, they say what the lost ones said."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from features.columns.rows import OnlineRow
from features.common.timestamps import MICROSECONDS
from features.common.timestamps import now as clock
from features.ledger.budgets import BudgetRecord
from features.ledger.history import entries, key_of
from features.ledger.ledger import Ledger, ledger_of
from features.ledger.recent_updates import trimmed
from features.lmdb_store import environment
from features.lmdb_store.engine import EmbeddedEngine
from features.lmdb_store.environment import DATA
from features.lmdb_store.verify import verify
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.erasure import erase as erasure
from pipelines.materialize import rebuild, steps
from pipelines.materialize.damage import STORES
from pipelines.materialize.rebuild import CannotRebuild
from tests.depth import rounds
from tests.pipelines.workspace_life import FORGOTTEN, UNITS, Life, limited
from tests.serving.live import ROOT
from tests.trained import copy_of

pytestmark = pytest.mark.slow

STEPS = rounds(2_000)


def said(life: Life, ledger: Ledger, moment: int) -> dict[str, Any]:
    """All that a ledger says of the units and budgets, from now on: entries that count, limits and pauses at later
    moments.
    """
    end, found = life.now / MICROSECONDS, dict[str, Any]()
    policy = life.contacting.policy
    for unit in UNITS:
        known = ledger.look_now(unit)
        assert known is not None
        kept = [entry for entry in entries(known.contacts).tolist() if entry[0] > end - policy.horizon_seconds + 86_400]
        later = [
            sorted(
                (bound.name, bound.channel or "", offers)
                for bound, offers in life.contacting.holding(known.contacts, end + ahead)
            )
            for ahead in (0.0, 60.0, 601.0, 3_600.0, 43_200.0, 86_400.0, 200_000.0)
        ]
        found[unit] = (known.unit, sorted(kept), later, trimmed(known.recent, moment))
    for name in ("rare", "stock of few"):
        read = getattr(ledger, "_read")  # noqa: B009 - what no caller of a ledger needs
        record = read(lambda transaction, name=name: transaction.get(b"b" + key_of(name).to_bytes(8, "little")))
        budget = BudgetRecord.unpack(record[:-4] if record else b"")
        budget.release(life.contacting.moment(end))
        found[name] = (budget.used, budget.days, budget.open)
    return found


@pytest.fixture(scope="module")
def lived(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Life:
    """Some days of a workspace, of whom one customer was forgotten at the end."""
    folder = tmp_path_factory.mktemp("lived") / "shop"
    copy_of(trained_workspace, folder)
    workspace = limited(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps.bring_contacts(workspace, clock())
    life = Life(workspace, 7)
    life.run(STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert erasure.forget(workspace, FORGOTTEN).done
    return life


def _gone(file: Path) -> None:
    file.unlink()


def _cut(file: Path) -> None:
    with file.open("r+b") as handle:
        handle.truncate(file.stat().st_size // 2 // 4096 * 4096)


def _flip(file: Path) -> None:
    """A byte in every page behind the heads."""
    content = bytearray(file.read_bytes())
    for page in range(2, len(content) // 4096):
        content[page * 4096 + 2_000] ^= 0x40
    file.write_bytes(content)


def _zero(file: Path) -> None:
    content = bytearray(file.read_bytes())
    for page in range(2, len(content) // 4096, 2):
        content[page * 4096 : (page + 1) * 4096] = bytes(4096)
    file.write_bytes(content)


DAMAGES = (_gone, _cut, _flip, _zero)


def test_a_rebuilt_ledger_says_what_the_lost_one_said(lived: Life) -> None:
    """After thousands of decisions and events, links and a forgetting, the rebuilt ledger is the lost one, for whatever
    damage.
    """
    workspace, moment = lived.workspace, steps.state_of(lived.workspace).computed_at
    before = said(lived, lived.ledger, moment)
    of_units = [before[unit] for unit in UNITS]
    assert sum(len(kept) for _, kept, _, _ in of_units) > 300, "there is something to compare"
    assert sum(bool(later) for _, _, moments, _ in of_units for later in moments) > 20, "limits and pauses hold"
    assert any(unit != one[0] for unit, one in zip(UNITS, of_units, strict=True)), "some are linked"
    assert any(recent.consent for *_, recent in of_units) and any(recent.events for *_, recent in of_units)
    assert before["rare"][0] > 0 and before["stock of few"][0] > 0

    with pytest.raises(CannotRebuild, match="servers run"):
        rebuild.rebuild(workspace, ["ledger"])
    (done,) = rebuild.rebuild(workspace, ["ledger"], force=True)
    assert done.aside, "what was there is kept"
    assert said(lived, lived.ledger, moment) == before, "a server that runs takes up the new one"
    lived.close()
    for damage in (_gone, _cut, _flip, _zero):
        damage(workspace.data / "ledger" / DATA)
        assert verify(workspace.data / "ledger", "ledger").why
        again = rebuild.rebuild_ledger(workspace, "a test").replayed
        assert again is not None and again.events > 1_000 and again.contacts > 300
        ledger = ledger_of(workspace)
        after = said(lived, ledger, moment)
        ledger.close()
        for name, one in before.items():
            assert after[name] == one, (damage.__name__, name)


def online_rows(workspace: Workspace, customers: list[str]) -> dict[str, Any]:
    """Every value of the customers' rows, and of everyone's, with texts for words."""
    engine = EmbeddedEngine(workspace.online, workspace.views)
    try:
        rows: dict[str, OnlineRow] = {customer: engine.read_now(customer) for customer in customers} | {
            "*": engine.everyone()
        }
        assert sum(row.known for row in rows.values()) > 0.9 * len(rows)
        found = {}
        for name, row in rows.items():
            families = [
                None if one is None else ([engine.words.texts[key] for key in one.keys], one.values.tobytes())
                for one in row.families
            ]
            plan = engine.everyone_plan if name == "*" else engine.plan
            texts = {
                at
                for view in plan.views
                for scalar in view.scalars
                if scalar.dtype == "category"
                for at in [plan.scalars[f"{view.name}.{scalar.name}"]]
            }
            numbers = [
                engine.words.texts[int(value)] if at in texts and value == value else repr(value)
                for at, value in enumerate(row.numbers.tolist())
            ]
            found[name] = (numbers, families, row.event_times.tobytes())
        return found
    finally:
        engine.close()


def test_rebuilt_rows_are_the_lost_ones(trained_workspace: Path, tmp_path: Path) -> None:
    """Online rows that were deleted, cut off, flipped or zeroed come back value by value, and the damaged ones are kept
    aside.
    """
    workspace = load(copy_of(trained_workspace, tmp_path / "shop"))
    moment = steps.state_of(workspace).computed_at
    customers = [f"436{600_000 + number}" for number in range(0, 520, 3)]
    before = online_rows(workspace, customers)
    for damage in (_gone, _cut, _flip, _zero):
        damage(workspace.online / environment.current(workspace.online) / DATA)
        assert verify(workspace.online, "online").why
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            done = rebuild.rebuild_online(workspace, "a test", now=moment)
        assert Path(done.aside).is_dir() and done.customers == steps.SAMPLED_CUSTOMERS
        assert online_rows(workspace, customers) == before, damage.__name__
        assert not verify(workspace.online, "online").why


def test_only_what_is_damaged_is_rebuilt(trained_workspace: Path, tmp_path: Path) -> None:
    """What is whole is not touched; flipped bytes are found after a power cut, a lost store at any start, and a rebuild
    says what it did.
    """
    workspace = load(copy_of(trained_workspace, tmp_path / "shop"))
    data = workspace.online / environment.current(workspace.online) / DATA
    assert rebuild.rebuild_if_damaged(workspace) == []
    stamp = data.stat()
    assert rebuild.rebuild_if_damaged(workspace) == [] and data.stat() == stamp
    _flip(data)
    assert rebuild.rebuild_if_damaged(workspace) == [], "only a power cut tears pages of a file that opens"
    (workspace.data / "stores.json").write_text('{"boot":"another","stores":["online"]}')
    lines: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rebuild.mend(workspace, lines.append)
        assert len(lines) == 1 and lines[0].startswith("rebuilt the online store (") and "damaged" in lines[0]
        shutil.rmtree(workspace.online)
        rebuild.mend(workspace, lines.append)
    assert len(lines) == 2 and "there is no online store" in lines[1]
    assert not verify(workspace.online, "online").why
    shutil.rmtree(workspace.online)
    shutil.rmtree(workspace.lake)
    rebuild.mend(workspace, lines.append)
    assert (
        len(lines) == 3
        and lines[2].startswith("a damaged store stays as it is: expected a lake")
        and "\n" not in lines[2]
    )


FULL = """
import resource, signal, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from features.validation.load import load
from pipelines.materialize import rebuild
workspace = load(Path(sys.argv[1]), sources=False)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.dont_write_bytecode = True  # Python before 3.14 does not notice that a file of bytecode was cut
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
store = {"online": rebuild.rebuild_online, "ledger": rebuild.rebuild_ledger}[sys.argv[2]]
store(workspace, "a test")
"""


def test_a_rebuild_that_the_disk_refuses_leaves_what_was_there(lived: Life) -> None:
    """When no file may grow any more, a rebuild fails and both stores are as they were."""
    workspace = lived.workspace
    ledger, online = workspace.data / "ledger" / DATA, workspace.online / environment.current(workspace.online) / DATA
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in (ledger, online)}
    for store in STORES:
        told = subprocess.run(
            [sys.executable, "-c", FULL, str(workspace.folder), store, str(16 << 10)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.returncode == 1, told.stderr
        assert {path: (path.stat().st_ino, path.read_bytes()) for path in before} == before, told.stderr
        assert sorted(path.name for path in workspace.online.glob("g-*")) == [online.parent.name]
        assert not list(workspace.data.glob("ledger.*"))
