"""What is exported: masks of a run or of a folder, their classes, and the photos they are of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tagseg.data.finding import is_output
from tagseg.data.legends import Colour, Legend
from tagseg.data.masks import check_reading, open_mask
from tagseg.data.no_folder import near_folder
from tagseg.data.orientation import Geometry, turned
from tagseg.errors import DataError, MaskError, first_few
from tagseg.formats.export.masked_photos import ClassTable
from tagseg.formats.folders.photo_files import find_photo_files
from tagseg.formats.lists.class_lists import ClassList, read_class_list
from tagseg.formats.masks.mask_folders import find_truth, list_beside, match_names
from tagseg.maps import Labels
from tagseg.run.workspace import Workspace

__all__ = ["Masks", "Pairs", "find_mask_files", "labels_of", "pair_with_photos"]

_RUN = "workspace.json"
_LISTS = ("classes.txt", "labels.txt")


@dataclass(frozen=True)
class Masks:
    """Mask files and what stands in them.

    Attributes:
        home: the folder they lie in.
        files: name -> file.
        classes: what their labels stand for.
        legend: what their numbers and colours stand for.
        notes: how they were understood, a line each.
        keep_out: folders into which nothing may be written, by what they are.
    """

    home: Path
    files: Mapping[str, Path]
    classes: ClassTable
    legend: Legend
    notes: tuple[str, ...]
    keep_out: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Pairs:
    """Photos with their masks.

    Attributes:
        photos: name -> the photo; None where only its mask is known.
        masks: name -> the mask, of the same names in the same order.
        left_out: lines on photos and masks that have no partner.
        folder: of the photos, if there are any.
    """

    photos: Mapping[str, Path | None]
    masks: Mapping[str, Path]
    left_out: tuple[str, ...]
    folder: Path | None = None


def find_mask_files(source: Path, classes: Path | None) -> Masks:
    """The final masks of a finished run, or those of a folder.

    Args:
        classes: list of a folder's classes; None for one that lies in it or beside it.

    Raises:
        DataError: there is no such folder, or no list of classes for it.
        MaskError: it holds no masks.
        WorkspaceError: the run is not finished.
    """
    if not source.is_dir():
        near = near_folder(source)
        hint = f"; did you mean {near}?" if near is not None else ""
        raise DataError("no such folder", where=source, do=f"give a run or masks{hint}")
    if (source / _RUN).is_file():
        return _of_run(source, classes)
    home, files = find_truth(source)
    known = _class_list(home, classes)
    legend = known.legend()
    colours = _colours(known, legend, next(iter(files.values())))
    keep_out = {"the folder of the masks": home}
    return Masks(home, files, ClassTable(known.names, colours), legend, known.notes, keep_out)


def _of_run(folder: Path, classes: Path | None) -> Masks:
    if classes is not None:
        raise DataError("a run knows its classes", where=folder, do="leave --classes out")
    work = Workspace.read(folder)
    home, files = find_truth(work.finished("masks").read_path("masks"))
    names = tuple(work.classes)
    keep_out = {"the stages of the run": folder / "stages"}
    return Masks(home, files, ClassTable(names), Legend(len(names)), (), keep_out)


def _class_list(home: Path, given: Path | None) -> ClassList:
    file = given if given is not None else list_beside(home)
    if file is None:
        places = [place / name for place in (home, home.parent) for name in _LISTS]
        file = next((path for path in places if path.is_file()), None)
    if file is None:
        do = "give --classes FILE, one name a line in label order"
        raise DataError("nothing says what the masks' classes are", where=home, do=do)
    return read_class_list(file)


def _colours(known: ClassList, legend: Legend, mask: Path) -> tuple[Colour, ...]:
    """The classes' colours as their list has them, or the palette of a mask; empty for neither."""
    labels = range(1, len(known.names) + 1)
    if known.colours is not None:
        of_label = {label: colour for colour, label in reversed(list(known.colours.items()))}
        found = [of_label.get(label) for label in labels]
    else:
        try:
            palette = open_mask(mask).palette
        except MaskError:  # which is told when it comes to that mask
            return ()
        number = {label: n for n, label in (legend.numbers or {n: n for n in labels}).items()}
        found = [palette.get(number.get(label, -1)) for label in labels]
    every = tuple(colour for colour in found if colour is not None)
    return every if len(set(every)) == len(known.names) else ()


def pair_with_photos(masks: Masks, photos: Path | None, *, needed: bool) -> Pairs:
    """The masks and the photos of the same names, as :func:`match_names` matches them.

    Args:
        photos: folder of the photos; None for ``JPEGImages`` or ``photos`` beside the masks.
        needed: False where masks alone are enough.

    Raises:
        DataError: the photos are needed and not found, or none has a mask.
    """
    folder = photos if photos is not None else _photos_beside(masks.home)
    if folder is None and not needed:
        return Pairs(dict.fromkeys(masks.files), masks.files, ())
    if folder is None:
        raise DataError("of which photos are these the masks?", where=masks.home, do=_GIVE)
    inner = folder / "JPEGImages"
    found = find_photo_files(inner if inner.is_dir() else folder)
    own = {path.resolve() for path in found.photos.values()}
    files = {name: path for name, path in masks.files.items() if path.resolve() not in own}
    of_photo, note = match_names(files, found.photos)
    if not of_photo:
        raise DataError(
            f"none of the {len(found.photos)} photos has one of the {len(files)} masks "
            f"(photos {first_few(found.photos)}; masks {first_few(files)})",
            where=folder,
            do="check --photos",
        )
    names = sorted(of_photo)
    lines = [f"{len(names)} masks are {note}"] if note else []
    lines += _without(found.photos.keys() - of_photo.keys(), "photos without a mask")
    lines += _without(files.keys() - set(of_photo.values()), "masks without a photo")
    return Pairs(
        {name: found.photos[name] for name in names},
        {name: files[of_photo[name]] for name in names},
        (*found.notes, *lines),
        folder,
    )


_GIVE = "give --photos DIR"


def _photos_beside(home: Path) -> Path | None:
    beside = (home.parent / name for name in ("JPEGImages", "photos"))
    return next((path for path in beside if path.is_dir() and not is_output(path)), None)


def _without(names: set[str], what: str) -> list[str]:
    return [f"left out: {len(names)} {what}, such as {min(names)}"] if names else []


def labels_of(mask: Path, legend: Legend, geometry: Geometry | None) -> Labels:
    """Labels, uint8 (H, W), on the photo as it is displayed.

    A mask of the stored pixels of a photo that EXIF turns is turned with it. Raises MaskError if
    it is no mask, holds what stands for no class, or has another size than the photo.

    Args:
        geometry: of the photo; None where there is none.
    """
    raw = open_mask(mask)
    reading = legend.read(raw.content)
    check_reading(reading, raw.content, legend, mask)
    labels = reading.table()[raw.values]
    if geometry is None or labels.shape == geometry.shape:
        return labels
    if labels.shape == geometry.stored:
        return turned(labels, geometry.orientation).copy()
    height, width = geometry.shape
    raise MaskError(
        f"the mask is {labels.shape[0]} x {labels.shape[1]}, its photo {height} x {width}",
        where=mask,
        do="give a mask of the photo's height and width",
    )
