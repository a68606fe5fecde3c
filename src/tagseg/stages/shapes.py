"""Sizes that are chosen from the photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from tagseg.data.working import WorkingPhotos
from tagseg.stages.context import Plain
from tagseg.stages.settings import SegmenterForm, ViewSettings

__all__ = ["NetworkForm", "Seen", "evenly", "some_shapes", "view_scale"]

_SHAPES = 200  # photos that are looked at to choose a crop


@dataclass(frozen=True)
class Seen:
    """The longer side of the photos that a network sees, pixels; None for their working size."""

    side: int | None


@dataclass(frozen=True)
class NetworkForm(Plain):
    """The form of a segmenter as it is built: what the settings come to."""

    output_stride: int
    view_scale: float | None
    segmenter_width: int | None

    @classmethod
    def of(cls, net: nn.Module, settings: SegmenterForm) -> NetworkForm:
        """The form of ``net``."""
        backbone: Any = net.backbone
        width = settings.segmenter_width
        fc6 = getattr(net, "fc6", None)
        if isinstance(fc6, nn.Module):
            width = int(getattr(fc6, "out_channels", width or 0)) or None
        scale: Any = getattr(net, "view_scale", None)  # none in a network without fc6's like
        return cls(int(backbone.output_stride), scale, None if scale is None else width)


def some_shapes(photos: WorkingPhotos) -> list[tuple[int, int]]:
    """Working sizes (h, w) of up to 200 photos, evenly spread; unknown ones are decoded for it."""
    chosen = evenly(len(photos), _SHAPES)
    if photos.dataset.sizes is None:
        return [photos.image(index).shape[:2] for index in chosen]
    return [(height, width) for height, width in photos.shapes()[chosen].tolist()]


def evenly(count: int, most: int) -> list[int]:
    """Up to ``most`` of the indices below ``count``, evenly spread from the first to the last."""
    return np.linspace(0, count - 1, min(count, most)).astype(int).tolist()


def view_scale(
    settings: ViewSettings, shapes: Sequence[tuple[int, int]], *, reference: float = 500.0
) -> float:
    """fc6's dilation relative to the paper's, whose photos have ``reference`` pixels."""
    if not settings.scale_field_of_view:
        return 1.0
    longer = float(np.median(np.max(np.asarray(shapes), axis=1)))
    return round(min(1.0, longer / reference), 3)
