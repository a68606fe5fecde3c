"""Scores of a run's predictions against ground truth, and what the report shows of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tagseg.data.dataset import Dataset
from tagseg.data.masks import voc_palette
from tagseg.data.working import WorkingPhotos, labels_at
from tagseg.evaluate.confusion import ConfusionMatrix
from tagseg.evaluate.foreground import ForegroundScores, foreground_scores
from tagseg.evaluate.masks import MaskScores, evaluate_masks
from tagseg.evaluate.scores import average_precision
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.maps import Image, Labels
from tagseg.report.figures import overlay, shrink
from tagseg.report.page import (
    FOREGROUND_COLOUR,
    AverageLocation,
    ForegroundIou,
    GalleryItem,
    Measure,
    SeedScore,
    StageScore,
    TagScore,
)
from tagseg.run.workspace import Stage
from tagseg.session.locations import average_locations, read_averages, write_averages
from tagseg.session.seed_scoring import find_seed_maps, score_seeds, seed_scores_from
from tagseg.stages.context import Run
from tagseg.stages.outcome import Outcome, Prediction
from tagseg.stages.shapes import evenly

__all__ = [
    "Findings",
    "LabelsByName",
    "examine",
    "key_of_truth",
    "score_foreground",
    "score_prediction",
]

_MOST_TRAINING_PHOTOS = 500  # that are scored, evenly spread


_EXAMPLES = 4  # best, median and worst photos each


_GOOD_IOU = 0.6  # of foreground, Oh et al. 2017, 5.1


_SIDE = 240  # pixels of a gallery picture


_OF_ANY_CLASS = voc_palette().copy()


_OF_ANY_CLASS[1] = FOREGROUND_COLOUR


@dataclass(frozen=True)
class Findings:
    """What :func:`examine` found, as JSON and pictures in a stage."""

    stage: Stage

    def scores(self) -> list[StageScore]:
        """mIoU and IoU per label of every prediction that could be scored."""
        scores = [StageScore(**row) for row in self.stage.load_json("scores")]
        return [
            replace(score, foreground=tuple(ForegroundIou(*found) for found in score.foreground))
            for score in scores
        ]

    def confusion(self) -> tuple[np.ndarray | None, str]:
        """Confusion counts of the last scored prediction that tells classes apart, and its name."""
        found = self.stage.load_json("confusion")
        counts = found["counts"]
        return (np.array(counts, np.int64) if counts is not None else None), found["of"]

    def tag_score(self) -> TagScore | None:
        """Mean average precision of the tag classifier on the validation photos."""
        row = self.stage.load_json("tag_score")
        return TagScore(**row) if row is not None else None

    def seeds(self) -> list[SeedScore]:
        """Precision and recall of the recipe's score maps, and of the centre mean shape."""
        known = self.stage.holds("seeds.json")  # runs of version 0.1 have none
        return seed_scores_from(self.stage.load_json("seeds")) if known else []

    def locations(self) -> list[AverageLocation]:
        """Average maps of each class, of ground truth and of the recipe's evidence."""
        return read_averages(self.stage)

    def gallery(self) -> list[GalleryItem]:
        """The photos that the report shows."""
        pictures = self.stage.maps("gallery")
        items = []
        for entry in self.stage.load_json("gallery"):
            arrays = pictures.get(entry["key"])
            panels = tuple((title, arrays[f"p{i}"]) for i, title in enumerate(entry["panels"]))
            items.append(
                GalleryItem(
                    entry["name"],
                    entry["split"],
                    entry["rank"],
                    entry["score"],
                    arrays["photo"],
                    panels,
                    entry.get("measure", "mIoU"),  # older runs have neither
                    entry.get("foreground", False),
                )
            )
        return items


