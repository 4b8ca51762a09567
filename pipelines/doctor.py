"""`opportune doctor`: what is missing or suspicious in a workspace, with figures, since when, and what to do.

Facts are gathered once (`doctor_gather`), each check is a function of them, and a check that had nothing to look at says so: silence
means that somebody looked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct
from rich.markup import escape

from features.moments import rfc3339
from features.workspace import Workspace
from pipelines import (
    doctor_checks_data,
    doctor_checks_events,
    doctor_checks_features,
    doctor_checks_limits,
    doctor_checks_machine,
    doctor_checks_model,
    show,
)
from pipelines.doctor_facts import Facts, Finding
from pipelines.doctor_gather import gather

Check = Callable[[Facts], list[Finding] | str]
"""Findings; none where all is well; a text where there was nothing to look at."""

CHECKS: tuple[Check, ...] = (
    *doctor_checks_data.CHECKS,
    *doctor_checks_events.CHECKS,
    *doctor_checks_features.CHECKS,
    *doctor_checks_limits.CHECKS,
    *doctor_checks_model.CHECKS,
    *doctor_checks_machine.CHECKS,
)
_COLOURS = {"error": "red", "warning": "yellow"}
EVIDENCE_DIGITS = 4


class Report(Struct, frozen=True):
    """What one examination found."""

    workspace: str
    at: str
    findings: list[Finding]
    fine: list[str]
    """Checks that looked and found nothing."""
    not_checked: dict[str, str]

    @property
    def failed(self) -> bool:
        """Whether something needs somebody now; warnings do not fail."""
        return any(finding.severity == "error" for finding in self.findings)


def name_of(check: Check) -> str:
    """As reports call a check: `no_impressions`."""
    return str(getattr(check, "__name__", check))


def examine(workspace: Workspace, now: int, url: str | None = None) -> Report:
    """Gather the facts of a workspace, and look at them.

    Args:
        now: microseconds since 1970.
        url: of a running server, to be asked too.
    """
    return report(workspace.settings.name, gather(workspace, now, url))


def report(name: str, facts: Facts) -> Report:
    """What the checks say of the facts."""
    findings: list[Finding] = []
    fine: list[str] = []
    not_checked: dict[str, str] = {}
    for check in CHECKS:
        found = check(facts)
        if isinstance(found, str):
            not_checked[name_of(check)] = found
        elif found:
            findings += found
        else:
            fine.append(name_of(check))
    findings.sort(key=lambda finding: finding.severity)  # errors first: so says the alphabet
    return Report(name, rfc3339(facts.now), findings, fine, not_checked)


def show_report(found: Report) -> None:
    """For people: what is wrong, by severity, then what was not looked at."""
    for finding in found.findings:
        colour = _COLOURS[finding.severity]
        since = f" [dim]since {finding.since}[/dim]" if finding.since else ""
        show.out.print(
            f"[bold {colour}]{finding.severity}[/bold {colour}] {escape(finding.what)} [dim]({finding.check})[/dim]{since}", highlight=False
        )
        figures = ", ".join(f"{name.replace('_', ' ')} {figure(value)}" for name, value in finding.evidence.items())
        if figures:
            show.out.print(f"  found: {escape(figures)}", highlight=False)
        show.out.print(f"  do: {escape(finding.todo)}", highlight=False)
    for check, why in found.not_checked.items():
        show.out.print(f"[dim]not checked: {check}: {escape(why)}[/dim]", highlight=False)
    colour = "red" if found.failed else "yellow" if found.findings else "green"
    errors = sum(finding.severity == "error" for finding in found.findings)
    warnings = len(found.findings) - errors
    tally = f"{errors} errors, {warnings} warnings; {len(found.fine)} checks found nothing, {len(found.not_checked)} had nothing to look at"
    show.out.print(f"[{colour}]{found.workspace}: {tally}[/{colour}]", highlight=False)


def figure(value: Any) -> str:
    """A figure as people read it."""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.{EVIDENCE_DIGITS}g}"
    return f"{value:,.0f}" if isinstance(value, (int, float)) else str(value)
