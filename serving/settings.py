"""What the environment tells a server: read once, checked at boot, fatal when wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from features.common.errors import Failure
from serving.http.auth import FILE_VARIABLE, Keys
from serving.http.cors import ANY, ORIGINS_MAX, Origins, is_origin

WORKSPACE_VARIABLE = "OPPORTUNE_WORKSPACE"
WORKERS_VARIABLE = "OPPORTUNE_WORKERS"
DRAIN_VARIABLE = "OPPORTUNE_DRAIN_SECONDS"
WATCH_VARIABLE = "OPPORTUNE_WATCH_SECONDS"
OFREP_VARIABLE = "OPPORTUNE_OFREP_PER_SECOND"
ORIGINS_VARIABLE = "OPPORTUNE_ALLOWED_ORIGINS"
KEEP_ALIVE_VARIABLE = "OPPORTUNE_KEEP_ALIVE_SECONDS"

KEEP_ALIVE_SECONDS = 75.0
"""Longer than the 60 s for which the usual balancers keep an idle connection: the side that closes first must be
theirs.
"""
KEEP_ALIVE_SECONDS_MAX = 3_600.0

WORKERS_MAX = 64
BESIDE_SERVICE = Path(__file__).parents[1] / "workspace"
"""Where a packaged service carries its workspace."""


class BadSettings(Failure):
    """A variable of the environment that cannot be used."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one server process."""

    workspace: Path
    workers: int = 1
    drain_seconds: float = 2.0
    """How long a worker goes on answering after it was told to stop, so that balancers notice."""
    watch_seconds: float = 1.0
    """How often a worker looks for a new bundle, catalogue or files of the workspace."""
    ofrep_per_second: int | None = None
    """Bound on evaluations of flags a second, for each name of a key and each worker; None: without bound."""
    origins: tuple[str, ...] = ()
    """Whose pages may call from browsers (CORS): exact origins, or `*` alone; none when empty."""
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS
    """How long a connection stays open without a request."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Raises BadSettings with the variable, what was expected and what came."""
        given = environment.get(WORKSPACE_VARIABLE)
        workspace = Path(given) if given else BESIDE_SERVICE
        if not (workspace / "workspace.yaml").is_file():
            raise BadSettings(
                f"{WORKSPACE_VARIABLE}: expected the folder of a workspace, got {given or 'nothing'}. Start with"
                " `opportune up -w DIR`."
            )
        return cls(
            workspace.resolve(),
            int(_number(environment, WORKERS_VARIABLE, 1, 1, WORKERS_MAX)),
            _number(environment, DRAIN_VARIABLE, 2, 0, 60),
            _number(environment, WATCH_VARIABLE, 1, 0.05, 60),
            int(_number(environment, OFREP_VARIABLE, 0, 1, 1e6)) or None,
            _origins(environment.get(ORIGINS_VARIABLE, "")),
            _number(environment, KEEP_ALIVE_VARIABLE, KEEP_ALIVE_SECONDS, 1, KEEP_ALIVE_SECONDS_MAX),
        )


def origins_for(settings: Settings, keys: Keys) -> Origins | None:
    """Return whose pages may call; None: nobody's.

    Raises:
        BadSettings: every page may, and nobody needs a key: any web site could read what this machine decides.
    """
    if ANY in settings.origins and not keys.configured:
        raise BadSettings(
            f"{ORIGINS_VARIABLE}: expected origins by name, got {ANY!r} without keys: name them, or configure"
            f" {FILE_VARIABLE}"
        )
    return Origins(settings.origins) if settings.origins else None


def _origins(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(text.replace(",", " ").split()))
    if found == (ANY,):
        return found
    if bad := next((one for one in found if not is_origin(one)), None):
        expected = "origins as browsers send them (https://shop.example), with blanks or commas between, or `*` alone"
        raise BadSettings(f"{ORIGINS_VARIABLE}: expected {expected}, got {bad!r}")
    if len(found) > ORIGINS_MAX:
        raise BadSettings(f"{ORIGINS_VARIABLE}: expected at most {ORIGINS_MAX} origins, got {len(found)}")
    return found


def _number(environment: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    text = environment.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise BadSettings(f"{name}: expected a number from {least:g} to {most:g}, got {text!r}")
    return value
