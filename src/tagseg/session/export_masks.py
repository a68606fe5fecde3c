"""Masks and their photos in the files of another tool."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tagseg.data.orientation import Geometry, read_geometries
from tagseg.errors import ConfigError, DataError, MaskError, choose_from
from tagseg.formats.export.catalog import FORMATS
from tagseg.formats.export.masked_photos import (
    Export,
    Format,
    MaskedPhoto,
    Per,
    PhotosBy,
    Piece,
    Shapes,
)
from tagseg.maps import IGNORE
from tagseg.run.engine import map_photos
from tagseg.run.files import check_names_fit, one_line_errors
from tagseg.run.progress import Progress
from tagseg.session.export_folder import check_export_place, whole_folder
from tagseg.session.export_sources import (
    Masks,
    Pairs,
    find_mask_files,
    labels_of,
    pair_with_photos,
)
from tagseg.tar_members import file_state, member_at, open_file

__all__ = ["ExportWishes", "Exported", "export_masks"]


@dataclass(frozen=True)
class ExportWishes:
    """What the user asked for.

    Attributes:
        to: name of the format.
        photos_by, shapes, per: as of :class:`Export`; None for the format's own.
    """

    to: str
    photos_by: PhotosBy | None = None
    shapes: Shapes | None = None
    per: Per | None = None


@dataclass(frozen=True)
class Exported:
    """What :func:`export_masks` did.

    Attributes:
        title: of the format.
        photos, annotations: how many were written; annotations are of the classes in a photo
            where the format keeps masks as they are.
        classes: names in label order.
        how: what was written, and what became of the photos.
        left_out: (name, reason) of photos whose mask could not be used.
        notes: what should be said, a line each.
    """

    title: str
    photos: int
    annotations: int
    classes: tuple[str, ...]
    how: str
    left_out: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """What was written, what was left out, and why."""
        classes = f"{len(self.classes)} class{'es' if len(self.classes) > 1 else ''}"
        first = f"{self.title}: {self.photos} photos, {classes}, {self.how}"
        return [first, *self.notes, *(f"left out: {reason}" for _, reason in self.left_out)]


class _Done(NamedTuple):
    """One photo: what it comes to, or why it is left out, and its share of unknown pixels."""

    name: str
    piece: Piece
    reason: str = ""
    unknown: float = 0.0


def export_masks(
    source: Path,
    out: Path,
    wishes: ExportWishes,
    *,
    photos: Path | None = None,
    classes: Path | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> Exported:
    """Write the masks of a run, or of a folder, as another tool reads them.

    Args:
        source: folder of a finished run, or of masks.
        out: folder of the export; an earlier export is replaced if nobody has changed it.
        photos: folder of the photos; None where the format needs none, or they lie beside.
        classes: list of the classes of a folder of masks; None where it lies there.

    Raises:
        ConfigError: the format cannot do what is asked, or a library is missing.
        DataError: photos, masks and classes do not go together, or ``out`` holds something else.
        WorkspaceError: the run is not finished, or something cannot be written.
    """
    progress = progress if progress is not None else Progress()
    form = _format(wishes.to)
    masks = find_mask_files(source, classes)
    pairs = pair_with_photos(masks, photos, needed=form.needs_photos)
    export = _export(form, wishes, out, masks, pairs)
    form.check(export)
    folders = dict(masks.keep_out)
    if pairs.folder is not None:
        folders["the folder of the photos"] = pairs.folder
    check_export_place(out, folders)
    check_names_fit(pairs.photos, out, ".json")
    for note in masks.notes:
        progress.say(note)
    items = _items(pairs)
    done: list[_Done] = []
    with whole_folder(out) as folder:
        work = replace(export, folder=folder)
        with progress.task("exporting", len(pairs.photos)) as ticks:
            found = map_photos(_Work(form, work, masks), items, workers=threads, progress=ticks)
            entries = _entries(found, done)
            form.whole(entries, work)
            deque(entries, maxlen=0)  # a format without a shared file has taken none
        if not any(not item.reason for item in done):
            raise DataError(f"no mask can be used: {done[0].reason}")
    return _told(form, export, done, pairs)


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise ConfigError(f"format {name!r} does not exist", do=choose_from(FORMATS, name))
    return FORMATS[name]


def _export(form: Format, wishes: ExportWishes, out: Path, masks: Masks, pairs: Pairs) -> Export:
    """The wishes, completed by the format's own; ConfigError for what it cannot do."""
    photos_by = _chosen(form, "--photos-by", wishes.photos_by, form.photos_by)
    shapes = _chosen(form, "--shapes", wishes.shapes, tuple(form.annotations))
    per = _chosen(form, "--per", wishes.per, form.annotations.get(shapes, ()))
    files = [path for path in pairs.photos.values() if path is not None]
    if photos_by != "name" and not files:
        raise ConfigError(f"--photos-by {photos_by} needs photos", do="give --photos DIR")
    _check_no_links_into_tars(photos_by, files)
    with one_line_errors(masks.home):
        size = sum(file_state(path)[0] for path in files)
    return Export(out, out, masks.classes, photos_by, shapes or "masks", per or "region", size)


