"""The drill of docs/operations.md: a backup of a workspace that serves, takes events and ships them, restored elsewhere
and served there.
"""

from __future__ import annotations

import os
import random
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from features.workspace.workspace import Workspace
from pipelines.main import app
from pipelines.shipping import ship
from tests.faults.forked_service import BACKGROUND, SERVER, nursery
from tests.faults.loss_accounting import (
    UNITS,
    Tally,
    loaded_again,
    log_of,
    modelled,
    reckon_journal,
    reckon_lake,
    seed_told,
    seen,
    with_limits,
)
from tests.faults.traffic import shopping
from tests.serving.live import ROOT, ask, decision, wait_for
from tests.trained import copy_of

ANSWERS_BEFORE, ANSWERS_AFTER = 400, 100
OTHERS = tuple(f"436{600_300 + number}" for number in range(20))
"""Customers whom no shopper is."""


def drill() -> list[list[str]]:
    """The commands of the drill as the document has them, without their comments."""
    section = (ROOT / "docs" / "operations.md").read_text().partition("## Backup")[2]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return [shlex.split(line, comments=True) for line in block[1].splitlines() if line.startswith("opportune ")]


def run(verb: str) -> None:
    """Run the drill's commands of one verb, where we stand."""
    commands = [words[1:] for words in drill() if words[1] == verb]
    assert commands
    for words in commands:
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (words, done.output, done.exception)


def decided(port: int) -> dict[str, list[tuple[str, float]]]:
    """What a service answers to customers whom nothing has happened to."""
    found = {}
    for customer in OTHERS:
        answer = ask(port, "POST", "/v1/decisions", decision(customer))
        assert answer.status == 200, answer
        found[customer] = [(offer["offer_id"], offer["propensity"]) for offer in answer.json["offers"]]
    assert sum(map(len, found.values())) > len(OTHERS)
    return found


def at_least(workspace: Workspace, expected: dict[str, Tally]) -> bool:
    """Whether what is known of everybody holds all that the log says; what came after the log's copy may be in the
    ledger too.
    """
    known = seen(workspace)
    pairs = ((known[unit], expected[unit]) for unit in UNITS)
    return all(
        one.calls >= two.calls and one.impressions >= two.impressions and one.outcomes >= two.outcomes
        for one, two in pairs
    )


def test_the_drill(
    trained_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was acknowledged before the backup began is in the restored workspace exactly once, be it in log, journal or
    lake; it decides the same.

    All the while events and decisions come in, and a background worker ships, merges and refreshes without a pause.
    """
    seed = int(os.environ.get("OPPORTUNE_SEED") or random.SystemRandom().randrange(1 << 32))
    seed_told(capsys, seed)
    monkeypatch.chdir(tmp_path)
    folder = with_limits(copy_of(trained_workspace, tmp_path / "shop"))
    before = seen(loaded_again(folder))
    with nursery(folder, tmp_path / "said") as service:
        for kind in (SERVER, SERVER, BACKGROUND):
            service.bear(kind)
        with shopping(service.port, seed) as crowd:
            wait_for(lambda: crowd.answers > ANSWERS_BEFORE, 120, "answers")
            acknowledged = {name for one in crowd.shoppers for name in list(one.acknowledged)}
            answered = [name for one in crowd.shoppers for name in list(one.decided)]
            run("backup")
            reached = crowd.answers
            wait_for(lambda: crowd.answers > reached + ANSWERS_AFTER, 120, "answers after the backup")
        told = crowd.told()
        assert not told.waiting and acknowledged and answered
        expected = decided(service.port)
        service.end(sorted(service.alive))
    folder.rename(tmp_path / "gone")  # nothing of it may be needed
    run("restore")
    restored = loaded_again(tmp_path / "elsewhere" / "shop")
    rows = log_of(restored)
    names = {row.event.event_id for row in rows}
    assert acknowledged <= names <= told.sent.keys()
    lines, _ = reckon_journal(restored, answered)
    with nursery(restored.folder, tmp_path / "said too") as service:
        service.bear(SERVER)
        assert decided(service.port) == expected
        wait_for(lambda: at_least(restored, modelled(rows, before)), 60, "that the ledger knows all that the log has")
        more = decided(service.port)
        service.end(sorted(service.alive))
    assert more == expected
    lines, _ = reckon_journal(restored, answered)
    ship.ship(restored)
    tables = reckon_lake(restored, rows, lines)
    with capsys.disabled():
        print(
            f"\n  {len(acknowledged)} events and {len(answered)} decisions before, restored {len(rows)} events,"
            f" {Counter(tables)}",
            end=" ",
        )
    run("doctor")
    assert not (tmp_path / "shop").exists()
