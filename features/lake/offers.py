"""The offers of a workspace, from its table and from `offers.yaml`, and the catalogue file that serving reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from features.columns.catalogue import OFFERS_MAX, category_text
from features.common.errors import Failure
from features.common.files import write_whole
from features.common.timestamps import MICROSECONDS
from features.common.types import Offer
from features.config.offers_file import OfferEntry
from features.workspace.timeline import Timeline, parse_moment, recorded
from features.workspace.workspace import Workspace


class TooManyOffers(Failure):
    """More offers than a catalogue may hold."""


def offers_of(workspace: Workspace) -> list[Offer]:
    """Return all offers by id; one in `offers.yaml` replaces the table's of the same id.

    Raises:
        TooManyOffers: above `OFFERS_MAX`.
    """
    return _with_entries(workspace, _from_table(workspace))


def _with_entries(workspace: Workspace, table: list[Offer]) -> list[Offer]:
    found = {offer.offer_id: offer for offer in table}
    moved = recorded(workspace) or Timeline()
    found.update((entry.offer_id, _from_entry(workspace, entry, moved)) for entry in workspace.offers.offers)
    if len(found) > OFFERS_MAX:
        raise TooManyOffers(
            f"expected at most {OFFERS_MAX} offers, got {len(found)}: remove those that are no longer valid"
        )
    return [_grouped(workspace, found[offer_id]) for offer_id in sorted(found)]


def _grouped(workspace: Workspace, offer: Offer) -> Offer:
    """With the group and category that its attributes tell, where it states none itself."""
    told = {which: getattr(workspace.offers, which) for which in ("group", "category") if not getattr(offer, which)}
    found = {
        which: category_text(offer.attributes.get(attribute))
        for which, attribute in told.items()
        if attribute is not None
    }
    return msgspec.structs.replace(offer, **found) if any(found.values()) else offer


def _from_table(workspace: Workspace) -> list[Offer]:
    from features.lake import lake

    attributes = list(workspace.features.offer)
    columns = ", ".join(map(lake.quoted, ["offer_id", "name", "value", "placements", *attributes]))
    con = lake.connect(workspace)
    rows = con.execute(f"SELECT epoch_us(valid_from), epoch_us(valid_until), {columns} FROM offers").fetchall()
    con.close()
    return [_from_row(workspace, attributes, row) for row in rows]


def _from_row(workspace: Workspace, attributes: list[str], row: tuple[Any, ...]) -> Offer:
    valid_from, valid_until, offer_id, name, value, placements, *values = row
    return Offer(
        offer_id=offer_id,
        name=name or offer_id,
        valid_from=valid_from,
        valid_until=valid_until,
        value=1.0 if value is None else value,
        placements=tuple(placements or ()),
        attributes={name: _plain(value) for name, value in zip(attributes, values, strict=True)},
    )


def _plain(value: Any) -> Any:
    """Return an attribute as a number, a text or a list of texts; moments as seconds since 1970."""
    if hasattr(value, "timestamp"):
        return value.timestamp()
    return float(value) if isinstance(value, (bool, int)) else value


def _from_entry(workspace: Workspace, entry: OfferEntry, moved: Timeline) -> Offer:
    times = {name for name, attribute in workspace.features.offer.items() if attribute.dtype == "time"}
    attributes: dict[str, Any] = {name: _plain(value) for name, value in entry.attributes.items()}
    for name in times & attributes.keys():
        if attributes[name] is not None:
            attributes[name] = moved.from_source(parse_moment(attributes[name])) / MICROSECONDS
    return Offer(
        offer_id=entry.offer_id,
        name=entry.name or entry.offer_id,
        valid_from=None if entry.valid_from is None else moved.from_source(parse_moment(entry.valid_from)),
        valid_until=None if entry.valid_until is None else moved.from_source(parse_moment(entry.valid_until)),
        value=entry.value,
        placements=entry.placements,
        treatments=entry.treatments,
        attributes=attributes,
        group=entry.group,
        category=entry.category,
        values=dict(entry.values),
        budget=entry.budget,
        requires=entry.requires,
        excludes=entry.excludes,
    )


def catalogue_file(workspace: Workspace) -> Path:
    """Return where serving finds the offers."""
    return workspace.data / "catalogue.json"


def write_catalogue(workspace: Workspace) -> int:
    """Write the offers of the table, which serving reads; returns the number of all offers.

    Those of `offers.yaml` are not part of it: a running server reads them again when the file changes.

    Raises:
        TooManyOffers: above `OFFERS_MAX`.
    """
    table = _from_table(workspace)
    count = len(_with_entries(workspace, table))
    write_whole(catalogue_file(workspace), msgspec.json.encode(table))
    return count


def read_catalogue(workspace: Workspace) -> list[Offer]:
    """Return the offers that serving knows: those of the written catalogue, and of `offers.yaml` as it is now; needs no
    database.

    Raises:
        FileNotFoundError, msgspec.MsgspecError: no catalogue was written, or it is damaged.
        TooManyOffers: above `OFFERS_MAX`.
    """
    return _with_entries(workspace, msgspec.json.decode(catalogue_file(workspace).read_bytes(), type=list[Offer]))