def _check_no_links_into_tars(photos_by: PhotosBy | None, photos: list[Path]) -> None:
    if photos_by == "link" and photos and member_at(photos[0]) is not None:
        raise ConfigError("photos in tars cannot be linked", do="give --photos-by copy")


def _chosen(form: Format, flag: str, wish: Any, possible: tuple[Any, ...]) -> Any:
    if wish is None:
        return possible[0] if possible else None
    if wish not in possible:
        can = f"use {' or '.join(possible)}" if possible else f"leave {flag} out"
        raise ConfigError(f"{form.title} has no {flag} {wish}", do=can)
    return wish


class _Item(NamedTuple):
    name: str
    photo: Path | None
    geometry: Geometry | None
    mask: Path


def _items(pairs: Pairs) -> list[_Item]:
    """The work of each photo; sizes are read here, as that is nothing for threads."""
    files = {name: path for name, path in pairs.photos.items() if path is not None}
    sizes = dict(zip(files, read_geometries(files.values()), strict=True))
    return [
        _Item(name, photo, sizes.get(name), pairs.masks[name])
        for name, photo in pairs.photos.items()
    ]


class _Work:
    """What is done for one photo; called in threads."""

    def __init__(self, form: Format, export: Export, masks: Masks) -> None:
        self._form, self._export, self._masks = form, export, masks

    def __call__(self, item: _Item) -> _Done:
        name, source, geometry, mask = item
        if source is not None and geometry is None:
            return _Done(name, Piece(), f"{source}: is no photo that can be read")
        try:
            labels = labels_of(mask, self._masks.legend, geometry)
        except MaskError as error:
            return _Done(name, Piece(), str(error))
        suffix = source.suffix if source is not None else ".png"
        photo = MaskedPhoto(name, f"{name}{suffix}", source, labels)
        piece = self._form.one(photo, self._export)
        for path, content in piece.files.items():
            self._write(path, content)
        if source is not None and self._form.photos_in is not None:
            self._bring(source, f"{self._form.photos_in}/{photo.file}")
        return _Done(name, replace(piece, files={}), "", float(np.mean(labels == IGNORE)))

    def _write(self, path: str, content: bytes) -> None:
        self._place(path).write_bytes(content)

    def _bring(self, source: Path, path: str) -> None:
        """The photo itself, if the user wants it there."""
        with one_line_errors(source):
            if self._export.photos == "copy":
                with open_file(source) as photo, self._place(path).open("wb") as copy:
                    shutil.copyfileobj(photo, copy)
            elif self._export.photos == "link":
                self._place(path).symlink_to(source.resolve())

    def _place(self, path: str) -> Path:
        place = self._export.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        return place


def _entries(found: Iterator[_Done], done: list[_Done]) -> Iterator[Any]:
    """The entries of the photos that have one; what was done is noted in ``done``."""
    for item in found:
        done.append(item._replace(piece=replace(item.piece, entry=None)))
        if not item.reason:
            yield item.piece.entry


def _told(form: Format, export: Export, done: list[_Done], pairs: Pairs) -> Exported:
    written = [item for item in done if not item.reason]
    regions = sum(item.piece.regions for item in written)
    return Exported(
        form.title,
        len(written),
        regions,
        export.classes.names,
        _how(form, export, regions),
        tuple((item.name, item.reason) for item in done if item.reason),
        (*pairs.left_out, *_notes(form, written, pairs)),
    )


def _how(form: Format, export: Export, number: int) -> str:
    """What was written: annotations of what, or masks, and the photos."""
    what = f"{number} annotations ({export.shapes}, one a {export.per})"
    if form.photos_in is None:
        photos = "inside" if export.photos == "copy" else "by their paths"
    else:
        photos = {"copy": "copied", "link": "linked", "name": "only named"}[export.photos]
    return f"{what if form.annotations else 'masks'}, photos {photos}"


def _notes(form: Format, written: list[_Done], pairs: Pairs) -> Iterator[str]:
    unknown = [item.unknown for item in written if item.unknown]
    if unknown:
        share = 100 * sum(unknown) / len(written)
        becomes = "stay 255" if form.keeps_unknown else "count as background there"
        yield (
            f"unknown pixels (255), {share:.1f} % on average, in {len(unknown)} photos: {becomes}"
        )
    files = (pairs.photos[item.name] for item in written)
    others = sorted({p.suffix for p in files if p is not None and p.suffix not in form.suffixes})
    others = [suffix for suffix in others if suffix.lower() not in form.suffixes]
    if form.suffixes and others:
        yield f"note: {form.title} may not open photos that end in {', '.join(others)}"
