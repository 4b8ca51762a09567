"""`${NAME}` in the values of a workspace file: filled in from the environment, so that a secret need not stand in the
file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from features.common.errors import Failure
from features.config.faults import Path, shown

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def unset(value: Any, environment: Mapping[str, str], path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Return where a variable is named that is not set, and its name. A set variable may be empty."""
    if isinstance(value, str):
        yield from ((path, name) for name in _PLACEHOLDER.findall(value) if name not in environment)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from unset(part, environment, (*path, str(key)))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from unset(part, environment, (*path, index))


def filled(value: Any, environment: Mapping[str, str]) -> Any:
    """Return a copy with each placeholder replaced; what comes from the environment is always a text, and is not looked
    at again.

    Raises:
        Failure: when a variable is not set.
    """
    for path, name in unset(value, environment):
        raise Failure(
            f"at {shown(path)}: expected the variable {name} in the environment, got none: set it and try again"
        )
    return _filled(value, environment)


def _filled(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda found: environment[found[1]], value)
    if isinstance(value, dict):
        return {key: _filled(part, environment) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, environment) for part in value]
    return value
