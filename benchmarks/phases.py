"""What a run measures of whole services, phase by phase: rivals side by side, stages, open loop, sizes, workers, other
workspaces.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks import places, servers, synthetic
from benchmarks.oracle import Oracle
from benchmarks.run import BARE, DOOR, OBVIOUS, OURS, Run, bodies_of
from benchmarks.servers import Server, running
from benchmarks.session import Rival, Session
from features.lake.lake import connect
from features.workspace.workspace import Workspace

SIZES = (1, 50, 200, 1_000, 10_000)
STARTS = 3


def starts(run: Run) -> None:
    """Start to ready, and the memory of a worker that has answered."""
    session, seconds, memory = run.session, [], []
    for _ in range(1 if session.effort.quick else STARTS):
        workspace = run.place(50)
        run.oracle(50)  # the kernel's code is in its cache now: this is a warm start
        with running(servers.ours(workspace, OURS)) as (server,):
            rival = run.ours(server, 50, "embedded")
            session.warm(rival)
            seconds.append(server.start_seconds)
            memory.append(server.memory())
            run.answer.write_text(_answer(server, run.bodies))
    middle = {name: statistics.median(one[name] for one in memory) for name in memory[0]}
    session.values |= {"start": statistics.median(seconds), "memory": middle["rss"]}
    session.rows.append(
        {
            "kind": "start",
            "rival": OURS,
            "offers": 50,
            "seconds": [round(one, 2) for one in seconds],
            "memory_mb": middle,
        }
    )
    print(
        f"  start to ready {statistics.median(seconds):.2f} s; worker RSS {middle['rss']:.0f} MB, PSS"
        f" {middle['pss']:.0f}, USS {middle['uss']:.0f}"
    )


def _answer(server: Server, bodies: Path) -> str:
    """Return a real answer of ours: the echoes send as many bytes."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request(
        "POST", "/v1/decisions", bodies.read_text().splitlines()[0], {"content-type": "application/json"}
    )
    return connection.getresponse().read().decode()


def side_by_side(run: Run) -> None:
    """Measure all rivals alive at once, in turns, several rounds; the bars take medians over the rounds."""
    session, effort = run.session, run.session.effort
    with ExitStack() as stack:

        def start(*made: Server) -> tuple[Server, ...]:
            return stack.enter_context(running(*made))

        bare, door = start(servers.bare_echo(run.answer, BARE), servers.door_echo(run.answer, DOOR))
        plain, redis, large = start(
            *(
                servers.ours(run.place(offers, store), OURS)
                for offers, store in ((50, "embedded"), (50, "redis"), (200, "embedded"))
            )
        )
        slow, slow_redis = start(*(servers.obvious(run.place(50, store), OBVIOUS) for store in ("embedded", "redis")))
        echo = Rival(BARE, bare, run.bodies)
        two_hundred = run.ours(large, 200, "embedded")
        rivals = [
            echo,
            Rival(DOOR, door, run.bodies),
            run.obvious(slow, 50, "embedded"),
            run.obvious(slow_redis, 50, "redis"),
        ]
        rivals += [run.ours(plain, 50, "embedded"), run.ours(redis, 50, "redis"), two_hundred]
        for number in range(effort.rounds):
            print(f"side by side, round {number + 1} of {effort.rounds}", flush=True)
            for rival in rivals:
                session.warm(rival)
                for connections in (1, 16) if effort.quick else (1, 16, 64):
                    session.closed(rival, connections)
        print("stages of a decision", flush=True)
        session.values["inside"] = session.stages(two_hundred)["sum"]
        session.rows.append({"kind": "memory", "rival": OBVIOUS, "memory_mb": slow.memory()})


def open_loop(run: Run) -> None:
    """Ours at half of its peak, as users come: not waiting for each other. The bare echo at the same rate tells what
    HTTP and generator cost.

    Only these two are alive: even an idle server wakes up, and on two cores the others then wait.
    """
    session = run.session
    rate = session.peak(rival=f"{OURS}, embedded, 200") / 2
    print(f"open loop at half of the peak, {rate:,.0f} requests/s", flush=True)
    with running(servers.bare_echo(run.answer, BARE), servers.ours(run.place(200), OURS)) as (bare, large):
        echo, ours = Rival(BARE, bare, run.bodies), run.ours(large, 200, "embedded")
        found = []
        for _ in range(session.effort.rounds):
            for rival in (echo, ours):
                session.warm(rival)
                outcome = session.open(rival, rate)
            found.append(outcome.percentiles()["p99"])
        session.values["open_p99"] = statistics.median(found)
        lag = large.loop_lag()
        row = {
            "kind": "loop lag",
            "rival": OURS,
            "offers": 200,
            "late_share_by_seconds": lag,
            "generator_first": outcome.is_first,
        }
        session.rows.append(row)
        print(f"  generator at real-time priority: {'yes' if outcome.is_first else 'not granted'}")
        print(
            "  the event loop's timer, late by more than: "
            + ", ".join(f"{limit * 1e3:g} ms {share:.2%}" for limit, share in lag.items())
        )


