"""Scores of a run's products against ground truth, and what the report shows of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tagseg.data.ground_truth import GroundTruth
from tagseg.data.working import WorkingPhotos, labels_at
from tagseg.evaluate.masks import MaskScores, evaluate_masks
from tagseg.evaluate.scores import average_precision
from tagseg.maps import Image, Labels
from tagseg.recipes.base import Outcome, Product, Run
from tagseg.recipes.seed_scoring import find_seed_maps, score_seeds, seed_scores_from
from tagseg.report.figures import overlay, shrink
from tagseg.report.page import GalleryItem, SeedScore, StageScore, TagScore
from tagseg.run.workspace import Stage

__all__ = ["Findings", "LabelsByName", "examine", "key_of_truth", "score_product"]

_MOST_TRAINING_PHOTOS = 500  # that are scored, evenly spread
_EXAMPLES = 4  # best, median and worst photos each
_SIDE = 240  # pixels of a gallery picture


@dataclass(frozen=True)
class Findings:
    """What :func:`examine` found, as JSON and pictures in a stage."""

    stage: Stage

    def scores(self) -> list[StageScore]:
        """mIoU and IoU per label of every product that could be scored."""
        return [StageScore(**row) for row in self.stage.load_json("scores")]

    def confusion(self) -> tuple[np.ndarray | None, str]:
        """Confusion counts of the last scored product, and which that is."""
        found = self.stage.load_json("confusion")
        counts = found["counts"]
        return (np.array(counts, np.int64) if counts is not None else None), found["of"]

    def tag_score(self) -> TagScore | None:
        """Mean average precision of the tag classifier on the validation photos."""
        row = self.stage.load_json("tag_score")
        return TagScore(**row) if row is not None else None

    def seeds(self) -> list[SeedScore]:
        """Precision and recall of the recipe's score maps, and of the centre mean shape."""
        known = self.stage.path("seeds.json").is_file()  # runs of version 0.1 have none
        return seed_scores_from(self.stage.load_json("seeds")) if known else []

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
                )
            )
        return items


def examine(run: Run, outcome: Outcome, truth: GroundTruth | None, truth_key: str) -> Findings:
    """Score every product against ``truth`` and choose the photos to show.

    Training photos are scored on an even sample of at most 500.
    """
    inputs = [stage for product in outcome.products for stage in product.stages]
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
    with run.stage("findings", limits, [*dict.fromkeys(inputs), truth_key, run.val_key]) as stage:
        if stage.pending:
            _fill(run, outcome, truth, stage)
            indices = _chosen(run, maps[0].split) if maps else []
            stage.save_json("seeds", score_seeds(run, maps, truth, indices))
    return Findings(stage)


def _fill(run: Run, outcome: Outcome, truth: GroundTruth | None, stage: Stage) -> None:
    rows, confusion = [], {"counts": None, "of": ""}
    results: dict[str, MaskScores] = {}
    with run.task("scoring", len(outcome.products)) as ticks:
        for product in outcome.products:
            scored = score_product(run, product, truth)
            if scored is not None:
                results[product.split] = scored
                of = f"{product.title}, {product.split}"
                confusion = {"counts": scored.confusion.counts.tolist(), "of": of}
                rows.append(_row(product, scored))
            ticks.advance(1)
    stage.save_json("scores", rows)
    stage.save_json("confusion", confusion)
    stage.save_json("tag_score", _tag_score(run, outcome))
    entries = []
    store = stage.maps("gallery")
    for split in ("val", "train"):
        for rank, name, score in _examples(run, split, results.get(split)):
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
    """A product's labels by photo name, at the photos' own sizes, made when asked for."""

    def __init__(self, product: Product, photos: WorkingPhotos, indices: Sequence[int]) -> None:
        self.product, self.photos = product, photos
        self.indices = {photos.names[i]: i for i in indices}

    def __getitem__(self, name: str) -> Labels:
        index = self.indices[name]
        return labels_at(self.product.labels(index), self.photos.full_shape(index))

    def __contains__(self, name: object) -> bool:
        return name in self.indices

    def __iter__(self) -> Iterator[str]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


def score_product(run: Run, product: Product, truth: GroundTruth | None) -> MaskScores | None:
    """Compare a product with ground truth, at the photos' own sizes; None where there is none.

    Training photos are scored on an even sample of at most 500.
    """
    photos = _photos(run, product.split)
    labels = LabelsByName(product, photos, _chosen(run, product.split))
    if truth is None or not any(truth.has(name) for name in labels):
        return None
    if not product.by_class:
        return _score_foreground(labels, truth)
    return evaluate_masks(labels, truth, photos.classes, names=list(labels))


def _score_foreground(labels: Mapping[str, Labels], truth: GroundTruth) -> MaskScores:
    """Foreground against background, for masks that tell no classes apart."""
    names = [name for name in labels if truth.has(name)]
    either = {}
    for name in names:
        full = truth.labels(name, labels[name].shape)  # type: ignore[arg-type]
        either[name] = np.where((full > 0) & (full < 255), 1, full).astype(np.uint8)
    return evaluate_masks(labels, GroundTruth(either, ("object",)), ("object",), names=names)


def _row(product: Product, scored: MaskScores) -> dict[str, Any]:
    iou = [_known(value) for value in scored.confusion.iou()]
    return {
        "stage": product.title,
        "split": product.split,
        "miou": _known(scored.miou),
        "iou": iou if product.by_class else None,
        "photos": len(scored.photos),
        "note": "" if product.by_class else "foreground against background",
    }


def _tag_score(run: Run, outcome: Outcome) -> dict[str, Any] | None:
    if run.val is None or outcome.tag_scores is None or not run.val.dataset.known.all():
        return None
    precision = average_precision(outcome.tag_scores(), run.val.tags)
    if np.isnan(precision).all():  # no class has a validation photo
        return None
    return {
        "split": "val",
        "mean": float(np.nanmean(precision)),
        "average_precision": [_known(value) for value in precision],
        "photos": len(run.val),
    }


def _known(value: float) -> float | None:
    """A score, or None where it is not defined."""
    return None if np.isnan(value) else float(value)


def _examples(
    run: Run, split: str, scored: MaskScores | None
) -> list[tuple[str, str, float | None]]:
    """(rank, name, score) of the photos to show; those without a class are no test of anything."""
    photos = _photos(run, split)
    if scored is not None:
        tagged = {n for n, t in zip(photos.names, photos.tags, strict=True) if t.any()}
        shown = {name: score for name, score in scored.photos.items() if name in tagged}
        found = replace(scored, photos=shown or scored.photos).examples(_EXAMPLES)
        return [
            (rank, name, float(scored.photos[name]))
            for rank in ("best", "median", "worst")
            for name in found[rank]
        ]
    if split == "val" and run.val is None:
        return []
    indices = {int(i) for i in np.linspace(0, len(photos) - 1, min(len(photos), 2 * _EXAMPLES))}
    return [("sample", photos.names[i], None) for i in sorted(indices)]


def _panels(
    run: Run, outcome: Outcome, truth: GroundTruth | None, split: str, name: str
) -> tuple[Image, list[tuple[str, Image]]]:
    """The photo and its pictures: intermediate maps, each product, ground truth."""
    photos = _photos(run, split)
    index = photos.names.index(name)
    photo = photos.image(index)
    panels = []
    if split == "train":
        panels += [(title, view(index)) for title, view in outcome.views]
    for product in outcome.products:
        if product.split == split:
            labels = labels_at(product.labels(index), photo.shape[:2])
            panels.append((product.title, overlay(photo, labels)))
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
