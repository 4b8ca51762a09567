"""What programs may rely on: exit statuses, one JSON document with `--json` whatever happens, one line on standard
error.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.main

from features.common.errors import Failure
from pipelines import main
from pipelines.output import errors
from serving.http.auth import parse_keys
from tests.serving.live import ROOT

COMMAND = typer.main.get_command(main.app)
NOWHERE = {
    # verb -> what else it wants, where there is no workspace
    ("check",): (),
    ("import",): (),
    ("features",): (),
    ("materialize",): (),
    ("train",): (),
    ("evaluate",): (),
    ("publish",): (),
    ("registry",): (),
    ("up",): (),
    ("serve",): (),
    ("decide",): ("--customer", "c1", "--placement", "home"),
    ("build",): (),
    ("simulate",): ("--changes", "other"),
    ("contacts",): ("--customer", "c1"),
    ("ship",): (),
    ("doctor",): (),
    ("rebuild",): (),
    ("events", "list"): (),
    ("events", "resend"): (),
    ("backup",): ("saved.tar",),
    ("forget",): ("c1",),
    ("demo",): (),
    ("experiment", "report"): ("a",),
    ("experiment", "list"): (),
    ("experiment", "export"): ("a",),
    ("experiment", "groups"): (),
    ("experiment", "ramp"): ("a",),
}
NO_WORKSPACE = {
    # verb -> words that it refuses
    ("init",): ("{full}",),
    ("restore",): ("{full}/no-such.tar", "-w", "{full}/place"),
    ("key", "new"): ("Not A Name", "--role", "decide"),
    ("simulate-world",): ("{full}",),
}


class Said(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def problem(self) -> Any:
        """The document on standard output, which must be one that tells of an error, with its text as the one line
        beside it.
        """
        told = json.loads(self.out)
        assert set(told) <= {"type", "title", "exit_status", "detail", "errors"} and told["exit_status"] == self.status
        assert told["type"].startswith(errors.TYPE_PREFIX) and told["title"] and told["detail"]
        assert "Traceback" not in self.err and self.err.count("opportune: ") == 1
        return told


def verbs() -> list[tuple[str, ...]]:
    """Every verb, with its group."""
    found: list[tuple[str, ...]] = []
    for name, command in COMMAND.commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        found += [(name, inner) for inner in below] if below else [(name,)]
    return found


@pytest.fixture
def opportune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Said]]:
    """The command, run in this process as its script runs it."""
    held = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["opportune", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.main()
        return Said(int(ended.value.code or 0), *capsys.readouterr())

    yield run
    for number, handler in held.items():
        signal.signal(number, handler)


def test_every_verb_is_held_here() -> None:
    """The tables above have all verbs, and no others."""
    assert set(NOWHERE) | set(NO_WORKSPACE) == set(verbs()) and not set(NOWHERE) & set(NO_WORKSPACE)


@pytest.mark.parametrize("verb", sorted(NOWHERE), ids=" ".join)
def test_where_there_is_no_workspace(verb: tuple[str, ...], opportune: Callable[..., Said], tmp_path: Path) -> None:
    """A verb ends with 1 and one line; with `--json` the same as a document that says where, what was expected, and the
    way out.
    """
    words = (*verb, *NOWHERE[verb], "-w", str(tmp_path / "nowhere"))
    plain = opportune(*words)
    assert plain.status == errors.REFUSED and plain.out == "" and "Traceback" not in plain.err
    assert len(plain.err.splitlines()) == 1 and plain.err.startswith("opportune: ") and "opportune init" in plain.err
    (fault,) = opportune(*words, "--json").problem["errors"]
    assert (
        fault["file"].endswith("nowhere/workspace.yaml")
        and fault["expected"] == "a workspace folder"
        and fault["remedy"]
    )


@pytest.mark.parametrize("verb", sorted(NO_WORKSPACE), ids=" ".join)
def test_what_other_verbs_refuse(verb: tuple[str, ...], opportune: Callable[..., Said], tmp_path: Path) -> None:
    """Verbs that take no workspace refuse by one line and one document, too."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    words = [word.format(full=tmp_path / "full") for word in NO_WORKSPACE[verb]]
    assert opportune(*verb, *words).status == errors.REFUSED
    assert opportune(*verb, *words, "--json").problem["detail"]


@pytest.mark.parametrize("verb", verbs(), ids=" ".join)
def test_wrong_usage(verb: tuple[str, ...], opportune: Callable[..., Said]) -> None:
    """An option that does not exist ends with 2: one line that names the help, or one document."""
    plain = opportune(*verb, "--no-such-option")
    assert plain.status == errors.USAGE and plain.out == "" and len(plain.err.splitlines()) == 1
    assert "--no-such-option" in plain.err and f"`opportune {' '.join(verb)} --help`" in plain.err
    told = opportune(*verb, "--no-such-option", "--json").problem
    assert told["type"] == "urn:opportune:error:usage" and "--no-such-option" in told["detail"]


