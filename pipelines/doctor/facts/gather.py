"""What checks of `opportune doctor` ask for: facts, each gathered when the first check wants it, and once.

A fact that cannot be had is a text or a `CannotSay`, which every check that wants it then says. What nobody expected (a
damaged file, a store that is away) passes through, and `doctor.examine` makes a finding of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import duckdb
import msgspec

from features.common.moments import Micros
from features.lake import lake
from features.lmdb_store.verify import Verdict, verify
from features.workspace.experiments import Experiments, ReadExperiment
from features.workspace.workspace import Workspace
from pipelines.doctor.facts import lake as lake_facts
from pipelines.doctor.facts import limits as limits_facts
from pipelines.doctor.facts import loop as loop_facts
from pipelines.doctor.facts import machine as machine_facts
from pipelines.doctor.facts import model as model_facts
from pipelines.doctor.facts import server as server_facts
from pipelines.doctor.facts import store as store_facts
from pipelines.doctor.facts.check import CannotSay
from pipelines.doctor.facts.facts import (
    BrokenFiles,
    BudgetFacts,
    DataFacts,
    DriftFacts,
    LimitFacts,
    LogFacts,
    LoopFacts,
    MachineFacts,
    ModelFacts,
    RegistryFacts,
    ServerFacts,
    SkewFacts,
    StoreFacts,
    Traffic,
)
from pipelines.doctor.facts.files import broken_files
from pipelines.experiments.analysis import experiments_in, status_at
from pipelines.materialize import steps
from pipelines.materialize.damage import is_embedded, was_there
from pipelines.shipping.parts import LakeParts
from pipelines.shipping.ship import unshipped

T = TypeVar("T")


class fact(Generic[T]):
    """A property that is computed at its first use; what it raised then it raises at every later use. A text that is
    given says why not.
    """

    def __init__(self, gather: Callable[[Any], T | str]) -> None:
        self._gather, self._name, self.__doc__ = gather, gather.__name__, gather.__doc__

    def __get__(self, facts: Any, owner: type | None = None) -> T:
        """Return the fact; raise CannotSay where there is none."""
        known: dict[str, Any] = facts.__dict__
        if f"{self._name} failed" in known:
            raise known[f"{self._name} failed"]
        try:
            found = self._gather(facts)
            if isinstance(found, str):
                raise CannotSay(found)
        except Exception as error:
            known[f"{self._name} failed"] = error
            raise
        known[self._name] = found  # found before this descriptor from now on
        return found


class Facts:
    """All facts of one workspace at one moment.

    Args:
        now: microseconds since 1970.
        url: of a running server, to be asked too.
        known: facts by name, in place of what would be gathered.
    """

    def __init__(self, workspace: Workspace, now: Micros, url: str | None = None, **known: Any) -> None:
        self.workspace, self.now, self.url = workspace, now, url
        self.__dict__.update(known)

    def close(self) -> None:
        """Close what was opened."""
        con = self.__dict__.get("con")
        if con is not None:
            con.close()

    @fact
    def lake_files(self) -> BrokenFiles:
        """Return which files of the lake cannot be read."""
        return broken_files(self.workspace)

    @fact
    def con(self) -> duckdb.DuckDBPyConnection:
        """Return a connection to the lake."""
        if self.lake_files.broken:
            raise CannotSay("files of the lake cannot be read: see lake_files")
        return lake.connect(self.workspace)

    @fact
    def steps(self) -> steps.StepRecord:
        """Return the record of steps."""
        try:
            return steps.state_of(self.workspace)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CannotSay("steps.json is damaged: see state_files") from error

    @fact
    def ledger_verdict(self) -> Verdict:
        """Return what a look at every record of the embedded ledger finds."""
        if not is_embedded(self.workspace, "ledger"):
            raise CannotSay(
                "the ledger is in Redis, whose records cannot be looked at from here: `redis-cli --bigkeys` counts them"
            )
        if not was_there(self.workspace, "ledger"):
            raise CannotSay("there is no contact ledger yet")
        return verify(self.workspace.data / "ledger", "ledger")

    @fact
    def traffic(self) -> Traffic | str:
        """Return what was decided and heard lately."""
        return lake_facts.traffic(self.workspace, self.con, self.now)

    @fact
    def data(self) -> DataFacts | str:
        """Return how the tables of the lake fit together."""
        return lake_facts.data(self.workspace, self.con)

    @fact
    def log(self) -> LogFacts | str:
        """Return the counters of the event log."""
        return loop_facts.log(self.workspace)

    @fact
    def loop(self) -> LoopFacts | str:
        """Return how the shipper does."""
        try:
            return loop_facts.loop(self.workspace)
        except msgspec.MsgspecError as error:
            raise CannotSay("the state of the shipper is damaged: see state_files") from error

    @fact
    def store(self) -> StoreFacts | str:
        """Return the online store, by a sample."""
        self.steps  # noqa: B018
        return store_facts.store(self.workspace, self.now)

    @fact
    def skew(self) -> SkewFacts | str:
        """Online rows beside the lake."""
        if self.store.damage:
            raise CannotSay("the online store cannot be read: see store_empty")
        self.con  # noqa: B018 (windows are computed from the lake)
        return store_facts.skew(self.workspace)

    @fact
    def drift(self) -> DriftFacts | str:
        """Return what models saw."""
        return lake_facts.drift(self.workspace, self.con, self.now)

    @fact
    def limits(self) -> LimitFacts | str:
        """Return how often limits hold."""
        if self.workspace.policies.limits and is_embedded(self.workspace, "ledger") and self.ledger_verdict.why:
            raise CannotSay("the contact ledger is damaged: see ledger_damaged")
        return limits_facts.limits(self.workspace, self.con, self.now)

    @fact
    def budgets(self) -> tuple[BudgetFacts, ...] | str:
        """Return how budgets are used."""
        return limits_facts.budgets(self.workspace, self.con, self.now)

    @fact
    def registry(self) -> RegistryFacts | str:
        """Return what the registry says of versions and aliases."""
        return model_facts.registry(self.workspace)

    @fact
    def model(self) -> ModelFacts | str:
        """Return what serves."""
        try:
            registered = self.registry.registered
        except CannotSay:
            registered = {}
        return model_facts.model(self.workspace, self.con, registered)

    @fact
    def machine(self) -> MachineFacts | str:
        """Return the disk, and the keys."""
        return machine_facts.machine(self.workspace)

    @fact
    def server(self) -> ServerFacts | str:
        """Return what a running server answers."""
        return server_facts.server(self.url)

    @fact
    def unshipped(self) -> LakeParts:
        """Return what servers recorded and were told, and nobody brought into the lake yet."""
        try:
            return unshipped(self.workspace)
        except msgspec.MsgspecError as error:
            raise CannotSay("the state of the shipper is damaged: see state_files") from error

    @fact
    def experiments(self) -> Experiments:
        """Return those of the file, with their ramps as they stand."""
        return experiments_in(self.workspace)

    @fact
    def running(self) -> tuple[ReadExperiment, ...]:
        """Experiments that run now; one at least."""
        found = tuple(one for one in self.experiments.experiments if status_at(one, self.now) == "running")
        if not found:
            raise CannotSay("no experiment runs")
        return found
