"""Masks that get finer round by round (Jing et al. III-D, IV-B and IV-D.2).

A network learns from the masks of all photos; what it answers, cut to the photo's own category and
by GrabCut again, is what the next round learns from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tagseg.data.transforms import Augmentation
from tagseg.errors import TrainingError
from tagseg.fuse.one_label import has_usable_foreground, of_category, one_label
from tagseg.iterate import iterate
from tagseg.maps import BACKGROUND, IGNORE, Image, Labels, Probs
from tagseg.recipes.coarse_to_fine.config import RecursionConfig
from tagseg.recipes.coarse_to_fine.masks import FirstMasks, Target
from tagseg.refine.grabcut import enhanced_mask
from tagseg.run.workspace import Stage
from tagseg.segment.fit import fit_on_grid
from tagseg.segment.predict import Segmenter
from tagseg.stages.context import Run
from tagseg.stages.labels import LabelMaps
from tagseg.stages.large_fov import grid_cross_entropy, loss_stride
from tagseg.stages.outcome import Outcome, Product, Progression, RoundProducts
from tagseg.stages.products import segmenter_products, show_map
from tagseg.stages.rounds import agreement_of, network_masks, validation_products
from tagseg.stages.schedules import aspp_schedule, shortened
from tagseg.stages.segmenter import segmenter_of
from tagseg.stages.shapes import some_shapes, view_scale
from tagseg.stages.trained import trained

__all__ = ["Recursed", "Refined", "outcome_of", "recursion", "refined_segmenter", "updated_masks"]


class Refined(NamedTuple):
    """What a round gave: the network, and the masks that the next one learns from."""

    segmenter: Segmenter
    stage: Stage
    masks: LabelMaps


class Recursed(NamedTuple):
    """The last round, what there is to show of all, and the stages that logged a training."""

    last: Refined
    progression: Progression
    curves: list[Stage]


def recursion(run: Run, config: RecursionConfig, target: Target, masks: LabelMaps) -> Recursed:
    """Rounds of learning from masks and predicting better ones (III-D, IV-D.2)."""

    def round_of(number: int, before: Refined | None) -> Refined:
        labels = masks if before is None else before.masks
        warm = config.start == "warm" and before is not None
        segmenter, stage = refined_segmenter(
            run,
            config,
            target,
            labels,
            name=f"{target.form}-{number}",
            title=f"the segmenter, round {number}",
            part=config.part_of(number),
            start=(before.segmenter, before.stage) if warm and before is not None else None,
        )
        after = updated_masks(run, config, target, segmenter, stage, name=f"masks-{number}")
        return Refined(segmenter, stage, after)

    def agreed(number: int, before: Refined, after: Refined) -> float:
        return agreement_of(run, number, before.masks, after.masks)

    rounds, curves = [], []
    for entry in iterate(round_of, agreed, config.stop_rule()):
        found, title = entry.result, f"masks of the photos, round {entry.number}"
        of_round = [
            Product(title, "train", found.masks, (found.masks.stage,), target.by_class),
            *validation_products(
                run, found.segmenter, found.stage, entry.number, "segmenter", target.by_class
            ),
        ]
        rounds.append(RoundProducts(entry.number, entry.agreement, tuple(of_round)))
        curves.append(found.stage)
    return Recursed(found, Progression(tuple(rounds), entry.ending), curves)


def outcome_of(
    run: Run,
    config: RecursionConfig,
    target: Target,
    masks: FirstMasks,
    rounds: Recursed,
    curves: Sequence[Stage] = (),
) -> Outcome:
    """The last round's network, and all there is to show; ``curves`` of trainings before it."""
    last, progression = rounds.last, rounds.progression
    final = segmenter_products(run, config, last.segmenter, last.stage, by_class=target.by_class)
    return Outcome(
        last.segmenter,
        (
            *masks.products(target),
            *(product for of_round in progression.rounds for product in of_round.products),
            *final,
        ),
        views=(("coarse mask", show_map(run.photos, masks.soft_of)),),
        curves=(*curves, *rounds.curves),
        progression=progression,
    )


