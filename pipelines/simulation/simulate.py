"""`opportune simulate`: past decisions decided again, under the files as they are and as they would be."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from features.columns.rows import OnlineEngine, OnlineRow
from features.common.moments import Micros, in_seconds
from features.common.timestamps import rfc3339
from features.common.types import DecisionRequest
from features.lake.offers import read_catalogue
from features.ledger.ledger import ledger_of
from features.ledger.recent import NOTHING, Known
from features.online.engines import open_engine
from features.workspace.workspace import Workspace
from pipelines.materialize.contact_import import PATIENT_MS
from pipelines.materialize.damage import is_embedded
from pipelines.simulation.changed_files import BadChanges, changed
from pipelines.simulation.sampling import NothingToSample, sample_of
from pipelines.simulation.what_if import PolicyComparison, Tried, compare, tried
from serving.hub.request_check import BadContext, BadRequest, UnknownPlacement
from serving.reload.published import models
from serving.reload.reloader import NOTHING_PUBLISHED
from serving.state.snapshot import Snapshot
from training.bundle import bundle
from training.bundle.bundle import BadBundle

Tell = Callable[[str, float | None], None]
TOLD_EVERY = 50
"""Progress is told after so many decisions."""


class SimulationQuery(msgspec.Struct, frozen=True):
    """What is to be simulated."""

    changes: Path
    sample: int
    seed: int
    at: Micros
    """Microseconds since 1970."""
    placement: str | None = None


class Simulation(msgspec.Struct, frozen=True):
    """A comparison, and what it was made of."""

    workspace: str
    currency: str
    files: list[str]
    """Those that say something else."""
    config_before: str
    config_after: str
    bundle: str
    model: str
    at: str
    source: str
    """`journal`, `decisions` or `customers`: what was sampled."""
    seed: int
    unknown_customers: int
    """Sampled customers of whom the online store knows nothing."""
    unfit: dict[str, int]
    """Sampled requests that one of the sides does not take, by why; they are left out of the comparison."""
    notes: list[str]
    result: PolicyComparison


def simulate(workspace: Workspace, asked: SimulationQuery, tell: Tell = lambda *_: None) -> Simulation:
    """Decide a sample twice, and compare.

    Raises:
        BadChanges, BadWorkspace: the changed files cannot be used.
        BadBundle: nothing was published, or it cannot serve.
        NothingToSample: there are neither decisions nor customers.
        StoreUnavailable: a customer's row or history cannot be read.
    """
    other, files = changed(workspace, asked.changes)
    if asked.placement is not None and asked.placement not in workspace.offers.placements:
        raise BadChanges(
            f"--placement: expected one of {', '.join(workspace.offers.placements)}, got {asked.placement}"
        )
    place = bundle.current(workspace.bundles)
    if place is None:
        raise BadBundle(NOTHING_PUBLISHED)
    tell("sample", None)
    sample = sample_of(workspace, asked.sample, asked.seed, asked.placement)
    tell("bundle", None)
    online = workspace.settings.stores.online
    engine = open_engine(
        workspace.online_url,
        workspace.online,
        workspace.views,
        max(PATIENT_MS, online.timeout_ms),
        workspace.project,
        workspace.online_feast,
    )
    try:
        found, everyone = bundle.read(place), engine.everyone()
        sides = [
            Snapshot(one, found, read_catalogue(one), everyone, engine.words, in_seconds(asked.at), models(one))
            for one in (workspace, other)
        ]
        unfit: Counter[str] = Counter()
        unknown: set[str] = set()
        pairs = asyncio.run(_decided(workspace, engine, sides, sample.requests, asked.at, unfit, unknown, tell))
    finally:
        engine.close()
    if not pairs:
        why = "; ".join(f"{count:,} times {why}" for why, count in unfit.most_common(3))
        raise NothingToSample(
            f"expected requests that both sides take, got {len(sample.requests):,} that they do not: {why}"
        )
    before, after = sides
    return Simulation(
        workspace=workspace.settings.name,
        currency=workspace.settings.currency,
        files=files,
        config_before=before.hub.config,
        config_after=after.hub.config,
        bundle=before.stamp.bundle,
        model=f"{before.stamp.name} version {before.stamp.version}",
        at=rfc3339(asked.at),
        source=sample.source,
        seed=asked.seed,
        unknown_customers=len(unknown),
        unfit=dict(unfit),
        notes=_notes(before, after),
        result=compare(pairs),
    )


async def _decided(
    workspace: Workspace,
    engine: OnlineEngine,
    sides: list[Snapshot],
    requests: list[DecisionRequest],
    at: Micros,
    unfit: Counter[str],
    unknown: set[str],
    tell: Tell,
) -> list[tuple[str, Tried, Tried]]:
    """Decide each request on both sides, with the same row, history and clock."""
    pairs = []
    done = 0
    async for request, row, found in _known(workspace, engine, requests):
        if not row.known:
            unknown.add(found.unit)
        try:
            before, after = (tried(request, side, row, found, at) for side in sides)
            pairs.append((found.unit, before, after))
        except UnknownPlacement as error:
            unfit[f"placement {error} is not there on both sides"] += 1
        except (BadContext, BadRequest) as error:
            unfit[str(error)] += 1
        done += 1
        if done % TOLD_EVERY == 0:
            tell("decide", done / len(requests))
    return pairs


async def _known(
    workspace: Workspace, engine: OnlineEngine, requests: list[DecisionRequest]
) -> AsyncIterator[tuple[DecisionRequest, OnlineRow, Known]]:
    """Requests with the row, the contact history and what is new of whom they are about, as they are now."""
    # A simulation begins no ledger where there is none.
    nobody = is_embedded(workspace, "ledger") and not (workspace.data / "ledger").exists()
    ledger = None if nobody else ledger_of(workspace, PATIENT_MS)
    try:
        for request in requests:
            found = Known(request.unit, b"", NOTHING) if ledger is None else await ledger.look(request.unit)
            row = engine.read_now(found.unit)
            if row is None:
                row = await engine.read(found.unit)
            yield request, row, found
    finally:
        if ledger is not None:
            ledger.close()


def _notes(before: Snapshot, after: Snapshot) -> list[str]:
    """Return what the reader should know of the figures."""
    notes = []
    if any(offer.budget is not None for side in (before, after) for offer in side.catalogue.offers):
        notes.append("Budgets and stock are not simulated: what they would stop is shown here.")
    if after.hub.contacting.policy.horizon_seconds > before.hub.contacting.policy.horizon_seconds:
        notes.append(
            "The changed files look back further than the ledger was kept for: `opportune materialize` after the change"
            " fills it, and until then new limits and pauses see less than they will."
        )
    return notes
