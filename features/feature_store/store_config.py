"""What Feast is told of an online store: the types of fields, the section of `feature_store.yaml`, and whether Feast
takes it.
"""

from __future__ import annotations

import difflib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

os.environ.setdefault("FEAST_USAGE", "False")

from feast import Entity, FeatureView, Field
from feast.data_source import DataSource
from feast.errors import (
    FeastClassImportError,
    FeastInvalidBaseClass,
    FeastModuleImportError,
    FeastOnlineStoreInvalidName,
)
from feast.infra.online_stores.helpers import get_online_store_from_config
from feast.repo_config import (
    LEGACY_ONLINE_STORE_CLASS_FOR_TYPE,
    ONLINE_STORE_CLASS_FOR_TYPE,
    get_online_config_from_type,
)
from feast.types import Array, Bool, FeastType, Float64, Int64, String, UnixTimestamp

from features.columns.views import View
from features.config import faults
from features.redis_store.address import Address
from features.workspace.workspace import Workspace, is_sqlite

TYPES: dict[str, FeastType] = {
    "number": Float64,
    "integer": Int64,
    "category": String,
    "boolean": Bool,
    "time": UnixTimestamp,
    "texts": Array(String),
    "numbers": Array(Float64),
}
KEY_VERSION = 3
"""Feast's `entity_key_serialization_version`: who writes and who reads must agree."""

KNOWN = tuple(sorted(set(ONLINE_STORE_CLASS_FOR_TYPE) - set(LEGACY_ONLINE_STORE_CLASS_FOR_TYPE)))
"""Feast's short names of stores; any other is the path of a class."""

ALLOW_VARIABLE = "OPPORTUNE_ALLOW_CLASSES"
"""`1`, or the paths of classes and functions that a section may name, with blanks or commas between. Who runs the
service sets it: whoever writes the workspace could else run code.
"""

_IMPORTED_KEYS = ("type", "prewriting_hook")
"""Keys of a section, at any depth, whose text Feast imports."""
_OWN = (
    *ONLINE_STORE_CLASS_FOR_TYPE,
    *ONLINE_STORE_CLASS_FOR_TYPE.values(),
    "features.feature_store.lmdb_online_store.LmdbOnlineStore",
    "features.feast_lmdb.LmdbOnlineStore",
)
"""What may be named without leave: Feast's own stores and ours."""

_EXTRAS = {
    "bigtable": "gcp",
    "couchbase.online": "couchbase",
    "datastore": "gcp",
    "dynamodb": "aws",
    "snowflake.online": "snowflake",
}
"""Extras of the Feast distribution whose name is not that of the store."""


def feature_view(view: View, entity: Entity, source: DataSource) -> FeatureView:
    """Feast's view of one of ours."""
    return FeatureView(
        name=view.name,
        entities=[entity],
        schema=[
            Field(name=entity.join_key, dtype=String),
            *(Field(name=name, dtype=TYPES[dtype]) for name, dtype in view.fields),
        ],
        source=source,
        ttl=timedelta(seconds=view.ttl_seconds),
        online=True,
        tags={"stream": view.stream or "customers"},
    )


def online_section(workspace: Workspace) -> dict[str, Any]:
    """Feast's `online_store` section for the store that the workspace serves from, secrets included."""
    given = workspace.online_feast
    if given is not None:
        return given
    url = workspace.online_url
    if workspace.store_kind.in_data_folder:
        return {"type": "features.feature_store.lmdb_online_store.LmdbOnlineStore", "path": str(workspace.online)}
    return _redis(url)


def _redis(url: str) -> dict[str, Any]:
    """Feast's own words for a Redis address. It splits them at commas and reads values as JSON, in which a comma can
    hide.
    """
    address = Address.parse(url)
    settings: dict[str, Any] = {} if address.cluster else {"db": address.db}
    settings |= {name: value for name in ("username", "password") if (value := getattr(address, name))}
    if address.tls is not None:
        settings |= {"ssl": True, **dict(parse_qsl(urlsplit(url).query))}
    words = [f"{host}:{port}" for host, port in address.nodes]
    words += [f"{name}={json.dumps(value).replace(',', chr(92) + 'u002c')}" for name, value in settings.items()]
    kind = "redis_cluster" if address.cluster else "redis"
    return {"type": "redis", "redis_type": kind, "connection_string": ",".join(words)}


def prepare(section: dict[str, Any]) -> None:
    """Turn a SQLite file to its write-ahead log: Feast leaves it in the mode in which a reader waits for each
    writer.
    """
    if is_sqlite(section):
        file = Path(section["path"])
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")


class SectionRefusal(NamedTuple):
    """What Feast does not take of a section: where, what it expects, what it got, and the way out. Never shows a
    value.
    """

    path: faults.Path
    expected: str
    got: str
    remedy: str


def refusals(section: dict[str, Any], environment: Mapping[str, str] = os.environ) -> Iterator[SectionRefusal]:
    """Ask Feast whether there is such a store, whether its Python package is installed, and whether it takes these
    settings. What is not allowed is told without being imported.
    """
    refused = [
        SectionRefusal(
            path,
            "the name of one of Feast's stores, or a path that who runs the service allows",
            f"`{name}`",
            f"It would be imported, which runs its code: set {ALLOW_VARIABLE}={name} where it may.",
        )
        for path, name in _not_allowed(section, environment.get(ALLOW_VARIABLE, "").replace(",", " ").split())
    ]
    if refused:
        yield from refused
        return
    kind = section["type"]
    try:
        get_online_store_from_config(get_online_config_from_type(kind)(**section))
    except (FeastOnlineStoreInvalidName, ValueError) as error:
        listed = getattr(error, "errors", None)  # of pydantic, which Feast brings along
        if listed is not None:
            for fault in listed(include_url=False, include_input=False, include_context=False):
                remedy = "See Feast's page of this online store."
                yield SectionRefusal(fault["loc"], "settings that Feast's store takes", fault["msg"], remedy)
        else:
            near = difflib.get_close_matches(kind, KNOWN, 1)
            others = f"{', '.join(KNOWN)}, and classes that end with OnlineStore where {ALLOW_VARIABLE} allows them"
            remedy = f"Did you mean `{near[0]}`?" if near else f"Known are {others}."
            yield SectionRefusal(("type",), "an online store that Feast knows", f"`{kind}`", remedy)
    except (FeastModuleImportError, FeastClassImportError, FeastInvalidBaseClass) as error:
        why = str(error.__cause__ or error).partition("\n")[0]
        yield SectionRefusal(
            ("type",), "an online store whose Python package is installed", f"`{kind}`: {why}", _installed_by(kind)
        )


def _not_allowed(part: Any, allowed: list[str], path: faults.Path = ()) -> Iterator[tuple[faults.Path, str]]:
    """Yield each name in a section that Feast would import though nobody allowed it, with its place."""
    if allowed == ["1"]:
        return
    for step, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        place = (*path, step if isinstance(step, int) else str(step))
        if step in _IMPORTED_KEYS and isinstance(value, str):
            if "." in value and value not in _OWN and value not in allowed:
                yield place, value
        else:
            yield from _not_allowed(value, allowed, place)


def _installed_by(kind: str) -> str:
    extra = _EXTRAS.get(kind, kind)
    if extra in (metadata.metadata("feast").get_all("Provides-Extra") or ()):
        return f"Run `pip install 'feast[{extra}]=={metadata.version('feast')}'`."
    return "Install the package that holds the class, and look at how its path is written."
