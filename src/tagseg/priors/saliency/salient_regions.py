"""The salient pixels of a map (Oh et al. 2017, section 6.1)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tagseg.errors import ConfigError, ShapeError
from tagseg.priors.float_arrays import float_array

__all__ = ["salient_mask"]


def salient_mask(
    saliency_map: npt.NDArray[np.floating], *, fraction: float = 0.5
) -> npt.NDArray[np.bool_]:
    """Find where a saliency map reaches a fraction of its maximum.

    Oh et al. 2017, section 6.1: "threshold at 50% of the maximal foreground probability". Nothing
    is salient where the maximum is 0 or less.

    Args:
        saliency_map: float (H, W), of any unit.
        fraction: of the maximum, from which on a pixel is salient, 0 to 1.

    Returns:
        bool (H, W).

    Raises:
        ConfigError: fraction is out of range.
        ShapeError: saliency_map is no such array, or holds NaN or infinity.

    Examples:
        >>> import numpy as np
        >>> from tagseg.priors import salient_mask
        >>> saliency = np.array([[0.0, 0.2, 0.6], [0.1, 0.4, 0.8]])
        >>> salient_mask(saliency).tolist()
        [[False, False, True], [False, True, True]]
        >>> salient_mask(saliency, fraction=0.75).tolist()
        [[False, False, True], [False, False, True]]
    """
    if not 0 <= fraction <= 1:
        raise ConfigError(f"fraction is {fraction}", do="give a share from 0 to 1")
    values = float_array(saliency_map, "saliency_map", "(H, W)")
    if values.ndim != 2:
        raise ShapeError(f"saliency_map has shape {values.shape}", do="give a float array (H, W)")
    if not np.isfinite(values).all():
        raise ShapeError("saliency_map holds NaN or infinity", do="check what produced it")
    peak = values.max(initial=0.0)
    if peak <= 0:
        return np.zeros(values.shape, bool)
    return values >= fraction * peak
