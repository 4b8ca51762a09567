"""One run of the benchmark: how long is measured, the rows that were found, and the checks of the answers behind
them.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import closed, load
from benchmarks.load import Kept
from benchmarks.oracle import Oracle
from benchmarks.places import ROOT
from benchmarks.probe import Probe
from benchmarks.servers import NotReady, Server

CHECKED_SECONDS_MAX = 2.0
CHECKED_MAX = 60
KEEP_EVERY = 17


class NothingChecked(AssertionError):
    """A measurement whose answers were not compared with anything."""


@dataclass(frozen=True)
class Effort:
    """How long each measurement takes, in seconds, and how often it is repeated."""

    warm: float
    measure: float
    open_loop: float
    rounds: int
    quick: bool


DEFAULT = Effort(warm=1.0, measure=2.0, open_loop=8.0, rounds=3, quick=False)
QUICK = Effort(warm=1.0, measure=1.0, open_loop=3.0, rounds=1, quick=True)


@dataclass
class Rival:
    """A server together with what its answers mean. Echoes have no oracle: there is nothing to be right about."""

    label: str
    server: Server
    bodies: Path
    offers: int = 0
    store: str = ""
    workers: int = 1
    oracle: Oracle | None = None
    ours: bool = False


@dataclass
class Session:
    """Rows and figures of one run."""

    effort: Effort
    rows: list[dict[str, Any]] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    checked: int = 0
    failed: list[str] = field(default_factory=list)

    def attempt(self, phase: Callable[[], None], *keys: str) -> None:
        """Run a phase; when a server or a load fails, its bars have that for a reason, and the other phases go on."""
        try:
            phase()
        except (NotReady, closed.LoadFailed, OSError, subprocess.SubprocessError) as failure:
            reason = f"{type(failure).__name__}: {failure}".replace(f"{ROOT}/", "").replace(str(ROOT), ".")
            print(f"  FAILED {reason}", flush=True)
            self.failed.append(reason)
            self.reasons |= dict.fromkeys(keys, reason[:300])

    def closed(self, rival: Rival, connections: int) -> closed.Result:
        """A closed loop, with a probe beside it whose answers are checked afterwards."""
        with Probe(rival.server.port, rival.bodies.read_text().splitlines()) as probe:
            result = closed.run(rival.server.port, rival.bodies, connections, self.effort.measure)
        checked = self.check(rival, probe.kept)
        kind = "latency" if connections == 1 else "throughput"
        self.note(
            rival,
            kind,
            connections,
            result.per_second,
            {"p50": result.p50, "p90": result.p90, "p99": result.p99},
            checked,
            result.requests,
        )
        return result

    def warm(self, rival: Rival, connections: int = 16) -> None:
        """A load whose outcome counts for nothing."""
        closed.run(rival.server.port, rival.bodies, connections, self.effort.warm)

    def stages(self, rival: Rival) -> dict[str, float]:
        """Median milliseconds of each stage that Server-Timing tells, and of their sum, over one connection."""
        plan = load.Plan(
            rival.server.port,
            str(rival.bodies),
            1,
            self.effort.measure,
            keep_every=KEEP_EVERY,
            warm_seconds=self.effort.warm / 2,
            timings=True,
        )
        outcome = load.run(plan)
        checked = self.check(rival, outcome.kept)
        parsed = [_parsed(timing) for timing in outcome.timings]
        if not parsed:
            raise NothingChecked(f"{rival.label}: expected a Server-Timing in each answer, got none")
        names = list(parsed[0])
        found = {name: statistics.median(one[name] for one in parsed) for name in names}
        found["sum"] = statistics.median(sum(one.values()) for one in parsed)
        self.note(rival, "stages", 1, outcome.per_second, found, checked, len(parsed))
        return found

    def open(self, rival: Rival, rate: float, connections: int = 32) -> load.Outcome:
        """An open loop at a constant rate; latencies count from when a request was due."""
        plan = load.Plan(
            rival.server.port,
            str(rival.bodies),
            connections,
            self.effort.open_loop,
            rate,
            keep_every=KEEP_EVERY,
            warm_seconds=self.effort.warm,
        )
        outcome = load.run(plan)
        checked = self.check(rival, outcome.kept)
        found = outcome.percentiles()
        if outcome.lateness:
            found["generator_late_p99"] = load.percentiles(outcome.lateness)["p99"]
        self.note(rival, "open loop", connections, outcome.per_second, found, checked, outcome.sent, rate)
        if outcome.refused:
            raise closed.LoadFailed(f"{rival.label}: expected answers of status 200, got {outcome.refused} others")
        return outcome

    def check(self, rival: Rival, kept: list[Kept]) -> int:
        """Compare answers with the oracle, as many as the time allows, spread over all.

        Raises:
            WrongAnswer: one is not what it must be.
            NothingChecked: there was none to compare.
        """
        bad = [one for one in kept if one.status != 200]
        if bad or not kept:
            raise NothingChecked(
                f"{rival.label}: expected answers of status 200 to check, got {len(kept)}, of which bad: {bad[:1]}"
            )
        if rival.oracle is None:
            return 0
        step, before = max(1, len(kept) // CHECKED_MAX), rival.oracle.checked
        limit = max(3, int(CHECKED_SECONDS_MAX / (1e-3 + 6e-6 * rival.offers)))
        for one in kept[::step][:limit]:
            rival.oracle.check(one.request, one.body, ours=rival.ours)
        done = rival.oracle.checked - before
        if not done:
            raise NothingChecked(f"{rival.label}: no answer was compared")
        self.checked += done
        return done

    def note(
        self,
        rival: Rival,
        kind: str,
        connections: int,
        per_second: float,
        found: dict[str, float],
        checked: int,
        requests: int,
        rate: float | None = None,
    ) -> None:
        """Keep and show a row."""
        row: dict[str, Any] = {
            "rival": rival.label,
            "store": rival.store,
            "offers": rival.offers,
            "workers": rival.workers,
            "kind": kind,
        }
        row |= {
            "connections": connections,
            "per_second": round(per_second, 1),
            "requests": requests,
            "checked": checked,
        }
        row |= {name: round(value, 4) for name, value in found.items()}
        if rate is not None:
            row["rate"] = round(rate, 1)
        self.rows.append(row)
        numbers = "  ".join(f"{name} {value:.3f}" for name, value in found.items())
        print(
            f"  {rival.label:34} {kind:10} c={connections:<3} w={rival.workers} {per_second:9,.0f}/s  {numbers} ms",
            flush=True,
        )

    def median(self, what: str, **wanted: Any) -> float:
        """Median of a figure over the rows that have these values; NaN where there are none."""
        found = [
            row[what]
            for row in self.rows
            if all(row.get(name) == value for name, value in wanted.items()) and what in row
        ]
        return statistics.median(found) if found else float("nan")

    def peak(self, **wanted: Any) -> float:
        """The highest median throughput over the numbers of connections."""
        found = [self.median("per_second", kind="throughput", connections=count, **wanted) for count in (16, 64)]
        return max((one for one in found if one == one), default=float("nan"))


def _parsed(timing: str) -> dict[str, float]:
    """`read;dur=0.021, score;dur=0.050` as milliseconds by name."""
    return {part.split(";dur=")[0].strip(): float(part.split(";dur=")[1]) for part in timing.split(",")}