def examine(run: Run, outcome: Outcome, truth: GroundTruth | None, truth_key: str) -> Findings:
    """Score every prediction against ``truth`` and choose the photos to show.

    Training photos are scored on an even sample of at most 500.
    """
    inputs = [prediction.stage for prediction in outcome.predictions]
    inputs += outcome.curves  # the tag classifier's scores and maps are shown too
    maps = find_seed_maps(run, outcome.seeds, truth)
    inputs += [found.stage for found in maps]
    thresholds = [[seeds.method, seeds.threshold] for seeds in outcome.seeds]
    limits = {
        "seeds": thresholds,
        "training_photos": _MOST_TRAINING_PHOTOS,
        "examples": _EXAMPLES,
        "side": _SIDE,
    }
    if not all(prediction.by_class for prediction in outcome.predictions):
        limits["foreground"] = f"by class, and IoU over {_GOOD_IOU}"
    made_from: list[str | Stage] = [*dict.fromkeys(inputs), truth_key, run.val_key]
    with run.stage("findings", limits, made_from).shared() as stage:
        if stage.pending:
            _count_together(run, outcome, truth, stage)
        if stage.pending and stage.ranks.leads:
            with stage.ranks.apart():
                _fill(run, outcome, truth, stage)
                indices = _chosen(run, maps[0].split) if maps else []
                stage.save_json("seeds", score_seeds(run, maps, truth, indices))
                shown = _chosen(run, "train")
                write_averages(stage, average_locations(run, outcome.locations, truth, shown))
    return Findings(stage)


def _count_together(run: Run, outcome: Outcome, truth: GroundTruth | None, stage: Stage) -> None:
    """Count the pixels of photos that processes share out; one alone counts while it scores."""
    ranks = stage.ranks
    for prediction in outcome.predictions if ranks.size > 1 and truth is not None else ():
        if not prediction.by_class:
            continue
        photos, counted = _photos(run, prediction.split), dict[str, ConfusionMatrix]()
        own = _chosen(run, prediction.split)[ranks.rank :: ranks.size]
        labels = LabelsByName(prediction, photos, own)
        if truth is not None and any(map(truth.has, labels)):
            evaluate_masks(labels, truth, photos.classes, names=list(labels), measured=counted)
        kept = _Kept(stage, prediction)
        for part in ranks.brought(counted):
            for name, counts in part.items():
                kept[name] = counts


class _Scored(NamedTuple):
    """What was measured of a prediction; ``foreground`` if it tells no classes apart."""

    masks: MaskScores
    foreground: ForegroundScores | None


def _fill(run: Run, outcome: Outcome, truth: GroundTruth | None, stage: Stage) -> None:
    rows, confusion = [], {"counts": None, "of": ""}
    results: dict[str, _Scored] = {}
    with run.task("scoring", len(outcome.predictions)) as ticks:
        for prediction in outcome.predictions:
            scored = _score(run, prediction, truth, _Kept(stage, prediction))
            if scored is not None:
                results[prediction.split] = scored
                rows.append(_row(prediction, scored))
                if prediction.by_class:
                    counts = scored.masks.confusion.counts.tolist()
                    confusion = {"counts": counts, "of": f"{prediction.title}, {prediction.split}"}
            ticks.advance(1)
    stage.save_json("scores", rows)
    stage.save_json("confusion", confusion)
    stage.save_json("tag_score", _tag_score(run, outcome))
    _fill_gallery(run, outcome, truth, results, stage)


def _fill_gallery(
    run: Run,
    outcome: Outcome,
    truth: GroundTruth | None,
    results: Mapping[str, _Scored],
    stage: Stage,
) -> None:
    entries = []
    store = stage.maps("gallery")
    for split in ("val", "train"):
        scored = results.get(split)
        measure: Measure = "foreground IoU" if scored and scored.foreground else "mIoU"
        any_class = any(not p.by_class for p in outcome.predictions if p.split == split)
        for rank, name, score in _examples(run, split, scored):
            photo, panels = _panels(run, outcome, truth, split, name)
            key = f"{split}/{name}"
            store.put(key, photo=photo, **{f"p{i}": p for i, (_, p) in enumerate(panels)})
            titles = [title for title, _ in panels]
            entries.append(
                {
                    "key": key,
                    "name": name,
                    "split": split,
                    "rank": rank,
                    "score": score,
                    "panels": titles,
                    "measure": measure,
                    "foreground": any_class,
                }
            )
    stage.save_json("gallery", entries)


