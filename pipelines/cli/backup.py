"""Verbs about copies of a workspace: backup, restore."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from features.common.timestamps import rfc3339
from features.validation.load import load
from pipelines.cli.options import HERE, AsJson, Folder
from pipelines.materialize import steps
from pipelines.output import console

if TYPE_CHECKING:
    from pipelines.backup.archive import BackupManifest

File = Annotated[
    Path, typer.Argument(help="File of the backup; with the ending .zst or .gz it is compressed.", show_default=False)
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Only read the file as a whole and compare all digests; change nothing.")
]


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(epilog="Example: [bold]opportune backup shop.tar.zst -w shop[/bold]")(backup)
    app.command(epilog="Example: [bold]opportune restore shop.tar.zst -w elsewhere/shop[/bold]")(restore)


def backup(file: File, workspace: Folder = HERE, verify: Verify = False, json: AsJson = False) -> None:
    """Copy a workspace with all that it has made into one file, whole or not at all; servers go on meanwhile."""
    if verify:
        _verify(file, json)
        return
    from pipelines.backup.backup import back_up

    found = load(workspace, sources=False)
    with console.progress("backup") as tell, steps.quiet_warnings():
        manifest = back_up(found, file, tell)
    _tell(manifest, json, f"Wrote {file}")


def restore(
    file: File,
    workspace: Annotated[
        Path, typer.Option("-w", "--workspace", help="Folder to restore into; made where it is not there.")
    ],
    force: Annotated[
        bool,
        typer.Option("--force", help="Put aside what is there: the data folder, and other files of the workspace."),
    ] = False,
    forgotten_from: Annotated[
        Path | None,
        typer.Option(
            help="A data folder of later: who was forgotten there is forgotten again. With --force, the one put aside."
        ),
    ] = None,
    verify: Verify = False,
    json: AsJson = False,
) -> None:
    """Unpack a backup, compare all digests and counts, and move it into place; what was there is kept aside."""
    if verify:
        _verify(file, json)
        return
    from pipelines.backup.restore import restore as run

    with console.progress("restore") as tell, steps.quiet_warnings():
        restored = run(file, workspace, force=force, tell=tell)
        forgotten, unknown = _forget_again(
            workspace, forgotten_from or (Path(restored.kept) if restored.kept else None)
        )
    more: dict[str, object] = {"folder": restored.folder, "kept": restored.kept, "sources_kept": restored.sources_kept}
    more |= {"forgotten_again": forgotten, "forgotten_unknown": unknown}
    _tell(restored.manifest, json, f"Restored {file} into {restored.folder}", **more)
    if json:
        return
    if restored.kept:
        console.out.print(
            f"What was there is in {restored.kept}: delete it when it is no longer needed.", highlight=False
        )
    if restored.sources_kept:
        console.out.print(
            f"Left as they are, other than in the backup: {', '.join(restored.sources_kept)}.", highlight=False
        )
    if forgotten:
        console.out.print(f"Forgot {forgotten:,} units again that were forgotten after the backup.", highlight=False)
    if unknown:
        text = (
            f"[yellow]warning[/yellow] who was forgotten after the backup is in it again, if anybody was ({unknown}):"
            " forget them again"
        )
        console.err.print(text, highlight=False)


def _forget_again(folder: Path, later: Path | None) -> tuple[int, str]:
    """Forget whom a later data folder has forgotten; how many, and why that cannot be told, or nothing."""
    if later is None:
        return 0, "no later data folder was named with --forgotten-from"
    from pipelines.backup.erased_since import bring_marks
    from pipelines.erasure.erase import forget

    found = load(folder, sources=False)
    units, unknown = bring_marks(found, later)
    for unit in units:
        forget(found, unit)
    return len(units), unknown


def _verify(file: Path, json: bool) -> None:
    from pipelines.backup.archive import read

    with console.progress("verify") as tell:
        manifest = read(file, tell=tell)
    _tell(manifest, json, f"{file} is whole")


def _tell(manifest: BackupManifest, json: bool, done: str, **more: object) -> None:
    size = sum(member.bytes for member in manifest.members)
    contents = manifest.contents
    if json:
        facts = {"workspace": manifest.name, "at": rfc3339(manifest.at), "files": len(manifest.members), "bytes": size}
        console.as_json(
            facts | {"contents": contents, "left_out": manifest.left_out, "versions": manifest.versions} | more
        )
        return
    console.out.print(
        f"{done}: {manifest.name} as of {rfc3339(manifest.at)}, {len(manifest.members):,} files, {size:,} bytes.",
        highlight=False,
    )
    rows: list[list[object]] = [
        [f"rows of {table} in the lake", count] for table, count in sorted(contents.lake.items())
    ]
    rows += [
        ["events in the log", contents.events],
        ["of them not in the lake yet", contents.events_waiting],
        ["decisions not in the lake yet", contents.decisions_waiting],
        ["customers in the online store", contents.customers],
        ["records of the contact ledger", contents.ledger],
        ["versions of the model", contents.versions],
        ["champion", contents.champion],
        ["version that serves", contents.serving],
    ]
    console.table("", ["what", "count"], rows)
    for name, why in sorted(manifest.left_out.items()):
        console.err.print(f"[yellow]not in it[/yellow] {name}: {why}", highlight=False)
