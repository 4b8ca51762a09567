"""A running server's files change under load, some well and some badly: no request fails, and each answer is of one set
of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from features.validation.load import load
from serving.hub.hub import digest_of
from serving.settings import WATCH_VARIABLE
from tests.serving.live import Answer, Live, load_on, serving_copy, wait_for

CHANGES = 200
REFUSED = 'opportune_refused_total{what="config"}'
VALUE_EXTRA = 1e12


def offers_file(base: dict[str, Any], version: int) -> dict[str, Any]:
    """Offers that show their version: in each treatment, in how many there are, and in one that only this version has,
    the dearest.
    """
    return {
        "placements": {**base["placements"], "home": {"limit": 2 + version % 3}},
        "treatments": [{"payload": {"version": version}}],
        "offers": [{"offer_id": f"extra-{version}", "value": VALUE_EXTRA, "placements": ["home"]}],
    }


def policies_file(version: int) -> dict[str, Any]:
    """Policies that show their version: a lever that brings one offer before all others but the extra one; every third
    has a limit.
    """
    limits = {"many": {"max": 100, "window": "1d", "per": "offer"}} if version % 3 == 0 else {}
    return {"arbitration": {"offers": {f"offer-{version % 10:02d}": 900 + version}}, "limits": limits}


@dataclass
class Files:
    """The files of a server, changed one at a time, and what every valid set of them is to show."""

    folder: Path
    staging: Path
    offers: int = 0
    policies: int | None = 0
    sets: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    """By digest: the versions of offers and policies; None where there is no policies file."""
    texts: dict[str, str] = field(default_factory=dict)
    """Files that do not change, as they are meant."""

    def __post_init__(self) -> None:
        self.staging.mkdir()
        for file in self.folder.glob("*.yaml"):
            self.texts[file.name] = file.read_text()
            (self.staging / file.name).write_text(self.texts[file.name])
        self.base = yaml.safe_load(self.texts["offers.yaml"])
        self.write("offers.yaml")
        self.write("policies.yaml")

    def text(self, name: str) -> str | None:
        """What a file is meant to say; on one line of braces, so that half of it is never whole."""
        if name == "offers.yaml":
            return yaml.safe_dump(offers_file(self.base, self.offers), default_flow_style=True)
        if name == "policies.yaml":
            return (
                None if self.policies is None else yaml.safe_dump(policies_file(self.policies), default_flow_style=True)
            )
        return self.texts[name]

    def write(self, name: str, whole: bool = True) -> str:
        """Write a file as it is meant, in one step or as an editor may do it; the digest of all files."""
        for folder in (self.staging, self.folder):
            text, file = self.text(name), folder / name
            if text is None:
                file.unlink(missing_ok=True)
            elif whole:
                file.with_suffix(".draft").write_text(text)
                file.with_suffix(".draft").replace(file)
            else:
                file.write_text(text)
            if folder is self.staging:  # known before the server can know
                digest = digest_of(load(folder, sources=False))
                self.sets[digest] = (self.offers, self.policies)
        return digest


def torn(file: Path) -> None:
    """As it is when it is written slowly."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


HASTY = (3, 6)
"""Turns of ten in which nobody waits until a change was seen."""
BROKEN: tuple[tuple[str, Callable[[Path], object], str], ...] = (
    ("policies.yaml", lambda file: file.write_text("rules: {a: {when: 'customer.nothing > 1'}}"), "customer.nothing"),
    ("offers.yaml", torn, "valid YAML"),
    ("policies.yaml", lambda file: file.write_text("rules: [\n- a: b: c"), "valid YAML"),
    ("offers.yaml", lambda file: file.unlink(), "no such file"),
    ("policies.yaml", lambda file: file.write_text("rules: {a: {when: 1 < 2}}"), "policies.yaml:1: at $.rules.a.when"),
    ("offers.yaml", lambda file: file.write_bytes(b""), "placements"),
    (
        "workspace.yaml",
        lambda file: file.write_text(file.read_text() + "\nstores: {online: {timeout_ms: 77}}\n"),
        "stores changed: restart",
    ),
    ("policies.yaml", lambda file: file.write_text("limits: {a: {max: 0, window: 1d}}"), "$.limits.a.max"),
    ("features.yaml", lambda file: file.write_bytes(b"\xff\xfe"), "UTF-8"),
    ("offers.yaml", lambda file: file.write_text("placements: {home: {limit: 1, k: 3}}"), "`k`"),
)
"""Ways to break a file, and what the log then says of it."""


