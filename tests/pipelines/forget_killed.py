"""Forgets the victim in copies of a workspace, dying by SIGKILL at another step in each, and goes on: `forget_killed.py
BASE COPIES EVERY`.

Prints one line of JSON a copy: the step, the signal that ended the first try, and what the second one answered.
"""

import os
import sys
import time
from pathlib import Path

os.environ["TZ"] = "UTC"
time.tzset()

import shutil  # noqa: E402

import msgspec  # noqa: E402

from features.validation.load import load  # noqa: E402
from pipelines.erasure.erase import forget, resume  # noqa: E402
from tests.pipelines.erasure_cases import VICTIM, fork_and_kill  # noqa: E402
from tests.pipelines.loops import KillAt  # noqa: E402


def main(base: Path, copies: Path, every: int) -> None:
    """Until a copy is reached in which nothing was left to be killed at."""
    number, killed = 0, -9
    while killed:
        folder = copies / str(number)
        shutil.copytree(base, folder)
        workspace, answer = load(folder), folder / "answer.json"
        # Each try in a process of its own, forked from this one, which has no threads and no store open.
        killed = fork_and_kill(lambda: forget(workspace, VICTIM, step=KillAt(number, really=True)))  # noqa: B023
        fork_and_kill(lambda: answer.write_bytes(msgspec.json.encode(resume(workspace))))  # noqa: B023
        sys.stdout.write(f'{{"step": {number}, "ended": {killed}, "answer": {answer.read_text()}}}\n')
        sys.stdout.flush()
        number += every


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
