"""Changes that make a fault in features.yaml, each with a part of its message; none where there is no fault."""

from __future__ import annotations

from typing import Any

COUNT = {"stream": "calls", "aggregate": "count"}
PAIR = COUNT | {"key": "topic", "match": "topic"}

FEATURE_FAULTS: list[tuple[str, str, Any, str]] = [
    # streams and facts
    (
        "features",
        "streams.customers",
        {},
        "$.streams.customers: expected a name that is not built in, got `customers`. Rename",
    ),
    ("features", "streams.everyone_x", {}, "$.streams.everyone_x: expected a name that is not built in"),
    (
        "features",
        "streams.x",
        {"numbers": ["time"]},
        "$.streams.x: expected fields beside those that every stream has, got `time`",
    ),
    (
        "features",
        "streams.x",
        {"numbers": ["a"], "categories": ["a"]},
        "$.streams.x: expected each field once, got `a`, both a number and a category",
    ),
    (
        "features",
        "streams.x",
        {"numbers": ["a", "a"]},
        "$.streams.x.numbers[1]: expected each field once, got `a` again",
    ),
    (
        "features",
        "customer.attributes.created",
        {"dtype": "number"},
        "expected a name that the table `customers` does not have anyway, got `created`",
    ),
    (
        "features",
        "context.placement",
        {"dtype": "category"},
        "expected a name that the table `decisions` does not have anyway, got `placement`",
    ),
    (
        "features",
        "offer.value",
        {"dtype": "number"},
        "expected a name that the table `offers` does not have anyway, got `value`",
    ),
    (
        "features",
        "customer.attributes.x",
        {"dtype": "time", "missing": "zero"},
        "$.customer.attributes.x.missing: expected unknown: a time has no zero",
    ),
    (
        "features",
        "offer.x",
        {"dtype": "category", "missing": "zero"},
        "$.offer.x.missing: expected unknown: a category has no zero",
    ),
    (
        "features",
        "offer.x",
        {"dtype": "number", "freshness": "1d"},
        "$.offer.x.freshness: expected no such key: an offer is not a customer's data",
    ),
    (
        "features",
        "context.x",
        {"dtype": "number", "freshness": "1d"},
        "$.context.x.freshness: expected no such key: it comes with the request",
    ),
    (
        "features",
        "context.x",
        {"dtype": "category", "missing": "zero"},
        "$.context.x.missing: expected unknown: a category has no zero",
    ),
    (
        "features",
        "context.x",
        {"dtype": "number", "missing": "zero", "default": 1},
        "$.context.x.missing: expected either `missing: zero` or `default`",
    ),
    (
        "features",
        "context.x",
        {"dtype": "number", "values": ["a"]},
        "$.context.x.values: expected no such key for a number",
    ),
    (
        "features",
        "context.x",
        {"dtype": "category", "minimum": 1},
        "$.context.x.minimum: expected no such key for a category",
    ),
    (
        "features",
        "context.x",
        {"dtype": "number", "minimum": 2, "maximum": 1},
        "$.context.x.maximum: expected not less than minimum, got 1",
    ),
    ("features", "context.x", {"dtype": "number", "default": "a"}, "$.context.x.default: expected a number, got 'a'"),
    ("features", "context.x", {"dtype": "boolean", "default": 1}, "$.context.x.default: expected a boolean, got 1"),
    (
        "features",
        "context.x",
        {"dtype": "category", "values": ["app"], "default": "ap"},
        "expected one of `values`, got `ap`. Did you mean `app`?",
    ),
    (
        "features",
        "context.x",
        {"dtype": "number", "maximum": 1, "default": 2},
        "$.context.x.default: expected a number from minimum to maximum, got 2",
    ),
    # windows
    (
        "features",
        "columns.x",
        COUNT | {"stream": "cals"},
        "$.columns.x.stream: expected a declared stream, got `cals`. Did you mean `calls`?",
    ),
    (
        "features",
        "columns.x",
        COUNT | {"aggregate": "sum"},
        "$.columns.x: expected `of`: the field that `sum` is taken of, got none. Fields: minutes",
    ),
    (
        "features",
        "columns.x",
        COUNT | {"of": "minutes"},
        "$.columns.x.of: expected no field: `count` looks at events alone, got `minutes`",
    ),
    (
        "features",
        "columns.x",
        COUNT | {"aggregate": "sum", "of": "topic"},
        "$.columns.x.of: expected a field of the stream that `sum` can take, got `topic`",
    ),
    (
        "features",
        "columns.x",
        COUNT | {"aggregate": "distinct", "of": "minutes"},
        "expected a field of the stream that `distinct` can take",
    ),
    (
        "features",
        "columns.x",
        COUNT | {"aggregate": "share"},
        "$.columns.x: expected `where` or `group`: which part the share is of, got neither",
    ),
    (
        "features",
        "columns.x",
        COUNT | {"where": {"topc": "a"}},
        "$.columns.x.where.topc: expected a category of the stream, got `topc`. Did you mean `topic`?",
    ),
    (
        "features",
        "columns.x",
        COUNT | {"where": {"topic": {"below": 1}}},
        "$.columns.x.where.topic: expected a number of the stream, got `topic`",
    ),
    (
        "features",
        "columns.x",
        COUNT | {"where": {"topic": []}},
        "$.columns.x.where.topic: expected at least one value, got an empty list",
    ),
    (
        "features",
        "columns.x",
        COUNT | {"where": {"minutes": {}}},
        "$.columns.x.where.minutes: expected `minimum`, `below` or both, got neither",
    ),
    (
        "features",
        "columns.x",
        COUNT | {"where": {"minutes": {"minimum": 2, "below": 2}}},
        "expected minimum less than below, got 2 and 2",
    ),
    (
        "features",
        "columns.x",
        COUNT | {"group": {"by": "minutes", "values": ["a"]}},
        "$.columns.x.group.by: expected a category of the stream",
    ),
    (
        "features",
        "columns.x",
        COUNT | {"group": {"by": "topic", "values": ["a"]}, "where": {"topic": "a"}},
        "expected no condition on what the column is grouped by",
    ),
    (
        "features",
        "columns.x",
        COUNT | {"windows": ["1d", "1d"]},
        "$.columns.x.windows[1]: expected each window once, got `1d` again",
    ),
    (
        "features",
        "columns.x",
        COUNT | {"aggregate": "days_since", "missing": "zero"},
        "$.columns.x.missing: expected unknown: a time has no zero",
    ),
    (
        "features",
        "columns.x",
        COUNT | {"aggregate": "last", "of": "topic", "missing": "zero"},
        "expected unknown: a category has no zero",
    ),
    # pairs
    ("features", "pairs.x", PAIR | {"stream": "cals"}, "$.pairs.x.stream: expected a declared stream, got `cals`"),
    (
        "features",
        "pairs.x",
        PAIR | {"key": "minutes"},
        "$.pairs.x.key: expected a category of the stream, got `minutes`",
    ),
    (
        "features",
        "pairs.x",
        PAIR | {"match": "price"},
        "$.pairs.x.match: expected an offer attribute of texts, a category, or offer_id, got `price`",
    ),
    (
        "features",
        "pairs.x",
        PAIR | {"aggregate": "max"},
        "$.pairs.x: expected `of`: the field that `max` is taken of, got none",
    ),
    (
        "features",
        "pairs.x",
        PAIR | {"aggregate": "days_since", "missing": "zero"},
        "expected unknown: `days_since` of nothing is not zero",
    ),
    (
        "features",
        "pairs.x",
        PAIR | {"scope": "everyone", "windows": ["12h"]},
        "$.pairs.x.windows[0]: expected whole days for `scope: everyone`, got `12h`",
    ),
    (
        "features",
        "pairs.x",
        PAIR | {"scope": "everyone", "freshness": "6h"},
        "$.pairs.x.freshness: expected more than a day for `scope: everyone`",
    ),
    (
        "features",
        "pairs.x",
        PAIR | {"relative": ["rank", "rank"]},
        "$.pairs.x.relative[1]: expected each of them once, got `rank` again",
    ),
    # names
    (
        "features",
        "context.calls_7d",
        {"dtype": "number"},
        "$.columns.calls: expected a column name of its own, got `calls_7d`, which context.calls_7d makes too",
    ),
    (
        "features",
        "columns.x",
        COUNT | {"group": {"by": "topic", "values": ["a b", "a-b"]}},
        "expected a column name of its own, got `x_all_a_b`",
    ),
    ("features", "columns.x", COUNT | {"windows": ["1d", "2d"], "group": {"by": "topic", "values": ["a"]}}, ""),
]
