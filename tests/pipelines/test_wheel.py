"""The wheel: what is in it, and that it is enough, outside the repository, on every supported Python of this
machine.
"""

from __future__ import annotations

import re
import signal
import zipfile
from pathlib import Path

import msgspec
import pytest

from serving.http.auth import new_key
from tests import environments
from tests.container import instructions, last
from tests.serving.live import COMPILES_SECONDS_MAX, Live

PACKAGES = ("features", "training", "serving", "pipelines")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environments.wheel(tmp_path_factory.mktemp("dist"))


def test_the_wheel_holds_what_it_needs_and_nothing_else(wheel: Path) -> None:
    """Every module of the four packages, a `py.typed` in each, the lock, and the metadata."""
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        str(file.relative_to(environments.ROOT))
        for package in PACKAGES
        for file in (environments.ROOT / package).rglob("*.py")
    }
    others = {"opportune.py", "pipelines/requirements.lock", *(f"{package}/py.typed" for package in PACKAGES)}
    metadata = {
        name
        for name in names
        if re.fullmatch(r"opportune-[\d.]+\.dist-info/(METADATA|WHEEL|RECORD|entry_points.txt|licenses/LICENSE)", name)
    }
    assert len(modules) > 100 and len(metadata) == 5
    assert names == modules | others | metadata


@pytest.mark.slow
@pytest.mark.timeout(1_500)
@pytest.mark.parametrize("version", [environments.CURRENT])  # `.ci/run` does it on every Python of the machine
def test_the_wheel_is_enough(wheel: Path, version: str, tmp_path: Path) -> None:
    """By the steps of the Containerfile `init`, `check` and `up` work, until a decision and a health check."""
    (install,) = [one.words for one in instructions() if one.text.startswith("uv pip install")]
    places = {
        "/build/requirements.lock": str(environments.ROOT / "requirements.lock"),
        "/build/opportune-*.whl": str(wheel),
    }
    arguments = [
        places.get(word, word)
        for word in install[3:]
        if word not in ("--no-cache", "--python", "/opt/opportune/bin/python")
    ]
    python = environments.environment(tmp_path / "env", *arguments, version=version)
    opportune, shop = str(python.with_name("opportune")), tmp_path / "shop"
    assert re.fullmatch(r"opportune \d+\.\d+\.\d+\n", environments.run([opportune, "--version"]).stdout)
    environments.run([opportune, "init", str(shop)])
    assert "no faults" in environments.run([opportune, "check", "-w", str(shop)]).stdout
    up_until_a_decision(python, shop)


def up_until_a_decision(python: Path, shop: Path) -> None:
    """Start it as the image does, but on a free port, ask, and stop it."""
    key, entry = new_key("frontend", ("decide",))
    keys = msgspec.json.encode([entry]).decode()
    given = dict(setting.split("=", 1) for setting in last("ENV").words)
    given |= {"PATH": f"{python.parent}:/usr/bin:/bin", "OPPORTUNE_WORKSPACE": str(shop), "OPPORTUNE_KEYS": keys}
    words = [word.replace("3000", "{port}") for word in (*last("ENTRYPOINT").words, *last("CMD").words)]
    live = Live(
        shop,
        command=("/usr/bin/env", "-C", str(shop), "-u", "PYTHONPATH", *words),
        environment=given,
        ready_seconds_max=COMPILES_SECONDS_MAX,
    ).start()
    try:
        answer = live.ask("POST", "/v1/decisions", {"customer_id": "c0001", "placement": "home"}, x_api_key=key)
        assert answer.status == 200 and len(answer.json["offers"]) == 3 and answer.json["degraded"] == []
        health = [word.replace("3000", str(live.port)) for word in last("HEALTHCHECK").words]
        environments.run([str(python), *health[1:]])
        assert "bundle" in live.said and not (shop / ".opportune" / "logs").exists(), "logs go to standard output"
        assert live.stop(signal.SIGTERM) == 0
    finally:
        live.stop()
    assert environments.run([str(python), *health[1:]], check=False).returncode != 0
