"""Class activation maps: where a tag classifier sees each class (Zhou et al. 2016)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tagseg.data.transforms import resize_batch
from tagseg.errors import ConfigError, ShapeError
from tagseg.localize.networks import INPUT, Layer, first_tensor, in_type_of, layer_names
from tagseg.maps import ScoreMap, Tags
from tagseg.nets.backbone import upsample_grid

__all__ = ["ClassMapper", "class_activation_maps", "normalised_maps"]


class ClassMapper(Protocol):
    """A tag classifier that can say where its evidence lies."""

    def class_maps(self, x: Tensor, /) -> Tensor:
        """M_c of Eq. 1 of Saleh et al. 2017, (B, C, h, w), for RGB in [0, 1], (B, 3, H, W)."""


@torch.no_grad()
def class_activation_maps(
    classifier: ClassMapper | nn.Module,
    image_batch: Tensor,
    *,
    layer: Layer | None = None,
    head: Layer | None = None,
    reshape: Callable[[Tensor], Tensor] | None = None,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
) -> Tensor:
    """Class activation maps M_c, averaged over views of each photo.

    M_c(x, y) = sum_k w_k^c f_k(x, y) of the last feature maps f_k and the weights w_k^c of the
    linear layer behind their mean over positions (Zhou et al. 2016, Eq. 1 and 2; Eq. 1 of Saleh et
    al. 2017). The average is over the raw evidence, on the grid that the network gives at scale 1.

    Args:
        classifier: In evaluation mode: one with ``class_maps``, or any ``torch.nn.Module`` whose
            class scores are a linear layer of the mean of feature maps over positions; of the
            latter ``layer`` and ``head`` must be given.
        image_batch: Floats (B, 3, H, W), RGB in [0, 1], or as a network of others wants them.
        layer: The module that gives the feature maps f_k (B, K, h, w), as its dotted name in
            ``named_modules()`` or itself.
        head: The ``nn.Linear`` or 1x1 ``nn.Conv2d`` behind the mean, likewise. Its bias, which is
            nowhere, takes no part.
        reshape: Makes f_k (B, K, h, w) of what ``layer`` gives where that is something else, such
            as the tokens of a transformer without a class token:
            ``lambda tokens: tokens.transpose(1, 2).unflatten(2, (14, 14))``.
        flip: Whether the mirrored photo is used too.
        scales: Factors on height and width; 1 must be among them. The paper uses 1 alone.

    Returns:
        Float32 (B, C, h, w), unclipped: evidence against a class is below 0.

    Raises:
        ConfigError: A scale is not positive, or 1 is missing; the network has no ``class_maps``
            and no layers are named, or is in training mode; or what the head is given is not the
            mean of the feature maps.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        ...                     nn.Flatten(), nn.Linear(2, 2)).eval()
        >>> with torch.no_grad():
        ...     _ = net[0].weight.copy_(torch.eye(2, 3).view(2, 3, 1, 1)), net[0].bias.zero_()
        ...     _ = net[4].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 2.0]]))
        >>> photo = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 0.0]]]])  # red, then green
        >>> class_activation_maps(net, photo, layer="1", head="4")[0].tolist()
        [[[1.0, 0.0]], [[-1.0, 2.0]]]
    """
    mapper = _mapper(classifier, layer, head, reshape)
    if isinstance(classifier, nn.Module):
        image_batch = in_type_of(classifier, image_batch)
    if 1.0 not in scales or min(scales) <= 0:
        raise ConfigError(f"scales are {tuple(scales)}", do="give positive factors, 1 among them")
    total = _views(mapper, image_batch, flip)
    others = [scale for scale in scales if scale != 1.0]
    for scale in others:
        maps = _views(mapper, resize_batch(image_batch, scale), flip)
        total = total + _on_grid(maps, total.shape[2:], scale)
    return total / (1 + len(others))


def normalised_maps(
    class_maps: npt.ArrayLike,
    tags: Tags | Sequence[bool],
    shape: tuple[int, int],
    *,
    stride: int | None = None,
    seen: tuple[int, int] | None = None,
) -> ScoreMap:
    """Class activation maps of one photo as scores in [0, 1] at the photo's size.

    Negative evidence is clipped at 0, the maps are brought to the photo's size bilinearly, and each
    present class is divided by its own maximum: the M_c that Eq. 2 to 4 of Saleh et al. 2017 need.

    Args:
        class_maps: Raw evidence (C, h, w).
        tags: Booleans (C,), the classes in the photo.
        shape: Height and width of the photo, pixels.
        stride: Pixels per position of the network, see
            :func:`tagseg.nets.backbone.upsample_grid`; None spreads the maps from edge to edge.
        seen: Height and width at which the network was given the photo, if not ``shape``.

    Returns:
        Float32 (C, H, W), zero for absent classes and for those without any evidence.

    Raises:
        ShapeError: The maps are not (C, h, w) for C tags, or hold NaN or infinity.

    Examples:
        >>> maps = [[[-2.0, 4.0]], [[1.0, 1.0]]]
        >>> normalised_maps(maps, [True, False], (1, 4)).tolist()
        [[[0.0, 0.25, 0.75, 1.0]], [[0.0, 0.0, 0.0, 0.0]]]
    """
    tags = np.asarray(tags, dtype=np.bool_)
    raw = np.asarray(class_maps, dtype=np.float32)
    if raw.ndim != 3 or raw.shape[0] != len(tags) or 0 in raw.shape[1:]:
        raise ShapeError(
            f"class_maps has shape {raw.shape} for {len(tags)} tags", do="give (C, h, w)"
        )
    if not np.isfinite(raw).all():
        raise ShapeError("class_maps holds NaN or infinity", do="check the classifier's weights")
    score_map = np.zeros((len(tags), *shape), dtype=np.float32)
    if tags.any():
        evidence = torch.from_numpy(raw[tags]).clamp(min=0)
        present = upsample_grid(evidence[None], shape, stride, seen=seen)[0].numpy()
        peak = present.max((1, 2), keepdims=True)
        score_map[tags] = present / np.where(peak > 0, peak, 1)
    return score_map


def _mapper(
    classifier: ClassMapper | nn.Module,
    layer: Layer | None,
    head: Layer | None,
    reshape: Callable[[Tensor], Tensor] | None,
) -> ClassMapper:
    if layer is None and head is None and hasattr(classifier, "class_maps"):
        return classifier  # type: ignore[return-value]
    if layer is None or head is None or not isinstance(classifier, nn.Module):
        raise ConfigError(
            f"{type(classifier).__name__} has no class_maps",
            do="name the layer of its features and its linear head",
        )
    return _NamedLayers(classifier, layer, head, reshape)


class _NamedLayers:
    """Class activation maps of a network of others, by the names of two of its layers."""

    def __init__(
        self,
        net: nn.Module,
        layer: Layer,
        head: Layer,
        reshape: Callable[[Tensor], Tensor] | None,
    ) -> None:
        if any(module.training for module in net.modules()):
            raise ConfigError("the network is in training mode", do="call its eval() before")
        self._net, self._reshape = net, reshape
        self._names = layer_names(net, (layer, head))
        if INPUT in self._names:
            raise ConfigError("the photo is no layer of features", do="name a module")
        self._layer, self._head = map(net.get_submodule, self._names)
        self._weight = _class_weights(self._head, self._names[1])

    def class_maps(self, x: Tensor) -> Tensor:
        """Eq. 2, (B, C, h, w)."""
        features, given = self._seen(x)
        features = features if self._reshape is None else self._reshape(features)
        layer, head = self._names
        if features.ndim != 4 or features.shape[1] != self._weight.shape[1]:
            raise ConfigError(
                f"layer {layer!r} gives {tuple(features.shape)}, which are no maps for {head!r}",
                do="name the features before the mean, or give reshape= to make maps of them",
            )
        means, given = features.mean((2, 3)), given.flatten(1)
        rounding = max(1e-3, 4 * torch.finfo(means.dtype).eps) * float(means.abs().max())
        if means.shape != given.shape or float((means - given).abs().max()) > rounding:
            raise ConfigError(
                f"what {head!r} is given is not the mean of {layer!r} over positions, so that "
                "class activation maps are not defined",
                do="name other layers, or use ClassSaliency",
            )
        return functional.conv2d(features, self._weight[:, :, None, None])

    def _seen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the layer gives, and what the head is given."""
        own, seen = threading.get_ident(), dict[str, object]()

        def after(module: nn.Module, args: object, output: object) -> None:
            if threading.get_ident() == own:
                seen["layer"] = output

        def before(module: nn.Module, args: tuple[object, ...]) -> None:
            if threading.get_ident() == own:
                seen["head"] = args

        hooks = [self._layer.register_forward_hook(after)]
        hooks.append(self._head.register_forward_pre_hook(before))
        try:
            self._net(x)
        finally:
            for hook in hooks:
                hook.remove()
        found = [first_tensor(seen.get(key)) for key in ("layer", "head")]
        for name, tensor in zip(self._names, found, strict=True):
            if tensor is None:
                raise ConfigError(f"layer {name!r} gives or takes no tensor", do="name another")
        return found[0], found[1]  # type: ignore[return-value]


