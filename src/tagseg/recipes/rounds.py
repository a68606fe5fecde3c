"""Rounds of training as stages of a run: their masks, what changed, and what the report shows."""

from __future__ import annotations

import numpy as np

from tagseg.data.images import encode_mask
from tagseg.iterate import agreement
from tagseg.maps import Image, Probs
from tagseg.recipes.base import Product, Run, TrainingConfig
from tagseg.recipes.stages import LabelMaps, predictions, refined_by_tags
from tagseg.run.engine import map_photos
from tagseg.run.workspace import Stage
from tagseg.segment.predict import Segmenter

__all__ = ["agreement_of", "validation_products", "working_masks"]

_BATCH = 16  # photos a forward pass


def working_masks(
    run: Run, config: TrainingConfig, segmenter: Segmenter, after: Stage, *, name: str
) -> LabelMaps:
    """Masks of the training photos at working size, of known tags where configured so."""
    photos = run.photos
    made_from = {"crf": segmenter.refinement, "by_tags": config.masks_by_tags}
    with run.stage(name, made_from, [after, run.photos_key]) as stage:
        if stage.pending:
            store = stage.maps("labels")

            def mask(item: tuple[int, Image, Probs]) -> tuple[int, bytes]:
                index, image, probs = item
                labels, refined = refined_by_tags(run, config, segmenter, index, image, probs)
                return index, encode_mask(labels.astype(np.uint8)[refined.argmax(0)])

            with run.task(name.replace("-", " "), len(photos)) as ticks:
                for indices, images in photos.batches(_BATCH):
                    if not store.missing([photos.names[i] for i in indices]):
                        ticks.skip(len(indices))
                        continue
                    work = zip(indices, images, segmenter.forward(images), strict=True)
                    for index, content in map_photos(
                        mask, work, workers=run.setup.threads, progress=ticks
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
    run: Run, segmenter: Segmenter, after: Stage, number: int, title: str
) -> list[Product]:
    """What the network of round ``number`` makes of the validation photos, if there are any."""
    if run.val is None:
        return []
    raw, smooth = predictions(run, segmenter, after, run.val, name=f"predictions-{number}")
    if smooth is None:
        return [Product(f"{title}, round {number}", "val", raw, (raw.stage,))]
    return [Product(f"{title} + CRF, round {number}", "val", smooth, (smooth.stage,))]
