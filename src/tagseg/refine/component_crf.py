"""Dense CRF among the classes that share a salient component (Oh et al. 2017, supplement E)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from tagseg.errors import ConfigError, ShapeError
from tagseg.maps import BACKGROUND, Image, Labels, check_image
from tagseg.refine.dense_crf import CrfParameters, refine

__all__ = ["DEEPLAB", "ComponentCrf"]

DEEPLAB = CrfParameters(bilateral=(4, 121, 5), smoothness=(3, 3), reference_side=500)
"""Supplement C.1, which holds "throughout the paper, unless stated otherwise"."""

_BARRED = np.float32(40)  # energy of a label that a pixel cannot take: exp(-40) is 4e-18
_REACH = 4  # sigmas at which OpenCV cuts a Gaussian of floats off


@dataclass(frozen=True)
class ComponentCrf:
    """Labels of a component that seeds of several classes touch, by a dense CRF inside of it.

    Oh et al. 2017, supplement E: "Use dense CRF inference inside R_i^fg, with unaries set by the
    seed(s)". The rest is from the authors' code: the energy of a class is -p, not -log p, where p
    is the mask of its seeds after a Gaussian of ``sigma``, clipped to
    ``min_belief`` and 1 minus that.

    Pixels of the bounding box outside of the component take one further label, which those inside
    cannot take; so they send no messages for any class, and the colours beyond the component's rim
    say nothing. They still count in the normalisation of the kernels, as in a CRF of the photo:
    messages between pixels at the rim are weaker than if there were nothing beyond it.

    Attributes:
        parameters: of the CRF; ``reference_side`` is a longer side of the whole photo.
        sigma: of the Gaussian, in pixels of a photo whose longer side is that ``reference_side``.
        min_belief: smallest value of a class's p, 0 to 0.5; the largest is 1 minus it.

    Raises:
        ConfigError: ``sigma`` is not positive, or ``min_belief`` not from 0 to 0.5.

    Examples:
        A component of two colours, with a seed of class 1 on the left and one of class 5 on the
        right; ``partial`` gives what :func:`tagseg.fuse.seed_guide` asks for.

        >>> from functools import partial
        >>> import numpy as np
        >>> from tagseg.refine import ComponentCrf
        >>> image = np.full((20, 32, 3), 60, np.uint8)
        >>> image[:, 14:] = 180
        >>> seeds = np.full((20, 32), 255, np.uint8)
        >>> seeds[8:12, 4:8], seeds[8:12, 24:28] = 1, 5
        >>> window = slice(4, 16), slice(2, 30)
        >>> share = partial(ComponentCrf(), image)
        >>> labels = share(np.ones((12, 28), bool), seeds, np.array([1, 5], np.uint8), window)
        >>> labels[0].tolist().count(1), labels[0].tolist().count(5)
        (12, 16)
    """

    parameters: CrfParameters = DEEPLAB
    sigma: float = 10
    min_belief: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.sigma < math.inf or not 0 <= self.min_belief <= 0.5:
            raise ConfigError(
                f"sigma is {self.sigma}, min_belief {self.min_belief}",
                where="component CRF",
                do="give sigma > 0 and 0 <= min_belief <= 0.5",
            )

    def __call__(
        self,
        image: Image,
        component: npt.NDArray[np.bool_],
        seeds: Labels,
        classes: Labels,
        window: tuple[slice, slice],
    ) -> Labels:
        """Label the component in ``window`` of a photo; with ``image`` bound, a ``share`` for G2.

        Args:
            image: (H, W, 3), the whole photo.
            component: bool (h, w), in the window.
            seeds: (H, W) uint8, of the whole photo.
            classes: uint8 (k,), labels of those that touch the component.
            window: rows and columns of the component's bounding box.

        Returns:
            uint8 (h, w): one of ``classes`` in the component, background outside of it.

        Raises:
            ShapeError: the shapes do not fit each other.
        """
        image = check_image(image)
        if seeds.shape != image.shape[:2] or image[window].shape[:2] != component.shape:
            raise ShapeError(
                f"photo {image.shape[:2]}, seeds {seeds.shape}, component {component.shape}",
                do="give seeds of the whole photo and the component in its window",
            )
        beliefs = self._beliefs(seeds, classes, window)
        unary = np.where(component, -beliefs, _BARRED)
        other = np.where(component, _BARRED, np.float32(0))
        at_size = self.parameters.at(*image.shape[:2])
        probs = refine(image[window], np.concatenate((unary, other[None])), at_size)
        return np.where(component, classes[probs[:-1].argmax(0)], np.uint8(BACKGROUND))

    def _beliefs(
        self, seeds: Labels, classes: Labels, window: tuple[slice, slice]
    ) -> npt.NDArray[np.float32]:
        """Return p (k, h, w) in ``window``, of as much of the photo as the Gaussian reaches."""
        reference = self.parameters.reference_side
        sigma = self.sigma * (max(seeds.shape) / reference if reference else 1)
        margin = math.ceil(_REACH * sigma) + 1
        around = tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in window)
        inner = tuple(
            slice(s.start - a.start, s.stop - a.start) for s, a in zip(window, around, strict=True)
        )
        near = seeds[around]
        beliefs = np.empty((len(classes), *(s.stop - s.start for s in window)), np.float32)
        for label, belief in zip(classes, beliefs, strict=True):
            mask = (near == label).astype(np.float32)
            blurred = cv2.GaussianBlur(mask, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
            np.clip(blurred[inner], self.min_belief, 1 - self.min_belief, out=belief)
        return beliefs
