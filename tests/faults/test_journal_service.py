"""The journal within the service: what was answered is written down, whatever happens to the worker that answered."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from features.events.journal import Line, read_lines
from features.validation.load import load
from tests.serving.live import Live, load_on, serving_copy, wait_for

ROUNDS = 3
SEED = int(os.environ.get("OPPORTUNE_SEED", str(random.SystemRandom().randrange(1 << 30))))


def lines_of(workspace: Path) -> list[Line]:
    """Everything that all workers wrote, whole frames only."""
    folder = load(workspace, sources=False).data / "journal"
    return [
        line
        for file in sorted(folder.glob("*Z-*"))
        if file.suffix not in (".reason", ".lineup")
        for line in read_lines(file)
    ]


def test_no_answered_decision_is_lost_with_its_worker(trained_workspace: Path, tmp_path: Path) -> None:
    """Workers are killed under load, and every decision that a client has the answer of stands in the journal, once."""
    print(f"\n  replay with OPPORTUNE_SEED={SEED}")
    chance = random.Random(SEED)
    live = Live(serving_copy(trained_workspace, tmp_path / "shop"), workers=2).start()
    try:
        with load_on(live.port) as answers:
            for _ in range(ROUNDS):
                time.sleep(chance.uniform(0.3, 1.0))
                victim = chance.choice(live.serving())
                os.kill(victim, signal.SIGKILL)
                wait_for(lambda victim=victim: victim not in live.serving() and len(live.serving()) == 2)  # type: ignore[misc]
            time.sleep(0.5)
    finally:
        live.stop()
    answered = [answer.json["decision_id"] for answer in answers if answer.status == 200]
    written = [line.decision_id for line in lines_of(live.workspace)]
    print(f"  {ROUNDS} kills, {len(answered)} answered, {len(written)} written")
    assert len(answered) > 100
    assert len(set(written)) == len(written)
    assert set(answered) <= set(written)
