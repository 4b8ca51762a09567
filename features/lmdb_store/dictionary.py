"""The words of the embedded store as a writer sees them: texts by id, ids by text, and how new ones are added."""

from __future__ import annotations

import lmdb

from features.lmdb_store.environment import WORDS, entries_after, id_key


class StoredWords:
    """A copy of the store's words. Only as new as the last `load`; ids given within a transaction that fails are
    forgotten.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.ids: dict[str, int] = {}

    def load(self, transaction: lmdb.Transaction[bytes]) -> None:
        """Takes over what other processes have added."""
        for data in entries_after(transaction, WORDS, len(self.texts)):
            self._add(data.decode("utf-8", "surrogatepass"))

    def intern(self, transaction: lmdb.Transaction[bytes], texts: set[str], words_max: int) -> None:
        """Adds the texts that are new, in a fixed order, within a write transaction after `load`.

        Raises:
            ValueError: when there would be more than `words_max`: one of the fields is not a category but an
                identifier.
        """
        # Id 0 is the empty text, here as in `Dictionary`.
        new = [text for text in ["", *sorted(texts)] if text not in self.ids]
        new = list(dict.fromkeys(new))
        if len(self.texts) + len(new) > words_max:
            # None is shown: it may be what nobody but the business may read.
            raise ValueError(f"more than {words_max} distinct categories and keys; is one of the fields an identifier?")
        for text in new:
            transaction.put(id_key(WORDS, len(self.texts)), text.encode("utf-8", "surrogatepass"))
            self._add(text)

    def forget(self) -> None:
        """Starts anew: the next `load` reads everything."""
        self.texts.clear()
        self.ids.clear()

    def _add(self, text: str) -> None:
        self.ids[text] = len(self.texts)
        self.texts.append(text)
