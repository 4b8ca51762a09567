"""The rules of the house: who may import whom, which vendor lives where, what no file may hold.

Every check says how much it looked at: one that looked at nothing has failed.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.house import PACKAGES, ROOT, files, imports, modules, refuse, tree

# vendor -> the files that may know it
ROOMS: dict[str, tuple[str, ...]] = {
    "feast": ("features/feature_store/*.py",),
    "mlflow": ("training/bundle/registry.py",),
    "lightgbm": ("training/bundle/*.py", "training/fitting/*.py"),
    "sklearn": ("training/fitting/*.py",),
    "bentoml": ("serving/service.py",),
    "_bentoml_sdk": ("serving/service.py",),
    "_bentoml_impl": ("serving/service.py",),
    "uvicorn": ("serving/uvicorn_protocol.py",),
    "lmdb": ("features/lmdb_store/*.py", "features/ledger/lmdb_*.py", "features/feature_store/lmdb_*.py"),
    "redis": ("features/redis_store/*.py", "features/ledger/redis_*.py"),
    "hiredis": ("features/redis_store/*.py", "features/ledger/redis_*.py"),
    "scipy": ("pipelines/statistics/*.py", "pipelines/doctor/service/experiments.py"),
}
ROOMS_SEEN = {
    "feast",
    "mlflow",
    "lightgbm",
    "sklearn",
    "bentoml",
    "uvicorn",
    "lmdb",
    "hiredis",
    "scipy",
}  # a rule about a vendor nobody uses checks nothing

LINES_MAX = 320
LINES_MANY = 300
README_LINES_MAX = 150
# file -> why it may be longer than LINES_MAX
LONG_FILES: dict[str, str] = {}

# serving answers requests without these; serving/service.py is BentoML's room and is left out
HEAVY = ("feast", "mlflow", "lightgbm", "pandas", "duckdb", "pyarrow")
CORE = (
    "features.common.types",
    "features.columns.layout",
    "features.columns.rows",
    "features.lmdb_store.engine",
    "features.redis_store.engine",
    "training.bundle.forest",
)
CORE_MODULES_MIN = 8

# The shape of an address, not a list of hosts: whoever mirrors a registry under another name is caught too.
REGISTRY_ADDRESS = re.compile(
    rb"https?://[^\s\"'<>]+/(?:simple|packages|-)/"
    rb"|\b[\w.-]*(?:pypi|pythonhosted|npmjs|yarnpkg)[\w.-]*\.(?:org|com|net|io|dev)\b"
    rb"|(?m:^\s*--?(?:extra-)?(?:index|find-links)(?:-url)?[ =]\S*[/:])"
    rb"|\"resolved\":\s*\"(?:http|file)"
)
MACHINE_PATH = re.compile(rb"(?<![\w./~$}-])/(?:home|Users|root|work)/[\w.-]+")


def test_imports_point_left() -> None:
    """A package imports itself and what stands left of it: features, training, serving, pipelines."""
    faults, seen = [], 0
    for file in modules():
        allowed = PACKAGES[: PACKAGES.index(file.parts[0]) + 1]
        for line, name in imports(file):
            top = name.split(".")[0]
            seen += top in PACKAGES
            if name.startswith("."):
                faults.append(f"{file}:{line}: expected an absolute import, got `{name}`")
            elif top in PACKAGES and top not in allowed:
                faults.append(f"{file}:{line}: {file.parts[0]} may import {', '.join(allowed)}, got `{name}`")
    refuse(faults)
    assert seen >= 20, f"expected imports between our own modules, found {seen}"


def test_one_vendor_one_room() -> None:
    """Each vendor is imported only in the room that ROOMS names."""
    faults, seen = [], set()
    for file in modules():
        for line, name in imports(file):
            top = name.split(".")[0]
            if top not in ROOMS:
                continue
            if any(fnmatch(file.as_posix(), room) for room in ROOMS[top]):
                seen.add(top)
            else:
                faults.append(f"{file}:{line}: `{top}` belongs to {' or '.join(ROOMS[top])}")
    refuse(faults)
    assert seen >= ROOMS_SEEN, (
        f"expected to find every vendor in its room, missed {', '.join(sorted(ROOMS_SEEN - seen))}"
    )


def test_packages_import_only_what_pyproject_names() -> None:
    """Whatever a package imports from outside is a dependency of its own, not somebody else's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    owners = packages_distributions()
    faults, seen = [], set()
    for file in modules():
        for line, name in imports(file):
            top = name.split(".")[0]
            if not top or top in sys.stdlib_module_names or top in PACKAGES:
                continue
            owned = {canonicalize_name(owner) for owner in owners.get(top, [])}
            seen |= owned & named
            if not owned & named:
                faults.append(
                    f"{file}:{line}: `{top}` is of {', '.join(sorted(owned)) or 'nobody'}, which pyproject.toml does"
                    " not name"
                )
    refuse(faults)
    assert len(seen) >= 5, f"expected several dependencies in use, found {sorted(seen)}"


def test_package_files_hold_only_a_docstring() -> None:
    """An `__init__.py` says what lives in the room, and nothing else."""
    found = [file for file in modules() if file.name == "__init__.py"]
    faults = [str(file) for file in found if len(tree(file).body) != 1 or ast.get_docstring(tree(file)) is None]
    refuse(faults)
    assert {file.parts[0] for file in found} == set(PACKAGES), f"expected one for each of {PACKAGES}, found {found}"


def _undocumented(file: Path) -> Iterator[str]:
    module = tree(file)
    if ast.get_docstring(module) is None:
        yield f"{file}:1: the module says nothing about itself"
    for node in module.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None and not _titled(node):
            yield f"{file}:{node.lineno}: `{node.name}` is public and says nothing about itself"


