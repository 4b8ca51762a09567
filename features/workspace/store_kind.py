"""The kinds of online store that a workspace may name, and what the rest of the program must know of each.

How a store is opened, and how a customer is removed from it, says its class in `features/online/stores.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoreKind:
    """One kind of online store.

    Attributes:
        name: what `stores.online.url` says for it, or what its address begins with.
        in_data_folder: whether its rows lie in the data folder, where they are verified, rebuilt, compacted and packed.
        ledger_in_data_folder: whether the contact ledger beside it lies there.
        needs_feast: whether a server must load Feast to read it.
    """

    name: str
    in_data_folder: bool
    ledger_in_data_folder: bool
    needs_feast: bool


EMBEDDED = StoreKind("embedded", in_data_folder=True, ledger_in_data_folder=True, needs_feast=False)
FEAST = StoreKind("feast:", in_data_folder=False, ledger_in_data_folder=True, needs_feast=True)
SERVER = StoreKind("", in_data_folder=False, ledger_in_data_folder=False, needs_feast=False)
"""A Redis, by its address; `opportune check` says whether it is one."""
STORE_KINDS = (EMBEDDED, FEAST, SERVER)


def kind_of(url: str) -> StoreKind:
    """Return the kind of an `online_url`; whatever is no other is the address of a server."""
    if url == EMBEDDED.name:
        return EMBEDDED
    return FEAST if url.startswith(FEAST.name) else SERVER