def refined_segmenter(
    run: Run,
    config: RecursionConfig,
    target: Target,
    masks: LabelMaps,
    *,
    name: str = "segmenter",
    title: str = "the segmenter",
    part: float = 1.0,
    start: tuple[Segmenter, Stage] | None = None,
) -> tuple[Segmenter, Stage]:
    """A network trained on the photos whose ``masks`` may take part (III-D, IV-B).

    Photos are squeezed to a square and cropped, as published; photos smaller than that square keep
    their size, to within a pixel, and crops of them are smaller by as much.

    Args:
        name, title: of the stage, and of its progress bar.
        part: of the schedule's iterations.
        start: a network to go on from; None starts from the backbone's weights.
    """
    photos, setup = run.photos, run.setup
    chosen = _taking_part(run, config, target, masks, name=f"{name}-photos", title=title)
    schedule = aspp_schedule(config, setup, int(np.count_nonzero(target.labels)))
    schedule = shortened(schedule, part)
    shapes = some_shapes(photos)
    how = _squeezed_crops(shapes, config)
    torch.manual_seed(setup.execution.seed)
    scale = view_scale(config, shapes)
    net = target.network(scale)
    inputs: list[Stage | str] = [masks.stage, run.photos_key]
    if start is not None:
        inputs.append(start[1])
        net.load_state_dict(start[0].net.state_dict())
    grid = min(loss_stride(how.size), net.coarse_stride)
    made_from = {
        **setup.settings(),
        "photo_side": config.photo_side,
        "form": target.form,
        "output_stride": net.backbone.output_stride,
        "view_scale": scale,
        "width": config.segmenter_width,
        "loss_stride": grid,
        "augmentation": asdict(how),
        "chosen": chosen.tolist(),
    }
    fit = partial(
        fit_on_grid,
        net,
        photos,
        masks,
        grid_cross_entropy,
        how,
        schedule,
        loss_stride=grid,
        chosen=chosen,
    )
    stage = trained(run, name, title, net, fit, schedule, made_from, inputs, tensors="segmenter")
    return segmenter_of(run, config, net, target.classes), stage


def updated_masks(
    run: Run,
    config: RecursionConfig,
    target: Target,
    segmenter: Segmenter,
    after: Stage,
    *,
    name: str,
) -> LabelMaps:
    """What the next round learns from: the network's answers, after rule b and GrabCut (IV-D.2)."""
    settings = config.grabcut()

    def update(index: int, image: Image, probs: Probs) -> Labels:
        labels = probs.argmax(0).astype(np.uint8)
        label = int(target.labels[index])
        if label == BACKGROUND:
            return np.full_like(labels, IGNORE)
        if config.between == "nothing":
            return labels
        own = of_category(labels, label)
        if config.between == "grabcut":
            own = enhanced_mask(image, own.astype(np.float32), settings)
        return one_label(own, label)

    made_from: dict[str, Any] = {"between": config.between, "labels": target.labels.tolist()}
    if config.between == "grabcut":
        made_from["grabcut"] = asdict(settings)
    return network_masks(run, segmenter, after, update, made_from, name=name)


def _taking_part(
    run: Run, config: RecursionConfig, target: Target, masks: LabelMaps, *, name: str, title: str
) -> npt.NDArray[np.intp]:
    """Photos with a label and with enough, but not too much, foreground (rule a)."""
    labelled = np.flatnonzero(target.labels)
    if config.between == "nothing":
        return labelled
    limits = config.foreground_limits
    with run.stage(name, {"limits": list(limits)}, [masks.stage]) as stage:
        if stage.pending:
            found = [int(i) for i in labelled if has_usable_foreground(masks(int(i)), limits)]
            stage.save_json("photos", found)
    chosen = np.array(stage.load_json("photos"), np.intp)
    if chosen.size == 0:
        raise TrainingError(
            f"of {len(labelled)} masks for {title} none has {100 * limits[0]:g} % to "
            f"{100 * limits[1]:g} % foreground",
            do="look at the masks before, or widen foreground_limits",
        )
    return chosen


def _squeezed_crops(shapes: list[tuple[int, int]], config: RecursionConfig) -> Augmentation:
    """Photos at 321 x 321, or their median size where that is less, and crops of 256 / 321 of it.

    IV-B: "each image is resized to 321 x 321, then random cropped to the size of 256 x 256". A
    random factor on that size, as DeepLab-v2 has it (0.5 to 1.5), is left to ``resize_range``.
    """
    part = config.segmenter_crop / config.resize
    medians = np.median(np.asarray(shapes), axis=0)
    height, width = (max(1, round(part * min(config.resize, side))) for side in medians)
    least, most = config.resize_range
    return Augmentation((height, width), stretch=True, scale=(least / part, most / part))
