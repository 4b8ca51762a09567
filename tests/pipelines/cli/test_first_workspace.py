"""A newcomer brings a first workspace up, twice, asks it, and ends it at any moment."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from features.validation.load import load
from pipelines.cli.model import print_report
from pipelines.deploy.addresses import PortTaken, address_of
from pipelines.materialize import steps
from tests.pipelines.command import refused, run
from tests.serving.live import ROOT, Live, wait_for
from tests.stores import free_port


def up(folder: Path) -> Live:
    return Live(folder, command=(sys.executable, "-m", "pipelines.main", "up", "-w", str(folder), "--port", "{port}"))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Live:
    """The first `up` of a new workspace, ended by Ctrl-C."""
    folder = tmp_path_factory.mktemp("cli") / "shop"
    assert run("init", str(folder)).returncode == 0
    live = up(folder)
    begun = time.monotonic()
    live.start()
    print(f"first `up`: ready after {time.monotonic() - begun:.1f} s")
    answer = live.ask("POST", "/v1/decisions", {"customer_id": "c0001", "placement": "home"})
    assert answer.status == 200 and len(answer.json["offers"]) == 3
    wait_for(lambda: "Ctrl-C stops." in live.said, what="the greeting")
    live.stop(signal.SIGINT)
    return live


@pytest.fixture(scope="module")
def shop(first: Live) -> Path:
    return first.workspace


@pytest.mark.slow
def test_first_up_does_everything(first: Live) -> None:
    """The first `up` tells each step in order, then what to try next, and ends with status 0 at Ctrl-C."""
    assert first.process is not None and first.process.returncode == 0, first.said
    told = [
        "imported",
        "computed",
        "filled the online store",
        "trained version 1",
        "published version 1",
        "Serving shop on",
        "curl -s",
        "stopping",
    ]
    places = [first.said.find(text) for text in told]
    assert -1 not in places and places == sorted(places), first.said
    assert "Traceback" not in first.said
    assert (first.workspace / ".opportune" / "steps.json").exists()


@pytest.mark.slow
def test_second_up_trains_nothing(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The next `up` answers without any of the steps, from what was left; what it prints to try works."""
    live, begun = up(shop), time.monotonic()
    live.start()
    with capsys.disabled():
        rss = [psutil.Process(pid).memory_info().rss >> 20 for pid in live.serving()]
        print(f"\n  second `up`: ready after {time.monotonic() - begun:.1f} s, a worker has {rss[0]} MiB")
    try:
        answer = live.ask("POST", "/v1/decisions", {"customer_id": "c0001", "placement": "home"})
        assert answer.json["model"]["version"] == "1" and answer.json["degraded"] == []
        wait_for(lambda: "Ctrl-C stops." in live.said, what="the greeting")
        assert any("pipelines.worker" in " ".join(child.cmdline()) for child in live.tree()), (
            "the background worker runs"
        )
    finally:
        assert live.stop(signal.SIGINT) == 0
    assert not re.search("imported|computed|filled|trained|published", live.said), live.said
    curl = next(line.strip() for line in live.said.splitlines() if line.strip().startswith("curl"))
    assert json.loads(curl.split("-d '")[1].rstrip("'"))["placement"] == "home"
    hint = next(line.split() for line in live.said.splitlines() if "opportune decide" in line)
    assert run(*hint[1:]).returncode == 0


@pytest.mark.slow
def test_up_runs_once_and_its_port_is_its_own(shop: Path, tmp_path: Path) -> None:
    """A second `up` beside one that runs, and a taken port, are refused in one line that names the way out."""
    live = up(shop).start()
    try:
        assert (
            "another `opportune up` runs" in (line := refused(run("up", "-w", str(shop), "--port", str(free_port()))))
            and "opportune serve" in line
        )
        assert "--port" in refused(run("serve", "-w", str(shop), "--port", str(live.port)))
        beside = Live(shop).start()
        assert beside.ask("POST", "/v1/decisions", {"customer_id": "c0001", "placement": "home"}).status == 200
        beside.stop()
    finally:
        assert live.stop(signal.SIGTERM) == 0


@pytest.mark.slow
def test_taken_port_is_seen_before_the_work(tmp_path: Path) -> None:
    """A port that another process has is refused before anything is imported or trained."""
    run("init", str(tmp_path / "shop"))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        line = refused(run("up", "-w", str(tmp_path / "shop"), "--port", str(other.getsockname()[1])))
    assert "to be free" in line and "--port" in line
    assert not (tmp_path / "shop" / ".opportune" / "lake").exists()
    assert address_of("localhost") == "127.0.0.1"
    with pytest.raises(PortTaken, match="of this machine"):
        address_of("no.such.name.invalid")


@pytest.mark.slow
def test_busy_workspace(shop: Path) -> None:
    """While a step works on a workspace, the other steps say so in one line."""
    with steps.alone(load(shop)):
        for verb in (("import",), ("train",), ("publish",), ("up", "--port", str(free_port()))):
            assert "another process works on" in refused(run(verb[0], "-w", str(shop), *verb[1:]))


@pytest.mark.slow
def test_nothing_outlives_a_killed_up(shop: Path) -> None:
    """When `up` is killed without a chance to say so, its server, the server's workers and the background worker end by
    themselves.
    """
    live = up(shop).start()
    wait_for(
        lambda: any("pipelines.worker" in " ".join(child.cmdline()) for child in live.tree()),
        what="the background worker",
    )
    left = live.tree()
    assert len(left) >= 3 and live.process is not None
    live.process.kill()
    live.process.wait()
    _, alive = psutil.wait_procs(left, 25)
    try:
        assert not alive, alive
    finally:
        live.stop()


