"""A small workspace with an experiments.yaml that has no faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from features.config.documents import Document
from features.validation.load import load
from features.workspace.workspace import Workspace

WORKSPACE: dict[str, Any] = {
    "workspace": {"name": "fernruf", "currency": "EUR"},
    "features": {
        "customer": {
            "attributes": {
                "tenure_days": {"dtype": "number", "unit": "days"},
                "household": {"dtype": "category", "model": False},
                "tariff": {"dtype": "category"},
            }
        },
        "offer": {"topic": {"dtype": "category"}},
        "context": {
            "channel": {"dtype": "category", "values": ["app", "web"]},
            "page": {"dtype": "category", "model": False},
        },
    },
    "offers": {
        "placements": {"home": {"limit": 3}, "bill": {"limit": 1}},
        "offers": [
            {"offer_id": "data-5", "group": "sales", "value": 5, "values": {"service": 1}},
            {"offer_id": "repair", "group": "help", "value": 0},
        ],
    },
    "policies": {
        "segments": {"loyal": "customer.tenure_days >= 730", "dear": "offer.value > 3"},
        "rules": {
            "known": {"when": "customer.tenure_days >= 90", "groups": ["sales"]},
            "cheap": {"when": "offer.value < 50", "stage": "suitability"},
        },
        "arbitration": {
            "worth": {"service": 2},
            "weights": {"on_app": {"when": 'context.channel == "app"', "weight": 2}},
        },
    },
    "model": {"name": "accepts", "label": {"outcome": "accepted"}},
}

EXPERIMENTS: dict[str, Any] = {
    "account": "customer.household",
    "holdout": {"share": 0.02, "salt": "2026-h2"},
    "control_groups": {"random_eligible": 0.01, "no_levers": 0.02},
    "experiments": {
        "louder-levers": {
            "description": "Levers twice as loud.",
            "status": "running",
            "unit": "account",
            "start": "2026-11-01",
            "end": "2026-12-01T00:00:00+01:00",
            "coverage": 0.5,
            "sticky": True,
            "bucket_version": 3,
            "min_bucket_version": 2,
            "targeting": 'segment.loyal and context.channel == "app"',
            "namespace": {"name": "levers", "range": [0, 0.5]},
            "arms": {
                "control": {"weight": 0.4},
                "treatment": {
                    "weight": 0.6,
                    "changes": {
                        "model": "challenger",
                        "arbitration": {
                            "formula": "propensity * value * lever",
                            "worth": {"service": 3},
                            "weights": {"on_app": 4},
                            "offers": {"data-5": 1.5},
                            "groups": {"help": 0.5},
                        },
                        "rules": {"off": ["cheap"]},
                        "placements": {"home": {"limit": 2, "groups": ["help"], "fallback": ["repair"]}},
                        "exploration": {"gamma": 100, "floor": 0.05},
                    },
                },
            },
        },
        "other": {
            "namespace": {"name": "levers", "range": [0.5, 1]},
            "unit": "account",
            "arms": {"a": {}, "b": {"control": True}, "c": {}},
        },
    },
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("experiments")
    for name, content in WORKSPACE.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return load(folder)


def document(content: Any) -> Document:
    return Document(
        Path("experiments.yaml"), "experiments.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    )
