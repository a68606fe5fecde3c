"""The label maps of training photos that a run keeps, whichever of its stages made them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt

from tagseg.data.dataset import Dataset
from tagseg.data.masks import decode_mask, read_mask
from tagseg.errors import DamagedError, TagsegError, printable
from tagseg.maps import IGNORE, Labels
from tagseg.run.manifest import read_manifest
from tagseg.run.map_store import PhotoStore
from tagseg.run.mask_files import MaskFiles
from tagseg.run.shard_store import SHARDS
from tagseg.run.stage import record_in
from tagseg.run.workspace import Stage, Workspace
from tagseg.stages.shapes import evenly

__all__ = ["FINAL", "LabelMapsOfRun", "find_label_maps", "stored_regions", "tell_classes"]

FINAL = "masks"
"""The stage, and the folder in it, of a run's final masks."""

_LOGGER = logging.getLogger(__name__)
_PLAIN_STORES = ("labels", FINAL)  # whose names say nothing
_LOOKED_AT = 24  # photos by which maps are known for what they are
_BYTES = "bytes"  # of a store's row that holds a file

Bools = npt.NDArray[np.bool_]
ReadMaps = Callable[[str], Mapping[str, Labels]]  # of a photo, by name


@dataclass(frozen=True)
class LabelMapsOfRun:
    """Label maps of the training photos, of any size.

    Attributes:
        id: by which they are told from others: the stage, and the store in it.
        title: for people.
        stage: where they are from.
        read: the labels of a photo; raises TagsegError or KeyError if it has none.
    """

    id: str
    title: str
    stage: Stage
    read: Callable[[str], Labels]

    @property
    def key(self) -> str:
        """Of the stage; other maps have another one."""
        return self.stage.key

    def are_there(self) -> bool:
        """Whether the run still holds them, and was not trained to others meanwhile."""
        record = record_in(self.stage.folder)
        return record is not None and record["key"] == self.key


def find_label_maps(work: Workspace, photos: Dataset) -> list[LabelMapsOfRun]:
    """The final masks first, then all other label maps of the photos, the latest first.

    Stages of validation photos do not count, nor maps that are no labels of the classes: what they
    hold for some of the photos decides, not what they are called. Of stores that hold the same to
    the bit the one with the plainest name counts.

    Raises WorkspaceError if the run is not finished, DamagedError if its masks are damaged.
    """
    final = _final(work)
    masks = work.finished(FINAL)
    own = _photos_key(masks)
    stages = [work.finished(entry.name) for entry in work.summary() if entry.name != FINAL]
    of_photos = [stage for stage in stages if _photos_key(stage) == own]
    found = [each for stage in reversed(of_photos) for each in _in_stage(stage, photos)]
    return [final, *_once(found)]


def tell_classes(work: Workspace, photos: Dataset) -> bool:
    """Whether a run's final masks tell classes apart, and not only objects from background."""
    final = _final(work)
    seen = _values(lambda name: {"": final.read(name)}, photos)
    return bool(seen) and not _only_objects(*seen[""])


def stored_regions(work: Workspace) -> Callable[[str], npt.NDArray[np.int32]] | None:
    """The crisp regions of the photos that the run keeps, if it does."""
    try:
        store = work.finished("regions").maps("regions")
    except TagsegError:
        return None
    return lambda name: store.get(name)["regions"]


def _final(work: Workspace) -> LabelMapsOfRun:
    masks = work.finished(FINAL)
    read = _reader_of_files(masks.read_path(FINAL))
    return LabelMapsOfRun(f"{FINAL}/{FINAL}", "final masks", masks, read)


@dataclass(frozen=True)
class _Candidate:
    maps: LabelMapsOfRun
    digest: str  # of its store
    plain: bool


def _photos_key(stage: Stage) -> str | None:
    """Key of the photos that a stage is made from, which comes before its other inputs."""
    record = record_in(stage.folder)
    keys = record["inputs"] if record is not None else []
    return next((key for label, key in keys if label.isdigit()), None)


