"""Cross-checks of a workspace: every name that is used exists, every moment is one, nothing is declared twice."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable
from typing import Any

from features.common.time_zones import zone_of
from features.common.timestamps import parse_moment
from features.common.types import Treatment
from features.config.documents import Document
from features.config.faults import Fault, Path
from features.config.offers_file import OfferEntry
from features.config.placeholders import unset
from features.config.workspace_file import Source
from features.lake.tables import FIXED, tables_of
from features.redis_store.address import SCHEMES, Address
from features.validation.experiments import faults_of_experiments
from features.validation.features import FEATURE_CHECKS
from features.validation.kinds import faults_of_kinds
from features.validation.model import faults_of_model
from features.validation.policies import POLICY_CHECKS
from features.workspace.store_kind import EMBEDDED, kind_of
from features.workspace.workspace import Workspace

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_OFFER_WORDS = ("name", "offer_id", "valid_until", "value")


def faults_of(workspace: Workspace, *, sources: bool = True) -> list[Fault]:
    """Return all faults of a workspace whose files are each well-formed; with `sources`, those of the files that it
    imports too.
    """
    if unknown := list(faults_of_kinds(workspace)):
        return unknown
    return [fault for check in CHECKS if sources or check is not _sources for fault in check(workspace)]


def _settings(workspace: Workspace) -> Iterable[Fault]:
    document, settings = workspace.documents["workspace.yaml"], workspace.settings
    if zone_of(settings.time_zone) is None:
        remedy = "For example Europe/Vienna or America/New_York; an offset such as +01:00 is one too."
        yield document.fault(("time_zone",), "an IANA time zone", f"`{settings.time_zone}`", remedy)
    if kind_of(settings.stores.online.url) is not EMBEDDED:
        try:
            Address.parse(settings.stores.online.url)
        except (ValueError, OSError) as error:
            remedy = "For example redis://localhost:6379/0."
            yield document.fault(
                ("stores", "online", "url"), "`embedded` or a Redis address", f"an error: {error}", remedy
            )
    if settings.stores.online.near_cache_rows and workspace.online_url.partition("://")[0] not in SCHEMES:
        remedy = "Leave it out, or name the Redis in stores.online.url."
        yield document.fault(
            ("stores", "online", "near_cache_rows"), "a Redis store, which tells of changes", "another one", remedy
        )
    yield from _feast(document, workspace)
    data = workspace.data.resolve()
    if data in (workspace.folder, *workspace.folder.parents):
        yield document.fault(
            ("data",), "a folder of its own: it may be deleted", f"`{settings.data}`", "For example .opportune."
        )
    if settings.demo is not None:
        yield from _moment(document, ("demo", "now"), settings.demo.now)


def _feast(document: Document, workspace: Workspace) -> Iterable[Fault]:
    """A store that Feast reads. Feast is asked, which loads it, only where it will serve."""
    online, path = workspace.settings.stores.online, ("stores", "online", "feast")
    if online.feast is None:
        return
    if kind_of(online.url) is not EMBEDDED:
        yield document.fault(path, "one online store", "both `url` and `feast`", "Remove one of them.")
    if not isinstance(online.feast.get("type"), str):
        yield document.fault(
            path, "Feast's `online_store` section with its `type`", "none", "For example {type: sqlite}."
        )
        return
    if not workspace.store_kind.needs_feast:
        return
    unset_faults = [
        document.fault(
            (*path, *where),
            "a variable of the environment that is set",
            f"`${{{name}}}`",
            f"Set {name}, or write the value.",
        )
        for where, name in unset(online.feast, os.environ)
    ]
    yield from unset_faults
    section = None if unset_faults else workspace.online_feast
    if section is not None:
        from features.feature_store.store_config import refusals

        for refused in refusals(section):
            yield document.fault((*path, *refused.path), refused.expected, refused.got, refused.remedy)


def _sources(workspace: Workspace) -> Iterable[Fault]:
    document, sources = workspace.documents["workspace.yaml"], workspace.settings.sources
    tables = tables_of(workspace)
    places: list[tuple[Path, str]] = [(("sources", table), table) for table in FIXED if table != "streams"]
    places += [(("sources", "streams", name), f"streams.{name}") for name in sources.streams]
    for path, table in places:
        source = workspace.source(table)
        if source is None:
            continue
        if not source.path or not glob.glob(source.path, root_dir=workspace.folder, recursive=True):
            remedy = "Paths are relative to the workspace's folder."
            yield document.fault(path, "a file, folder or glob that exists", f"`{source.path}`", remedy)
        if table not in tables:
            yield document.unknown(
                path, "a stream of features.yaml", table.removeprefix("streams."), workspace.features.streams
            )
            continue
        yield from _renames(document, path, source, [field.name for field in tables[table].fields])


def _renames(document: Document, path: Path, source: Source, known: list[str]) -> Iterable[Fault]:
    for name in source.columns:
        if name not in known:
            yield document.unknown(
                (*path, "columns", name), "a column of the table, renamed as `ours: theirs`", name, known
            )


def _offers(workspace: Workspace) -> Iterable[Fault]:
    document, offers = workspace.documents["offers.yaml"], workspace.offers
    seen = set()
    yield from _treatments(workspace, document, ("treatments",), offers.treatments)
    for position, offer in enumerate(offers.offers):
        path: Path = ("offers", position)
        if offer.offer_id in seen:
            yield document.fault(
                (*path, "offer_id"), "an id of its own", f"`{offer.offer_id}` again", "Remove one of the two."
            )
        seen.add(offer.offer_id)
        yield from _attributes(workspace, document, path, offer)
        yield from _treatments(workspace, document, (*path, "treatments"), offer.treatments)
        for at, placement in enumerate(offer.placements):
            if placement not in offers.placements:
                yield document.unknown((*path, "placements", at), "a declared placement", placement, offers.placements)
        bounds = {
            name: moment for name in ("valid_from", "valid_until") if (moment := getattr(offer, name)) is not None
        }
        faults = [fault for name, text in bounds.items() for fault in _moment(document, (*path, name), text)]
        yield from faults
        if (
            len(bounds) == 2
            and not faults
            and parse_moment(bounds["valid_from"]) >= parse_moment(bounds["valid_until"])
        ):
            yield document.fault(
                (*path, "valid_until"),
                "a moment after valid_from",
                f"`{offer.valid_until}`",
                "The end is not part of it.",
            )
    if not offers.offers and workspace.settings.sources.offers is None:
        yield document.fault(
            ("offers",), "offers here, or `sources.offers` in workspace.yaml", "neither", "Declare at least one offer."
        )


def _attributes(workspace: Workspace, document: Document, path: Path, offer: OfferEntry) -> Iterable[Fault]:
    for name, value in offer.attributes.items():
        place = (*path, "attributes", name)
        declared = workspace.features.offer.get(name)
        if declared is None:
            yield document.unknown(place, "an attribute of features.yaml", name, workspace.features.offer)
        elif value is not None and not _is_a(declared.dtype, value):
            examples = {
                "time": "For example 2026-11-22.",
                "texts": "For example [red, blue].",
                "category": "Put it in quotes.",
            }
            kind = {"integer": "an integer", "texts": "a list of texts"}.get(declared.dtype, f"a {declared.dtype}")
            yield document.fault(place, kind, repr(value), examples.get(declared.dtype, ""))


def _is_a(dtype: str, value: Any) -> bool:
    if dtype == "time":
        return isinstance(value, str) and _parses(value)
    kinds: dict[str, Any] = {
        "category": str,
        "texts": list,
        "boolean": bool,
        "integer": (int, float),
        "number": (int, float),
    }
    if dtype == "integer" and isinstance(value, float) and not value.is_integer():
        return False
    return isinstance(value, kinds[dtype]) and (dtype == "boolean" or not isinstance(value, bool))


def _treatments(
    workspace: Workspace, document: Document, path: Path, treatments: tuple[Treatment, ...]
) -> Iterable[Fault]:
    channel = workspace.features.context.get("channel")
    channels = None if channel is None or channel.values is None else {"any", *channel.values}
    locale = workspace.features.context.get("locale")
    locales = None if locale is None or locale.values is None else {"any", *locale.values}
    words = {*_OFFER_WORDS, *workspace.features.offer}
    for position, treatment in enumerate(treatments):
        place = (*path, position)
        if channels is not None and treatment.channel not in channels:
            yield document.unknown(
                (*place, "channel"), "a channel that the context knows, or any", treatment.channel, channels
            )
        if locales is not None and treatment.locale not in locales:
            yield document.unknown(
                (*place, "locale"), "a locale that the context knows, or any", treatment.locale, locales
            )
        if (treatment.channel, treatment.locale) in [(other.channel, other.locale) for other in treatments[:position]]:
            got = f"`{treatment.channel}` and `{treatment.locale}` again"
            yield document.fault((*place, "channel"), "each channel once in a locale", got, "Remove one of the two.")
        for where, text in _texts(treatment.payload, (*place, "payload")):
            for word in _PLACEHOLDER.findall(text):
                if word not in words:
                    yield document.unknown(where, "a placeholder that offers can fill", word, words)


def _texts(value: Any, path: Path) -> Iterable[tuple[Path, str]]:
    """Yield all texts of a payload, with their places."""
    if isinstance(value, str):
        yield path, value
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, part in parts:
        yield from _texts(part, (*path, step))


def _moment(document: Document, path: Path, text: str) -> Iterable[Fault]:
    if not _parses(text):
        yield document.fault(
            path, "a moment that the calendar has", f"`{text}`", "For example 2026-11-22 or 2026-11-22T09:30:00Z."
        )


def _parses(text: str) -> bool:
    try:
        parse_moment(text)
    except (ValueError, OverflowError):
        return False
    return True


def _experiments(workspace: Workspace) -> Iterable[Fault]:
    return faults_of_experiments(workspace, workspace.documents["experiments.yaml"], workspace.experiments)


CHECKS: tuple[Callable[[Workspace], Iterable[Fault]], ...] = (
    _settings,
    _sources,
    *FEATURE_CHECKS,
    *POLICY_CHECKS,
    _experiments,
    _offers,
    faults_of_model,
)
