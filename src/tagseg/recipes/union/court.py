"""Where candidates for labels are judged, by the classifier that learned from tags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from tagseg.data.transforms import factor_to, resized_shape
from tagseg.data.working import resized
from tagseg.evaluate.judge import Judge, Views, mask_features
from tagseg.maps import Image, Labels, label_of_tag
from tagseg.nets.top_pool import TopPoolClassifier
from tagseg.recipes.union.config import FusionSettings
from tagseg.run.workspace import Stage
from tagseg.stages.context import Plain, Run
from tagseg.stages.shapes import evenly
from tagseg.stages.stage import Declared, Found, Input, ScoreMaps, Trained, found, network_input

__all__ = ["Candidates", "Court", "Verdict"]

Masks = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Candidates = Callable[[int], Sequence[Labels]]  # of a photo, at working size, in one order

_VERDICT = Declared("verdict")
_QUALITY = Declared("expected-quality")
_AT_ONCE = 16  # pictures a forward pass


@dataclass(frozen=True)
class Verdict:
    """Expected IoU of each candidate, as a mean over classes, and which is best."""

    qualities: tuple[float, ...]
    stage: Stage

    @property
    def best(self) -> int:
        """Its place among the candidates; the first of equals."""
        return int(np.argmax(self.qualities))


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
        self._evidence, self._judge = evidence, judge

    def choose(
        self,
        candidates: Candidates,
        names: Sequence[str],
        inputs: Sequence[Input],
        number: int,
        settings: Sequence[object] = (),
    ) -> Verdict:
        """Which kind of candidates is best, over the classes of some of the photos.

        Args:
            candidates: of a photo, as many as ``names``.
            inputs: what they are made of.
            number: of the round.
            settings: what decides on them beside that.
        """
        some = self.some()

        def hear() -> list[float]:
            sums = np.zeros((len(self._run.photos.classes), len(names)))
            counts = np.zeros(len(sums))
            with self._run.task(f"judging {len(names)} ways to labels", len(some)) as ticks:
                for index in some:
                    tags = np.flatnonzero(self._run.photos.tags[index])
                    sums[tags] += self.qualities(index, candidates(index))
                    counts[tags] += 1
                    ticks.advance(1)
            held = counts > 0
            if not held.any():  # nothing to tell them by
                return [0.0] * len(names)
            return (sums[held] / counts[held, None]).mean(0).round(6).tolist()

        result: Found[list[float]] = found(
            self._run,
            _VERDICT.round(number),
            hear,
            planned=[0.0] * len(names),
            settings=[*self._decided_by(), _Names(tuple(names)), *settings],
            inputs=[self._classifier, self._evidence, *inputs],
        )
        verdict = Verdict(tuple(result.value), result.stage)
        if not self._run.split("train").photos.tags.any() or not verdict.qualities:
            return verdict
        best = verdict.best
        self._run.progress.say(
            f"labels of round {number}: {names[best]}, of {len(names)} ways the one with the "
            f"highest expected IoU ({verdict.qualities[best]:.2f}; "
            f"{min(verdict.qualities):.2f} to {max(verdict.qualities):.2f})"
        )
        return verdict

    def expected(self, candidates: Candidates, inputs: Sequence[Input]) -> list[list[list[float]]]:
        """Expected IoU and area of the first candidate, by class, of each of its photos."""
        photos = self._run.photos
        nothing: list[list[list[float]]] = [[] for _ in photos.classes]

        def hear() -> list[list[list[float]]]:
            rows: list[list[list[float]]] = [[] for _ in photos.classes]
            tagged = np.flatnonzero(photos.tags.any(1) & photos.dataset.known)
            with self._run.task("judging the masks", len(tagged)) as ticks:
                for index in tagged.tolist():
                    labels = candidates(index)
                    of_tags = self.qualities(index, labels, only_first=True)[:, 0]
                    for tag, quality in zip(
                        np.flatnonzero(photos.tags[index]), of_tags, strict=True
                    ):
                        area = float((labels[0] == label_of_tag(int(tag))).mean())
                        rows[tag].append([round(float(quality), 4), round(area, 4)])
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

    def qualities(
        self, index: int, candidates: Sequence[Labels], *, only_first: bool = False
    ) -> Float64:
        """Expected IoU (T, K) of the photo's T tags in each of K candidates.

        With ``only_first`` the classifier looks at the first candidate alone, and (T, 1) it is; the
        others still say how far all agree.
        """
        features = self.features(index, candidates, only_first=only_first)
        return np.stack([self._judge.quality(of_tag) for of_tag in features])

    def features(
        self, index: int, candidates: Sequence[Labels], *, only_first: bool = False
    ) -> list[Float64]:
        """Features (K, F) of the candidates for each of the photo's tags."""
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
        photos = self._run.photos
        tagged = np.flatnonzero(photos.tags.any(1) & photos.dataset.known)
        return tagged[evenly(len(tagged), self._settings.judged_photos)].tolist()
