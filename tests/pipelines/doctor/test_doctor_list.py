"""The list of the doctor's checks: each is named once, explained to operators, and none can pass without having
looked.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from pathlib import Path

from features.common.timestamps import now
from pipelines.doctor import doctor
from pipelines.doctor.doctor import CHECKS, name_of, report
from pipelines.doctor.facts.check import CannotSay
from pipelines.doctor.facts.gather import Facts, fact
from tests.tiny_workspaces import bank

ROOT = Path(__file__).parents[3]


def test_every_check_is_explained() -> None:
    """The table of docs/operations.md has a row for each check that there is, and for no other."""
    text = (ROOT / "docs" / "operations.md").read_text().partition("\n## Doctor\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", text, re.M)
    known = Counter(name_of(check) for check in CHECKS)
    assert max(known.values()) == 1 and len(known) > 70
    assert sorted(name for name, _, _ in rows) == sorted([*known, doctor.CANNOT_LOOK])


def test_every_module_of_checks_is_asked() -> None:
    """What a module of checks names in its `CHECKS` is asked, and each says what it is for."""
    found = []
    for file in sorted(
        (*(ROOT / "pipelines/doctor/data").glob("*.py"), *(ROOT / "pipelines/doctor/service").glob("*.py"))
    ):
        if file.name != "__init__.py":
            found += importlib.import_module(f"pipelines.doctor.{file.parent.name}.{file.stem}").CHECKS
    assert sorted(map(name_of, found)) == sorted(map(name_of, CHECKS))
    assert all(check.__doc__ for check in CHECKS)


def test_a_fact_is_gathered_once_and_so_is_why_not(tmp_path: Path) -> None:
    """A fact is computed at its first use; what it raised is raised again without another try."""
    tries: list[str] = []

    class Some(Facts):
        @fact
        def good(self) -> int:
            tries.append("good")
            return 7

        @fact
        def bad(self) -> int | str:
            tries.append("bad")
            return "there is none"

    facts = Some(bank(tmp_path / "w", {}), now())
    assert [facts.good, facts.good] == [7, 7]
    for _ in range(2):
        try:
            _ = facts.bad
        except CannotSay as why:
            assert str(why) == "there is none"
        else:
            raise AssertionError("expected CannotSay")
    assert tries == ["good", "bad"]


def test_whatever_a_check_raises_is_a_finding(tmp_path: Path) -> None:
    """A fact that fails in a way that nobody expected is an error that names the checks, and the others look."""

    class Torn(Facts):
        @fact
        def traffic(self) -> int:
            raise ZeroDivisionError("torn")

    told = report(Torn(bank(tmp_path / "w", {}), now()))
    (finding,) = [finding for finding in told.findings if finding.check == doctor.CANNOT_LOOK]
    assert "no_impressions" in finding.what and "ZeroDivisionError: torn" in finding.what and told.failed
    assert "packages" in told.fine or any(other.check == "packages" for other in told.findings)
