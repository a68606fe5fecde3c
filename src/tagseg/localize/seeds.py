"""Where each class of one photo is, by gradients: the seeders of Oh et al. 4.2, and DCSM.

Both take a photo and give score maps in [0, 1] at its size. They hold no state of their own between
photos, so threads may share one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tagseg.data.transforms import letterbox, resize_batch
from tagseg.data.working import resized
from tagseg.errors import ConfigError
from tagseg.localize.backprop import ClassSaliency, Method, Record
from tagseg.localize.dcsm import (
    CandidateClasses,
    DcsmSettings,
    aggregate,
    at_photo_size,
    candidate_classes,
    score_map,
)
from tagseg.localize.networks import INPUT, Layer, Scores, layer_names
from tagseg.localize.photos import as_image, as_input
from tagseg.localize.tape import NoReLUError
from tagseg.maps import Image, ScoreMap
from tagseg.nets.backbone import Backbone
from tagseg.nets.fully_convolutional import FullyConvolutionalClassifier

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
        names: Names for :class:`tagseg.localize.ClassSaliency`.
        strides: Input pixels per position of each; None where positions lie in the middle of cells.
        firsts: The pixel that position 0 of each lies on.
        blocks: The block of each; () where layers have none.

    Examples:
        >>> for name, stride, first in LayerSet(("input", "features.8"), (1, 4), (0, 0)):
        ...     print(name, stride, first)
        input 1 0
        features.8 4 0
    """

    names: tuple[str, ...]
    strides: tuple[int | None, ...]
    firsts: tuple[int, ...]
    blocks: tuple[int, ...] = ()

    @property
    def weights(self) -> tuple[float, ...] | None:
        """Of each layer in a mean of blocks that are means of their layers; None for equal ones.

        Examples:
            >>> LayerSet(("a", "b", "c"), (4, 4, 8), (0, 0, 0), (3, 3, 4)).weights
            (0.5, 0.5, 1.0)
        """
        sizes = [self.blocks.count(block) for block in self.blocks]
        return tuple(1 / size for size in sizes) if len(set(sizes)) > 1 else None

    def __iter__(self) -> Iterator[tuple[str, int | None, int]]:
        """Name, stride and first pixel of each layer."""
        return zip(self.names, self.strides, self.firsts, strict=True)


def feature_layers(backbone: Backbone, blocks: Sequence[int]) -> LayerSet:
    """The feature maps of some blocks of a classifier of tagseg, by number.

    Args:
        backbone: The classifier's ``backbone``.
        blocks: Numbers from 1 to 5, as VGG-16 has blocks between its pools; 0 is the photo.

    Returns:
        Their layers as the classifier names them, in order.

    Raises:
        ConfigError: There is no such block, or none is given.

    Examples:
        >>> from tagseg.nets.tiny import Tiny
        >>> feature_layers(Tiny(), (0, 3)).names
        ('input', 'backbone.block3')
    """
    if not blocks or not set(blocks) <= set(range(6)):
        raise ConfigError(f"blocks are {tuple(blocks)}", do="give some of 0 (the photo) to 5")
    places = [(INPUT, 1, 0, 0)] * (0 in blocks)
    for number, block in enumerate(backbone.feature_blocks(), start=1):
        if number in blocks:
            own = (block.stride, block.first, number)
            places += [(f"backbone.{layer}", *own) for layer in block.layers]
    on_grid = backbone.grid_stride is not None
    names, strides, firsts, numbers = zip(*places, strict=True)
    return LayerSet(names, strides if on_grid else (None,) * len(names), firsts, numbers)


