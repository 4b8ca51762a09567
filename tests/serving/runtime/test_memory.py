"""What a worker gives back: pages of libraries, and modules that it never imports."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from serving.runtime import memory
from tests.waiting import LIMIT_S

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/smaps").exists(), reason="needs a kernel that tells of its mappings (Linux)"
)

SMAPS = """\
55d0a0000000-55d0a0010000 r--p 00000000 08:01 42   /usr/lib/liba.so
Rss:                  40 kB
Anonymous:             0 kB
55d0a0010000-55d0a0020000 r-xp 00010000 08:01 42   /usr/lib/liba.so
Rss:                  64 kB
Anonymous:             0 kB
55d0a0020000-55d0a0030000 r--p 00020000 08:01 42   /usr/lib/liba.so
Rss:                  64 kB
Anonymous:             8 kB
55d0a0030000-55d0a0040000 rw-p 00030000 08:01 42   /usr/lib/liba.so
Rss:                  64 kB
Anonymous:             0 kB
7f0000000000-7f0000001000 r--s 00000000 08:01 43   /data/data.mdb
Rss:                   4 kB
Anonymous:             0 kB
7f0000001000-7f0000002000 r-xp 00000000 00:00 0
Rss:                   4 kB
Anonymous:             0 kB
7f0000002000-7f0000003000 r-xp 00000000 08:01 44   /usr/lib/a name with blanks.so
Rss:                   0 kB
Anonymous:             0 kB
"""


def test_what_may_be_given_back() -> None:
    """Only resident pages of private read-only file mappings that hold nothing of our own: relocated tables would be
    lost.
    """
    found = [(hex(start), size, resident) for start, size, resident in memory._file_mappings(SMAPS)]
    assert found == [("0x55d0a0000000", 0x10000, 40 << 10), ("0x55d0a0010000", 0x10000, 64 << 10)]


def test_a_process_goes_on_after_giving_back() -> None:
    """Compiled code, libraries and numpy work as before in a process that gave back what it could, and memory did
    fall.
    """
    program = """
import numpy, numba, re
@numba.njit
def doubled(x): return 2 * x
assert doubled(21) == 42
def resident(): return int(re.search(r"Rss:\\s+(\\d+)", open("/proc/self/smaps_rollup").read())[1]) * 1024
from serving.runtime import memory
before = resident()
given = memory.give_back()
after = resident()
assert doubled(4) == 8 and doubled(0.5) == 1.0 and numpy.linalg.inv(numpy.eye(3)).sum() == 3
assert given > 10_000_000 and before - after > 10_000_000, (given, before, after)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=LIMIT_S)


def test_unused_modules_are_hidden_and_come_back() -> None:
    """Within, what numba need not find is not found; afterwards it can be imported as ever, and what was loaded
    stayed.
    """
    program = """
import sys
from serving.runtime import memory
with memory.without_unused():
    try:
        import scipy
        raise SystemExit("scipy was found")
    except ImportError:
        pass
    import numba
assert not any(name.partition(".")[0] in memory.UNUSED_MODULES for name in sys.modules)
import scipy.special
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=LIMIT_S)
    loaded = importlib.import_module("scipy")
    with memory.without_unused():
        assert sys.modules["scipy"] is loaded
    assert sys.modules["scipy"] is loaded
