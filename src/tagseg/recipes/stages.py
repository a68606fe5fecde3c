"""The stages that recipes are made of, each kept in the run's workspace once it is made.

A recipe calls these in order. What a stage computes is written in localize, priors, fuse, losses
and segment; here stands what it depends on and how its results are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tagseg.data.images import decode_mask, encode_mask
from tagseg.data.transforms import (
    Augmentation,
    crop_size,
    factor_to,
    resize_batch,
    resized_shape,
)
from tagseg.data.working import WorkingPhotos, argmax_at
from tagseg.localize.cam import class_activation_maps, normalised_maps
from tagseg.localize.classifier import tag_scores, train_tag_classifier
from tagseg.maps import Image, Labels, Probs, SaliencyMap, ScoreMap, labels_of_tags
from tagseg.nets.deeplab import FieldOfView, SegmentationNet, initialise_from_classifier
from tagseg.nets.gap import GapClassifier
from tagseg.priors.activations import channel_means, foreground_probability
from tagseg.recipes.base import Run, Split, TrainingConfig
from tagseg.recipes.schedules import classifier_schedule, segmenter_schedule
from tagseg.recipes.smoothing import RegionFinder, Regions, crf_refinement, crf_settings
from tagseg.recipes.trainings import trained
from tagseg.run.engine import map_photos
from tagseg.run.workspace import Stage
from tagseg.segment.fit import Objective, fit_segmenter
from tagseg.segment.predict import Segmenter
from tagseg.training import Schedule

__all__ = [
    "LabelMaps",
    "LocationMaps",
    "activation_prior",
    "classifier_scores",
    "each_batch",
    "location_maps",
    "photo_arrays",
    "photo_masks",
    "photo_regions",
    "predictions",
    "refined_by_tags",
    "segmenter_of",
    "some_shapes",
    "tag_classifier",
    "trained_classifier",
    "trained_segmenter",
    "training_labels",
    "view_scale",
]

_BATCH = 16  # photos a forward pass
_SHAPES = 200  # photos that are looked at to choose a crop
_MOST_LABELS_AT_ONCE = 1 << 28  # bytes of decoded labels kept in memory

LocationMaps = Callable[[int], ScoreMap]
Prior = Callable[[int], SaliencyMap]
PhotoRegions = Callable[[int], Regions]


class LabelMaps:
    """Label maps (h, w) of a set of photos, kept compressed in a stage's store.

    Attributes:
        stage: where they come from.
    """

    def __init__(self, stage: Stage, store: str, names: Sequence[str]) -> None:
        self.stage, self._store, self._names = stage, store, names
        self._kept: dict[int, Labels] = {}
        self._room = _MOST_LABELS_AT_ONCE

    def __call__(self, index: int) -> Labels:
        """Labels of photo ``index``; do not write into them."""
        if index not in self._kept:
            content = self.stage.maps(self._store).get_bytes(self._names[index])
            labels = decode_mask(content)
            if labels.nbytes > self._room:
                return labels
            self._room -= labels.nbytes
            self._kept[index] = labels
        return self._kept[index]


def tag_classifier(
    run: Run, config: TrainingConfig, *, schedule: Schedule | None = None
) -> tuple[GapClassifier, Stage]:
    """The localization network, trained on tags (Saleh et al. 3.1.2 and 4.2.2).

    ``schedule`` takes the place of the paper's.
    """
    photos = run.photos
    if schedule is None:
        schedule = classifier_schedule(config, run.setup, len(photos))
    width = _classifier_width(run, config)
    torch.manual_seed(run.setup.execution.seed)
    net = GapClassifier(
        run.setup.build_backbone(config),
        len(photos.classes),
        hidden=width,
        hidden_layers=config.classifier_hidden_layers,
    )
    form = {
        "output_stride": run.setup.output_stride(config),
        "hidden_layers": config.classifier_hidden_layers,
        "width": width,
    }
    how = _classifier_input(photos, config)
    return trained_classifier(run, config, net, form, how, schedule)


def trained_classifier(
    run: Run,
    config: TrainingConfig,
    net: GapClassifier,
    form: Mapping[str, Any],
    how: Augmentation,
    schedule: Schedule,
    *,
    name: str = "classifier",
    title: str = "the tag classifier",
) -> tuple[GapClassifier, Stage]:
    """``net`` of ``form``, trained on the tags of samples cut as ``how`` says."""
    made_from = {
        **run.setup.settings(),
        "photo_side": config.photo_side,
        **form,
        "input": asdict(how),
    }
    fit = partial(train_tag_classifier, net, run.photos, how, schedule)
    stage = trained(
        run, name, title, net, fit, schedule, made_from, [run.photos_key], tensors="classifier"
    )
    return net.eval(), stage


def classifier_scores(
    run: Run, classifier: nn.Module, photos: WorkingPhotos, *, side: int | None = None
) -> npt.NDArray[np.float32]:
    """Probability of each class in each photo (N, C), seen at the longer side ``side``."""
    with run.task("classifying", len(photos)) as ticks:
        return tag_scores(
            classifier,
            photos,
            execution=run.setup.execution,
            side=side,
            advance=ticks.advance,
        )


def location_maps(
    run: Run,
    config: TrainingConfig,
    classifier: GapClassifier,
    after: Stage,
    *,
    split: Split = "train",
    side: int | None = None,
) -> tuple[LocationMaps, Stage]:
    """Class activation maps of the photos' known tags (Saleh et al. Eq. 1).

    Stored on the network's grid, of present classes only; read as M_c in [0, 1] at working size.
    The classifier sees photos of the longer side ``side``, or at working size.
    """
    photos, key, prefix = run.part(split)
    flip, scales = config.cam_flip, config.cam_scales
    # The classifier's key tells the training photos, and no others.
    inputs: list[Stage | str] = [after] if split == "train" else [after, key]
    made_from = {"flip": flip, "scales": list(scales), "side": side}
    with run.stage(f"{prefix}location-maps", made_from, inputs) as stage:
        if stage.pending:
            store = stage.maps("class-maps")

            def compute(images: torch.Tensor, indices: list[int]) -> None:
                images = resize_batch(images, factor_to(side, images.shape[2:]))
                maps = class_activation_maps(classifier, images, flip=flip, scales=scales)
                for index, classes in zip(indices, maps.float().cpu().numpy(), strict=True):
                    present = classes[photos.tags[index]].astype(np.float16)
                    store.put(photos.names[index], present=present)

            classifier.to(run.setup.execution.device)
            each_batch(run, photos, "class activation maps", store.missing, compute)

    def read(index: int) -> ScoreMap:
        present = stage.maps("class-maps").get(photos.names[index])["present"]
        tags = photos.tags[index]
        maps = np.zeros((len(tags), *present.shape[1:]), np.float32)
        maps[tags] = present
        shape = photos.image(index).shape[:2]
        seen = resized_shape(shape, factor_to(side, shape))
        return normalised_maps(maps, tags, shape, stride=classifier.backbone.grid_stride, seen=seen)

    return read, stage


def activation_prior(
    run: Run, config: TrainingConfig, *, saturate: float = 0.0, split: Split = "train"
) -> tuple[Prior, Stage]:
    """Foreground probability P_f of the photos (Saleh et al. 3.1.1).

    From the pre-trained network as it comes: fine-tuning it on the tags did not help in the paper
    (4.2.2). Stored as the channel means of the two blocks; read at working size.
    """
    photos, key, prefix = run.part(split)
    stride = run.setup.output_stride(config)
    strides = (8 if run.setup.backbone == "vgg16" else stride, stride)
    made_from = {
        **run.setup.settings(),
        "photo_side": config.photo_side,
        "output_stride": stride,
    }
    with run.stage(f"{prefix}activation-prior", made_from, [key]) as stage:
        if stage.pending:
            torch.manual_seed(run.setup.execution.seed)
            backbone = run.setup.build_backbone(config).eval()
            backbone.to(run.setup.execution.device)
            store = stage.maps("channel-means")

            def compute(images: torch.Tensor, indices: list[int]) -> None:
                means = [m.float().cpu().numpy() for m in channel_means(backbone, images)]
                for index, block4, block5 in zip(indices, *means, strict=True):
                    store.put(
                        photos.names[index],
                        block4=block4.astype(np.float16),
                        block5=block5.astype(np.float16),
                    )

            each_batch(run, photos, "activation prior", store.missing, compute)

    def read(index: int) -> SaliencyMap:
        means = stage.maps("channel-means").get(photos.names[index])
        return foreground_probability(
            means["block4"].astype(np.float32),
            means["block5"].astype(np.float32),
            photos.image(index).shape[:2],
            saturate=saturate,
            strides=strides,
        )

    return read, stage


def photo_regions(
    run: Run, config: TrainingConfig, *, split: Split = "train"
) -> tuple[PhotoRegions, Stage]:
    """Crisp regions of the photos at working size (Saleh et al. 3.1.3)."""
    find = RegionFinder.of(config, run.setup.execution.seed)
    made_from = {"photo_side": config.photo_side, **asdict(find)}
    photos = run.part(split).photos
    return photo_arrays(
        run,
        "regions",
        "crisp regions",
        lambda index: find(photos.image(index)),
        made_from,
        split=split,
    )


def photo_arrays(
    run: Run,
    name: str,
    title: str,
    make: Callable[[int], npt.NDArray[Any]],
    made_from: Mapping[str, Any],
    *,
    split: Split = "train",
) -> tuple[Callable[[int], npt.NDArray[Any]], Stage]:
    """An array of every photo, read by its index: ``make`` (index), run in threads."""
    photos, key, prefix = run.part(split)
    with run.stage(f"{prefix}{name}", dict(made_from), [key]) as stage:
        if stage.pending:
            store = stage.maps(name)
            index_of = {photo: i for i, photo in enumerate(photos.names)}
            todo = store.missing(photos.names)
            with run.task(title, len(todo)) as ticks:
                results = map_photos(
                    lambda photo: make(index_of[photo]),
                    todo,
                    workers=run.setup.threads,
                    progress=ticks,
                )
                for photo, array in zip(todo, results, strict=True):
                    store.put(photo, **{name: array})
    return lambda index: stage.maps(name).get(photos.names[index])[name], stage


def training_labels(
    run: Run,
    name: str,
    make: Callable[[int], Labels],
    made_from: dict[str, Any],
    inputs: Sequence[Stage | str],
    *,
    split: Split = "train",
) -> LabelMaps:
    """Pseudo-labels of every photo: ``make`` (index) -> labels (h, w), run in threads."""
    photos, key, prefix = run.part(split)
    with run.stage(f"{prefix}{name}", made_from, [key, *inputs]) as stage:
        if stage.pending:
            store = stage.maps("labels")
            index_of = {photo: i for i, photo in enumerate(photos.names)}
            todo = store.missing(photos.names)

            def one(photo: str) -> bytes:
                return encode_mask(make(index_of[photo]))

            with run.task(name.replace("-", " "), len(todo)) as ticks:
                results = map_photos(one, todo, workers=run.setup.threads, progress=ticks)
                for photo, content in zip(todo, results, strict=True):
                    store.put_bytes(photo, content)
    return LabelMaps(stage, "labels", photos.names)


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


def each_batch(
    run: Run,
    photos: WorkingPhotos,
    title: str,
    missing: Callable[[Sequence[str]], list[str]],
    compute: Callable[[torch.Tensor, list[int]], None],
) -> None:
    """Call ``compute`` with image batches (B, 3, h, w) in [0, 1] on the device.

    A batch is skipped only if it is there as a whole, so that photos keep their company.
    """
    execution = run.setup.execution
    low = execution.precision != torch.float32
    with run.task(title, len(photos)) as ticks, torch.no_grad():
        for indices, images in photos.batches(_BATCH):
            if not missing([photos.names[i] for i in indices]):
                ticks.skip(len(indices))
                continue
            x = torch.from_numpy(images).to(execution.device).permute(0, 3, 1, 2).float() / 255
            with torch.autocast(execution.device.type, execution.precision, enabled=low):
                compute(x, indices)
            ticks.advance(len(indices))


def some_shapes(photos: WorkingPhotos) -> list[tuple[int, int]]:
    """Working sizes of up to 200 photos, evenly spread."""
    chosen = np.linspace(0, len(photos) - 1, min(_SHAPES, len(photos))).astype(int)
    return [photos.image(int(i)).shape[:2] for i in chosen]


def _classifier_input(photos: WorkingPhotos, config: TrainingConfig) -> Augmentation:
    """Photos squeezed to 224 x 224 as in the paper; smaller ones stay as they are."""
    size, shapes = config.classifier_size, some_shapes(photos)
    height, width = np.median(np.asarray(shapes), axis=0)
    if min(height, width) * 1.25 >= size:
        return Augmentation((size, size), stretch=True)
    return Augmentation(crop_size(shapes, size), scale=(0.8, 1.25), jitter=0.1)


def _classifier_width(run: Run, config: TrainingConfig) -> int:
    return config.classifier_width or (1024 if run.setup.backbone == "vgg16" else 256)


def view_scale(
    config: TrainingConfig, shapes: Sequence[tuple[int, int]], *, reference: float = 500.0
) -> float:
    """fc6's dilation relative to the paper's, whose photos have ``reference`` pixels."""
    if not config.scale_field_of_view:
        return 1.0
    longer = float(np.median(np.max(np.asarray(shapes), axis=1)))
    return round(min(1.0, longer / reference), 3)
