"""Floats of either width at the door of the package: inside, all maps are float32."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["narrowed"]


def narrowed(values: Any) -> Any:
    """Return float64 arrays as float32 and all else as it is; numbers too large become infinity."""
    if not isinstance(values, np.ndarray) or values.dtype != np.float64:
        return values
    with np.errstate(over="ignore"):  # the checks that follow name infinity better than a warning
        return values.astype(np.float32)
