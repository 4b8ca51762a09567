"""Texts of category columns on their way to codes: numbered as they are met, of which the commonest become the
dictionary.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.columns.catalogue import Catalogue, category_text
from features.columns.contract import Column
from training.dataset.examples import CATEGORIES_MAX

Floats = NDArray[np.float64]


class Texts:
    """Texts of the category columns, numbered as they are met; in the end the commonest are kept."""

    def __init__(self, columns: list[Column]) -> None:
        self.columns = columns
        self.of = {column.name: list[str]() for column in columns}
        self._ids: dict[str, dict[str, int]] = {column.name: {} for column in columns}

    def number(self, column: str, text: str) -> float:
        """Return the number of a text; NaN for the empty one."""
        if not text:
            return np.nan
        ids = self._ids[column]
        if text not in ids:
            ids[text] = len(ids)
            self.of[column].append(text)
        return float(ids[text])

    def numbers(self, column: str, texts: list[str]) -> Floats:
        """Return one number a text."""
        return np.array([self.number(column, text) for text in texts], np.float64)

    def settle(
        self, values: Floats, at: int, column: Column, catalogue: Catalogue, given: list[str] | None
    ) -> list[str]:
        """Put the codes of the final dictionary into a column of rows; returns the dictionary."""
        known = self.of[column.name]
        numbers = values[:, at]
        if given is None:
            met, first, counts = np.unique(
                numbers[~np.isnan(numbers)].astype(np.int64), return_index=True, return_counts=True
            )
            common = sorted(range(len(met)), key=lambda one: (-counts[one], known[met[one]]))[:CATEGORIES_MAX]
            given = [known[met[one]] for one in sorted(common, key=lambda one: first[one])]
            if column.kind == "offer":  # an offer that was not shown yet may be tomorrow
                others = {category_text(offer.attributes.get(column.source)) for offer in catalogue.offers} - {
                    "",
                    *given,
                }
                given += sorted(others)[: CATEGORIES_MAX - len(given)]
        code = {text: float(number) for number, text in enumerate(given)}
        table = np.array([*(code.get(text, np.nan) for text in known), np.nan])
        values[:, at] = table[np.where(np.isnan(numbers), len(known), numbers).astype(np.int64)]
        return given
