"""The localization networks: convolutions, global average pooling, class scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from tagseg.errors import ConfigError, choose_from
from tagseg.nets.backbone import Backbone
from tagseg.nets.catalog import backbone_kind, build_backbone
from tagseg.nets.weights import LoadedWeights

__all__ = [
    "SEEDERS",
    "GapClassifier",
    "HiddenLayer",
    "Seeder",
    "SeederName",
    "check_seeder",
    "gap_seeder",
]

SeederName = Literal["lowres", "highres", "roi", "deeplab"]


class HiddenLayer(NamedTuple):
    """A convolution between the backbone and the class scores, which keeps the maps' size."""

    kernel: int  # odd
    dilation: int = 1


@dataclass(frozen=True)
class Seeder:
    """One of the four networks of Oh et al., 2017, Table 6, on any backbone.

    Attributes:
        output_stride: input pixels per position.
        dilated: the geometry of the backbone, DeepLab's or without dilation.
        hidden: fc6 and fc7, if there is one.
        windows: whether fc6 is applied to 3x3 windows pooled to one position each (ROI pooling).
    """

    output_stride: int
    dilated: bool
    hidden: tuple[HiddenLayer, ...]
    windows: bool = False


SEEDERS: Mapping[SeederName, Seeder] = {
    "lowres": Seeder(16, False, (HiddenLayer(3),)),
    "highres": Seeder(8, False, (HiddenLayer(3), HiddenLayer(3))),
    "roi": Seeder(8, False, (HiddenLayer(1), HiddenLayer(1)), windows=True),
    # For pool3 of this column the table prints "st = 1", but an output of 41x41 needs a stride of
    # 2 there, as DeepLab has it.
    "deeplab": Seeder(8, True, (HiddenLayer(3, 12), HiddenLayer(1))),
}
_WIDTHS = {"vgg16": 1024}
_OTHER_WIDTH = 256
_STD = 0.005  # of a seeder's first hidden weights


class GapClassifier(nn.Module):
    """Multi-label classifier whose scores are means of class maps (Saleh et al., 3.1.2, 4.2.2).

    fc6 and fc7 of the ImageNet network give way to randomly initialised convolutions; their last
    activations f_k are averaged over positions and weighted per class. The paper sums over
    positions (F^k) and calls it an average; here it is the mean, so that scores do not depend on
    the photo's size. :func:`gap_seeder` builds the networks of Oh et al. of it.

    Args:
        backbone: the pre-trained network.
        n_classes: C, foreground classes.
        hidden: channels of the new convolutions (Oh et al.: 1024).
        hidden_layers: the convolutions in order, or how many of 3 x 3 (the paper's two); with none
            the scores lie right on the backbone.
        dropout: probability after each of them, in training.
        bias: adds a constant per class to the scores; Eq. 1 has none.
        pool5: takes the place of what the backbone has behind block5 (VGG's pool5); None keeps it.
        std: of the convolutions' first weights; None is that of He et al., 2015.

    Raises:
        ConfigError: if a number cannot be meant.
    """

    def __init__(
        self,
        backbone: Backbone,
        n_classes: int,
        hidden: int = 1024,
        hidden_layers: int | Sequence[HiddenLayer] = 2,
        dropout: float = 0.5,
        bias: bool = False,
        *,
        pool5: nn.Module | None = None,
        std: float | None = None,
    ) -> None:
        super().__init__()
        if n_classes < 1:
            raise ConfigError(f"a classifier of {n_classes} classes", do="give at least one class")
        layers = _described(hidden_layers, hidden)
        self.backbone, self.pool5 = backbone, pool5
        self.hidden = nn.Sequential(
            *_convolutions(backbone.out_channels, hidden, layers, dropout, std)
        )
        channels = hidden if layers else backbone.out_channels
        self.scores = nn.Linear(channels, n_classes, bias=bias)
        nn.init.normal_(self.scores.weight, std=0.01)
        if bias:
            nn.init.zeros_(self.scores.bias)

    def features(self, x: Tensor) -> Tensor:
        """The last activations f_k, (B, hidden, h, w), for RGB in [0, 1], (B, 3, H, W)."""
        if self.pool5 is None:
            return self.hidden(self.backbone(x))
        return self.hidden(self.pool5(self.backbone.activations(x).block5))

    def forward(self, x: Tensor) -> Tensor:
        """Class scores S_c before the sigmoid, (B, C), for RGB in [0, 1], (B, 3, H, W)."""
        return self.scores(self.features(x).mean((2, 3)))

    def class_maps(self, x: Tensor) -> Tensor:
        """Class activation maps M_c = sum_k w_k^c f_k (Eq. 1), (B, C, h, w), any sign.

        Without a bias their mean over positions is the score of the class: averaging and weighting
        can be swapped (Oh et al., B.1).

        Positions are those of ``backbone.grid_stride``, ceil(size / output stride) of them: from
        pixel 0 on, or, where it is None as on VGG without dilation, in the middles of cells.
        :func:`tagseg.nets.backbone.upsample_grid` takes it to bring the maps to the photo's size.
        """
        return F.conv2d(self.features(x), self.scores.weight[:, :, None, None])

    def parameter_groups(self) -> list[dict[str, object]]:
        """``backbone``, ``head`` (hidden layers) and ``score`` (fc8), for a learning rate each.

        Oh et al. learn ``score`` 10 times as fast.
        """
        return [
            *self.backbone.parameter_groups(),
            {"name": "head", "params": list(self.hidden.parameters())},
            {"name": "score", "params": list(self.scores.parameters())},
        ]


