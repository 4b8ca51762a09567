"""Checks of what the machine gives processes: file system, inodes, the data folder, open files, memory, cores."""

from __future__ import annotations

import os
import resource
import stat
import time
from pathlib import Path

from features.common.files import MASK_VARIABLE, mask_of
from features.lake.lake import MEMORY_SHARE
from pipelines.doctor.facts.check import CannotSay, Finding, Seen, listed
from pipelines.doctor.facts.gather import Facts
from pipelines.doctor.facts.machine import place_of
from pipelines.doctor.service.worker import processes_of
from serving.http.admission import RequestLimits

FREE_FILES_MIN = 20_000
FILES_BESIDE = 256
"""What a worker has open beside its connections: stores, journal, log, libraries."""
MEMORY_BYTES_MIN = 1 << 30
"""A server, the background worker and a training run beside each other."""
VOLATILE = frozenset({"tmpfs", "ramfs"})
SHARED = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.s3fs"}
)
PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")


def file_system(facts: Facts) -> Seen:
    """The data folder lies on a file system that forgets, or whose locks and memory maps cannot be relied on."""
    place = place_of(facts.workspace).resolve()
    kind, mounted = _mount(place)
    if not kind:
        raise CannotSay("this machine does not tell its mounts (/proc/self/mountinfo)")
    seen, evidence = f"{kind} at {mounted}", {"file_system": kind, "mounted_at": mounted}
    if kind in VOLATILE:
        todo = "Put the data folder on a disk (`data` in workspace.yaml), unless it may be lost."
        what = f"the data folder lies in memory ({kind}): journal and event log are gone with the machine's next start"
        return Seen(seen, [Finding("file_system", "warning", what, {**evidence}, todo)])
    if kind in SHARED:
        todo = (
            "Put the data folder on a disk of this machine; for several machines use Redis (`stores.online.url`) and"
            " copy the lake."
        )
        what = (
            f"the data folder lies on a network ({kind}): LMDB and SQLite rely on locks and memory maps that it does"
            " not keep"
        )
        return Seen(seen, [Finding("file_system", "error", what, {**evidence}, todo)])
    return Seen(seen)


def _mount(place: Path) -> tuple[str, str]:
    """Return the type of the file system that a folder lies on, and where that is mounted; empty texts where nobody
    says.
    """
    try:
        lines = (PROC / "self" / "mountinfo").read_text().splitlines()
    except OSError:
        return "", ""
    found = ("", "")
    for line in lines:  # of two mounts at one place the later one covers the other
        before, _, after = line.partition(" - ")
        at = before.split(" ")[4].encode().decode("unicode_escape")
        if place.is_relative_to(at) and len(at) >= len(found[1]):
            found = (after.split(" ")[0], at)
    return found


def free_files(facts: Facts) -> Seen:
    """The file system is about to have no name left for another file."""
    machine = facts.machine
    if not machine.total_files:
        raise CannotSay("the file system does not count files")
    if machine.free_files >= FREE_FILES_MIN:
        return Seen(f"{machine.free_files:,} files that the file system still takes")
    evidence: dict[str, float | str] = {"free": machine.free_files, "total": machine.total_files}
    todo = (
        "Remove what is not needed (`df -i` counts), or give the data folder a larger disk: no new file means no"
        " shipment and no bundle."
    )
    return Seen(
        "files", [Finding("free_files", "error", "the file system takes hardly any more files", evidence, todo)]
    )


def data_folder(facts: Facts) -> Seen:
    """The data folder cannot be written by whoever asks, is another's, or can be read or written by others."""
    data = facts.workspace.data
    if not data.is_dir():
        raise CannotSay("there is no data folder yet")
    found, me = [], os.geteuid()
    status = data.stat()
    if not os.access(data, os.W_OK | os.X_OK):
        evidence: dict[str, float | str] = {"owner": status.st_uid, "me": me, "mode": oct(stat.S_IMODE(status.st_mode))}
        todo = f"Give it to the user who runs the service: `chown -R {me} {data}`, or mount it writable."
        found.append(Finding("data_folder", "error", "the data folder cannot be written", evidence, todo))
    entries = [entry for entry in sorted(data.iterdir()) if not entry.is_symlink()]
    others = [
        entry.name
        for entry in entries
        if entry.stat().st_uid != status.st_uid or (me != 0 and not os.access(entry, os.W_OK))
    ]
    if others:
        evidence = {"entries": len(others), "owner_of_the_folder": status.st_uid}
        todo = (
            "`chown -R` them to one user: a command that ran as another, root for example, left them"
            f" ({listed(others, 5)})."
        )
        found.append(
            Finding(
                "data_folder",
                "error",
                "parts of the data folder belong to another user, or cannot be written",
                evidence,
                todo,
            )
        )
    if status.st_mode & stat.S_IWOTH:
        evidence = {"mode": oct(stat.S_IMODE(status.st_mode))}
        found.append(
            Finding(
                "data_folder",
                "error",
                "everybody on this machine can write the data folder",
                evidence,
                f"`chmod 700 {data}`",
            )
        )
    elif status.st_mode & mask_of() & ~stat.S_IRWXU:
        evidence = {"mode": oct(stat.S_IMODE(status.st_mode))}
        todo = f"`chmod {0o777 & ~mask_of():o} {data}`; where a group shall read it, set {MASK_VARIABLE}=027."
        what = "others on this machine can read the data folder"
        found.append(Finding("data_folder", "warning", what, evidence, todo))
    return Seen(f"the owner and mode of {len(entries)} entries", found)


