"""All tests run in UTC, as all our processes do."""

import os
import time

os.environ["TZ"] = "UTC"
time.tzset()
