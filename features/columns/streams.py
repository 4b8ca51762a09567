"""Event streams that a workspace has: the declared ones, and the canonical tables that are streams too."""

from __future__ import annotations

from features.config.features_file import FeaturesFile, Stream

BUILT_IN_STREAMS = {
    "decisions": Stream(numbers=("action_probability",), categories=("offer_id", "placement")),
    "impressions": Stream(categories=("offer_id", "placement", "channel")),
    "outcomes": Stream(numbers=("value",), categories=("offer_id", "type")),
}

_CONTEXT_KINDS = {"number": ("number", "integer"), "category": ("category",)}


def offer_categories(features: FeaturesFile) -> dict[str, str]:
    """Categories that a built-in stream gets from the offer of each row: `offer_<attribute>` -> attribute."""
    return {f"offer_{name}": name for name, attribute in features.offer.items() if attribute.dtype == "category"}


def streams_of(features: FeaturesFile) -> dict[str, Stream]:
    """Return all streams by name, with their numbers and categories; decisions also have the columns of their
    context.
    """
    texts = tuple(offer_categories(features))
    of_context = {
        kind: tuple(n for n, c in features.context.items() if c.dtype in kinds)
        for kind, kinds in _CONTEXT_KINDS.items()
    }
    built_in = {}
    for name, stream in BUILT_IN_STREAMS.items():
        more = of_context if name == "decisions" else {"number": (), "category": ()}
        built_in[name] = Stream(
            (*stream.numbers, *more["number"]), (*stream.categories, *texts, *more["category"]), stream.purposes
        )
    return {**built_in, **features.streams}
