"""What recipes have to show: predictions to be scored, and pictures of intermediate maps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from torch import nn

from tagseg.maps import Image, Probs
from tagseg.nets.gap import GapClassifier
from tagseg.report.figures import colour_map
from tagseg.segment.predict import Segmenter
from tagseg.stages.classifier import classifier_scores, location_maps
from tagseg.stages.context import Run, Split
from tagseg.stages.outcome import Prediction, Seeds, TagScores, View
from tagseg.stages.segmenter import photo_masks, predicted
from tagseg.stages.settings import CamSettings, WorkSettings
from tagseg.stages.stage import Input, SaliencyMaps, ScoreMaps, Trained

__all__ = [
    "cam_seeds",
    "classifier_outcome",
    "final_predictions",
    "round_predictions",
    "show_map",
    "show_maps",
]


def final_predictions(
    run: Run,
    settings: WorkSettings,
    segmenter: Segmenter,
    after: Input,
    probabilities: Callable[[int], Probs] | None = None,
    *,
    title: str = "segmenter",
    by_class: bool = True,
) -> list[Prediction]:
    """Final masks of the training photos; labels of the validation photos, without tags.

    ``probabilities`` of the training photos may be given if they are there already; ``title`` is
    what the report calls the segmenter; ``by_class`` is as in :class:`Prediction`.
    """
    masks = photo_masks(run, settings, segmenter, after, probabilities, by_class=by_class)
    title_of_masks = _title_of_masks(run, settings)
    final = [Prediction.of("masks", title_of_masks, "train", masks, by_class=by_class)]
    if run.val is None:
        return final
    raw, refined, suffix = predicted(run, segmenter, after)
    final.append(Prediction.of("segmenter", title, "val", raw, by_class=by_class))
    if refined is not None:
        of_both = f"{title}{suffix}"
        final.append(Prediction.of("refined", of_both, "val", refined, by_class=by_class))
    return final


def round_predictions(
    run: Run, segmenter: Trained[Segmenter], number: int, title: str, by_class: bool = True
) -> list[Prediction]:
    """What the network of round ``number`` makes of the validation photos, if there are any."""
    if run.val is None:
        return []
    of_round = predicted(run, segmenter.model, segmenter, number=number)
    return [
        Prediction.of(
            "segmenter",
            f"{title}{of_round.suffix}, round {number}",
            "val",
            of_round.best,
            by_class=by_class,
            number=number,
        )
    ]


def _title_of_masks(run: Run, settings: WorkSettings) -> str:
    """As the report calls the final masks: with how many of them a person made, if any."""
    said = ["known tags"] if settings.of_masks().masks_by_tags else []
    if run.review is not None and run.review.accepted:
        said.append(f"{len(run.review.accepted)} accepted by a person")
    return "masks of the photos" + (f" ({'; '.join(said)})" if said else "")


def classifier_outcome(
    run: Run, classifier: nn.Module, *, side: int | None = None
) -> TagScores | None:
    """Class probabilities (N, C) of the validation photos when asked for; None without any.

    The classifier sees photos of the longer side ``side``, or at working size.
    """
    if run.val is None:
        return None
    return partial(classifier_scores, run, classifier, run.val, side=side)


def cam_seeds(
    run: Run, settings: CamSettings, classifier: Trained[GapClassifier], threshold: float
) -> Seeds:
    """Class activation maps of the known tags, to be scored."""

    def maps_of(split: Split) -> ScoreMaps:
        return location_maps(run, settings, classifier, split=split)

    return Seeds("cam", "class activation maps", threshold, maps_of)


def show_maps(maps: ScoreMaps) -> View:
    """Heat of the strongest present class."""

    def show(index: int) -> Image:
        scores = maps(index)
        return colour_map(scores.max(0) if len(scores) else np.zeros(scores.shape[1:], np.float32))

    return show


def show_map(maps: SaliencyMaps) -> View:
    """Heat of one map."""
    return lambda index: colour_map(maps(index))
