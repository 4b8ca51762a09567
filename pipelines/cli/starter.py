"""`opportune init`: a small commented workspace that passes `opportune check`, with data to try it."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from features.common import clock
from features.common.files import as_given
from features.config.documents import BadWorkspace, Fault

CUSTOMERS, OFFERS, DECISIONS_EACH = 300, 12, 6
DAYS = 150

WORKSPACE = """\
# What this business is called, where its data comes from, and where everything that is made of it is kept.
name: {name}
time_zone: UTC               # IANA name, for example Europe/Vienna
currency: EUR

# Canonical tables, as Parquet or CSV (a file, a folder or a glob). Rename columns where yours have other names:
#   customers: {{path: crm/*.parquet, columns: {{customer_id: client_no}}}}
# The tables here are invented; replace them with yours. See docs/bring-your-own-data.md.
sources:
  customers: data/customers.csv
  offers: data/offers.csv
  decisions: data/decisions.csv      # who was offered what, when: what the model learns from
  outcomes: data/outcomes.csv        # what came of it
  streams:
    purchases: data/purchases.csv    # any number of event streams, declared in features.yaml

# Embedded (LMDB, in this process) unless you name a Redis or Valkey, or any other online store of Feast in Feast's own
# words:
# stores:
#   online: {{url: redis://localhost:6379/0, timeout_ms: 25, near_cache_rows: 0}}   # rows each worker keeps; 0: none
#   online: {{feast: {{type: postgres, host: db, password: "${{PGPASSWORD}}"}}, timeout_ms: 25}}

# serving:
#   deadline_ms: 50          # what is not read by then is left out, and the answer says so
#   answer_valid: 5m         # how long a frontend may keep an answer
"""

FEATURES = """\
# What is known, and how it is computed. Each column may say: unit, missing (unknown or zero), purposes, freshness.

customer:
  attributes:                # columns of the table `customers`
    segment: {dtype: category}
    birth_year: {dtype: integer, unit: year}

streams:
  purchases:                 # one row an event: customer_id, time, and these
    numbers: [amount]
    categories: [category]
    freshness: 400d          # older than this, the columns count as missing

offer:                       # columns of the table `offers`, beside its own (name, validity, value, placements)
  category: {dtype: category}
  discount: {dtype: number, unit: percent}

context:                     # facts of the moment, which come with the request
  channel: {dtype: category, values: [web, app, store], default: web}

columns:                     # windows over a customer's events; one column a window
  spend: {stream: purchases, aggregate: sum, of: amount, windows: [30d, all], unit: EUR}
  purchases: {stream: purchases, aggregate: count, windows: [30d, all]}
  last_purchase: {stream: purchases, aggregate: days_since}

pairs:                       # of customer and offer: events are summed by a key, an offer takes those of its own keys
  bought_category:
    stream: purchases
    aggregate: count
    windows: [90d, all]
    key: category            # of the event
    match: category          # of the offer
    relative: [share, rank]  # also relative to the other offers considered
    reason: bought_category  # a reason code that customers may see
  popular:
    {stream: outcomes, aggregate: count, where: {type: accepted}, key: offer_id, match: offer_id, scope: everyone}
"""

OFFERS_FILE = """\
# Where offers are shown, how they look, and offers that are written by hand.

placements:
  home: {limit: 3, description: Top of the home page}
  basket: {limit: 1}

treatments:                  # for offers without their own; {name} and offer attributes are filled in
  - channel: any
    payload: {headline: "{name}", badge: "{discount} %"}

offers:
  - offer_id: newsletter
    name: Our newsletter
    value: 0.5
    attributes: {category: service, discount: 0}
"""

POLICIES = """\
# What may be offered to whom, how often, and what it is worth. docs/decision-hub.md explains all of it with examples.
# An offer that no rule and no limit concerns may be offered to everybody, within its validity and placements.

rules: {}
#  adults: {when: customer.age >= 18, groups: [alcohol], reason: age}

limits: {}
#  not_too_often: {max: 2, window: 7d, per: offer}

