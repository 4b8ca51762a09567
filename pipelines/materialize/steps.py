"""The steps from a business's files to a served model, each repeatable, and what has been done of them.

A step leaves a record of what it worked on. `up` does the steps whose inputs changed; each is a verb of its own too.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from features.columns.views import fingerprint
from features.common.errors import Failure
from features.common.files import digest_of, make_private, write_whole
from features.common.moments import BEGINNING_US, Micros
from features.events import log as event_log
from features.lake import lake
from features.lake.offers import write_catalogue
from features.lake.tables import tables_of
from features.workspace.workspace import Workspace

if TYPE_CHECKING:  # what a step needs is imported in it: a server alone runs without DuckDB, pyarrow and Feast
    from pipelines.importing.import_files import ImportReport
    from pipelines.importing.import_files import Tell as Told
    from pipelines.materialize import contact_import
    from pipelines.materialize.contact_import import Brought

SAMPLED_CUSTOMERS = 20

Tell = Callable[[str], None]


class Busy(Failure):
    """Another process works on the workspace."""


class Mismatch(Failure):
    """What was read back from the online store is not what was written."""


class StepRecord(msgspec.Struct):
    """What was done last, and to what: `steps.json` in the data folder."""

    imported: str = ""
    computed: str = ""
    computed_at: Micros = BEGINNING_US
    materialized: str = ""
    contacts: str = ""
    refreshed: int = 0
    """Place in the event log up to which customers' windows were brought up to date."""


def _file(workspace: Workspace) -> Path:
    return workspace.data / "steps.json"


def state_of(workspace: Workspace) -> StepRecord:
    """Return the record; an empty one before the first step."""
    try:
        return msgspec.json.decode(_file(workspace).read_bytes(), type=StepRecord)
    except FileNotFoundError:
        return StepRecord()


def _keep(workspace: Workspace, **changes: Any) -> None:
    state = state_of(workspace)
    for name, value in changes.items():
        setattr(state, name, value)
    write_whole(_file(workspace), msgspec.json.encode(state))


@contextmanager
def alone(workspace: Workspace) -> Iterator[None]:
    """Hold the workspace: steps of two processes would undo each other.

    Raises:
        Busy: another process holds it.
    """
    make_private(workspace.data)
    with (workspace.data / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"another process works on {workspace.folder}: wait for it, or end it") from error
        yield


def sources_digest(workspace: Workspace) -> str:
    """Digest of everything that an import depends on: the files, where they are mapped to, and the tables' columns."""
    from pipelines.importing.source_files import files_of

    state = hashlib.sha256(msgspec.json.encode([workspace.settings.sources, list(tables_of(workspace).values())]))
    for table in tables_of(workspace).values():
        source = workspace.source(table.name)
        if source is None:
            continue
        for file in files_of(workspace, table, source):
            state.update(digest_of(file).encode())
    return state.hexdigest()


def lake_digest(workspace: Workspace) -> str:
    """Digest of what was imported, by the names of the lake's files.

    Shipments come all the time and are left out: the background worker brings the customers up to date whom they
    concern.
    """
    tables = tables_of(workspace).values()
    names = [
        str(file.relative_to(workspace.lake)) for table in tables for file in lake.imported_files(workspace, table)
    ]
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def features_digest(workspace: Workspace) -> str:
    """Digest of what the offline tables depend on."""
    return hashlib.sha256(
        f"{fingerprint(workspace.views)} {lake_digest(workspace)} {workspace.settings.buckets}".encode()
    ).hexdigest()


def import_tables(workspace: Workspace, now: Micros, tell: Told = lambda _table, _part: None) -> list[ImportReport]:
    """Bring the sources into the lake and write the catalogue."""
    from pipelines.importing.import_files import import_all

    reports = import_all(workspace, now, tell)
    write_catalogue(workspace)
    _keep(workspace, imported=sources_digest(workspace))
    return reports


