"""Many conditions compiled together: for which offers is each of them true?

Identical parts of rules are evaluated once. What depends on offers alone is computed when a catalogue is bound, what
depends on customer and context alone is a plain truth, and the rest works on sets of offers held as integers.
Comparisons of pair columns with constants are done together, in one sweep. The meaning is that of
`features/expressions/parse.py`; unknown is not true.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from types import FunctionType
from typing import Any

import numpy as np

from features.columns.catalogue import Catalogue, category_text
from features.common.moments import Seconds
from features.common.timestamps import DAY_SECONDS
from features.expressions.evaluate import Lookup, Value
from features.expressions.nodes import Node, Term
from features.expressions.parse import Expression, nodes_of
from serving.conditions.bitsets import FUNCTIONS, NAN, Floats, OfferColumn, TextSets, bits_of, mask_of
from serving.conditions.codegen import Writer
from serving.conditions.sweep import Sweep

ARITHMETIC = frozenset(("+", "-", "*", "/", "negative", "abs", "log", "min", "max"))
CONDITIONS_MAX = 2_000

Scalar = float | str | bool | None


def columns_of(expressions: Iterable[Expression]) -> dict[str, Term]:
    """Return the columns that expressions use, by full name, sorted.

    Raises:
        ValueError: a column that cannot be served: texts that are not an offer's, or a pair column that is no number.
    """
    found: dict[str, Term] = {}
    for expression in expressions:
        for node in nodes_of(expression.root):
            if node.op == "column" and node.term is not None:
                found[node.text] = node.term
    for name, term in found.items():
        if (term.dtype == "texts" and term.kind != "offer") or (
            term.kind in ("pair", "term") and term.dtype in ("category", "time")
        ):
            raise ValueError(
                f"expected texts of an offer, and numbers of pairs, got `{name}` of {term.kind} as {term.dtype}"
            )
    return dict(sorted(found.items()))


def scalar_values(columns: Mapping[str, Term], values: Mapping[str, Scalar]) -> list[Scalar]:
    """Values of customer and context in the order of `scalars`, from a mapping in which what is absent is unknown.

    Slow and convenient: a server fills a list of its own, with NaN for an unknown number or moment and None for an
    unknown text.
    """
    filled: list[Scalar] = []
    for name, term in columns.items():
        value = values.get(name)
        filled.append(value if term.dtype in ("category", "boolean") else NAN if value is None else float(value))
    return filled


def offer_columns(catalogue: Catalogue, columns: Mapping[str, Term]) -> dict[str, OfferColumn]:
    """Columns of all offers of a catalogue, as `Conditions.bind` takes them."""
    found: dict[str, OfferColumn] = {}
    for full, term in columns.items():
        name = full.removeprefix("offer.")
        if name in ("offer_id", "name"):
            found[full] = [getattr(offer, name) or None for offer in catalogue.offers]
        elif name == "value":
            found[full] = np.array([offer.value for offer in catalogue.offers], np.float64)
        elif term.dtype == "texts":
            found[full] = [_texts(offer.attributes.get(name)) for offer in catalogue.offers]
        elif term.dtype == "category":
            found[full] = [category_text(offer.attributes.get(name)) or None for offer in catalogue.offers]
        else:
            found[full] = catalogue.numbers(name)
    return found


def _texts(value: object) -> list[str] | None:
    return value if isinstance(value, list) else None if value is None else [category_text(value)]


class Conditions:
    """Rules, or any named conditions, compiled together.

    Attributes:
        names: of the conditions, in the order of all results.
        scalars: columns of customer and context that are needed, in the order in which `BoundConditions.evaluate` takes
            their values.
        pairs: pair columns that are needed, in the order of the rows that `BoundConditions.evaluate` takes.
        offers: offer columns that `bind` needs.
    """

    def __init__(self, rules: Mapping[str, Expression]) -> None:
        if len(rules) > CONDITIONS_MAX:
            raise ValueError(f"expected at most {CONDITIONS_MAX} conditions, got {len(rules)}")
        self.rules = dict(rules)
        self.names = tuple(rules)
        columns = columns_of(rules.values())
        self.scalars = {name: term for name, term in columns.items() if term.kind in ("customer", "context")}
        self.offers = {name: term for name, term in columns.items() if term.kind == "offer"}
        self.pairs = {name: term for name, term in columns.items() if term.kind in ("pair", "term")}
        writer = Writer(tuple(self.scalars), tuple(self.offers), tuple(self.pairs))
        roots: list[Node] = [rule.root for rule in rules.values()]
        self._load, self._evaluate = writer.write(roots)
        self._loaded, self._atoms = tuple(writer.loaded), tuple(writer.atoms)
        self.counts = any(node.op in ARITHMETIC for root in roots for node in nodes_of(root))
        """Whether anything is computed that numpy may warn of."""

    def bind(self, offers: Mapping[str, OfferColumn], count: int) -> BoundConditions:
        """Return the conditions on a catalogue.

        Args:
            offers: the columns of `offers`, one value an offer.
            count: of offers.

        Raises:
            ValueError: a column is missing or has not one value an offer.
        """
        for name in self.offers:
            if name not in offers or len(offers[name]) != count:
                got = f"{len(offers[name])} values" if name in offers else "none"
                raise ValueError(f"expected `{name}` with one value for each of {count} offers, got {got}")
        known: dict[str, Any] = {
            **FUNCTIONS,
            "sealed": bits_of,
            "masked": mask_of,
            "keys": lambda column: TextSets(column, bits_of),
        }
        full = (1 << count) - 1
        with np.errstate(all="ignore"):
            values = FunctionType(self._load, known)([offers[name] for name in self.offers], count, full, 0)
        evaluate = FunctionType(self._evaluate, known | dict(zip(self._loaded, values, strict=True)))
        return BoundConditions(self, evaluate, Sweep(self._atoms, count), offers, count)


class BoundConditions:
    """Conditions on a catalogue. Holds scratch memory: for one thread only."""

    def __init__(
        self,
        conditions: Conditions,
        evaluate: FunctionType,
        sweep: Sweep,
        offers: Mapping[str, OfferColumn],
        count: int,
    ) -> None:
        self.conditions, self.count, self.full = conditions, count, (1 << count) - 1
        self._evaluate, self._sweep, self._offers = evaluate, sweep, offers

    def evaluate(self, scalars: Sequence[Scalar], pairs: Floats, now: Seconds) -> tuple[int, ...]:
        """For each condition the set of offers for which it is true: bit i is offer i.

        Args:
            scalars: values of `conditions.scalars`: numbers as float, NaN where unknown; truths as True, False and None
                or as 1, 0 and NaN; texts, None where unknown; moments in seconds since 1970, NaN where unknown.
            pairs: shape (pair columns, offers), C-contiguous, one row for each of `conditions.pairs`, then any others;
                NaN is unknown.
            now: seconds since 1970 of the decision.
        """
        with np.errstate(all="ignore") if self.conditions.counts else nullcontext():
            found: tuple[int, ...] = self._evaluate(
                scalars, pairs, now, self._sweep(pairs), None, self.count, self.full, 0
            )
        return found

    def lookup(self, offer: int, scalars: Sequence[Scalar], pairs: Floats, now: Seconds) -> Lookup:
        """Values of columns for one offer, for explanations; a moment as its age in days."""
        conditions = self.conditions
        values: dict[str, Value] = dict(zip(conditions.scalars, scalars, strict=True))
        values |= {name: float(pairs[row][offer]) for row, name in enumerate(conditions.pairs)}
        values |= {name: self._offers[name][offer] for name in conditions.offers}
        for name, term in (*conditions.scalars.items(), *conditions.offers.items()):
            moment = values[name]
            if term.dtype == "time" and isinstance(moment, (int, float)):
                values[name] = (now - moment) / DAY_SECONDS
        return values.__getitem__