@pytest.fixture
def live(trained_workspace: Path, tmp_path: Path) -> Iterator[tuple[Live, Files]]:
    folder = serving_copy(trained_workspace, tmp_path / "shop")
    files = Files(folder, tmp_path / "staging")
    server = Live(folder, workers=2, environment={WATCH_VARIABLE: "0.05"}).start()
    yield server, files
    server.stop()


def serves(live: Live) -> list[str]:
    """The digests that workers serve by now, in any order."""
    return [
        name.partition('config="')[2].partition('"')[0]
        for name in live.metrics()
        if name.startswith("opportune_bundle_info")
    ]


def check(answer: Answer, files: Files) -> str:
    """Hold an answer against the files that it names; their digest."""
    assert answer.status == 200, answer
    told = answer.json
    assert told["config"] in files.sets, "an answer of files that never were"
    version, policies = files.sets[told["config"]]
    offers = told["offers"]
    assert [offer["treatment"] for offer in offers] == [{"version": version}] * (2 + version % 3)
    assert [offer["offer_id"] for offer in offers if offer["offer_id"].startswith("extra-")] == [f"extra-{version}"]
    if policies is None:
        assert max(offer["score"] for offer in offers[1:]) < 1_000, "without policies there is no lever"
    else:
        number = policies % 10
        assert offers[1]["offer_id"] == f"offer-{number:02d}"
        assert offers[1]["score"] == pytest.approx(offers[1]["propensity"] * (5 + number) * (900 + policies), rel=1e-9)
    return str(told["config"])


@pytest.mark.slow
def test_two_hundred_changes_under_load(live: tuple[Live, Files]) -> None:
    """200 changes, half of them broken: nothing fails, what is broken is refused with its reason, each answer shows one
    set of files.
    """
    server, files = live
    tried = [0] * len(BROKEN)
    with load_on(server.port, connections=4, pause=0.005) as seen:
        wait_for(lambda: len(seen) > 50)
        for turn in range(CHANGES // 2):
            waits = (turn + turn // 10) % 10 not in HASTY
            """Whether both workers are waited for; else the next change comes at once."""
            name, damage, _ = BROKEN[turn % len(BROKEN)]
            before = server.metrics()[REFUSED]
            damage(server.workspace / name)
            tried[turn % len(BROKEN)] += 1
            if waits:
                wait_for(lambda before=before: server.metrics()[REFUSED] >= before + 2, what=f"the refusal of {name}")  # type: ignore[misc]
            if name == "policies.yaml":
                files.policies = None if turn % 20 == 2 else turn
            elif name == "offers.yaml":
                files.offers = turn
            digest = files.write(name, whole=turn % 4 < 2)
            if waits:
                wait_for(lambda digest=digest: serves(server) == [digest], what=f"version {turn}")  # type: ignore[misc]
        at = len(seen)
        wait_for(lambda: len(seen) > at + 50, what="answers of the last set")
    found = [check(answer, files) for answer in seen]
    assert tried == [CHANGES // 2 // len(BROKEN)] * len(BROKEN)
    assert {*found[at + 4 :]} == {digest}
    assert len({*found}) > CHANGES // 4, "many sets served"
    assert any(files.sets[digest][1] is None for digest in found), "also one without policies"
    log = (server.workspace / ".opportune" / "logs" / "server.log").read_text()
    refusals = [line for line in log.splitlines() if "files are refused, what they said before serves on: " in line]
    for *_, reason in BROKEN:
        assert sum(reason in line for line in refusals) >= CHANGES * (1 - len(HASTY) / 10) / len(BROKEN), reason
    assert len(refusals) == server.metrics()[REFUSED] >= CHANGES * (1 - len(HASTY) / 10), (
        "both workers refused what was waited for"
    )
    print(f"\n  {len(seen)} answers of {len({*found})} sets of files, {len(refusals)} refusals by two workers", end=" ")
