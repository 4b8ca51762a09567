"""What the environment may say: every variable is documented, and one that cannot be used is fatal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from serving import settings
from serving.settings import BadSettings, Settings

ROOT = Path(__file__).parents[2]
ROOMS = ("features", "training", "serving", "pipelines")
VARIABLE = re.compile(r"[\"'](OPPORTUNE_[A-Z_]+)[\"'\]]")
BAD = {
    settings.WORKERS_VARIABLE: ("0", "65", "two"),
    settings.DRAIN_VARIABLE: ("-1", "61", "nan"),
    settings.WATCH_VARIABLE: ("0", "", "inf"),
    settings.OFREP_VARIABLE: ("0", "1e7", "many"),
    settings.KEEP_ALIVE_VARIABLE: ("0", "3601", "long"),
}


def test_every_variable_is_documented() -> None:
    """The table of docs/operations.md has the variables that the code reads, and no others."""
    sources = [file for room in ROOMS for file in (ROOT / room).rglob("*.py")]
    read = {name for file in sources for name in VARIABLE.findall(file.read_text())}
    told = re.findall(r"^\| `(OPPORTUNE_[A-Z_]+)` \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    own = {value for name, value in vars(settings).items() if name.endswith("_VARIABLE")}
    assert own <= read and len(read) > 8
    assert sorted(told) == sorted(read)


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_a_bad_value_is_fatal(tmp_path: Path, name: str, text: str) -> None:
    """The message names the variable, and what was expected."""
    (tmp_path / "workspace.yaml").touch()
    with pytest.raises(BadSettings, match=f"{name}: expected a number from"):
        Settings.from_environment({settings.WORKSPACE_VARIABLE: str(tmp_path), name: text})


def test_defaults(tmp_path: Path) -> None:
    """With the workspace alone nothing is bounded, and nobody's pages may call; without it the way out is said."""
    (tmp_path / "workspace.yaml").touch()
    made = Settings.from_environment({settings.WORKSPACE_VARIABLE: str(tmp_path)})
    assert made == Settings(tmp_path.resolve(), 1, 2.0, 1.0, None, ())
    with pytest.raises(BadSettings, match="opportune up -w"):
        Settings.from_environment({settings.WORKSPACE_VARIABLE: str(tmp_path / "none")})