def _photos(run: Run, split: str) -> WorkingPhotos:
    if split == "val" and run.val is not None:
        return run.val
    return run.photos


def _chosen(run: Run, split: str) -> list[int]:
    count = len(_photos(run, split))
    most = count if split == "val" else min(count, _MOST_TRAINING_PHOTOS)
    return sorted({int(i) for i in np.linspace(0, count - 1, most)})


class LabelsByName(Mapping[str, Labels]):
    """A prediction's labels by photo name, at the photos' own sizes, made when asked for."""

    def __init__(
        self, prediction: Prediction, photos: WorkingPhotos, indices: Sequence[int]
    ) -> None:
        self.prediction, self.photos = prediction, photos
        self.indices = {photos.names[i]: i for i in indices}

    def __getitem__(self, name: str) -> Labels:
        index = self.indices[name]
        return labels_at(self.prediction.labels(index), self.photos.full_shape(index))

    def __contains__(self, name: object) -> bool:
        return name in self.indices

    def __iter__(self) -> Iterator[str]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def score_prediction(
    run: Run, prediction: Prediction, truth: GroundTruth | None
) -> MaskScores | None:
    """Compare a prediction with ground truth, at the photos' own sizes; None where there is none.

    Training photos are scored on an even sample of at most 500. Where a prediction tells no classes
    apart, foreground is scored against background, and each photo by the IoU of its foreground.
    """
    scored = _score(run, prediction, truth)
    return None if scored is None else scored.masks


def score_foreground(
    run: Run, prediction: Prediction, truth: GroundTruth | None
) -> ForegroundScores | None:
    """Score the foreground alone, by class of photo (Jing et al., Table IV)."""
    labels = _comparable(run, prediction, truth)
    if truth is None or labels is None:
        return None
    photos = labels.photos
    known = zip(photos.names, photos.tags, photos.dataset.known, strict=True)
    tags = {name: tags for name, tags, is_known in known if is_known}
    return foreground_scores(labels, truth, tags, photos.classes, names=list(labels))


class _Kept:
    """Pixel counts of a prediction's photos, which are not counted again after an interruption."""

    def __init__(self, stage: Stage, prediction: Prediction) -> None:
        self._stage = stage
        self._prefix = f"{prediction.split}/{prediction.id}/{prediction.number}"

    def get(self, name: str) -> ConfusionMatrix | None:
        store, key = self._stage.maps("measured"), f"{self._prefix}/{name}"
        if key not in store:
            return None
        counts = store.get(key)["counts"]
        confusion = ConfusionMatrix(len(counts))
        confusion.counts[:] = counts
        return confusion

    def __setitem__(self, name: str, counts: ConfusionMatrix) -> None:
        self._stage.maps("measured").put(f"{self._prefix}/{name}", counts=counts.counts)


def _score(
    run: Run, prediction: Prediction, truth: GroundTruth | None, kept: _Kept | None = None
) -> _Scored | None:
    if not prediction.by_class:
        found = score_foreground(run, prediction, truth)
        if found is None:
            return None
        return _Scored(MaskScores(("object",), found.confusion, found.photos), found)
    labels = _comparable(run, prediction, truth)
    if truth is None or labels is None:
        return None
    classes = labels.photos.classes
    scores = evaluate_masks(labels, truth, classes, names=list(labels), measured=kept)
    return _Scored(scores, None)


def _comparable(run: Run, prediction: Prediction, truth: GroundTruth | None) -> LabelsByName | None:
    """The labels of the photos to score; None if none of them has ground truth."""
    photos = _photos(run, prediction.split)
    labels = LabelsByName(prediction, photos, _chosen(run, prediction.split))
    return labels if truth is not None and any(map(truth.has, labels)) else None


