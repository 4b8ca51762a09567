"""Sticky assignments come back: a ledger that is rebuilt keeps the arms that the lost one kept, and journal and lake
say which those are.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from features.events.journal import Settled, write_frame
from features.events.journal_frames import damage
from features.events.journal_redaction import blanked
from features.ledger.ledger import ledger_of
from features.ledger.lmdb_records import RECENT, recent_of
from features.ledger.recent import KeptArm
from features.lmdb_store.environment import DATA, MAP_BYTES, attach_folder
from features.workspace.workspace import Workspace
from pipelines.materialize import rebuild
from pipelines.shipping.journal_files import lines
from tests.pipelines.in_process_server import Counter
from tests.pipelines.loops import line
from tests.trained import copy_of

CUSTOMERS = [f"436{600_000 + number}" for number in range(30)]
VISITORS = [f"web-{number}" for number in range(20)]
KINDS = ("customer", "anonymous", "account")
ACTIONS = 320


def experiments(version: int = 0, first: float = 0.5, **more: Any) -> dict[str, Any]:
    """A sticky experiment for each kind of unit."""
    arms = {"a": {"weight": first}, "b": {"weight": 1 - first}, **more}
    weighted = {
        key: arm | {"weight": arm["weight"] / sum(one["weight"] for one in arms.values())} for key, arm in arms.items()
    }
    one = {"status": "running", "sticky": True, "bucket_version": version, "arms": weighted}
    return {"account": "customer.tariff", "experiments": {kind: one | {"unit": kind} for kind in KINDS}}


FILES = (
    experiments(),
    experiments(first=0.9, c={"weight": 0.5}),
    experiments(first=0.2),  # the arm c is gone: who had it is drawn again, in its place
    experiments(version=1),
)


def kept(workspace: Workspace) -> dict[bytes, tuple[str, dict[str, KeptArm]]]:
    """Of every record in the ledger: whom it is linked to, and what it keeps."""
    environment = attach_folder((workspace.data / "ledger").resolve(), MAP_BYTES)
    try:
        with environment.begin() as transaction:
            found = {bytes(key): recent_of(value) for key, value in transaction.cursor() if key.startswith(RECENT)}
    finally:
        environment.release()
    return {key: (recent.linked, recent.kept) for key, recent in found.items() if recent.linked or recent.kept}


async def live(counter: Counter, drawn: random.Random) -> None:
    """Decisions, flags and log-ins, drawn."""
    for _ in range(ACTIONS // len(FILES)):
        customer, visitor, what = drawn.choice(CUSTOMERS), drawn.choice(VISITORS), drawn.random()
        if what < 0.2:
            await counter.decide(customer_id=customer)
        elif what < 0.4:
            await counter.decide(anonymous_id=visitor)
        elif what < 0.6:
            await counter.decide(customer_id=customer, anonymous_id=visitor)
        elif what < 0.9:
            key = f"experiment.{drawn.choice(KINDS)}"
            await counter.flag(
                key, drawn.choice([customer, f"~{visitor}"]), **({"anonymous_id": visitor} if what < 0.8 else {})
            )
        else:
            await counter.identify(visitor, customer)


def test_a_rebuilt_ledger_keeps_the_same_arms(trained_workspace: Path, tmp_path: Path) -> None:
    """After decisions, flags and log-ins under files that change, the lost ledger and the new one keep the same, for
    every unit.
    """
    folder, drawn = copy_of(trained_workspace, tmp_path / "shop"), random.Random(7)
    for file in FILES:
        counter = Counter(folder, file)
        asyncio.run(live(counter, drawn))
        counter.close()
    workspace = counter.workspace
    before = kept(workspace)
    everything = [arm for _, arms in before.values() for arm in arms.values()]
    assert len(everything) > 40 and sum(bool(linked) for linked, _ in before.values()) > 5
    assert {version for _, version, _ in everything} == {0, 1} and {name for name, *_ in everything} >= {"a", "b"}
    (workspace.data / "ledger" / DATA).unlink()
    replayed = rebuild.rebuild_ledger(workspace, "a test").replayed
    assert replayed is not None and replayed.assignments > 60 and "sticky assignments" in str(replayed)
    assert kept(workspace) == before
    again = rebuild.rebuild_ledger(workspace, "once more").replayed
    assert again == replayed and kept(workspace) == before


def test_an_evaluation_alone_comes_back(trained_workspace: Path, tmp_path: Path) -> None:
    """What was only asked for as a flag, by customer, visitor and account, nobody was exposed to, and it is kept as it
    was.
    """
    counter = Counter(copy_of(trained_workspace, tmp_path / "shop"), experiments())
    for kind, who in (("customer", CUSTOMERS[0]), ("anonymous", "~web-1"), ("account", CUSTOMERS[1])):
        asyncio.run(counter.flag(f"experiment.{kind}", who))
    counter.close()
    before = kept(counter.workspace)
    assert sorted(key for _, arms in before.values() for key in arms) == sorted(KINDS)
    rebuild.rebuild_ledger(counter.workspace, "a test")
    assert kept(counter.workspace) == before
    ledger = ledger_of(counter.workspace)
    try:
        known = ledger.look_now("~web-1")
        assert known is not None and set(known.recent.kept) == {"anonymous"}
    finally:
        ledger.close()


ARMS = st.dictionaries(
    st.sampled_from(KINDS), st.tuples(st.text(max_size=5), st.integers(0, 9), st.floats(0, 1)), max_size=3
)
SETTLED = st.builds(Settled, st.sampled_from(["c1", "~c1", "@c1", "@firm"]), st.integers(1, 1 << 50), ARMS, ARMS)


@given(
    st.lists(SETTLED | st.integers(0, 20).map(line), max_size=12),
    st.sampled_from([["c1"], ["c1", "~c1"], ["@firm"], ["c2", "~a3"]]),
)
def test_assignments_stand_between_decisions(written: list[Any], units: list[str]) -> None:
    """Frames of both kinds are read back in their order; of whoever is forgotten they are blanked, and all others stay
    where they are.
    """
    content, buffer = b"", bytearray()
    for one in written:
        write_frame(one, buffer)
        content += bytes(buffer)
    assert [found for _, found, _ in lines(content, [])] == written and not damage(content)
    whose = [one.unit if isinstance(one, Settled) else one.customer_id for one in written]
    without = blanked(content, units)
    assert without.lines == sum(unit in units for unit in whose) and len(without.content) == len(content)
    assert [found for _, found, _ in lines(without.content, [])] == [
        None if unit in units else one for unit, one in zip(whose, written, strict=True)
    ]
