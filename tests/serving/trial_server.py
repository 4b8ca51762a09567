"""A workspace with experiments of every kind, and keys, for the tests that ask for variants over HTTP."""

from __future__ import annotations

from pathlib import Path

import yaml

from serving.http.auth import Role, entry_yaml, new_key
from tests.serving.live import serving_copy

EXPERIMENTS = {
    "account": "customer.tariff",
    "holdout": {"share": 0.1},
    "control_groups": {"random_eligible": 0.05},
    "experiments": {
        "headline": {
            "status": "running",
            "description": "Which headline?",
            "arms": {"plain": {"weight": 0.5}, "loud": {"weight": 0.5}},
        },
        "one-or-two": {
            "status": "running",
            "coverage": 0.3,
            "arms": {"two": {}, "one": {"changes": {"placements": {"home": {"limit": 1}}}}},
        },
        "kept": {"status": "running", "sticky": True, "arms": {"a": {"weight": 0.5}, "b": {"weight": 0.5}}},
        "visitor": {
            "status": "running",
            "unit": "anonymous",
            "hash": "eppo",
            "arms": {"left": {}, "right": {"control": True}},
        },
        "tariffs": {"status": "running", "unit": "account", "arms": {"x": {}, "y": {}}},
        "app-only": {
            "status": "running",
            "targeting": 'context.channel == "app"',
            "arms": {"on": {"weight": 1}, "off": {"weight": 0}},
        },
        "rich": {"status": "running", "targeting": "customer.monthly_fee > 30", "arms": {"yes": {}, "no": {}}},
        "later": {"status": "running", "start": "2099-01-01", "arms": {"a": {}, "b": {}}},
        "idea": {"arms": {"a": {}, "b": {}}},
    },
}
RUNNING = [key for key, one in EXPERIMENTS["experiments"].items() if one.get("status") == "running"]  # type: ignore[attr-defined]
ROLES: tuple[Role, ...] = ("decide", "events", "experiments", "admin")


def trial_workspace(trained: Path, target: Path) -> Path:
    """A copy to serve, with experiments."""
    folder = serving_copy(trained, target)
    (folder / "experiments.yaml").write_text(yaml.safe_dump(EXPERIMENTS, sort_keys=False))
    return folder


def keys_file(folder: Path) -> tuple[Path, dict[str, str]]:
    """A file with a key for each role, and one (`app`) for an application that asks for flags and tells what
    happened.
    """
    made = {name: new_key(name, (name,)) for name in ROLES} | {
        "app": new_key("app", ("decide", "experiments", "events"))
    }
    file = folder / "keys.yaml"
    file.write_text("".join(entry_yaml(entry) for _, entry in made.values()))
    file.chmod(0o600)
    return file, {name: key for name, (key, _) in made.items()}
