"""What every backbone offers: feature maps at strides that it names, and its own preprocessing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from tagseg.errors import ConfigError
from tagseg.nets.folding import in_turn

__all__ = [
    "Activations",
    "Backbone",
    "FeatureBlock",
    "FineTuning",
    "Preprocessing",
    "PyramidLevel",
    "dilates",
    "upsample_grid",
    "upsample_level",
]


class Preprocessing(NamedTuple):
    """How pixels in [0, 1] become network input: ``(x - mean) / std`` per RGB channel."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @property
    def mean_colour(self) -> tuple[int, int, int]:
        """The RGB colour, 0 to 255, that normalises to 0 up to rounding: for borders of photos."""
        red, green, blue = (min(255, max(0, round(255 * mean))) for mean in self.mean)
        return red, green, blue


class Activations(NamedTuple):
    """The last two blocks' feature maps; those of networks with ReLUs are taken behind them."""

    block4: Tensor  # (B, C4, h4, w4)
    block5: Tensor  # (B, C5, h5, w5)


class FeatureBlock(NamedTuple):
    """Feature maps of one size; with a ``grid_stride`` position i lies on pixel first + stride * i.

    There may be more positions than the photo has room for.
    """

    layers: tuple[str, ...]  # names in ``named_modules`` of the backbone, each giving (B, C, h, w)
    stride: int
    first: int = 0


class PyramidLevel(NamedTuple):
    """Consecutive layers, the last of which gives a level of a feature pyramid."""

    layers: tuple[nn.Module, ...]
    stride: int
    channels: int


@dataclass(frozen=True)
class FineTuning:
    """Which of a backbone's layers learn, and how fast; by default all, at one rate.

    Attributes:
        trained_blocks: how many of :meth:`Backbone.layer_groups` learn, from the top; None for all.
        layer_decay: factor on the learning rate for each group down from the head, which has 1: the
            last group has it once (Bao et al., BEiT, 2022; He et al., Masked Autoencoders, 2022).
    """

    trained_blocks: int | None = None
    layer_decay: float = 1.0


