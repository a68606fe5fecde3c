"""DeepLab-LargeFOV (v1) as guided segmentation and SEC train it: on its own grid.

Chen et al., ICLR 2015; Oh et al. 2017, 6.1 and F. Unlike the segmenter of the other recipes it
learns no upsampling: labels come to the network's grid, not scores to the labels' pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tagseg.data.transforms import Augmentation, crop_size
from tagseg.losses.pixel import pixel_loss
from tagseg.maps import Labels
from tagseg.nets.deeplab import SegmentationNet, initialise_from_classifier
from tagseg.run.workspace import Stage
from tagseg.segment.fit import GridBatch, GridObjective, fit_on_grid
from tagseg.segment.predict import Segmenter
from tagseg.stages.config import TrainingConfig
from tagseg.stages.context import Run
from tagseg.stages.schedules import large_fov_schedule, shortened
from tagseg.stages.segmenter import segmenter_of
from tagseg.stages.shapes import some_shapes, view_scale
from tagseg.stages.trained import trained

__all__ = ["grid_crop", "grid_cross_entropy", "large_fov_segmenter", "loss_stride"]

_POSITIONS = 41  # a side, of the paper's grid


_TEST_SIDE, _PHOTO_SIDE = 531, 500  # pixels: photos are mirrored to the one from the other


def grid_cross_entropy(scores: Tensor, on_grid: GridBatch) -> Tensor:
    """Mean cross-entropy over the grid's labelled positions."""
    return pixel_loss(scores, on_grid.labels)


def large_fov_segmenter(
    run: Run,
    config: TrainingConfig,
    targets: Callable[[int], Labels],
    inputs: Sequence[Stage | str],
    *,
    objective: GridObjective = grid_cross_entropy,
    objective_name: str = "cross-entropy on the grid",
    whole: bool = False,
    name: str = "segmenter",
    title: str = "the segmenter",
    part: float = 1.0,
    start: tuple[Segmenter, Stage] | None = None,
) -> tuple[Segmenter, Stage]:
    """The segmenter, trained on ``targets`` with ``objective`` (Oh et al. 2017, 6.1 and F).

    On crops that are not resized; or on ``whole`` photos that are, for objectives to which the
    photo's tags must hold.

    Args:
        name, title: of the stage, and of its progress bar.
        part: of the schedule's iterations.
        start: a segmenter to go on from; None starts from the backbone's weights.
    """
    photos, setup = run.photos, run.setup
    schedule = shortened(large_fov_schedule(config, setup, len(photos)), part)
    shapes = some_shapes(photos)
    how = Augmentation(grid_crop(shapes, config.segmenter_crop), stretch=whole)
    net = _network(run, config, view_scale(config, shapes))
    if start is not None:
        inputs = [*inputs, start[1]]
        net.load_state_dict(start[0].net.state_dict())
    grid = min(loss_stride(how.size), net.backbone.output_stride)
    made_from = {
        **setup.settings(),
        "photo_side": config.photo_side,
        "output_stride": net.backbone.output_stride,
        "form": "large_fov",
        "view_scale": net.view_scale,
        "width": net.fc6.out_channels,
        "objective": objective_name,
        "loss_stride": grid,
        "augmentation": asdict(how),
    }
    fit = partial(fit_on_grid, net, photos, targets, objective, how, schedule, loss_stride=grid)
    stage = trained(
        run,
        name,
        title,
        net,
        fit,
        schedule,
        made_from,
        [run.photos_key, *inputs],
        tensors="segmenter",
    )
    return segmenter_of(run, config, net), stage


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


def _network(run: Run, config: TrainingConfig, scale: float) -> SegmentationNet:
    """Bilinear upsampling; fc8 starts at random; photos are mirrored at their edges (F)."""
    torch.manual_seed(run.setup.execution.seed)
    backbone = run.setup.build_backbone(config)
    margin = scale * (_TEST_SIDE - _PHOTO_SIDE) / 2
    net = SegmentationNet(
        backbone,
        len(run.photos.classes) + 1,
        width=config.segmenter_width,
        learn_upsampling=False,
        view_scale=scale,
        margin=max(1, round(margin / backbone.output_stride)) * backbone.output_stride,
    )
    if run.setup.weights is not None:
        initialise_from_classifier(
            net, run.setup.weights.state, run.photos.classes, shared_rows=False
        )
    return net
