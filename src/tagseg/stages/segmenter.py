"""The segmenter: its training, its predictions and the photos' masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tagseg.data.masks import decode_mask, encode_mask
from tagseg.data.transforms import Augmentation, crop_size
from tagseg.data.working import argmax_at
from tagseg.maps import Image, Labels, Probs, labels_of_tags
from tagseg.nets.deeplab import (
    IMAGENET_ROWS,
    FieldOfView,
    SegmentationNet,
    initialise_from_classifier,
)
from tagseg.run.engine import map_photos
from tagseg.run.mask_files import MaskFiles, are_sharded
from tagseg.run.work import folder_of_pngs
from tagseg.segment.fit import Objective, fit_segmenter
from tagseg.segment.predict import Known, Segmenter
from tagseg.stages.context import Run
from tagseg.stages.crf import Regions
from tagseg.stages.priors import PhotoRegions, photo_regions
from tagseg.stages.pyramid_segmenter import pyramid_segmenter
from tagseg.stages.refiners import Refinement, find_refiner, refiner_from
from tagseg.stages.review import foreground_of
from tagseg.stages.reviewed import Taught, taught
from tagseg.stages.schedules import segmenter_schedule
from tagseg.stages.settings import MaskSettings, PyramidSettings, WorkSettings
from tagseg.stages.shapes import NetworkForm, some_shapes, view_scale
from tagseg.stages.stage import (
    Declared,
    Images,
    Input,
    InTwo,
    LabelMaps,
    Once,
    PhotoMaps,
    Plain,
    Trained,
    per_batch,
    trained,
)
from tagseg.stages.tag_doubts import allowed_tags
from tagseg.tar_members import read_file

__all__ = [
    "Predicted",
    "photo_masks",
    "predicted",
    "refined_by_tags",
    "segmenter_of",
    "trained_segmenter",
    "with_refiner",
]

Teaches = Literal["classes", "foreground", "nothing"]

_SEGMENTER = Declared("segmenter", weights="segmenter")
_PREDICTIONS = Declared("predictions", val_alone=True, title="segmenting the validation photos")
_MASKS = Declared("masks", title="masks of the training photos")
_FILES = "masks"  # the folder of them


def trained_segmenter(
    run: Run,
    settings: WorkSettings,
    targets: LabelMaps,
    objective: Objective,
    *,
    field_of_view: FieldOfView = "large",
    drawn: bool = False,
    prefix: str = "",
    teaches: Teaches = "classes",
    whole: bool = False,
) -> Trained[Segmenter]:
    """The segmenter, trained on ``targets`` with ``objective`` (Saleh et al. 3.2 and 4.2.1).

    Where ``segmenter=pyramid`` is configured it is that one, with its own loss on the labels.

    Args:
        objective: a frozen dataclass, whose fields decide on the loss.
        drawn: whether people drew the labels; see :func:`pyramid_segmenter`.
        prefix: of its stage's name, where a recipe trains more than one.
        teaches: what the loss reads in labels, and with it what masks that a person accepted can
            teach: classes, foreground alone, or nothing.
        whole: whether it sees whole photos rather than crops, as 4.2.1 has it.
    """
    if isinstance(settings, PyramidSettings) and settings.segmenter == "pyramid":
        return pyramid_segmenter(run, settings, targets, drawn=drawn, prefix=prefix)
    given = Taught(targets, run.photos)
    if teaches != "nothing":
        given = taught(run, targets, prefix=prefix, by_class=teaches == "classes")
    photos, setup = given.photos, run.setup
    schedule = segmenter_schedule(settings, setup, len(photos))
    shapes = some_shapes(photos)
    crop = crop_size(shapes, settings.segmenter_crop)
    how = Augmentation(None) if whole else Augmentation(crop, scale=(0.8, 1.25), jitter=0.1)
    torch.manual_seed(setup.execution.seed)
    net = SegmentationNet(
        setup.build_backbone(settings),
        len(photos.classes) + 1,
        field_of_view=field_of_view,
        width=settings.segmenter_width,
        view_scale=view_scale(settings, shapes),
    )
    shared: tuple[str, ...] = ()
    if setup.weights is not None:
        shared = initialise_from_classifier(net, setup.weights.state, photos.classes)
    aliases = tuple(name for name in shared if name not in IMAGENET_ROWS)
    labels, drawn_from = given.labels, given.drawn
    found = trained(
        run,
        _SEGMENTER.prefixed(prefix),
        net,
        partial(fit_segmenter, net, photos, labels, objective, how, schedule, chosen=drawn_from),
        schedule,
        settings=[
            NetworkForm.of(net, settings),
            _View(field_of_view),
            objective,
            how,
            *([_Aliases(aliases)] if aliases else []),
        ],
        inputs=[labels],
        title="the segmenter",
    )
    return Trained(segmenter_of(run, settings, net), found.stage)


@dataclass(frozen=True)
class _View(Plain):
    """What decides on the segmenter's field of view, beside the settings."""

    field_of_view: FieldOfView


