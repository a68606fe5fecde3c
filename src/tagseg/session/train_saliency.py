"""A saliency forest from a folder of photos and masks of their salient objects.

Such masks are training data of their own, as boxes are in the guided recipe: of photos beside the
ones to be segmented, never the ground truth of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tagseg.data.finding import find_masks, find_photos
from tagseg.data.images import decode_photo
from tagseg.data.masks import read_mask
from tagseg.data.text import readable
from tagseg.data.working import labels_at, working_image
from tagseg.errors import ConfigError, DataError, MaskError, TrainingError
from tagseg.evaluate.saliency import SaliencyScores
from tagseg.maps import BACKGROUND, IGNORE, Image, Labels, label_of_tag
from tagseg.priors.saliency.drfi import DrfiSettings, drfi_saliency, training_rows
from tagseg.priors.saliency.forest import RegionForest
from tagseg.run.engine import map_photos
from tagseg.run.files import check_file
from tagseg.run.progress import Progress

__all__ = ["MaskMeaning", "SaliencyTraining", "TrainedSaliency", "train_saliency"]

Float32 = npt.NDArray[np.float32]


Rows = tuple[Float32, Float32]


_OBJECT = label_of_tag(0)


_HELD_OUT = 10  # every 10th photo is scored and not trained on


@dataclass(frozen=True)
class MaskMeaning:
    """What the values of a mask mean. Raises ConfigError at values out of range.

    Attributes:
        void: value of pixels of which nothing is known, as 255 in VOC's masks; None: there is none.
        salient_from: least value that is salient; 128 suits grey masks with soft edges.
    """

    void: int | None = None
    salient_from: int = 1

    def __post_init__(self) -> None:
        for name in ("void", "salient_from"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 255:
                raise ConfigError(f"{name} is {value}", do="give a value from 1 to 255")

    def labels(self, path: Path) -> Labels:
        """The mask in a file, uint8 (H, W): 0 background, 1 salient, 255 not known.

        Raises MaskError if there is none, or if 255 stands beside other values and may mean both.
        """
        values = read_mask(path)
        if self.void is None and self.salient_from == 1:
            present = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
            if len(present[present > 0]) > 1 and present[-1] == IGNORE:
                raise MaskError(
                    "holds 255 beside other values, and what they mean is not told",
                    where=path,
                    do="say --void 255 for class ids, --salient-from 128 for soft grey masks",
                )
        labels = np.where(values >= self.salient_from, _OBJECT, BACKGROUND).astype(np.uint8)
        if self.void is not None:
            labels[values == self.void] = IGNORE
        return labels


@dataclass(frozen=True)
class SaliencyTraining:
    """The numbers of a training. Raises ConfigError at numbers out of range.

    Attributes:
        trees, max_leaves: of the forest.
        max_photos: use at most so many photos, drawn; None for all.
        max_rows: most regions to train on, spread evenly over the photos; 93 floats each.
        seed: of all draws.
    """

    trees: int = 200
    max_leaves: int | None = None
    max_photos: int | None = None
    max_rows: int = 200_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("trees", "max_photos"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}", do="give 1 or more")
        if self.max_rows < 2:
            raise ConfigError(f"max_rows is {self.max_rows}", do="give 2 or more")


@dataclass(frozen=True)
class TrainedSaliency:
    """What :func:`train_saliency` did.

    Attributes:
        forest: as it was written.
        photos: how many it was trained on.
        rows: how many regions, half of them salient.
        scores: of the photos held out, by :class:`~tagseg.evaluate.saliency.SaliencyScores`.
        unpaired: photos without a mask and masks without a photo.
    """

    forest: RegionForest
    photos: int
    rows: int
    scores: dict[str, float]
    unpaired: int

    def lines(self) -> list[str]:
        """What a person wants to know, one thing a line."""
        told = [f"trained on {self.rows} regions of {self.photos} photos"]
        if self.unpaired:
            told.append(f"note: {self.unpaired} photos or masks have no partner of the same name")
        if self.scores["photos_with_objects"]:
            figures = "MAE {mae:.3f}, max F {max_f:.3f}, mean IoU {mean_iou:.3f}"
            told.append(
                f"on {self.scores['photos']} photos held out: {figures.format(**self.scores)}"
            )
        else:
            told.append("quality was not measured: too few photos to hold any out")
        return told


def train_saliency(
    photos: Path,
    masks: Path,
    out: Path,
    numbers: SaliencyTraining = SaliencyTraining(),
    *,
    meaning: MaskMeaning | None = None,
    settings: DrfiSettings | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> TrainedSaliency:
    """Train DRFI's forest (Jiang et al. 2013) on photos and masks of the same names; write it.

    Every 10th photo is left out of training and scored, so that the figures are those of the very
    forest that is written; with fewer than 10 photos nothing is measured. Salient regions and
    others count alike: of the commoner kind as many are drawn as there are of the other.

    Args:
        photos: folder of photos, or VOC's with ``JPEGImages``.
        masks: folder of masks, with the photos' names and sizes.
        out: file of the forest, ``.safetensors``.
        meaning: of the masks' values; by default 0 is background and the rest salient.
        settings: of the regions and their features, by default DRFI's.
        threads: photos, then trees, at a time; the same file for any number.

    Raises:
        DataError: photos or masks cannot be used; the line names the file.
        TrainingError: there are no salient regions, or nothing else.
        WorkspaceError: the file cannot be written.
    """
    settings, meaning = settings or DrfiSettings(), meaning or MaskMeaning()
    progress = progress if progress is not None else Progress()
    _check_place(out)
    seed = numbers.seed
    pairs, unpaired = _pairs(Path(photos), Path(masks), numbers.max_photos, seed)
    held_out, trained = pairs[_HELD_OUT - 1 :: _HELD_OUT], list(pairs)
    del trained[_HELD_OUT - 1 :: _HELD_OUT]
    share = max(2, numbers.max_rows // len(trained))

    def rows(pair: _Pair) -> Rows:
        drawn = np.random.default_rng([seed, pair.number])
        return _some_rows(training_rows(*pair.read(meaning, settings), settings), share, drawn)

    with progress.task("features of regions", len(trained)) as ticks:
        parts = list(map_photos(rows, trained, workers=threads, progress=ticks))
    features, targets = _balanced(parts, np.random.default_rng([seed, len(pairs)]), masks)
    progress.say(f"fitting {numbers.trees} trees to {len(targets)} regions")
    forest = RegionForest.fit(
        features,
        targets,
        trees=numbers.trees,
        max_leaves=numbers.max_leaves,
        seed=seed,
        jobs=threads,
    )
    about = {"trained_on": readable(Path(masks).absolute().name), "photos": str(len(trained))}
    forest = replace(forest, about=about)
    scores = _scores(forest, held_out, meaning, settings, threads, progress)
    forest.save(out)
    return TrainedSaliency(forest, len(trained), len(targets), scores, unpaired)


@dataclass(frozen=True)
class _Pair:
    """A photo and its mask; ``number`` is its place among all of them, for its draws."""

    name: str
    number: int
    photo: Path
    mask: Path

    def read(self, meaning: MaskMeaning, settings: DrfiSettings) -> tuple[Image, Labels]:
        """Photo and mask at working size."""
        image, labels = decode_photo(self.photo), meaning.labels(self.mask)
        if labels.shape != image.shape[:2]:
            raise MaskError(
                f"the mask is {labels.shape[0]} x {labels.shape[1]}, "
                f"the photo {image.shape[0]} x {image.shape[1]}",
                where=self.mask,
                do="give a mask of the photo's height and width",
            )
        small = working_image(image, settings.side)
        return small, labels_at(labels, (small.shape[0], small.shape[1]))


def _check_place(out: Path) -> None:
    if out.is_dir():
        raise ConfigError("is a folder", where=out, do="name a file, such as forest.safetensors")
    if not out.absolute().parent.is_dir():
        raise ConfigError("its folder does not exist", where=out, do="make the folder first")
    check_file(out)


def _pairs(photos: Path, masks: Path, most: int | None, seed: int) -> tuple[list[_Pair], int]:
    """Photos that have a mask, by name, and how many photos and masks have no partner."""
    within = photos / "JPEGImages"
    found, labelled = find_photos(within if within.is_dir() else photos), find_masks(masks)
    names = sorted(found.keys() & labelled.keys())
    if not names:
        raise DataError(
            f"none of its {len(labelled)} masks has the name of one of {len(found)} photos",
            where=masks,
            do="give each mask its photo's name",
        )
    unpaired = len(found.keys() ^ labelled.keys())
    if most is not None and most < len(names):
        drawn = np.random.default_rng(seed).choice(len(names), most, replace=False)
        names = [names[i] for i in np.sort(drawn)]
    return [_Pair(n, i, found[n], labelled[n]) for i, n in enumerate(names)], unpaired


def _some_rows(rows: Rows, most: int, rng: np.random.Generator) -> Rows:
    """At most ``most`` of a photo's rows, half of either kind as far as there are."""
    features, targets = rows
    kept = [_draw(np.flatnonzero(targets == kind), most // 2, rng) for kind in (0, 1)]
    chosen = np.concatenate(kept)
    return features[chosen], targets[chosen]


def _balanced(parts: list[Rows], rng: np.random.Generator, masks: Path) -> Rows:
    """All photos' rows, of either kind as many as there are of the rarer one."""
    targets = np.concatenate([part[1] for part in parts])
    places = [np.flatnonzero(targets == kind) for kind in (0, 1)]
    fewest = min(map(len, places))
    if not fewest:
        missing = "salient" if len(places[0]) else "background"
        raise TrainingError(
            f"no region of the photos is {missing} by its mask",
            where=masks,
            do="check what the masks' values mean (--void, --salient-from)",
        )
    chosen = np.sort(np.concatenate([_draw(place, fewest, rng) for place in places]))
    return np.concatenate([part[0] for part in parts])[chosen], targets[chosen]


def _draw(
    places: npt.NDArray[np.intp], most: int, rng: np.random.Generator
) -> npt.NDArray[np.intp]:
    return places if len(places) <= most else np.sort(rng.choice(places, most, replace=False))


def _scores(
    forest: RegionForest,
    pairs: list[_Pair],
    meaning: MaskMeaning,
    settings: DrfiSettings,
    threads: int,
    progress: Progress,
) -> dict[str, float]:
    scores = SaliencyScores()

    def found(pair: _Pair) -> tuple[npt.NDArray[np.float32], Labels]:
        image, labels = pair.read(meaning, settings)
        return drfi_saliency(image, forest, settings), labels

    with progress.task("scoring photos held out", len(pairs)) as ticks:
        maps: Iterator = map_photos(found, pairs, workers=threads, progress=ticks)
        for saliency, labels in maps:
            scores.update(saliency, labels)
    return scores.summary()
