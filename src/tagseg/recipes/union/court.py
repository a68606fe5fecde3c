"""Where candidates for labels are judged, by the classifier that learned from tags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from tagseg.data.transforms import factor_to, resized_shape
from tagseg.data.working import resized
from tagseg.evaluate.judge import FEATURES, Judge, Views, case_for, mask_features
from tagseg.maps import Image, Labels, label_of_tag
from tagseg.nets.top_pool import TopPoolClassifier
from tagseg.recipes.union.config import FusionSettings
from tagseg.run.workspace import Stage
from tagseg.stages.context import Plain, Run
from tagseg.stages.shapes import evenly
from tagseg.stages.stage import Declared, Input, ScoreMaps, Trained, found, network_input

__all__ = ["Candidates", "Court", "Verdict", "judged_places"]

Masks = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Candidates = Callable[[int], Sequence[Labels]]  # of a photo, at working size, in one order

MASK_ROW = ("expected", "area", "evidence inside", "evidence outside")
"""What is kept of each final mask: its expected IoU, and of what the judge saw."""

_VERDICT = Declared("verdict")
_OF_MASKS = Declared("verdict-on-masks")
_QUALITY = Declared("expected-quality", version=2)
_AT_ONCE = 16  # pictures a forward pass
_KEPT = 0.7  # of what speaks for the first, to be as good as it although smooth


@dataclass(frozen=True)
class Verdict:
    """What is said of each kind of candidates, as a mean over classes.

    Attributes:
        cases: how much speaks for it (:func:`tagseg.evaluate.judge.case_for`).
        qualities: its expected IoU, over the classes most of whose masks can be judged; None where
            these are not most of the classes.
        favourite: the one that is taken unless it has lost too much.
        kept: the fraction of what speaks for the first that must speak for the favourite. Labels
            along edges have the stronger case than a network's smooth answers, whatever is true, so
            that equals cannot be asked for.
    """

    cases: tuple[float, ...]
    qualities: tuple[float | None, ...]
    stage: Stage
    favourite: int | None = None
    kept: float = _KEPT

    @property
    def best(self) -> int:
        """The place of the one for which most speaks, or of the favourite."""
        first = int(np.argmax(self.cases))
        if self.favourite is None:
            return first
        enough = self.cases[self.favourite] >= self.kept * self.cases[first]
        return self.favourite if enough else first

    def near(self, tie: float) -> list[int]:
        """Places of those for which at most the fraction ``tie`` less speaks than for the first."""
        least = (1 - tie) * max(self.cases)
        return [place for place, case in enumerate(self.cases) if case >= least]


@dataclass(frozen=True)
class _Names(Plain):
    """Of candidates, in order."""

    candidates: tuple[str, ...]


@dataclass(frozen=True)
class _Sight(Plain):
    """How the judge looks."""

    judge_side: int
    judged_photos: int


class Court:
    """A judge at work on a run's photos.

    Args:
        classifier: that learned with regions hidden.
        evidence: its score maps.
        judge: weighs what is seen.

    Attributes:
        spread: how far the judge was off for classes that it was not fitted to.
    """

    def __init__(
        self,
        run: Run,
        settings: FusionSettings,
        classifier: Trained[TopPoolClassifier],
        evidence: ScoreMaps,
        judge: Judge,
    ) -> None:
        self._run, self._settings, self._classifier = run, settings, classifier
        self._evidence, self._judge, self.spread = evidence, judge, judge.spread

    def choose(
        self,
        candidates: Candidates,
        names: Sequence[str],
        inputs: Sequence[Input],
        number: int | None,
        settings: Sequence[object] = (),
        favourite: int | None = None,
        kept: float = _KEPT,
    ) -> Verdict:
        """Which kind of candidates is best, over the classes of some of the photos.

        Args:
            candidates: of a photo, as many as ``names``.
            inputs: what they are made of.
            number: of the round that they are labels of; None for the final masks.
            settings: what decides on them beside that.
            favourite, kept: as in :class:`Verdict`.
        """
        some, n_classes = self.some(), len(self._run.photos.classes)
        what = "masks" if number is None else "labels"

        def hear() -> list[list[float | None]]:
            heard: list[list[Float64]] = [[] for _ in range(n_classes)]
            with self._run.task(f"judging {len(names)} ways to {what}", len(some)) as ticks:
                for index in some:
                    tags = np.flatnonzero(self._run.photos.tags[index])
                    for tag, features in zip(
                        tags, self.features(index, candidates(index)), strict=True
                    ):
                        quality = self._judge.quality(features)
                        heard[tag].append(np.stack([case_for(features), quality]))
                    ticks.advance(1)
            return _means_over_classes(heard, len(names))

        unheard: list[list[float | None]] = [[0.0] * len(names)] * 2
        result = found(
            self._run,
            _OF_MASKS if number is None else _VERDICT.round(number),
            hear,
            planned=unheard,
            settings=[*self._decided_by(), _Names(tuple(names)), *settings],
            inputs=[self._classifier, self._evidence, *inputs],
        )
        cases, qualities = result.value
        found_cases = tuple(case or 0.0 for case in cases)
        verdict = Verdict(found_cases, tuple(qualities), result.stage, favourite, kept)
        if some:
            self._tell(verdict, names, what if number is None else f"{what} of round {number}")
        return verdict

    def _tell(self, verdict: Verdict, names: Sequence[str], what: str) -> None:
        best = verdict.best
        expected = verdict.qualities[best]
        iou = "too small to say how good" if expected is None else f"expected IoU {expected:.2f}"
        self._run.progress.say(
            f"{what}: {names[best]} ({iou}), one of {len(names)} ways; what "
            f"speaks for it: {verdict.cases[best]:.2f}, for the others {min(verdict.cases):.2f} to "
            f"{max(verdict.cases):.2f}"
        )

    def expected(
        self, candidates: Candidates, inputs: Sequence[Input]
    ) -> list[list[list[float | None]]]:
        """Of the first candidate, by class, of each of its photos, what :data:`MASK_ROW` names.

        The IoU is None where the mask is too small to say.
        """
        photos = self._run.photos
        nothing: list[list[list[float | None]]] = [[] for _ in photos.classes]

        def hear() -> list[list[list[float | None]]]:
            rows: list[list[list[float | None]]] = [[] for _ in photos.classes]
            tagged = np.flatnonzero(photos.tags.any(1) & photos.dataset.known)
            with self._run.task("judging the masks", len(tagged)) as ticks:
                for index in tagged.tolist():
                    features = self.features(index, candidates(index), only_first=True)
                    for tag, of_tag in zip(
                        np.flatnonzero(photos.tags[index]), features, strict=True
                    ):
                        rows[tag].append(self._row(of_tag))
                    ticks.advance(1)
            return rows

        return found(
            self._run,
            _QUALITY,
            hear,
            planned=nothing,
            settings=self._decided_by(),
            inputs=[self._classifier, self._evidence, *inputs],
        ).value

    def _row(self, features: Float64) -> list[float | None]:
        """What is kept of one mask with ``features`` (1, F)."""
        seen = [round(float(features[0, FEATURES.index(name)]), 4) for name in MASK_ROW[1:]]
        return [_or_none(self._judge.quality(features)[0]), *seen]

    def features(
        self, index: int, candidates: Sequence[Labels], *, only_first: bool = False
    ) -> list[Float64]:
        """Features (K, F) of the candidates for each of the photo's T tags.

        With ``only_first`` the classifier looks at the first candidate alone, and (1, F) it is; the
        others still say how far all agree.
        """
        photos = self._run.photos
        image, tags = photos.image(index), np.flatnonzero(photos.tags[index])
        evidence, labels = self._evidence(index), np.stack(candidates)
        rows = []
        for tag in tags.tolist():
            masks = labels == label_of_tag(tag)
            seen = masks[:1] if only_first else masks
            views = self._views(image, seen, tag)
            if only_first:
                fill = np.zeros(len(masks) - 1)
                views = Views(
                    views.seen, np.append(views.shown, fill), np.append(views.hidden, fill)
                )
            of_all = mask_features(image, masks, evidence[tag], views, len(tags))
            rows.append(of_all[:1] if only_first else of_all)
        return rows

    def _views(self, image: Image, masks: Masks, tag: int) -> Views:
        """How sure the classifier is of the class in the photo, in the masks alone, and without."""
        net = self._classifier.model.eval()
        shape = image.shape[:2]
        height, width = resized_shape(shape, factor_to(self._settings.judge_side, shape))
        small = resized(image, (width, height))
        size = (width, height)
        inside = np.stack(
            [
                cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5
                for mask in masks
            ]
        )[..., None]
        colour = np.array(net.backbone.preprocessing.mean_colour, np.uint8)
        pictures = np.concatenate(
            (small[None], np.where(inside, small, colour), np.where(inside, colour, small))
        )
        scores = []
        for first in range(0, len(pictures), _AT_ONCE):
            batch = pictures[first : first + _AT_ONCE]
            with network_input(self._run.setup.execution, batch) as x:
                scores.append(net.to(x.device)(x)[:, tag].float().sigmoid().cpu().numpy())
        seen = np.concatenate(scores).astype(np.float64)
        return Views(float(seen[0]), seen[1 : len(masks) + 1], seen[len(masks) + 1 :])

    def _decided_by(self) -> list[object]:
        how = self._settings
        return [self._judge, _Sight(how.judge_side, how.judged_photos)]

    def some(self) -> list[int]:
        """Indices of tagged photos by which ways are judged."""
        return judged_places(self._run, self._settings)


def judged_places(run: Run, settings: FusionSettings) -> list[int]:
    """Indices of as many tagged photos as are to be judged, evenly spread."""
    tagged = np.flatnonzero(run.photos.tags.any(1) & run.photos.dataset.known)
    return tagged[evenly(len(tagged), settings.judged_photos)].tolist()


def _means_over_classes(heard: Sequence[Sequence[Float64]], count: int) -> list[list[float | None]]:
    """Of cases and of qualities (2, K) of each class's photos; None where most are not known."""
    if not any(heard):  # nothing to tell them by
        return [[0.0] * count, [None] * count]
    every = [np.stack(of_class) for of_class in heard if of_class]  # (N, 2, K)
    cases = np.mean([of_class[:, 0].mean(0) for of_class in every], 0)
    known = [np.isfinite(of_class[:, 1]) for of_class in every]
    judged = np.stack([of_class.mean(0) > 0.5 for of_class in known])  # (classes, K)
    means = np.stack(
        [
            np.nansum(of_class[:, 1], 0) / sure.sum(0).clip(1)
            for of_class, sure in zip(every, known, strict=True)
        ]
    )
    sums = np.where(judged, means, 0.0).sum(0)
    most = judged.mean(0) > 0.5
    qualities = np.where(most, sums / judged.sum(0).clip(1), np.nan)
    return [[_or_none(value) for value in row] for row in (cases, qualities)]


def _or_none(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
