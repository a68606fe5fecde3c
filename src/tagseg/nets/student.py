"""LowRes-Net: a soft mask of what stands out in a photo, on a grid of 32 x 32 positions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tagseg.errors import ConfigError, ShapeError, choose_from

__all__ = [
    "GRID",
    "INPUT_SIDE",
    "STUDENTS",
    "StudentName",
    "StudentNet",
    "image_derivatives",
    "image_hue",
    "student_net",
]

StudentName = Literal["small", "published"]

INPUT_SIDE = 128  # pixels
GRID = 32  # positions of the mask, in height and in width

# 78 million weights, and 0.6 million for machines without a GPU.
STUDENTS: Mapping[StudentName, Mapping[str, int]] = {
    "published": {},
    "small": {"width": 32, "last": 4, "branch": 8, "rank": 112},
}

_LUMA = (0.299, 0.587, 0.114)


class StudentNet(nn.Module):
    """LowRes-Net of Croitoru, Bogolin and Leordeanu, ICCV 2017.

    Three branches, on RGB, on the derivatives (Ix, Iy) of the grey image and on the hue, each
    3x3-256, 5x5-256, pool; their 768 channels together, 3x3-256, 5x5-256, pool; 3x3-256, 5x5-256,
    5x5-64; one full connection of the 32 x 32 x 64 values to the 32 x 32 of the mask. A ReLU after
    each convolution, no batch norm. By default layer for layer the published network; other
    numbers make it smaller.

    Args:
        width: channels of all convolutions but the last.
        last: channels of the last one.
        branch: channels of the convolutions in the branches, which are most of the work; None is
            ``width``.
        rank: writes the full connection as a product of two matrices through so many values, which
            makes the file small; None is one matrix.

    Raises:
        ConfigError: a number is below 1.
    """

    def __init__(
        self,
        width: int = 256,
        last: int = 64,
        *,
        branch: int | None = None,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        self.configuration = {"width": width, "last": last, "branch": branch, "rank": rank}
        for name, value in self.configuration.items():
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}", do="give 1 or more")
        each = width if branch is None else branch
        self.rgb, self.gradient, self.hue = (_stage(n, each) for n in (3, 2, 1))
        self.middle = _stage(3 * each, width)
        self.deep = nn.Sequential(
            *_convolution(width, width, 3), *_convolution(width, width, 5),
            *_convolution(width, last, 5),
        )  # fmt: skip
        self.mask = _full_connection(last * GRID * GRID, GRID * GRID, rank)

    def forward(self, x: Tensor) -> Tensor:
        """The soft mask (B, 32, 32), about 0 to 1, for RGB in [0, 1], (B, 3, 128, 128)."""
        if x.shape[1:] != (3, INPUT_SIDE, INPUT_SIDE):
            raise ShapeError(
                f"images have shape {tuple(x.shape)}",
                do=f"give (B, 3, {INPUT_SIDE}, {INPUT_SIDE})",
            )
        derivatives, hue = image_derivatives(x), image_hue(x)
        x = torch.cat([self.rgb(x), self.gradient(derivatives), self.hue(hue)], 1)
        x = self.deep(self.middle(x))
        return self.mask(x.flatten(1)).unflatten(1, (GRID, GRID))

    @property
    def digest(self) -> str:
        """Hash of the configuration and the weights."""
        total = hashlib.blake2b(repr(self.configuration).encode(), digest_size=16)
        for name, value in self.state_dict().items():
            total.update(name.encode())
            total.update(value.cpu().contiguous().numpy().tobytes())
        return total.hexdigest()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """``convolutions``, ``mask`` (the full connection's weights) and its ``bias``."""
        full = dict(self.mask.named_parameters())
        own = {id(p) for p in full.values()}
        return [
            {"name": "convolutions", "params": [p for p in self.parameters() if id(p) not in own]},
            {"name": "mask", "params": [p for name, p in full.items() if "weight" in name]},
            {"name": "bias", "params": [p for name, p in full.items() if "bias" in name]},
        ]


def student_net(name: StudentName) -> StudentNet:
    """An untrained student of a size in :data:`STUDENTS`; ConfigError if there is none."""
    if name not in STUDENTS:
        raise ConfigError(f"there is no student {name!r}", do=choose_from(STUDENTS, name))
    return StudentNet(**STUDENTS[name])


def image_derivatives(x: Tensor) -> Tensor:
    """Central differences (Ix, Iy) of the grey image, (B, 2, H, W); the edge repeats outside."""
    grey = (x * x.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)
    wide = functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    dx = wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]
    dy = wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]
    return torch.cat([dx, dy], 1) / 2


def image_hue(x: Tensor) -> Tensor:
    """Hue of HSV as a share of the circle, [0, 1), (B, 1, H, W); 0 where there is no colour."""
    highest, which = x.max(1)
    spread = highest - x.amin(1)
    red, green, blue = x.unbind(1)
    differences = torch.stack([green - blue, blue - red, red - green], 1)
    difference = differences.gather(1, which[:, None])[:, 0]
    sixths = difference / spread.clamp_min(torch.finfo(x.dtype).tiny) + 2 * which
    return (sixths / 6).remainder(1)[:, None]


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        *_convolution(inputs, outputs, 3), *_convolution(outputs, outputs, 5), nn.MaxPool2d(2)
    )


def _convolution(inputs: int, outputs: int, kernel: int) -> tuple[nn.Module, nn.Module]:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer, nn.ReLU()


def _full_connection(inputs: int, outputs: int, rank: int | None) -> nn.Module:
    if rank is None:
        return nn.Linear(inputs, outputs)
    return nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs))
