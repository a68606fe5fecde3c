"""What can be said of each class's masks before anybody has drawn one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tagseg.data.working import labels_at
from tagseg.evaluate.judge import shipped_judge
from tagseg.evaluate.trust import ClassFacts, ClassTrust, class_trust
from tagseg.maps import Labels
from tagseg.recipes.union.court import Court
from tagseg.stages.context import Run
from tagseg.stages.outcome import Prediction
from tagseg.stages.stage import LabelMaps

__all__ = ["companions_of", "diagnosed"]

_ALONE = 0.5  # of a class's photos; above, what it comes with can be told from it


def diagnosed(
    run: Run, court: Court, masks: Prediction, labels: Sequence[LabelMaps]
) -> tuple[ClassTrust, ...]:
    """How far the final ``masks`` of each class can be trusted, in label order.

    Args:
        labels: of each round, with which the masks are compared.
    """
    photos = run.photos

    def candidates(index: int) -> list[Labels]:
        shape = photos.image(index).shape[:2]
        return [labels_at(masks.labels(index), shape), *(of_round(index) for of_round in labels)]

    judged = court.expected(candidates, [masks.stage, *labels])
    tags, known = photos.tags, photos.dataset.known
    facts = []
    for tag, name in enumerate(photos.classes):
        rows = np.asarray(judged[tag], np.float64).reshape(-1, 2)
        holds = tags[:, tag] & known
        facts.append(
            ClassFacts(
                name,
                photos=int(holds.sum()),
                others=int((known & ~holds).sum()),
                quality=rows[:, 0].tolist(),
                areas=rows[:, 1].tolist(),
                told=None,
                companions={
                    photos.classes[other]: share
                    for other, share in companions_of(tags[known], tag).items()
                },
            )
        )
    spread = shipped_judge().spread
    return tuple(class_trust(of_class, spread=spread) for of_class in facts)


def companions_of(tags: np.ndarray, tag: int) -> dict[int, float]:
    """Other classes, and the fraction of this one's photos that hold them too.

    Those that are mostly without it are left out: from their other photos a classifier learns what
    they look like.

    Args:
        tags: of photos with known tags (N, C), bool.
    """
    own = tags[:, tag]
    found = {}
    for other in range(tags.shape[1]):
        together = int((own & tags[:, other]).sum())
        if other == tag or not together:
            continue
        if together > _ALONE * int(tags[:, other].sum()):
            found[other] = together / int(own.sum())
    return found
