"""Compile what a server runs, into numba's cache: `python -m serving.warm`, which a first `opportune up` starts beside its steps.

On a machine that has the code already it takes a second. It stops with the process that started it.
"""

from __future__ import annotations

import numpy as np

from serving import leash


def compile_all() -> None:
    """Compile or load the functions with fixed signatures, the kernel for forests of both sizes, and what explanations run."""
    from serving import contributions_code, kernel_code, worker

    del worker  # importing it compiles what has its signatures beside it
    for mask in (np.uint32, np.uint64):
        kernel_code.compiled(np.dtype(mask).name)
    contributions_code.compiled()


if __name__ == "__main__":
    leash.end_with_starter()
    compile_all()