pauses: {}
#  dismissed: {outcome: dismissal, times: 2, within: 30d, pause: 60d}
"""

MODEL = """\
# What the model predicts, where time is cut, and LightGBM's parameters.
name: {name}-acceptance
label: {{outcome: accepted, within: 7d}}

split:
  test_share: 0.25           # or  cut: 2026-06-01
  stopping_share: 0.25

parameters: {{num_leaves: 7, learning_rate: 0.05, min_data_in_leaf: 20}}
rounds_max: 300
"""

CATEGORIES = ("books", "coffee", "garden", "music", "toys", "travel")


@as_given()
def write_starter(folder: Path) -> list[str]:
    """Write the files of a workspace; returns their names.

    Raises:
        BadWorkspace: the folder has something in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        got = "one with files in it" if folder.is_dir() else "a file"
        raise BadWorkspace([Fault(str(folder), "$", "an empty or new folder", got, remedy="Name another folder.")])
    name = "".join(c if c.isalnum() else "-" for c in folder.resolve().name.lower()).strip("-") or "business"
    name = name if name[0].isalpha() else f"w-{name}"
    files = {
        "workspace.yaml": WORKSPACE.format(name=name[:40]),
        "features.yaml": FEATURES,
        "offers.yaml": OFFERS_FILE,
        "policies.yaml": POLICIES,
        "model.yaml": MODEL.format(name=name[:40]),
    }
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file).write_text(text)
    _write_data(folder / "data")
    return [*files, "data/"]


def _write_data(folder: Path) -> None:
    """Invented tables: customers like one or two categories, buy in them, and accept offers of them more often."""
    chance = random.Random(7)  # noqa: S311 (invented data)
    now = clock.now().replace(microsecond=0)
    offers = [(f"offer-{n:02d}", CATEGORIES[n % len(CATEGORIES)], 5 * (1 + n % 4)) for n in range(OFFERS)]
    customers, purchases, decisions, outcomes = [], [], [], []
    for number in range(CUSTOMERS):
        customer, liked = f"c{number:04d}", chance.sample(CATEGORIES, 2)
        start = (now - timedelta(days=DAYS + 200)).isoformat()
        customers.append((customer, start, chance.choice(["new", "regular", "loyal"]), chance.randint(1945, 2005)))
        for _ in range(chance.randint(3, 25)):
            time = now - timedelta(days=chance.uniform(1, DAYS + 60))
            category = chance.choice(liked) if chance.random() < 0.8 else chance.choice(CATEGORIES)
            purchases.append((customer, time.isoformat(), round(chance.lognormvariate(3, 0.7), 2), category))
        for at in range(DECISIONS_EACH):
            time = now - timedelta(days=chance.uniform(8, DAYS))
            decision = f"d-{customer}-{at}"
            for offer, category, discount in chance.sample(offers, 6):
                channel = chance.choice(["web", "app"]) if not at else "web"
                decisions.append((decision, customer, time.isoformat(), "home", offer, round(6 / OFFERS, 4), channel))
                if chance.random() < (0.25 if category in liked else 0.03) * (0.7 + discount / 30):
                    outcomes.append(
                        (
                            decision,
                            customer,
                            offer,
                            "accepted",
                            (time + timedelta(days=chance.uniform(0, 5))).isoformat(),
                            10.0,
                        )
                    )
    _csv(folder / "customers.csv", ("customer_id", "valid_from", "segment", "birth_year"), customers)
    _csv(folder / "purchases.csv", ("customer_id", "time", "amount", "category"), purchases)
    rows = [
        (offer, f"{discount} % off {category}", discount / 2, category, discount)
        for offer, category, discount in offers
    ]
    _csv(folder / "offers.csv", ("offer_id", "name", "value", "category", "discount"), rows)
    _csv(
        folder / "decisions.csv",
        ("decision_id", "customer_id", "time", "placement", "offer_id", "action_probability", "channel"),
        decisions,
    )
    _csv(folder / "outcomes.csv", ("decision_id", "customer_id", "offer_id", "type", "time", "value"), outcomes)


def _csv(file: Path, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
