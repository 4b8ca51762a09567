"""A package index on this machine, with tiny wheels made by hand, and a checkout that locks some of them."""

from __future__ import annotations

import functools
import hashlib
import http.server
import shutil
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

BACKEND = '''
"""Build this project as an editable wheel that holds nothing but its name."""

import zipfile


def build_editable(folder, config_settings=None, metadata_directory=None):
    """Write the wheel and return its name."""
    name, info = "tiny-0.1-py3-none-any.whl", "tiny-0.1.dist-info"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        metadata = "Metadata-Version: 2.1\\nName: tiny\\nVersion: 0.1\\nRequires-Dist: alpha\\n"
        wheel.writestr(f"{info}/METADATA", metadata)
        tags = "Wheel-Version: 1.0\\nGenerator: hand\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr(f"{info}/WHEEL", tags)
        wheel.writestr(f"{info}/RECORD", f"{info}/METADATA,,\\n{info}/WHEEL,,\\n{info}/RECORD,,\\n")
    return name
'''
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "tiny"
version = "0.1"
requires-python = ">=3.11,<3.15"
dependencies = ["alpha"]
"""


def write_wheel(folder: Path, name: str, version: str, *requires: str, extras: tuple[str, ...] = ()) -> Path:
    """Write a wheel of a module that knows its version, and return its path."""
    info = f"{name}-{version}.dist-info"
    headers = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    headers += [f"Provides-Extra: {extra}" for extra in extras] + [f"Requires-Dist: {text}" for text in requires]
    files = {
        f"{name}.py": f'version = "{version}"\n',
        f"{info}/METADATA": "\n".join(headers) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    wheel = folder / name / f"{name}-{version}-py3-none-any.whl"
    wheel.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))
    return wheel


def write_index(folder: Path) -> list[Path]:
    """Write what was locked, and what was released since, as case I1 found it; return the wheels that the lock is of.

    `alpha` needs an extra of `beta`. A newer `beta` came out, whose extra brings one more package, and newer ones of
    the others.
    """
    locked = [
        write_wheel(folder, "alpha", "1.0", "beta[fast]>=1.0"),
        write_wheel(folder, "beta", "1.0", 'gamma>=1.0; extra == "fast"', extras=("fast",)),
        write_wheel(folder, "gamma", "1.0"),
    ]
    write_wheel(folder, "alpha", "2.0", "beta[fast]>=2.0")
    write_wheel(folder, "beta", "2.0", 'gamma>=2.0; extra == "fast"', 'delta; extra == "fast"', extras=("fast",))
    write_wheel(folder, "gamma", "2.0")
    write_wheel(folder, "delta", "1.0")
    return locked


def write_lock(file: Path, wheels: list[Path]) -> None:
    """Pin these wheels with their hashes."""
    lines = []
    for wheel in wheels:
        name, version, *_ = wheel.name.split("-")
        lines.append(f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    file.write_text("".join(lines))


def write_checkout(folder: Path, wheels: list[Path]) -> Path:
    """Write a checkout with our own Makefile and scripts, a project of its own and a lock of these wheels."""
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Makefile", folder / "Makefile")
    (folder / "backend.py").write_text(BACKEND)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    write_lock(folder / "requirements.lock", wheels)
    return folder


class _Handler(http.server.SimpleHTTPRequestHandler):
    held: threading.Event | None = None
    asked: threading.Event

    def do_GET(self) -> None:
        if self.path.endswith(".whl") and self.held is not None:
            self.asked.set()
            self.held.wait(60)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the standard library's
        pass


class Index:
    """An index that is being served: its address, and a way to hold back the files that are asked for."""

    def __init__(self, port: int, handler: type[_Handler]) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self._handler = handler

    @contextmanager
    def holding(self) -> Iterator[threading.Event]:
        """Answer no request for a wheel inside the block; the event tells that one was asked for."""
        self._handler.held, self._handler.asked = threading.Event(), threading.Event()
        try:
            yield self._handler.asked
        finally:
            self._handler.held.set()
            self._handler.held = None


@contextmanager
def serving(folder: Path) -> Iterator[Index]:
    """Serve a folder with a sub-folder a package, as `pip --index-url` reads it, on loopback."""
    handler = type("Handler", (_Handler,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Index(server.server_address[1], handler)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