def _in_stage(stage: Stage, photos: Dataset) -> Iterator[_Candidate]:
    artefacts = read_manifest(stage.folder / "manifest.json")["artefacts"]
    for name, stated in artefacts.items():
        store, kind = PurePath(name).stem, PurePath(name).suffix
        if kind not in (".sqlite", SHARDS):
            continue
        read = _reader_of_store(stage.maps(store))
        for part in _parts_with_labels(read, photos):
            words = [stage.name, *([] if store in _PLAIN_STORES else [store]), *part.split()]
            maps = LabelMapsOfRun(
                "/".join(filter(None, (stage.name, store, part))),
                ": ".join(words).replace("-", " "),
                stage,
                lambda photo, read=read, part=part: read(photo)[part],  # type: ignore[misc]
            )
            yield _Candidate(maps, f"{stated['hash']} {part}", store in _PLAIN_STORES)


def _once(found: Sequence[_Candidate]) -> list[LabelMapsOfRun]:
    """Each store's maps once; where there are several of the same, the plainest."""
    best: dict[str, _Candidate] = {}
    for each in found:
        if each.digest not in best or (each.plain and not best[each.digest].plain):
            best[each.digest] = each
    kept = {each.maps.id for each in best.values()}
    return [each.maps for each in found if each.maps.id in kept]


def _reader_of_files(folder: Path) -> Callable[[str], Labels]:
    files = MaskFiles(folder)
    return lambda name: read_mask(files.path(name))


def _reader_of_store(store: PhotoStore) -> ReadMaps:
    """Whatever of a photo's row may be labels; nothing if none of it may, or it has no row."""

    def read(name: str) -> Mapping[str, Labels]:
        if name not in store:
            return {}
        row = store.get(name)
        if _BYTES in row:
            return {"": decode_mask(row[_BYTES].tobytes())}
        return dict(_planes(row))

    return read


def _planes(row: Mapping[str, npt.NDArray]) -> Iterator[tuple[str, Labels]]:
    """The arrays uint8 (H, W) of a row, and each plane of those that are (K, H, W)."""
    for name, array in sorted(row.items()):
        if array.dtype != np.uint8:
            continue
        if array.ndim == 2:
            yield name, array
        if array.ndim == 3:
            for number, plane in enumerate(array, 1):
                yield f"{name} {number}", plane


def _parts_with_labels(read: ReadMaps, photos: Dataset) -> list[str]:
    """Which of the maps are labels of the classes, as far as some of the photos tell."""
    return [part for part, rows in _values(read, photos).items() if _are_labels(*rows)]


def _values(read: ReadMaps, photos: Dataset) -> dict[str, tuple[Bools, Bools]]:
    """For each map the values that are there (n, 256) in some photos, and these photos' tags."""
    tagged = np.flatnonzero(photos.tags.any(1))
    looked_at = tagged[evenly(len(tagged), _LOOKED_AT)].tolist() if len(tagged) else []
    seen: dict[str, list[tuple[Bools, Bools]]] = {}
    for index in looked_at:
        try:
            maps = read(photos.names[index])
        except DamagedError as error:
            lost = "its masks are not offered; training again makes them anew"
            _LOGGER.warning(printable(f"{error.where} {error.what}; {lost}"))
            return {}
        except TagsegError:  # other bytes than a mask's
            return {}
        for part, labels in maps.items():
            there = np.bincount(labels.ravel(), minlength=256) > 0
            seen.setdefault(part, []).append((there, photos.tags[index]))
    return {
        part: (np.stack([there for there, _ in rows]), np.stack([tags for _, tags in rows]))
        for part, rows in seen.items()
    }


def _are_labels(there: Bools, tags: Bools) -> bool:
    """Whether values that are there are labels of classes; background alone is one, too."""
    classes = tags.shape[1]
    if there[:, classes + 1 : IGNORE].any() or _only_objects(there, tags):
        return False
    return bool(there[:, 1 : classes + 1].any() or not there[:, IGNORE].any())


def _only_objects(there: Bools, tags: Bools) -> bool:
    """Whether the only label is 1, in photos without the class that it would be, too."""
    return bool((there[:, 1] & ~tags[:, 0]).any() and not there[:, 2 : tags.shape[1] + 1].any())
