"""Whether the final masks are made to follow the photo's edges: unless they lose by it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tagseg.maps import Labels
from tagseg.recipes.union.config import Config
from tagseg.recipes.union.court import Court
from tagseg.segment.predict import Segmenter
from tagseg.stages.context import Run
from tagseg.stages.refiners import Refinement, find_refiner
from tagseg.stages.segmenter import refined_by_tags, with_refiner
from tagseg.stages.stage import Trained
from tagseg.stages.tag_doubts import allowed_tags

__all__ = ["refined_unless_worse"]

_AS_GOOD = 0.98  # of what speaks for the masks without the refiner


def refined_unless_worse(
    run: Run, config: Config, trained: Trained[Segmenter], court: Court
) -> Trained[Segmenter]:
    """The segmenter with the refiner that is configured, unless its masks lose by it.

    What it learned from follows the photo's edges or leaves them out, so that held-out labels
    cannot tell. The judge can: where smoothing takes a thin thing away, less is seen in its mask,
    and the class is still seen without.
    """
    plain = trained.model
    refinement = find_refiner(config, run.setup.execution.seed)
    if refinement is None or plain.refiner is not None:
        return trained
    refined, photos, of_masks = with_refiner(plain, refinement), run.photos, config.of_masks()
    allowed, allowed_by = allowed_tags(run, config) if of_masks.masks_by_tags else (None, [])

    def masks(index: int) -> Sequence[Labels]:
        image = photos.image(index)
        probs = plain.forward(image[None])[0]
        both = []
        for segmenter in (plain, refined):
            labels, among = refined_by_tags(
                run, of_masks, segmenter, index, image, probs, allowed=allowed
            )
            both.append(labels.astype(np.uint8)[among.argmax(0)])
        return both

    verdict = court.choose(
        masks,
        ["as the segmenter answers", f"refined by {config.refiner}"],
        [trained],
        None,
        settings=[Refinement([plain.decided_by, refinement]), of_masks, *allowed_by],
        favourite=1,
        kept=_AS_GOOD,
    )
    return Trained((plain, refined)[verdict.best], verdict.stage)
