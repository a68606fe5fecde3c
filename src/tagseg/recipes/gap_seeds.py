"""The seeders of guided segmentation and SEC: classifiers with global average pooling."""

from __future__ import annotations

import torch

from tagseg.data.transforms import Augmentation
from tagseg.nets.gap import GapClassifier, SeederName, gap_seeder
from tagseg.recipes.base import Run
from tagseg.recipes.large_fov import LargeFovConfig
from tagseg.recipes.schedules import gap_schedule
from tagseg.recipes.stages import some_shapes, trained_classifier, view_scale
from tagseg.run.workspace import Stage

__all__ = ["seeder_side", "trained_seeder"]

_ENLARGED = 1.5
_PAPER_SIDE = 321  # pixels, for which the dilations are
_EDGES = 0.1  # of a photo, cut off each edge at most (authors' code)


def seeder_side(run: Run, config: LargeFovConfig) -> int:
    """Longer side of the photos that a seeder sees, pixels.

    The paper's 321 would be much more work than small photos are worth; at their own size, the
    maps' spots would be larger than the objects.
    """
    if config.seeder_side is not None:
        return config.seeder_side
    longest = max(map(max, some_shapes(run.photos)))
    return min(_PAPER_SIDE, round(_ENLARGED * longest))


def trained_seeder(
    run: Run, config: LargeFovConfig, seeder: SeederName
) -> tuple[GapClassifier, Stage]:
    """A seeder, trained on tags (Oh et al. 2017, 4.1 and B; input as in their code).

    Photos are brought to :func:`seeder_side`, up or down, and mirrored to a square.
    """
    photos, setup = run.photos, run.setup
    side = seeder_side(run, config)
    scale = view_scale(config, [(side, side)], reference=_PAPER_SIDE)
    torch.manual_seed(setup.execution.seed)
    net = gap_seeder(
        seeder,
        setup.backbone,
        setup.weights,
        len(photos.classes),
        width=config.classifier_width,
        view_scale=scale,
    )
    form = {"seeder": seeder, "width": net.scores.in_features, "view_scale": scale}
    how = Augmentation((side, side), letterbox="reflect", edges=_EDGES)
    schedule = gap_schedule(config, setup, len(photos))
    return trained_classifier(
        run, config, net, form, how, schedule, name="seeder", title=f"the seeder ({seeder})"
    )
