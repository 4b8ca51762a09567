"""Checks that every kind which `features.yaml` names is one that the program computes: before all others, which trust
it.

The forms of `features/config/features_file.py` say which words a file may use. A word that only they know would pass,
and fail when it is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from features.aggregate_kinds.kinds import DECLARED, PAIRED
from features.config.documents import Document
from features.config.faults import Fault, Path
from features.lake.tables import SQL_TYPES
from features.workspace.workspace import Workspace

RELATIVES = ("share", "rank", "ratio")
"""What `features/columns/pairs.py` lays beside a pair column."""
SCOPES = ("customer", "everyone")


def faults_of_kinds(workspace: Workspace) -> Iterator[Fault]:
    """Yield a fault for every aggregate, dtype, relative and scope that nothing computes."""
    features, document = workspace.features, workspace.documents["features.yaml"]
    for name, column in features.columns.items():
        yield from _known(document, ("columns", name, "aggregate"), column.aggregate, DECLARED)
    for name, pair in features.pairs.items():
        yield from _known(document, ("pairs", name, "aggregate"), pair.aggregate, PAIRED)
        yield from _known(document, ("pairs", name, "scope"), pair.scope, SCOPES)
        for position, relative in enumerate(pair.relative):
            yield from _known(document, ("pairs", name, "relative", position), relative, RELATIVES)
    for name, attribute in features.customer.attributes.items():
        yield from _known(document, ("customer", "attributes", name, "dtype"), attribute.dtype, SQL_TYPES)
    for name, of_offer in features.offer.items():
        yield from _known(document, ("offer", name, "dtype"), of_offer.dtype, SQL_TYPES)
    for name, of_context in features.context.items():
        yield from _known(document, ("context", name, "dtype"), of_context.dtype, SQL_TYPES)


def _known(document: Document, path: Path, word: str, known: Iterable[str]) -> Iterator[Fault]:
    words = list(known)
    if word not in words:
        yield document.unknown(path, "a kind that is computed", word, words)
