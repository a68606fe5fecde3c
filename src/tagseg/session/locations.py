"""Average maps of a run's evidence and of ground truth, by class (Saleh et al., Figure 9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from tagseg.evaluate.location import AverageMaps
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.maps import IGNORE, labels_of_tags
from tagseg.report.page import AverageLocation
from tagseg.run.engine import map_photos
from tagseg.run.workspace import Stage
from tagseg.stages.context import Run, Split
from tagseg.stages.outcome import Locations

__all__ = ["average_locations", "read_averages", "true_average", "write_averages"]

_Planes = tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_] | None]
_FILE, _STORE = "locations", "average-locations"


def average_locations(
    run: Run,
    locations: Sequence[Locations],
    truth: GroundTruth | None,
    indices: Sequence[int] | None = None,
) -> list[AverageLocation]:
    """Ground truth first, if a photo has any, then each kind of maps.

    Args:
        indices: of training photos; all if not given. Photos without tags are in no mean.
    """
    if not locations:
        return []
    chosen = range(len(run.photos)) if indices is None else indices
    tagged = [i for i in chosen if run.photos.tags[i].any()]
    found = [] if truth is None else true_average(run, truth, tagged)
    for kind in locations:
        found.append(_average(run, kind.title, tagged, partial(_planes_of, kind)))
    return found


def true_average(
    run: Run, truth: GroundTruth, indices: Sequence[int], split: Split = "train"
) -> list[AverageLocation]:
    """Of the photos that have ground truth; nothing if none has. Ignored pixels do not count."""
    photos = run.split(split).photos
    annotated = [i for i in indices if truth.has(photos.names[i])]
    if not annotated:
        return []

    def planes(index: int) -> _Planes:
        labels = truth.labels(photos.names[index], photos.full_shape(index))
        present = labels_of_tags(photos.tags[index])[1:]
        return labels == present[:, None, None], labels != IGNORE

    return [_average(run, "ground truth", annotated, planes, split)]


def _planes_of(kind: Locations, index: int) -> _Planes:
    return kind.maps(index), None


def _average(
    run: Run,
    title: str,
    indices: Sequence[int],
    planes: Callable[[int], _Planes],
    split: Split = "train",
) -> AverageLocation:
    photos = run.split(split).photos
    average = AverageMaps(len(photos.classes))
    named = [(photos.names[i], i) for i in indices]
    with run.task(f"average locations: {title}", len(named)) as ticks:
        maps = map_photos(
            lambda item: planes(item[1]), named, workers=run.setup.threads, progress=ticks
        )
        for index, (found, known) in zip(indices, maps, strict=True):
            average.update(found, photos.tags[index], known)
    return AverageLocation(title, average.mean().astype(np.float32), average.photos.tolist())


def write_averages(stage: Stage, averages: Sequence[AverageLocation]) -> None:
    """Keep averages in a stage, if there are any."""
    if not averages:
        return
    store = stage.maps(_STORE)
    for place, kind in enumerate(averages):
        store.put(f"{place}", maps=np.asarray(kind.maps), photos=np.asarray(kind.photos, np.int64))
    stage.save_json(_FILE, [kind.title for kind in averages])


def read_averages(stage: Stage) -> list[AverageLocation]:
    """Those that a stage keeps; none of a run that was made before there were any."""
    if not stage.holds(f"{_FILE}.json"):
        return []
    store = stage.maps(_STORE)
    kept = [(title, store.get(f"{i}")) for i, title in enumerate(stage.load_json(_FILE))]
    return [AverageLocation(title, a["maps"], a["photos"].tolist()) for title, a in kept]
