"""The command `opportune`: checks that its packages are its own before it imports one.

A wheel of Opportune brings the packages `features`, `training`, `serving` and `pipelines`, words that others use too
(docs/decisions/0011-names.md says why). Where another package of one of these names comes first, the command says so,
instead of failing in the middle of an import.
"""

import importlib.util
import json
import sys
from pathlib import Path

PACKAGES = ("features", "training", "serving", "pipelines")
MARK = "py.typed"
"""A file that each of our packages holds, and that a folder of data does not."""


def main() -> None:
    """Run the command line; one line and status 1 where a package of ours is hidden by another."""
    here = Path(__file__).resolve().parent
    hidden = next((said for name in PACKAGES if (said := hidden_by(name, here))), None)
    if hidden is not None:
        if "--json" in sys.argv:
            problem = {"type": "urn:opportune:error:hidden-package", "title": "Hidden package", "exit_status": 1}
            print(json.dumps(problem | {"detail": hidden}))  # noqa: T201
        sys.exit(f"opportune: {hidden}")
    from pipelines.main import main as run

    run()


def hidden_by(name: str, here: Path) -> str | None:
    """Return what is wrong with where Python finds a package, which should be in the folder `here`; None if nothing."""
    spec = importlib.util.find_spec(name)
    found = [Path(place).resolve() for place in (spec.submodule_search_locations or ())] if spec else []
    if found[:1] == [here / name] and (here / name / MARK).is_file():
        return None
    place = found[0] if found else spec.origin if spec else "none"
    return (
        f"expected its own package `{name}` in {here / name}, got {place}: another package of this name comes first or"
        " was installed over it; install Opportune into an environment of its own (`uv tool install`, `pipx install`,"
        " or `python3 -m venv`), and take PYTHONPATH out of its way"
    )


if __name__ == "__main__":
    main()