@dataclass(frozen=True)
class _Aliases(Plain):
    """Classes that start from ImageNet by another name than VOC's."""

    shared_by_alias: tuple[str, ...]


def segmenter_of(
    run: Run, settings: WorkSettings, net: nn.Module, classes: tuple[str, ...] | None = None
) -> Segmenter:
    """A trained network with the refiner that is configured; ``classes`` other than the photos'."""
    refinement = find_refiner(settings, run.setup.execution.seed)
    return Segmenter(
        net,
        classes if classes is not None else run.photos.classes,
        side=run.photos.side,
        execution=run.setup.execution,
        refiner=refiner_from(refinement) if refinement is not None else None,
        refinement=refinement,
    )


def with_refiner(segmenter: Segmenter, refinement: Mapping[str, Any]) -> Segmenter:
    """The same segmenter, refined by what ``refinement``, JSON data, makes."""
    refined = copy(segmenter)
    refined.refiner, refined.refinement = refiner_from(refinement), refinement
    return refined


class Predicted(NamedTuple):
    """Labels of the validation photos before and after the refiner; None without one.

    ``suffix`` is what a report adds to the title of the refined ones.
    """

    raw: LabelMaps
    refined: LabelMaps | None
    suffix: str = ""

    @property
    def best(self) -> LabelMaps:
        """The refined ones where there are any."""
        return self.raw if self.refined is None else self.refined


def predicted(
    run: Run,
    segmenter: Segmenter,
    after: Input,
    *,
    number: int | None = None,
    regions_of: PhotoRegions | None = None,
) -> Predicted:
    """Labels of the validation photos, without their tags.

    Args:
        after: what the segmenter is from.
        number: of the round, for a recipe that predicts in each.
        regions_of: the regions that the refiner would find, found before; with them nothing but
            time changes, so that no key does.
    """
    photos = run.split("val").photos

    def refine(item: tuple[str, int, Image, Probs]) -> dict[str, bytes]:
        _, index, image, probs = item
        after_all = probs
        if segmenter.refiner is not None:
            regions = regions_of(index) if regions_of is not None else None
            after_all = segmenter.refiner.refine(image, probs, Known(regions=regions))
        return {
            "raw": encode_mask(probs.argmax(0).astype(np.uint8)),
            "smooth": encode_mask(after_all.argmax(0).astype(np.uint8)),
        }

    def refined_all(
        images: Images, indices: list[int], found: npt.NDArray[np.float32]
    ) -> Iterator[dict[str, bytes]]:
        names = [photos.names[index] for index in indices]
        work = zip(names, indices, images, found, strict=True)
        return map_photos(refine, work, workers=run.setup.threads)

    stage = per_batch(
        run,
        _PREDICTIONS if number is None else _PREDICTIONS.round(number),
        ["raw", "smooth"],
        InTwo(lambda images, _: segmenter.forward(images), refined_all),
        settings=[Refinement(segmenter.decided_by)],
        inputs=[after],
        split="val",
    )
    refined = LabelMaps(stage, "smooth", photos.names) if segmenter.refiner is not None else None
    name = (segmenter.refinement or {}).get("refiner", "crf")
    suffix = "" if refined is None else f" + {'CRF' if name == 'crf' else name}"
    return Predicted(LabelMaps(stage, "raw", photos.names), refined, suffix)


