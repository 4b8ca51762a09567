"""Dead letters are listed and sent again: validated by the files of today, once, whatever is killed or forgotten."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from features.common import clock
from features.common.moments import Micros
from features.common.timestamps import to_microseconds
from features.events import consumers
from features.events.dead_letters import LetterFilter, counted, letters
from features.events.log import EventLog, counts, event_folder, read
from features.events.rows import (
    CONFLICT,
    DEAD_BYTES_MAX,
    FORGOTTEN,
    EventCounts,
    unit_digest,
)
from features.lake.offers import catalogue_file
from features.validation.load import load
from pipelines.events.listing import listed
from pipelines.events.resend import CUT_OFF, OffersUnreadable, resend
from tests.architecture.house import ROOT
from tests.pipelines.letters import NOW, ROOMY, START, body, event, in_log, letter, reasons, workspace_of, written
from tests.pipelines.verbs import opportune
from tests.waiting import LIMIT_S


def test_letters_are_sent_again(tmp_path: Path) -> None:
    """What the workspace understands by now is stored or recognised, the rest stays with its reason of today; accepted
    does not change, and conserves.
    """
    late = body("late", occurred_at="2026-09-01T09:00:00Z")
    workspace = workspace_of(
        tmp_path / "w",
        *(letter("offer-unknown", body("e1")), letter("offer-unknown", body("e1"))),
        *(letter("offer-unknown", body("e3", offer_id="gone")), letter("clock-skew", late)),
        *(letter("field-unknown", body("e4", surprise=1)), letter("x", b"{", "")),
        letter("too-large", body("e5", fields={"a": "b" * DEAD_BYTES_MAX})),
    )
    written(workspace, event(body("e2")), event(body("e2", value=3.0)))
    folder = event_folder(workspace.data)
    before = counts(folder)
    assert before == EventCounts(9, 1, 0, 8, 0)
    done = resend(workspace, now=NOW)
    assert (done.looked_at, done.sent, done.duplicates, done.forgotten, done.gone) == (8, 1, 1, 0, 0)
    refused = {one.reason: one for one in done.refused}
    assert {reason: one.letters for reason, one in refused.items()} == dict.fromkeys(
        ("offer-unknown", "clock-skew", "field-unknown", "json-invalid", CUT_OFF, CONFLICT), 1
    )
    assert "within the last 30 days" in refused["clock-skew"].expected
    assert refused["offer-unknown"].expected == "/offer_id: an offer of the catalogue"
    assert in_log(workspace) == ["e2", "e1"]
    assert counts(folder) == EventCounts(9, 2, 1, 6, 0)
    assert reasons(workspace) == sorted(("offer-unknown", "clock-skew", "field-unknown", "x", "too-large", CONFLICT))
    [worker] = list(consumers.dead(folder))  # the ledger has still to hear of it
    mark = consumers.mark_of(folder, worker.worker) or 0
    assert [row.event.event_id for row in read(folder, mark, worker=worker.worker)] == ["e1"]
    worker.release()
    again = resend(workspace, now=NOW)
    assert (again.looked_at, again.sent, sum(one.letters for one in again.refused)) == (6, 0, 6)
    assert len(list(folder.glob("*.alive"))) == 1, "a run that sent nothing leaves nobody to adopt"


def test_a_letter_of_a_fast_clock_fits_later(tmp_path: Path) -> None:
    """What was too far ahead when it came is an event once its time has come."""
    ahead = body("e1", occurred_at="2026-11-22T10:30:00Z")
    workspace = workspace_of(tmp_path / "w", letter("clock-skew", ahead))
    assert resend(workspace, now=NOW).refused[0].reason == "clock-skew"
    assert resend(workspace, now=Micros(NOW + 30 * 60 * 1_000_000)).sent == 1


@pytest.mark.parametrize("letters_a_step", [1, 500])
def test_a_dry_run_says_what_would_become_of_them(tmp_path: Path, letters_a_step: int) -> None:
    """It tells what the run after it does, in one step or in several, and changes nothing."""
    workspace = workspace_of(
        tmp_path / "w",
        *(letter("offer-unknown", body("e1")), letter("offer-unknown", body("e1"))),
        *(letter("offer-unknown", body("e1", value=2.0)), letter("offer-unknown", body("e2"))),
        *(letter("type-unknown", body("e3", type="no_such")), letter("offer-unknown", body("e4", "c9"), "c9")),
    )
    log = EventLog(event_folder(workspace.data), ROOMY)
    with log.file.transaction() as connection:
        [(salt,)] = connection.execute("SELECT salt FROM counted")
        connection.execute("INSERT INTO forgotten VALUES (?, ?)", (unit_digest("c9", salt), NOW))
    log.close()
    folder = event_folder(workspace.data)

    def there() -> tuple[Any, ...]:
        return counts(folder), list(letters(folder)), in_log(workspace), sorted(folder.glob("*.alive"))

    before = there()
    told = resend(workspace, dry_run=True, now=NOW, letters_a_step=letters_a_step)
    assert (
        counts(folder),
        list(letters(folder)),
        in_log(workspace),
        sorted(folder.glob("*.alive")),
    ) == before
    done = resend(workspace, now=NOW, letters_a_step=letters_a_step)
    assert msgspec.structs.replace(told, dry_run=False) == done
    assert (done.sent, done.duplicates, done.forgotten) == (2, 1, 1)
    assert {one.reason for one in done.refused} == {CONFLICT, "type-unknown"}


def test_who_was_forgotten_does_not_come_back(tmp_path: Path) -> None:
    """Letters of a customer, and of an anonymous id beside another customer, stay out although they fit; no body of
    them is kept, and what happened after the forgetting is a new customer's.
    """
    linked = body("link", "c2", type="identify", anonymous_id="v1", offer_id=None)
    workspace = workspace_of(tmp_path / "w")
    log = EventLog(event_folder(workspace.data), ROOMY, lambda: NOW)
    for unit in ("c1", "~v1"):
        assert log.forget(unit, to_microseconds(START + timedelta(minutes=5)))["left"] == 0
    log.append(
        [
            letter("offer-unknown", body("e1")),
            letter("type-unknown", linked.replace(b', "offer_id": null', b""), "c2"),
            letter("offer-unknown", body("e2", occurred_at="2026-11-22T09:06:00Z")),
            letter("offer-unknown", body("e3", "c2"), "c2"),
        ]
    )
    log.close()
    done = resend(workspace, now=NOW)
    assert (done.sent, done.forgotten, done.refused) == (2, 2, [])
    assert in_log(workspace) == ["e2", "e3"]
    assert [(one.reason, one.unit, one.body) for one in letters(event_folder(workspace.data))] == [
        (FORGOTTEN, "", b"")
    ] * 2
    assert counts(event_folder(workspace.data)) == EventCounts(4, 2, 0, 2, 2)
    assert resend(workspace, now=NOW).forgotten == 2


def test_filters_and_the_limit(tmp_path: Path) -> None:
    """Reasons, a moment and a number bound what is sent, oldest first; the rest waits for the next run."""
    workspace = workspace_of(
        tmp_path / "w",
        *(letter("offer-unknown", body(f"e{number}")) for number in range(5)),
        letter("type-unknown", body("other")),
    )
    assert resend(workspace, LetterFilter(since=Micros(NOW + 1)), now=NOW).looked_at == 0
    assert resend(workspace, LetterFilter(("offer-unknown",)), events_max=2, now=NOW, letters_a_step=1).sent == 2
    assert resend(workspace, LetterFilter(("offer-unknown",)), events_max=1, now=NOW).sent == 1
    assert in_log(workspace) == ["e0", "e1", "e2"]
    assert resend(workspace, LetterFilter(("offer-unknown",), NOW), now=NOW).sent == 2
    assert reasons(workspace) == ["type-unknown"]
    assert resend(workspace, now=NOW).sent == 1


def test_a_kill_before_any_statement_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Killed before each statement of SQLite in turn, every item is an event or a letter, never both and never twice;
    what is done again does the rest, and the ledger can hear of all that was sent.
    """
    good = [letter("offer-unknown", body(f"e{number}")) for number in range(4)]
    bad = [letter("offer-unknown", body(f"b{number}", offer_id="gone")) for number in range(2)]
    workspace = workspace_of(tmp_path / "w", *good[:2], bad[0], *good[2:], bad[1], letter("x", body("e0")))
    copies = tmp_path / "killed"
    copies.mkdir()
    program = [sys.executable, str(ROOT / "tests" / "pipelines" / "resend_killed.py")]
    done = subprocess.run(
        [*program, str(workspace.folder), str(copies), str(NOW)],
        check=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    ended = [int(line) for line in done.stdout.split()]
    assert ended[-1] == 0 and set(ended[:-1]) == {-signal.SIGKILL} and len(ended) > 30
    partly = Counter[int]()
    for number in range(len(ended)):
        killed = load(copies / str(number), sources=False)
        folder = event_folder(killed.data)
        events, left = in_log(killed), [json.loads(one.body)["event_id"] for one in letters(folder)]
        assert sorted({*events, *left}) == ["b0", "b1", "e0", "e1", "e2", "e3"], number
        assert len(events) == len(set(events)) and not {*events} & {*left} - {"e0"}, number
        told = counts(folder)
        assert told.accepted == 7 == told.stored + told.duplicates + told.dead, number
        assert (told.stored, told.dead) == (len(events), len(left)), number
        partly[len(events)] += 1
        assert heard_of(folder) == sorted(events), number
        resend(killed, now=NOW)
        assert sorted(in_log(killed)) == ["e0", "e1", "e2", "e3"], number
        assert counts(folder) == EventCounts(7, 4, 1, 2, 0), number
        assert heard_of(folder) == ["e0", "e1", "e2", "e3"], number
    assert len(partly) >= 3, f"killed before, between and after the steps: {partly}"


def heard_of(folder: Path) -> list[str]:
    """Events that the next server would let the ledger hear, from workers that ended."""
    found = []
    for alive in consumers.dead(folder):
        mark = consumers.mark_of(folder, alive.worker)
        found += [] if mark is None else [row.event.event_id for row in read(folder, mark, worker=alive.worker)]
        alive.release()
    return sorted(found)


def test_two_at_once_send_each_letter_once(tmp_path: Path) -> None:
    """Two runs beside each other, and a writer of events: each event is there once, and the counters add up."""
    workspace = workspace_of(tmp_path / "w", *(letter("offer-unknown", body(f"e{number}")) for number in range(120)))
    reports = []
    runs = [
        threading.Thread(target=lambda: reports.append(resend(workspace, now=NOW, letters_a_step=5))) for _ in range(2)
    ]
    for run in runs:
        run.start()
    for number in range(20):
        written(workspace, event(body(f"w{number}")))
    for run in runs:
        run.join()
    assert sum(report.sent for report in reports) == 120
    assert sorted(in_log(workspace)) == sorted([f"e{number}" for number in range(120)] + [f"w{n}" for n in range(20)])
    assert counts(event_folder(workspace.data)) == EventCounts(140, 140, 0, 0, 0)


def test_without_offers_nobody_can_say(tmp_path: Path) -> None:
    """Where nothing was imported the run is refused with the way out; without a letter it has nothing to do."""
    workspace = workspace_of(tmp_path / "w", letter("offer-unknown", body("e1")))
    catalogue_file(workspace).unlink()
    with pytest.raises(OffersUnreadable, match="opportune import"):
        resend(workspace)
    shutil.rmtree(event_folder(workspace.data))
    assert resend(workspace).looked_at == 0 and listed(workspace, LetterFilter()).letters == 0


def test_the_verbs_say_what_they_did(tmp_path: Path) -> None:
    """`events list` shows no body unless it is asked, `events resend` its counts, both also as one document; a wrong
    date and a missing catalogue end with one line.
    """
    happened = clock.now().isoformat()
    workspace = workspace_of(
        tmp_path / "w",
        letter("offer-unknown", body("e1", occurred_at=happened)),
        letter("offer-unknown", body("e2", "secret-customer", occurred_at=happened, offer_id="gone")),
    )
    folder = str(workspace.folder)
    plain = opportune("events", "list", "-w", folder)
    assert plain.returncode == 0 and "2 dead letters" in plain.stdout and "secret" not in plain.stdout
    told = json.loads(opportune("events", "list", "-w", folder, "--json").stdout)
    assert told["letters"] == 2 and told["reasons"][0]["reason"] == "offer-unknown" and "bodies" not in told
    shown = json.loads(opportune("events", "list", "-w", folder, "--bodies", "--limit", "1", "--json").stdout)
    assert [one["body"]["event_id"] for one in shown["bodies"]] == ["e1"]
    assert "secret-customer" in opportune("events", "list", "-w", folder, "--bodies").stdout
    dry = json.loads(opportune("events", "resend", "-w", folder, "--dry-run", "--json").stdout)
    assert (dry["dry_run"], dry["sent"]) == (True, 1) and in_log(workspace) == []
    done = opportune("events", "resend", "-w", folder, "--reason", "offer-unknown")
    assert done.returncode == 0 and "1 were sent" in done.stdout and "an offer of the catalogue" in done.stdout
    assert in_log(workspace) == ["e1"] and "secret" not in done.stdout
    wrong = opportune("events", "resend", "-w", folder, "--since", "yesterday")
    assert wrong.returncode == 2 and "a date like" in wrong.stderr
    catalogue_file(workspace).unlink()
    refused = opportune("events", "resend", "-w", folder, "--json")
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["type"] == "urn:opportune:error:offers-unreadable"


def test_letters_of_the_moment_are_counted(tmp_path: Path) -> None:
    """Reasons come with how many, the oldest and the newest; letters that come while they are read are left out."""
    workspace = workspace_of(tmp_path / "w", letter("a", b"{}"), letter("b", b"{}"))
    folder = event_folder(workspace.data)
    written(workspace, letter("b", b"{}"))
    assert [(one.reason, one.letters, one.oldest) for one in counted(folder)] == [("b", 2, NOW), ("a", 1, NOW)]
    found = []
    for one in letters(folder):
        found.append(one.reason)
        written(workspace, letter("c", b"{}"))
    assert found == ["a", "b", "b"]
