"""Examples made by hand, without a workspace: what metrics, baselines and fitting are tested on."""

from __future__ import annotations

from typing import Any

import numpy as np

from features.columns.contract import Column, Contract
from training.dataset.examples import Examples


def contract_of(columns: int, categories: tuple[int, ...] = (), **more: Any) -> Contract:
    """Columns `c0`, `c1`, … of offers; some are categories. `more` goes into every column."""
    return Contract(
        tuple(
            Column(f"c{at}", "offer", "category" if at in categories else "number", f"c{at}", **more)
            for at in range(columns)
        )
    )


def made(
    sizes: list[int], labels: Any, values: Any = None, offers: Any = None, contract: Contract | None = None
) -> Examples:
    """Examples of decisions of so many offers; values are a column of zeros when absent."""
    rows = sum(sizes)
    values = np.zeros((rows, 1)) if values is None else np.asarray(values, float).reshape(rows, -1)
    offers = np.concatenate([np.arange(size) for size in sizes]) if offers is None else np.asarray(offers)
    contract = contract or contract_of(values.shape[1])
    categories = {
        column.name: [str(code) for code in range(50)] for column in contract.columns if column.dtype == "category"
    }
    moments = np.arange(len(sizes), dtype=np.int64)
    return Examples(
        contract=contract,
        categories=categories,
        offer_ids=[f"offer-{at}" for at in range(int(offers.max(initial=0)) + 1)],
        values=values,
        labels=np.asarray(labels, float),
        decision=np.repeat(np.arange(len(sizes)), sizes),
        offer=offers.astype(np.int64),
        ids=[f"d{number}" for number in range(len(sizes))],
        times=moments,
        closes=moments + 1,
        strangers=np.zeros(len(sizes), bool),
    )