class GradientSeeder:
    """Class saliency by back-propagation, smoothed, as seeds (Oh et al. 2017, 4.2).

    It takes the largest absolute gradient over the channels of each layer (RGB, at the photo
    itself), the mean over layers, a Gaussian, and divides each class by its own maximum. Of several
    blocks it is the mean of blocks that are means of their layers (Shimoda & Yanai 2016, 4.4).

    A :class:`FullyConvolutionalClassifier` with a ``side`` is shown the photo squeezed to it, and
    the maps are brought back to the photo's size.

    Args:
        net: The tag classifier, in evaluation mode: one of tagseg or, with ``layers``, any network
            that takes RGB in [0, 1] and gives class scores.
        method: See :class:`ClassSaliency`.
        blocks: Numbers of blocks, see :func:`feature_layers`; the paper's is the photo, 0.
        layers: Names of layers or modules in place of ``blocks``, or "input". Their maps are spread
            over the photo from edge to edge.
        scores: See :class:`ClassSaliency`.
        reshape: See :class:`ClassSaliency`.
        sigma: Standard deviation of the Gaussian, pixels of a photo whose longer side is 500; it
            scales with the photo.
        precision: See :class:`ClassSaliency`.

    Raises:
        ConfigError: There is no such method, block or layer; sigma is below 0; the network is no
            classifier of tagseg and no layers are given; or guided back-propagation is asked of a
            backbone without ReLUs.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AdaptiveMaxPool2d(1),
        ...                     nn.Flatten()).eval()
        >>> _ = net[0].weight.data.copy_(torch.eye(2, 3).view(2, 3, 1, 1))
        >>> photo = np.zeros((1, 4, 3))
        >>> photo[0, 1, 0] = photo[0, 2, 1] = 1  # a red and a green pixel
        >>> seed = GradientSeeder(net, layers=["input"], sigma=0)
        >>> seed(photo, [True, True]).tolist()
        [[[0.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0, 0.0]]]
    """

    def __init__(
        self,
        net: nn.Module,
        method: Method = "guided",
        *,
        blocks: Sequence[int] = (0,),
        layers: Sequence[Layer] | None = None,
        scores: Scores | None = None,
        reshape: Callable[[Tensor], Tensor] | None = None,
        sigma: float = 10.0,
        precision: torch.dtype = torch.float32,
    ) -> None:
        if not sigma >= 0:
            raise ConfigError(f"sigma is {sigma}", do="use 0 or more pixels")
        if layers is None:
            backbone = _backbone(net)
            _check_method(backbone, method)
            self._layers = feature_layers(backbone, blocks)
        else:
            names = layer_names(net, layers)
            self._layers = LayerSet(names, (None,) * len(names), (0,) * len(names))
        self._saliency = ClassSaliency(
            net, method, self._layers.names, scores=scores, reshape=reshape, precision=precision
        )
        self._device = next(net.parameters()).device
        self._sigma = sigma
        self._side = net.side if isinstance(net, FullyConvolutionalClassifier) else None

    def __call__(self, image: npt.NDArray[Any], tags: npt.ArrayLike) -> ScoreMap:
        """Score maps of the classes in a photo.

        Args:
            image: The photo (H, W, 3), uint8 or floats in [0, 1].
            tags: Booleans (C,), the classes in it.

        Returns:
            Float32 (C, H, W) in [0, 1]; zero for classes that are not in ``tags``.

        Raises:
            ShapeError: The photo is not (H, W, 3), or of another type.
        """
        image, tags = as_image(image), np.asarray(tags, dtype=np.bool_)
        height, width = image.shape[:2]
        scores = np.zeros((len(tags), height, width), np.float32)
        if not tags.any():
            return scores
        seen = image if self._side is None else resized(image, (self._side, self._side))
        record = self._saliency.forward(as_input(seen, self._device))
        found = record.saliency(np.flatnonzero(tags).tolist())
        total = torch.zeros(int(tags.sum()), height, width)
        weights = self._layers.weights or (1.0,) * len(self._layers.names)
        for (name, stride, first), weight in zip(self._layers, weights, strict=True):
            raw = found[name][0]
            maps = at_photo_size(
                raw,
                (height, width),
                stride=stride,
                first=first,
                input_shape=(seen.shape[0], seen.shape[1]),
            ).cpu()
            total += maps / _peaks(maps) * weight
        smooth = _blurred(total.numpy(), self._sigma * max(height, width) / _REFERENCE_SIDE)
        peaks = smooth.max((1, 2), keepdims=True)
        scores[tags] = smooth / np.where(peaks > 0, peaks, 1)
        return scores