def photo_masks(
    run: Run,
    settings: WorkSettings,
    segmenter: Segmenter,
    after: Input,
    probabilities: Callable[[int], Probs] | None = None,
    *,
    by_class: bool = True,
) -> PhotoMaps[Labels]:
    """Final masks of the training photos, as palettised PNG at the photos' own size.

    Restricted to the classes of a photo's known tags, and to those that are probably missing from
    tags that are not complete, where the settings say so. With
    ``probabilities`` (C + 1, h, w) of a photo, made before, the segmenter only refines them. A mask
    that a person accepted is the photo's, as it is: 255 stays where the person was not sure.
    """
    photos = run.photos
    inputs, regions_of, of_masks = [after], None, settings.of_masks()
    store = folder_of_pngs(_FILES, tars=are_sharded(run.setup.masks_in, len(photos)))
    allowed, allowed_by = allowed_tags(run, settings) if of_masks.masks_by_tags else (None, [])
    accepted = run.review.accepted if run.review is not None else {}
    if run.review is not None and accepted:
        inputs.append(run.review.accepted_key)
    if settings.acting().get("segmenter_regions") == "crisp":
        regions_of = photo_regions(run, settings)  # which other stages may have found before
        inputs.append(regions_of)

    def full_size(item: tuple[str, int, Image, Probs]) -> dict[str, bytes]:
        _, index, image, probs = item
        if index in accepted:
            mask = accepted[index]()
            return {store: encode_mask(mask if by_class else foreground_of(mask))}
        regions = regions_of(index) if regions_of is not None else None
        labels, probs = refined_by_tags(
            run, of_masks, segmenter, index, image, probs, regions, allowed=allowed
        )
        best = argmax_at(probs, photos.full_shape(index))
        return {store: encode_mask(labels.astype(np.uint8)[best])}

    def answers(images: Images, indices: list[int]) -> Iterable[Probs]:
        return segmenter.forward(images) if probabilities is None else map(probabilities, indices)

    def masks(
        images: Images, indices: list[int], found: Iterable[Probs]
    ) -> Iterator[dict[str, bytes]]:
        names = [photos.names[index] for index in indices]
        work = zip(names, indices, images, found, strict=True)
        return map_photos(full_size, work, workers=run.setup.threads)

    stage = per_batch(
        run,
        _MASKS,
        [store],
        InTwo(answers, masks),
        settings=[Refinement(segmenter.decided_by), of_masks, *allowed_by],
        inputs=inputs,
    )
    files = Once(lambda: MaskFiles(stage.read_path(_FILES)))
    return PhotoMaps(stage, lambda index: decode_mask(read_file(files().path(photos.names[index]))))


def refined_by_tags(
    run: Run,
    settings: MaskSettings,
    segmenter: Segmenter,
    index: int,
    image: Image,
    probs: Probs,
    regions: Regions | None = None,
    *,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> tuple[npt.NDArray[np.intp], Probs]:
    """Labels (K,) that a training photo may have, and their refined probabilities (K, h, w).

    ``allowed`` are the classes (N, C) that masks may hold where they are restricted; None for the
    photos' tags.
    """
    photos, refiner = run.photos, segmenter.refiner
    labels = np.arange(len(probs))
    classes = photos.tags if allowed is None else allowed
    tags = classes[index] if photos.dataset.known[index] else None
    if settings.masks_by_tags and tags is not None:
        labels = labels_of_tags(tags)
        probs = probs[labels] / probs[labels].sum(0).clip(1e-12)
    if refiner is not None:
        probs = refiner.refine(image, probs, Known(tags, regions))
    return labels, probs
