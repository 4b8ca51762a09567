"""Where MLflow keeps a workspace's artifacts: the addresses in its own SQLite file follow the data folder wherever that
lies.

MLflow stores absolute addresses, in experiments, runs, logged models and versions. A workspace that was copied, moved
or mounted elsewhere would read from the place where it was made, and write into it. So whoever opens the file looks
first whether the experiments have their artifacts in this data folder. Where they do not, every text that begins with
the old address gets the new one, in one transaction. What `stores.registry` names, a server or another database, is
left as it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from features.common.files import locked

DATABASE, ARTIFACTS, LOCK = "mlflow.db", "mlflow-artifacts", "mlflow.lock"
WAIT_SECONDS_MAX = 30.0
"""How long another process may keep the database to itself."""


def database_address(data: Path) -> str:
    """Return the address of the SQLite file of a data folder as SQLAlchemy reads it: `%` begins a code there, and `?`
    the options.
    """
    return "sqlite:///" + str(data.resolve() / DATABASE).replace("%", "%25").replace("?", "%3F")


def artifacts_address(data: Path) -> str:
    """Return the address of the folder of all artifacts."""
    return (data.resolve() / ARTIFACTS).as_uri()


def relocate(data: Path) -> None:
    """Have all addresses name this data folder. Costs one short query where they do.

    Raises:
        sqlite3.Error, OSError: the database cannot be read or written.
    """
    if _foreign(data):
        with recording(data):
            pass


@contextmanager
def recording(data: Path) -> Iterator[None]:
    """Have all addresses name this data folder, and keep them so: a process that has it under another path must wait to
    change them.

    Raises:
        sqlite3.Error, OSError: as `relocate`.
    """
    with locked(data / LOCK):
        for old in _foreign(data):
            _replace(data, old, artifacts_address(data))
        yield


def versions_in(data: Path, model: str) -> tuple[int, str | None]:
    """Count the registered versions of a model in the SQLite file of a data folder, and name the champion; (0, None)
    without a file.
    """
    if not (data / DATABASE).exists():
        return 0, None
    with closing(_connect(data)) as connection:
        (versions,) = connection.execute("SELECT count(*) FROM model_versions WHERE name = ?", (model,)).fetchone()
        champion = connection.execute(
            "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = 'champion'", (model,)
        ).fetchone()
    return int(versions), None if champion is None else str(champion[0])


@contextmanager
def without_empty_folder(data: Path) -> Iterator[None]:
    """Remove the empty folder that MLflow makes when it opens a file whose address holds codes: it takes the address
    for a path.
    """
    folder = Path(database_address(data).removeprefix("sqlite:///")).parent
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    yield
    for place in new:
        with suppress(OSError):
            place.rmdir()


def _foreign(data: Path) -> list[str]:
    """Return the addresses of artifacts of experiments that are in another data folder."""
    if not (data / DATABASE).exists():
        return []
    with closing(_connect(data)) as connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone() is None:
            return []
        found = connection.execute(
            "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE 'file:///%'"
        ).fetchall()
    return [address for (address,) in found if address.endswith(f"/{ARTIFACTS}") and address != artifacts_address(data)]


def _replace(data: Path, old: str, new: str) -> None:
    """Replace an address, alone or as the beginning of a longer one, wherever a text of the database is or begins with
    it.
    """
    with closing(_connect(data)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for _, column, kind, *_ in connection.execute(f'PRAGMA table_info("{table}")').fetchall():
                if "CHAR" in kind or "TEXT" in kind:
                    connection.execute(
                        f'UPDATE "{table}" SET "{column}" = :new || substr("{column}", length(:old) + 1) '
                        f"""WHERE "{column}" = :old OR substr("{column}", 1, length(:old) + 1) = :old || '/'""",
                        {"new": new, "old": old},
                    )
        connection.execute("COMMIT")


def _connect(data: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{(data.resolve() / DATABASE).as_uri()}?mode=rw", uri=True, timeout=WAIT_SECONDS_MAX, isolation_level=None
    )
