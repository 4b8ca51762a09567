"""What asking for variants costs over HTTP: one flag and all flags, beside the bare echo of an answer as large."""

from __future__ import annotations

import http.client
import json
import statistics
from pathlib import Path

import msgspec
import yaml

from benchmarks import load, places, servers, synthetic
from benchmarks.closed import LoadFailed
from benchmarks.servers import Server, running
from features.validation.load import load as load_workspace
from features.workspace.workspace import Workspace

EXPERIMENTS = 20
FLAGS = "/ofrep/v1/evaluate/flags"
ONE = f"{FLAGS}/experiment.flag-00"


class Asked(msgspec.Struct, frozen=True):
    """Medians of the rounds: p50 in milliseconds, one connection."""

    echo: float
    one: float
    all: float

    @property
    def against_echo(self) -> float:
        """How many times the bare echo one flag costs."""
        return self.one / self.echo


def file(experiments: int = EXPERIMENTS) -> dict[str, object]:
    """Running experiments of two arms that change nothing: what a tool asks of is only the variant."""
    arms = {"a": {"weight": 0.5}, "b": {"weight": 0.5}}
    return {"experiments": {f"flag-{number:02d}": {"status": "running", "arms": arms} for number in range(experiments)}}


def place(base: Workspace, offers: int | None = 50) -> Workspace:
    """A servable copy of a prepared workspace, with experiments."""
    made = places.copy(base, offers, label="flags")
    (made.folder / "experiments.yaml").write_text(yaml.safe_dump(file(), sort_keys=False))
    return load_workspace(made.folder, sources=False)


def bodies(target: Path, customers: list[str]) -> Path:
    """A file with one request a line."""
    target.write_text("\n".join(f'{{"context":{{"targetingKey":"{customer}"}}}}' for customer in customers))
    return target


def measure(workspace: Workspace, customers: list[str], aside: Path, rounds: int, seconds: float) -> Asked:
    """The servers are alive at once and measured in turns.

    Raises:
        LoadFailed: an evaluation was refused.
        AssertionError: an answer is not what was asked for.
    """
    asked, answer = bodies(aside / "bodies-flags.txt", customers), aside / "answer-flag.json"
    found: dict[str, list[float]] = {"echo": [], "one": [], "all": []}
    with running(servers.ours(workspace, "flags")) as (ours,):
        answer.write_text(_answer(ours, ONE, asked))
        assert len(json.loads(_answer(ours, FLAGS, asked))["flags"]) >= EXPERIMENTS
        with running(servers.bare_echo(answer, "bare echo")) as (bare,):
            for _ in range(rounds):
                for name, server, path in (("echo", bare, ONE), ("one", ours, ONE), ("all", ours, FLAGS)):
                    outcome = load.run(load.Plan(server.port, str(asked), 1, seconds, path=path, warm_seconds=0.5))
                    if outcome.refused:
                        raise LoadFailed(
                            f"{name}: expected every evaluation to be answered, got {outcome.refused} refusals"
                        )
                    found[name].append(outcome.percentiles()["p50"])
    return Asked(**{name: statistics.median(values) for name, values in found.items()})


def flags(base: Workspace, rounds: int, seconds: float) -> Asked:
    """The phase: on the synthetic workspace, one placement of 50 offers, which all flags at once decide too."""
    made = measure(place(base), synthetic.customer_ids(), places.CACHE, rounds, seconds)
    print(
        f"flags: one {made.one:.3f} ms p50, {made.against_echo:.2f} x the bare echo ({made.echo:.3f} ms); "
        f"{EXPERIMENTS} experiments and one placement at once {made.all:.3f} ms",
        flush=True,
    )
    return made


def _answer(server: Server, path: str, asked: Path) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("POST", path, asked.read_text().splitlines()[0], {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    return answer.read().decode()