def ratios(session: Session) -> None:
    """Compute the bars that compare rivals of the side-by-side rounds."""
    ours, ours_redis = ({"rival": f"{OURS}, {store}, 50", "workers": 1} for store in ("embedded", "redis"))
    slow, slow_redis = ({"rival": f"{OBVIOUS}, {store}, 50", "workers": 1} for store in ("embedded", "redis"))

    def p50(wanted: dict[str, object]) -> float:
        return session.median("p50", kind="latency", **wanted)

    echo = p50({"rival": BARE, "workers": 1})
    session.values |= {
        "throughput": session.peak(**ours) / session.peak(**slow),
        "latency": p50(slow) / p50(ours),
        "echo": p50(ours) / echo,
        "redis_echo": p50(ours_redis) / echo,
        "redis_throughput": session.peak(**ours_redis) / session.peak(**slow_redis),
    }


def sizes(run: Run, wanted: tuple[int, ...] = SIZES) -> None:
    """Measure ours on both stores and the obvious composition, for every catalogue, one after the other."""
    session = run.session
    print("catalogues of all sizes", flush=True)
    for offers in wanted:
        for store in ("embedded",) if session.effort.quick else ("embedded", "redis"):
            with running(servers.ours(run.place(offers, store), OURS)) as (server,):
                rival = run.ours(server, offers, store)
                session.warm(rival, 1)
                result = session.closed(rival, 1)
                session.stages(rival)
                if offers == max(SIZES) and store == "embedded":
                    session.values["large"] = result.p50
        if not session.effort.quick:
            with running(servers.obvious(run.place(offers), OBVIOUS)) as (server,):
                rival = run.obvious(server, offers, "embedded")
                session.warm(rival, 1)
                session.closed(rival, 1)


def workers(run: Run) -> None:
    """Two workers: every rival at 16 and 64 connections."""
    print("two workers", flush=True)
    made: tuple[Callable[[], Rival], ...] = (
        lambda: Rival(BARE, servers.bare_echo(run.answer, BARE, 2), run.bodies, workers=2),
        lambda: Rival(DOOR, servers.door_echo(run.answer, DOOR, 2), run.bodies, workers=2),
        lambda: run.obvious(servers.obvious(run.place(50), OBVIOUS, 2), 50, "embedded", 2),
        lambda: run.ours(servers.ours(run.place(50), OURS, 2), 50, "embedded", 2),
        lambda: run.ours(servers.ours(run.place(50, "redis"), OURS, 2), 50, "redis", 2),
    )
    for make in made:
        rival = make()
        with running(rival.server):
            run.session.warm(rival)
            for connections in (16, 64):
                run.session.closed(rival, connections)


def other_workspaces(run: Run) -> None:
    """The same measurements on pair columns, and on the real example; ours alone: the obvious composition has no pair
    columns.
    """
    for name in ("pairs", "grocery"):
        base = places.prepared(name)
        print(f"workspace {name}", flush=True)
        if name == "grocery":
            customers, placement = _known_customers(base), next(iter(base.offers.placements))
        else:
            customers, placement = synthetic.customer_ids(), synthetic.PLACEMENT
        bodies = bodies_of(customers, placement, places.CACHE / f"bodies-{name}.txt")
        for offers in (None,) if name == "grocery" else (50, 200, 1_000):
            workspace = places.copy(base, offers)
            oracle = Oracle(workspace, base)
            count = len(oracle.parts()[1].catalogue)
            with running(servers.ours(workspace, OURS)) as (server,):
                rival = Rival(f"{OURS}, {name}, {count:,}", server, bodies, count, "embedded", 1, oracle, ours=True)
                run.session.warm(rival)
                run.session.closed(rival, 1)
                run.session.stages(rival)
                if offers in (None, 200):
                    run.session.closed(rival, 16)


def _known_customers(base: Workspace) -> list[str]:
    """Return customers of the latest decisions, who are likely to have offers."""
    con = connect(base)
    rows = con.execute("SELECT customer_id FROM decisions GROUP BY 1 ORDER BY max(time) DESC, 1 LIMIT 2000").fetchall()
    con.close()
    return [str(row[0]) for row in rows]
