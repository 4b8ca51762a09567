"""The files of a workspace as a running server reads them again, without a server: what is taken, what is refused and
why.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.validation.load import FILES, load
from features.workspace.workspace import Workspace
from serving.hub.hub import digest_of
from serving.reload.config_files import read_again, stamp_of
from serving.reload.reloader import CONFIG, Reloader
from tests.serving.live import serving_copy


@pytest.fixture
def folder(trained_workspace: Path, tmp_path: Path) -> Path:
    return serving_copy(trained_workspace, tmp_path / "shop")


def changed(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Write a file anew as it is after a change."""
    file = folder / name
    file.write_text(yaml.safe_dump(change(yaml.safe_load(file.read_text())), sort_keys=False))


# Files
# --------------------------------------------------------------------------------------------------------------------


def test_a_stamp_tells_every_change(folder: Path) -> None:
    """Another time, another size, another file in its place, and a file that is gone or back change the stamp; reading
    does not.
    """
    workspace, file = load(folder, sources=False), folder / "policies.yaml"
    content, status, stamps = file.read_bytes(), file.stat(), [stamp_of(load(folder, sources=False))]

    def and_now() -> None:
        assert stamp_of(workspace) not in stamps
        stamps.append(stamp_of(workspace))

    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    and_now()
    file.write_bytes(content + b"\n")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    and_now()
    (folder / "other").write_bytes(content)
    os.utime(folder / "other", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(folder / "other", file)
    and_now()
    file.unlink()
    and_now()
    assert len(stamps) == 5


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("workspace.yaml", lambda file: file | {"name": "another"}, "name"),
        ("workspace.yaml", lambda file: file | {"data": "elsewhere"}, "data"),
        ("workspace.yaml", lambda file: file | {"stores": {"online": {"url": "redis://localhost:1"}}}, "stores"),
        (
            "features.yaml",
            lambda file: file | {"columns": file["columns"] | {"more": file["columns"]["calls"]}},
            "the columns",
        ),
    ],
)
def test_what_takes_a_restart_is_refused(folder: Path, name: str, change: Callable[[Any], Any], what: str) -> None:
    """What a server was built on is refused with what changed and the way out."""
    serving = load(folder, sources=False)
    changed(folder, name, change)
    refused = read_again(serving)
    assert isinstance(refused, str) and refused.startswith(what) and "restart the server" in refused


