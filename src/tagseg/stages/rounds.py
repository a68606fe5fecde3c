"""Rounds of training as stages of a run: their masks, and what changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt

from tagseg.data.masks import encode_mask
from tagseg.iterate import agreement
from tagseg.maps import Image, Labels, Probs
from tagseg.run.engine import map_photos
from tagseg.segment.predict import Segmenter
from tagseg.stages.context import Run
from tagseg.stages.refiners import Refinement
from tagseg.stages.segmenter import refined_by_tags
from tagseg.stages.settings import MaskSettings
from tagseg.stages.stage import Declared, Images, InTwo, LabelMaps, Trained, found, per_batch
from tagseg.stages.tag_doubts import allowed_tags

__all__ = ["agreement_of", "network_masks", "working_masks"]

_MASKS = Declared("masks")
_AGREEMENT = Declared("agreement")


def working_masks(
    run: Run, settings: MaskSettings, segmenter: Trained[Segmenter], number: int
) -> LabelMaps:
    """Masks of the training photos at working size, of known tags where configured so."""
    allowed, allowed_by = allowed_tags(run, settings) if settings.masks_by_tags else (None, [])
    settings = settings.only(MaskSettings)

    def mask(index: int, image: Image, probs: Probs) -> Labels:
        labels, refined = refined_by_tags(
            run, settings, segmenter.model, index, image, probs, allowed=allowed
        )
        return labels.astype(np.uint8)[refined.argmax(0)]

    decided_by = [Refinement(segmenter.model.decided_by), settings, *allowed_by]
    return network_masks(run, segmenter, mask, decided_by, number)


def network_masks(
    run: Run,
    segmenter: Trained[Segmenter],
    mask_of: Callable[[int, Image, Probs], Labels],
    settings: Iterable[object],
    number: int,
) -> LabelMaps:
    """Masks (h, w) of the training photos, made of what round ``number``'s network answers.

    Args:
        mask_of: index, image (h, w, 3) and probabilities (L, h, w) of a photo to its mask.
        settings: what decides on ``mask_of``.
    """
    photos = run.photos

    def encoded(item: tuple[str, int, Image, Probs]) -> dict[str, bytes]:
        return {"labels": encode_mask(mask_of(*item[1:]))}

    def masks(
        images: Images, indices: list[int], probs: npt.NDArray[np.float32]
    ) -> Iterator[dict[str, bytes]]:
        names = [photos.names[i] for i in indices]
        work = zip(names, indices, images, probs, strict=True)
        return map_photos(encoded, work, workers=run.setup.threads)

    make = InTwo(lambda images, _: segmenter.model.forward(images), masks)
    stage = per_batch(
        run, _MASKS.round(number), ["labels"], make, settings=settings, inputs=[segmenter]
    )
    return LabelMaps(stage, "labels", photos.names)


def agreement_of(run: Run, number: int, before: LabelMaps, after: LabelMaps) -> float:
    """Agreement of round ``number``'s masks with those before, on all training photos."""

    def compute() -> float:
        pairs = ((before(index), after(index)) for index in range(len(run.photos)))
        return agreement(pairs, len(run.photos.classes) + 1)

    declared = _AGREEMENT.round(number)
    return float(found(run, declared, compute, planned=0.0, inputs=[before, after]).value)
