"""Six experimentation tools as they are, offline: the vendors' own code answers which arm a unit gets. And units to ask
for.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import eppo_client
from growthbook import GrowthBook
from ldclient import Context
from ldclient.impl.evaluator_common import _variation_index_for_context
from ldclient.impl.model import FeatureFlag
from optimizely.bucketer import Bucketer
from optimizely.entities import Experiment
from optimizely.logger import NoOpLogger
from statsig_python_core import Statsig, StatsigOptions, StatsigUser
from statsig_python_core.data_store import DataStore, DataStoreResponse
from yggdrasil_engine.engine import UnleashEngine

SEED = "summer-sale"
Ask = Callable[[str], str | None]
"""From a unit to the name of its arm, `arm-0` and so on; None for none."""

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-_:.@"
_FOREIGN = "äöüßéñçłŠΩжя日本語한글عरि😀🏳️‍🌈\u0301"


def units(count: int) -> Iterator[str]:
    """Random ids, always the same: numbers, short and long texts, half of them with letters outside ASCII."""
    chance = random.Random(42)
    for at in range(count):
        unit = (
            str(chance.randrange(10**9)) if at % 4 == 0 else "".join(chance.choices(_LETTERS, k=chance.randint(1, 40)))
        )
        if at % 2:
            unit += "".join(chance.choices(_FOREIGN, k=chance.randint(1, 8)))
        yield unit


def growthbook(weights: Sequence[float], coverage: float, version: int) -> Ask:
    """GrowthBook's `run`, with an inline experiment."""
    from growthbook.common_types import Experiment as Inline

    inline = Inline(
        key=SEED,
        variations=[*range(len(weights))],
        weights=[*weights],
        coverage=coverage,
        hashVersion=version,
        seed=SEED,
    )

    def ask(unit: str) -> str | None:
        result = GrowthBook(attributes={"id": unit}).run(inline)
        return f"arm-{result.variationId}" if result.inExperiment else None

    return ask


class _Silent(eppo_client.AssignmentLogger):
    def log_assignment(self, event: dict[str, Any]) -> None:
        """Nobody listens."""

    def log_bandit_action(self, event: dict[str, Any]) -> None:
        """Nobody listens."""


def eppo(salt: str, traffic_salt: str, ends: Sequence[int], traffic: int) -> Ask:
    """Eppo's client on a configuration given to it; it never reaches a server."""

    def shard(salt: str, start: int, end: int) -> dict[str, Any]:
        return {"salt": salt, "ranges": [{"start": start, "end": end}]}

    starts = [0, *ends]
    splits = [
        {"variationKey": f"arm-{at}", "shards": [shard(traffic_salt, 0, traffic), shard(salt, starts[at], end)]}
        for at, end in enumerate(ends)
    ]
    flag = {
        "key": "flag",
        "enabled": True,
        "variationType": "STRING",
        "variations": {f"arm-{at}": {"key": f"arm-{at}", "value": f"arm-{at}"} for at in range(len(ends))},
        "allocations": [{"key": "all", "splits": splits, "doLog": False}],
        "totalShards": 10_000,
    }
    given = {
        "createdAt": "2026-01-01T00:00:00Z",
        "format": "SERVER",
        "environment": {"name": "Test"},
        "flags": {"flag": flag},
    }
    config = eppo_client.ClientConfig(
        api_key="none",
        base_url="http://127.0.0.1:1",
        assignment_logger=_Silent(),
        poll_interval_seconds=None,
        initial_configuration=eppo_client.Configuration(flags_configuration=json.dumps(given).encode()),
    )
    client = eppo_client.init(config)
    return lambda unit: client.get_string_assignment("flag", unit, {}, "") or None


def unleash(group: str, weights: Sequence[int], percent: int) -> Ask:
    """The engine that Unleash's clients run, on a feature with a gradual rollout and variants."""
    strategy = {
        "name": "flexibleRollout",
        "parameters": {"rollout": str(percent), "stickiness": "userId", "groupId": group},
        "variants": [
            {"name": f"arm-{at}", "weight": weight, "weightType": "fix", "stickiness": "userId"}
            for at, weight in enumerate(weights)
        ],
    }
    engine = UnleashEngine()
    engine.take_state(
        json.dumps({"version": 2, "features": [{"name": "feature", "enabled": True, "strategies": [strategy]}]})
    )

    def ask(unit: str) -> str | None:
        variant = engine.get_variant("feature", {"userId": unit}).variant
        return variant.name if variant.enabled else None

    return ask


