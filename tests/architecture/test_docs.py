"""What the documents say exists: commands, their options, Make goals, files and headings that are linked to."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tests.architecture.house import ROOT, files, refuse

SHELLS = {"sh", "bash", "shell", "console"}
FENCE = re.compile(
    r"^(?P<fence>```+|~~~+)[ \t]*(?P<language>[\w-]*)[^\n]*\n(?P<body>.*?)^(?P=fence)[ \t]*$", re.M | re.S
)
LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")
ELSEWHERE = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|//)", re.I)


def _documents() -> list[Path]:
    return [file for file in files() if file.suffix == ".md"]


def _commands(file: Path) -> Iterator[list[str]]:
    """The words of every command in the shell blocks of a document, as if typed: one list a command."""
    for block in FENCE.finditer((ROOT / file).read_text()):
        if block["language"] not in SHELLS:
            continue
        lines = block["body"].replace("\\\n", " ").splitlines()
        if block["language"] == "console":
            lines = [line for line in lines if line.startswith("$ ")]
        for line in lines:
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|&;()")
            lexer.whitespace_split = True
            command: list[str] = []
            for word in [*lexer, ";"]:
                if word[0] in "|&;()":
                    if command:
                        yield command
                    command = []
                elif command or not re.fullmatch(r"\w+=.*", word):  # a setting before the command is not the command
                    command.append(word)


def _named(program: str) -> list[tuple[Path, list[str]]]:
    """Where the documents call this program, and with which words after its name."""
    return [(file, words[1:]) for file in _documents() for words in _commands(file) if Path(words[0]).name == program]


@cache
def _program() -> Any:
    """The command line of `opportune`, as the tree of its verbs."""
    import typer

    assert importlib.util.find_spec("pipelines.main"), (
        "expected pipelines/main.py, which `opportune` of pyproject.toml names"
    )
    main = importlib.import_module("pipelines.main")
    found = next((value for value in vars(main).values() if isinstance(value, typer.Typer)), None)
    assert found is not None, "expected a Typer application in pipelines.main"
    return typer.main.get_command(found)


def _unknown_in(words: list[str]) -> str | None:
    """What of these words `opportune` does not know: a verb, or an option of the verb."""
    command, rest = _program(), list(words)
    while hasattr(command, "commands"):
        if not rest or rest[0] in {"--help", *(name for parameter in command.params for name in parameter.opts)}:
            return None
        verb = rest.pop(0)
        if verb not in command.commands:
            return f"no verb `{verb}`; there are {', '.join(sorted(command.commands))}"
        command = command.commands[verb]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help"
    }
    for word in rest:
        name = word.split("=")[0]
        if re.fullmatch(r"--?[a-zA-Z][\w-]*", name) and name not in options:
            return f"no option `{name}` of this verb; there are {', '.join(sorted(options))}"
    return None


def _goals() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", (ROOT / "Makefile").read_text(), re.M))


def test_commands_of_the_documents_exist() -> None:
    """Every `opportune` command in a shell block names a verb and options that the program has."""
    called = _named("opportune")
    refuse(f"{file}: `opportune {' '.join(words)}`: {fault}" for file, words in called if (fault := _unknown_in(words)))
    assert any(file.name == "README.md" for file, _ in called), (
        "expected `opportune` commands in the README, found none"
    )


def test_make_goals_of_the_documents_exist() -> None:
    """Every `make` command in a shell block or in backticks names a goal of the Makefile."""
    goals = _goals()
    assert {"run", "test", "check", "bench", "clean", "lock"} <= goals, (
        f"expected the promised goals, found {sorted(goals)}"
    )
    called = _named("make")
    for file in _documents():
        called += [(file, words.split()[1:]) for words in re.findall(r"`(make [a-z][^`]*)`", (ROOT / file).read_text())]
    refuse(
        f"{file}: `make {word}`: no such goal; there are {', '.join(sorted(goals))}"
        for file, words in called
        for word in words
        if not word.startswith("-") and "=" not in word and word not in goals
    )
    assert any(file.name == "README.md" for file, _ in called), "expected `make` commands in the README, found none"


def _anchors(file: Path) -> set[str]:
    """The anchors of a document's headings, as the common hosts make them."""
    text = FENCE.sub("", (ROOT / file).read_text())
    headings = re.findall(r"^#{1,6}[ \t]+(.+?)[ \t#]*$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _dead(file: Path, target: str) -> str | None:
    path, _, anchor = target.partition("#")
    aim = file if not path else Path((ROOT / file.parent / path).resolve())
    full = aim if aim.is_absolute() else ROOT / aim
    if not full.is_relative_to(ROOT):
        return "leads out of the repository"
    if not full.exists():
        return "no such file"
    if anchor and full.suffix == ".md" and anchor not in _anchors(full.relative_to(ROOT)):
        return "no such heading"
    return None


def test_links_of_the_documents_lead_somewhere() -> None:
    """Every relative link in a document leads to a file, and to a heading where it names one."""
    faults, seen = [], 0
    for file in _documents():
        for link in LINK.finditer(FENCE.sub("", (ROOT / file).read_text())):
            if ELSEWHERE.match(link["target"]):
                continue
            seen += 1
            dead = _dead(file, link["target"])
            if dead:
                faults.append(f"{file}: {link['target']}: {dead}")
    refuse(faults)
    assert seen >= 5, f"expected links between the documents, found {seen}"


def test_documents_stand_on_their_own() -> None:
    """No document speaks of a folder beside the repository, which no reader has."""
    documents = _documents()
    refuse(str(file) for file in documents if re.search(r"\.\./shared\b", (ROOT / file).read_text()))
    assert len(documents) >= 5, f"expected documents, found {documents}"


def test_every_decision_is_in_the_table() -> None:
    """The table of decisions links to every record, and numbers are given once."""
    records = [file.name for file in _documents() if file.parent == Path("docs/decisions") and file.name != "README.md"]
    table = (ROOT / "docs/decisions/README.md").read_text()
    refuse(
        f"docs/decisions/{name}: not in the table of docs/decisions/README.md"
        for name in records
        if f"]({name})" not in table
    )
    numbers = [name[:4] for name in records]
    assert numbers, "expected decision records, found none"
    assert len(set(numbers)) == len(numbers), f"expected each number once, got {sorted(numbers)}"
