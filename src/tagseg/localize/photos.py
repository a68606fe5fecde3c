"""Photos as they are given, and as networks take them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tagseg.errors import ShapeError
from tagseg.maps import Image, check_image

__all__ = ["as_image", "as_input"]


def as_image(photo: npt.NDArray[Any]) -> Image:
    """A photo (H, W, 3) in 8 bits: uint8 as it is, floats in [0, 1] rounded.

    Raises:
        ShapeError: The photo is not (H, W, 3), of another type, or of floats beyond [0, 1].
    """
    if isinstance(photo, np.ndarray) and np.issubdtype(photo.dtype, np.floating):
        if not ((photo >= 0) & (photo <= 1)).all():
            raise ShapeError("image has floats beyond [0, 1]", do="give RGB in [0, 1], or uint8")
        photo = np.round(photo * 255).astype(np.uint8)
    return check_image(photo)


def as_input(image: Image, device: torch.device) -> Tensor:
    """RGB in [0, 1], (1, 3, H, W), of a photo uint8 (H, W, 3)."""
    x = torch.from_numpy(np.ascontiguousarray(image)).to(device)
    return x.permute(2, 0, 1)[None].float() / 255
