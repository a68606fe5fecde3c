"""The segmenter: its training, its predictions and the photos' masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tagseg.data.images import decode_mask, encode_mask
from tagseg.data.transforms import (
    Augmentation,
    crop_size,
)
from tagseg.data.working import WorkingPhotos, argmax_at
from tagseg.maps import Image, Labels, Probs, labels_of_tags
from tagseg.nets.deeplab import FieldOfView, SegmentationNet, initialise_from_classifier
from tagseg.run.engine import map_photos
from tagseg.run.workspace import Stage
from tagseg.segment.fit import Objective, fit_segmenter
from tagseg.segment.predict import Segmenter
from tagseg.stages.config import TrainingConfig
from tagseg.stages.context import Run
from tagseg.stages.crf import Regions, crf_refinement, crf_settings
from tagseg.stages.labels import _BATCH, LabelMaps
from tagseg.stages.priors import PhotoRegions, photo_regions
from tagseg.stages.schedules import segmenter_schedule
from tagseg.stages.shapes import some_shapes, view_scale
from tagseg.stages.trained import trained

__all__ = ["photo_masks", "predictions", "refined_by_tags", "segmenter_of", "trained_segmenter"]


def trained_segmenter(
    run: Run,
    config: TrainingConfig,
    targets: Callable[[int], Labels],
    objective: Objective,
    inputs: Sequence[Stage | str],
    *,
    objective_name: str,
    field_of_view: FieldOfView = "large",
) -> tuple[Segmenter, Stage]:
    """The segmenter, trained on ``targets`` with ``objective`` (Saleh et al. 3.2 and 4.2.1)."""
    photos, setup = run.photos, run.setup
    schedule = segmenter_schedule(config, setup, len(photos))
    shapes = some_shapes(photos)
    how = Augmentation(crop_size(shapes, config.segmenter_crop), scale=(0.8, 1.25), jitter=0.1)
    made_from = {
        **setup.settings(),
        "photo_side": config.photo_side,
        "output_stride": setup.output_stride(config),
        "field_of_view": field_of_view,
        "view_scale": view_scale(config, shapes),
        "width": config.segmenter_width,
        "objective": objective_name,
        "augmentation": asdict(how),
    }
    torch.manual_seed(setup.execution.seed)
    net = SegmentationNet(
        setup.build_backbone(config),
        len(photos.classes) + 1,
        field_of_view=field_of_view,
        width=config.segmenter_width,
        view_scale=made_from["view_scale"],
    )
    if setup.weights is not None:
        initialise_from_classifier(net, setup.weights.state, photos.classes)
    fit = partial(fit_segmenter, net, photos, targets, objective, how, schedule)
    stage = trained(
        run,
        "segmenter",
        "the segmenter",
        net,
        fit,
        schedule,
        made_from,
        [run.photos_key, *inputs],
        tensors="segmenter",
    )
    return segmenter_of(run, config, net), stage


def segmenter_of(
    run: Run, config: TrainingConfig, net: nn.Module, classes: tuple[str, ...] | None = None
) -> Segmenter:
    """A trained network with the CRF that is configured; ``classes`` other than the photos'."""
    crf = crf_settings(config, run.setup.execution.seed)
    return Segmenter(
        net,
        classes if classes is not None else run.photos.classes,
        side=config.photo_side,
        execution=run.setup.execution,
        refine=crf_refinement(crf) if crf is not None else None,
        refinement=crf,
    )


