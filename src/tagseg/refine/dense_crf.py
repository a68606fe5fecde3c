"""Fully connected CRF with Gaussian edge potentials, by filter-based mean field.

Kraehenbuehl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials"
(2011); Saleh et al. (2017), section 3.1.3, Eq. 6 to 8. The energy of a labelling x is

    E(x) = sum_i theta_i(x_i) + sum_{i < j} [x_i != x_j] sum_m w_m k_m(i, j) / sqrt(n_mi n_mj),

with a bilateral kernel (position and colour) and a smoothness kernel (position), each normalised
symmetrically by n_mi = sum_j k_m(i, j), and with the terms of regions where some are given (see
:mod:`tagseg.refine.higher_order`). One iteration sets

    Q_i(l)  proportional to  exp(-theta_i(l) + sum_m w_m sum_j k_m(i, j) Q_j(l) / sqrt(n_mi n_mj)).

Both sums over j include i itself, as in pydensecrf. The mean field of the energy above would leave
j = i out; keeping it adds w_m / n_mi times Q_i(l), which is small where n is large (1 / 57 of the
weight in a smoothness kernel of 3 pixels) and lets a pixel of a colour that nothing else has keep
its own label, where the normalisation would otherwise have nothing to normalise.

With the ``lattice`` filter both kernels go through permutohedral lattices, as in all peers. The
``fine`` filter is closer to the exact mean field. Its smoothness kernel goes through a spline grid,
exact but for 1e-3. Its bilateral kernel goes through a finer lattice with a wider blur, with more
vertices where the blur would lose its way; and through a second one, whose vertices lie in the
holes of the first, in turn with it from iteration to iteration: what one of them gets wrong for a
pixel near a vertex, the other gets wrong the other way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import Image, Probs, check_image, check_maps
from tagseg.refine.arrays import narrowed
from tagseg.refine.higher_order import HigherOrder, Layers, check_regions

__all__ = ["CrfParameters", "FilterName", "dense_crf", "refine", "softmax_unary"]

_MAX_LABELS = 255
_PIXELS_A_THREAD = 4096  # a thread with fewer costs more than it brings

Float32 = npt.NDArray[np.float32]
FilterName = Literal["fine", "lattice"]


@dataclass(frozen=True)
class CrfParameters:
    """Settings of a dense CRF; the defaults are those of SEC (Saleh et al. state none).

    ``bilateral`` is (weight, sigma in pixels, sigma in colour levels), ``smoothness`` (weight,
    sigma in pixels); None leaves a kernel out. The sigmas hold for photos whose longer side is
    ``reference_side`` pixels, or for every photo where it is None. ``filter`` is "fine" (closer to
    exact) or "lattice" (what pydensecrf computes, in less time).

    Raises:
        ConfigError: A weight or the number of iterations is negative, or a sigma not positive.

    Examples:
        Sigmas follow the size of the photo where the side that they hold for is named:

        >>> from tagseg.refine import CrfParameters
        >>> parameters = CrfParameters(bilateral=(4, 121, 5), reference_side=500)
        >>> parameters.at(height=150, width=250).bilateral
        (4, 60.5, 5)
    """

    bilateral: tuple[float, float, float] | None = (10, 80, 13)
    smoothness: tuple[float, float] | None = (3, 3)
    iterations: int = 10
    reference_side: int | None = None
    filter: FilterName = "fine"

    def __post_init__(self) -> None:
        _check_kernel(self.bilateral, 3, "bilateral")
        _check_kernel(self.smoothness, 2, "smoothness")
        if not _is_whole(self.iterations) or self.iterations < 0:
            raise ConfigError(
                f"iterations is {self.iterations!r}", where="dense CRF", do="give 0 or more"
            )
        if self.filter not in ("fine", "lattice"):
            raise ConfigError(
                f"filter is {self.filter!r}", where="dense CRF", do="use fine or lattice"
            )
        side = self.reference_side
        if side is not None and (not _is_whole(side) or side < 1):
            raise ConfigError(
                f"reference_side is {side!r}", where="dense CRF", do="give pixels or None"
            )

    def at(self, height: int, width: int) -> CrfParameters:
        """Return the settings for a photo of this size, spatial sigmas in its pixels."""
        if self.reference_side is None:
            return self
        factor = max(height, width) / self.reference_side
        bilateral, smoothness = self.bilateral, self.smoothness
        if bilateral is not None:
            bilateral = (bilateral[0], bilateral[1] * factor, bilateral[2])
        if smoothness is not None:
            smoothness = (smoothness[0], smoothness[1] * factor)
        return CrfParameters(bilateral, smoothness, self.iterations, filter=self.filter)


def refine(
    image: Image,
    unary: Float32,
    parameters: CrfParameters,
    *,
    regions: Layers | None = None,
    higher_order: HigherOrder | None = None,
    maps: Float32 | None = None,
    threads: int = 1,
) -> Probs:
    """Infer a dense CRF with the ``parameters`` at the size of ``image`` (Saleh et al. Eq. 6 to 8).

    The model and its inference, by Kraehenbuehl and Koltun (2011), are described in the module.
    Results depend on ``threads`` in their last bits.

    Args:
        image: RGB photo (H, W, 3), uint8.
        unary: -log p (L, H, W), float32 or float64, of 1 to 255 labels. It is read as float32.
        parameters: weights, sigmas, iterations and filter.
        regions: integer ids (H, W), negative for no region, or a list of such layers. The pixels
            of a region want one label.
        higher_order: how strongly they do; None for the defaults.
        maps: P >= 0 of Eq. 8 (L, H, W), float32 or float64; None for softmax of -unary.
        threads: threads that share the photo, 1 or more.

    Returns:
        Probabilities (L, H, W), float32, that sum to 1 over labels.

    Raises:
        ShapeError: An array does not fit.
        ConfigError: There are less than 1 ``threads``, sigmas are too small for the photo, or its
            memory does not suffice.

    Examples:
        The left half is dark, the right half bright. One pixel on the left has the wrong label:

        >>> import numpy as np
        >>> from tagseg.refine import CrfParameters, refine
        >>> image = np.full((6, 8, 3), 40, np.uint8)
        >>> image[:, 4:] = 200
        >>> unary = np.zeros((2, 6, 8))
        >>> unary[1, :, :4] = unary[0, :, 4:] = 1.0
        >>> unary[:, 3, 1] = 1.0, 0.0
        >>> probs = refine(image, unary, CrfParameters())
        >>> unary.argmin(axis=0)[3].tolist(), probs.argmax(axis=0)[3].tolist()
        ([0, 1, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1])
    """
    image, unary = _check_arrays(image, unary)
    threads = _check_threads(threads, image)
    layers = [] if regions is None else check_regions(regions, unary.shape[1:])
    if maps is not None:
        maps = _check_region_maps(maps, unary)
    from tagseg.refine.inference import infer  # numba: settings alone should not wait for it

    try:
        return infer(image, unary, parameters, layers, higher_order, maps, threads)
    except MemoryError:
        n_labels, height, width = unary.shape
        raise ConfigError(
            f"no memory for a photo of {width} x {height} pixels with {n_labels} labels",
            where="dense CRF",
            do="bring the photo to a smaller size",
        ) from None


def dense_crf(
    image: Image,
    unary: Float32,
    *,
    bilateral: tuple[float, float, float] | None = (10, 80, 13),
    smoothness: tuple[float, float] | None = (3, 3),
    iterations: int = 10,
    filter: FilterName = "fine",
    regions: Layers | None = None,
    higher_order: HigherOrder | None = None,
    threads: int = 1,
) -> Probs:
    """Compute the marginals of a dense CRF (Kraehenbuehl and Koltun 2011; Saleh et al. Eq. 6).

    This is :func:`refine` with its settings as arguments. It holds no lock: one photo may use
    several ``threads``, and several photos may run in threads of yours.

    Args:
        image: RGB photo (H, W, 3), uint8.
        unary: -log p (L, H, W), float32 or float64, of 1 to 255 labels. It is read as float32.
        bilateral: weight, sigma in pixels, sigma in colour levels; None leaves the kernel out.
        smoothness: weight, sigma in pixels; None leaves the kernel out.
        iterations: of the mean field; with 0 the result is softmax(-unary).
        filter: "fine", closer to exact, or "lattice", as pydensecrf has it.
        regions: integer ids (H, W), or a list of such layers, for P^n-Potts terms.
        higher_order: the strengths of these terms; None for the defaults.
        threads: threads that share the photo, 1 or more.

    Returns:
        Probabilities (L, H, W), float32, that sum to 1 over labels.

    Raises:
        ShapeError: An array does not fit.
        ConfigError: A setting makes no sense.

    Examples:
        Noise on the unary of a grey photo goes, as every neighbour votes for label 1:

        >>> import numpy as np
        >>> from tagseg.refine import dense_crf
        >>> image = np.full((6, 8, 3), 128, np.uint8)
        >>> unary = np.zeros((2, 6, 8), np.float32)
        >>> unary[0] = 0.5
        >>> unary[:, 2, 3] = 0.3, 0.0
        >>> unary[:, 4, 5] = 0.0, 0.3
        >>> probs = dense_crf(image, unary)
        >>> int((unary.argmin(axis=0) == 0).sum()), int((probs.argmax(axis=0) == 0).sum())
        (1, 0)
    """
    parameters = CrfParameters(bilateral, smoothness, iterations, filter=filter)
    return refine(
        image, unary, parameters, regions=regions, higher_order=higher_order, threads=threads
    )


def softmax_unary(maps: Float32) -> Float32:
    """Turn score maps into the unary -log softmax over labels (Saleh et al. Eq. 7).

    Args:
        maps: scores (L, H, W), float32 or float64, of any scale. They are read as float32.

    Returns:
        The unary (L, H, W), float32, 0 or above.

    Raises:
        ShapeError: ``maps`` is not a finite float array (L, H, W), or empty.

    Examples:
        >>> import numpy as np
        >>> from tagseg.refine import softmax_unary
        >>> scores = np.log([[[0.2]], [[0.8]]])  # of two labels, at one pixel
        >>> [round(float(p), 3) for p in np.exp(-softmax_unary(scores)).ravel()]
        [0.2, 0.8]
    """
    maps = check_maps(narrowed(maps), np.shape(maps)[1:], "maps")
    if 0 in maps.shape:
        raise ShapeError(f"maps has shape {maps.shape}", do="give at least one label and pixel")
    shifted = maps - maps.max(axis=0)
    unary: Float32 = np.log(np.exp(shifted).sum(axis=0)) - shifted
    return unary


def _check_kernel(kernel: Any, length: int, name: str) -> None:
    """Raise ConfigError where ``kernel`` is not None, nor a weight >= 0 and positive sigmas."""
    if kernel is None:
        return
    try:
        values = np.array(kernel, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    fits = values.shape == (length,) and bool(np.isfinite(values).all())
    if not fits or values[0] < 0 or (values[1:] <= 0).any():
        levels = ", sigma in colour levels" if length == 3 else ""
        raise ConfigError(
            f"{name} is {kernel!r}",
            where="dense CRF",
            do=f"give (weight, sigma in pixels{levels}) with weight >= 0 and sigmas > 0, or None",
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_arrays(image: Any, unary: Any) -> tuple[Image, Float32]:
    image = check_image(image)
    unary = check_maps(narrowed(unary), image.shape[:2], "unary")
    if not 1 <= unary.shape[0] <= _MAX_LABELS:
        raise ShapeError(f"unary has {unary.shape[0]} labels", do=f"give 1 to {_MAX_LABELS}")
    return image, unary


def _check_threads(threads: Any, image: Image) -> int:
    """Return the threads that are worth their start, at most ``threads``."""
    if not _is_whole(threads) or threads < 1:
        raise ConfigError(f"threads is {threads!r}", where="dense CRF", do="give 1 or more")
    height, width = image.shape[:2]
    return int(min(threads, max(1, height * width // _PIXELS_A_THREAD)))


def _check_region_maps(maps: Any, unary: Float32) -> Float32:
    maps = check_maps(narrowed(maps), unary.shape[1:], "maps")
    if len(maps) != len(unary):
        raise ShapeError(f"maps has {len(maps)} labels, unary {len(unary)}", do="give as many")
    return maps
