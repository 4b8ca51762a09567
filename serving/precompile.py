"""Compile what a server runs, into numba's cache: `python -m serving.precompile LEAVES`, which a first `opportune up`
starts beside its steps.

On a machine that has the code already it takes a second. It stops with the process that started it.
"""

from __future__ import annotations

import sys

from serving.runtime import parent_watch


def compile_all(leaves_max: int) -> None:
    """Compile or load the functions with fixed signatures, the kernel for trees of so many leaves, and what
    explanations run.
    """
    from serving import worker
    from serving.kernel import kernel, kernel_code, shap_code

    del worker  # importing it compiles what has its signatures beside it
    kernel_code.compiled(kernel.mask_of(leaves_max).name)
    shap_code.compiled()


if __name__ == "__main__":
    parent_watch.end_with_starter()
    compile_all(int(sys.argv[1]))
