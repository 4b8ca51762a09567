"""The decision hub: everything that policies and offers files say, on one catalogue."""

from __future__ import annotations

import hashlib
from copy import copy
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.columns.catalogue import Catalogue
from features.columns.layout import Layout
from features.columns.rows import Dictionary
from features.config.experiments import ExperimentsFile
from features.config.offers_file import Placement
from features.config.policies import STAGES, Stage
from features.workspace.rulebook import Rulebook, read_rules
from features.workspace.workspace import Workspace
from serving.hub.arbitration import Arbiter
from serving.hub.consent import ConsentPolicy
from serving.hub.contact_policy import Contacting
from serving.hub.exploration import Explorer
from serving.hub.quiet_hours import Quiet
from serving.hub.rules import Rules
from serving.hub.slate import Ties


@dataclass(frozen=True, slots=True)
class Logic:
    """How a control group decides otherwise than policies say.

    Attributes:
        stages: the rules that hold.
        weighted: whether context weights count.
        personal: whether anything of the customer but what rules look at is used.
        blind: whether priorities are computed as if all propensities were the same.
        explorer: draws slates in place of the workspace's own exploration.
        explores: whether slates are drawn at all.
    """

    stages: tuple[Stage, ...] = STAGES
    weighted: bool = True
    personal: bool = True
    blind: bool = False
    explorer: Explorer | None = None
    explores: bool = True


USUAL = Logic()


class Hub:
    """Policies on a catalogue. Holds scratch memory: for one thread only.

    Attributes:
        config: digest of what the workspace's files say of decisions.
        placements: by name, one truth an offer: whether it may be shown there at all.
        fallbacks: positions of the offers that fill what is left of a placement.
        fallback_sets: the same as sets.
        free: placements whose slate is simply the best offers.
        explorer: draws slates; None where nothing is drawn.
    """

    def __init__(self, workspace: Workspace, catalogue: Catalogue, layout: Layout, words: Dictionary) -> None:
        self.config = digest_of(workspace)
        self.logic = USUAL
        self._workspace, self._catalogue, self._layout, self._words = workspace, catalogue, layout, words
        self.quiet = Quiet(workspace, catalogue, layout, workspace.features.context, words)
        self.ties = Ties(catalogue, workspace.offers.bundles.values())
        self.purposes = ConsentPolicy(workspace.features, layout.plan)
        self.contacting = Contacting.of(workspace, catalogue)
        book = read_rules(workspace.policies, workspace.features, workspace.settings.currency)
        self._rule(book)
        self.arbiter = self._arbiter(book)
        self._place()
        self.explorer = Explorer.of(workspace.policies.exploration) if workspace.policies.exploration else None

    def changed(self, workspace: Workspace, logic: Logic = USUAL) -> Hub:
        """Return the hub of an arm or a control group, on the same catalogue: what does not change is shared, the
        digest of the files too.

        Args:
            workspace: with other rules than those of this hub's, or another arbitration, placements, or exploration.
        """
        before, made = self._workspace, copy(self)
        made._workspace, made.logic = workspace, logic
        policies, was = workspace.policies, before.policies
        book = read_rules(policies, workspace.features, workspace.settings.currency)
        ruled = (policies.rules, policies.arbitration.weights, logic.stages, logic.weighted)
        if ruled != (was.rules, was.arbitration.weights, self.logic.stages, self.logic.weighted):
            made._rule(book)
        if policies.arbitration != was.arbitration:
            made.arbiter = made._arbiter(book)
        if workspace.offers.placements != before.offers.placements:
            made._place()
        explorer = logic.explorer or (Explorer.of(policies.exploration) if policies.exploration else None)
        made.explorer = explorer if logic.explores else None
        return made

    def _rule(self, book: Rulebook) -> None:
        book.rules = [read for read in book.rules if read.rule.stage in self.logic.stages]
        book.weights = book.weights if self.logic.weighted else []
        self.rules = Rules(book, self._catalogue, self._layout, self._workspace.features.context, self._words)

    def _arbiter(self, book: Rulebook) -> Arbiter:
        return Arbiter(book, self._catalogue, self._layout, self._workspace.features.context, self._words)

    def _place(self) -> None:
        catalogue, placements = self._catalogue, self._workspace.offers.placements
        self.placements = {name: _places(catalogue, name, placement) for name, placement in placements.items()}
        self.fallbacks = {
            name: tuple(catalogue.index[offer_id] for offer_id in placement.fallback if offer_id in catalogue.index)
            for name, placement in placements.items()
        }
        self.fallback_sets = {name: sum(1 << at for at in set(positions)) for name, positions in self.fallbacks.items()}
        self.free = frozenset(
            name
            for name, placement in placements.items()
            if self.ties.none
            and placement.per_category is None
            and placement.per_group is None
            and not placement.fallback
        )


def digest_of(workspace: Workspace) -> str:
    """Return what the workspace's files say of decisions, as 16 hex digits; comments and the order of keys do not
    count.
    """
    settings = workspace.settings
    settled = [settings.time_zone, settings.currency, settings.serving, workspace.model.label]
    parts = [workspace.policies, workspace.offers, workspace.features, settled]
    if workspace.experiments != ExperimentsFile():  # what a workspace without them said before there were any stays
        parts.append(workspace.experiments)
    if workspace.ramps:
        parts.append([(key, standing.share, standing.state) for key, standing in sorted(workspace.ramps.items())])
    said = msgspec.json.encode(parts, order="sorted")
    return hashlib.sha256(said).hexdigest()[:16]


def _places(catalogue: Catalogue, name: str, placement: Placement) -> NDArray[np.bool_]:
    groups = frozenset(placement.groups)
    return np.array(
        [(not o.placements or name in o.placements) and (not groups or o.group in groups) for o in catalogue.offers],
        bool,
    )
