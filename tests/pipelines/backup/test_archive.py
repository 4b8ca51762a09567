"""Files that are no backup, no longer one, or a hostile one are refused, and write nowhere."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.backup.archive import MANIFEST, BackupManifest, BadBackup, is_safe, read, write
from pipelines.backup.contents import Contents
from pipelines.backup.restore import restore

EMPTY = Contents({}, 0, 0, 0, 0, 0, 0, None, None)


def small(folder: Path, name: str = "small.tar") -> Path:
    """An archive of two files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a").write_bytes(b"0123456789" * 30)
    members = [("data/a", folder / "a"), ("data/b/c", folder / "a")]
    write(folder / name, members, lambda made: BackupManifest(1, "small", 0, {}, EMPTY, {}, made), lambda *_: None)
    return folder / name


@pytest.mark.parametrize("ending", ["tar", "tar.zst", "tar.gz"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_is_noticed(tmp_path: Path, ending: str, data: st.DataObject) -> None:
    """A file that was cut, or of which a byte changed anywhere, is refused, or gives exactly what it gave before."""
    file = tmp_path / f"small.{ending}"
    if not file.exists():
        small(tmp_path, file.name)
    good, expected = file.read_bytes(), read(file)
    place = data.draw(st.integers(0, len(good) - 1))
    bad = good[:place]
    if data.draw(st.booleans()):
        bad += bytes([good[place] ^ data.draw(st.integers(1, 255))]) + good[place + 1 :]
    (tmp_path / "bad").write_bytes(bad)
    try:
        assert read(tmp_path / "bad") == expected
    except BadBackup as refused:
        assert "\n" not in str(refused)


def hostile(folder: Path, *heads: tarfile.TarInfo, more: bytes = b"") -> Path:
    """An archive with members of any kind and a manifest that names them all."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "hostile.tar", "w") as tar:
        for head in heads:
            head.size = len(more) if head.type == tarfile.REGTYPE else 0
            tar.addfile(head, io.BytesIO(more))
        manifest = BackupManifest(1, "hostile", 0, {}, EMPTY, {}, [])
        body = msgspec.json.encode(manifest)
        head = tarfile.TarInfo(MANIFEST)
        head.size = len(body)
        tar.addfile(head, io.BytesIO(body))
    return folder / "hostile.tar"


def heads() -> Iterator[tarfile.TarInfo]:
    for name in (
        "../x",
        "data/../../x",
        "/tmp/x",
        "data//x",
        "data",
        "x",
        "data/.",
        "workspace/.git/hooks/post-commit",
        "data/a\nb",
        "data/" + "a" * 2_000,
    ):
        yield tarfile.TarInfo(name)
    for kind in (
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
        tarfile.CONTTYPE,
    ):
        head = tarfile.TarInfo("data/x")
        head.type, head.linkname = kind, "/etc/passwd"
        yield head


def test_a_hostile_archive_writes_nowhere(tmp_path: Path) -> None:
    """Names that lead out, links, devices, and files that the manifest does not name: refused, and nothing is left of
    them.
    """
    for number, head in enumerate(heads()):
        file = hostile(tmp_path / "made" / str(number), head)
        with pytest.raises(BadBackup, match="expected"):
            restore(file, tmp_path / "target" / "deep")
        assert not (tmp_path / "target" / "deep").exists() and not (tmp_path / "x").exists(), head.name
    file = hostile(tmp_path / "made" / "more", tarfile.TarInfo("data/x"))
    with pytest.raises(BadBackup, match="got one that it does not name at 'data/x'"):
        restore(file, tmp_path / "target" / "deep")
    assert (
        not is_safe("data/..")
        and is_safe("data/day=2026-11-30/shipped-1.parquet")
        and is_safe("workspace/Ünï code/a b.csv")
    )


def test_an_archive_that_is_larger_than_the_disk(tmp_path: Path) -> None:
    """Sizes that no disk or memory has are refused before anything of that size is read: of a file, and of a header."""
    file = small(tmp_path)
    big = tarfile.TarInfo("data/big")
    big.size = 1 << 60
    (tmp_path / "big.tar").write_bytes(big.tobuf(tarfile.GNU_FORMAT) + file.read_bytes())
    with pytest.raises(BadBackup, match="bytes free on the disk"):
        restore(tmp_path / "big.tar", tmp_path / "target")
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    (tmp_path / "header.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + file.read_bytes())
    with pytest.raises(BadBackup, match="got a header of"):
        read(tmp_path / "header.tar")


def test_files_that_are_something_else(tmp_path: Path) -> None:
    """Nothing, a text, another archive, a later format: each is refused with what was expected."""
    for content_ in (b"", b"no archive", b"\x28\xb5\x2f\xfd nothing", b"\x1f\x8b nothing"):
        (tmp_path / "x").write_bytes(content_)
        with pytest.raises(BadBackup, match="expected"):
            read(tmp_path / "x")
    file = small(tmp_path)
    members = [("data/a", tmp_path / "a")]
    write(file, members, lambda made: BackupManifest(2, "later", 0, {}, EMPTY, {}, made), lambda *_: None)
    with pytest.raises(BadBackup, match="expected a backup of format 1, got 2"):
        read(file)
