"""Checks of the machine and the door: disk, retention, keys, the server's answers and its clock."""

from __future__ import annotations

from features.common.files import FULL_BYTES
from pipelines.doctor.facts.check import CannotSay, Finding, Seen
from pipelines.doctor.facts.gather import Facts
from pipelines.doctor.facts.machine import place_of

FREE_BYTES_MIN, FREE_BYTES_ERROR = 2 << 30, 256 << 20
FREE_SHARE_MIN = 0.02
KEPT_DAYS_LOOKED_AT = 365.0
"""What is kept for good is looked ahead for so long."""
CLOCK_SECONDS_MAX = 5.0
READY = 200


def disk_space(facts: Facts) -> Seen:
    """The disk of the data folder is nearly full."""
    machine = facts.machine
    least = min(FREE_BYTES_MIN, int(FREE_SHARE_MIN * machine.total_bytes))
    if machine.free_bytes >= least:
        return Seen("the disk of the data folder")
    severe, place = machine.free_bytes < FREE_BYTES_ERROR, str(place_of(facts.workspace))
    evidence: dict[str, float | str] = {"free_bytes": machine.free_bytes, "total_bytes": machine.total_bytes}
    evidence["folder"] = place
    what = "the disk is full" if machine.free_bytes < FULL_BYTES else "the disk is nearly full"
    todo = (
        "Make room, or shorten `retention` in workspace.yaml: on a full disk events are refused and decisions are not"
        " recorded."
    )
    return Seen(
        "the disk of the data folder",
        [Finding("disk_space", "error" if severe else "warning", what, evidence, todo)],
    )


def retention_fits(facts: Facts) -> Seen:
    """What is to be kept will not fit on the disk."""
    machine = facts.machine
    if not machine.lake_bytes_a_day:
        raise CannotSay("the lake did not grow in the last week")
    days = KEPT_DAYS_LOOKED_AT if machine.kept_days is None else machine.kept_days
    needed = machine.lake_bytes_a_day * days
    if needed <= machine.lake_bytes + machine.free_bytes:
        return Seen(f"{machine.lake_bytes:,} bytes of the lake")
    full = machine.free_bytes / machine.lake_bytes_a_day
    evidence: dict[str, float | str] = {
        "bytes_a_day": machine.lake_bytes_a_day,
        "kept_days": days,
        "free_bytes": machine.free_bytes,
        "full_in_days": full,
    }
    todo = "Shorten `retention` in workspace.yaml, or give the data folder a larger disk."
    return Seen(
        f"{machine.lake_bytes:,} bytes of the lake",
        [Finding("retention_fits", "warning", "what is to be kept is more than the disk holds", evidence, todo)],
    )


def clock_is_moved(facts: Facts) -> Seen:
    """The clock of this process is not the system's: a setting for tests and rehearsals is left on."""
    if not facts.machine.clock_moved:
        return Seen("whether a setting moves the clock")
    todo = "Unset OPPORTUNE_CLOCK, unless this is a rehearsal, and start the server and the background worker again."
    finding = Finding(
        "clock_is_moved", "warning", "a setting moves the clock", {"says": facts.machine.clock_moved}, todo
    )
    return Seen("whether a setting moves the clock", [finding])


def keys_expire(facts: Facts) -> Seen:
    """Keys that are valid for ever, or no longer."""
    machine = facts.machine
    if machine.keys_fault:
        return Seen(
            f"{machine.keys} keys",
            [
                Finding(
                    "keys_expire",
                    "error",
                    "the keys cannot be used",
                    {"why": machine.keys_fault},
                    "Mend the key file; see `opportune key new`.",
                )
            ],
        )
    if not machine.keys:
        raise CannotSay("no keys are configured where the doctor runs")
    found = []
    if machine.keys_without_expiry:
        evidence: dict[str, float | str] = {"keys": machine.keys, "without_expiry": machine.keys_without_expiry}
        found.append(
            Finding(
                "keys_expire",
                "warning",
                "keys are valid for ever",
                evidence,
                "Give each an `expires`; two keys of one name may overlap.",
            )
        )
    if machine.keys_expired:
        evidence = {"keys": machine.keys, "expired": machine.keys_expired}
        found.append(
            Finding(
                "keys_expire",
                "warning",
                "keys have expired",
                evidence,
                "Make new ones (`opportune key new`), and take these out.",
            )
        )
    return Seen(f"{machine.keys} keys", found)


def server_ready(facts: Facts) -> Seen:
    """The server that was named does not answer, or is not ready."""
    server = facts.server
    if server.ready == READY:
        return Seen("the server's answer to /readyz")
    evidence: dict[str, float | str] = {"status": server.ready, "said": server.said}
    todo = "Look at the server's log, and whether the address is the right one."
    return Seen(
        "the server's answer to /readyz",
        [Finding("server_ready", "error", f"the server at {server.address} is not ready", evidence, todo)],
    )


def door_is_locked(facts: Facts) -> Seen:
    """A server listens beyond this machine and answers whoever has no key."""
    server = facts.server
    if server.loopback:
        raise CannotSay("the server was asked on its loopback address")
    if not server.ready:
        raise CannotSay("the server does not answer")
    if not server.open:
        return Seen("the server's answer to a request without a key")
    todo = "Configure keys (`opportune key new`) and start the server again, or let it listen on 127.0.0.1."
    return Seen(
        "the server's answer to a request without a key",
        [
            Finding(
                "door_is_locked",
                "error",
                "a server that others can reach answers without a key",
                {"address": server.address},
                todo,
            )
        ],
    )


def clocks(facts: Facts) -> Seen:
    """The server's clock and ours differ."""
    server = facts.server
    if server.clock_seconds is None:
        raise CannotSay("the server gives no date")
    if abs(server.clock_seconds) <= CLOCK_SECONDS_MAX:
        return Seen("the date of the server's answer")
    todo = "Let a time service keep the clocks of all machines: windows, limits and training compare their times."
    return Seen(
        "the date of the server's answer",
        [
            Finding(
                "clocks",
                "error",
                "the server's clock differs from this machine's",
                {"ahead_seconds": server.clock_seconds},
                todo,
            )
        ],
    )


CHECKS = (disk_space, retention_fits, clock_is_moved, keys_expire, server_ready, door_is_locked, clocks)