def test_a_command_line_that_cannot_be_parsed(opportune: Callable[..., Said]) -> None:
    """A verb that does not exist is told of as JSON where `--json` is an option; after `--` it is none."""
    assert opportune("no-such-verb", "--json").problem["exit_status"] == errors.USAGE
    assert errors.wants_json(["check", "--json"]) and not errors.wants_json(["init", "--", "--json"])


def test_statuses_are_documented(opportune: Callable[..., Said]) -> None:
    """docs/install.md and the help have every exit status that the code has, with its meaning."""
    text = (ROOT / "docs" / "install.md").read_text()
    rows = {int(status): meaning for status, meaning in re.findall(r"^\| (\d+) \| ([^|]+?) \|", text, re.M)}
    assert rows == errors.STATUSES
    kinds, waiting = set(), [Failure]
    while waiting:
        waiting += (kind := waiting.pop()).__subclasses__()
        kinds.add(kind.exit_status)
    assert kinds <= set(errors.STATUSES)
    said = opportune("--help")
    assert said.status == errors.DONE
    assert errors.statuses() in re.sub(r"\s+", " ", said.out)


def test_version(opportune: Callable[..., Said]) -> None:
    """`--version` prints name and version, and asks for nothing else."""
    assert re.fullmatch(r"opportune \d+\.\d+\.\d+\n", opportune("--version").out)


def test_completion(tmp_path: Path) -> None:
    """The shell's question after `ma` is answered by `materialize`; the script for the shell can be shown."""
    asked = {"_OPPORTUNE_COMPLETE": "complete_bash", "COMP_WORDS": "opportune ma", "COMP_CWORD": "1"}
    script = Path(sys.executable).with_name("opportune")
    done = subprocess.run(
        [script], env=dict(os.environ) | asked, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["materialize"], done
    options = {name for parameter in COMMAND.params for name in parameter.opts}
    assert {"--install-completion", "--show-completion", "--version"} <= options


def test_init_and_keys_tell_programs(opportune: Callable[..., Said], tmp_path: Path) -> None:
    """What `init` wrote, the address of the registry, and a new key with its entry are documents that say what the
    texts say.
    """
    made = json.loads(opportune("init", str(tmp_path / "shop"), "--json").out)
    assert made["folder"] == str(tmp_path / "shop") and "workspace.yaml" in made["files"]
    registry = json.loads(opportune("registry", "-w", str(tmp_path / "shop"), "--json").out)
    assert registry["address"].startswith("sqlite:///")
    new = opportune("key", "new", "shop", "--role", "decide", "--json")
    key = json.loads(new.out)
    (entry,) = parse_keys(json.dumps([key["entry"]]), "entry")
    assert new.err == "" and key["key"].startswith("shop.") and entry.name == "shop"


BROKEN = """
import sys
from pipelines import main
from pipelines.cli import data
def fail(*_, **__):
    raise KeyError("a part\\nof two lines")
data.load = fail
sys.argv = ["opportune", "check", "-w", sys.argv[1], *sys.argv[2:]]
main.main()
"""


def test_a_fault_of_the_program_is_one_line(opportune: Callable[..., Said], tmp_path: Path) -> None:
    """What nobody expected ends with 70, one line and where it happened; the variable that it names shows all."""
    opportune("init", str(tmp_path / "shop"))

    def broken(*words: str, **environment: str) -> Said:
        command = [sys.executable, "-c", BROKEN, str(tmp_path / "shop"), *words]
        done = subprocess.run(
            command, cwd=ROOT, env=dict(os.environ) | environment, capture_output=True, text=True, check=False
        )
        return Said(done.returncode, done.stdout, done.stderr)

    plain = broken()
    assert plain.status == errors.BROKEN and plain.out == ""
    assert re.fullmatch(
        r"opportune: unexpected KeyError: .* at pipelines/cli/data\.py:\d+\. .*OPPORTUNE_TRACEBACK=1 .*\n", plain.err
    )
    assert broken("--json").problem["type"] == "urn:opportune:error:unexpected"
    assert "Traceback (most recent call last)" in broken(OPPORTUNE_TRACEBACK="1").err


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    """`opportune … | head` ends in silence when head has seen enough."""
    code = (
        "import sys; from pipelines import main; from pipelines.output import console; console.as_json = lambda value:"
        " [print('x' * 1000) for _ in range(1000)]; main.main()"
    )
    command = f'{sys.executable} -c "{code}" key new shop --role decide --json | head -c 10'
    done = subprocess.run(["/bin/sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "x" * 10 and done.stderr == ""
