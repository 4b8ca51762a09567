"""Code that cannot be written and no home folder: how a careful operator installs a service."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from numba.core.caching import UserProvidedCacheLocator

from features.common import cache_folders
from features.common.cache_folders import NothingWritable, compiled_folder, settle
from serving.kernel import compile_cache
from tests.serving.live import COMPILES_SECONDS_MAX, ROOT, Live
from tests.trained import copy_of

HOMES = (
    "HOME",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "NUMBA_CACHE_DIR",
    "BENTOML_HOME",
)


def unprivileged() -> tuple[str, ...]:
    """What comes before a command so that permissions of files hold for it, even where the tests run as root."""
    if os.geteuid() != 0:
        return ()
    found = shutil.which("setpriv")
    if found is None:
        pytest.skip("the tests run as root, and setpriv (util-linux) is not there to give its powers up")
    return (found, "--bounding-set=-all", "--inh-caps=-all")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the code that nobody can write to, with the machine code of this tree beside it, as a package brings
    it.
    """
    folder = tmp_path_factory.mktemp("code") / "opportune"
    for package in ("features", "training", "serving", "pipelines"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    compile_cache.pack(folder)
    _allow(folder, 0o555)
    yield folder
    _allow(folder, 0o755)


def _allow(folder: Path, mode: int) -> None:
    for place, _, files in os.walk(folder):
        os.chmod(place, mode)
        for file in files:
            os.chmod(Path(place) / file, mode & 0o666)


def command(tree: Path, *words: str, **environment: str) -> tuple[list[str], dict[str, str]]:
    """A verb from the read-only tree, without a home folder, and its environment."""
    kept = {
        name: value for name, value in os.environ.items() if name not in HOMES and not name.startswith("OPPORTUNE_")
    }
    given = kept | {"HOME": "/nonexistent", "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": ""} | environment
    return [*unprivileged(), sys.executable, "-m", "pipelines.main", *words], given


def run(tree: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    line, given = command(tree, *words, **environment)
    return subprocess.run(line, cwd=tree, env=given, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.slow
@pytest.mark.timeout(1_500)
def test_it_checks_trains_and_serves(tree: Path, trained_workspace: Path, tmp_path: Path) -> None:
    """Neither code nor home can be written: `check`, `train` and `serve` work, and write nowhere but into the data
    folder.
    """
    shop = copy_of(trained_workspace, tmp_path / "shop")
    before = sorted(tree.rglob("*"))
    assert "no faults" in run(tree, "check", "-w", str(shop)).stdout
    trained = run(tree, "train", "-w", str(shop), "--no-promote", "--json")
    assert trained.returncode == 0, trained.stderr
    line, environment = command(tree, "serve", "-w", str(shop), "--port", "{port}")
    words = ("/usr/bin/env", "-C", str(tree), "-u", "XDG_CACHE_HOME", *line)
    live = Live(shop, command=words, environment=environment, ready_seconds_max=COMPILES_SECONDS_MAX).start()
    try:
        assert live.decide()["degraded"] == []
    finally:
        live.stop()
    (place,) = (shop / ".opportune" / "cache").iterdir()
    assert any(place.glob("numba/kernel_*/*.nbi")) and not place.stat().st_mode & 0o077
    assert sorted(tree.rglob("*")) == before and not Path("/nonexistent").exists()


def test_a_workspace_that_cannot_be_written(tree: Path, tmp_path: Path) -> None:
    """`check` needs no folder of the workspace; what must write there says so in one line."""
    shop = tmp_path / "shop"
    assert run(tree, "init", str(shop)).returncode == 0
    _allow(shop, 0o555)
    try:
        assert "no faults" in run(tree, "check", "-w", str(shop), TMPDIR=str(tmp_path)).stdout
        done = run(tree, "import", "-w", str(shop), TMPDIR=str(tmp_path))
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "Permission denied" in done.stderr
        assert not (shop / ".opportune").exists()
    finally:
        _allow(shop, 0o755)


def test_what_is_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that can be written are left alone; in place of others stand ones below data, else below the temporary
    folder.
    """
    for name in HOMES:
        monkeypatch.delenv(name, raising=False)
    data, home = tmp_path / "data", tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    settle(data)
    assert os.environ["HOME"] == str(home) and "NUMBA_CACHE_DIR" not in os.environ and not data.exists()
    monkeypatch.setenv("HOME", "/proc/none")
    settle(data)
    (place,) = (data / "cache").iterdir()
    assert os.environ["HOME"] == str(place / "home") and (place / "home").is_dir()
    assert "NUMBA_CACHE_DIR" not in os.environ, "the code's own folder can be written"
    (tmp_path / "file").touch()
    monkeypatch.setattr(
        cache_folders, "ROOT", tmp_path / "file"
    )  # no folder, and none can be made there: for root all others can be written
    settle(data)
    assert os.environ["NUMBA_CACHE_DIR"] == str(place / "home" / ".cache" / "opportune" / "numba"), (
        "HOME can be written by now"
    )


def test_the_temporary_folder_is_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the data folder cannot be written, a temporary one is taken, but not one that others can write to."""
    for name in HOMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cache_folders.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(cache_folders.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", "/proc/none")
    settle(Path("/proc/data"))
    own = tmp_path / f"opportune-{os.geteuid()}"
    assert os.environ["HOME"] == str(own / "home")
    shutil.rmtree(own)
    own.mkdir()
    own.chmod(0o777)
    monkeypatch.setenv("HOME", "/proc/none")
    settle(None)
    assert not os.environ["HOME"].startswith(f"{own}/") and os.environ["HOME"].startswith(str(tmp_path))
    monkeypatch.setattr(cache_folders.tempfile, "gettempdir", lambda: "/proc")
    monkeypatch.setenv("HOME", "/proc/none")
    with pytest.raises(NothingWritable, match="set HOME and NUMBA_CACHE_DIR"):
        settle(None)


def test_compiled_code_lies_where_numba_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that is computed here is the one of numba's own locator."""
    package = ROOT / "features"
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    assert compiled_folder(package) == package / "__pycache__"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert compiled_folder(package) == tmp_path / UserProvidedCacheLocator.get_suitable_cache_subpath(
        str(package / "layout.py")
    )
