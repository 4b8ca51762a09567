"""A signal ends a command as a stop, whatever the library that it interrupts makes of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from pipelines.output import errors
from tests.serving.live import ROOT

INTERRUPTED = """
import os, signal, sys, threading, duckdb
from pipelines.deploy import signals

signals.heed_signals()
threading.Timer(0.5, os.kill, (os.getpid(), {number})).start()
try:
    with signals.stoppable():
        duckdb.connect().execute(
            "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE hash(a.range) % 7 = b.range % 7"
        )
except signals.Stopped as stopped:
    print(stopped.number, type(stopped.__cause__).__name__)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_query_is_a_stop(number: int) -> None:
    """DuckDB turns the exception of a signal into its own RuntimeError; it leaves as `Stopped` with the signal's
    number.
    """
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(number=int(number))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.split() == [str(int(number)), "RuntimeError"]


def test_an_error_without_a_signal_stays_itself() -> None:
    """Where nobody asked for the end, an error leaves as it is."""
    from pipelines.deploy.signals import stoppable

    with pytest.raises(ValueError, match="mine"), stoppable():
        raise ValueError("mine")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_stop_is_told_as_any_end_is(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that begins with `opportune:` on standard error, and with `--json` one document with the status on
    standard output.
    """
    assert errors.end_stopped(143, as_json=as_json) == 143
    out, err = capsys.readouterr()
    assert err == "opportune: stopped; what is done stays done\n"
    assert (json.loads(out)["exit_status"] == 143) if as_json else out == ""
