"""Where each class of one photo is, by gradients: the seeders of Oh et al. 4.2, and DCSM.

Both take a photo and give score maps in [0, 1] at its size. They hold no state of their own between
photos, so threads may share one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tagseg.data.transforms import letterbox, resize_batch
from tagseg.errors import ConfigError
from tagseg.localize.backprop import INPUT, ClassSaliency, Method, Record
from tagseg.localize.dcsm import (
    CandidateClasses,
    DcsmSettings,
    aggregate,
    at_photo_size,
    candidate_classes,
    score_map,
)
from tagseg.maps import Image, ScoreMap, Tags
from tagseg.nets.backbone import Backbone

__all__ = [
    "DistinctSeeder",
    "Found",
    "GradientSeeder",
    "LayerSet",
    "Square",
    "distinct_score_map",
    "feature_layers",
    "probabilities",
]

_REFERENCE_SIDE = 500  # pixels of the longer side that sigmas are for


@dataclass(frozen=True)
class LayerSet:
    """Layers of a classifier, and where their positions lie.

    Attributes:
        names: for :class:`tagseg.localize.backprop.ClassSaliency`.
        strides: input pixels per position of each; None where positions lie in the middle of cells.
        firsts: the pixel that position 0 of each lies on.
    """

    names: tuple[str, ...]
    strides: tuple[int | None, ...]
    firsts: tuple[int, ...]

    def __iter__(self) -> Iterator[tuple[str, int | None, int]]:
        """Name, stride and first pixel of each layer."""
        return zip(self.names, self.strides, self.firsts, strict=True)


def feature_layers(backbone: Backbone, blocks: Sequence[int]) -> LayerSet:
    """The feature maps of ``blocks``, 1 to 5, of a classifier's ``backbone``; 0 is the photo.

    Raises:
        ConfigError: there is no such block, or none is given.
    """
    if not blocks or not set(blocks) <= set(range(6)):
        raise ConfigError(f"blocks are {tuple(blocks)}", do="give some of 0 (the photo) to 5")
    places = [(INPUT, 1, 0)] * (0 in blocks)
    for number, block in enumerate(backbone.feature_blocks(), start=1):
        if number in blocks:
            places += [(f"backbone.{layer}", block.stride, block.first) for layer in block.layers]
    on_grid = backbone.grid_stride is not None
    names, strides, firsts = zip(*places, strict=True)
    return LayerSet(names, strides if on_grid else (None,) * len(names), firsts)


class GradientSeeder:
    """Class saliency by back-propagation, smoothed, as seeds (Oh et al. 2017, 4.2).

    The largest absolute gradient over the channels of each layer (RGB, at the photo itself), the
    mean over layers, a Gaussian, and each class divided by its own maximum.

    Args:
        net: the tag classifier, in evaluation mode.
        blocks: see :func:`feature_layers`; the paper's is the photo, 0.
        sigma: of the Gaussian, pixels of a photo of 500; it scales with the photo.
    """

    def __init__(
        self,
        net: nn.Module,
        method: Method = "guided",
        *,
        blocks: Sequence[int] = (0,),
        sigma: float = 10.0,
        precision: torch.dtype = torch.float32,
    ) -> None:
        if not sigma >= 0:
            raise ConfigError(f"sigma is {sigma}", do="use 0 or more pixels")
        self._layers = feature_layers(_backbone(net), blocks)
        self._saliency = ClassSaliency(net, method, self._layers.names, precision=precision)
        self._device = next(net.parameters()).device
        self._sigma = sigma

    def __call__(self, image: Image, tags: Tags) -> ScoreMap:
        """Score map (C, H, W) of a photo (H, W, 3); zero for classes that are not in ``tags``."""
        height, width = image.shape[:2]
        scores = np.zeros((len(tags), height, width), np.float32)
        if not tags.any():
            return scores
        record = self._saliency.forward(_as_input(image, self._device))
        found = record.saliency(np.flatnonzero(tags).tolist())
        total = torch.zeros(int(tags.sum()), height, width)
        for name, stride, first in self._layers:
            raw = found[name][0]
            maps = at_photo_size(raw, (height, width), stride=stride, first=first).cpu()
            total += maps / _peaks(maps)
        smooth = _blurred(total.numpy(), self._sigma * max(height, width) / _REFERENCE_SIDE)
        peaks = smooth.max((1, 2), keepdims=True)
        scores[tags] = smooth / np.where(peaks > 0, peaks, 1)
        return scores


class Square(NamedTuple):
    """A photo in the middle of a square of the mean colour (Shimoda & Yanai 2016, 3.2)."""

    image: Image  # (side, side, 3)
    photo: tuple[slice, slice]  # its rows and columns
    shape: tuple[int, int]  # of the photo itself

    @classmethod
    def of(cls, image: Image, side: int, backbone: Backbone) -> Square:
        """The square of a photo (H, W, 3), for the network's mean colour."""
        canvas, (top, left, height, width) = letterbox(
            image, side, backbone.preprocessing.mean_colour
        )
        photo = (slice(top, top + height), slice(left, left + width))
        return cls(canvas, photo, (image.shape[0], image.shape[1]))

    def record(self, saliency: ClassSaliency, scale: float, device: torch.device) -> Record:
        """A forward pass of the square at ``scale``."""
        return saliency.forward(resize_batch(_as_input(self.image, device), scale))


