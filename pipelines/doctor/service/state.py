"""Checks of what the program keeps for itself: small files, the lake's files, the event log, the stores, what was set
aside or moved.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from features.events import log as event_log
from features.events.sqlite_file import NAME, LogLimits, LogUnavailable
from pipelines.doctor.facts.check import CannotSay, Finding, Seen, listed
from pipelines.doctor.facts.files import set_aside, small_files
from pipelines.doctor.facts.gather import Facts
from pipelines.doctor.facts.model import registry_file


def state_files(facts: Facts) -> Seen:
    """Small files that say how far something is cannot be decoded."""
    files, found = small_files(facts.workspace), []
    if not files:
        raise CannotSay("nothing was done here yet")
    for file, decode, todo in files:
        name = str(file.relative_to(facts.workspace.data))
        try:
            decode(file.read_bytes())
        except FileNotFoundError:
            continue  # replaced or done meanwhile
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            evidence: dict[str, float | str] = {"bytes": file.stat().st_size, "why": str(error)}
            what = f"{name} is damaged: what reads it stops there, the background worker again and again"
            found.append(Finding("state_files", "error", what, evidence, todo))
    return Seen(f"{len(files)} files", found)


def lake_files(facts: Facts) -> Seen:
    """Files of the lake cannot be read. Only footers are read: pages are by whoever needs their rows."""
    lake = facts.lake_files
    if not lake.files:
        raise CannotSay("the lake has no file yet")
    seen = f"the footers of {lake.files:,} files; their pages are read by who needs their rows"
    if not lake.broken:
        return Seen(seen)
    evidence: dict[str, float | str] = {
        "files": lake.files,
        "broken": len(lake.broken),
        "why": next(iter(lake.broken.values())),
    }
    todo = (
        "Take them from a backup, or move them away: imported ones come again with `opportune import`, shipped ones are"
        " lost."
    )
    return Seen(
        seen,
        [
            Finding(
                "lake_files",
                "error",
                f"files of the lake cannot be read: {listed(list(lake.broken), 5)}",
                evidence,
                todo,
            )
        ],
    )


def event_log_damaged(facts: Facts) -> Seen:
    """The file of the event log is damaged."""
    folder = event_log.event_folder(facts.workspace.data)
    if not event_log.exists(folder):
        raise CannotSay("there is no event log yet")
    file = folder / NAME
    if file.stat().st_size > LogLimits().checked_bytes_max:
        raise CannotSay(
            f"the event log has more than {LogLimits().checked_bytes_max >> 20} MiB, which takes long to read: "
            f"`sqlite3 {file.name} 'PRAGMA quick_check'` does"
        )
    try:
        with event_log.reading(folder) as connection:
            said = str(connection.execute("PRAGMA quick_check(1)").fetchall()[0][0])
    except (sqlite3.Error, LogUnavailable) as error:
        said = str(error)
    if said == "ok":
        return Seen("every page of the event log")
    todo = (
        "Start the service: it sets a damaged log aside and begins another. Events that were not shipped are then in"
        " the file set aside."
    )
    return Seen(
        "the event log", [Finding("event_log_damaged", "error", "the event log is damaged", {"why": said}, todo)]
    )


def ledger_damaged(facts: Facts) -> Seen:
    """Records of the contact ledger are damaged or lost."""
    verdict = facts.ledger_verdict
    if not verdict.why:
        return Seen(f"the checksums of {verdict.records:,} records of the contact ledger")
    evidence: dict[str, float | str] = {"records": verdict.records, "damaged": verdict.damaged, "why": verdict.why}
    todo = "Run `opportune rebuild --ledger`: journal, event log and lake say all that it said."
    what = "the contact ledger is damaged: what has a limit is not shown to those whose records are"
    return Seen("the contact ledger", [Finding("ledger_damaged", "error", what, evidence, todo)])


def damaged_set_aside(facts: Facts) -> Seen:
    """Event logs or journal files were set aside as damaged, and still lie there."""
    files = set_aside(facts.workspace)
    if not files:
        return Seen("the folders of journal and event log")
    names = [str(file.relative_to(facts.workspace.data)) for file in files]
    evidence: dict[str, float | str] = {"files": len(files), "bytes": sum(file.stat().st_size for file in files)}
    what = f"damaged files were set aside, and may hold what is nowhere else: {listed(names, 5)}"
    todo = (
        "Look at the disk and at the logs of that time. Journal files were shipped as far as they can be read; remove"
        " what you do not need."
    )
    return Seen("the folders of journal and event log", [Finding("damaged_set_aside", "warning", what, evidence, todo)])


def copied_or_moved(facts: Facts) -> Seen:
    """The registry or Feast's registry names another folder: the workspace was copied or moved, and writes into the
    original.
    """
    workspace = facts.workspace
    file, folder = registry_file(workspace), workspace.data.resolve()
    if file is None:
        raise CannotSay("the registry is a server, which keeps its own files")
    if not file.exists():
        raise CannotSay("nothing was trained yet")
    if facts.registry.fault:
        raise CannotSay("the registry cannot be read: see registry_answers")
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as db:
        query = (
            "SELECT artifact_location FROM experiments WHERE name = ? UNION SELECT artifact_uri FROM runs WHERE"
            " lifecycle_stage = 'active'"
        )
        places = [str(row[0]) for row in db.execute(query, [workspace.settings.name]).fetchall() if row[0]]
    db.close()
    away = [place for place in map(_local, places) if place is not None and not place.is_relative_to(folder)]
    seen = f"{len(places)} addresses of the registry"
    if not away:
        return Seen(seen)
    evidence: dict[str, float | str] = {"addresses": len(places), "elsewhere": len(away), "first": str(away[0])}
    todo = "Ask the registry once (`opportune registry -w DIR`): its addresses follow to where the workspace lies."
    what = "the registry keeps its files in another folder: `evaluate`, `publish` and `train` read and write there"
    return Seen(seen, [Finding("copied_or_moved", "error", what, evidence, todo)])


def _local(address: str) -> Path | None:
    """Return the absolute folder that an address names; None where it is relative, or of a server."""
    parts = urlsplit(address)
    place = Path(unquote(parts.path if parts.scheme == "file" else address))
    return place if parts.scheme in ("", "file") and place.is_absolute() else None


CHECKS = (state_files, lake_files, event_log_damaged, ledger_damaged, damaged_set_aside, copied_or_moved)