def compute_features(workspace: Workspace, now: Micros, generation: str = "") -> dict[str, int]:
    """Compute all windows at all moments and tell Feast about the views.

    Args:
        now: microseconds since 1970. Where there is an event log, the whole second up to its barrier is the moment
            instead (see `refreshing.whole_second`): the rows contain exactly what was received before, all of which is
            shipped first.
        generation: of the embedded online store, where the one in use is not to be touched.
    """
    from features.aggregates import windows
    from features.feature_store import definitions
    from pipelines.materialize.refresh import whole_second

    moment = barrier(workspace, now)
    if event_log.exists(event_log.event_folder(workspace.data)):
        moment = whole_second(moment)
    written = windows.compute(workspace, moment)
    with quiet():
        definitions.apply(workspace, generation)
    _keep(workspace, computed=features_digest(workspace), computed_at=moment)
    return written


def barrier(workspace: Workspace, now: Micros) -> Micros:
    """Return a moment such that the lake holds all that was received before it; `now` where there is no event log.

    Raises:
        LogUnavailable: the event log cannot be written.
    """
    from pipelines.shipping.ship import ship

    folder = event_log.event_folder(workspace.data)
    if not event_log.exists(folder):
        ship(workspace)
        return now
    log = event_log.EventLog(folder)
    try:
        moment = log.barrier()
    finally:
        log.close()
    ship(workspace)
    return moment


def materialize(workspace: Workspace, generation: str = "") -> int:
    """Bring the newest rows into the online store, and read a sample back through Feast.

    Args:
        generation: of the embedded online store, to be filled instead of the one in use.

    Returns:
        Number of customers that were compared.

    Raises:
        Mismatch: a value that was read is not the one that was written.
    """
    from features.feature_store import definitions

    moment = state_of(workspace).computed_at
    with quiet():
        store = definitions.apply(workspace, generation)
        definitions.materialize(store, workspace, moment)
        compared = definitions.compare_sample(store, workspace, moment, SAMPLED_CUSTOMERS)
    if compared.different:
        first = compared.different[0]
        raise Mismatch(
            f"expected the online store to give back what was written, got another value for {first}: run `opportune"
            " materialize` again"
        )
    _keep(workspace, materialized=f"{state_of(workspace).computed} {moment} {workspace.online_url}")
    return compared.customers


def bring_contacts(workspace: Workspace, now: Micros, tell: contact_import.Tell = lambda *_: None) -> Brought | None:
    """Write the imported history into the contact ledger; None where no policy looks at it."""
    from pipelines.materialize import contact_import

    digest = contact_import.digest_of(workspace)
    brought = contact_import.bring(workspace, now, tell) if digest else None
    _keep(workspace, contacts=digest)
    return brought


def note_refreshed(workspace: Workspace, place: int) -> None:
    """Note that rows contain all events up to this place of the event log."""
    _keep(workspace, refreshed=place)


def are_contacts_brought(workspace: Workspace) -> bool:
    """Return whether the ledger has the imported history, as far back as the policies look now."""
    from pipelines.materialize import contact_import

    return state_of(workspace).contacts == contact_import.digest_of(workspace)


def is_begun(workspace: Workspace) -> bool:
    """Return whether any step was ever done; before the first one there is no store."""
    return _file(workspace).exists()


def is_imported(workspace: Workspace) -> bool:
    """Return whether the lake holds what the sources say now."""
    return state_of(workspace).imported == sources_digest(workspace)


def is_computed(workspace: Workspace) -> bool:
    """Return whether the offline tables are those of the lake and of the files as they are now."""
    return state_of(workspace).computed == features_digest(workspace)


def is_materialized(workspace: Workspace) -> bool:
    """Return whether the online store was filled from the offline tables as they are now."""
    state = state_of(workspace)
    return state.materialized == f"{state.computed} {state.computed_at} {workspace.online_url}" and bool(state.computed)


@contextmanager
def quiet() -> Iterator[None]:
    """Libraries that report by printing are silenced: the verb that called shows its own progress."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def quiet_warnings() -> Iterator[None]:
    """Deprecations inside libraries are theirs to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
