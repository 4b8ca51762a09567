"""The YAML files of the telephone company of `tests.workspaces`: every dtype, aggregate, scope and relative occurs."""

from __future__ import annotations

from typing import Any

CHANNELS = ("app", "web", "shop")
TOPICS = ("roaming", "data", "voice", "device")

WORKSPACE: dict[str, Any] = {
    "name": "fernruf",
    "time_zone": "Europe/Vienna",
    "currency": "EUR",
    "sources": {
        "customers": {"path": "data/customers.parquet", "columns": {"customer_id": "msisdn", "valid_from": "since"}},
        "offers": "data/offers.csv",
        "decisions": "data/decisions.parquet",
        "outcomes": "data/outcomes.parquet",
        "streams": {"calls": "data/calls.parquet", "payments": "data/payments.csv"},
    },
}

FEATURES: dict[str, Any] = {
    "customer": {
        "attributes": {
            "tariff": {"dtype": "category"},
            "monthly_fee": {"dtype": "number", "unit": "EUR"},
            "lines": {"dtype": "integer", "missing": "zero"},
            "business": {"dtype": "boolean"},
            "contract_start": {"dtype": "time"},
            "segment": {"dtype": "category", "model": False, "purposes": ["service"]},
        },
        "freshness": "30d",
    },
    "streams": {
        "calls": {"numbers": ["minutes", "megabytes"], "categories": ["topic", "country"]},
        "payments": {
            "numbers": ["amount"],
            "categories": ["method"],
            "purposes": ["service", "personalization"],
            "freshness": "60d",
        },
    },
    "offer": {
        "topic": {"dtype": "category"},
        "countries": {"dtype": "texts"},
        "price": {"dtype": "number", "unit": "EUR"},
        "months": {"dtype": "integer", "missing": "zero"},
        "online_only": {"dtype": "boolean"},
        "launched": {"dtype": "time"},
    },
    "context": {
        "channel": {"dtype": "category", "values": list(CHANNELS), "default": "web"},
        "hour": {"dtype": "number", "minimum": 0, "maximum": 24},
        "roaming_now": {"dtype": "boolean"},
    },
    "columns": {
        "calls": {"stream": "calls", "aggregate": "count", "windows": ["7d", "30d", "all"]},
        "minutes": {
            "stream": "calls",
            "aggregate": "sum",
            "of": "minutes",
            "windows": ["12h", "30d"],
            "unit": "minutes",
        },
        "long_calls": {
            "stream": "calls",
            "aggregate": "count",
            "windows": ["30d"],
            "where": {"minutes": {"minimum": 10, "below": 60}},
        },
        "minutes_mean": {"stream": "calls", "aggregate": "mean", "of": "minutes", "windows": ["30d"]},
        "minutes_min": {"stream": "calls", "aggregate": "min", "of": "minutes", "windows": ["30d"]},
        "megabytes_max": {
            "stream": "calls",
            "aggregate": "max",
            "of": "megabytes",
            "windows": ["30d"],
            "missing": "zero",
        },
        "last_country": {"stream": "calls", "aggregate": "last", "of": "country"},
        "last_minutes": {"stream": "calls", "aggregate": "last", "of": "minutes", "windows": ["30d"]},
        "countries": {"stream": "calls", "aggregate": "distinct", "of": "country", "windows": ["30d", "all"]},
        "since_call": {"stream": "calls", "aggregate": "days_since"},
        "abroad": {
            "stream": "calls",
            "aggregate": "share",
            "windows": ["30d"],
            "where": {"country": ["de", "it", "us"]},
        },
        "topic_share": {
            "stream": "calls",
            "aggregate": "share",
            "of": "minutes",
            "windows": ["30d"],
            "group": {"by": "topic", "values": list(TOPICS)},
        },
        "paid": {
            "stream": "payments",
            "aggregate": "sum",
            "of": "amount",
            "windows": ["30d", "all"],
            "group": {"by": "method", "values": ["card"]},
        },
        "since_payment": {"stream": "payments", "aggregate": "days_since"},
        "accepted": {"stream": "outcomes", "aggregate": "count", "windows": ["90d"], "where": {"type": "accepted"}},
    },
    "pairs": {
        "topic_calls": {
            "stream": "calls",
            "aggregate": "count",
            "windows": ["30d", "all"],
            "key": "topic",
            "match": "topic",
            "relative": ["share", "rank", "ratio"],
            "reason": "uses_this",
        },
        "country_minutes": {
            "stream": "calls",
            "aggregate": "sum",
            "of": "minutes",
            "windows": ["30d"],
            "key": "country",
            "match": "countries",
        },
        "country_longest": {
            "stream": "calls",
            "aggregate": "max",
            "of": "minutes",
            "key": "country",
            "match": "countries",
        },
        "country_shortest": {
            "stream": "calls",
            "aggregate": "min",
            "of": "minutes",
            "key": "country",
            "match": "countries",
        },
        "shown": {
            "stream": "decisions",
            "aggregate": "count",
            "windows": ["7d", "all"],
            "key": "offer_id",
            "match": "offer_id",
        },
        "since_shown": {"stream": "decisions", "aggregate": "days_since", "key": "offer_id", "match": "offer_id"},
        "topic_taken": {
            "stream": "outcomes",
            "aggregate": "count",
            "windows": ["90d"],
            "key": "offer_topic",
            "match": "topic",
            "where": {"type": "accepted"},
            "missing": "unknown",
        },
        "popular": {
            "stream": "outcomes",
            "aggregate": "count",
            "windows": ["30d", "all"],
            "key": "offer_id",
            "match": "offer_id",
            "scope": "everyone",
            "where": {"type": "accepted"},
            "relative": ["share"],
        },
        "revenue": {
            "stream": "outcomes",
            "aggregate": "sum",
            "of": "value",
            "key": "offer_topic",
            "match": "topic",
            "scope": "everyone",
        },
        "dearest": {
            "stream": "outcomes",
            "aggregate": "max",
            "of": "value",
            "key": "offer_id",
            "match": "offer_id",
            "scope": "everyone",
        },
        "cheapest": {
            "stream": "outcomes",
            "aggregate": "min",
            "of": "value",
            "key": "offer_id",
            "match": "offer_id",
            "scope": "everyone",
        },
        "since_taken": {
            "stream": "outcomes",
            "aggregate": "days_since",
            "key": "offer_id",
            "match": "offer_id",
            "scope": "everyone",
            "where": {"type": "accepted"},
        },
        "targeted": {
            "stream": "decisions",
            "aggregate": "count",
            "key": "offer_topic",
            "match": "topic",
            "model": False,
        },
    },
}