def predictions(
    run: Run,
    segmenter: Segmenter,
    after: Stage,
    photos: WorkingPhotos,
    *,
    name: str = "predictions",
) -> tuple[LabelMaps, LabelMaps | None]:
    """Labels of the validation photos before and after the CRF; no tags are used."""
    crf = segmenter.refinement
    with run.stage(name, {"crf": crf}, [after, run.val_key]) as stage:
        if stage.pending:
            raw, smooth = stage.maps("raw"), stage.maps("smooth")

            def refined(item: tuple[str, Image, Probs]) -> tuple[str, bytes, bytes]:
                photo, image, probs = item
                before = encode_mask(probs.argmax(0).astype(np.uint8))
                after_crf = probs if segmenter.refine is None else segmenter.refine(image, probs)
                return photo, before, encode_mask(after_crf.argmax(0).astype(np.uint8))

            with run.task("segmenting the validation photos", len(photos)) as ticks:
                for indices, images in photos.batches(_BATCH):
                    names = [photos.names[i] for i in indices]
                    if not raw.missing(names) and not smooth.missing(names):
                        ticks.skip(len(names))
                        continue
                    work = zip(names, images, segmenter.forward(images), strict=True)
                    for photo, before, smoothed in map_photos(
                        refined, work, workers=run.setup.threads, progress=ticks
                    ):
                        raw.put_bytes(photo, before)
                        smooth.put_bytes(photo, smoothed)
    smoothed_maps = LabelMaps(stage, "smooth", photos.names) if crf is not None else None
    return LabelMaps(stage, "raw", photos.names), smoothed_maps


def photo_masks(
    run: Run,
    config: TrainingConfig,
    segmenter: Segmenter,
    after: Stage,
    probabilities: Callable[[int], Probs] | None = None,
) -> tuple[Callable[[int], Labels], Stage]:
    """Final masks of the training photos, as palettised PNG at the photos' own size.

    Restricted to the classes of a photo's known tags where the configuration says so. With
    ``probabilities`` (C + 1, h, w) of a photo, made before, the segmenter only refines them.
    """
    photos, crf = run.photos, segmenter.refinement
    inputs: list[Stage | str] = [after, run.photos_key]
    regions_of: PhotoRegions | None = None
    if crf is not None and crf["regions"] is not None:
        regions_of, found = photo_regions(run, config)
        inputs.append(found)
    with run.stage("masks", {"crf": crf, "by_tags": config.masks_by_tags}, inputs) as stage:
        if stage.pending:

            def write(item: tuple[str, int, Image, Probs]) -> None:
                name, index, image, probs = item
                regions = regions_of(index) if regions_of is not None else None
                labels, probs = refined_by_tags(
                    run, config, segmenter, index, image, probs, regions
                )
                best = argmax_at(probs, photos.full_shape(index))
                content = encode_mask(labels.astype(np.uint8)[best])
                stage.save_bytes(f"masks/{name}.png", content)

            with run.task("masks of the training photos", len(photos)) as ticks:
                for indices, images in photos.batches(_BATCH):
                    names = [photos.names[i] for i in indices]
                    if all(stage.path(f"masks/{name}.png").exists() for name in names):
                        ticks.skip(len(names))
                        continue
                    probs = (
                        segmenter.forward(images)
                        if probabilities is None
                        else map(probabilities, indices)
                    )
                    work = zip(names, indices, images, probs, strict=True)
                    for _ in map_photos(write, work, workers=run.setup.threads, progress=ticks):
                        pass

    def read(index: int) -> Labels:
        return decode_mask(stage.path(f"masks/{photos.names[index]}.png").read_bytes())

    return read, stage


def refined_by_tags(
    run: Run,
    config: TrainingConfig,
    segmenter: Segmenter,
    index: int,
    image: Image,
    probs: Probs,
    regions: Regions | None = None,
) -> tuple[npt.NDArray[np.intp], Probs]:
    """Labels (K,) that a training photo may have, and their refined probabilities (K, h, w)."""
    photos = run.photos
    labels = np.arange(len(probs))
    if config.masks_by_tags and photos.dataset.known[index]:
        labels = labels_of_tags(photos.tags[index])
        probs = probs[labels] / probs[labels].sum(0).clip(1e-12)
    if segmenter.refine is not None:
        probs = segmenter.refine(image, probs, regions)
    return labels, probs