def open_files(facts: Facts) -> Seen:
    """The limit of open files is below what a worker may need for its connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = RequestLimits()
    wanted = limits.receiving_max + limits.in_flight_max + FILES_BESIDE
    if soft == resource.RLIM_INFINITY or soft >= limits.receiving_max:
        return Seen(f"a limit of {'any number of' if soft == resource.RLIM_INFINITY else f'{soft:,}'} open files")
    evidence: dict[str, float | str] = {"limit": soft, "hard": hard, "wanted": wanted}
    todo = (
        f"Start the service with `ulimit -n {wanted}` or more (systemd: `LimitNOFILE`): beyond it connections are"
        " refused at the door."
    )
    what = "a worker may open fewer files than it takes connections"
    return Seen("the limit of open files", [Finding("open_files", "warning", what, evidence, todo)])


def memory(facts: Facts) -> Seen:
    """A control group allows less memory than queries on the lake take before they spill, or than the service needs."""
    allowed, machine = _allowed_bytes(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    most = min(machine, allowed or machine)
    evidence: dict[str, float | str] = {"allowed_bytes": most, "machine_bytes": machine}
    if most < MEMORY_BYTES_MIN:
        todo = (
            "Give it 1 GiB at least: what has less is killed when a training run or a computation of features begins."
        )
        return Seen(
            "memory", [Finding("memory", "warning", "there is less memory than the service needs", evidence, todo)]
        )
    if allowed and machine * MEMORY_SHARE > allowed:
        evidence["queries_may_take_bytes"] = machine * MEMORY_SHARE
        todo = (
            "Give the container more memory, or fewer rows to compute at once (`buckets` in workspace.yaml): queries do"
            " not know its limit."
        )
        what = "the container allows less memory than queries on the lake may take: they can be killed"
        return Seen("memory", [Finding("memory", "warning", what, evidence, todo)])
    return Seen(f"{most:,} bytes of memory")


def _allowed_bytes() -> int | None:
    """Return what control groups allow, the least of ours and those above; None without a limit."""
    found = []
    for line in _lines(PROC / "self" / "cgroup"):
        _, kinds, name = line.split(":", 2)
        base, file = (CGROUP, "memory.max") if not kinds else (CGROUP / "memory", "memory.limit_in_bytes")
        if kinds and "memory" not in kinds.split(","):
            continue
        place = base / name.lstrip("/")
        for folder in (place, *place.parents):
            if folder == base.parent:
                break
            found += [int(text) for text in _lines(folder / file) if text.isdigit()]
    real = [limit for limit in found if limit < 1 << 60]  # version 1 says "none" by a huge number
    return min(real, default=None)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def cores(facts: Facts) -> Seen:
    """More server processes run than there are cores for them."""
    running = processes_of(facts.workspace)
    if not running:
        raise CannotSay("no server runs on this workspace")
    allowed = float(len(os.sched_getaffinity(0)))
    for text in _lines(CGROUP / "cpu.max"):
        quota, _, period = text.partition(" ")
        allowed = min(allowed, int(quota) / int(period)) if quota.isdigit() and period.isdigit() else allowed
    if running <= max(allowed, 1):
        return Seen(f"{running} server processes on {allowed:g} cores")
    evidence: dict[str, float | str] = {"processes": running, "cores": allowed}
    todo = "Start with fewer `--workers`: processes that wait for a core answer late, and no more of them."
    return Seen(
        "server processes",
        [Finding("cores", "warning", "more server processes run than there are cores", evidence, todo)],
    )


def time_zone_data(facts: Facts) -> Seen:
    """The time zones that the workspace names cannot be loaded, or this process is not in UTC."""
    from features.common.time_zones import zone_of

    hours = facts.workspace.policies.quiet_hours.values()
    named = [
        one.time_zone for one in hours if one.time_zone and not one.time_zone.startswith(("customer.", "context."))
    ]
    zones = sorted({facts.workspace.settings.time_zone, *named, "Europe/Berlin"})
    lacking = [zone for zone in zones if zone_of(zone) is None]
    if time.timezone:
        evidence: dict[str, float | str] = {"zone": time.tzname[0]}
        finding = Finding(
            "time_zone_data",
            "error",
            "this process is not in UTC",
            evidence,
            "Report it: every process of ours sets TZ=UTC.",
        )
        return Seen("the zone of this process", [finding])
    if not lacking:
        return Seen(f"{len(zones)} time zones")
    todo = "Install the package `tzdata`, which the lock has, or the system's own."
    finding = Finding(
        "time_zone_data", "error", f"time zones are not known here: {listed(lacking)}", {"lacking": len(lacking)}, todo
    )
    return Seen("time zones", [finding])


CHECKS = (file_system, free_files, data_folder, open_files, memory, cores, time_zone_data)
