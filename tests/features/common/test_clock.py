"""The clock of a process: moved by a setting, inherited by what the process starts, refused where the setting is
nonsense.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.common import clock
from features.common.clock import VARIABLE, offset_of
from features.common.timestamps import from_microseconds, parse_moment, rfc3339

SECOND = 1_000_000
HERE = parse_moment("2026-11-30T10:00:00Z")
TOLD = """
import json, os, subprocess, sys
from features.common import clock, timestamps
written = os.stat(__file__ if "__file__" in globals() else ".")
said = [timestamps.now(), clock.now_us(), clock.system_s(), clock.written_s(written), clock.notice()]
if len(sys.argv) > 1:
    child = subprocess.run([sys.executable, "-c", sys.argv[1]], capture_output=True, text=True, check=True)
    said.append(json.loads(child.stdout))
print(json.dumps(said))
"""


def told(setting: str | None, *more: str, **others: str) -> subprocess.CompletedProcess[str]:
    """What a process with this setting says of its clock."""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE} | others
    environment |= {} if setting is None else {VARIABLE: setting}
    return subprocess.run(
        [sys.executable, "-c", TOLD, *more], env=environment, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.clock
@pytest.mark.parametrize(
    ("text", "seconds"),
    [("+90d", 90 * 86_400), ("-36h", -36 * 3_600), ("+0.000001s", 1e-6), ("+2w", 14 * 86_400), ("-5m", -300)],
)
def test_a_span_moves_the_clock_by_itself(text: str, seconds: float) -> None:
    """A span is that many seconds, whatever the system's clock says."""
    assert offset_of(text, HERE) == offset_of(text, HERE + 7 * SECOND) == round(seconds * SECOND)


@pytest.mark.clock
@given(st.integers(parse_moment("2000-01-01"), parse_moment("2099-12-31")), st.integers(-14 * 60, 14 * 60))
def test_a_moment_is_where_the_clock_stands(moment: int, minutes: int) -> None:
    """A moment in any zone becomes the span that leads to it, to the microsecond."""
    sign = "-" if minutes < 0 else "+"
    local = rfc3339(moment + minutes * 60 * SECOND).removesuffix("Z")
    text = f"{local}{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    assert HERE + offset_of(text, HERE) == moment
    assert from_microseconds(moment) == from_microseconds(HERE + offset_of(rfc3339(moment), HERE))


@pytest.mark.parametrize(
    "text",
    [
        "tomorrow",
        "90d",
        "+d",
        "+1y",
        "+999w 1d",
        "2028-02-29",
        "2027-02-29T00:00:00Z",
        "+99999999w",
        "1999-12-31T00:00:00Z",
        "+١d",
    ],
)
def test_nonsense_is_refused_in_one_line(text: str) -> None:
    """What is neither a span nor a moment with its zone ends the process with one line that says what was expected."""
    done = told(text)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr == f"{VARIABLE}: expected {clock.EXPECTED}, got {text!r}\n"


def test_without_a_setting_the_clock_is_the_systems() -> None:
    """Nothing is moved, and nothing is said; an empty setting is none."""
    for setting in (None, ""):
        before = time.time()
        moment, same, system, written, notice = json.loads(told(setting).stdout)
        after = time.time()
        assert before <= moment / SECOND <= same / SECOND <= system <= after and not notice
        assert written == os.stat(".").st_mtime


def test_a_process_and_what_it_starts_have_one_clock() -> None:
    """A clock that stands at a moment runs on in children, the zone of the machine does not matter, files are stamped
    by it, and it is told.
    """
    for zone in ("Pacific/Kiritimati", "America/St_Johns"):
        before = time.time()
        done = told("2028-02-29T12:00:00Z", TOLD, TZ=zone)
        after = time.time()
        assert not done.returncode, done.stderr
        moment, same, system, written, notice, child = json.loads(done.stdout)
        start = parse_moment("2028-02-29T12:00:00Z")
        assert start <= moment <= same <= child[0] <= child[1] <= start + round((after - before) * SECOND)
        assert system < 1e6 + before and abs(written - os.stat(".").st_mtime - (moment / SECOND - system)) < 60
        assert "2028-02-29T12:0" in notice and VARIABLE in notice and VARIABLE in child[4]


def test_reading_the_clock_costs_what_the_system_asks(tmp_path: Path) -> None:
    """Without a setting the function that decisions call is the plain one: it looks at no variable and at no offset."""
    script = (
        "from features.common import clock, timestamps; print(clock.now_us is clock._system_us, timestamps.now is"
        " clock.now_us)"
    )
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