class Backbone(nn.Module, ABC):
    """A network without its classifier, convolutional or a transformer.

    It is anything that gives feature maps and says on which pixels their positions lie. Which
    activation functions it has is its own affair: what asks for ReLUs, as guided back-propagation
    does, checks for them itself (:meth:`tagseg.localize.backprop.ClassSaliency.forward`).

    Input everywhere: float (B, 3, H, W), RGB in [0, 1]. Normalisation happens inside, with the
    numbers of the weights in use, so nothing outside needs to know them.

    Attributes:
        name: key in :data:`tagseg.nets.catalog.BACKBONES`.
        out_channels: channels of ``block5``, the input of every head.
        block4_channels: channels of ``block4``.
        own_preprocessing: what weights that say nothing of it were trained with.
        pyramid_channels: of a feature pyramid's maps on this network.
        usual_stride: the output stride where a recipe's configuration leaves it open.
        pyramid_stride: the output stride at which the pyramid has all its levels from 4 on.
        native_stride: the output stride at which the network was trained, with nothing dilated.
        native_side: pixels of the longer side of the pictures that it was trained on.
        usual_layer_decay: of its learning rate, where a recipe's configuration leaves it open.
        freezes_statistics: whether loaded weights bring batch norms that stay as they are.
        has_attentions: whether it is a transformer, which :meth:`recorded_attentions` records.
        fine_tuning: what of it learns, see :meth:`fine_tune`.
        output_stride: input pixels per position of what ``forward`` gives.
        dilated: whether the network is in its dilated form, see the argument of each.
        grid_stride: ``stride`` for :func:`upsample_grid`: the output stride where position i lies
            on pixel output_stride * i; None where positions lie in the middles of cells of
            output_stride pixels, as behind 2x2 pools.
    """

    name: str
    out_channels: int
    block4_channels: int
    own_preprocessing = Preprocessing()
    pyramid_channels = 256
    usual_stride = 8
    pyramid_stride = native_stride = 32
    native_side = 224
    usual_layer_decay = 1.0
    freezes_statistics = False
    has_attentions = False
    _mean: Tensor
    _std: Tensor

    def __init__(self, output_stride: int, *, dilated: bool = False) -> None:
        super().__init__()
        self._statistics_frozen, self.fine_tuning = False, FineTuning()
        self.output_stride, self.dilated = output_stride, dilated
        self.grid_stride: int | None = output_stride
        # Not persistent: the parameter names stay torchvision's; the weights' metadata carries it.
        self.register_buffer("_mean", torch.empty(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.empty(1, 3, 1, 1), persistent=False)
        self.set_preprocessing(self.own_preprocessing)

    def set_preprocessing(self, preprocessing: Preprocessing) -> None:
        """Use the mean and standard deviation that the loaded weights were trained with."""
        self.preprocessing = preprocessing
        self._mean.copy_(torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self._std.copy_(torch.tensor(preprocessing.std).view(1, 3, 1, 1))

    def freeze_statistics(self) -> None:
        """Keep the batch norms' means and variances as loaded, in training mode too.

        Batches for dense prediction are too small to estimate them (Saleh et al., section 4.2.1,
        have one photo a batch), and weights with folded batch norms hold none.
        """
        self._statistics_frozen = True
        self.train(self.training)

    def fine_tune(self, tuning: FineTuning) -> None:
        """Let the last blocks learn, and the others stay as they are.

        What is frozen has no gradients and computes as in evaluation: nothing of it is kept for the
        way back, which ends at the first block that learns.

        Raises:
            ConfigError: there are not so many blocks, or the backbone does not say which.
        """
        count = tuning.trained_blocks
        groups = self.layer_groups() if tuning != FineTuning() else ()
        if count is not None and count >= len(groups):
            if count > len(groups):
                raise ConfigError(
                    f"the backbone {self.name} has {len(groups)} blocks, not {count}",
                    do=f"set trained_blocks to {len(groups) - 1} or less, or to none for all",
                )
            tuning = replace(tuning, trained_blocks=None)
        self.fine_tuning = tuning
        self.requires_grad_(True)
        for module in self._frozen():
            module.requires_grad_(False)
        self.train(self.training)

    def layer_groups(self) -> tuple[tuple[nn.Module, ...], ...]:
        """All modules with parameters, in blocks from the photo on: what learns at one rate.

        Raises:
            ConfigError: the backbone does not say which they are.
        """
        raise ConfigError(
            f"the backbone {self.name} does not name its blocks",
            do="leave trained_blocks and layer_decay out",
        )

    def parameter_groups(self) -> list[dict[str, object]]:
        """All parameters for the optimizer, in groups of the name ``backbone``.

        One, or one of each block with the "factor" on its learning rate, if that decays.
        """
        if self.fine_tuning.layer_decay == 1:
            return [{"name": "backbone", "params": list(self.parameters())}]
        groups = self.layer_groups()
        return [
            {
                "name": "backbone",
                "params": [parameter for module in group for parameter in module.parameters()],
                "factor": self.fine_tuning.layer_decay ** (len(groups) - number),
            }
            for number, group in enumerate(groups)
        ]

    def _frozen(self) -> list[nn.Module]:
        """The modules of the blocks that do not learn."""
        count = self.fine_tuning.trained_blocks
        if count is None:
            return []
        groups = self.layer_groups()
        return [module for group in groups[: len(groups) - count] for module in group]

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for frozen blocks and batch norms with frozen statistics."""
        super().train(mode)
        for module in self._frozen():
            module.eval()
        if self._statistics_frozen:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def normalise(self, x: Tensor) -> Tensor:
        """RGB in [0, 1] to network input."""
        return (x - self._mean) / self._std

    @abstractmethod
    def activations(self, x: Tensor) -> Activations:
        """Feature maps of the 4th and 5th block for RGB in [0, 1], (B, 3, H, W)."""

    @abstractmethod
    def feature_blocks(self) -> tuple[FeatureBlock, ...]:
        """The five blocks between poolings, or their counterparts, as VGG-16 has them."""

    def forward(self, x: Tensor) -> Tensor:
        """Features for a head: the 5th block, (B, out_channels, h, w)."""
        return self.activations(x).block5

    def recorded_attentions(self) -> AbstractContextManager[list[Tensor]]:
        """The attentions (B, heads, T, T) of each layer in the last forward pass of the block.

        From the first layer to the last, with their graph. The last h * w of the T tokens are the
        positions of ``forward``, in rows.

        Raises:
            ConfigError: the backbone is no transformer.
        """
        raise ConfigError(
            f"the backbone {self.name} has no attentions", do="use a transformer, hf:FOLDER"
        )

    def pyramid(self, x: Tensor, finest: int = 4) -> tuple[Tensor, ...]:
        """A map (B, channels, h, w) of each of :meth:`pyramid_levels` for RGB in [0, 1].

        The last is what ``forward`` gives. H pixels have ``ceil(H / stride)`` positions in each;
        all lie as those of ``forward`` do, see ``grid_stride``: position i is centred on pixel
        stride * i, or else on the middle of its cell of stride pixels.
        """
        x = self.normalise(x)
        maps = []
        for level in self.pyramid_levels(finest):
            x = in_turn(level.layers, x)
            maps.append(x)
        return tuple(maps)

    def pyramid_levels(self, finest: int = 4) -> tuple[PyramidLevel, ...]:
        """The levels from stride ``finest`` to the output stride, each of twice the one before.

        As Lin et al. (2017, section 3) choose them: layers whose maps have one size are a level,
        and its map is the last one's. They begin at stride 4; the map of stride 2, which has few
        layers behind it, is for decoders that draw thin things.

        Raises:
            ConfigError: ``finest`` is not 2 or 4, or the backbone has no such levels.
        """
        if finest not in (2, 4):
            raise ConfigError(f"a pyramid from stride {finest}", do="use 2 or 4")
        levels: dict[int, PyramidLevel] = {}
        for layers, native, channels in self._sections():
            stride = max(finest, min(native, self.output_stride))
            before = levels[stride].layers if stride in levels else ()
            levels[stride] = PyramidLevel((*before, *layers), stride, channels)
        return tuple(levels.values())

    def _sections(self) -> tuple[PyramidLevel, ...]:
        """All layers in order, parted where the undilated stride doubles, from 2 on."""
        raise ConfigError(f"{self.name} gives no feature pyramid", do="use another backbone")


def dilates(name: str, output_stride: int, dilated: bool | None) -> bool:
    """Whether a network of native stride 32 is dilated at an output stride; None is its default.

    Raises:
        ConfigError: for an output stride other than 8, 16 and 32, or if it is to be dilated at 32.
    """
    if output_stride not in (8, 16, 32):
        raise ConfigError(f"{name} has no output stride {output_stride}", do="use 8, 16 or 32")
    if dilated and output_stride == 32:
        raise ConfigError(f"{name} has no dilated form at output stride 32", do="use 8 or 16")
    return output_stride != 32 if dilated is None else dilated


def upsample_grid(
    maps: Tensor,
    shape: tuple[int, int],
    stride: int | None,
    *,
    seen: tuple[int, int] | None = None,
) -> Tensor:
    """Maps (B, C, h, w) of a network at image size (B, C, H, W), bilinear.

    With a ``stride``, position i lies on pixel stride * i, as it does in all backbones whose
    ``grid_stride`` is not None: left to plain resizing, maps would shift by (stride - 1) / 2
    pixels. Pixels beyond the last position take its value. With None the maps are spread evenly
    from edge to edge: exact behind 2x2 pools where the size is a multiple of the stride, and with
    ceil(size / stride) positions it draws the far edge in by less than a stride elsewhere.
    Where the network was given the image at another size, that is ``seen``.
    """
    if stride is not None and seen is not None and seen != shape:
        maps, stride = upsample_grid(maps, seen, stride), None
    if stride is None:
        return functional.interpolate(maps, shape, mode="bilinear", align_corners=False)
    down, right = (  # sym_max: of a network that is exported, sizes are symbols
        torch.sym_max(0, (pixels + stride - 2) // stride + 1 - positions)
        for pixels, positions in zip(shape, maps.shape[2:], strict=True)
    )
    padded = functional.pad(maps, (0, right, 0, down), mode="replicate")
    size = [(positions - 1) * stride + 1 for positions in padded.shape[2:]]
    full = functional.interpolate(padded, size, mode="bilinear", align_corners=True)
    return full[:, :, : shape[0], : shape[1]]


def upsample_level(
    maps: Tensor, shape: tuple[int, int], factor: int, *, grid_stride: int | None
) -> Tensor:
    """A level of a pyramid (B, C, h, w) at the positions (B, C, *shape) of one ``factor`` finer.

    Bilinear. A backbone's ``grid_stride`` says how its positions lie; without one, those of both
    levels are the middles of cells, of which the coarser level's may reach beyond the photo.
    """
    if grid_stride is not None:
        return upsample_grid(maps, shape, factor)
    full = functional.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
    return full[..., : shape[0], : shape[1]]