def test_all_else_is_taken(folder: Path) -> None:
    """What decides may change while a server runs, in whichever file it stands, and each change is another digest."""
    serving = load(folder, sources=False)
    digests = [digest_of(serving)]
    for name, change in (
        ("policies.yaml", lambda file: file | {"arbitration": {"offers": {"offer-01": 2}}}),
        ("offers.yaml", lambda file: file | {"group": "topic"}),
        ("workspace.yaml", lambda file: file | {"time_zone": "Asia/Tokyo"}),
        ("workspace.yaml", lambda file: file | {"serving": {"answer_valid": "1m"}}),
        (
            "features.yaml",
            lambda file: file | {"context": file["context"] | {"hour": {"dtype": "number", "maximum": 23}}},
        ),
    ):
        changed(folder, name, change)  # type: ignore[arg-type]
        taken = read_again(serving)
        assert isinstance(taken, Workspace), taken
        digests.append(digest_of(taken))
    (folder / "policies.yaml").unlink()
    taken = read_again(serving)
    assert isinstance(taken, Workspace) and not taken.policies.rules, "a file that may be absent is as good as empty"
    assert len({*digests, digest_of(taken)}) == 7
    changed(folder, "model.yaml", lambda file: file | {"rounds_max": 70})
    again = read_again(serving)
    assert isinstance(again, Workspace) and digest_of(again) == digest_of(taken), (
        "what decides nothing is not part of it"
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_file_breaks_the_reading(trained_workspace: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Whatever is cut out of a file or put into it, reading gives a workspace that loads, or a reason; it never
    raises.
    """
    folder = tmp_path / "torn"
    if not folder.exists():
        folder.mkdir()
        for file in trained_workspace.glob("*.yaml"):
            shutil.copy(file, folder)
    serving = load(folder, sources=False)
    name = data.draw(st.sampled_from(sorted(FILES)))
    content = (folder / name).read_bytes() if (folder / name).exists() else b""
    begin = data.draw(st.integers(0, len(content)))
    end = data.draw(st.sampled_from([begin, len(content)]) | st.integers(begin, min(len(content), begin + 40)))
    junk = data.draw(
        st.sampled_from(
            [b"", b"- ", b"{", b"? ", b"&a *a", b"!!int x", b"\xff", b"\0", b"[" * 500, b": :", b"when: 1 <\n"]
        )
    )
    try:
        (folder / name).write_bytes(content[:begin] + junk + content[end:])
        found = read_again(serving)
        assert isinstance(found, Workspace) or found
    finally:
        (folder / name).write_bytes(content)


# The desk
# -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(folder: Path) -> Iterator[Reloader]:
    made = Reloader(load(folder, sources=False))
    made.load()
    yield made
    made.close()


def digest(desk: Reloader) -> str:
    assert desk.loaded is not None
    return desk.loaded.hub.config


def looks(desk: Reloader, times: int = 2) -> str:
    """What serves after some looks."""
    for _ in range(times):
        asyncio.run(desk.look())
    return digest(desk)


def test_a_file_is_read_when_it_was_left_alone(desk: Reloader, folder: Path) -> None:
    """A file that is written piece by piece, each valid by itself, is not read in between, but at the second look after
    the last.
    """
    before = looks(desk)
    with (folder / "policies.yaml").open("w") as file:
        for piece in (
            "rules:\n",
            "  one: {when: customer.monthly_fee > 1}\n",
            "  two: {when: customer.monthly_fee > 2}\n",
        ):
            file.write(piece)
            file.flush()
            assert looks(desk, 1) == before
    after = looks(desk, 1)
    assert after != before and after == digest_of(load(folder, sources=False))
    assert desk.loaded is not None and set(desk.loaded.workspace.policies.rules) == {"one", "two"}


def test_a_broken_file_is_refused_once_and_mended(
    desk: Reloader, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that cannot be used is refused once, with its reason; the same content as before is no news; a better one
    is taken.
    """
    refused: list[str] = []
    desk.on_refusal, good, content = refused.append, digest(desk), (folder / "policies.yaml").read_text()
    (folder / "policies.yaml").write_text("rules: {a: {when: customer.nothing > 1}}")
    with caplog.at_level(logging.ERROR, "opportune.desk"):
        assert looks(desk, 5) == good
    assert refused == [CONFIG] and len(caplog.records) == 1 and "customer.nothing" in caplog.text
    loaded = desk.loaded
    (folder / "policies.yaml").write_text(content + "# mended\n")
    assert looks(desk) == good and desk.loaded is loaded
    (folder / "policies.yaml").unlink()
    assert looks(desk) != good and refused == [CONFIG]


def test_what_changes_while_it_is_read_is_read_again(
    desk: Reloader, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change between the reading of two files is not taken for one set: the next look reads both again."""
    before = digest(desk)

    def read_slowly(workspace: Workspace) -> Workspace | str:
        found = read_again(workspace)
        changed(folder, "offers.yaml", lambda file: file | {"category": "topic"})
        monkeypatch.undo()
        return found

    (folder / "policies.yaml").unlink()
    monkeypatch.setattr("serving.reload.reloader.read_again", read_slowly)
    assert looks(desk, 2) == before
    assert looks(desk, 2) == digest_of(load(folder, sources=False))


def test_files_that_fit_no_bundle_are_refused(desk: Reloader, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files that are right by themselves but want another bundle are refused; the next that fit are taken."""
    refused: list[str] = []
    desk.on_refusal, good, content = refused.append, digest(desk), (folder / "features.yaml").read_text()
    changed(folder, "features.yaml", lambda file: file | {"context": file["context"] | {"mood": {"dtype": "category"}}})
    with caplog.at_level(logging.ERROR, "opportune.desk"):
        assert looks(desk, 4) == good and refused == [CONFIG]
    assert "what the files say is refused" in caplog.text and "`opportune train`" in caplog.text
    (folder / "features.yaml").write_text(content)
    (folder / "policies.yaml").unlink()
    assert looks(desk) not in (good, "") and refused == [CONFIG]
