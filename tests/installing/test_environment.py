"""The environment is what the lock says, whatever was released since, with uv and with every pip of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import environment
import package_sources
import pytest

from tests import environments
from tests.installing import index, pythons
from tests.installing.environment_cases import make, served, variables

__all__ = ["served"]

LOCKED = {"alpha": "1.0", "beta": "1.0", "gamma": "1.0", "tiny": "0.1"}
SUPPORTED = ("python3.11", "python3.12", "python3.13", "python3.14")
HERE = next(name for name in SUPPORTED if name == "python{}.{}".format(*sys.version_info))
OLD_PIPS = ("22.3", "23.0.1")
"""Of Python 3.11.0 and of Debian 12."""


@pytest.fixture(scope="session")
def uv() -> str:
    """The pinned uv, which this environment has."""
    return environments.uv()


def installed(checkout: Path, folder: str = ".venv") -> dict[str, str]:
    """What the environment holds."""
    ask = "import importlib.metadata as m; print(*(f'{d.name}={d.version}' for d in m.distributions()))"
    told = subprocess.run(
        [checkout / folder / "bin/python", "-I", "-c", ask], capture_output=True, text=True, check=True
    )
    return dict(pair.split("=") for pair in told.stdout.split())


def test_uv_installs_the_lock_and_nothing_else(served: tuple[Path, index.Index], uv: str) -> None:
    """With uv the environment holds what was locked, though each package has a newer release and an extra brings
    another one.
    """
    checkout, _ = served
    told = make(checkout, f"INSTALLER={uv}", f"PYTHON={sys.executable}")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "pip does" not in told.stdout
    assert installed(checkout) == LOCKED
    again = make(checkout, f"INSTALLER={uv}", f"PYTHON={sys.executable}")
    assert (again.returncode, again.stdout) == (0, "")


@pytest.mark.parametrize("name", SUPPORTED)
def test_the_pip_of_each_python_installs_the_lock_and_nothing_else(served: tuple[Path, index.Index], name: str) -> None:
    """With the pip that a supported Python brings the environment holds what was locked, where uv cannot be had."""
    if name not in pythons.pythons():
        pytest.skip(f"no {name} on this machine")
    checkout, _ = served
    told = make(checkout, f"PYTHON={pythons.pythons()[name]}")  # the index has no uv
    assert told.returncode == 0, told.stdout + told.stderr
    assert "uv cannot install here, so pip does" in told.stdout
    assert installed(checkout) == LOCKED


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment for old pips."""
    folder = tmp_path_factory.mktemp("old")
    subprocess.run([sys.executable, "-I", "-m", "venv", folder], check=True)
    return folder / "bin/python"


