"""What a classifier thinks of a photo's parts, each shown alone (Oh et al. 2017, 5.1, G1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tagseg.localize.photos import as_image
from tagseg.training import Execution

__all__ = ["score_changes"]

_AT_ONCE = 16  # photos a forward pass


@torch.no_grad()
def score_changes(
    net: nn.Module,
    image: npt.NDArray[Any],
    components: npt.ArrayLike,
    *,
    fill: tuple[int, int, int],
    execution: Execution | None = None,
) -> npt.NDArray[np.float32]:
    """Class scores with all but one component hidden, less those of the whole photo.

    They say which class a component is of (Oh et al. 2017, 5.1, guide labels G1).

    Args:
        net: In evaluation mode; it gives class scores before the sigmoid, (B, C), for RGB in
            [0, 1], (B, 3, H, W).
        image: The photo (H, W, 3), uint8 or floats in [0, 1].
        components: Integers (H, W), ids 1..n, 0 elsewhere.
        fill: Colour of what is hidden, RGB from 0 to 255. The paper multiplies with the component's
            mask: what is hidden is 0 there, in a network's input with its mean subtracted.
        execution: Device and precision; None is the CPU in float32.

    Returns:
        Float32 (n, C); row i is of component i + 1.

    Raises:
        ShapeError: The photo is not (H, W, 3), or of another type.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # scores are mean colours
        >>> photo = np.zeros((1, 2, 3))
        >>> photo[0, 0, 0] = photo[0, 1, 1] = 1  # a red and a green pixel
        >>> score_changes(net, photo, [[1, 2]], fill=(0, 0, 0)).tolist()
        [[0.0, -0.5, 0.0], [-0.5, 0.0, 0.0]]
    """
    image, components = as_image(image), np.asarray(components)
    execution = execution or Execution()
    count = int(components.max(initial=0))
    hidden = np.array(fill, np.uint8)
    parts = [np.where((components == i)[:, :, None], image, hidden) for i in range(1, count + 1)]
    scores = _scores(net, [image, *parts], execution)
    return scores[1:] - scores[:1]


def _scores(net: nn.Module, images: list[Any], execution: Execution) -> npt.NDArray[np.float32]:
    low = execution.precision != torch.float32
    found = []
    for start in range(0, len(images), _AT_ONCE):
        batch = torch.from_numpy(np.stack(images[start : start + _AT_ONCE])).to(execution.device)
        x = batch.permute(0, 3, 1, 2).float() / 255
        with torch.autocast(execution.device.type, execution.precision, enabled=low):
            found.append(net(x).float().cpu().numpy())
    return np.concatenate(found)
