"""LayerCAM: fine maps of an early layer, with a weight for each position (Jiang et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tagseg.localize.grad_cam import GradCam
from tagseg.localize.networks import Layer, Scores, in_type_of

__all__ = ["LayerCam", "layer_cam"]


def layer_cam(
    net: nn.Module,
    image_batch: Tensor,
    *,
    layer: Layer,
    wanted: Tensor | None = None,
    scores: Scores | None = None,
    reshape: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """LayerCAM of each class (Jiang et al., LayerCAM, IEEE TIP 30, 2021, section III-B).

    The weight of a feature map A^k at position (i, j) is ReLU(d y^c / d A_ij^k), and the map of
    class c is ReLU(sum_k weight_ij^kc A_ij^k). Grad-CAM has one weight for a whole feature map,
    the mean of the gradients; in early layers, whose maps are fine but tell no classes apart, that
    weight says nothing, while those of each position still do.

    Negative activations, which layers behind a ReLU do not have, count as 0.

    Args:
        net: Any ``torch.nn.Module``, in evaluation mode. It is not touched.
        image_batch: Floats (B, 3, H, W), RGB in [0, 1], or as a network of others wants them.
        layer: The module that gives the feature maps A^k (B, K, h, w), as its dotted name in
            ``named_modules()`` or itself: one before the last with positions.
        wanted: Booleans (B, C), the classes to look at in each photo; maps of others are 0. None is
            all of them.
        scores: Makes class scores y^c of what the network gives, as in
            :func:`tagseg.localize.grad_cam`.
        reshape: Makes (B, K, h, w) of what ``layer`` gives, likewise.

    Returns:
        Floats (B, C, h, w), 0 or more.

    Raises:
        ConfigError: The network is in training mode or has no such layer; or the layer gives no
            maps or does not lead to the scores.
        ShapeError: The scores are no class scores, or ``wanted`` is not of their shape.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AdaptiveMaxPool2d(1),
        ...                     nn.Flatten(), nn.Linear(2, 2)).eval()
        >>> with torch.no_grad():
        ...     _ = net[0].weight.copy_(torch.eye(2, 3).view(2, 3, 1, 1)), net[0].bias.zero_()
        ...     _ = net[4].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 2.0]]))
        >>> photo = torch.tensor([[[[1.0, 0.5]], [[0.0, 1.0]], [[0.0, 0.0]]]])  # red, then yellow
        >>> layer_cam(net, photo, layer="1")[0].tolist()
        [[[1.0, 0.0]], [[0.0, 2.0]]]
    """
    maps = LayerCam(net, layer, scores=scores, reshape=reshape)
    return maps.class_maps(in_type_of(net, image_batch), wanted)


class LayerCam(GradCam):
    """LayerCAM of one network and layer; arguments and errors are those of :func:`layer_cam`."""

    def _evidence(self, gradient: Tensor, features: Tensor) -> Tensor:
        """Sum of the feature maps, each position with its own weight, (B, h, w)."""
        return torch.einsum("bkhw,bkhw->bhw", gradient.clamp(min=0), features.clamp(min=0))
