"""The labellers G0, G1 and G2 make guide labels of saliency and seeds, as does an oracle.

Oh et al. 2017 (guided segmentation), section 5.1 and supplement E.

==========  ==============================  =====================================================
paper       here                            shape
==========  ==============================  =====================================================
R_i^fg      ``components == i``             int32 (H, W), 1..n, of the salient pixels
R_j^s       components of one label's       (H, W)
            pixels in ``seeds``
"ignore"    255
==========  ==============================  =====================================================

Pixels belong to one component if they touch at a side or a corner. A seed touches a salient
component if they share a pixel; lying side by side is not enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import (
    BACKGROUND,
    IGNORE,
    MAX_CLASSES,
    Labels,
    Tags,
    check_labels,
    label_of_tag,
    labels_of_tags,
)

__all__ = [
    "Components",
    "Mask",
    "ShareComponent",
    "Window",
    "component_guide",
    "oracle_guide",
    "oracle_mask",
    "random_guide",
    "salient_components",
    "seed_guide",
]

Mask: TypeAlias = npt.NDArray[np.bool_]  # (H, W)
Components: TypeAlias = npt.NDArray[np.int32]  # (H, W), 1..n, 0 elsewhere
Window: TypeAlias = tuple[slice, slice]  # rows and columns of a photo

ShareComponent: TypeAlias = Callable[[Mask, Labels, Labels, Window], Labels]
"""A function that gives the labels (h, w) of a component that several classes share.

