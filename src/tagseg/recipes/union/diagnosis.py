"""What can be said of each class's masks before anybody has drawn one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tagseg.data.working import labels_at
from tagseg.evaluate.scores import average_precision
from tagseg.evaluate.trust import ClassFacts, ClassTrust, class_trust
from tagseg.maps import Labels
from tagseg.nets.top_pool import TopPoolClassifier
from tagseg.recipes.union.court import MASK_ROW, Court
from tagseg.stages.classifier import classifier_scores
from tagseg.stages.context import Run
from tagseg.stages.outcome import Prediction
from tagseg.stages.shapes import Seen
from tagseg.stages.stage import Declared, Input, LabelMaps, Trained, found

__all__ = ["companions_of", "diagnosed", "told_apart"]

_TOLD = Declared("told-apart")

_ELSEWHERE = 2.0  # times as far off as in other classes of the scenes that it was fitted to
_ALONE = 0.5  # of a class's photos; above, what it comes with can be told from it


def diagnosed(
    run: Run,
    court: Court,
    masks: Prediction,
    labels: Sequence[LabelMaps],
    told: Sequence[float | None] | None = None,
) -> tuple[ClassTrust, ...]:
    """How far the final ``masks`` of each class can be trusted, in label order.

    Args:
        labels: of each round, with which the masks are compared.
        told: how well the classifier tells each class (:func:`told_apart`); None if not measured.
    """
    photos = run.photos

    def candidates(index: int) -> list[Labels]:
        shape = photos.image(index).shape[:2]
        return [labels_at(masks.labels(index), shape), *(of_round(index) for of_round in labels)]

    judged = court.expected(candidates, [masks.stage, *labels])
    tags, known = photos.tags, photos.dataset.known
    facts = []
    for tag, name in enumerate(photos.classes):
        rows = np.array(judged[tag], np.float64).reshape(-1, len(MASK_ROW))  # None becomes NaN
        expected, areas, inside, outside = rows.T
        holds = tags[:, tag] & known
        facts.append(
            ClassFacts(
                name,
                photos=int(holds.sum()),
                others=int((known & ~holds).sum()),
                quality=expected.tolist(),
                areas=areas.tolist(),
                told=told[tag] if told is not None else None,
                lead=float(np.median(inside - outside)) if len(rows) else None,
                companions={
                    photos.classes[other]: share
                    for other, share in companions_of(tags[known], tag).items()
                },
            )
        )
    spread = _ELSEWHERE * court.spread
    return tuple(class_trust(of_class, spread=spread) for of_class in facts)


def told_apart(run: Run, classifier: Trained[TopPoolClassifier], side: int) -> list[float | None]:
    """Average precision with which the classifier tells each class among the training photos.

    It has learned from them, in crops with regions hidden, for too short a time to know them by
    heart: what it does not find there again is tagged wrongly, or looks like something else.
    """

    def compute() -> list[float | None]:
        known = run.photos.dataset.known
        scores = classifier_scores(run, classifier.model, run.photos, side=side)[known]
        tags = run.photos.tags[known]
        values = average_precision(scores, tags)
        return [None if np.isnan(value) else round(float(value), 4) for value in values]

    nothing: list[float | None] = [None] * len(run.photos.classes)
    inputs: list[Input] = [classifier, run.photos_key]
    return found(run, _TOLD, compute, planned=nothing, settings=[Seen(side)], inputs=inputs).value


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
