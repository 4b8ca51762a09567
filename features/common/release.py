"""Which release of this program is installed, and in which of its two distributions."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

FULL, SERVER = "opportune", "opportune-serve"
"""The two distributions of the same code: with everything, and with what `opportune serve` needs."""


def installed() -> tuple[str, str] | None:
    """Return the name and the version of the distribution that is installed; None where the code runs from a folder, as
    in a bento.
    """
    for name in (FULL, SERVER):
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    return None
