"""The segmentation network: fully convolutional, two fields of view, learned upsampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagseg.errors import ConfigError
from tagseg.nets.backbone import Backbone

__all__ = [
    "IMAGENET_ROWS",
    "FieldOfView",
    "SegmentationNet",
    "coarse_labels",
    "imagenet_row",
    "initialise_from_classifier",
]

FieldOfView = Literal["large", "small"]

# fc6 kernel, dilation at output stride 8, and channels of fc6 and fc7 on VGG-16.
_FORMS: dict[str, tuple[int, int, int]] = {"large": (3, 12, 1024), "small": (4, 4, 4096)}
_OTHER_WIDTH = 256

# Rows of ImageNet-1k's classifier for the VOC classes: the closest synset where several fit.
IMAGENET_ROWS: dict[str, int] = {
    "aeroplane": 404,  # n02690373 airliner
    "bicycle": 671,  # n03792782 mountain bike
    "bird": 15,  # n01558993 robin
    "boat": 814,  # n04273569 speedboat
    "bottle": 898,  # n04557648 water bottle
    "bus": 779,  # n04146614 school bus
    "car": 817,  # n04285008 sports car
    "cat": 281,  # n02123045 tabby
    "chair": 559,  # n03376595 folding chair
    "cow": 345,  # n02403003 ox
    "diningtable": 532,  # n03201208 dining table
    "dog": 207,  # n02099601 golden retriever
    "horse": 339,  # n02389026 sorrel
    "motorbike": 670,  # n03791053 motor scooter
    "person": 981,  # n09835506 ballplayer (ImageNet-1k has no plain person)
    "pottedplant": 738,  # n03991062 pot
    "sheep": 348,  # n02412080 ram
    "sofa": 831,  # n04344873 studio couch
    "train": 466,  # n02917067 bullet train
    "tvmonitor": 851,  # n04404412 television
}

# Other names of these classes: COCO's, and as people write them.
_ALIASES: dict[str, str] = {
    "airplane": "aeroplane",
    "plane": "aeroplane",
    "bike": "bicycle",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
    "television": "tvmonitor",
}


def imagenet_row(name: str) -> int | None:
    """The row of ImageNet's classifier that a class shares, by its name or an alias of it."""
    return IMAGENET_ROWS.get(_ALIASES.get(name, name))