OFFERS: dict[str, Any] = {
    "placements": {"home": {"limit": 3, "description": "Top of the app"}, "bill": {"limit": 1}},
    "treatments": [
        {"payload": {"headline": "{name}", "price": "{price}"}},
        {"channel": "shop", "payload": {"script": "Ask about {name}."}},
    ],
    "offers": [
        {
            "offer_id": "summer-data",
            "name": "Summer data",
            "valid_from": "2020-01-01",
            "value": 12,
            "placements": ["home"],
            "treatments": [{"channel": "app", "payload": {"headline": "Surf all summer", "image": "sun.png"}}],
            "attributes": {
                "topic": "data",
                "countries": ["it"],
                "price": 9.5,
                "months": 2,
                "online_only": True,
                "launched": "2026-05-01",
            },
        },
        {"offer_id": "say-nothing", "name": "No offer", "value": 0, "attributes": {"topic": "voice"}},
    ],
}

POLICIES: dict[str, Any] = {"rules": {"not_pushed": {"unless": "pair.targeted_all < 0"}}}

MODEL: dict[str, Any] = {
    "name": "fernruf-accepts",
    "label": {"outcome": "accepted", "within": "7d"},
    "parameters": {"num_leaves": 15, "learning_rate": 0.1, "min_data_in_leaf": 20},
    "rounds_max": 60,
    "patience_rounds": 10,
}
