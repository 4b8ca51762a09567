"""Gathers the facts of `opportune doctor`: each part by itself, so that what fails leaves the others whole."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import duckdb

from features import event_log, hearers, lake
from features.event_file import LogUnavailable
from features.failures import Failure
from features.lake_files import is_imported
from features.moments import DAY_SECONDS, duration_seconds, parse_moment
from features.workspace import Workspace
from pipelines import doctor_lake, doctor_limits, doctor_store
from pipelines.doctor_facts import Facts, LogFacts, LoopFacts, MachineFacts, ModelFacts, ServerFacts
from serving.keys import FILE_VARIABLE, TEXT_VARIABLE, BadKeys, KeyEntry, parse_keys

T = TypeVar("T")

ANSWER_SECONDS_MAX = 5.0
SAID_CHARACTERS_MAX = 200
GROWTH_DAYS = 7


def gather(workspace: Workspace, now: int, url: str | None) -> Facts:
    """All facts there are.

    Args:
        now: microseconds since 1970.
        url: of a running server.
    """
    con = lake.connect(workspace)
    try:
        return Facts(
            now,
            _part(lambda: doctor_lake.traffic(workspace, con, now)),
            _part(lambda: _log(workspace)),
            _part(lambda: _loop(workspace)),
            _part(lambda: doctor_store.store(workspace, now)),
            _part(lambda: doctor_store.skew(workspace)),
            _part(lambda: doctor_lake.drift(workspace, con, now)),
            _part(lambda: doctor_limits.limits(workspace, con, now)),
            _part(lambda: doctor_limits.budgets(workspace, con, now)),
            _part(lambda: _model(workspace, con)),
            _part(lambda: _machine(workspace)),
            "no server was named: give --url" if url is None else _part(lambda: _server(url)),
            _part(lambda: doctor_lake.data(workspace, con)),
        )
    finally:
        con.close()


def _part(gathered: Callable[[], T | str]) -> T | str:
    try:
        return gathered()
    except (Failure, OSError, duckdb.Error) as error:
        return f"it could not be looked at: {(str(error).splitlines() or [type(error).__name__])[0]}"


def _log(workspace: Workspace) -> LogFacts | str:
    folder = event_log.event_folder(workspace.data)
    if not event_log.exists(folder):
        return _why_no_log(workspace)
    counts = event_log.counts(folder)
    reasons: dict[str, int] = {}
    for letter in event_log.dead_letters(folder):
        reasons[letter.reason] = reasons.get(letter.reason, 0) + 1
    return LogFacts(counts.accepted, counts.stored, counts.duplicates, counts.dead, reasons)


def _why_no_log(workspace: Workspace) -> str:
    """A log begins with its first event; a server's journal begins with the server."""
    from pipelines.journal_files import journal_folder

    if hearers.anybody(event_log.event_folder(workspace.data)):
        return "a server runs, and no event has come to it yet"
    if journal_folder(workspace.data).exists():
        return "a server ran here, and no event ever came to it"
    return "no server ran here yet"


def _loop(workspace: Workspace) -> LoopFacts | str:
    from pipelines.journal_files import journal_folder, listed
    from pipelines.shipped import loop_of, state_of

    state, ran = state_of(workspace), loop_of(workspace)
    files = [file for file in listed(journal_folder(workspace.data)) if file.size]
    folder = event_log.event_folder(workspace.data)
    if not files and not event_log.exists(folder):
        return "no decision and no event was recorded here yet"
    waiting, oldest = 0, list[int]()
    for file in files:
        rest = file.size - state.journals.get(file.stem, 0)
        if rest > 0:
            waiting += rest
            oldest.append(_began(file.stem))
    with contextlib.suppress(LogUnavailable):
        events = event_log.read(folder, state.events) if event_log.exists(folder) else []
        waiting += len(events)
        oldest += [events[0].received] if events else []
    if not ran:
        return LoopFacts(None, waiting, min(oldest, default=None), 0.0, state.lost_bytes, state.left_out)
    # A journal file that is being written began long ago; what waits in it came after the last run.
    since = [max(moment, ran.at) for moment in oldest]
    return LoopFacts(ran.at, waiting, min(since, default=None), ran.lag_seconds, ran.lost_bytes, ran.left_out)


