"""What the server answers clients of OpenFeature and hears from them, and the hook that applications copy."""

from __future__ import annotations

import importlib.util
from typing import Any

from features.common.types import Event
from features.events.log import event_folder, read
from features.validation.load import load
from tests.serving.live import ROOT, Live

CUSTOMERS = [f"436{600_000 + number}" for number in range(60)]


def answers(live: Live, key: str, experiment: str) -> dict[str, dict[str, Any]]:
    """By customer, what the server says by its own API."""
    path = f"/v1/experiments/{experiment}/assignments/"
    return {customer: live.ask("GET", path + customer, x_api_key=key).json["assignment"] for customer in CUSTOMERS}


def logged(live: Live) -> list[Event]:
    """All events that the server took, in their order."""
    folder = event_folder(load(live.workspace, sources=False).data)
    return [row.event for row in read(folder, 0)] if any(folder.glob("*.db")) else []


def hook_module() -> Any:
    """`clients/python/opportune_openfeature.py`, which applications copy."""
    spec = importlib.util.spec_from_file_location(
        "opportune_openfeature", ROOT / "clients" / "python" / "opportune_openfeature.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
