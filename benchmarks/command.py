"""The command of the benchmark: its options, the order of its phases, what it prints and writes."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from benchmarks import additions, bars, hot_path, machine, phases, places, plots, report, session, synthetic
from benchmarks.run import Run, bodies_of
from benchmarks.session import Session
from features.workspace.workspace import Workspace
from tests.stores import Server as RedisServer

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description="A whole decision beside its rivals.")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter measurements, without plots of growth")
    parser.add_argument("--profile", action="store_true", help="profile the hot path in process, and stop")
    parser.add_argument("--fresh", action="store_true", help="make the workspaces again")
    parser.add_argument("--strict", action="store_true", help="end with 1 when a bar is missed")
    parser.add_argument("--out", type=Path, help="folder of the results")
    options = parser.parse_args()
    described = machine.described()  # before anything of ours runs
    print(machine.line(described), flush=True)
    base = places.prepared("plain", options.fresh)
    for name in ("pairs",) if options.quick or options.profile else ("pairs", "grocery"):
        places.prepared(name, options.fresh)
    if options.profile:
        return profile()
    began = time.monotonic()
    one = Session(session.QUICK if options.quick else session.DEFAULT)
    made = measure(one, base, described)
    folder = options.out or (places.CACHE / "results" if options.quick else RESULTS)
    file = report.write(made, folder)
    drawn = plots.draw(made, folder)
    print(f"\n{report.table(made)}\n\n{report.factors(made)}\n")
    print(f"{time.monotonic() - began:.0f} s; {file} and {len(drawn)} plots", flush=True)
    return 1 if one.failed or (options.strict and not all(bar.ok for bar in made.bars)) else 0


def measure(one: Session, base: Workspace, described: dict[str, object]) -> report.Report:
    """All phases. One that cannot be done leaves its bars without a value and with its reason; a wrong answer ends the
    run.
    """
    compared: dict[str, object] = {}
    growth: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="opportune-bench-") as scratch:
        redis = RedisServer(Path(scratch)).start()
        try:
            read_back = places.fill(base, redis.url)
            print(f"filled Redis through Feast; {read_back} customers read back, all equal", flush=True)
            run = Run(one, base, redis.url)
            phases.starts(run)  # the others need its answer, so it may not fail
            one.attempt(
                lambda: phases.side_by_side(run),
                "throughput",
                "latency",
                "echo",
                "inside",
                "redis_echo",
                "redis_throughput",
            )
            one.attempt(lambda: phases.open_loop(run), "open_p99")
            phases.ratios(one)
            one.attempt(lambda: phases.sizes(run, (max(phases.SIZES),) if one.effort.quick else phases.SIZES), "large")
            if not one.effort.quick:
                one.attempt(lambda: phases.workers(run))
                one.attempt(lambda: phases.other_workspaces(run))
            one.attempt(lambda: additions.decision_hub(run), "hub")
            one.attempt(lambda: additions.experiments(run), "experiment", "experiments")
            one.attempt(lambda: additions.flags(run), "flag", "flags")
            one.attempt(lambda: additions.events(run), "events", "event_single", "event_known", "events_beside")
            compared, growth = additions.kernel(run)
        finally:
            redis.stop()
    described = described | {"load_average_after": [round(value, 2) for value in os.getloadavg()]}
    return report.Report(
        described, one.rows, bars.judged(one.values, one.reasons), compared, growth, one.effort.quick, one.checked
    )


def profile() -> int:
    """Stages and profile of the hot path, for some catalogues and for pair columns."""
    for name, sizes in (("plain", (50, 200, 10_000)), ("pairs", (50, 200))):
        base = places.prepared(name)
        bodies = (
            bodies_of(synthetic.customer_ids(), synthetic.PLACEMENT, places.CACHE / f"bodies-{name}.txt")
            .read_text()
            .splitlines()
        )
        for size in sizes:
            hot_path.report(places.copy(base, size), bodies, profile=size == 50)
    return 0