@pytest.mark.slow
def test_decide_prints_a_decision(shop: Path) -> None:
    """`decide` prints a table with the offers; with `--explain` the terms of their priorities, the funnel, and why not
    others.
    """
    plain = run("decide", "-w", str(shop), "--customer", "c0001", "--placement", "home")
    assert re.search(r"^rank +offer +headline +priority +propensity +reasons", plain.stdout, re.M), plain
    done = run(
        "decide", "-w", str(shop), "--customer", "c0001", "--placement", "home", "--context", "channel=app", "--explain"
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout
    assert re.search(r"^home for customer c0001: 3 of 13 offers considered$", text, re.M)
    assert re.search(
        r"^rank +offer +headline +propensity +x weight +x value +x lever +\W priority +score comes from", text, re.M
    )
    shown = re.findall(
        r"^[123] +offer-\d\d +\d+ % off \w+ +(0\.\d+) +(1) +([\d.]+) +(1) +([\d.]+) +\w+ [+-]\d", text, re.M
    )
    assert len(shown) == 3
    for propensity, weight, value, lever, priority in shown:
        assert float(propensity) * float(weight) * float(value) * float(lever) == pytest.approx(
            float(priority), rel=0.02
        )
    assert re.search(r"^Why not the other offers, by what stopped them first, of 13 in the catalogue$", text, re.M)
    assert re.search(r"^rank +10 +3 +offer-\d\d .* others have more priority", text, re.M)
    assert re.search(r"^Next in rank, 4 of 10 \(--json has all\)$", text, re.M)
    following = re.findall(r"^(\d) +offer-\d\d .* a lever of ([\d.]+) \(is 1\), or a value of [\d.]+ \(is ", text, re.M)
    assert [rank for rank, _ in following] == ["4", "5", "6", "7"] and all(float(lever) > 1 for _, lever in following)
    assert re.search(
        r"^Model shop-acceptance version 1, bundle [0-9a-f]{16}; policies [0-9a-f]{16}; good until ", text, re.M
    )
    assert max(map(len, text.splitlines())) <= 160 and len(text.splitlines()) <= 45


@pytest.mark.slow
def test_decide_tells_programs(shop: Path) -> None:
    """`decide --json` prints the answer of the HTTP route; a stranger is answered too, and a wrong option is refused
    with the known ones.
    """
    done = run("decide", "-w", str(shop), "--customer", "who-is-this", "--placement", "basket", "--json")
    answer = json.loads(done.stdout)
    assert answer["customer_id"] == "who-is-this" and len(answer["offers"]) == 1 and "explanation" not in answer
    for arguments, told in (
        (("--placement", "nowhere"), "basket"),
        (("--placement", "home", "--context", "mood=good"), "channel"),
        (("--placement", "home", "--context", "channel=fax"), "web"),
        (("--placement", "home", "--limit", "0"), "greater than or equal to 1"),
    ):
        done = run("decide", "-w", str(shop), "--customer", "c0001", *arguments)
        assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr, done
    done = run("decide", "-w", str(shop), "--customer", "a b", "--placement", "home")
    assert done.returncode == 2 and "1 to 64 letters" in done.stderr and "regex" not in done.stderr, done


@pytest.mark.slow
def test_evaluate_compares(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`evaluate --json` holds the model against the baselines on a described split; without it there are tables."""
    done = run("evaluate", "-w", str(shop), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    wanted = {"mrr", "ndcg@10", "auc", "log_loss", "brier", "ece"}
    assert wanted <= set(report["model"])
    assert {"random", "popularity", "logistic_regression"} <= set(report["baselines"])
    assert all(set(values) >= {"mrr", "ndcg@10", "auc"} for values in report["baselines"].values())
    assert {"cut", "training", "test"} <= set(report["split"])
    assert 0 < report["model"]["mrr"] <= 1 and report["split"]["test"]["decisions"] > 0
    assert report["warnings"] == [], "there are enough successes"
    print_report(report | {"warnings": ["expected more"]})
    text = capsys.readouterr().out
    assert text.splitlines()[-1] == "warning expected more"
    assert re.search(r"^model +mrr +ndcg@10", text, re.M) and re.search(r"^popularity +0\.\d{4}", text, re.M)


@pytest.mark.slow
def test_publish_of_nothing(shop: Path, tmp_path: Path) -> None:
    """A version that does not exist, and serving what was never published, are refused in one line."""
    assert "got `99`" in refused(run("publish", "-w", str(shop), "--version", "99"))
    run("init", str(tmp_path / "new"))
    for verb in (("serve",), ("decide", "--customer", "c1", "--placement", "home")):
        assert "opportune up" in refused(run(verb[0], "-w", str(tmp_path / "new"), *verb[1:]))


@pytest.mark.slow
def test_registry_is_mlflows(shop: Path) -> None:
    """`registry` prints the address that MLflow's own tools take, and nothing else."""
    done = run("registry", "-w", str(shop))
    assert re.fullmatch(r"sqlite:////\S+/mlflow\.db\n", done.stdout)
    assert Path(done.stdout.strip().removeprefix("sqlite:///")).exists()


@pytest.mark.slow
def test_ctrl_c_between_the_steps(tmp_path: Path) -> None:
    """Ctrl-C while a step works ends the command with status 130 and one line; what is done stays done."""
    run("init", str(tmp_path / "shop"))
    command = [sys.executable, "-m", "pipelines.main", "up", "-w", str(tmp_path / "shop"), "--port", str(free_port())]
    said = ""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if "imported" in line and said.count("imported") == 1:
                process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, said
    assert "stopped" in said.splitlines()[-1] and "Traceback" not in said, said
    assert steps.is_imported(load(tmp_path / "shop"))
