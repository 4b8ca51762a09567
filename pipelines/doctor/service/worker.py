"""Checks of the background worker and of what processes write beside their work: does it run, does it fail again and
again, do logs grow.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from features.common.clock import now_s, written_s
from features.common.files import is_held
from features.common.timestamps import MICROSECONDS, rfc3339
from features.workspace.workspace import Workspace
from pipelines.doctor.facts.check import CannotSay, Finding, Seen
from pipelines.doctor.facts.gather import Facts
from pipelines.materialize.damage import servers_run
from pipelines.shipping.state import loop_file

SILENT_SECONDS_MAX = 120.0
"""The shipper runs every three seconds, and waits for an import or a forgetting."""
TAIL_BYTES = 128 << 10
RECENT_SECONDS = 3_600.0
AGAIN_MIN = 5
"""The same complaint so often within `RECENT_SECONDS` is no accident."""
LOG_BYTES_MAX = 256 << 20
LINE = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ (WARNING|ERROR|CRITICAL) (\S+) (.*)$")


def worker_runs(facts: Facts) -> Seen:
    """Servers run, and no background worker does."""
    workspace = facts.workspace
    if not servers_run(workspace):
        raise CannotSay("no server runs on this workspace, as far as this machine can see")
    file = loop_file(workspace)
    silent = facts.now / MICROSECONDS - written_s(file.stat()) if file.exists() else float("inf")
    if silent <= SILENT_SECONDS_MAX:
        return Seen("the last run of the shipper, beside servers that run")
    evidence: dict[str, float | str] = {"silent_seconds": silent if file.exists() else "for ever"}
    what = "servers run without a background worker: nothing is shipped, features age, ramps and erasures wait"
    todo = (
        "Start `opportune up`, which runs one, or `python -m pipelines.worker DIR` beside `opportune serve`;"
        " logs/worker.log says why one ends."
    )
    since = rfc3339(int(written_s(file.stat()) * MICROSECONDS)) if file.exists() else ""
    return Seen("the last run of the shipper", [Finding("worker_runs", "error", what, evidence, todo, since)])


def worker_fails(facts: Facts) -> Seen:
    """The background worker complains again and again, or ends with tracebacks."""
    file = facts.workspace.data / "logs" / "worker.log"
    if not file.exists():
        raise CannotSay("there is no log of a background worker")
    since, complaints, crashes = facts.now / MICROSECONDS - RECENT_SECONDS, Counter[str](), 0
    first = dict[str, str]()
    lines = _tail(file)
    recent = written_s(file.stat()) >= since
    for line in lines:
        crashes += recent and line.startswith("Traceback (most recent call last)")
        found = LINE.match(line)
        if found and datetime.fromisoformat(found[1]).replace(tzinfo=UTC).timestamp() >= since:
            text = re.sub(r"\d+(\.\d+)?", "N", found[4])
            complaints[text] += 1
            first.setdefault(text, f"{found[1].replace(' ', 'T')}Z")
    seen, again = (
        f"{len(lines):,} lines of its log",
        [(text, count) for text, count in complaints.most_common(3) if count >= AGAIN_MIN],
    )
    findings = [
        Finding(
            "worker_fails",
            "error",
            f"the background worker fails again and again: {text[:200]}",
            {"times_in_an_hour": count},
            "Mend what it says; the whole lines are in logs/worker.log.",
            first[text],
        )
        for text, count in again
    ]
    if crashes >= 2:
        last = next((line for line in reversed(lines) if line and not line[0].isspace()), "")
        evidence: dict[str, float | str] = {"tracebacks": crashes, "last_line": last[:200]}
        what = "the background worker ended with tracebacks and was started again"
        findings.append(
            Finding(
                "worker_fails",
                "error",
                what,
                evidence,
                "Look at logs/worker.log; state_files says which file may be damaged.",
            )
        )
    return Seen(seen, findings)


def _tail(file: Path) -> list[str]:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - TAIL_BYTES))
        return stream.read().decode(errors="replace").splitlines()


def logs_grow(facts: Facts) -> Seen:
    """The log files take more room than logs should."""
    folder = facts.workspace.data / "logs"
    sizes = {file.name: file.stat().st_size for file in sorted(folder.glob("*")) if file.is_file()}
    if not sizes:
        raise CannotSay("there is no log file: logs of `serve` are where its starter sends them")
    total = sum(sizes.values())
    seen = f"{len(sizes)} log files"
    if total <= LOG_BYTES_MAX:
        return Seen(seen)
    most = max(sizes, key=sizes.__getitem__)
    evidence: dict[str, float | str] = {"bytes": total, "largest": most, "largest_bytes": sizes[most]}
    todo = (
        "Look what repeats in it, then start the service again: each start begins new files. `logrotate` with"
        " `copytruncate` bounds them."
    )
    return Seen(seen, [Finding("logs_grow", "warning", "the logs take much room", evidence, todo)])


def forgetting_waits(facts: Facts) -> Seen:
    """Customers are to be forgotten, and nobody goes on with it."""
    from pipelines.erasure.task import tasks_of

    files = tasks_of(facts.workspace)
    old = [written_s(file.stat()) for file in files if now_s() - written_s(file.stat()) > RECENT_SECONDS]
    if not old:
        return Seen(f"{len(files)} erasures that are under way")
    todo = "Run `opportune forget --resume`; its answer says what keeps it."
    what = "customers are to be forgotten, and are not yet"
    since = rfc3339(int(min(old) * MICROSECONDS))
    return Seen("erasures", [Finding("forgetting_waits", "error", what, {"customers": len(old)}, todo, since)])


def processes_of(workspace: Workspace) -> int:
    """Return how many server processes keep a journal file of this workspace open."""
    return sum(is_held(path) for path in (workspace.data / "journal").glob("*.open"))


CHECKS = (worker_runs, worker_fails, logs_grow, forgetting_waits)
