"""How much the tests with many rounds do. `make test` does what fits into a quarter of an hour on two cores; CI, and
whoever has time, does more of the same: `OPPORTUNE_TEST_DEPTH=3 make test` does three times as many rounds.
"""

import os

DEPTH = float(os.environ.get("OPPORTUNE_TEST_DEPTH", "1"))


def rounds(count: int) -> int:
    """Return how many rounds a test does that has `count` of them by default; one at least."""
    return max(1, round(count * DEPTH))