def gap_seeder(
    seeder: SeederName,
    backbone_name: str,
    weights: LoadedWeights | None,
    n_classes: int,
    *,
    width: int | None = None,
    view_scale: float = 1.0,
) -> GapClassifier:
    """A seeder of Oh et al., 2017 (section 4.1, Table 6): layer for layer on VGG-16.

    On another backbone it is its counterpart: of the same output stride, dilated or not as there,
    with the same layers above block5. Hidden weights start at N(0, 0.005) on VGG-16; elsewhere,
    where they would learn too slowly from that, as He et al. (2015) have it. The class weights
    start at N(0, 0.01), without a bias.

    Args:
        seeder: "lowres", "highres", "roi" or "deeplab".
        backbone_name: key in :data:`tagseg.nets.catalog.BACKBONES`.
        weights: of the backbone, None for random ones.
        n_classes: C, foreground classes.
        width: channels of fc6 and fc7; None is the paper's 1024 on VGG-16 and 256 elsewhere.
        view_scale: factor on the dilation of "deeplab"'s fc6, for photos smaller than the paper's.

    Raises:
        ConfigError: there is no such seeder or backbone, or a number cannot be meant.
        WeightsError: the weights belong to another network.
    """
    check_seeder(seeder, backbone_name)
    if view_scale <= 0:
        raise ConfigError(f"a view scale of {view_scale}", do="use a number over 0")
    form = SEEDERS[seeder]
    backbone = build_backbone(
        backbone_name, weights, output_stride=form.output_stride, dilated=form.dilated
    )
    return GapClassifier(
        backbone,
        n_classes,
        hidden=_WIDTHS.get(backbone_name, _OTHER_WIDTH) if width is None else width,
        hidden_layers=[_scaled(layer, view_scale) for layer in form.hidden],
        # The maximum over the window around each position is ROI pooling to the single position
        # that fc6, a 1x1 convolution, asks for.
        pool5=nn.MaxPool2d(3, stride=1, padding=1) if form.windows else nn.Identity(),
        std=_STD if backbone_name == "vgg16" else None,
    )


def check_seeder(seeder: SeederName, backbone_name: str) -> None:
    """Raise ConfigError if there is no such seeder, or none on such a backbone.

    "deeplab" is a geometry of convolutions: it dilates block5, and a transformer has no kernels.
    """
    if seeder not in SEEDERS:
        raise ConfigError(f"there is no seeder {seeder!r}", do=choose_from(SEEDERS, seeder))
    if SEEDERS[seeder].dilated and backbone_kind(backbone_name).has_attentions:
        others = [name for name, form in SEEDERS.items() if not form.dilated]
        raise ConfigError(
            f"seeder {seeder!r} dilates its backbone, and {backbone_name} is a transformer, which "
            "has nothing to dilate",
            do=f"use {', '.join(others[:-1])} or {others[-1]}",
        )


def _scaled(layer: HiddenLayer, view_scale: float) -> HiddenLayer:
    if layer.dilation == 1:
        return layer
    return layer._replace(dilation=max(1, round(layer.dilation * view_scale)))


def _described(layers: int | Sequence[HiddenLayer], hidden: int) -> Sequence[HiddenLayer]:
    """The hidden layers one by one, if they can be meant."""
    count = layers if isinstance(layers, int) else len(layers)
    if hidden < 1 or count < 0:
        raise ConfigError(f"{count} hidden layers of {hidden} channels", do="raise them")
    described = [HiddenLayer(3)] * count if isinstance(layers, int) else layers
    for size in (layer.kernel for layer in described):
        if size < 1 or size % 2 == 0:
            raise ConfigError(
                f"a kernel of {size}", do="use an odd kernel, so that maps keep place"
            )
    return described


def _convolutions(
    channels: int, width: int, layers: Sequence[HiddenLayer], dropout: float, std: float | None
) -> Iterator[nn.Module]:
    for kernel, dilation in layers:
        padding = dilation * (kernel // 2)
        convolution = nn.Conv2d(channels, width, kernel, padding=padding, dilation=dilation)
        if std is None:
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        else:
            nn.init.normal_(convolution.weight, std=std)
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        yield from (convolution, nn.ReLU(), nn.Dropout(dropout))
        channels = width
