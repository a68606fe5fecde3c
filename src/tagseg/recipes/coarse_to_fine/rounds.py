"""Masks that get finer round by round (Jing et al. III-D, IV-B and IV-D.2).

A network learns from the masks of all photos; what it answers, cut to the photo's own category and
by GrabCut again, is what the next round learns from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tagseg.data.transforms import Augmentation
from tagseg.errors import TrainingError
from tagseg.fuse.one_label import has_usable_foreground, of_category, one_label
from tagseg.iterate import iterate
from tagseg.maps import BACKGROUND, IGNORE, Image, Labels, Probs
from tagseg.recipes.coarse_to_fine.config import BetweenSettings, RecursionConfig, TakingPart
from tagseg.recipes.coarse_to_fine.masks import FirstMasks, Target
from tagseg.refine.grabcut import enhanced_mask
from tagseg.run.workspace import Stage
from tagseg.segment.fit import fit_on_grid
from tagseg.segment.predict import Segmenter
from tagseg.stages.context import Run
from tagseg.stages.large_fov import grid_cross_entropy, loss_stride
from tagseg.stages.outcome import Outcome, Prediction, Progression, RoundPredictions
from tagseg.stages.predictions import final_predictions, round_predictions, show_map
from tagseg.stages.reviewed import drawn_photos, reviewed_labels
from tagseg.stages.rounds import agreement_of, network_masks
from tagseg.stages.schedules import aspp_schedule, shortened
from tagseg.stages.segmenter import segmenter_of
from tagseg.stages.shapes import NetworkForm, some_shapes, view_scale
from tagseg.stages.stage import Declared, Input, LabelMaps, Trained, found, trained
from tagseg.stages.tag_doubts import sure_labels

__all__ = ["Recursed", "Refined", "outcome_of", "recursion", "refined_segmenter", "updated_masks"]

_SEGMENTER = Declared("segmenter", weights="segmenter")


class Refined(NamedTuple):
    """What a round gave: the network, and the masks that the next one learns from."""

    segmenter: Trained[Segmenter]
    masks: LabelMaps


class Recursed(NamedTuple):
    """The last round, what there is to show of all, and the stages that logged a training."""

    last: Refined
    progression: Progression
    curves: list[Stage]


def recursion(run: Run, config: RecursionConfig, target: Target, masks: LabelMaps) -> Recursed:
    """Rounds of learning from masks and predicting better ones (III-D, IV-D.2)."""

    def round_of(number: int, before: Refined | None) -> Refined:
        warm = config.start == "warm" and before is not None
        segmenter = refined_segmenter(
            run,
            config,
            target,
            masks if before is None else before.masks,
            declared=Declared(target.form, weights="segmenter").round(number),
            title=f"the segmenter, round {number}",
            fraction=config.fraction_of(number),
            start=before.segmenter if warm and before is not None else None,
            filtered=config.filter_first or before is not None,
        )
        return Refined(segmenter, updated_masks(run, config, target, segmenter, number))

    def agreed(number: int, before: Refined, after: Refined) -> float:
        return agreement_of(run, number, before.masks, after.masks)

    rounds, curves = [], []
    for entry in iterate(round_of, agreed, config.stop_rule()):
        last, number = entry.result, entry.number
        rounds.append(RoundPredictions(number, entry.agreement, shown(run, number, target, last)))
        curves.append(last.segmenter.stage)
    return Recursed(last, Progression(tuple(rounds), entry.ending), curves)


def shown(run: Run, number: int, target: Target, of: Refined) -> tuple[Prediction, ...]:
    """A round's masks, and what its network makes of photos unseen."""
    title, by_class = f"masks of the photos, round {number}", target.by_class
    masks = Prediction.of("round-masks", title, "train", of.masks, by_class=by_class, number=number)
    return (masks, *round_predictions(run, of.segmenter, number, "segmenter", by_class))


def outcome_of(
    run: Run,
    config: RecursionConfig,
    target: Target,
    masks: FirstMasks,
    progression: Progression,
    net: Trained[Segmenter],
    curves: Sequence[Stage],
) -> Outcome:
    """The network that is left, and all there is to show; ``curves`` of all trainings."""
    return Outcome(
        net.model,
        (
            *masks.predictions(target),
            *(prediction for each in progression.rounds for prediction in each.predictions),
            *final_predictions(run, config, net.model, net, by_class=target.by_class),
        ),
        views=(("coarse mask", show_map(masks.soft)),),
        curves=tuple(curves),
        progression=progression,
    )