def _row(prediction: Prediction, scored: _Scored) -> dict[str, Any]:
    masks, found = scored
    row = {
        "id": prediction.id,
        "number": prediction.number,
        "stage": prediction.title,
        "split": prediction.split,
        "miou": _known(masks.miou),
        "iou": [_known(value) for value in masks.confusion.iou()] if found is None else None,
        "photos": len(masks.photos),
        "note": "" if found is None else _foreground_note(found),
    }
    if found is None:
        return row
    by_class = zip(found.classes, found.iou(), found.counts(), strict=True)
    return row | {
        "foreground": [[name, _known(iou), int(count)] for name, iou, count in by_class],
        "foreground_average": _known(found.average()),
    }


def _foreground_note(found: ForegroundScores) -> str:
    """What stands beside the score of masks that tell no classes apart."""
    note, share = "foreground against background", found.share_over(_GOOD_IOU)
    if np.isnan(share):
        return note
    return f"{note}; IoU over {_GOOD_IOU} in {100 * share:.0f} % of the photos"


def _tag_score(run: Run, outcome: Outcome) -> dict[str, Any] | None:
    if run.val is None or outcome.tag_scores is None or not run.val.dataset.known.all():
        return None
    precision = _precision(outcome.tag_scores(), run.val.dataset)
    if np.isnan(precision).all():  # no class has a validation photo
        return None
    return {
        "split": "val",
        "mean": float(np.nanmean(precision)),
        "average_precision": [_known(value) for value in precision],
        "photos": len(run.val),
    }


def _precision(scores: npt.NDArray[np.float32], photos: Dataset) -> npt.NDArray[np.float64]:
    """Average precision of each class, over the photos of which it is known."""
    if photos.unsure is None:
        return average_precision(scores, photos.tags)
    columns = zip(scores.T, photos.tags.T, ~photos.unsure.T, strict=True)
    of_each = [average_precision(s[known, None], t[known, None]) for s, t, known in columns]
    return np.concatenate(of_each)


def _known(value: float) -> float | None:
    """A score, or None where it is not defined."""
    return None if np.isnan(value) else float(value)


def _examples(run: Run, split: str, scored: _Scored | None) -> list[tuple[str, str, float | None]]:
    """(rank, name, score) of the photos to show; those without a class are no test of anything."""
    photos = _photos(run, split)
    if scored is not None:
        masks = scored.masks
        if scored.foreground is None:
            tagged = {n for n, t in zip(photos.names, photos.tags, strict=True) if t.any()}
            shown = {name: score for name, score in masks.photos.items() if name in tagged}
            masks = replace(masks, photos=shown or masks.photos)
        found = masks.examples(_EXAMPLES)
        return [
            (rank, name, float(masks.photos[name]))
            for rank in ("best", "median", "worst")
            for name in found[rank]
        ]
    if split == "val" and run.val is None:
        return []
    return [("sample", photos.names[i], None) for i in evenly(len(photos), 2 * _EXAMPLES)]


def _panels(
    run: Run, outcome: Outcome, truth: GroundTruth | None, split: str, name: str
) -> tuple[Image, list[tuple[str, Image]]]:
    """The photo and its pictures: intermediate maps, each prediction, ground truth."""
    photos = _photos(run, split)
    index = photos.names.index(name)
    photo = photos.image(index)
    panels = []
    if split == "train":
        panels += [(title, view(index)) for title, view in outcome.views]
    for prediction in outcome.predictions:
        if prediction.split == split:
            labels = labels_at(prediction.labels(index), photo.shape[:2])
            palette = None if prediction.by_class else _OF_ANY_CLASS
            panels.append((prediction.title, overlay(photo, labels, palette)))
    if truth is not None and truth.has(name):
        full = truth.labels(name, photos.full_shape(index))
        panels.append(("ground truth", overlay(photo, labels_at(full, photo.shape[:2]))))
    return shrink(photo, _SIDE), [(title, shrink(picture, _SIDE)) for title, picture in panels]


def key_of_truth(truth: GroundTruth | None) -> str:
    """Hash of the ground truth's masks, from names, sizes and times of change of the files."""
    if truth is None:
        return "no ground truth"
    total = hashlib.blake2b(digest_size=16)
    for name, state in truth.states():
        total.update(f"{name}\0{state}\n".encode())
    return total.hexdigest()
