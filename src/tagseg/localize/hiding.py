"""Photos with regions hidden at random, so that hiding is nothing unusual to a classifier."""

from __future__ import annotations

import numpy as np

from tagseg.maps import Image

__all__ = ["hidden_cells"]

_CELLS = (3, 8)  # a side, fewest and most
_SHOWN = (0.3, 0.8)  # probability of a cell to stay, least and most


def hidden_cells(
    image: Image, rate: float, colour: tuple[int, int, int], rng: np.random.Generator
) -> Image:
    """The photo with cells of a random grid in one colour, in a fraction ``rate`` of all calls.

    Singh and Lee, Hide-and-Seek, ICCV 2017, section 3.1: a classifier that often misses parts of a
    thing learns all of them, and hidden pixels take the mean colour so that activations keep their
    distribution. Here the number of cells and how likely each is to stay are drawn too, because
    what the judge hides has any size.

    Args:
        image: (H, W, 3), uint8; it is not changed.
        rate: fraction of the calls in which something is hidden.
        colour: of hidden pixels, RGB.
        rng: where draws come from.

    Returns:
        Another array of that size and type, or ``image`` itself where nothing is to be hidden.

    Examples:
        >>> import numpy as np
        >>> from tagseg.localize import hidden_cells
        >>> image = np.full((8, 8, 3), 200, np.uint8)
        >>> hidden_cells(image, 0.0, (0, 0, 0), np.random.default_rng(0)).min().item()
        200
        >>> hidden_cells(image, 1.0, (0, 0, 0), np.random.default_rng(0)).min().item()
        0
    """
    if rng.random() >= rate:
        return image
    cells = int(rng.integers(_CELLS[0], _CELLS[1] + 1))
    shown = rng.random((cells, cells)) < rng.uniform(*_SHOWN)
    rows, columns = (np.arange(side) * cells // side for side in image.shape[:2])
    return np.where(shown[np.ix_(rows, columns)][..., None], image, np.asarray(colour, np.uint8))
