"""A Feature Pyramid Network for segmentation: maps of all strides meet in one of stride 4."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from tagseg.errors import ConfigError
from tagseg.nets.backbone import Backbone, upsample_grid, upsample_level

__all__ = ["FpnNet"]

_GROUP = 4  # channels normalised together: 32 groups of the published 128


class FpnNet(nn.Module):
    """Scores per pixel and label from a feature pyramid (Lin et al., CVPR 2017, section 3).

    Each level of ``backbone.pyramid`` passes a 1x1 convolution and is added to the merged level
    above it, upsampled by 2; a 3x3 convolution on each sum gives the pyramid's map. A position
    takes the nearest one above, as published; where two lie equally near, as on grids whose
    position i lies on pixel stride * i, it takes their mean, so that nothing moves sideways.

    How the levels become one mask is not in that paper, nor in Jing et al. (III-E), who segment
    with it. Here each level is brought to the finest one's grid in steps of a 3x3 convolution to
    half the channels, group norm, ReLU and bilinear upsampling by 2 (the finest by one such step
    without upsampling), and a 1x1 convolution scores the sum: the semantic branch of Kirillov et
    al. (Panoptic Feature Pyramid Networks, CVPR 2019, section 3.1).

    Args:
        backbone: the network below, best at its ``pyramid_stride``; below it the pyramid
            has fewer levels.
        n_labels: C + 1, background first.
        channels: of the pyramid's maps; None is the paper's 256, but 64 on the small backbones.

    Raises:
        ConfigError: if a number cannot be meant, or the backbone has no inner maps to give.
    """

    def __init__(self, backbone: Backbone, n_labels: int, *, channels: int | None = None) -> None:
        super().__init__()
        if channels is None:
            channels = backbone.pyramid_channels
        if n_labels < 2:
            raise ConfigError(f"{n_labels} labels", do="give background and at least one class")
        if channels < 1 or channels % (2 * _GROUP):
            raise ConfigError(f"{channels} channels", do=f"use a multiple of {2 * _GROUP}")
        self.backbone, self.channels = backbone, channels
        levels = backbone.pyramid_levels()
        self.coarse_stride = levels[0].stride
        self.lateral = nn.ModuleList(nn.Conv2d(level.channels, channels, 1) for level in levels)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in levels)
        self.branches = nn.ModuleList(_branch(channels, steps) for steps in range(len(levels)))
        self.score = nn.Conv2d(channels // 2, n_labels, 1)
        self._initialise()

    @property
    def coarse_grid_stride(self) -> int | None:
        """The ``stride`` with which :func:`upsample_grid` brings :meth:`coarse` to image size."""
        return None if self.backbone.grid_stride is None else self.coarse_stride

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """The pyramid's maps (B, channels, h, w), finest first, for RGB in [0, 1], (B, 3, H, W)."""
        laterals = [
            lateral(features)
            for lateral, features in zip(self.lateral, self.backbone.pyramid(x), strict=True)
        ]
        merged = laterals[-1:]
        for finer in reversed(laterals[:-1]):
            merged.insert(0, finer + self._nearest(merged[0], _size(finer)))
        return [smooth(maps) for smooth, maps in zip(self.smooth, merged, strict=True)]

    def coarse(self, x: Tensor) -> Tensor:
        """Logits at the finest level's stride, (B, n_labels, h, w), for RGB in [0, 1]."""
        maps = self.pyramid(x)
        sizes = [_size(level) for level in maps]
        total = self._raised(0, maps[0], sizes[:1])
        for number, level in enumerate(maps[1:], start=1):
            total = total + self._raised(number, level, sizes[:number])
        return self.score(total)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the size of the input, (B, n_labels, H, W), bilinear, for any H and W."""
        return upsample_grid(self.coarse(x), _size(x), self.coarse_grid_stride)

    def parameter_groups(self) -> list[dict[str, object]]:
        """``backbone``, ``head`` (the pyramid), ``score`` and ``score_bias``, for a rate each."""
        head = (self.lateral, self.smooth, self.branches)
        return [
            *self.backbone.parameter_groups(),
            {"name": "head", "params": [p for part in head for p in part.parameters()]},
            {"name": "score", "params": [self.score.weight]},
            {"name": "score_bias", "params": [self.score.bias]},
        ]

    def _raised(self, number: int, level: Tensor, finer: list[tuple[int, int]]) -> Tensor:
        """A level on the finest grid, by way of those between, of the sizes ``finer``."""
        steps = cast(nn.Sequential, self.branches[number])
        for step, size in zip(steps, reversed(finer), strict=True):
            level = step(level)
            if _size(level) != size:
                level = upsample_level(level, size, 2, grid_stride=self.backbone.grid_stride)
        return level

    def _nearest(self, maps: Tensor, shape: tuple[int, int]) -> Tensor:
        if self.backbone.grid_stride is not None:
            return upsample_grid(maps, shape, 2)  # between two positions, the mean of both
        return functional.interpolate(maps, scale_factor=2)[..., : shape[0], : shape[1]]

    def _initialise(self) -> None:
        for layer in (*self.lateral, *self.smooth):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear")  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.zeros_(self.score.bias)  # type: ignore[arg-type]


def _branch(channels: int, steps: int) -> nn.Sequential:
    """What brings a level up by ``steps`` doublings; without any it is one step as well."""
    inputs, outputs = channels, channels // 2
    branch = nn.Sequential()
    for _ in range(max(1, steps)):
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        norm = nn.GroupNorm(outputs // _GROUP, outputs)
        branch.append(nn.Sequential(convolution, norm, nn.ReLU()))
        inputs = outputs
    return branch


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[2], maps.shape[3]
