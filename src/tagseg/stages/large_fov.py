"""DeepLab-LargeFOV (v1) as guided segmentation and SEC train it: on its own grid.

Chen et al., ICLR 2015; Oh et al. 2017, 6.1 and F. Unlike the segmenter of the other recipes it
learns no upsampling: labels come to the network's grid, not scores to the labels' pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tagseg.data.transforms import Augmentation, crop_size
from tagseg.losses.pixel import pixel_loss
from tagseg.nets.deeplab import SegmentationNet, initialise_from_classifier
from tagseg.segment.fit import GridBatch, GridObjective, fit_on_grid
from tagseg.segment.predict import Segmenter
from tagseg.stages.context import Run
from tagseg.stages.reviewed import taught
from tagseg.stages.schedules import large_fov_schedule, shortened
from tagseg.stages.segmenter import segmenter_of
from tagseg.stages.settings import SegmenterForm, WorkSettings
from tagseg.stages.shapes import NetworkForm, some_shapes, view_scale
from tagseg.stages.stage import Declared, Input, LabelMaps, Trained, trained

__all__ = ["grid_crop", "grid_cross_entropy", "large_fov_segmenter", "loss_stride"]

_SEGMENTER = Declared("segmenter", weights="segmenter")
_POSITIONS = 41  # a side, of the paper's grid


_TEST_SIDE, _PHOTO_SIDE = 531, 500  # pixels: photos are mirrored to the one from the other


def grid_cross_entropy(scores: Tensor, on_grid: GridBatch) -> Tensor:
    """Mean cross-entropy over the grid's labelled positions."""
    return pixel_loss(scores, on_grid.labels)


def large_fov_segmenter(
    run: Run,
    settings: WorkSettings,
    targets: LabelMaps,
    *,
    objective: GridObjective = grid_cross_entropy,
    whole: bool = False,
    declared: Declared = _SEGMENTER,
    title: str = "the segmenter",
    fraction: float = 1.0,
    start: Trained[Segmenter] | None = None,
) -> Trained[Segmenter]:
    """The segmenter, trained on ``targets`` with ``objective`` (Oh et al. 2017, 6.1 and F).

    On crops that are not resized; or on ``whole`` photos that are, for objectives to which the
    photo's tags must hold.

    Args:
        objective: a function, or a frozen dataclass whose fields decide on the loss.
        declared, title: of the stage and its progress bar.
        fraction: of the schedule's iterations.
        start: a segmenter to go on from; None starts from the backbone's weights.
    """
    own = "" if declared == _SEGMENTER else f"{declared.name}-"
    given = taught(run, targets, prefix=own)
    photos, setup, labels = given.photos, run.setup, given.labels
    schedule = shortened(large_fov_schedule(settings, setup, len(photos)), fraction)
    shapes = some_shapes(photos)
    crop = grid_crop(shapes, settings.segmenter_crop)
    how = Augmentation(crop, stretch=whole)
    net = _network(run, settings, view_scale(settings, shapes))
    inputs: list[Input] = [labels]
    if start is not None:
        inputs.append(start)
        net.load_state_dict(start.model.net.state_dict())
    grid = min(loss_stride(crop), net.backbone.output_stride)
    fit = partial(
        fit_on_grid,
        net,
        photos,
        labels,
        objective,
        how,
        schedule,
        loss_stride=grid,
        chosen=given.drawn,
    )
    found = trained(
        run,
        declared,
        net,
        fit,
        schedule,
        settings=[NetworkForm.of(net, settings), objective, how],
        inputs=inputs,
        title=title,
    )
    return Trained(segmenter_of(run, settings, net), found.stage)


def grid_crop(shapes: Sequence[tuple[int, int]], limit: int) -> tuple[int, int]:
    """Height and width of crops: ``limit`` itself where photos have room, as the paper's 321.

    321 pixels have 41 positions of stride 8, from edge to edge; 320 have 40.
    """
    height, width = np.median(np.asarray(shapes), axis=0)
    small = crop_size(shapes, limit)
    return limit if height >= limit else small[0], limit if width >= limit else small[1]


def loss_stride(crop: tuple[int, int]) -> int:
    """Pixels per position of the loss's grid, a power of 2: the paper's 8 at its crops of 321.

    Smaller photos would have fewer positions than the paper's 41 x 41, and lose their objects'
    outlines; so their grid is finer than the network's, as near to 41 positions as can be.
    """
    return 1 << max(0, round(math.log2(max(crop) / _POSITIONS)))


def _network(run: Run, settings: SegmenterForm, scale: float) -> SegmentationNet:
    """Bilinear upsampling; fc8 starts at random; photos are mirrored at their edges (F)."""
    torch.manual_seed(run.setup.execution.seed)
    backbone = run.setup.build_backbone(settings)
    margin = scale * (_TEST_SIDE - _PHOTO_SIDE) / 2
    net = SegmentationNet(
        backbone,
        len(run.photos.classes) + 1,
        width=settings.segmenter_width,
        learn_upsampling=False,
        view_scale=scale,
        margin=max(1, round(margin / backbone.output_stride)) * backbone.output_stride,
    )
    if run.setup.weights is not None:
        initialise_from_classifier(
            net, run.setup.weights.state, run.photos.classes, shared_rows=False
        )
    return net
