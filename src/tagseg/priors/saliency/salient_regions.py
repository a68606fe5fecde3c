"""The salient regions of a map (Oh et al. 2017, section 6.1)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tagseg.errors import ShapeError
from tagseg.maps import SaliencyMap

__all__ = ["salient_mask"]


def salient_mask(saliency_map: SaliencyMap, *, part: float = 0.5) -> npt.NDArray[np.bool_]:
    """Where a saliency map (H, W) reaches ``part`` of its maximum, bool (H, W).

    Oh et al. 2017, section 6.1: "threshold at 50% of the maximal foreground probability". Nothing
    is salient where the maximum is 0. Raises ShapeError for NaN, infinity or another form.
    """
    if saliency_map.ndim != 2 or not np.issubdtype(saliency_map.dtype, np.floating):
        raise ShapeError(
            f"saliency_map is a {saliency_map.dtype} array of shape {saliency_map.shape}",
            do="give a float32 array (H, W)",
        )
    if not np.isfinite(saliency_map).all():
        raise ShapeError("saliency_map holds NaN or infinity", do="check what produced it")
    peak = saliency_map.max(initial=0.0)
    if peak <= 0:
        return np.zeros(saliency_map.shape, bool)
    return saliency_map >= part * peak