@pytest.mark.parametrize("version", OLD_PIPS)
def test_old_pips_install_the_lock_where_the_plain_command_fails(
    served: tuple[Path, index.Index], old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """An old pip fails on the lock as it was called before, and installs it as it is called now."""
    checkout, local = served
    if version == OLD_PIPS[0] and sys.version_info >= (3, 12):
        pytest.skip(f"pip {version} does not run on this Python, whose own is newer")
    if subprocess.run([old, "-m", "pip", "install", "--quiet", f"pip=={version}"], check=False).returncode != 0:
        pytest.skip(f"no registry: pip {version} cannot be fetched")
    settings = {"index-url": local.url}
    plain = [
        old,
        "-m",
        "pip",
        "install",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "-r",
        checkout / "requirements.lock",
    ]
    before = subprocess.run(plain, env=package_sources.for_pip(settings), capture_output=True, text=True, check=False)
    assert before.returncode != 0
    assert "In --require-hashes mode" in before.stderr
    for name, value in {"ROOT": checkout, "LOCK": checkout / "requirements.lock"}.items():
        monkeypatch.setattr(environment, name, value)
    monkeypatch.setattr(environment, "OWN", ["--no-deps", "--no-build-isolation", "--editable", str(checkout)])
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", tmp_path / "new"], check=True)
    environment.install_with_pip([str(old), "-I", "-m", "pip", "--python", str(tmp_path / "new/bin/python")], settings)
    assert installed(tmp_path, "new") == LOCKED


def test_a_uv_that_does_not_run_leaves_the_work_to_pip(served: tuple[Path, index.Index]) -> None:
    """A uv that ends with an error costs a line, not the environment."""
    checkout, _ = served
    told = make(checkout, "INSTALLER=/bin/false", f"PYTHON={sys.executable}")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "uv cannot install here, so pip does" in told.stdout
    assert installed(checkout) == LOCKED


def test_a_file_with_another_hash_is_refused_by_both(served: tuple[Path, index.Index], uv: str) -> None:
    """A wheel whose hash is not the locked one is installed neither by uv nor by pip."""
    checkout, _ = served
    index.write_wheel(checkout.parent / "simple", "gamma", "1.0", "delta")
    told = make(checkout, f"INSTALLER={uv}", f"PYTHON={sys.executable}")
    assert told.returncode != 0
    assert "what requirements.lock pins could not be installed" in told.stderr
    assert not (checkout / ".venv/.complete").read_text()


def test_a_dependency_that_the_lock_misses_is_told(served: tuple[Path, index.Index], uv: str) -> None:
    """Where pyproject.toml or a package asks for what the lock does not have, the environment is refused with the way
    out.
    """
    checkout, _ = served
    index.write_lock(
        checkout / "requirements.lock",
        [checkout.parent / f"simple/{n}/{n}-1.0-py3-none-any.whl" for n in ("alpha", "gamma")],
    )
    told = make(checkout, f"INSTALLER={uv}", f"PYTHON={sys.executable}")
    assert told.returncode != 0
    assert "beta" in told.stderr
    assert "`make lock` pins again" in told.stderr


def test_an_interrupted_environment_is_made_again(served: tuple[Path, index.Index], uv: str) -> None:
    """An environment whose making was ended halfway, downloads running, is noticed and made again from the start."""
    checkout, local = served
    command = ["make", "--no-print-directory", "env", f"INSTALLER={uv}", f"PYTHON={sys.executable}"]
    with local.holding() as asked:
        started = subprocess.Popen(
            command,
            cwd=checkout,
            env=variables(checkout),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert asked.wait(60)
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
    (checkout / ".venv/left").write_text("from before")
    told = make(checkout, f"INSTALLER={uv}", f"PYTHON={sys.executable}")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "not complete; making it again" in told.stdout
    assert installed(checkout) == LOCKED
    assert not (checkout / ".venv/left").exists()


def test_another_python_or_lock_makes_the_environment_again(served: tuple[Path, index.Index], uv: str) -> None:
    """PYTHON=… of another version, and another lock, are never answered by the environment that is there."""
    checkout, _ = served
    other = next((name for name in SUPPORTED if name in pythons.pythons() and name != HERE), None)
    assert make(checkout, f"INSTALLER={uv}", f"PYTHON={sys.executable}").returncode == 0
    if other:
        told = make(checkout, f"INSTALLER={uv}", f"PYTHON={pythons.pythons()[other]}")
        assert told.returncode == 0, told.stdout + told.stderr
        assert "of something else; making it again" in told.stdout
        assert (checkout / ".venv/lib" / other).is_dir()
        assert not (checkout / ".venv/lib" / HERE).exists()
    wheels = [
        checkout.parent / f"simple/{name}/{name}-{v}-py3-none-any.whl"
        for name, v in (("alpha", "1.0"), ("beta", "1.0"), ("gamma", "2.0"))
    ]
    index.write_lock(checkout / "requirements.lock", wheels)
    assert make(checkout, f"INSTALLER={uv}", f"PYTHON={sys.executable}").returncode == 0
    assert installed(checkout) == LOCKED | {"gamma": "2.0"}


def test_a_folder_that_is_no_environment_is_left_alone(served: tuple[Path, index.Index]) -> None:
    """VENV=… that names somebody's folder is refused, and the folder is as it was."""
    checkout, _ = served
    (checkout / "mine").mkdir()
    (checkout / "mine/diary.txt").write_text("dear diary")
    told = make(checkout, "VENV=mine", f"PYTHON={sys.executable}")
    assert told.returncode != 0
    assert "expected an environment" in told.stderr
    assert [file.name for file in (checkout / "mine").iterdir()] == ["diary.txt"]


def test_what_is_set_for_pip_holds_for_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes, folders, proxies, certificates and time limits reach uv from pip's files and variables; nothing else of
    pip does.
    """
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = http://one.test/\nextra-index-url =\n    http://two.test/\n   "
        " http://three.test/\ntimeout = 7.5\nconstraint = c.txt\ntarget = /nowhere\nno-binary ="
        f" :all:\n[install]\nindex-url = http://four.test/\nfind-links = {tmp_path / 'wheels'}"
        f" {tmp_path / 'absent'}\n[freeze]\ntimeout = 99\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("PIP_CERT", "/ca.pem")
    monkeypatch.setenv("PIP_REQUIRE_VIRTUALENV", "1")
    monkeypatch.setenv("UV_CONSTRAINT", "u.txt")
    pip = environment.pip_for(sys.executable, sys._base_executable, tmp_path)  # type: ignore[attr-defined]
    settings = package_sources.read_settings(pip)
    options, variables = package_sources.for_uv(settings)
    pairs = list(zip(options[::2], options[1::2], strict=True))
    assert ("--default-index", "http://four.test/") in pairs
    assert [value for option, value in pairs if option == "--index"] == ["http://two.test/", "http://three.test/"]
    assert [value for option, value in pairs if option == "--find-links"] == [str(tmp_path / "wheels")]
    assert {option for option, _ in pairs} == {"--index-strategy", "--default-index", "--index", "--find-links"}
    assert {
        name: variables.get(name) for name in ("SSL_CERT_FILE", "HTTPS_PROXY", "UV_HTTP_TIMEOUT", "UV_CONSTRAINT")
    } == {
        "SSL_CERT_FILE": "/ca.pem",
        "HTTPS_PROXY": "http://proxy.test:3128",
        "UV_HTTP_TIMEOUT": "7",
        "UV_CONSTRAINT": None,
    }
    own = package_sources.for_pip(settings)
    assert own["PIP_INDEX_URL"] == "http://four.test/"
    assert not {"PIP_CONSTRAINT", "PIP_TARGET", "PIP_NO_BINARY", "PIP_REQUIRE_VIRTUALENV"} & own.keys()
