"""Bodies of requests for property tests: mostly as the contract wants them, now and then not."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from features.common.types import CONTEXT_INTEGER_MAX

TEXTS = st.sampled_from(
    ["", "a", "home", "app", "x" * 64, "x" * 65, "y" * 256, "y" * 257, "7", "~7", "a b", "a\n", "ä", "\u200b", "A"]
)
NUMBERS = st.sampled_from(
    [0, 1, 3, 3.0, 3.5, 50, 51, -1, 24, 25, 1e18, 10**18, CONTEXT_INTEGER_MAX, CONTEXT_INTEGER_MAX + 1, 1e12, 2e12]
)
ANY = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, st.just([]), st.just({}))


def objects(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects of a few of the fields; now and then with what the field does not take, or a field that there is not."""
    strange = {name: st.one_of(strategy, strategy, strategy, ANY) for name, strategy in fields.items()}
    return st.fixed_dictionaries({}, optional=strange | {"other": ANY})


def events() -> st.SearchStrategy[dict[str, Any]]:
    """Items of a batch of events."""
    fields = {
        "event_id": TEXTS,
        "type": st.sampled_from(["impression", "click", "consent", "identify", "exposure", "calls", "Up"]),
        "occurred_at": st.sampled_from(
            ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00+01:00", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z", "now"]
        ),
        "customer_id": TEXTS,
        "anonymous_id": st.none() | TEXTS,
        "offer_id": st.none() | TEXTS,
        "value": st.none() | NUMBERS,
        "fields": st.dictionaries(TEXTS, st.one_of(st.none(), NUMBERS, TEXTS), max_size=2),
        "purposes": st.dictionaries(TEXTS, st.booleans(), max_size=2),
        "experiment": st.none() | TEXTS,
        "arm": st.none() | TEXTS,
    }
    whole = {
        "event_id": "e",
        "type": "click",
        "occurred_at": "2026-01-01T00:00:00Z",
        "customer_id": "7",
        "offer_id": "o",
    }
    return st.builds(lambda one, filled: one | whole if filled else one, objects(fields), st.booleans())
