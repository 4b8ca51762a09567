"""Sends the dead letters of a workspace again and dies by SIGKILL before a statement of SQLite, for each of them in
turn: `resend_killed.py WORKSPACE COPIES NOW`.

Each run works on a copy of its own, `COPIES/<number>`; a line says how it ended: the signal, or 0 when all was done,
which is the last one.
"""

import os
import shutil
import sys
import time
from pathlib import Path

os.environ["TZ"] = "UTC"
time.tzset()

from features.events import log, sqlite_file  # noqa: E402
from features.validation.load import load  # noqa: E402
from pipelines.events.resend import resend  # noqa: E402
from tests.pipelines.loops import KillAt  # noqa: E402


def killed_at(folder: Path, number: int, now: int) -> None:
    """Send again, and die before the statement of this number."""
    step, connect = KillAt(number, really=True), sqlite_file.connect

    def connected(path, *, read_only=False):
        connection = connect(path, read_only=read_only)
        connection.set_trace_callback(step)
        return connection

    sqlite_file.connect = log.connect = connected
    resend(load(folder, sources=False), now=now, letters_a_step=3)


if __name__ == "__main__":
    workspace, copies, moment = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    ended, at = -1, 0
    while ended:
        shutil.copytree(workspace, copies / str(at))
        child = os.fork()
        if child == 0:
            killed_at(copies / str(at), at, moment)
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(ended, flush=True)
        at += 1