class SegmentationNet(nn.Module):
    """Scores per pixel and label: VGG-16's classifier as convolutions (Saleh et al., 4.2.1).

    Backbone, fc6, fc7 (1x1), ``score`` (1x1), and a transposed convolution to image size with one
    filter per label, which starts as bilinear interpolation.

    The field of view of fc6 is counted as in DeepLab (Chen et al., 2015, Table 2): a tap stands
    for one position of pool5 in the original VGG-16, a cell of 32x32 pixels, so k taps per side,
    d positions of s pixels apart, see (k - 1) d s + 32 pixels:

    - ``"large"``: 3x3, d = 12 at s = 8: 2 * 12 * 8 + 32 = 224, the size of an ImageNet input;
    - ``"small"``: 4x4, d = 4 at s = 8: 3 * 4 * 8 + 32 = 128.

    On its input fc6 spans (k - 1) d + 1 positions, 25 or 13: odd in both forms, so the even kernel
    too keeps the size, with (k - 1) d / 2 of padding. At output stride 16 the dilations halve and
    the pixels stay the same. The dilation of the 4x4 kernel is always even.

    Args:
        backbone: the network below; its position i must be centred on pixel output_stride * i.
        n_labels: C + 1, background first.
        field_of_view: ``"large"`` (the paper's for multi-class masks) or ``"small"`` (for
            foreground/background masks).
        width: channels of fc6 and fc7; None is the paper's on VGG-16 (1024 large, 4096 small) and
            256 on the smaller backbones.
        dropout: probability after fc6 and after fc7, in training.
        learn_upsampling: False keeps the upsampling bilinear.
        view_scale: factor on fc6's dilation, for photos smaller than the paper's 500 pixels.
        margin: pixels, a multiple of the output stride, by which ``forward`` reflects a photo at
            each side first, so that fc6 sees photo rather than zeros there. Oh et al. test at 531
            pixels a side, about 16 more at each side of a photo of 500. Training uses ``coarse``.

    Raises:
        ConfigError: if a number or a field of view cannot be meant.
    """

    def __init__(
        self,
        backbone: Backbone,
        n_labels: int,
        field_of_view: FieldOfView = "large",
        width: int | None = None,
        dropout: float = 0.5,
        learn_upsampling: bool = True,
        view_scale: float = 1.0,
        margin: int = 0,
    ) -> None:
        super().__init__()
        if field_of_view not in _FORMS:
            raise ConfigError(f"no field of view {field_of_view!r}", do="use large or small")
        if n_labels < 2:
            raise ConfigError(f"{n_labels} labels", do="give background and at least one class")
        kernel, dilation, paper_width = _FORMS[field_of_view]
        if width is None:
            width = paper_width if backbone.name == "vgg16" else _OTHER_WIDTH
        if width < 1:
            raise ConfigError(f"a width of {width}", do="use at least 1")
        if view_scale <= 0:
            raise ConfigError(f"a view scale of {view_scale}", do="use a number over 0")
        stride = backbone.output_stride
        if margin < 0 or margin % stride:
            raise ConfigError(f"a margin of {margin} pixels", do=f"use a multiple of {stride}")
        step = 2 - kernel % 2  # an even kernel keeps the size at even dilations only
        dilation = max(step, step * round(dilation * 8 / stride * view_scale / step))
        padding = (kernel - 1) * dilation // 2
        self.backbone, self.field_of_view, self.view_scale = backbone, field_of_view, view_scale
        self.margin = margin
        self.fc6 = nn.Conv2d(
            backbone.out_channels, width, kernel, padding=padding, dilation=dilation
        )
        self.fc7 = nn.Conv2d(width, width, 1)
        self.score = nn.Conv2d(width, n_labels, 1)
        self.upsample = _bilinear_upsampling(n_labels, stride)
        self.upsample.requires_grad_(learn_upsampling)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        _initialise_score(self.score, std=0.01)

    @property
    def coarse_stride(self) -> int:
        """Input pixels per position of :meth:`coarse`."""
        return self.backbone.output_stride

    @property
    def coarse_grid_stride(self) -> int | None:
        """The ``stride`` with which ``upsample_grid`` brings :meth:`coarse` to image size."""
        return self.backbone.grid_stride

    def coarse(self, x: Tensor) -> Tensor:
        """Logits at the output stride, (B, n_labels, h, w), for RGB in [0, 1], (B, 3, H, W)."""
        x = self.dropout(F.relu(self.fc6(self.backbone(x))))
        x = self.dropout(F.relu(self.fc7(x)))
        return self.score(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the size of the input, (B, n_labels, H, W), for any H and W."""
        if self.margin:
            x = _reflected(x, self.margin)
        height, width = x.shape[2:]
        coarse = self.coarse(x)
        # The transposed convolution needs one position at or beyond the last pixel. (sym_max, and
        # sym_min below: of a network that is exported, sizes are symbols.)
        down = torch.sym_max(0, self._needed(height) - coarse.shape[2])
        right = torch.sym_max(0, self._needed(width) - coarse.shape[3])
        full = self.upsample(F.pad(coarse, (0, right, 0, down), mode="replicate"))
        return full[..., self.margin : height - self.margin, self.margin : width - self.margin]

    def _needed(self, size: int) -> int:
        stride = self.backbone.output_stride
        return (size + stride - 2) // stride + 1  # ONNX divides negative numbers otherwise

    def parameter_groups(self) -> list[dict[str, object]]:
        """``backbone``, ``head`` (fc6, fc7, upsampling), ``score`` (weights) and ``score_bias``.

        For a learning rate each: DeepLab learns ``score`` 10 and ``score_bias`` 20 times as fast.
        """
        head = [*self.fc6.parameters(), *self.fc7.parameters(), *self.upsample.parameters()]
        return [
            *self.backbone.parameter_groups(),
            {"name": "head", "params": [p for p in head if p.requires_grad]},
            {"name": "score", "params": [self.score.weight]},
            {"name": "score_bias", "params": [self.score.bias]},
        ]


def coarse_labels(labels: Tensor, stride: int) -> Tensor:
    """Labels (B, H, W) at the positions of ``SegmentationNet.coarse``: pixels ``stride * i``.

    DeepLab trains at this size, on label maps brought to it by nearest neighbour: 321 pixels a side
    give 41 labels at stride 8.
    """
    return labels[:, ::stride, ::stride]


def initialise_from_classifier(
    net: SegmentationNet,
    state: Mapping[str, Tensor],
    classes: Sequence[str],
    *,
    shared_rows: bool = True,
) -> tuple[str, ...]:
    """Start fc6, fc7 and ``score`` from ImageNet's classifier (Saleh et al., section 4.2.1).

    fc6 and fc7 take every m-th filter and input of VGG-16's 4096, and fc6 the taps of the 7x7
    kernel that lie regularly from edge to edge (rows and columns 0, 3, 6 of it for 3x3; 0, 2, 4, 6
    for 4x4), as DeepLab does. ``score`` takes the rows of classes that ImageNet shares
    (:func:`imagenet_row`); background and the other classes are N(0, 0.1) with bias 0.

    Where ``state`` holds no VGG-16 classifier that fits ``net``, fc6 and fc7 stay as they are and
    ``score`` is N(0, 0.01).

    Args:
        net: the network to initialise, in place.
        state: the weights file's entries (``classifier.{0,3,6}.{weight,bias}``).
        classes: the C foreground class names, in label order.
        shared_rows: False starts all of ``score`` at N(0, 0.01) with bias 0, as DeepLab does.

    Returns:
        The classes whose rows came from ImageNet.

    Raises:
        ConfigError: if the classes are not one fewer than the labels.
    """
    n_labels = net.score.out_channels
    if len(classes) != n_labels - 1:
        raise ConfigError(
            f"{len(classes)} class names for a network of {n_labels} labels",
            do="give one name per label other than background",
        )
    with torch.no_grad():
        if not _has_vgg_classifier(net, state):
            _initialise_score(net.score, std=0.01)
            return ()
        kept = _regular(net.fc6.out_channels, 4096)
        taps = _regular_ends(net.fc6.kernel_size[0], 7)
        fc6 = state["classifier.0.weight"].view(4096, net.fc6.in_channels, 7, 7)
        net.fc6.weight.copy_(fc6[kept][:, :, taps][:, :, :, taps])
        net.fc6.bias.copy_(state["classifier.0.bias"][kept])  # type: ignore[union-attr]
        net.fc7.weight.copy_(state["classifier.3.weight"][kept][:, kept, None, None])
        net.fc7.bias.copy_(state["classifier.3.bias"][kept])  # type: ignore[union-attr]
        if not shared_rows:
            _initialise_score(net.score, std=0.01)
            return ()
        return _score_from_imagenet(net.score, state, classes, kept)


def _score_from_imagenet(
    score: nn.Conv2d, state: Mapping[str, Tensor], classes: Sequence[str], kept: Tensor
) -> tuple[str, ...]:
    _initialise_score(score, std=0.1)
    rows = {name: row for name in classes if (row := imagenet_row(name)) is not None}
    for label, name in enumerate(classes, start=1):
        if name in rows:
            row = rows[name]
            score.weight[label, :, 0, 0] = state["classifier.6.weight"][row, kept]
            score.bias[label] = state["classifier.6.bias"][row]  # type: ignore[index]
    return tuple(rows)


def _has_vgg_classifier(net: SegmentationNet, state: Mapping[str, Tensor]) -> bool:
    expected = {"0": (4096, 512 * 7 * 7), "3": (4096, 4096), "6": (1000, 4096)}
    return net.fc6.in_channels == 512 and all(
        f"classifier.{i}.bias" in state
        and f"classifier.{i}.weight" in state
        and tuple(state[f"classifier.{i}.weight"].shape) == shape
        for i, shape in expected.items()
    )


def _regular(count: int, total: int) -> Tensor:
    """``count`` indices of 0..total-1 at a regular distance, from 0."""
    return torch.arange(count) * total // count


def _regular_ends(count: int, total: int) -> Tensor:
    """``count`` indices of 0..total-1 at a regular distance, both ends included."""
    return torch.linspace(0, total - 1, count).round().long()


def _reflected(x: Tensor, margin: int) -> Tensor:
    """Photos with ``margin`` more pixels at each side, repeated where there is too little photo."""
    down, right = (torch.sym_min(margin, size - 1) for size in x.shape[2:])
    x = F.pad(x, (right, right, down, down), mode="reflect")
    right, down = margin - right, margin - down
    return F.pad(x, (right, right, down, down), mode="replicate")


def _initialise_score(score: nn.Conv2d, std: float) -> None:
    nn.init.normal_(score.weight, std=std)
    nn.init.zeros_(score.bias)  # type: ignore[arg-type]


def _bilinear_upsampling(n_labels: int, stride: int) -> nn.ConvTranspose2d:
    """One filter per label; position i lands on pixel stride * i, and n positions on 1 more."""
    kernel = 2 * stride - 1
    upsample = nn.ConvTranspose2d(
        n_labels, n_labels, kernel, stride, padding=stride - 1, groups=n_labels, bias=False
    )
    ramp = 1 - (torch.arange(kernel) - (stride - 1)).abs() / stride
    with torch.no_grad():
        upsample.weight.copy_(torch.outer(ramp, ramp).expand_as(upsample.weight))
    return upsample
