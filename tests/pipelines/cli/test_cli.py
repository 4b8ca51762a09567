"""The command `opportune` as a newcomer meets it: help, a first workspace, `up` twice, and what it says when something
is wrong.
"""

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
import typer.main
from typer.testing import CliRunner

from features.config.faults import BadWorkspace
from features.validation.load import load
from pipelines.cli.model import print_report
from pipelines.deploy.addresses import PortTaken, address_of
from pipelines.importing.import_files import ImportReport
from pipelines.importing.report import print_reports
from pipelines.main import app
from pipelines.materialize import steps
from serving.http.auth import parse_keys
from tests.environment import without_settings
from tests.serving.live import ROOT, Live, wait_for
from tests.stores import free_port
from tests.waiting import LIMIT_S

COMMAND = typer.main.get_command(app)


def verbs() -> list[tuple[str, ...]]:
    """Every verb, with its group."""
    found: list[tuple[str, ...]] = []
    for name, command in COMMAND.commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        found += [(name, inner) for inner in below] if below else [(name,)]
    return found


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a script would call it."""
    clean = without_settings()
    command = [sys.executable, "-m", "pipelines.main", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a refusal consists of."""
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("opportune: ")]
    assert len(lines) == 1 and done.stderr.splitlines()[-1] == lines[0], done.stderr
    return lines[0]


def test_there_are_verbs() -> None:
    """The verbs of the documents exist."""
    names = {verb[0] for verb in verbs()}
    assert names >= {
        "init",
        "check",
        "import",
        "features",
        "materialize",
        "train",
        "evaluate",
        "publish",
        "registry",
        "up",
        "serve",
        "decide",
        "build",
        "key",
    }


@pytest.mark.parametrize("verb", verbs(), ids=" ".join)
def test_every_verb_helps_with_an_example(verb: tuple[str, ...]) -> None:
    """`--help` says what a verb does and shows an example that names the verb."""
    shown = CliRunner().invoke(app, [*verb, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert shown.exit_code == 0
    example = re.search(r"Example[^:]*: (.*)", shown.output)
    assert example and f"opportune {' '.join(verb)}" in example[1], shown.output
    assert CliRunner().invoke(app, [*verb, "-h"]).exit_code == 0


def test_help_is_light() -> None:
    """Asking for help imports none of the libraries that take long."""
    code = (
        "import sys; from typer.testing import CliRunner; from pipelines.main import app\nassert"
        " CliRunner().invoke(app, ['--help']).exit_code == 0\nprint(sorted({'mlflow', 'feast', 'lightgbm', 'bentoml',"
        " 'sklearn', 'pandas', 'matplotlib', 'numba'} & set(sys.modules)), len(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] "), done.stdout


def test_init_writes_a_workspace_that_passes_check(tmp_path: Path) -> None:
    """What `init` writes, `check` has nothing to say against; a second `init` there is refused."""
    folder = tmp_path / "My shop!"
    assert "opportune check" in run("init", str(folder)).stdout
    checked = run("check", "-w", str(folder), "--json")
    assert checked.returncode == 0, checked.stderr
    facts = json.loads(checked.stdout)
    assert facts["sources"] == 5 and facts["columns"] > 10
    assert "no faults" in run("check", "-w", str(folder)).stdout
    assert "an empty or new folder" in refused(run("init", str(folder)))
    assert refused(run("init", str(folder / "model.yaml"))).endswith(
        "an empty or new folder, got a file. Name another folder."
    )


def test_bad_workspace_has_a_line_for_each_fault(tmp_path: Path) -> None:
    """Each fault of a workspace is one line with its file, and the status is 1."""
    folder = tmp_path / "shop"
    run("init", str(folder))
    for name, before, after in (
        ("features.yaml", "aggregate: days_since", "aggregate: days_sinse"),
        ("model.yaml", "rounds_max: 300", "rounds_max: many"),
        ("workspace.yaml", "time_zone: UTC", "time_zone: Mars"),
    ):
        text = (folder / name).read_text()
        assert before in text
        (folder / name).write_text(text.replace(before, after))
    done = run("check", "-w", str(folder))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    for name in ("features.yaml", "model.yaml"):
        assert sum(re.search(rf"\b{name}:\d+: at \$.*expected .*got ", line) is not None for line in lines) == 1, (
            done.stderr
        )
    assert len(lines) == 2 + ("workspace.yaml" in done.stderr)
    assert "opportune init" in refused(run("check", "-w", str(tmp_path / "nowhere")))


def test_a_parameter_that_nobody_knows_is_told_before_any_work(tmp_path: Path) -> None:
    """What the fit would refuse, `check` refuses with its line, and `up` before it imports; LightGBM is not loaded."""
    folder = tmp_path / "shop"
    run("init", str(folder))
    file = folder / "model.yaml"
    whole = file.read_text()
    file.write_text(whole.replace("num_leaves: 7", "num_leafs: 7, n_estimators: 9"))
    for verb in (("check",), ("up", "--port", str(free_port()))):
        done = CliRunner().invoke(app, [*verb, "-w", str(folder)])
        assert isinstance(done.exception, BadWorkspace), done
        leafs, estimators = str(done.exception).splitlines()
        assert re.search(
            r"model\.yaml:\d+: at \$\.parameters\.num_leafs: expected .*, got `num_leafs`. Did you mean"
            r" `num_leaves`\?$",
            leafs,
        )
        assert estimators.endswith("expected `rounds_max`, got `n_estimators`. Say `rounds_max` instead.")
    file.write_text(whole.replace("num_leaves: 7", "max_leaves: 7"))
    assert not load(folder).lake.exists(), "nothing was imported"
    code = (
        "import sys; from typer.testing import CliRunner; from pipelines.main import app\nassert"
        f" CliRunner().invoke(app, ['check', '-w', {str(folder)!r}]).exit_code == 0; assert 'lightgbm' not in"
        " sys.modules"
    )
    done_alone = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done_alone.returncode == 0, done_alone.stderr


def test_new_key() -> None:
    """`key new` shows the key on standard output and an entry, which holds no more than its hash, beside it."""
    done = run("key", "new", "shop-frontend", "--role", "decide")
    assert done.returncode == 0
    key = done.stdout.strip()
    assert re.fullmatch(r"shop-frontend\.[\w-]{43}", key)
    entry = done.stderr[done.stderr.index("- name") :]
    assert parse_keys(entry, "entry")[0].name == "shop-frontend" and key not in done.stderr
    assert "Traceback" not in run("key", "new", "shop", "--role", "owner").stderr
    assert run("key", "new", "shop", "--role", "owner").returncode == 1
    assert run("key", "new", "Not A Name", "--role", "decide").returncode == 1


def test_an_import_says_what_it_left_out_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns that nothing uses and refused rows are named, whatever is in the names; where all went well nothing is
    added.
    """
    done = ImportReport(
        "offers",
        [],
        read=3,
        stored=1,
        refused={"`value` is not a number": 1, "`time` is not a time": 1},
        ignored=["[red]", "b"],
    )
    print_reports([done])
    text = capsys.readouterr().out
    assert "refused in offers: 1 row: `value` is not a number\n" in text
    assert "passed over in offers: [red], b\n" in text
    assert "Mend the files and import again; docs/bring-your-own-data.md" in text
    print_reports([ImportReport("offers", [], read=1, stored=1)])
    assert capsys.readouterr().out.splitlines()[3:] == ["1 rows read, 1 of them new, 0 refused; nothing to look at."]


# What follows stands on one workspace that was brought up once
# --------------------------------------------------------------


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