It is called with the component, bool (h, w) in its bounding box; the seeds that count, (H, W) of
the whole photo; the labels of the classes that touch the component, uint8 (k,), ascending; and
where the bounding box lies. What it returns outside of the component is not read.
"""


def salient_components(salient: Mask, *, min_fraction: float = 0.01) -> Components:
    """Number the components of the salient pixels that cover enough of the photo.

    Oh et al. 2017, supplement E: "with area >= 1% of the image size".

    Args:
        salient: (H, W) bool.
        min_fraction: the fraction of the photo's pixels that a component covers at least, 0 to 1.

    Returns:
        int32 (H, W): 1..n, and 0 where nothing is salient or the component is too small.

    Raises:
        ConfigError: ``min_fraction`` is not from 0 to 1.
        ShapeError: ``salient`` is not a bool (H, W) of at least one pixel.

    Examples:
        Pixels that touch at a corner belong together; the lone one on the right is too small.

        >>> import numpy as np
        >>> from tagseg.fuse import salient_components
        >>> salient = np.array([[1, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool)
        >>> salient_components(salient, min_fraction=0.1).tolist()
        [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]
    """
    return _large_components(_check_salient(salient), min_fraction).ids


def random_guide(salient: Mask, tags: Tags, rng: np.random.Generator) -> Labels:
    """Give all salient pixels one class, drawn from the photo's tags: the labeller G0.

    Oh et al. 2017, section 5.1.

    Args:
        salient: (H, W) bool.
        tags: (C,) bool; without any, all is background.
        rng: the generator that draws the class.

    Returns:
        labels uint8 (H, W) without 255.

    Raises:
        ShapeError: ``salient`` is not a bool (H, W) of at least one pixel.

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import random_guide
        >>> salient = np.array([[False, True, True]])
        >>> random_guide(salient, np.array([False, True]), np.random.default_rng(0)).tolist()
        [[0, 2, 2]]
    """
    _check_salient(salient)
    present = np.flatnonzero(tags)
    label = label_of_tag(int(rng.choice(present))) if present.size else BACKGROUND
    return np.where(salient, np.uint8(label), np.uint8(BACKGROUND))


def component_guide(
    components: Components,
    changes: npt.NDArray[np.floating],
    tags: Tags,
    *,
    without_rise: Literal["best", "ignore"] = "best",
) -> Labels:
    """Give each component the tag whose score rises most with all else zeroed: the labeller G1.

    Oh et al. 2017, section 5.1: "the ground truth class with the greatest positive score difference
    before and after zeroing". What happens where no score rises, it does not say: ``without_rise``.

    Args:
        components: (H, W) int32, 1..n and 0 elsewhere, as of :func:`salient_components`.
        changes: float (n, C), compared as they are: the scores of the photo with everything but
            component i zeroed, in row i - 1, less the scores of the whole photo.
        tags: (C,) bool; absent classes are never read, and without any all is background.
        without_rise: a component for which no present class has a positive change takes the
            greatest all the same ("best"), or 255 ("ignore").

    Returns:
        labels uint8 (H, W); background outside of the components.

    Raises:
        ConfigError: ``without_rise`` is neither.
        ShapeError: there is not one row per component and one column per tag, or a change of a
            present class is NaN.

    Examples:
        Alone, component 1 raises the score of class 2; component 2 raises neither.

        >>> import numpy as np
        >>> from tagseg.fuse import component_guide
        >>> components = np.array([[1, 1, 0, 2]], np.int32)
        >>> changes, tags = np.array([[0.1, 0.4], [-0.2, -0.3]]), np.array([True, True])
        >>> component_guide(components, changes, tags).tolist()
        [[2, 2, 0, 1]]
        >>> component_guide(components, changes, tags, without_rise="ignore").tolist()
        [[2, 2, 0, 255]]
    """
    if without_rise not in ("best", "ignore"):
        raise ConfigError(f"without_rise is {without_rise!r}", do="use best or ignore")
    count = int(components.max(initial=0))
    if changes.shape != (count, len(tags)):
        raise ShapeError(
            f"changes has shape {changes.shape} for {count} components and {len(tags)} tags",
            do="give a row per component and a column per tag",
        )
    table = np.full(count + 1, BACKGROUND, np.uint8)
    if tags.any() and count:
        present = changes[:, tags]
        if np.isnan(present).any():
            raise ShapeError("changes holds NaN", do="check what produced it")
        table[1:] = labels_of_tags(tags)[1:][present.argmax(1)]
        if without_rise == "ignore":
            table[1:][present.max(1) <= 0] = IGNORE
    return table[components]


def seed_guide(
    seeds: Labels,
    salient: Mask,
    *,
    share: ShareComponent,
    min_seed_pixels: int = 25,
    min_fraction: float = 0.01,
) -> Labels:
    """Spread seeds over the salient components that they touch: the labeller G2.

    Oh et al. 2017, section 5.1 and supplement E. A large salient component becomes, by the number
    of classes whose seeds touch it, 255 (none), the class (one), or what ``share`` says (more).
    Elsewhere a seed that touches a component bled out of it: 255. A seed that touches none stays as
    it is. The rest is background, and so are seeds of fewer than ``min_seed_pixels``.

    Args:
        seeds: (H, W) uint8; pixels of 0 and 255 are no seeds.
        salient: (H, W) bool.
        share: a function that divides a component among the classes that touch it, called
            ``share(component, seeds, classes, window)``; :data:`ShareComponent` says with what.
        min_seed_pixels: components of seeds that are smaller do not count (not in the paper's
            text, which wants 1 % of the image of them as well; 25 in the authors' code).
        min_fraction: the fraction of the photo's pixels that a salient component covers at least,
            0 to 1; smaller ones do not count as salient.

    Returns:
        labels uint8 (H, W).

    Raises:
        ConfigError: ``min_fraction`` is not from 0 to 1, or ``min_seed_pixels`` is negative.
        ShapeError: the arrays are not uint8 and bool (H, W) of one size with at least one pixel.

    Examples:
        The left component has seeds of one class, and one of them bleeds out of it; the right one
        has seeds of two classes, between which nobody decides here.

        >>> import numpy as np
        >>> from tagseg.fuse import seed_guide
        >>> seeds = np.array([[1, 1, 0, 0, 0, 0, 1, 0, 2]], np.uint8)
        >>> salient = np.array([[0, 1, 1, 1, 0, 0, 1, 1, 1]], bool)
        >>> def undecided(component, seeds, classes, window):
        ...     return np.full(component.shape, 255, np.uint8)
        >>> seed_guide(seeds, salient, share=undecided, min_seed_pixels=1).tolist()
        [[255, 1, 1, 1, 0, 0, 255, 255, 255]]
    """
    check_labels(seeds, MAX_CLASSES, "seeds")
    if _check_salient(salient).shape != seeds.shape:
        raise ShapeError(
            f"salient has shape {salient.shape}, seeds {seeds.shape}",
            do="bring both to the same height and width",
        )
    if min_seed_pixels < 0:
        raise ConfigError(f"min_seed_pixels is {min_seed_pixels}", do="give 0 or more")
    components = _large_components(salient, min_fraction)
    found = _find_seeds(seeds, components, min_seed_pixels)
    guide, inside = found.outside, components.members > 0
    guide.ravel()[components.pixels[inside]] = _single_labels(found)[components.members[inside]]
    for i in np.flatnonzero(found.touching.sum(1) > 1):
        window = _window(components, int(i))
        component = components.ids[window] == i
        divided = share(component, found.counted, found.classes[found.touching[i]], window)
        np.copyto(guide[window], divided, where=component)
    return guide


def oracle_mask(truth: Labels) -> Mask:
    """Mark the foreground of the ground truth: the saliency oracle, for ablations only.

    Oh et al. 2017, section 6.2. Pixels of 255, which nobody annotated, count as not salient: in VOC
    they are the rims of objects, and so keep objects apart that touch. :func:`oracle_guide` leaves
    them out of training.

    Args:
        truth: (H, W) uint8.

    Returns:
        bool (H, W).

    Raises:
        ShapeError: ``truth`` is not uint8 (H, W).

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import oracle_mask
        >>> oracle_mask(np.array([[0, 255, 3, 3, 255]], np.uint8)).tolist()
        [[False, False, True, True, False]]
    """
    check_labels(truth, MAX_CLASSES, "truth")
    return (truth != BACKGROUND) & (truth != IGNORE)


def oracle_guide(
    seeds: Labels,
    truth: Labels,
    *,
    share: ShareComponent,
    min_seed_pixels: int = 25,
    min_fraction: float = 0.01,
) -> Labels:
    """Spread seeds over the true objects, as G2 would with perfect saliency; for ablations only.

    Oh et al. 2017, Table 2: :func:`seed_guide` with :func:`oracle_mask` for saliency, and 255 where
    the ground truth is 255.

    Args:
        seeds: (H, W) uint8; pixels of 0 and 255 are no seeds.
        truth: (H, W) uint8; which classes it holds does not matter.
        share: as of :func:`seed_guide`.
        min_seed_pixels: as of :func:`seed_guide`.
        min_fraction: as of :func:`seed_guide`.

    Returns:
        labels uint8 (H, W).

    Raises:
        ConfigError: ``min_fraction`` is not from 0 to 1, or ``min_seed_pixels`` is negative.
        ShapeError: the arrays are not uint8 (H, W) of one size with at least one pixel.

    Examples:
        >>> import numpy as np
        >>> from tagseg.fuse import oracle_guide
        >>> seeds, truth = np.array([[[0, 0, 1, 0, 0]], [[0, 255, 1, 1, 0]]], np.uint8)
        >>> def undecided(component, seeds, classes, window):
        ...     return np.full(component.shape, 255, np.uint8)
        >>> oracle_guide(seeds, truth, share=undecided, min_seed_pixels=1).tolist()
        [[0, 255, 1, 1, 0]]
    """
    guide = seed_guide(
        seeds,
        oracle_mask(truth),
        share=share,
        min_seed_pixels=min_seed_pixels,
        min_fraction=min_fraction,
    )
    guide[truth == IGNORE] = IGNORE
    return guide


class _Parts(NamedTuple):
    """The components of a mask, and what is known of its pixels, which are few."""

    ids: Components  # 0 outside of the mask
    pixels: npt.NDArray[np.intp]  # (p,) where in the raveled photo the mask's pixels are
    members: npt.NDArray[np.int32]  # (p,) component of each of them
    areas: npt.NDArray[np.intp]  # (n + 1,)


class _Seeds(NamedTuple):
    """What the seeds say about pixels and about salient components."""

    classes: Labels  # (k,) labels of the seeds
    touching: npt.NDArray[np.bool_]  # (n + 1, k) whether a seed of the class touches component i
    counted: Labels  # (H, W) the seeds that count
    outside: Labels  # (H, W) labels of pixels outside of the salient components


def _connected(mask: Mask) -> _Parts:
    count, found = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    ids = np.asarray(found, dtype=np.int32)
    pixels = np.flatnonzero(mask)
    members = ids.ravel()[pixels]
    return _Parts(ids, pixels, members, np.bincount(members, minlength=count))


def _large_components(salient: Mask, min_fraction: float) -> _Parts:
    """Number the salient components that are large enough; the others' pixels go to 0."""
    if not 0 <= min_fraction <= 1:
        raise ConfigError(f"min_fraction is {min_fraction}", do="give a fraction from 0 to 1")
    every = _connected(salient)
    # Divided, not multiplied: 7 of 100 pixels are 0.07 of them, but 0.07 * 100 is more than 7.
    large = every.areas / salient.size >= min_fraction
    large[0] = False
    members = np.where(large, np.cumsum(large), 0).astype(np.int32)[every.members]
    every.ids.ravel()[every.pixels] = members
    return _Parts(every.ids, every.pixels, members, np.append(0, every.areas[large]))


def _find_seeds(seeds: Labels, components: _Parts, min_pixels: int) -> _Seeds:
    """Number the seeds of each class, and see which components each of them touches."""
    present = np.flatnonzero(np.bincount(seeds[seeds != BACKGROUND], minlength=256)[:IGNORE])
    touching = np.zeros((len(components.areas), len(present)), np.bool_)
    counted, outside = np.zeros((2, seeds.size), np.uint8)
    for k, label in enumerate(present):
        _, pixels, seed, areas = _connected(seeds == label)
        component = components.ids.ravel()[pixels]
        counts = areas >= min_pixels
        touches = np.zeros(len(areas), np.bool_)
        touches[seed[component > 0]] = True
        touching[component[counts[seed]], k] = True
        counted[pixels] = np.where(counts, label, BACKGROUND)[seed]
        beyond = np.where(touches, IGNORE, label)
        outside[pixels] = np.where(counts, beyond, BACKGROUND)[seed]
    touching[0] = False
    classes = present.astype(np.uint8)
    return _Seeds(classes, touching, counted.reshape(seeds.shape), outside.reshape(seeds.shape))


def _single_labels(seeds: _Seeds) -> Labels:
    """Look up the label of each component (n + 1,) that one class touches; 255 for the others."""
    table = np.full(len(seeds.touching), IGNORE, np.uint8)
    component, k = np.nonzero(seeds.touching & (seeds.touching.sum(1, keepdims=True) == 1))
    table[component] = seeds.classes[k]
    return table


def _window(components: _Parts, i: int) -> Window:
    """Find the bounding box of component ``i``."""
    rows, columns = np.divmod(components.pixels[components.members == i], components.ids.shape[1])
    return (
        slice(int(rows.min()), int(rows.max()) + 1),
        slice(int(columns.min()), int(columns.max()) + 1),
    )


def _check_salient(salient: Any) -> Mask:
    if not isinstance(salient, np.ndarray) or salient.dtype != np.bool_ or salient.ndim != 2:
        what = f"a {getattr(salient, 'dtype', type(salient).__name__)}"
        raise ShapeError(f"salient is {what}", do="give a bool array (H, W)")
    if 0 in salient.shape:
        raise ShapeError(f"salient has shape {salient.shape}", do="give at least one pixel")
    return salient
