"""Where the time of a decision goes, in one process and without HTTP: steps timed while they run, and cProfile over the
whole.
"""

from __future__ import annotations

import cProfile
import functools
import gc
import io
import pstats
import statistics
import time
from collections.abc import Callable
from typing import Any

from features.workspace.workspace import Workspace
from serving.api import decisions
from serving.api.decisions import Decisions
from serving.decision import answer, decide
from serving.http.routing import Call
from serving.kernel import top_k
from serving.reload.reloader import Reloader
from serving.runtime.metrics import Metrics

WARM, TIMED, PROFILED = 300, 3_000, 3_000
TIMED_SECONDS_MAX = 6.0
TOP = 25
WHOLE = "handler, all of it"


class HotPath:
    """One worker's parts, as the server makes them, on one workspace with the embedded store."""

    def __init__(self, workspace: Workspace, bodies: list[str]) -> None:
        self.bodies = [body.encode() for body in bodies]
        self.reloader = Reloader(workspace)
        self.decisions = Decisions(self.reloader, workspace, Metrics())
        self.reloader.load()
        self._watched: list[tuple[str, Any, str]] = []

    def steps(self) -> dict[str, float]:
        """Median microseconds of each step of a decision; the timing itself adds about 0.1 us a step."""
        for at in range(WARM):
            self.ask(at)
        loaded = self.reloader.loaded
        assert loaded is not None
        places: list[tuple[str, Any, str]] = [
            ("decode the request", self.decisions, "_decode"),
            ("read the row", self.reloader.stores.engine, "read_now"),
            ("eligible", decide, "consider"),
            ("lay shared columns", loaded.layout, "shared_values"),
            ("lay pair columns", loaded.layout, "pair_values"),
            ("score (kernel)", loaded.kernel, "score"),
            ("top", top_k, "best"),
            ("calibrate", loaded, "calibrate"),
            ("reasons", answer, "_reasons"),
            ("expiry", answer, "_expiry"),
            ("expiry as text", answer, "rfc3339"),
            ("encode the answer", decisions, "_encode"),
            (WHOLE, self, "ask"),
        ]
        found: dict[str, list[int]] = {}
        undo = [_time(owner, attribute, found.setdefault(name, [])) for name, owner, attribute in places]
        gc.collect()
        gc.freeze()
        began = time.monotonic()
        for at in range(TIMED):
            self.ask(at)
            if time.monotonic() - began > TIMED_SECONDS_MAX:
                break
        for restore in undo:
            restore()
        return {name: statistics.median(times) / 1e3 for name, times in found.items() if times}

    def ask(self, at: int) -> None:
        """One decision, as the front door asks for it."""
        task = self.decisions.post(self.bodies[at % len(self.bodies)], Call(b"bench", None, {}, {}))
        try:
            task.send(None)
        except StopIteration:
            return
        raise RuntimeError("expected an embedded decision to need no waiting")

    def profile(self) -> str:
        """The top of cProfile over the handler, by own time. It makes calls dearer than they are: trust the order, not
        the numbers.
        """
        profiler = cProfile.Profile()
        self.ask(0)
        profiler.enable()
        for at in range(PROFILED):
            self.ask(at)
        profiler.disable()
        text = io.StringIO()
        pstats.Stats(profiler, stream=text).strip_dirs().sort_stats("tottime").print_stats(TOP)
        return text.getvalue()

    def close(self) -> None:
        """Close the store."""
        self.reloader.close()


def _time(owner: Any, attribute: str, times: list[int]) -> Callable[[], None]:
    """Note the duration of every call of `owner.attribute`; returns what undoes it."""
    original, own = getattr(owner, attribute), attribute in vars(owner)
    clock, note = time.perf_counter_ns, times.append

    @functools.wraps(original, updated=())
    def timed(*arguments: Any, **named: Any) -> Any:
        begin = clock()
        result = original(*arguments, **named)
        note(clock() - begin)
        return result

    setattr(owner, attribute, timed)

    def restore() -> None:
        if own:
            setattr(owner, attribute, original)
        else:
            delattr(owner, attribute)

    return restore


def report(workspace: Workspace, bodies: list[str], *, profile: bool) -> dict[str, float]:
    """Print the steps (and the profile) of a workspace; returns the steps."""
    path = HotPath(workspace, bodies)
    try:
        steps = path.steps()
        print(f"\nhot path of {workspace.folder.name}: one process, no HTTP, median microseconds a decision")
        for name, cost in steps.items():
            print(f"  {name:22} {cost:9.1f}")
        if profile:
            print(path.profile())
    finally:
        path.close()
    return steps
