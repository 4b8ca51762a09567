"""The offers of a business as arrays, so that a decision touches all of them at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.columns.rows import Dictionary
from features.common.types import Offer

OFFERS_MAX = 100_000

UNBOUNDED = np.iinfo(np.int64).max


class KeyIndex:
    """Which offers have which key, for one offer attribute: compressed rows `members[starts[k]:starts[k + 1]]`."""

    def __init__(self, keys_of_offers: list[list[str]]) -> None:
        self.texts: dict[str, int] = {}
        offers_of: list[list[int]] = []
        for at, keys in enumerate(keys_of_offers):
            for key in dict.fromkeys(keys):
                number = self.texts.setdefault(key, len(offers_of))
                if number == len(offers_of):
                    offers_of.append([])
                offers_of[number].append(at)
        self.starts = np.zeros(len(offers_of) + 1, np.int32)
        np.cumsum([len(members) for members in offers_of], out=self.starts[1:])
        self.members = np.array([at for members in offers_of for at in members], np.int32)
        self._of_word = np.empty(0, np.int32)
        self._words: Dictionary | None = None

    def of_word(self, words: Dictionary) -> NDArray[np.int32]:
        """Key number of each word id, -1 where no offer has that key. Grows with the words; call it once a decision."""
        if words is not self._words:
            self._words, self._of_word = words, np.empty(0, np.int32)
        seen = len(self._of_word)
        if seen != len(words):
            new = [self.texts.get(text, -1) for text in words.texts[seen:]]
            self._of_word = np.concatenate([self._of_word, np.array(new, np.int32)])
        return self._of_word


class Catalogue:
    """All offers, in a fixed order, with their validity and attributes as arrays of that order."""

    def __init__(self, offers: list[Offer]) -> None:
        if len(offers) > OFFERS_MAX:
            raise ValueError(f"expected at most {OFFERS_MAX} offers in a catalogue, got {len(offers)}")
        self.offers = offers
        self.index = {offer.offer_id: at for at, offer in enumerate(offers)}
        if len(self.index) != len(offers):
            raise ValueError("expected each offer id once in a catalogue, got one twice")
        self.valid_from = np.array([-UNBOUNDED if o.valid_from is None else o.valid_from for o in offers], np.int64)
        self.valid_until = np.array([UNBOUNDED if o.valid_until is None else o.valid_until for o in offers], np.int64)
        self._keys: dict[str, KeyIndex] = {}

    def __len__(self) -> int:
        return len(self.offers)

    def keys(self, attribute: str) -> KeyIndex:
        """Index of the keys that an attribute (a text or a list of texts) gives to offers; `offer_id` is an attribute
        too.
        """
        found = self._keys.get(attribute)
        if found is None:
            found = self._keys[attribute] = KeyIndex([_texts(offer, attribute) for offer in self.offers])
        return found

    def numbers(self, attribute: str) -> NDArray[np.float64]:
        """Return a numeric attribute, one value an offer; missing is NaN."""
        return np.array([_number(offer.attributes.get(attribute)) for offer in self.offers], np.float64)

    def codes(self, attribute: str, categories: list[str]) -> NDArray[np.float64]:
        """Return a category attribute as codes of a dictionary; unknown and missing are NaN."""
        code = {text: float(number) for number, text in enumerate(categories)}
        return np.array(
            [code.get(category_text(offer.attributes.get(attribute)), np.nan) for offer in self.offers], np.float64
        )


def _texts(offer: Offer, attribute: str) -> list[str]:
    if attribute == "offer_id":
        return [offer.offer_id]
    value = offer.attributes.get(attribute)
    if value is None:
        return []
    return value if isinstance(value, list) else [category_text(value)]


def category_text(value: object) -> str:
    """Return a value as the text of a category, the same as on import: `true`, `3`, `2.5`; nothing is the empty text,
    which none has.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else np.nan
