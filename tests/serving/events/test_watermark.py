"""The watermark is never ahead of what was heard."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.events.watermark import Watermark


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["begin", "stored", "done", "missed", "again"]), st.integers(0, 5)), max_size=40)
)
def test_watermark_is_never_ahead(steps: list[tuple[str, int]]) -> None:
    """Whatever requests do in whatever order, all events up to the place were heard, and at rest it is the last."""
    watermark, place = Watermark(), 0
    open_tokens: dict[int, list[int]] = {}
    unheard: set[int] = set()
    for what, which in steps:
        tokens = sorted(open_tokens)
        if what == "begin":
            open_tokens[watermark.begin()] = []
        elif what == "stored" and tokens:
            place += 1
            open_tokens[tokens[which % len(tokens)]].append(place)
            unheard.add(place)
            watermark.stored(place)
        elif what in ("done", "missed") and tokens:
            token = tokens[which % len(tokens)]
            mine = open_tokens.pop(token)
            if what == "done":
                unheard -= set(mine)
                watermark.done(token)
            else:
                watermark.missed(token)
        elif what == "again" and (missed := watermark.take_missed()) is not None:
            token, floor = missed
            unheard = {seq for seq in unheard if seq <= floor}
            watermark.done(token)
        assert all(seq > watermark.place for seq in unheard)
    for token in open_tokens:
        watermark.missed(token)
    if (missed := watermark.take_missed()) is not None:
        watermark.done(missed[0])
    assert watermark.place == place
