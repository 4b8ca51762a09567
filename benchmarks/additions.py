"""What single parts cost: the decision hub, experiments, flags, events, the kernel."""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import events as event_load
from benchmarks import experiments as trials
from benchmarks import experiments_http as over_http
from benchmarks import hub, load, places, scoring, servers, synthetic
from benchmarks.oracle import Oracle
from benchmarks.run import OURS, Run, bodies_of
from benchmarks.servers import running
from benchmarks.session import Rival


def decision_hub(run: Run) -> None:
    """Measure rules and limits beside none, in turns; the difference of the medians over the rounds is what the hub
    costs.
    """
    session, base = run.session, places.prepared("pairs")
    print(f"decision hub: {hub.RULES} rules and {hub.LIMITS} contact limits, beside none", flush=True)
    bodies = bodies_of(synthetic.customer_ids(), synthetic.PLACEMENT, places.CACHE / "bodies-pairs.txt")
    for offers in (200,) if session.effort.quick else hub.OFFERS:
        made = {ruled: hub.place(base, offers, ruled=ruled) for ruled in (False, True)}
        with running(*(servers.ours(workspace, OURS) for workspace in made.values())) as started:
            rivals = [
                Rival(
                    f"{OURS}, {'ruled' if ruled else 'free'}, {offers:,}",
                    server,
                    bodies,
                    offers,
                    "embedded",
                    1,
                    Oracle(made[ruled], base),
                    True,
                )
                for ruled, server in zip(made, started, strict=True)
            ]
            for _ in range(session.effort.rounds):
                for rival in rivals:
                    session.warm(rival)
                    session.closed(rival, 1)
            for rival in rivals:
                session.stages(rival)
            free, ruled = (session.median("p50", kind="latency", rival=rival.label) for rival in rivals)
            print(f"  {offers:,} offers: {ruled - free:+.3f} ms p50", flush=True)
            if offers == 200:
                session.values["hub"] = ruled - free


def experiments(run: Run) -> None:
    """Measure decisions with 0, 1 and 20 running experiments, in one process."""
    session, base = run.session, places.prepared("pairs")
    print(f"experiments: {', '.join(str(count) for count in trials.COUNTS)} that run, 200 offers", flush=True)
    bodies = (
        bodies_of(synthetic.customer_ids(), synthetic.PLACEMENT, places.CACHE / "bodies-pairs.txt")
        .read_text()
        .splitlines()
    )
    found = trials.microseconds(base, bodies)
    none, one, many = (found[count] for count in trials.COUNTS)
    session.values |= {"experiment": (many - one) / (trials.MANY - 1), "experiments": (many - none) / 1e3}
    session.rows.append(
        {
            "kind": "experiments",
            "rival": OURS,
            "offers": 200,
            "microseconds": {str(count): time for count, time in found.items()},
        }
    )
    print(f"  1: {one - none:+.1f} us; {trials.MANY}: {many - none:+.1f} us of {none:.1f} us", flush=True)


def flags(run: Run) -> None:
    """Measure one flag, and all flags at once, over HTTP, beside the bare echo of the answer to one."""
    session, effort = run.session, run.session.effort
    found = over_http.flags(run.base, effort.rounds, effort.measure)
    session.values |= {"flag": found.against_echo, "flags": found.all}
    session.rows.append(
        {
            "kind": "flags",
            "rival": OURS,
            "experiments": over_http.EXPERIMENTS,
            "echo": found.echo,
            "one": found.one,
            "all": found.all,
        }
    )


EVENTS_BESIDE, DECISIONS_BESIDE = 5_000, 500
"""Events and decisions a second, where each is measured beside the other."""


def events(run: Run) -> None:
    """Measure events alone, one at a time, to the next decision, and beside decisions."""
    session, effort = run.session, run.session.effort
    place = hub.place(places.prepared("pairs"), 200, ruled=True, pause=True)
    bodies = bodies_of(synthetic.customer_ids(), synthetic.PLACEMENT, places.CACHE / "bodies-pairs.txt")
    seconds = 2.0 if effort.quick else 5.0
    print(f"events: batches of {event_load.BATCH}, one at a time, beside decisions", flush=True)

    def made(name: str, batches: int, batch: int = event_load.BATCH) -> Path:
        return event_load.bodies(places.CACHE / f"events-{name}.txt", batches, batch, 200, batches)

    for workers in (1, 2):
        with running(servers.ours(event_load.emptied(place), OURS, workers)) as (server,):
            event_load.peak(server, made("warm", 100), 0.5, 4)
            # More bodies than can be sent: none may come twice.
            rate, _ = event_load.peak(server, made("peak", int(500 * seconds)), seconds, 8)
            session.rows.append(
                {"kind": "events", "rival": OURS, "workers": workers, "batch": event_load.BATCH, "per_second": rate}
            )
            print(f"  {workers} workers: {rate:,.0f} events/s", flush=True)
            session.values["events"] = max(session.values.get("events", 0.0), rate)
    with running(servers.ours(event_load.emptied(place), OURS)) as (server,):
        _, single = event_load.peak(server, made("single", 20_000, 1), seconds, 1, 1)
        session.values["event_single"] = single.percentiles()["p50"]
        soon = load.percentiles(event_load.followed(server))
        session.values["event_known"] = soon["p99"]
        alone, beside = [], []
        for _ in range(effort.rounds):
            plan = load.Plan(server.port, str(bodies), 16, seconds, DECISIONS_BESIDE, warm_seconds=0.5)
            alone.append(load.run(plan).percentiles()["p99"])
            events_plan = load.Plan(
                server.port,
                str(made("beside", int((seconds + 2) * EVENTS_BESIDE / event_load.BATCH))),
                4,
                seconds + 1,
                EVENTS_BESIDE / event_load.BATCH,
                path=event_load.PATH,
            )
            with ThreadPoolExecutor(1) as aside:
                sending = aside.submit(load.run, events_plan)
                beside.append(load.run(plan).percentiles()["p99"])
                if sending.result().refused:
                    raise event_load.EventsFailed("expected every batch beside decisions to be accepted")
        session.values["events_beside"] = statistics.median(beside) / statistics.median(alone)
        row = {
            "kind": "events beside",
            "rival": OURS,
            "alone_p99": alone,
            "beside_p99": beside,
            "single": single.percentiles(),
            "known": soon,
        }
        session.rows.append(row)
        print(
            f"  single p50 {session.values['event_single']:.2f} ms; event to decision p99 {soon['p99']:.1f} ms;"
            f" decisions p99 {alone} alone, {beside} beside"
        )


def kernel(run: Run) -> tuple[dict[str, object], dict[str, list[dict[str, float]]]]:
    """Measure the kernel against other evaluators, and its growth."""
    print("scoring alone, one thread", flush=True)
    compared = scoring.compared(
        run.base, (50, 200) if run.session.effort.quick else scoring.COUNTS, others=not run.session.effort.quick
    )
    seconds = compared["seconds"]
    run.session.values["kernel"] = seconds["booster"]["200"] / seconds["kernel"]["200"]
    for name, one in (
        seconds | {name: one["seconds"] if isinstance(one, dict) else one for name, one in compared["others"].items()}
    ).items():
        shown = (
            one if isinstance(one, str) else "  ".join(f"{count}: {value * 1e6:,.0f}" for count, value in one.items())
        )
        print(f"  {name:12} us by offers  {shown}", flush=True)
    return compared, {} if run.session.effort.quick else scoring.growth()
