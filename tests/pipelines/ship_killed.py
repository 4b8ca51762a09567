"""Ships a workspace, or compacts it, and dies by SIGKILL at a step: `ship_killed.py WORKSPACE STEP ship|compact
NOW`.
"""

import os
import sys
import time
from pathlib import Path

os.environ["TZ"] = "UTC"
time.tzset()

from features.validation.load import load  # noqa: E402
from pipelines.shipping.compact import compact  # noqa: E402
from pipelines.shipping.ship import ShippingLimits, ship  # noqa: E402
from tests.pipelines.loops import KillAt  # noqa: E402

if __name__ == "__main__":
    folder, number, what, now = sys.argv[1:]
    step = KillAt(int(number), really=True)
    if what == "ship":
        ship(load(Path(folder)), step=step, limits=ShippingLimits(20, 20))
    else:
        compact(load(Path(folder)), int(now), step)
