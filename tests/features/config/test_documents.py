"""Workspace files as text: each class of bad file has its message, with the line, the path, what was expected and what
came.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from features.config.documents import BadWorkspace, Document
from features.config.faults import FAULTS_MAX
from features.config.features_file import FeaturesFile
from features.config.model_file import ModelFile
from features.config.offers_file import OffersFile
from features.config.policies import PoliciesFile
from features.config.workspace_file import WorkspaceFile
from tests.workspace_documents import FEATURES, MODEL, OFFERS, POLICIES, WORKSPACE


def told(text: str | bytes, kind: Any = FeaturesFile, folder: Path | None = None) -> list[str]:
    """The faults of a file, as a person reads them."""
    with pytest.raises(BadWorkspace) as caught:
        if isinstance(text, bytes):
            assert folder is not None
            (folder / "f.yaml").write_bytes(text)
            Document(folder / "f.yaml", "f.yaml").convert(kind)
        else:
            Document(Path("absent"), "f.yaml", text).convert(kind)
    assert str(caught.value) == "\n".join(map(str, caught.value.faults))
    return [str(fault) for fault in caught.value.faults]


NOT_PLAIN = [
    ("customer: {", "f.yaml:1: at $: expected valid YAML, got an error while parsing a flow node"),
    (
        "\tcustomer: {}",
        "f.yaml:1: at $: expected valid YAML, got an error while scanning for the next token found character '\\t'",
    ),
    ("a: 1\n---\nb: 2", "f.yaml:2: at $: expected valid YAML, got an error expected a single document"),
    ("a: *b", "f.yaml:1: at $: expected valid YAML, got an error found undefined alias 'b'"),
    ("streams:\n  a: {}\n  a: {}", "f.yaml:3: at $.streams.a: expected each key once, got the key again"),
    ("a: !!python/name:os.system x", "f.yaml:1: at $.a: expected a value without a tag, got `python/name"),
    ("a: !!timestamp soon", "f.yaml:1: at $.a: expected a value without a tag, got `timestamp`. Remove the tag."),
    ("? !!binary x\n: 1", "f.yaml:1: at $.x: expected a value without a tag, got `binary`. Remove the tag."),
    ("a: 1e999", "f.yaml:1: at $.a: expected a number within range, got `1e999`"),
    (
        "? [a]\n: 1",
        "f.yaml:1: at $: expected valid YAML, got an error while constructing a mapping found unhashable key",
    ),
    ("a: &a [*a]", "expected at most 32 levels, got more"),
    ("[" * 3_000, "f.yaml: at $: expected at most 32 levels, got many more"),
    (
        "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10))]),
        "expected at most 500000 parts",
    ),
    ("a: \x01", "expected valid YAML, got"),
]


@pytest.mark.parametrize(("text", "message"), NOT_PLAIN, ids=range(len(NOT_PLAIN)))
def test_what_is_not_plain_yaml_is_refused(text: str, message: str) -> None:
    """Bad syntax, duplicate keys, tags, anchors without bound: refused with the line."""
    (fault,) = told(text)
    assert message in fault


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    """A file that is not UTF-8, too large or missing says so."""
    assert told(b"a: \xff", folder=tmp_path) == [
        "f.yaml:1: at $: expected UTF-8 text, got a byte that is not. Save the file as UTF-8."
    ]
    assert told(b"#" * (8 << 20) + b"\n", folder=tmp_path) == [
        "f.yaml: at $: expected at most 8388608 bytes, got 8388609 bytes"
    ]
    with pytest.raises(
        BadWorkspace, match="features.yaml: at \\$: expected a readable file, got no such file or directory"
    ):
        Document(tmp_path / "features.yaml", "features.yaml")


NOT_OURS: list[tuple[Any, str, str]] = [
    (FeaturesFile, "[]", "f.yaml:1: at $: expected a mapping, got a list"),
    (FeaturesFile, "~", "f.yaml:1: at $: expected a mapping, got nothing"),
    (FeaturesFile, "steams: {}", "f.yaml:1: at $.steams: expected a known key, got `steams`. Did you mean `streams`?"),
    (FeaturesFile, "qqq: {}", "Known keys here: columns, consent, context, customer, offer, pairs, streams."),
    (FeaturesFile, "1: {}", "f.yaml:1: at $.1: expected a text, got `1`"),
    (
        FeaturesFile,
        "streams:\n  Calls: {}",
        "f.yaml:2: at $.streams.Calls: expected a name of lower case letters, digits and underscores",
    ),
    (
        FeaturesFile,
        "streams:\n  a: {}\n  b:\n    numbers: x",
        "f.yaml:4: at $.streams.b.numbers: expected a list, got 'x'",
    ),
    (
        FeaturesFile,
        "streams:\n  b:\n    numbers:\n    - a\n    - 7",
        "f.yaml:5: at $.streams.b.numbers[1]: expected a text, got 7. Put it in quotes.",
    ),
    (
        FeaturesFile,
        "customer: {attributes: {a: {dtype: txt}}}",
        "expected one of boolean, category, integer, number, time, got 'txt'",
    ),
    (FeaturesFile, "customer: {attributes: {a: {dtype: nmber}}}", "Did you mean `number`?"),
    (
        FeaturesFile,
        "customer: {attributes: {a: {}}}",
        "at $.customer.attributes.a: expected the key `dtype`, got a mapping without it",
    ),
    (
        FeaturesFile,
        "columns: {a: {stream: s, aggregate: sum, windows: []}}",
        "at $.columns.a.windows: expected a list of length >= 1, got []",
    ),
    (
        FeaturesFile,
        "columns: {a: {stream: s, aggregate: sum, windows: [30x]}}",
        "expected a window like 12h, 30d or 4w, or all, got '30x'",
    ),
    (
        FeaturesFile,
        "columns: {a: {stream: s, aggregate: sum, windows: [0d]}}",
        "expected a window like 12h, 30d or 4w, or all, got '0d'",
    ),
    (FeaturesFile, "columns: {a: {stream: s, aggregate: sum, windows: [٣d]}}", "expected a window like"),
    (FeaturesFile, "customer: {freshness: soon}", "expected a duration like 30m, 12h, 7d or 4w, got 'soon'"),
    (
        FeaturesFile,
        "columns: {a: {stream: s, aggregate: sum, where: {b: {minimum: x}}}}",
        "at $.columns.a.where.b.minimum: expected a number",
    ),
    (
        WorkspaceFile,
        "name: Shop",
        "expected a name of lower case letters, digits and - that starts with a letter, got 'Shop'",
    ),
    (
        WorkspaceFile,
        "name: a\ncurrency: euro",
        "f.yaml:2: at $.currency: expected a currency of three capital letters, like EUR, got 'euro'",
    ),
    (WorkspaceFile, "name: a\nbuckets: 0", "f.yaml:2: at $.buckets: expected a whole number >= 1, got 0"),
    (WorkspaceFile, "name: a\nbuckets: many", "f.yaml:2: at $.buckets: expected a whole number, got 'many'"),
    (WorkspaceFile, "name: a\nsources: {offers: [a, b]}", "expected a text or a mapping or nothing, got a list"),
    (
        WorkspaceFile,
        "name: a\ndemo: {now: yesterday}",
        "expected a date like 2026-11-22, or a time with its offset like",
    ),
    (ModelFile, "name: a b\nlabel: {outcome: x}", "at $.name: expected a name of letters, digits and . _ -, got 'a b'"),
    (
        ModelFile,
        "name: a\nlabel: {outcome: x, within: 3}",
        "at $.label.within: expected a text, got 3. Put it in quotes.",
    ),
    (ModelFile, "name: a\nlabel: {outcome: x, within: 3y}", "expected a duration like 30d, or offer_end, got '3y'"),
    (
        OffersFile,
        "placements: {home: {}}\noffers: [{offer_id: 'a b'}]",
        "at $.offers[0].offer_id: expected an id of letters, digits and",
    ),
    (
        OffersFile,
        "placements: {home: {}}\ntreatments: [{chanel: app}]",
        "at $.treatments[0].chanel: expected a known key, got `chanel`. Did you mean `channel`?",
    ),
    (PoliciesFile, "limits: {a: {max: 1, window: 1d, per: person}}", "expected one of any, group, offer, got 'person'"),
]


@pytest.mark.parametrize(("kind", "text", "message"), NOT_OURS, ids=range(len(NOT_OURS)))
def test_what_is_not_our_format_is_refused(kind: Any, text: str, message: str) -> None:
    """Unknown keys, wrong types, patterns, ranges and missing keys: refused with place, expectation and remedy."""
    (fault,) = told(text, kind)
    assert message in fault


def test_all_faults_are_told_at_once() -> None:
    """A file with several faults is mended in one go: each is told with its own line, in the order of the file."""
    text = """
