"""The seeders of guided segmentation and SEC: classifiers with global average pooling."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tagseg.data.transforms import Augmentation
from tagseg.maps import ScoreMap
from tagseg.nets.gap import GapClassifier, SeederName, gap_seeder
from tagseg.run.workspace import Stage
from tagseg.stages.classifier import location_maps, trained_classifier
from tagseg.stages.config import LargeFovConfig
from tagseg.stages.context import Run, Split
from tagseg.stages.outcome import Seeds, TagScores
from tagseg.stages.products import classifier_outcome, show_maps
from tagseg.stages.schedules import gap_schedule
from tagseg.stages.shapes import some_shapes, view_scale

__all__ = ["SeederMaps", "seeder_side", "trained_seeder"]

_ENLARGED = 1.5


_PAPER_SIDE = 321  # pixels, for which the dilations are


_EDGES = 0.1  # of a photo, cut off each edge at most (authors' code)


class SeederMaps:
    """A trained seeder and its class activation maps (Oh et al. 2017, 4).

    Args:
        seeder: which of the four networks.
        threshold: part of a map's maximum over which a pixel is a seed, for the report.

    Attributes:
        side: longer side of the photos that it sees, pixels.
        seeder, curve: the network, and the stage that logged its training.
        scores_of, stage: its maps of the training photos.
        view: of these maps, for the gallery.
    """

    def __init__(
        self, run: Run, config: LargeFovConfig, seeder: SeederName, threshold: float
    ) -> None:
        self.run, self.config, self.side = run, config, seeder_side(run, config)
        self.title, self.threshold = f"seeder ({seeder})", threshold
        self.seeder, self.curve = trained_seeder(run, config, seeder)
        self.scores_of, self.stage = self.maps_of("train")
        self.view = ("seeder's class maps", show_maps(run.photos, self.scores_of))

    @property
    def seeds(self) -> tuple[Seeds, ...]:
        """The maps, to be scored."""
        return (Seeds(self.title, self.threshold, self.maps_of),)

    @property
    def tag_scores(self) -> TagScores | None:
        """The seeder's own, of validation photos."""
        return classifier_outcome(self.run, self.seeder, side=self.side)

    def maps_of(self, split: Split) -> tuple[Callable[[int], ScoreMap], Stage]:
        """The seeder's class maps of the photos' known tags."""
        return location_maps(
            self.run,
            self.config,
            self.seeder,
            self.curve,
            split=split,
            side=self.side,
        )


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
