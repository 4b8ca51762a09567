"""The command `opportune` as a newcomer meets it: help, an empty workspace, and what it says of mistakes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from features.config.faults import BadWorkspace
from features.validation.load import load
from pipelines.importing.import_files import ImportReport
from pipelines.importing.report import print_reports
from pipelines.main import app
from serving.http.auth import parse_keys
from tests.pipelines.command import refused, run
from tests.serving.live import ROOT
from tests.stores import free_port

COMMAND = typer.main.get_command(app)


def verbs() -> list[tuple[str, ...]]:
    """Every verb, with its group."""
    found: list[tuple[str, ...]] = []
    for name, command in COMMAND.commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        found += [(name, inner) for inner in below] if below else [(name,)]
    return found


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
