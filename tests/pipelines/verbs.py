"""The command `opportune` in this process: what the real command does and says, without the seconds in which a new one
imports libraries.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import warnings
from pathlib import Path
from subprocess import CompletedProcess

from tests.serving.live import ROOT


def opportune(*words: str | Path) -> CompletedProcess[str]:
    """Run `opportune WORDS` in the folder of this repository, without settings of the environment; return status and
    what was printed.
    """
    from pipelines.main import main

    arguments = ["opportune", *map(str, words)]
    out, err, status = io.StringIO(), io.StringIO(), 0
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("OPPORTUNE_")}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before, sys.argv = sys.argv, arguments
    try:
        with (
            contextlib.chdir(ROOT),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # as in a process of its own, where they are no errors
            main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
        os.environ.update(kept)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return CompletedProcess(arguments, status, out.getvalue(), err.getvalue())
