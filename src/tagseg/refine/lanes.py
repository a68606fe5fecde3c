"""The vectors of the dense CRF's kernels, chosen once: the machine's, or plain loops.

:mod:`tagseg.refine.machine_lanes` writes machine instructions through numba's extension interface,
which a new release of numba or llvmlite may change. Where it does not compile, the same kernels run
on :mod:`tagseg.refine.plain_lanes`, with the same labels in more time.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

__all__ = [
    "Width",
    "add_inner",
    "add_outer",
    "add_scaled",
    "add_scaled_pair",
    "at",
    "equal",
    "exp",
    "floor",
    "highest",
    "highest_of_four",
    "lanes",
    "less",
    "load",
    "load_four",
    "maximum",
    "repeat_four",
    "spread",
    "store",
    "total",
    "total_of_four",
]


def _machine_vectors_compile() -> bool:
    """Return whether they do; warn where they do not."""
    try:
        from tagseg.refine.machine_lanes import probe

        probe()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        warnings.warn(
            "dense CRF: the fast kernels do not compile with this numba and llvmlite "
            f"({reason}); plain ones stand in, with the same labels in about ten times the time; "
            "install a numba release that tagseg was tested with, or report this one",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


if TYPE_CHECKING or _machine_vectors_compile():
    from tagseg.refine.machine_lanes import (
        Width,
        _WidthType,  # noqa: F401 - kernels cached by version 0.1 before name it here
        add_inner,
        add_outer,
        add_scaled,
        add_scaled_pair,
        at,
        equal,
        exp,
        floor,
        highest,
        highest_of_four,
        lanes,
        less,
        load,
        load_four,
        maximum,
        repeat_four,
        spread,
        store,
        total,
        total_of_four,
    )
else:
    from tagseg.refine.plain_lanes import (
        Width,
        add_inner,
        add_outer,
        add_scaled,
        add_scaled_pair,
        at,
        equal,
        exp,
        floor,
        highest,
        highest_of_four,
        lanes,
        less,
        load,
        load_four,
        maximum,
        repeat_four,
        spread,
        store,
        total,
        total_of_four,
    )
