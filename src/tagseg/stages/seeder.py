"""The seeders of guided segmentation and SEC: classifiers with global average pooling."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from tagseg.data.transforms import Augmentation
from tagseg.localize.classifier import train_tag_classifier
from tagseg.nets.gap import GapClassifier, SeederName, gap_seeder
from tagseg.stages.classifier import location_maps
from tagseg.stages.context import Run, Split, fine_tuned
from tagseg.stages.outcome import Seeds, TagScores
from tagseg.stages.predictions import classifier_outcome, show_maps
from tagseg.stages.schedules import gap_schedule
from tagseg.stages.settings import CamSettings, SeederSettings
from tagseg.stages.shapes import some_shapes, view_scale
from tagseg.stages.stage import Declared, Plain, ScoreMaps, Trained, trained
from tagseg.stages.tag_teaching import taught_tags

__all__ = ["SeederMaps", "SeedingSettings", "seeder_side", "trained_seeder"]

_SEEDER = Declared("seeder", weights="classifier")
_ENLARGED = 1.5


_PAPER_SIDE = 321  # pixels, for which the dilations are


_EDGES = 0.1  # of a photo, cut off each edge at most (authors' code)


@dataclass(frozen=True)
class SeedingSettings(SeederSettings, CamSettings):
    """A seeder and how its maps are averaged."""


class SeederMaps:
    """A trained seeder and its class activation maps (Oh et al. 2017, 4).

    Args:
        seeder: which of the four networks.
        threshold: fraction of a map's maximum over which a pixel is a seed, for the report.

    Attributes:
        side: longer side of the photos that it sees, pixels.
        seeder: the network.
        maps: its maps of the training photos.
        view: of these maps, for the gallery.
    """

    def __init__(self, run: Run, settings: SeedingSettings, seeder: SeederName, threshold: float):
        self.run, self.settings, self.side = run, settings, seeder_side(run, settings)
        self.title, self.threshold = f"seeder ({seeder})", threshold
        self.seeder = trained_seeder(run, settings, seeder)
        self.maps = self.maps_of("train")
        self.view = ("seeder's class maps", show_maps(self.maps))

    @property
    def seeds(self) -> tuple[Seeds, ...]:
        """The maps, to be scored."""
        return (Seeds("seeder", self.title, self.threshold, self.maps_of),)

    @property
    def tag_scores(self) -> TagScores | None:
        """The seeder's own, of validation photos."""
        return classifier_outcome(self.run, self.seeder.model, side=self.side)

    def maps_of(self, split: Split) -> ScoreMaps:
        """The seeder's class maps of the photos' known tags."""
        return location_maps(self.run, self.settings, self.seeder, split=split, side=self.side)


def seeder_side(run: Run, settings: SeederSettings) -> int:
    """Longer side of the photos that a seeder sees, pixels.

    The paper's 321 would be much more work than small photos are worth; at their own size, the
    maps' spots would be larger than the objects.
    """
    if settings.seeder_side is not None:
        return settings.seeder_side
    longest = max(map(max, some_shapes(run.photos)))
    return min(_PAPER_SIDE, round(_ENLARGED * longest))


def trained_seeder(
    run: Run, settings: SeederSettings, seeder: SeederName
) -> Trained[GapClassifier]:
    """A seeder, trained on tags (Oh et al. 2017, 4.1 and B; input as in their code).

    Photos are brought to :func:`seeder_side`, up or down, and mirrored to a square.
    """
    photos, setup = run.photos, run.setup
    side = seeder_side(run, settings)
    torch.manual_seed(setup.execution.seed)
    net = gap_seeder(
        seeder,
        setup.backbone,
        setup.weights,
        len(photos.classes),
        width=settings.classifier_width,
        view_scale=view_scale(settings, [(side, side)], reference=_PAPER_SIDE),
    )
    fine_tuned(net.backbone, settings)
    how = Augmentation((side, side), letterbox="reflect", edges=_EDGES)
    schedule = gap_schedule(settings, setup, len(photos))
    taught = taught_tags(run, settings)
    form = _Form(seeder, settings.classifier_width, settings.scale_field_of_view)
    found = trained(
        run,
        _SEEDER,
        net,
        partial(train_tag_classifier, net, photos, how, schedule, teaching=taught.teaching),
        schedule,
        settings=[form, how, *taught.decided_by],
        inputs=taught.inputs,
        title=f"the seeder ({seeder})",
    )
    found.model.eval()
    return found


@dataclass(frozen=True)
class _Form(Plain):
    """What decides on a seeder's network."""

    seeder: SeederName
    classifier_width: int | None
    scale_field_of_view: bool