def _titled(node: ast.AST) -> bool:
    """Whether the class carries its own public words (`title`, `text`), as the problems of the API do."""
    assigned = [part for part in getattr(node, "body", []) if isinstance(part, ast.Assign | ast.AnnAssign)]
    names = {
        name.id
        for part in assigned
        for name in ast.walk(part)
        if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
    }
    return isinstance(node, ast.ClassDef) and bool(names & {"title", "text"})


def test_what_is_public_says_what_it_is() -> None:
    """Every module and every public function and class of the packages has a docstring."""
    looked_at = modules()
    faults = [fault for file in looked_at for fault in _undocumented(file)]
    refuse(faults)
    assert len(looked_at) >= 20, f"expected the packages, looked at {len(looked_at)} files"


def test_every_test_opens_with_one_sentence() -> None:
    """A test function says in one sentence what it shows."""
    faults, seen = [], 0
    for file in modules("tests"):
        if not file.name.startswith("test_"):
            continue
        for node in ast.walk(tree(file)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
                continue
            seen += 1
            opening = (ast.get_docstring(node) or "").split("\n\n")[0].strip()
            if not opening.endswith(".") or re.search(r"[.!?]\s+[A-Z]", opening):
                faults.append(
                    f"{file}:{node.lineno}: `{node.name}` opens with {opening!r}, expected one sentence with its full"
                    " stop"
                )
    refuse(faults)
    assert seen >= 10, f"expected tests, found {seen}"


def test_files_stay_small(capsys: pytest.CaptureFixture[str]) -> None:
    """No Python file is longer than its limit, and those on their way are named."""
    lines = {file.as_posix(): (ROOT / file).read_bytes().count(b"\n") for file in files() if file.suffix == ".py"}
    many = sorted(((count, name) for name, count in lines.items() if count > LINES_MANY), reverse=True)
    with capsys.disabled():
        if many:
            print(f"\n  over {LINES_MANY} lines: " + ", ".join(f"{name} {count}" for count, name in many))
    too_many = [
        f"{name}: {count} lines; one noun, one file"
        for count, name in many
        if count > LINES_MAX and name not in LONG_FILES
    ]
    stale = [
        f"{name}: is no longer long; take it out of LONG_FILES"
        for name in LONG_FILES
        if lines.get(name, 0) <= LINES_MAX
    ]
    refuse(too_many + stale)
    assert len(lines) >= 20, f"expected the Python files of the repository, found {len(lines)}"


def test_readme_is_short() -> None:
    """The README fits in 150 lines; a manual lives in docs/."""
    count = len((ROOT / "README.md").read_text().splitlines())
    assert 1 <= count <= README_LINES_MAX, f"expected 1 to {README_LINES_MAX} lines, got {count}"


def test_no_file_holds_a_registry_address_or_a_machine_path() -> None:
    """Nothing committed names the package registry or a folder of the machine it was written on."""
    here = [bytes(path) for path in (ROOT, Path.home()) if len(path.parts) > 2]
    own = re.compile(rb"(?<![\w./-])(?:" + b"|".join(map(re.escape, here)) + rb")(?![\w-])") if here else None
    faults = []
    for file in files():
        content = (ROOT / file).read_bytes()
        for pattern, what in (
            (REGISTRY_ADDRESS, "the address of a registry"),
            (MACHINE_PATH, "a path"),
            (own, "a path"),
        ):
            found = pattern.search(content) if pattern else None
            if found:
                line = content.count(b"\n", 0, found.start()) + 1
                faults.append(
                    f"{file}:{line}: holds {what} of a machine: {found.group().decode(errors='replace').strip()!r}"
                )
    refuse(faults)
    assert len(files()) >= 40, f"expected the files of the repository, found {len(files())}"


def test_lock_pins_every_package_with_its_hashes() -> None:
    """The lock names exact versions with hashes, from no address, and holds all that pyproject.toml asks for."""
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    pins: dict[str, str] = {}
    faults = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = re.match(r"([\w.-]+)==([^\s;]+)(?:\s*;[^\\]*?)?\s+--hash=sha256:[0-9a-f]{64}", line)
        if not found:
            faults.append(f"expected `name==version --hash=sha256:…`, got {line[:80]!r}")
        else:
            pins[canonicalize_name(found[1])] = found[2]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in map(Requirement, project["dependencies"] + project["optional-dependencies"]["test"]):
        pinned = pins.get(canonicalize_name(wanted.name))
        if pinned is None or not wanted.specifier.contains(pinned):
            faults.append(f"pyproject.toml asks for `{wanted}`, the lock has {pinned}: run `make lock`")
    refuse(faults)
    assert len(pins) >= 100, f"expected the whole environment, found {len(pins)} pins"


PROBE = """
import importlib, json, sys
heavy, modules = json.loads(sys.argv[1])
for name in modules:
    importlib.import_module(name)
    came = [vendor for vendor in heavy if vendor in sys.modules]
    if came:
        print(json.dumps([name, came]))
        break
else:
    print("light", len(modules))
"""


def test_the_core_of_serving_is_light() -> None:
    """Importing all of serving but BentoML's room loads none of the libraries that training and the lake need."""
    present = [file for file in modules("serving") if file.name not in {"__init__.py", "service.py"}]
    core = [name for name in CORE if (ROOT / (name.replace(".", "/") + ".py")).exists()]
    core += [".".join(file.with_suffix("").parts) for file in present]
    assert len(core) >= CORE_MODULES_MIN, f"expected the modules of the core, found {core}"
    told = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([HEAVY, core])], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.split() == [
        "light",
        str(len(core)),
    ], f"the first module that loads what it must not: {told.stdout}"