def refined_segmenter(
    run: Run,
    config: RecursionConfig,
    target: Target,
    masks: LabelMaps,
    *,
    declared: Declared = _SEGMENTER,
    title: str = "the segmenter",
    fraction: float = 1.0,
    start: Trained[Segmenter] | None = None,
    filtered: bool = True,
) -> Trained[Segmenter]:
    """A network trained on the photos whose ``masks`` may take part (III-D, IV-B).

    Photos are squeezed to a square and cropped, as published; photos smaller than that square keep
    their size, to within a pixel, and crops of them are smaller by as much.

    Args:
        declared, title: of the stage, and of its progress bar.
        fraction: of the schedule's iterations.
        start: a network to go on from; None starts from the backbone's weights.
        filtered: whether rule a leaves photos out.
    """
    photos, setup = run.photos, run.setup
    masks = sure_labels(run, config, masks)
    prefix = "" if declared == _SEGMENTER else f"{declared.name}-"
    labels = reviewed_labels(run, masks, prefix=prefix, by_class=target.by_class)
    inputs: list[Input] = [labels]
    chosen = np.flatnonzero(target.labels)
    if filtered and config.between != "nothing":
        chosen = _taking_part(run, config, target, masks, declared, title)
    chosen = _with_accepted(run, chosen)
    schedule = aspp_schedule(config, setup, int(np.count_nonzero(target.labels)))
    schedule = shortened(schedule, fraction)
    shapes = some_shapes(photos)
    how, crop = _squeezed_crops(shapes, config)
    torch.manual_seed(setup.execution.seed)
    net = target.network(view_scale(config, shapes))
    if start is not None:
        inputs.append(start)
        net.load_state_dict(start.model.net.state_dict())
    grid = min(loss_stride(crop), net.coarse_stride)
    loss = grid_cross_entropy
    fit = partial(
        fit_on_grid, net, photos, labels, loss, how, schedule, loss_stride=grid, chosen=chosen
    )
    network = trained(
        run,
        declared,
        net,
        fit,
        schedule,
        settings=[NetworkForm.of(net, config), how, _Chosen.of(chosen)],
        inputs=inputs,
        title=title,
    )
    return Trained(segmenter_of(run, config, net, target.classes), network.stage)


@dataclass(frozen=True)
class _Chosen:
    """The photos that a network learns from: how many, and the hash of which."""

    photos: int
    digest: str

    @classmethod
    def of(cls, chosen: npt.NDArray[np.intp]) -> _Chosen:
        content = chosen.astype(np.int64).tobytes()
        return cls(len(chosen), hashlib.blake2b(content, digest_size=16).hexdigest())


def updated_masks(
    run: Run, config: RecursionConfig, target: Target, segmenter: Trained[Segmenter], number: int
) -> LabelMaps:
    """What the next round learns from: the network's answers, after rule b and GrabCut (IV-D.2)."""
    settings, grabcut = config.only(BetweenSettings), config.grabcut()

    def update(index: int, image: Image, probs: Probs) -> Labels:
        labels = probs.argmax(0).astype(np.uint8)
        label = int(target.labels[index])
        if label == BACKGROUND:
            return np.full_like(labels, IGNORE)
        if settings.between == "nothing":
            return labels
        own = of_category(labels, label)
        if settings.between == "grabcut":
            own = enhanced_mask(image, own.astype(np.float32), grabcut)
        return one_label(own, label)

    decided_by = [target.shown, settings, *([grabcut] if settings.between == "grabcut" else [])]
    return network_masks(run, segmenter, update, decided_by, number)


def _taking_part(
    run: Run,
    config: RecursionConfig,
    target: Target,
    masks: LabelMaps,
    declared: Declared,
    title: str,
) -> npt.NDArray[np.intp]:
    """Photos with a label and with enough, but not too much, foreground (rule a)."""
    labelled = np.flatnonzero(target.labels)
    settings = config.only(TakingPart)
    limits = settings.foreground_limits

    def usable() -> list[int]:
        return [int(i) for i in labelled if has_usable_foreground(masks(int(i)), limits)]

    kept = found(
        run,
        Declared(f"{declared.name}-photos"),
        usable,
        planned=labelled.tolist(),
        settings=[settings],
        inputs=[masks],
    )
    chosen = np.array(kept.value, np.intp)
    if chosen.size == 0:
        raise TrainingError(
            f"of {len(labelled)} masks for {title} none has {100 * limits[0]:g} % to "
            f"{100 * limits[1]:g} % foreground",
            do="look at the masks before, or widen foreground_limits",
        )
    return chosen


def _with_accepted(run: Run, chosen: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Those and all photos of which a person accepted a mask, whatever rule a says of it."""
    if run.review is not None:
        chosen = np.union1d(chosen, np.fromiter(run.review.accepted, np.intp))
    return drawn_photos(run, chosen, by_tags=False)


def _squeezed_crops(
    shapes: list[tuple[int, int]], config: RecursionConfig
) -> tuple[Augmentation, tuple[int, int]]:
    """Photos at 321 x 321, or their median size where that is less, and crops of 256 / 321 of it.

    And the size of the crops.

    IV-B: "each image is resized to 321 x 321, then random cropped to the size of 256 x 256". A
    random factor on that size, as DeepLab-v2 has it (0.5 to 1.5), is left to ``resize_range``.
    """
    part = config.segmenter_crop / config.resize
    medians = np.median(np.asarray(shapes), axis=0)
    height, width = (max(1, round(part * min(config.resize, side))) for side in medians)
    least, most = config.resize_range
    crop = height, width
    return Augmentation(crop, stretch=True, scale=(least / part, most / part)), crop
