"""Rounds of training as stages of a run: their masks, what changed, and what the report shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tagseg.data.images import encode_mask
from tagseg.iterate import agreement
from tagseg.maps import Image, Labels, Probs
from tagseg.run.engine import map_photos
from tagseg.run.workspace import Stage
from tagseg.segment.predict import Segmenter
from tagseg.stages.config import TrainingConfig
from tagseg.stages.context import Run
from tagseg.stages.labels import LabelMaps
from tagseg.stages.outcome import Product
from tagseg.stages.segmenter import predictions, refined_by_tags

__all__ = ["agreement_of", "network_masks", "validation_products", "working_masks"]

_BATCH = 16  # photos a forward pass


def working_masks(
    run: Run, config: TrainingConfig, segmenter: Segmenter, after: Stage, *, name: str
) -> LabelMaps:
    """Masks of the training photos at working size, of known tags where configured so."""

    def mask(index: int, image: Image, probs: Probs) -> Labels:
        labels, refined = refined_by_tags(run, config, segmenter, index, image, probs)
        return labels.astype(np.uint8)[refined.argmax(0)]

    made_from = {"crf": segmenter.refinement, "by_tags": config.masks_by_tags}
    return network_masks(run, segmenter, after, mask, made_from, name=name)


def network_masks(
    run: Run,
    segmenter: Segmenter,
    after: Stage,
    mask_of: Callable[[int, Image, Probs], Labels],
    made_from: Mapping[str, Any],
    *,
    name: str,
) -> LabelMaps:
    """Masks (h, w) of the training photos, from what a network says of each.

    ``mask_of`` is given a photo's index, the photo (h, w, 3) and probabilities (L, h, w), and runs
    in threads.
    """
    photos = run.photos
    with run.stage(name, dict(made_from), [after, run.photos_key]) as stage:
        if stage.pending:
            store = stage.maps("labels")

            def encoded(item: tuple[int, Image, Probs]) -> tuple[int, bytes]:
                return item[0], encode_mask(mask_of(*item))

            with run.task(name.replace("-", " "), len(photos)) as ticks:
                for indices, images in photos.batches(_BATCH):
                    if not store.missing([photos.names[i] for i in indices]):
                        ticks.skip(len(indices))
                        continue
                    work = zip(indices, images, segmenter.forward(images), strict=True)
                    for index, content in map_photos(
                        encoded, work, workers=run.setup.threads, progress=ticks
                    ):
                        store.put_bytes(photos.names[index], content)
    return LabelMaps(stage, "labels", photos.names)


def agreement_of(run: Run, number: int, before: LabelMaps, after: LabelMaps) -> float:
    """Agreement of round ``number``'s masks with those before, on all training photos."""
    inputs = [before.stage, after.stage]
    with run.stage(f"agreement-{number}", {}, inputs) as stage:
        if stage.pending:
            pairs = ((before(index), after(index)) for index in range(len(run.photos)))
            found = agreement(pairs, len(run.photos.classes) + 1)
            stage.save_json("agreement", found)
    return float(stage.load_json("agreement"))


def validation_products(
    run: Run,
    segmenter: Segmenter,
    after: Stage,
    number: int,
    title: str,
    by_class: bool = True,
) -> list[Product]:
    """What the network of round ``number`` makes of the validation photos, if there are any."""
    if run.val is None:
        return []
    raw, smooth = predictions(run, segmenter, after, run.val, name=f"predictions-{number}")
    if smooth is None:
        return [Product(f"{title}, round {number}", "val", raw, (raw.stage,), by_class)]
    return [Product(f"{title} + CRF, round {number}", "val", smooth, (smooth.stage,), by_class)]
