"""A large photo in overlapping windows, whose answers fade into one another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["OVERLAP", "in_windows", "starts", "taper"]

OVERLAP = 0.25
"""Of neighbouring windows, as a fraction of the window."""

Forward = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


def starts(length: int, window: int, stride: int) -> list[int]:
    """First pixels of windows over ``length`` pixels, evenly spread, at most ``stride`` apart.

    One window where one is enough.
    """
    if length <= window:
        return [0]
    count = 1 - (-(length - window) // stride)
    return [round(k * (length - window) / (count - 1)) for k in range(count)]


def taper(length: int, margin: int) -> npt.NDArray[np.float32]:
    """Weights of a window's pixels along one side: a Hann flank of ``margin`` pixels at each end.

    Never 0, so that the photo's edges, which one window alone sees, have an answer.
    """
    flank = np.sin(np.pi / 2 * (np.arange(margin) + 0.5) / max(1, margin)) ** 2
    weights = np.ones(length)
    weights[:margin] = flank
    weights[length - margin :] = np.minimum(weights[length - margin :], flank[::-1])
    return weights.astype(np.float32)


def in_windows(
    forward: Forward,
    image: npt.NDArray[np.uint8],
    window: int,
    *,
    overlap: float = OVERLAP,
) -> npt.NDArray[np.float32]:
    """Probabilities (L, h, w) of a photo (h, w, 3), from windows of at most ``window`` pixels.

    Where one window holds the photo this is ``forward`` itself. Sums are kept in the result, so
    there is no other map of the photo's size but one of weights.

    Args:
        forward: of photos (B, h, w, 3); probabilities (B, L, h, w).
        window: longest side of a window, pixels.
        overlap: of neighbouring windows, as a fraction of the window.
    """
    height, width = image.shape[:2]
    if max(height, width) <= window:
        return forward(image[None])[0]
    size = (min(window, height), min(window, width))
    margin = max(1, round(window * overlap))
    weights = taper(size[0], min(margin, size[0] // 2))[:, None] * taper(
        size[1], min(margin, size[1] // 2)
    )
    total: npt.NDArray[np.float32] | None = None
    weight = np.zeros((height, width), np.float32)
    for top in starts(height, size[0], window - margin):
        for left in starts(width, size[1], window - margin):
            here = (slice(top, top + size[0]), slice(left, left + size[1]))
            probs = forward(np.ascontiguousarray(image[here])[None])[0]
            if total is None:
                total = np.zeros((len(probs), height, width), np.float32)
            total[(slice(None), *here)] += probs * weights
            weight[here] += weights
    assert total is not None
    total /= weight
    return total
