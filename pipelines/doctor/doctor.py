"""`opportune doctor`: what is missing or suspicious in a workspace, with figures, since when, and what to do.

A check is one function of `Facts` (`facts/gather.py`), named in the `CHECKS` of its module; its name is its id. It
gives what it looked at and what it found there (`Seen`), or says why it cannot say (`CannotSay`): silence means that
somebody looked. What else it raises, because a file is damaged or a store away, becomes a finding of its own, and keeps
no other check from looking.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from difflib import get_close_matches
from typing import Any

from msgspec import Struct
from rich.markup import escape

from features.common.errors import Failure
from features.common.moments import Micros
from features.common.timestamps import rfc3339
from features.workspace.workspace import Workspace
from pipelines.doctor.data import customers, events, features, limits, offers, streams
from pipelines.doctor.data import data as data_checks
from pipelines.doctor.facts.check import CannotSay, Finding, Seen, listed
from pipelines.doctor.facts.gather import Facts
from pipelines.doctor.service import arms, experiments, machine, programs, ramps, resources, worker
from pipelines.doctor.service import model as model_checks
from pipelines.doctor.service import state as state_checks
from pipelines.output import console

Check = Callable[[Facts], Seen]

CHECKS: tuple[Check, ...] = (
    *state_checks.CHECKS,
    *worker.CHECKS,
    *data_checks.CHECKS,
    *events.CHECKS,
    *streams.CHECKS,
    *customers.CHECKS,
    *features.CHECKS,
    *limits.CHECKS,
    *experiments.CHECKS,
    *arms.CHECKS,
    *ramps.CHECKS,
    *model_checks.CHECKS,
    *offers.CHECKS,
    *machine.CHECKS,
    *resources.CHECKS,
    *programs.CHECKS,
)
CANNOT_LOOK = "cannot_look"
"""The id of what keeps checks from looking."""
_COLOURS = {"error": "red", "warning": "yellow"}
EVIDENCE_DIGITS = 4


class UnknownCheck(Failure):
    """No check has this id."""


class DoctorReport(Struct, frozen=True):
    """What one examination found."""

    workspace: str
    at: str
    findings: list[Finding]
    fine: dict[str, str]
    """Checks that found nothing, each with what it looked at."""
    not_checked: dict[str, str]
    """Checks that cannot say, each with the reason."""

    @property
    def failed(self) -> bool:
        """Whether something needs somebody now; warnings do not fail."""
        return any(finding.severity == "error" for finding in self.findings)


def name_of(check: Check) -> str:
    """Return the id of a check, as reports have it: `no_impressions`."""
    return str(getattr(check, "__name__", check))


def examine(workspace: Workspace, now: Micros, url: str | None = None, only: Collection[str] = ()) -> DoctorReport:
    """Look at a workspace, and change nothing.

    Args:
        now: microseconds since 1970.
        url: of a running server, to be asked too.
        only: ids of the checks that look; all, if there are none.

    Raises:
        UnknownCheck: an id is of no check.
    """
    checks = chosen(only)
    facts = Facts(workspace, now, url)
    try:
        return report(facts, checks)
    finally:
        facts.close()


def chosen(only: Collection[str]) -> tuple[Check, ...]:
    """Return the checks of these ids, in their order; all, if there are none."""
    known = {name_of(check): check for check in CHECKS}
    unknown = [name for name in only if name not in known]
    if unknown:
        near = get_close_matches(unknown[0], known) or sorted(known)
        raise UnknownCheck(f"expected the id of a check, such as {listed(near)}, got {unknown[0]!r}")
    return tuple(check for name, check in known.items() if name in only) if only else CHECKS


def report(facts: Facts, checks: tuple[Check, ...] = CHECKS) -> DoctorReport:
    """Return what the checks say of the facts."""
    findings: list[Finding] = []
    fine: dict[str, str] = {}
    not_checked: dict[str, str] = {}
    failed: dict[str, list[str]] = {}
    for check in checks:
        name = name_of(check)
        try:
            seen = check(facts)
        except CannotSay as why:
            not_checked[name] = str(why)
        except Exception as fault:  # noqa: BLE001 (whatever is damaged, the other checks look, and this is told as an error)
            failed.setdefault(_reason(fault), []).append(name)
        else:
            findings += seen.findings
            if not seen.findings:
                fine[name] = seen.what
    for reason, names in failed.items():
        not_checked |= dict.fromkeys(names, f"it failed: {reason}")
        todo = "Mend what the reason names; where it names nothing of yours, report it with this line."
        findings.append(
            Finding(CANNOT_LOOK, "error", f"{listed(names)} could not look: {reason}", {"checks": len(names)}, todo)
        )
    findings.sort(key=lambda finding: finding.severity)  # errors first: so says the alphabet
    return DoctorReport(facts.workspace.settings.name, rfc3339(facts.now), findings, fine, not_checked)


def _reason(fault: Exception) -> str:
    first = (str(fault).splitlines() or [""])[0]
    return f"{type(fault).__name__}: {first}" if first else type(fault).__name__


def show_report(found: DoctorReport) -> None:
    """Print what is wrong, errors first, then what was not looked at, those with one reason in one line."""
    for finding in found.findings:
        colour = _COLOURS[finding.severity]
        since = f" [dim]since {finding.since}[/dim]" if finding.since else ""
        console.out.print(
            f"[bold {colour}]{finding.severity}[/bold {colour}] {escape(finding.what)}"
            f" [dim]({finding.check})[/dim]{since}",
            highlight=False,
        )
        figures = ", ".join(f"{name.replace('_', ' ')} {figure(value)}" for name, value in finding.evidence.items())
        if figures:
            console.out.print(f"  found: {escape(figures)}", highlight=False)
        console.out.print(f"  do: {escape(finding.todo)}", highlight=False)
    reasons: dict[str, list[str]] = {}
    for check, why in found.not_checked.items():
        reasons.setdefault(why, []).append(check)
    for why, checks in reasons.items():
        console.out.print(f"[dim]cannot say: {escape(', '.join(checks))}: {escape(why)}[/dim]", highlight=False)
    colour = "red" if found.failed else "yellow" if found.findings else "green"
    errors = sum(finding.severity == "error" for finding in found.findings)
    warnings = len(found.findings) - errors
    tally = (
        f"{_counted(errors, 'error')}, {_counted(warnings, 'warning')}; {len(found.fine)} checks found nothing,"
        f" {len(found.not_checked)} cannot say"
    )
    console.out.print(f"[{colour}]{found.workspace}: {tally}[/{colour}]", highlight=False)


def figure(value: Any) -> str:
    """Return a figure as people read it."""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.{EVIDENCE_DIGITS}g}"
    return f"{value:,.0f}" if isinstance(value, (int, float)) else str(value)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
