"""Float arguments as the kernels want them: NumPy arrays of float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tagseg.errors import ShapeError

__all__ = ["float_array"]


def float_array(values: Any, name: str, form: str) -> npt.NDArray[np.float32]:
    """Return a floating-point array or tensor as a float32 array, without a copy if it is one.

    Args:
        values: array or tensor of float64, float32 or float16; a tensor may be on any device.
        name: what the message calls it.
        form: its shape in words, such as ``"(H, W)"``, for the message.

    Raises:
        ShapeError: ``values`` is anything else. Whole numbers are refused, because nothing says
            whether their range is 0..1 or 0..255.
    """
    if isinstance(values, Tensor) and values.is_floating_point():
        values = values.detach().float().cpu().numpy()  # NumPy does not know bfloat16
    if not isinstance(values, np.ndarray) or not np.issubdtype(values.dtype, np.floating):
        kind = f"a {type(values).__name__}"
        if hasattr(values, "dtype") and hasattr(values, "shape"):
            kind = f"a {values.dtype} array of shape {tuple(values.shape)}"
        raise ShapeError(f"{name} is {kind}", do=f"give a float array {form}")
    with np.errstate(over="ignore"):  # what is too large becomes infinity, which checks refuse
        return values.astype(np.float32, copy=False)