def _class_weights(head: nn.Module, name: str) -> Tensor:
    """Weights w_k^c (C, K) of a linear head."""
    if isinstance(head, nn.Linear):
        return head.weight
    if isinstance(head, nn.Conv2d) and head.kernel_size == (1, 1) and head.groups == 1:
        return head.weight[:, :, 0, 0]
    raise ConfigError(
        f"head {name!r} is a {type(head).__name__}", do="name an nn.Linear or a 1x1 nn.Conv2d"
    )


def _views(classifier: ClassMapper, images: Tensor, flip: bool) -> Tensor:
    maps = classifier.class_maps(images).float()
    if not flip:
        return maps
    return (maps + classifier.class_maps(images.flip(3)).float().flip(3)) / 2


def _on_grid(maps: Tensor, shape: Sequence[int], scale: float) -> Tensor:
    """Maps of a photo that was scaled by ``scale``, at the positions of the unscaled photo's grid.

    Position i lies on pixel stride * i in both, so position j of the one is j * scale of the other.
    """
    axes = []
    for size, scaled in zip(shape, maps.shape[2:], strict=True):
        place = torch.arange(size, device=maps.device, dtype=maps.dtype) * scale
        axes.append(place / max(scaled - 1, 1) * 2 - 1)
    y, x = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack((x, y), dim=-1).expand(len(maps), -1, -1, -1)
    return functional.grid_sample(maps, grid, padding_mode="border", align_corners=True)