def _began(stem: str) -> int:
    """When a journal file was begun, by its name."""
    text = stem.partition("-")[0]
    return parse_moment(f"{text[:4]}-{text[4:6]}-{text[6:11]}:{text[11:13]}:{text[13:22]}Z")


def _model(workspace: Workspace, con: duckdb.DuckDBPyConnection) -> ModelFacts:
    from training import bundle, registry

    refused, serving, trained = "", None, None
    try:
        place = bundle.current(workspace.bundles)
        found = None if place is None else bundle.read(place)
        if found is not None and found.contract.fingerprint != workspace.contract.fingerprint:
            refused = "it was trained for other columns than features.yaml and model.yaml say now"
        elif found is not None:
            serving, trained = found.manifest.version, parse_moment(found.manifest.created_at)
    except bundle.BadBundle as error:
        refused = str(error)
    champion = None
    with contextlib.suppress(registry.RegistryUnavailable):
        champion = registry.version_of(workspace, registry.CHAMPION)
    query = "SELECT count(DISTINCT decision_id), count(DISTINCT decision_id) FILTER (WHERE epoch_us(time) > ?) FROM decisions"
    decisions, after = con.execute(query, [trained or 0]).fetchall()[0]
    return ModelFacts(serving, refused, champion, trained, decisions, after if trained else 0)


def _machine(workspace: Workspace) -> MachineFacts:
    usage = shutil.disk_usage(workspace.data if workspace.data.is_dir() else workspace.folder)
    total, young, since = 0, 0, time.time() - GROWTH_DAYS * DAY_SECONDS
    for file in workspace.lake.rglob("*.parquet"):
        with contextlib.suppress(FileNotFoundError):
            stat = file.stat()
            total += stat.st_size
            young += stat.st_size if stat.st_mtime > since and not is_imported(file) else 0
    kept = workspace.settings.retention
    texts = (kept.decisions, kept.impressions, kept.outcomes, kept.recorded)
    days = None if None in texts else max(duration_seconds(text) / DAY_SECONDS for text in texts if text)
    try:
        entries = _keys()
    except (BadKeys, OSError) as fault:
        return MachineFacts(usage.free, usage.total, total, young / GROWTH_DAYS, days, 0, 0, 0, str(fault))
    expired = sum(entry.expires is not None and entry.expires.timestamp() <= time.time() for entry in entries)
    forever = sum(entry.expires is None for entry in entries)
    return MachineFacts(usage.free, usage.total, total, young / GROWTH_DAYS, days, len(entries), forever, expired)


def _keys() -> tuple[KeyEntry, ...]:
    path, text = os.environ.get(FILE_VARIABLE), os.environ.get(TEXT_VARIABLE)
    if path:
        return parse_keys(Path(path).read_text("utf-8"), path)
    return parse_keys(text, TEXT_VARIABLE) if text else ()


def _server(url: str) -> ServerFacts | str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return f"expected an address like http://127.0.0.1:3000, got {url!r}"
    address = f"{parts.scheme}://{parts.netloc}"
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection

    def ask(method: str, path: str, body: bytes | None = None) -> tuple[int, str, str]:
        connection = kind(str(parts.hostname), parts.port, timeout=ANSWER_SECONDS_MAX)
        try:
            connection.request(method, path, body, {} if body is None else {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")[:SAID_CHARACTERS_MAX], answer.getheader("date") or ""
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error), ""
        finally:
            connection.close()

    status, said, date = ask("GET", "/readyz")
    ahead = parsedate_to_datetime(date).timestamp() - time.time() if date else None
    refused = ask("POST", "/v1/decisions", b"{}")[0] in (401, 403)
    return ServerFacts(address, _is_loopback(str(parts.hostname)), status, said, bool(status) and not refused, ahead)


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(OSError):
        return all(str(found[4][0]).startswith("127.") or found[4][0] == "::1" for found in socket.getaddrinfo(host, None))
    return False
