"""Make the environment of this checkout: a supported Python, and exactly the packages that requirements.lock pins.

It runs before there is an environment, so it needs nothing but the standard library of the Python that starts it (3.8
or newer); the Python that the environment is made of is another question, and may be another one.

    python3 scripts/environment.py make [--folder .venv] [--python python3.12] [--installer pip|/path/to/uv]
    python3 scripts/environment.py lock [--upgrade]

uv installs, pip does where uv cannot be had or does not run. Both take what the lock names, by hash, as wheels, and
resolve nothing (`--no-deps`), so that no later release can change the outcome; a check of all dependencies follows.
Both use the indexes, folders, proxies and certificates that are set for pip, in files or in the environment, and no
other setting of pip or uv.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from interpreters import PROJECT, Refused, choose, supported
from package_sources import clean, for_pip, for_uv, read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
LOCK, SERVE_LOCK = ROOT / "requirements.lock", ROOT / "requirements-serve.lock"
SERVE_PROJECT = "distributions/serve/pyproject.toml"
STAMP = ".complete"
"""File in the environment that says what it was made of; written last, so that one whose making was interrupted has
none.
"""
WHEELS = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
OWN = ["--no-index", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)]

LOADS = """
import ctypes, importlib.util, pathlib
found = importlib.util.find_spec("lightgbm")
for file in pathlib.Path(found.origin).parent.glob("lib/lib_lightgbm.*") if found else ():
    ctypes.CDLL(str(file))
