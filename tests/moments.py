"""Run the tests marked `clock` with the clock moved to hard moments, each with a machine in another zone.

    python -m tests.moments [pytest's arguments]      # or: make test-clock ARGS="tests/serving/hub/test_quiet_hours.py"

Other arguments replace `-m clock`. A moment at which nothing ran has failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from features.common.clock import VARIABLE

ROOT = Path(__file__).resolve().parents[1]
SIDE_BY_SIDE = 2
SAID_LINES_MAX = 60

# what is hard about it, the clock's setting, the zone of the machine; the first WHOLE run the slow tests too: from the
# first import to the doctor
WHOLE = 3
MOMENTS = (
    ("the second before a year", "2026-12-31T23:59:59Z", "Pacific/Kiritimati"),
    ("29 February", "2028-02-29T23:59:59Z", "America/St_Johns"),
    ("Berlin skips an hour", "2027-03-28T00:59:59Z", "Europe/Berlin"),
    ("a year's first second", "2027-01-01T00:00:00Z", "Asia/Tokyo"),
    ("a month's last second", "2027-04-30T23:59:59Z", "America/New_York"),
    ("Berlin's hour that comes twice", "2027-10-31T00:30:00Z", "Europe/Berlin"),
    ("New York skips an hour", "2027-03-14T06:59:59Z", "America/New_York"),
    ("New York's hour that comes twice", "2027-11-07T05:30:00Z", "America/New_York"),
    ("Lord Howe skips half an hour", "2027-10-02T15:29:59Z", "Australia/Lord_Howe"),
    ("Lord Howe's half hour that comes twice", "2028-04-01T15:10:00Z", "Australia/Lord_Howe"),
    ("Sunday becomes Monday", "2027-06-27T23:59:59Z", "Asia/Kathmandu"),
    ("two years from now", "+104w", "Pacific/Chatham"),
)


def marked() -> list[str]:
    """Return the files that have tests of time, so that no other is collected a dozen times."""
    found = [
        str(file)
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        if "pytest.mark.clock" in file.read_text("utf-8")
    ]
    assert found, "expected files with tests that are marked `clock`"
    return found


def run(setting: str, zone: str, arguments: list[str]) -> tuple[int, str, float]:
    """Return pytest's status, what it said, and the seconds that it took."""
    begun = time.monotonic()
    environment = os.environ | {VARIABLE: setting, "TZ": zone, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout, time.monotonic() - begun


def main(arguments: list[str]) -> int:
    """Run all moments, a few side by side; return 0 if all tests passed at all of them."""
    failed = 0
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        waiting = []
        for number, told in enumerate(MOMENTS):
            which = ["-m", "clock" if number < WHOLE else "clock and not slow", *marked()]
            waiting.append((told, pool.submit(run, *told[1:], arguments or which)))
        for (what, setting, zone), future in waiting:
            status, said, seconds = future.result()
            lines = said.strip().splitlines() or [f"status {status}"]
            print(
                f"{'ok' if not status else 'FAILED'}  {setting:21} {zone:20} {what}: {lines[-1].strip('= ')}"
                f" ({seconds:.0f} s)",
                flush=True,
            )
            if status:  # also where nothing was collected
                failed += 1
                print("\n".join(lines[-SAID_LINES_MAX:]), flush=True)
    print(f"{len(MOMENTS) - failed} of {len(MOMENTS)} moments are green")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
