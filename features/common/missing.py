"""Words that programs write where a value is missing: `nan`, `None`, `NULL`, `undefined`. They are nobody's id and no
category.
"""

from __future__ import annotations

from itertools import product

WORDS = ("nan", "none", "null", "nil", "undefined", "na", "n/a", "nat", "<na>", "#n/a", "(null)", "[null]", "\\n")
"""In lower case. What pandas, R, SQL, JavaScript, Python and spreadsheets write; `\\N` is MySQL's and PostgreSQL's."""


def _spellings(word: str) -> set[str]:
    return {"".join(letters) for letters in product(*({letter, letter.upper()} for letter in word))}


NOBODY = frozenset(spelling for word in WORDS for spelling in _spellings(word))
"""All words in every mixture of cases: a look-up costs a request 30 ns, and needs no lower-casing."""
EXPECTED_ID = "the id of somebody, or none at all: a word for what is missing is no id"
"""What an API says that it wants where it got one of `NOBODY`."""
