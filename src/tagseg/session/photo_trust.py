"""How far the mask of each photo can be trusted, so that a person sees the worst ones first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tagseg.data.dataset import Dataset
from tagseg.data.working import labels_at
from tagseg.errors import TagsegError
from tagseg.maps import IGNORE, Image, Labels
from tagseg.run.workspace import Workspace
from tagseg.session.label_maps import LabelMapsOfRun

__all__ = ["Measure", "agreement", "judged", "margin", "measure_of"]

_JUDGED = "expected-quality"  # the stage in which a recipe says it of each photo's masks

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Measure:
    """By what photos are put in order.

    Attributes:
        about: what it is, for people.
        key: of what it is computed from.
        known: trust of each photo, 1 for the best, if the run says it; else it is computed.
        of_photo: computes that of a photo, by its index.
    """

    about: str
    key: str
    known: Float32 | None
    of_photo: Callable[[int], float]


def measure_of(
    run: Path,
    work: Workspace,
    photos: Dataset,
    maps: Sequence[LabelMapsOfRun],
) -> Measure:
    """The judge's word, else agreement of the run's label maps, else the segmenter's doubt.

    Args:
        photos: with the tags that the run learned with.
        maps: of the run, the final masks first.
    """
    known = judged(work, photos)
    if known is not None:
        about = "the run's judge (each photo's worst class)"
        return Measure(about, "", known, lambda index: float(known[index]))
    key = blake2b(" ".join(f"{m.id} {m.key}" for m in maps).encode(), digest_size=8).hexdigest()
    if len(maps) > 1:
        about = f"how far {len(maps)} label maps of the run agree (each photo's worst class)"
        return Measure(about, f"agreement-{key}", None, _Agreement(photos, maps))
    return Measure("how sure the segmenter is", f"margin-{key}", None, _Margin(run, photos))


def judged(work: Workspace, photos: Dataset) -> Float32 | None:
    """What the run's judge says of each photo: the least expected IoU of its classes.

    A class of which it cannot say anything, as its mask is all but empty, counts as -1, a photo
    without tags as 1. None where there is no judge, or it saw other photos.
    """
    try:
        rows = work.finished(_JUDGED).load_json("found")
    except TagsegError:
        return None
    tags = photos.tags & photos.known[:, None]
    numbers = [len(of_class) for of_class in rows]
    if numbers != tags.sum(0).tolist():
        return None
    trust = np.ones(len(photos), np.float32)
    for tag, of_class in enumerate(rows):  # a row a photo: expected IoU, and the mask's area
        for index, (quality, *_) in zip(np.flatnonzero(tags[:, tag]), of_class, strict=True):
            trust[index] = min(trust[index], -1.0 if quality is None else quality)
    return trust


def agreement(maps: Sequence[Labels], tags: npt.NDArray[np.bool_]) -> float:
    """How far the first label map agrees with the others: 0 not at all, 1 to the pixel.

    The IoU of each tag, as a mean over the other maps; of the tags the least. Pixels that the
    other map is not sure of do not count.

    Examples:
        >>> import numpy as np
        >>> cat = np.array([[1, 1, 0, 0]], np.uint8)
        >>> half = np.array([[1, 0, 0, 0]], np.uint8)
        >>> agreement([cat, cat, half], np.array([True]))
        0.75
    """
    first, present = maps[0], np.flatnonzero(tags) + 1
    if not len(present) or len(maps) < 2:
        return 1.0
    rows = [[_iou(first, labels_at(m, first.shape), int(k)) for k in present] for m in maps[1:]]
    return float(np.mean(rows, axis=0).min())


def _iou(first: Labels, other: Labels, label: int) -> float:
    counted = other != IGNORE
    a, b = (first == label) & counted, (other == label) & counted
    union = int(np.count_nonzero(a | b))
    return np.count_nonzero(a & b) / union if union else 0.0


@dataclass(frozen=True)
class _Agreement:
    photos: Dataset
    maps: Sequence[LabelMapsOfRun]

    def __call__(self, index: int) -> float:
        """Agreement of the maps that a photo has, at the size of the smallest."""
        name = self.photos.names[index]
        found = [self.maps[0].read(name)]
        for maps in self.maps[1:]:
            try:
                found.append(maps.read(name))
            except (TagsegError, KeyError):
                continue
        shape = min((labels.shape for labels in found), key=lambda shape: shape[0] * shape[1])
        return agreement([labels_at(m, shape) for m in found], self.photos.tags[index])


def margin(probs: npt.NDArray[np.float32]) -> float:
    """How sure a segmenter is: the mean over pixels by which the first label leads the second.

    Args:
        probs: of the labels (L, h, w).
    """
    if len(probs) < 2:
        return 1.0
    top = np.partition(probs, len(probs) - 2, axis=0)[-2:]
    return float((top[1] - top[0]).mean())


class _Margin:
    """The margin of a run's segmenter, which is loaded with the first photo."""

    def __init__(self, run: Path, photos: Dataset) -> None:
        self._run, self._photos = run, photos
        self._segment: Callable[[Image], npt.NDArray[np.float32]] | None = None

    def __call__(self, index: int) -> float:
        if self._segment is None:
            from tagseg.session.export import load_segmenter

            segmenter = load_segmenter(self._run)
            self._segment = lambda image: segmenter.probabilities(image, refine=False)
        return margin(self._segment(self._photos.image(index)))
