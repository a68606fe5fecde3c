"""The lower reference: a segmenter trained on thresholded score maps, "seeds only".

The maps are class activation maps, or those of any other localizer of that name.
"""

from __future__ import annotations

from dataclasses import dataclass

from tagseg.fuse.seed_labels import cam_labels
from tagseg.losses.pixel import cross_entropy
from tagseg.maps import Labels
from tagseg.stages.context import Run
from tagseg.stages.localizers import localized
from tagseg.stages.outcome import Outcome, Prediction, Seeds
from tagseg.stages.predictions import final_predictions, show_maps
from tagseg.stages.recipe import Recipe
from tagseg.stages.segmenter import trained_segmenter
from tagseg.stages.settings import (
    CRF_FIELDS,
    LocalizerSettings,
    MaskSettings,
    PyramidSettings,
    Settings,
    number,
)
from tagseg.stages.stage import Declared, label_maps
from tagseg.stages.tag_doubts import sure_labels

__all__ = ["RECIPE", "Config", "run"]

_SEEDS = Declared("seeds")


@dataclass(frozen=True)
class SeedSettings(Settings):
    """How score maps become seeds."""

    cam_threshold: float = number(
        0.2,
        "Oh et al., code",
        "argmax class where its map is over this fraction of its maximum",
        above=0,
        at_most=1,
    )


@dataclass(frozen=True)
class Config(MaskSettings, PyramidSettings, SeedSettings, LocalizerSettings):
    """The shared numbers and the threshold."""

    def refiners_own(self) -> tuple[str, ...]:
        """There is no other CRF."""
        return (*super().refiners_own(), *CRF_FIELDS)


def run(run: Run, config: Config) -> Outcome:
    """Score maps, threshold, cross-entropy."""
    photos, threshold = run.photos, config.cam_threshold
    found = localized(run, config)
    maps = found.maps_of("train")

    def seeds_of(index: int) -> Labels:
        return cam_labels(maps(index), photos.tags[index], threshold=threshold)

    seeds = label_maps(run, _SEEDS, seeds_of, settings=[config.only(SeedSettings)], inputs=[maps])
    segmenter = trained_segmenter(run, config, sure_labels(run, config, seeds), cross_entropy)
    return Outcome(
        segmenter.model,
        (
            Prediction.of("seeds", f"{found.short} seeds", "train", seeds),
            *final_predictions(run, config, segmenter.model, segmenter),
        ),
        views=((found.title, show_maps(maps)),),
        tag_scores=found.tag_scores,
        curves=(*found.curves, segmenter.stage),
        seeds=(Seeds(found.id, found.title, threshold, found.maps_of),),
    )


RECIPE = Recipe(
    "cam_baseline",
    "reference: Zhou, Khosla, Lapedriza, Oliva, Torralba: Learning Deep Features for "
    "Discriminative Localization, CVPR 2016; thresholded as seeds",
    Config,
    run,
)