class _Config:
    logger = NoOpLogger()


def optimizely(experiment_id: str, ends: Sequence[int]) -> Ask:
    """Optimizely's bucketer on a traffic allocation."""
    bucketer, config = Bucketer(), _Config()
    allocation = [{"entityId": f"arm-{at}", "endOfRange": end} for at, end in enumerate(ends)]
    experiment = Experiment(experiment_id, "key", "Running", [], [], {}, allocation, "layer")
    return lambda unit: bucketer.bucket_to_entity_id(config, experiment, unit, unit)[0] or None  # type: ignore[arg-type]


class _Specs(DataStore):
    def __init__(self, specs: dict[str, Any]) -> None:
        super().__init__()
        self._specs = json.dumps(specs)

    def get(self, key: str) -> DataStoreResponse:
        return DataStoreResponse(result=self._specs, time=1_700_000_000_000)


@contextmanager
def statsig(salt: str, rule: str, percent: float, ends: Sequence[int]) -> Iterator[tuple[Ask, Ask]]:
    """Statsig's core on rules given to it: a gate that lets a percentage pass, and an experiment whose groups end at
    these of 1,000.
    """
    common = {"isDeviceBased": False, "idType": "userID"}

    def bucket_below(end: int) -> dict[str, Any]:
        return common | {
            "type": "user_bucket",
            "operator": "lt",
            "targetValue": end,
            "field": None,
            "additionalValues": {"salt": salt},
        }

    conditions = {
        "all": common | {"type": "public", "operator": None, "targetValue": None, "field": None, "additionalValues": {}}
    }
    conditions |= {str(end): bucket_below(end) for end in ends}
    groups = [
        common
        | {
            "id": f"arm-{at}",
            "name": f"arm-{at}",
            "groupName": f"arm-{at}",
            "salt": "",
            "passPercentage": 100,
            "isExperimentGroup": True,
        }
        | {"conditions": [str(end)], "returnValue": {"arm": f"arm-{at}"}}
        for at, end in enumerate(ends)
    ]
    passes = common | {
        "id": rule,
        "name": rule,
        "salt": rule,
        "passPercentage": percent,
        "conditions": ["all"],
        "returnValue": True,
    }
    gate = common | {
        "name": "gate",
        "type": "feature_gate",
        "entity": "feature_gate",
        "salt": salt,
        "enabled": True,
        "defaultValue": False,
    }
    test = common | {
        "name": "test",
        "type": "dynamic_config",
        "entity": "experiment",
        "salt": salt,
        "enabled": True,
        "defaultValue": {},
    }
    specs = {
        "has_updates": True,
        "time": 1_700_000_000_000,
        "condition_map": conditions,
        "experiment_to_layer": {},
        "feature_gates": {"gate": gate | {"rules": [passes], "version": 1}},
        "dynamic_configs": {"test": test | {"rules": groups, "version": 1, "isActive": True, "explicitParameters": []}},
        "layer_configs": {},
        "layers": {},
        "id_lists": {},
        "response_format": "dcs-v1",
    }
    options = StatsigOptions(
        disable_network=True, disable_all_logging=True, disable_country_lookup=True, output_log_level="none"
    )
    options.data_store = _Specs(specs)
    client = Statsig("secret-none", options)
    client.initialize().wait()

    def group(unit: str) -> str | None:
        return client.get_experiment(StatsigUser(unit), "test").value.get("arm")

    try:
        yield lambda unit: "arm-0" if client.check_gate(StatsigUser(unit), "gate") else None, group
    finally:
        client.shutdown().wait()


def launchdarkly(flag: str, salt: str, weights: Sequence[int]) -> Ask:
    """LaunchDarkly's evaluator on an experiment's rollout; what the weights leave of 100,000 is untracked."""
    listed = [{"variation": at, "weight": weight} for at, weight in enumerate(weights)]
    rest = 100_000 - sum(weights)
    listed += [{"variation": 0, "weight": rest, "untracked": True}] if rest else []
    rollout = {"kind": "experiment", "variations": listed}
    model = FeatureFlag(
        {
            "key": flag,
            "version": 1,
            "salt": salt,
            "on": True,
            "variations": [*range(len(weights))],
            "fallthrough": {"rollout": rollout},
        }
    )

    def ask(unit: str) -> str | None:
        variation, tracked = _variation_index_for_context(model, model.fallthrough, Context.create(unit))
        return f"arm-{variation}" if tracked else None

    return ask
