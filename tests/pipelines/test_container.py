"""The Containerfile: pinned, not root, with a health check; `test_wheel.py` runs its steps."""

from __future__ import annotations

import re
from fnmatch import fnmatch

import typer.main

from pipelines.main import app
from tests.container import instructions, last
from tests.environments import ROOT


def test_images_and_tools_have_versions() -> None:
    """No image is the latest one, both stages have the same, and uv is the version of the lock."""
    images = [one.words[0] for one in instructions() if one.name == "FROM"]
    assert len(images) == 2 and len(set(images)) == 1
    assert all(re.search(r":\d+\.\d+[\w.-]*$", image) for image in images)
    installed = re.findall(r"pip install .*\buv==([\d.]+)", (ROOT / "Containerfile").read_text())
    locked = re.findall(r"^uv==([\d.]+) ", (ROOT / "requirements.lock").read_text(), re.M)
    assert len(installed) == 1 and installed == locked


def test_it_runs_as_nobody_in_particular() -> None:
    """The user has a number that is not root's, owns the volume, and the process gets SIGTERM."""
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", last("USER").text)
    user, group = last("USER").text.split(":")
    assert f"RUN install -d -o {user} -g {group} {last('VOLUME').text}" in (ROOT / "Containerfile").read_text()
    assert last("STOPSIGNAL").text == "SIGTERM" and last("WORKDIR").text == last("VOLUME").text


def test_what_is_copied_is_not_ignored() -> None:
    """The context holds what the file copies from it, and nothing else."""
    kept = [
        line.removeprefix("!") for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")
    ]
    copied = [
        word for one in instructions() if one.name == "COPY" and "--from" not in one.text for word in one.words[:-1]
    ]
    assert sorted(copied) == sorted(kept) and any(fnmatch("dist/opportune-0.1.0-py3-none-any.whl", one) for one in kept)


def test_its_command_exists() -> None:
    """The entry point with its words is a verb of ours with options that it has, and listens where the health check
    asks.
    """
    program, verb, *words = [*last("ENTRYPOINT").words, *last("CMD").words]
    known = {name for parameter in typer.main.get_command(app).commands[verb].params for name in parameter.opts}  # type: ignore[attr-defined]
    assert program == "opportune" and {word for word in words if word.startswith("--")} <= known
    port = words[words.index("--port") + 1]
    assert f"127.0.0.1:{port}/readyz" in last("HEALTHCHECK").text and last("EXPOSE").text == port
