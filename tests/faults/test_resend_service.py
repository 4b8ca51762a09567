"""Dead letters are sent again under a running service: the ledger hears of them, and what clients post meanwhile is
kept.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from features.common.timestamps import from_microseconds, now
from features.events.dead_letters import letters
from features.events.log import counts, event_folder, read_all
from features.validation.load import load
from pipelines.events.resend import resend
from pipelines.simulation.contact_card import card_of
from tests.serving.live import Live, wait_for
from tests.trained import copy_of

CUSTOMER, NEW, LETTERS = "436600008", "offer-of-today", 40


@pytest.fixture
def live(trained_workspace: Path, tmp_path: Path) -> Any:
    """Two workers over the embedded store of a copy."""
    made = Live(copy_of(trained_workspace, tmp_path / "shop"), workers=2).start()
    yield made
    made.stop()


def seen(name: str, offer: str = NEW) -> dict[str, Any]:
    """An impression of a moment ago."""
    moment = from_microseconds(now()).isoformat(timespec="microseconds")
    return {
        "event_id": name,
        "type": "impression",
        "customer_id": CUSTOMER,
        "offer_id": offer,
        "occurred_at": moment,
    }


@pytest.mark.slow
def test_a_running_service_hears_what_is_sent_again(live: Live) -> None:
    """Impressions of an offer that the file names only later are dead letters; sent again while both workers take
    others, each is in the log once and in the customer's contact history.
    """
    for number in range(LETTERS):
        answer = live.ask("POST", "/v1/events", {"events": [seen(f"early-{number}")]})
        assert answer.status == 202 and answer.json["refused"][0]["code"] == "offer-unknown", answer
    workspace = load(live.workspace, sources=False)
    folder = event_folder(workspace.data)
    assert resend(workspace).refused[0].letters == LETTERS, "the offer is still unknown"
    offers = yaml.safe_load((live.workspace / "offers.yaml").read_text())
    by_hand = offers["offers"][0]
    offers["offers"].append(by_hand | {"offer_id": NEW})
    (live.workspace / "offers.yaml").write_text(yaml.safe_dump(offers))
    stop, posted = threading.Event(), list[str]()

    def post() -> None:
        while not stop.is_set():
            name = f"beside-{len(posted)}"
            assert live.ask("POST", "/v1/events", {"events": [seen(name, by_hand["offer_id"])]}).json["stored"] == 1
            posted.append(name)

    client = threading.Thread(target=post)
    client.start()
    try:
        wait_for(lambda: len(posted) > 5, what="events beside it")
        done = resend(load(live.workspace, sources=False), letters_a_step=7)
        before = len(posted)
        wait_for(lambda: len(posted) > before + 5, what="events after it")
    finally:
        stop.set()
        client.join()
    assert (done.sent, done.duplicates, done.refused) == (LETTERS, 0, [])
    names = [row.event.event_id for row in read_all(folder, 0)]
    assert sorted(names) == sorted([f"early-{number}" for number in range(LETTERS)] + posted)
    told = counts(folder)
    assert told.accepted == told.stored + told.duplicates + told.dead and told.dead == 0
    assert not list(letters(folder))
    wait_for(lambda: len(list(folder.glob("*.alive"))) == live.workers, what="a worker that took over what to tell")
    fresh = load(live.workspace, sources=False)
    shown = [entry["offer_id"] for entry in card_of(fresh, CUSTOMER, now())["entries"]]
    assert shown.count(NEW) == LETTERS
