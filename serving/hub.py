"""The decision hub: everything that policies and offers files say, on one catalogue."""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.catalogue import Catalogue
from features.formats import Placement
from features.layout import Layout
from features.online import Words
from features.rulebook import read_rules
from features.workspace import Workspace
from serving.arbitration import Arbiter
from serving.contacting import Contacting
from serving.quiet import Quiet
from serving.rules import Rules
from serving.slate import Ties
from serving.withheld import Purposes


class Hub:
    """Policies on a catalogue. Holds scratch memory: for one thread only.

    Attributes:
        config: digest of what the workspace's files say of decisions.
        placements: by name, one truth an offer: whether it may be shown there at all.
        fallbacks: positions of the offers that fill what is left of a placement.
        fallback_sets: the same as sets.
        free: placements whose slate is simply the best offers.
    """

    def __init__(self, workspace: Workspace, catalogue: Catalogue, layout: Layout, words: Words) -> None:
        declared, policies, offers = workspace.features.context, workspace.policies, workspace.offers
        book = read_rules(policies, workspace.features, workspace.settings.currency)
        self.config = digest_of(workspace)
        self.rules = Rules(book, catalogue, layout, declared, words)
        self.arbiter = Arbiter(book, catalogue, layout, declared, words)
        self.quiet = Quiet(workspace, catalogue, layout, declared, words)
        self.ties = Ties(catalogue, offers.bundles.values())
        self.purposes = Purposes(workspace.features, layout.plan)
        self.contacting = Contacting.of(workspace, catalogue)
        self.placements = {name: _places(catalogue, name, placement) for name, placement in offers.placements.items()}
        self.fallbacks = {
            name: tuple(catalogue.index[offer_id] for offer_id in placement.fallback if offer_id in catalogue.index)
            for name, placement in offers.placements.items()
        }
        self.fallback_sets = {name: sum(1 << at for at in set(positions)) for name, positions in self.fallbacks.items()}
        self.free = frozenset(
            name
            for name, placement in offers.placements.items()
            if self.ties.none and placement.per_category is None and placement.per_group is None and not placement.fallback
        )


def digest_of(workspace: Workspace) -> str:
    """What the workspace's files say of decisions, as 16 hex digits; comments and the order of keys do not count."""
    settings = workspace.settings
    settled = [settings.time_zone, settings.currency, settings.serving, workspace.model.label]
    said = msgspec.json.encode([workspace.policies, workspace.offers, workspace.features, settled], order="sorted")
    return hashlib.sha256(said).hexdigest()[:16]


def _places(catalogue: Catalogue, name: str, placement: Placement) -> NDArray[np.bool_]:
    groups = frozenset(placement.groups)
    return np.array([(not o.placements or name in o.placements) and (not groups or o.group in groups) for o in catalogue.offers], bool)
