"""Start `make run`, ask for one decision over HTTP, and stop it: the shortest proof that a checkout works on this
machine.

    python3 scripts/smoke.py [PYTHON=python3.12] [VENV=.venv-smoke] …

Arguments are those of make. The example is served from a copy, on a free port, so that what runs beside it is not
disturbed. Prints how long it took until the first answer; ends with 1, and with what the server said last, where there
is none.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples/grocery"
ASK = {"customer_id": "1042", "placement": "checkout", "limit": 2, "context": {"channel": "app"}}
START_SECONDS_MAX = 1_200
STOP_SECONDS_MAX = 60
TAIL_LINES = 30


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def decide(port: int) -> dict[str, object] | None:
    """Ask for a decision; None while nobody answers."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/decisions", json.dumps(ASK).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return dict(json.load(answer))
    except (OSError, urllib.error.URLError):
        return None


def smoke(words: list[str], folder: Path) -> str:
    """Run everything in a folder of its own; return what is wrong, empty where nothing is."""
    workspace = folder / "grocery"
    shutil.copytree(EXAMPLE, workspace, ignore=shutil.ignore_patterns(".opportune"))
    port = free_port()
    command = ["make", "--no-print-directory", "run", f"WORKSPACE={workspace}", f"ARGS=--port {port}", *words]
    said = folder / "said.txt"
    began = time.monotonic()
    with said.open("wb") as output:
        running = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        answer = None
        while answer is None and running.poll() is None and time.monotonic() - began < START_SECONDS_MAX:
            time.sleep(0.5)
            answer = decide(port)
        seconds = time.monotonic() - began
    finally:
        stopped = stop(running)
    tail = "\n".join(said.read_text(errors="replace").splitlines()[-TAIL_LINES:])
    if answer is None:
        return f"no answer within {seconds:.0f} s; the last that was said:\n{tail}"
    if not answer.get("offers") or answer.get("degraded"):
        return f"expected offers and nothing degraded, got {json.dumps(answer)}\n{tail}"
    if not stopped:
        return f"it did not stop within {STOP_SECONDS_MAX} s\n{tail}"
    for line in re.findall(r"^environment: .*ready.*$", tail, re.M):
        print(f"smoke: {line}")
    print(f"smoke: first answer after {seconds:.0f} s, with {len(list(answer['offers']))} offers")  # type: ignore[call-overload]
    return ""


def stop(running: subprocess.Popen[bytes]) -> bool:
    """End make and what it has started, as Ctrl-C does; False where they had to be killed."""
    try:
        os.killpg(running.pid, signal.SIGINT)
        running.wait(STOP_SECONDS_MAX)
    except ProcessLookupError:
        pass
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        return False
    return True


def main() -> int:
    """Run it, and return the exit status."""
    with tempfile.TemporaryDirectory(prefix="opportune-smoke-") as folder:
        wrong = smoke(sys.argv[1:], Path(folder))
    if wrong:
        print(f"smoke: {wrong}", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
