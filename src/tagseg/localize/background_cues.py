"""Background cues of SEC: where the gradient of a tag classifier is smallest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from tagseg.errors import ConfigError, ShapeError
from tagseg.localize.backprop import ClassSaliency
from tagseg.nets.backbone import Backbone

__all__ = ["background_cues", "background_saliency"]

_BLOCK = 4  # its first layer is VGG-16's conv4_1


def background_saliency(
    net: nn.Module, images: Tensor, *, precision: torch.dtype = torch.float32
) -> Tensor:
    """How much each position moves the scores of all classes together, at conv4_1.

    It is the gradient of the sum of all class scores by the first layer of the 4th block (its
    ReLU, where it has one), its absolute value, and of that the maximum over channels (Kolesnikov &
    Lampert 2016, section 4.1). The score of a class is the sum of its map. The network is not
    touched, and threads may share it.

    Args:
        net: A tag classifier of tagseg in evaluation mode, with ``backbone`` and ``class_maps``.
        images: Floats (B, 3, H, W), RGB in [0, 1].
        precision: Type of convolutions, float32 or bfloat16.

    Returns:
        Float32 (B, h, w) >= 0, on the grid of the class maps. Where the layer lies closer, as in
        VGG-16 at output stride 16 or 32, a position takes the mean of those within half a stride.

    Raises:
        ConfigError: The network is in training mode, or is no classifier of tagseg.
        ShapeError: The images are not (B, 3, H, W).

    Examples:
        >>> import torch
        >>> from tagseg.nets.gap import GapClassifier
        >>> from tagseg.nets.tiny import Tiny
        >>> _ = torch.manual_seed(0)
        >>> net = GapClassifier(Tiny(), n_classes=2, hidden=8).eval()
        >>> saliency = background_saliency(net, torch.rand(1, 3, 40, 56))
        >>> saliency.shape, bool((saliency > 0).all())
        (torch.Size([1, 5, 7]), True)
    """
    backbone = getattr(net, "backbone", None)
    if not isinstance(backbone, Backbone):
        raise ConfigError("the classifier has no backbone", do="give a tagseg classifier")
    block = backbone.feature_blocks()[_BLOCK - 1]
    layer = f"classifier.backbone.{block.layers[0]}"
    record = ClassSaliency(_AllClasses(net), "plain", (layer,), precision=precision).forward(images)
    found = record.saliency([0])[layer]  # (B, 1, h, w)
    return _on_grid(found, block.stride, backbone, record.class_maps.shape[2:])[:, 0]


def background_cues(
    saliency: npt.ArrayLike, *, fraction: float = 0.1, window: int = 3
) -> npt.NDArray[np.bool_]:
    """The least salient positions of a map, after a median filter (Kolesnikov & Lampert 2016, 4.1).

    Positions that are as salient as the first one that is no cue are no cues either: a map that
    says nothing gives none, and no map gives more than ``fraction``.

    Args:
        saliency: Floats (h, w), of :func:`background_saliency`.
        fraction: Share of the positions that are cues, 0 to 1, rounded down.
        window: Odd side of the median filter, positions; 1 leaves it out.

    Returns:
        Booleans (h, w).

    Raises:
        ConfigError: The fraction or the window cannot be meant.
        ShapeError: The map is not (h, w), or holds NaN or infinity.

    Examples:
        >>> background_cues([[0.1, 0.9], [0.2, 0.8]], fraction=0.5, window=1).tolist()
        [[True, False], [True, False]]
    """
    if not 0 <= fraction <= 1 or window < 1 or window % 2 == 0:
        raise ConfigError(
            f"fraction is {fraction}, window {window}",
            do="give a fraction from 0 to 1 and an odd window",
        )
    saliency = np.asarray(saliency)
    if saliency.ndim != 2 or saliency.size == 0:
        raise ShapeError(f"saliency has shape {saliency.shape}", do="give (h, w)")
    if not np.isfinite(saliency).all():
        raise ShapeError("saliency holds NaN or infinity", do="check the classifier's weights")
    smooth = ndimage.median_filter(saliency, size=window, mode="nearest")
    wanted = int(fraction * smooth.size)
    if wanted == smooth.size:
        return np.ones(smooth.shape, dtype=np.bool_)
    return smooth < np.partition(smooth, wanted, axis=None)[wanted]


class _AllClasses(nn.Module):
    """A classifier whose only class is the sum of all, so that one backward pass serves them."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.train(classifier.training)

    def class_maps(self, x: Tensor) -> Tensor:
        maps: Tensor = self.classifier.class_maps(x)  # type: ignore[operator]
        return maps.sum(1, keepdim=True)


def _on_grid(maps: Tensor, stride: int, backbone: Backbone, shape: torch.Size) -> Tensor:
    """Maps (B, 1, h, w) of a layer of ``stride`` at the positions ``shape`` of the output."""
    factor = backbone.output_stride // stride
    if factor > 1 and backbone.grid_stride is None:
        return functional.adaptive_avg_pool2d(maps, (shape[0], shape[1]))
    if factor > 1:
        reach = factor // 2  # position i lies on position factor * i of the layer
        maps = functional.avg_pool2d(
            maps, 2 * reach + 1, factor, padding=reach, count_include_pad=False
        )
    return maps[..., : shape[0], : shape[1]]  # a layer may have more positions than the photo
