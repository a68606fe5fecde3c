"""The upper reference: the same segmenter trained on ground truth.

The one recipe that reads ground truth. What the others reach is told as a percentage of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tagseg.data.working import labels_at
from tagseg.errors import MaskError
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.losses.pixel import cross_entropy
from tagseg.maps import Labels
from tagseg.stages.context import Run
from tagseg.stages.outcome import Outcome
from tagseg.stages.predictions import final_predictions
from tagseg.stages.recipe import Recipe
from tagseg.stages.segmenter import trained_segmenter
from tagseg.stages.settings import CRF_FIELDS, MaskSettings, PyramidSettings, number
from tagseg.stages.stage import Declared, label_maps

__all__ = ["RECIPE", "Config", "check_truth", "run"]

_TRUTH = Declared("ground-truth")


@dataclass(frozen=True)
class Config(MaskSettings, PyramidSettings):
    """The shared numbers, but for the CRF's unary: a reference is to be at its best.

    -log p is usual for networks trained with cross-entropy (Chen et al. 2015); Eq. 7 of Saleh et
    al. is for probabilities that are nearly 0 or 1, and costs this one some points.
    """

    segmenter_unary: Literal["softmax", "log"] = number(
        "log",
        "Chen et al. 2015",
        "of the CRF after the segmenter: softmax of probs, or -log",
    )

    def refiners_own(self) -> tuple[str, ...]:
        """There is no other CRF."""
        return (*super().refiners_own(), *CRF_FIELDS)


def check_truth(names: Sequence[str], truth: GroundTruth) -> None:
    """Raise MaskError if one of the training photos ``names`` has no ground truth."""
    missing = [name for name in names if not truth.has(name)]
    if missing:
        raise MaskError(
            f"{len(missing)} of {len(names)} training photos have no ground truth: {missing[0]}",
            do="full_supervision needs it for every one; give --ground-truth with all masks",
        )


def run(run: Run, config: Config, truth: GroundTruth, truth_key: str) -> Outcome:
    """Cross-entropy on the ground truth of the training photos.

    Raises:
        MaskError: a mask is missing, of another size than its photo, or holds an unknown id.
    """
    photos = run.photos
    check_truth(photos.names, truth)

    def labels_of(index: int) -> Labels:
        full = truth.labels(photos.names[index], photos.full_shape(index))
        return labels_at(full, photos.image(index).shape[:2])

    labels = label_maps(run, _TRUTH, labels_of, inputs=[truth_key])
    segmenter = trained_segmenter(run, config, labels, cross_entropy, drawn=True)
    return Outcome(
        segmenter.model,
        tuple(final_predictions(run, config, segmenter.model, segmenter)),
        curves=(segmenter.stage,),
    )


RECIPE = Recipe(
    "full_supervision",
    "reference: full supervision, the upper bound of every weakly supervised recipe",
    Config,
    run,
    check_truth=check_truth,
)
