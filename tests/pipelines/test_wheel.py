"""The wheel: what is in it, and that it is enough, outside the repository, on every supported Python of this machine."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from tests import environments
from tests.serving.live import Live

PACKAGES = ("features", "training", "serving", "pipelines")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environments.wheel(tmp_path_factory.mktemp("dist"))


def test_the_wheel_holds_what_it_needs_and_nothing_else(wheel: Path) -> None:
    """Every module of the four packages, a `py.typed` in each, the lock, and the metadata."""
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(file.relative_to(environments.ROOT)) for package in PACKAGES for file in (environments.ROOT / package).rglob("*.py")}
    others = {"pipelines/requirements.lock", *(f"{package}/py.typed" for package in PACKAGES)}
    metadata = {
        name
        for name in names
        if re.fullmatch(r"opportune-[\d.]+\.dist-info/(METADATA|WHEEL|RECORD|entry_points.txt|licenses/LICENSE)", name)
    }
    assert len(modules) > 100 and len(metadata) == 5
    assert names == modules | others | metadata


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", environments.SUPPORTED)
def test_the_wheel_is_enough(wheel: Path, version: str, tmp_path: Path) -> None:
    """With the wheel and what the lock pins, `init` and `check` work; on this Python `up` too, until a decision is answered."""
    python = environments.environment(
        tmp_path / "env", "--constraints", str(environments.ROOT / "requirements.lock"), str(wheel), version=version
    )
    opportune, shop = str(python.with_name("opportune")), tmp_path / "shop"
    assert re.fullmatch(r"opportune \d+\.\d+\.\d+\n", environments.run([opportune, "--version"]).stdout)
    environments.run([opportune, "init", str(shop)])
    assert "no faults" in environments.run([opportune, "check", "-w", str(shop)]).stdout
    if version != environments.CURRENT:
        return
    command = ("/usr/bin/env", "-C", str(tmp_path), "-u", "PYTHONPATH", opportune, "up", "-w", str(shop), "--port", "{port}")
    live = Live(shop, command=command, environment={"PATH": f"{python.parent}:/usr/bin:/bin"}).start()
    try:
        answer = live.ask("POST", "/v1/decisions", {"customer_id": "c0001", "placement": "home"})
        assert answer.status == 200 and len(answer.json["offers"]) == 3 and answer.json["degraded"] == []
    finally:
        live.stop()