class Square(NamedTuple):
    """A photo in the middle of a square of the mean colour (Shimoda & Yanai 2016, 3.2).

    Attributes:
        image: The square, uint8 (side, side, 3).
        photo: Rows and columns of the photo in it.
        shape: Height and width of the photo itself, pixels.

    Examples:
        >>> import numpy as np
        >>> from tagseg.nets.tiny import Tiny
        >>> square = Square.of(np.zeros((40, 80, 3), np.uint8), 64, Tiny())
        >>> square.image.shape, square.photo, square.shape
        ((64, 64, 3), (slice(16, 48, None), slice(0, 64, None)), (40, 80))
    """

    image: Image
    photo: tuple[slice, slice]
    shape: tuple[int, int]

    @classmethod
    def of(cls, image: npt.NDArray[Any], side: int, backbone: Backbone) -> Square:
        """The square of a photo (H, W, 3), uint8 or floats in [0, 1], for a backbone."""
        image = as_image(image)
        canvas, (top, left, height, width) = letterbox(
            image, side, backbone.preprocessing.mean_colour
        )
        photo = (slice(top, top + height), slice(left, left + width))
        return cls(canvas, photo, (image.shape[0], image.shape[1]))

    def record(self, saliency: ClassSaliency, scale: float, device: torch.device) -> Record:
        """A forward pass of the square at ``scale``."""
        return saliency.forward(resize_batch(as_input(self.image, device), scale))


class Found(NamedTuple):
    """What :class:`DistinctSeeder` sees in a photo.

    Attributes:
        score_map: M^ of Eq. 5, (C, H, W), zero for classes that are no target.
        classes: Which classes were detected, are targets and were subtracted.
    """

    score_map: ScoreMap
    classes: CandidateClasses