"""


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"environment: {text}", flush=True)


@contextmanager
def alone() -> Iterator[None]:
    """Make no two environments of one checkout at a time: a second `make` waits for the first."""
    with LOCK.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another make is at it; waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            pass
        yield


def run(command: list[str], environment: dict[str, str], *, quiet: bool = False, hidden: bool = False) -> bool:
    """Run a command to its end and return whether it succeeded; its output is shown, on failure alone (quiet), or never
    (hidden).
    """
    try:
        told = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=quiet or hidden, cwd=ROOT, check=False
        )
    except OSError as error:
        say(f"{command[0]}: {error.strerror}")
        return False
    if quiet and told.returncode != 0:
        sys.stderr.buffer.write(told.stdout + told.stderr)
    return told.returncode == 0


def remove(folder: Path) -> None:
    """Remove an environment.

    Raises:
        Refused: the folder is something else, which somebody may miss.
    """
    if folder.exists():
        if not ((folder / "pyvenv.cfg").exists() or (folder / STAMP).exists()) and any(
            path.is_file() for path in folder.rglob("*")
        ):
            raise Refused(
                f"expected an environment in {folder}, got a folder with other files: remove it, or name another with"
                " VENV=…"
            )
        shutil.rmtree(folder)


def pip_for(target: str, python: str, scratch: Path) -> list[str]:
    """Return the command of a pip that works on the Python `target`, which needs none: the one of `python`, or that
    one's new one.

    The option `--python` came with pip 22.3, which Python 3.11.0 brings.
    """
    pip = [python, "-I", "-m", "pip", "--python", target]
    if run([*pip, "--version"], clean(), hidden=True):
        return pip
    if not run([python, "-I", "-m", "venv", str(scratch / "pip")], clean(), quiet=True):
        raise Refused(f"`{python}` can make no environment with pip; what it said stands above")
    return [str(scratch / "pip/bin/python"), *pip[1:]]


def fetch_uv(pip: list[str], settings: dict[str, str], python: str) -> str:
    """Install the uv that the lock pins, by pip, and return its path; empty where there is none for this machine."""
    pinned = re.search(r"^uv==(?:.*\\\n)*.*$", LOCK.read_text(encoding="utf-8"), re.M)
    if not pinned:
        return ""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(f"{pinned[0]}\n")
        file.flush()
        fetched = run([*pip, "install", "--no-compile", *WHEELS, "--requirement", file.name], for_pip(settings))
    return str(Path(python).with_name("uv")) if fetched else ""


def install_with_uv(uv: str, python: str, settings: dict[str, str]) -> bool:
    """Install what the lock names, and this checkout, editable; False where uv does not run or did not succeed."""
    options, variables = for_uv(settings)
    start = [uv, "pip", "install", "--python", python]
    if not (
        uv
        and run([uv, "--version"], clean(), quiet=True)
        and run([*start, *WHEELS, *options, "--requirement", str(LOCK)], variables)
    ):
        say("uv cannot install here, so pip does (a few minutes)")
        return False
    return run([*start, "--quiet", *OWN], variables) and _checked(
        run([uv, "pip", "check", "--quiet", "--python", python], variables)
    )


def install_with_pip(pip: list[str], settings: dict[str, str]) -> None:
    """Do the same with pip.

    Raises:
        Refused: it did not succeed; pip has said why.
    """
    start, variables = [*pip, "install", "--no-compile"], for_pip(settings)
    if not run([*start, *WHEELS, "--requirement", str(LOCK)], variables):
        raise Refused(
            f"what {LOCK.name} pins could not be installed; why stands above. Indexes, proxies and certificates are"
            " those of pip"
        )
    if not run([*start, "--quiet", *OWN], variables):
        raise Refused(f"this checkout could not be installed from what {LOCK.name} pins; why stands above")
    _checked(run([*pip, "check"], variables, quiet=True))


def _checked(fits: bool) -> bool:
    if not fits:
        raise Refused(f"{LOCK.name} and {PROJECT.name} do not fit each other; how stands above. `make lock` pins again")
    return True


def make(folder: Path, asked: str, installer: str) -> None:
    """Make the environment if it is not there, not whole, or made of something else."""
    python = choose(asked)
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (LOCK, PROJECT)]
    stamp = "\n".join([str(folder), python.path, python.version, *digests])
    with alone():
        try:
            had = (folder / STAMP).read_text(encoding="utf-8")
        except OSError:
            had = ""
        if had == stamp:
            return
        started = time.monotonic()
        if folder.exists():
            say(f"the one in {folder.name} is {'of something else' if had else 'not complete'}; making it again")
            remove(folder)
        say(f"Python {python.version} ({python.command}) and what {LOCK.name} pins, into {folder.name}")
        folder.mkdir(parents=True)
        (folder / STAMP).write_text("", encoding="utf-8")
        if not run([python.path, "-I", "-m", "venv", "--without-pip", str(folder)], clean(), quiet=True):
            raise Refused(f"`{python.command}` can make no environment in {folder}; what it said stands above")
        inside = str(folder / "bin/python")
        with tempfile.TemporaryDirectory() as scratch:
            pip = pip_for(inside, python.path, Path(scratch))
            settings = read_settings(pip)
            uv = installer or fetch_uv(pip, settings, inside)
            if installer == "pip" or not install_with_uv(uv, inside, settings):
                install_with_pip(pip, settings)
        if not run([inside, "-I", "-c", LOADS], clean(), quiet=True):
            raise Refused(
                "LightGBM does not load; if libgomp is missing: apt-get install libgomp1, dnf install libgomp, brew"
                " install libomp"
            )
        (folder / STAMP).write_text(stamp, encoding="utf-8")
        say(f"ready in {time.monotonic() - started:.0f} s")


def lock(asked: str, more: list[str]) -> None:
    """Pin again what pyproject.toml asks for, and of it what the server alone needs, for every supported Python and
    platform.
    """
    python = choose(asked)
    with tempfile.TemporaryDirectory() as scratch:
        inside = f"{scratch}/bin/python"
        if not run([python.path, "-I", "-m", "venv", "--without-pip", scratch], clean(), quiet=True):
            raise Refused(f"`{python.command}` can make no environment in {scratch}; what it said stands above")
        pip = pip_for(inside, python.path, Path(scratch))
        # An index beside the main one may lack files of other platforms.
        settings = {
            name: value for name, value in read_settings(pip).items() if name not in ("extra-index-url", "find-links")
        }
        uv = fetch_uv(pip, settings, inside)
        if not uv:
            raise Refused("only uv can pin for every platform, and it cannot be had here: pin on another machine")
        options, variables = for_uv(settings)
        variables["UV_CUSTOM_COMPILE_COMMAND"] = "make lock"
        start = [
            uv,
            "pip",
            "compile",
            "--quiet",
            "--universal",
            "--generate-hashes",
            "--no-emit-index-url",
            "--python",
            inside,
            *options,
        ]
        start += ["--python-version", "{}.{}".format(*supported()[-1])]
        whole = [PROJECT.name, "--extra", "test", *more]
        for words, target in ((whole, LOCK), ([SERVE_PROJECT, "--constraints", LOCK.name], SERVE_LOCK)):
            if not run([*start, *words, "--output-file", target.name], variables):
                raise Refused(f"{target.name} could not be pinned again; why stands above")
    for target in (LOCK, SERVE_LOCK):
        print(
            f"{target.name}: {len(re.findall(r'^[A-Za-z0-9].*==', target.read_text(encoding='utf-8'), re.M))} packages"
        )


def main() -> NoReturn:
    """Run the command; what can be expected to go wrong is said in one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["make", "lock"])
    parser.add_argument("--folder", default=".venv", help="folder of the environment")
    parser.add_argument("--python", default="", help="Python to make it of; the newest supported one if none is named")
    parser.add_argument("--installer", default="", help="`pip`, or the path of a uv, instead of the pinned uv")
    options, more = parser.parse_known_args()
    try:
        if options.what == "lock":
            lock(options.python, more)
        else:
            make(ROOT / options.folder, options.python, options.installer)
    except (Refused, OSError) as error:
        sys.exit(f"environment: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


if __name__ == "__main__":
    main()