class Found(NamedTuple):
    """What :class:`DistinctSeeder` sees in a photo."""

    score_map: ScoreMap  # (C, H, W) M^ of Eq. 5, zero for classes that are no target
    classes: CandidateClasses


class DistinctSeeder:
    """Distinct class saliency maps of a photo (Shimoda & Yanai 2016, 3.3).

    The photo is seen at several scales; at each, one forward pass finds the classes, and one
    backward pass gives the gradients of all candidates at all layers.

    Args:
        net: a fully convolutional classifier (any with ``class_maps``), in evaluation mode.
        blocks: see :func:`feature_layers`; the paper's are 3, 4 and 5.
        side: of the square that photos are put on, pixels.
    """

    def __init__(
        self,
        net: nn.Module,
        settings: DcsmSettings,
        *,
        side: int,
        blocks: Sequence[int] = (3, 4, 5),
        method: Method = "guided",
        precision: torch.dtype = torch.float32,
    ) -> None:
        self._backbone = _backbone(net)
        self._layers = feature_layers(self._backbone, blocks)
        self._saliency = ClassSaliency(net, method, self._layers.names, precision=precision)
        self._device = next(net.parameters()).device
        self._settings, self._side = settings, side

    def __call__(self, image: Image, tags: Tags | None = None) -> Found:
        """Maps of the detected classes of a photo (H, W, 3), or of its ``tags`` if known."""
        square = Square.of(image, self._side, self._backbone)
        scales = self._settings.scales
        records = [square.record(self._saliency, scale, self._device) for scale in scales]
        classes = candidate_classes(probabilities(records), self._settings, tags)
        wanted = classes.classes.tolist()

        def saliency_at(j: int) -> dict[str, Tensor]:
            return {name: maps[0] for name, maps in records[j].saliency(wanted).items()}

        score_map = distinct_score_map(square, saliency_at, self._layers, classes, self._settings)
        return Found(score_map, classes)


def probabilities(records: Sequence[Record]) -> npt.NDArray[np.float32]:
    """Of each class at each scale, (S, C): the sigmoid of its map's maximum."""
    best = torch.stack([record.class_maps[0].amax((1, 2)) for record in records])
    return torch.sigmoid(best).cpu().numpy()


def distinct_score_map(
    square: Square,
    saliency_at: Callable[[int], Mapping[str, Tensor]],
    layers: LayerSet,
    classes: CandidateClasses,
    settings: DcsmSettings,
) -> ScoreMap:
    """M^ of Eq. 5 at the photo's size, (C, H, W), zero for classes that are no target.

    Args:
        saliency_at: by index of the scale, each layer's maximum over channels (K, h, w) of the K
            ``classes.classes``.
    """
    if not classes.targets.any():
        return np.zeros((len(classes.targets), *square.shape), np.float32)
    side = len(square.image)

    def raw_maps() -> Iterator[tuple[int, Tensor]]:
        for j, scale in enumerate(settings.scales):
            found, seen = saliency_at(j), (round(side * scale),) * 2
            for name, stride, first in layers:
                maps = found[name]
                yield (
                    j,
                    at_photo_size(maps, (side, side), stride=stride, first=first, input_shape=seen),
                )

    maps = aggregate(raw_maps(), classes, settings, photo=square.photo)
    return score_map(_resized(maps, square.shape), classes.targets).cpu().numpy()


def _backbone(net: nn.Module) -> Backbone:
    backbone = getattr(net, "backbone", None)
    if not isinstance(backbone, Backbone):
        raise ConfigError("the classifier has no backbone", do="give a tagseg classifier")
    return backbone


def _as_input(image: Image, device: torch.device) -> Tensor:
    x = torch.from_numpy(np.ascontiguousarray(image)).to(device)
    return x.permute(2, 0, 1)[None].float() / 255


def _peaks(maps: Tensor) -> Tensor:
    peaks = maps.amax((1, 2), keepdim=True)
    return torch.where(peaks > 0, peaks, 1)


def _blurred(maps: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    if sigma < 0.1:  # narrower than a pixel by far
        return maps
    return np.stack([cv2.GaussianBlur(m, (0, 0), sigma) for m in maps])


def _resized(maps: Tensor, shape: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[1:]) == shape:
        return maps
    return functional.interpolate(maps[None], shape, mode="bilinear", align_corners=False)[0]