streams:
  calls: {numbrs: [a]}
customer:
  attributes:
    a: {dtype: numbr}
    b: {dtype: number, unit: 5}
    c: {unit: EUR}
offer:
  A: {dtype: number}
columns:
  x: {stream: calls, aggregate: sum, windows: [1d, 2x]}
"""
    faults = told(text)
    assert [fault.split(" ")[0] for fault in faults] == [f"f.yaml:{line}:" for line in (3, 6, 7, 8, 10, 12)]
    many = "streams:\n" + "".join(f"  s{n}: {{x: 1}}\n" for n in range(60))
    assert len(told(many)) == FAULTS_MAX


def test_scalars_mean_what_a_person_reads() -> None:
    """Only true and false are booleans; clock times, dates, numbers with leading zeros and `no` are text."""
    text = "[no, on, 1:30, 2026-11-22, 007, 0x1F, 1_000, true, 12, -0.5, 1e3, 12345678901234567890, ~]"
    assert Document(Path("absent"), "f", text).value == [
        *("no", "on", "1:30", "2026-11-22", "007", "0x1F", "1_000"),
        *(True, 12, -0.5, 1000.0, "12345678901234567890", None),
    ]
    merged = Document(Path("absent"), "f", "\ufeffa: &a {unit: EUR}\nb:\n  <<: *a\n  x: 1")
    assert merged.value["b"] == {"unit": "EUR", "x": 1}
    assert merged.line(("b", "unit")) == 2  # what an anchor brings is at the place that names it


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (WorkspaceFile, WORKSPACE),
        (FeaturesFile, FEATURES),
        (OffersFile, OFFERS),
        (PoliciesFile, POLICIES),
        (ModelFile, MODEL),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_file_comes_back_as_it_was(kind: Any, content: dict[str, Any]) -> None:
    """What a file says survives the way through its struct and back."""
    first = Document(Path("absent"), "f", yaml.safe_dump(content)).convert(kind)
    again = Document(Path("absent"), "f", yaml.safe_dump(msgspec.to_builtins(first))).convert(kind)
    assert again == first


def test_defaults_are_good() -> None:
    """A workspace that says nothing gets an embedded store, UTC, one bucket, a deadline of 50 ms and no demo."""
    made = Document(Path("absent"), "f", "name: a").convert(WorkspaceFile)
    assert (made.time_zone, made.stores.online.url, made.buckets, made.demo, made.data) == (
        "UTC",
        "embedded",
        1,
        None,
        ".opportune",
    )
    assert made.serving.deadline_ms == 50
    assert Document(Path("absent"), "f", "").convert(FeaturesFile) == FeaturesFile()
    assert Document(Path("absent"), "f", "").convert(PoliciesFile) == PoliciesFile()