class DistinctSeeder:
    """Distinct class saliency maps of a photo (Shimoda & Yanai 2016, 3.3).

    The photo is seen at several scales; at each, one forward pass finds the classes, and one
    backward pass gives the gradients of all candidates at all layers.

    Args:
        net: A classifier of tagseg (any with ``backbone`` and ``class_maps``), in evaluation mode.
        settings: Numbers of the method.
        side: Side of the square that photos are put on, pixels.
        blocks: See :func:`feature_layers`; the paper's are 3, 4 and 5.
        method: See :class:`ClassSaliency`.
        precision: See :class:`ClassSaliency`.

    Raises:
        ConfigError: There is no such method or block, the network is no classifier of tagseg, or
            guided back-propagation is asked of a backbone without ReLUs.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> from tagseg.nets.fully_convolutional import FullyConvolutionalClassifier
        >>> from tagseg.nets.tiny import Tiny
        >>> _ = torch.manual_seed(0)
        >>> net = FullyConvolutionalClassifier(Tiny(), n_classes=3, hidden=8).eval()
        >>> see = DistinctSeeder(net, DcsmSettings(scales=(1.0,)), side=32)
        >>> found = see(np.eye(24, 32)[:, :, None].repeat(3, 2), [True, False, True])
        >>> found.score_map.shape
        (3, 24, 32)
        >>> [bool(m.any()) for m in found.score_map]  # of the classes in the photo
        [True, False, True]
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
        _check_method(self._backbone, method)
        self._layers = feature_layers(self._backbone, blocks)
        self._saliency = ClassSaliency(net, method, self._layers.names, precision=precision)
        self._device = next(net.parameters()).device
        self._settings, self._side = settings, side

    def __call__(self, image: npt.NDArray[Any], tags: npt.ArrayLike | None = None) -> Found:
        """Maps of the detected classes of a photo, or of those that are known to be in it.

        Args:
            image: The photo (H, W, 3), uint8 or floats in [0, 1].
            tags: Booleans (C,), the classes in it, where they are known.

        Returns:
            The maps, at the photo's size, and which classes they are of.

        Raises:
            ShapeError: The photo is not (H, W, 3), or of another type.
        """
        if tags is not None:
            tags = np.asarray(tags, dtype=np.bool_)
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
    """Probability of each class in one photo at each scale (Shimoda & Yanai 2016, Eq. 2).

    Args:
        records: Forward passes of the photo, one for each scale.

    Returns:
        Float32 (S, C), the sigmoid of each map's maximum.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Conv2d(3, 2, 1, bias=False).eval()
        >>> _ = net.weight.data.copy_(torch.tensor([[0.0, 0, 0], [9, 9, 9]]).view(2, 3, 1, 1))
        >>> saliency = ClassSaliency(net, "plain")
        >>> records = [saliency.forward(torch.ones(1, 3, n, n)) for n in (2, 3)]
        >>> probabilities(records).round(3).tolist()
        [[0.5, 1.0], [0.5, 1.0]]
    """
    best = torch.stack([record.class_maps[0].amax((1, 2)) for record in records])
    return torch.sigmoid(best).cpu().numpy()


def distinct_score_map(
    square: Square,
    saliency_at: Callable[[int], Mapping[str, Tensor]],
    layers: LayerSet,
    classes: CandidateClasses,
    settings: DcsmSettings,
) -> ScoreMap:
    """M^ of Eq. 5 of Shimoda & Yanai 2016 at the photo's size.

    Args:
        square: The photo on its square.
        saliency_at: By index of the scale, each layer's maximum over channels (K, h, w) of the K
            ``classes.classes``.
        layers: The layers, and where their positions lie in the square.
        classes: Targets and candidates.
        settings: Numbers of the method.

    Returns:
        Float32 (C, H, W), zero for classes that are no target.

    Raises:
        ShapeError: The maps are of another shape, or hold NaN or infinity.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> square = Square(np.zeros((2, 2, 3), np.uint8), (slice(2), slice(2)), (2, 2))
        >>> settings = DcsmSettings(scales=(1.0,), min_candidates=2)
        >>> classes = candidate_classes([[0.9, 0.8]], settings, np.array([True, False]))
        >>> raw = {"input": torch.tensor([[[3.0, 0], [0, 1]], [[1.0, 0], [0, 1]]])}
        >>> maps = distinct_score_map(
        ...     square, lambda j: raw, LayerSet(("input",), (1,), (0,)), classes, settings)
        >>> maps.round(3).tolist()  # where the first class is seen more than the second
        [[[0.9950000047683716, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]
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

    maps = aggregate(raw_maps(), classes, settings, photo=square.photo, weights=layers.weights)
    return score_map(_resized(maps, square.shape), classes.targets).cpu().numpy()


def _backbone(net: nn.Module) -> Backbone:
    backbone = getattr(net, "backbone", None)
    if not isinstance(backbone, Backbone):
        raise ConfigError("the classifier has no backbone", do="give a tagseg classifier")
    return backbone


def _check_method(backbone: Backbone, method: Method) -> None:
    """ConfigError where ``method`` asks for ReLUs, and the backbone has others, or none."""
    rectifiers = nn.ReLU, nn.ReLU6
    if method != "guided" or any(isinstance(m, rectifiers) for m in backbone.modules()):
        return  # which layers are guided, and whether any is, shows when a photo comes
    photo = torch.zeros(1, 3, 64, 64, device=next(backbone.parameters()).device)
    try:
        ClassSaliency(backbone, method).forward(photo)
    except NoReLUError as error:
        raise ConfigError(
            f"guided back-propagation changes ReLUs, and the backbone {backbone.name} has none",
            do="use plain",
        ) from error


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
