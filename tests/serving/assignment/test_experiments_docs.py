"""`docs/experiments.md` is true: its file passes the check, its units are assigned as its table says, its keys and
hashes are all there are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from features.bucketing.tools import TOOLS
from features.common.timestamps import parse_moment
from features.config.documents import Document
from features.config.experiments import CONTROL_GROUPS, Experiment, ExperimentsFile, Guardrails, Hashing, Ramp
from features.expressions.evaluate import Meaning
from features.validation.experiments import arms, faults_of_experiments, ramps
from features.validation.load import load
from features.workspace.experiments import Experiments, read_experiments, split_of
from features.workspace.rulebook import read_rules
from serving.assignment.assignment import Assigner, Reason, Units

DOCS = Path(__file__).parents[3] / "docs"
TEXT = (DOCS / "experiments.md").read_text()
BLOCK = re.compile(r"^```yaml (?P<file>\S+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
FIXED = {
    "workspace.yaml": "name: telephone\ntime_zone: Europe/Vienna\ncurrency: EUR\n",
    "model.yaml": "name: telephone-sales\nlabel: {outcome: accepted, within: 7d}\n",
}
ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")] for line in TEXT.splitlines() if line.startswith("| `{")
]


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Experiments:
    """The page's file beside those of the decision hub's page."""
    folder = tmp_path_factory.mktemp("page")
    files = dict(FIXED)
    for block in BLOCK.finditer((DOCS / "decision-hub.md").read_text()):
        files[block["file"]] = files.get(block["file"], "") + block["body"]
    for name, text in files.items():
        (folder / name).write_text(text)
    workspace = load(folder)
    (block,) = BLOCK.finditer(TEXT)
    assert block["file"] == "experiments.yaml"
    document = Document(folder / block["file"], block["file"], block["body"])
    file = document.convert(ExperimentsFile)
    assert faults_of_experiments(workspace, document, file) == []
    return read_experiments(file, read_rules(workspace.policies, workspace.features, workspace.settings.currency))


def test_units_are_assigned_as_the_table_says(experiments: Experiments) -> None:
    """Every row of the page's table is what the page's file assigns."""
    asked = Assigner.of(experiments)
    conditions = {read.key: read.targeting for read in experiments.experiments}
    for customer, time, *expected in ROWS:
        facts: dict[str, Any] = yaml.safe_load(customer.strip("`"))
        units = Units(facts.pop("customer", ""), facts.pop("anonymous", ""))

        def targeted(key: str, facts: dict[str, Any] = facts) -> bool:
            condition = conditions[key]
            assert condition is not None
            return Meaning(lambda name: facts.get(name.removeprefix("customer."))).of(condition.root) is True

        found = asked.assign(units, targeted, parse_moment(time.strip("`"))).assignments
        assert [f"`{one.arm}`" if one.arm else f"({one.reason})" for one in found] == expected, customer
    assert len(ROWS) == 8


def test_the_ramp_of_the_page_is_what_it_says() -> None:
    """The page's ramp has no fault, its defaults are those of its table, and each row of shares is what the split
    gives.
    """
    section = TEXT.partition("\n## Ramps\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    document = Document(DOCS / "experiments.yaml", "experiments.yaml", block)
    file = document.convert(ExperimentsFile)
    ((key, entry),) = file.experiments.items()
    assert [fault for check in (arms, ramps) for fault in check(None, document, file)] == []  # type: ignore[arg-type]
    assert entry.ramp is not None
    assert (entry.ramp.guardrails.dismissals, entry.ramp.guardrails.slow, entry.ramp.guardrails.conversion) == (
        0.1,
        None,
        0.0,
    )
    told = {
        line.split(" | ")[0].strip("| `"): line.split(" | ")[2].strip("| `")
        for line in section.splitlines()
        if line.startswith("| `")
    }
    usual = Ramp(arm="x")
    for name in ("hold", "window", "units", "patience"):
        assert told[name] == str(getattr(usual, name))
    assert yaml.safe_load(told["steps"]) == list(usual.steps) and set(told) == {*Ramp.__struct_fields__}
    assert all(f"`{name}`" in section for name in Guardrails.__struct_fields__)
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if re.match(r"\| [01][ .]", line)]
    for share, *parts, probability in rows:
        split = split_of(key, entry, float(share))
        given = [split.covered * split.shares[1], split.covered * split.shares[0], 1 - split.covered]
        assert [f"{100 * part:g} %" for part in (round(one, 6) for one in given)] == parts
        assert split.shares[1] == pytest.approx(float(probability))
    assert len(rows) == 5


def test_the_page_names_everything() -> None:
    """The page speaks of every key of an experiment, every algorithm with what it takes, every reason and every control
    group.
    """
    words = set(re.findall(r"[a-z][a-z0-9_-]+", " ".join(re.findall(r"`([^`\n]+)`", TEXT))))
    assert words >= {*Experiment.__struct_fields__} - {"description"}
    assert words >= {*get_args(Hashing), *get_args(Reason)}
    assert set(CONTROL_GROUPS) <= set(re.findall(r"[a-z_]+", TEXT))
    for hash_ in get_args(Hashing):
        (line,) = (line for line in TEXT.splitlines() if line.startswith(f"| `{hash_}`"))
        assert all(f"`{word}`" in line for word in TOOLS[hash_].takes)
