"""Masks for a folder of new photos."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Lock

import cv2

import tagseg
from tagseg.data.depth import Levels, notes_on_new
from tagseg.data.finding import (
    OUTPUT_MARKER,
    PHOTO_SUFFIXES,
    advice_without_photos,
    is_odd,
    list_pictures,
    notes_on_unread,
)
from tagseg.data.images import decode_photo, decode_reduced
from tagseg.data.masks import encode_mask
from tagseg.data.no_folder import near_folder
from tagseg.data.picture_formats import unread_suffix
from tagseg.data.tar_pictures import tars_of
from tagseg.data.text import readable
from tagseg.data.working import argmax_at, working_image
from tagseg.errors import DataError, ImageError
from tagseg.formats.folders.photo_files import PhotoFiles, find_photo_files
from tagseg.maps import Image
from tagseg.report.figures import overlay
from tagseg.run.engine import map_photos
from tagseg.run.files import (
    atomic_write,
    check_folder,
    check_names_fit,
    one_line_errors,
    write_json,
)
from tagseg.run.mask_files import MaskShards, are_sharded, check_masks_in, tars_in
from tagseg.run.progress import Progress
from tagseg.segment.predict import Segmenter

__all__ = ["Predicted", "predict_folder"]


@dataclass(frozen=True)
class Predicted:
    """What :func:`predict_folder` did.

    Attributes:
        written: names with a mask.
        skipped: (name, reason) of the others.
        tars: how many tars the masks are in; 0 where each is a file.
    """

    written: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    tars: int = 0


def predict_folder(
    segmenter: Segmenter,
    source: Path,
    out: Path,
    *,
    overlays: Path | None = None,
    refine: bool = True,
    masks_in: str = "auto",
    threads: int = 1,
    progress: Progress | None = None,
) -> Predicted:
    """Write a palettised PNG mask per photo, of the photo's own size, and overlays if asked.

    Args:
        source: a folder of photos, or one photo.
        out: folder of the masks, ``<photo name>.png``; masks of before are replaced.
        overlays: folder of photos with their mask over them, ``<photo name>.jpg``.
        masks_in: "files", "shards" (tars of some thousand masks), or "auto": shards past 100,000
            photos.

    Raises:
        ConfigError: ``masks_in`` is another word.
        DataError: there are no photos, or a result would replace a photo.
        WorkspaceError: a result cannot be written.
    """
    progress = progress if progress is not None else Progress()
    check_masks_in(masks_in)
    photos = _found(source, progress)
    shards = _room_for(photos, out, overlays, masks_in)
    of_16_bits: list[tuple[str, Levels]] = []
    network = Lock()  # one photo at a time in the network, which uses all cores by itself

    def segment(item: tuple[str, Path]) -> tuple[str, str]:
        name, path = item
        try:
            photo = decode_reduced(path, segmenter.side, white=segmenter.white)
        except ImageError as error:
            return name, str(error)
        if photo.levels is not None:
            of_16_bits.append((name, photo.levels))
        small = working_image(photo.image, segmenter.side, photo.shape)
        with network:
            probs = segmenter.forward(small[None])[0]
        if refine and segmenter.refiner is not None:
            probs = segmenter.refiner.refine(small, probs)
        labels = argmax_at(probs, photo.shape)
        if shards is None:
            _write(out / f"{name}.png", encode_mask(labels))
        else:
            shards.put_bytes(name, encode_mask(labels))
        if overlays is not None:
            is_whole = photo.image.shape[:2] == photo.shape
            whole = photo.image if is_whole else decode_photo(path, white=segmenter.white)
            _write(overlays / f"{name}.jpg", _jpeg(overlay(whole, labels)))
        return name, ""

    done: list[tuple[str, str]] = []
    with progress.task("segmenting", len(photos)) as ticks:
        for each in map_photos(segment, photos.items(), workers=threads, progress=ticks):
            done.append(each)
            if shards is not None:
                shards.commit()
    if shards is not None:
        shards.pack(every=True)
    for note in notes_on_new(sorted(of_16_bits), segmenter.white):
        progress.say(f"note: {note}")
    return Predicted(
        written=tuple(name for name, reason in done if not reason),
        skipped=tuple((name, reason) for name, reason in done if reason),
        tars=len(tars_in(out)),
    )


def _found(source: Path, progress: Progress) -> Mapping[str, Path]:
    """The photos that are there; it is said what is odd about them."""
    found = _photos_of(source)
    photos = found.photos
    for note in (*found.notes, *(() if source.is_file() else notes_on_unread(source))):
        progress.say(note)
    odd = [name for name, path in photos.items() if is_odd(path, source)]
    if odd:
        progress.say(f"names that are not UTF-8: {len(odd)}, such as {odd[0]} (%XX for a byte)")
    return photos


def _room_for(
    photos: Mapping[str, Path], out: Path, overlays: Path | None, masks_in: str
) -> MaskShards | None:
    """Make room for the results, which replace no photo; the tars to come, None for files."""
    places = {
        folder: suffix
        for folder, suffix in ((out, ".png"), (overlays, ".jpg"))
        if folder is not None
    }
    for folder, suffix in places.items():
        _keep_photos_safe(photos, folder, suffix)
        _check_place(photos, folder, suffix)
    _remove_tars(out)
    for folder, suffix in places.items():
        _mark(folder, {f"{name}{suffix}" for name in photos})
    return MaskShards(out, tuple(photos)) if are_sharded(masks_in, len(photos)) else None


def _photos_of(source: Path) -> PhotoFiles:
    if source.is_file():
        if source.suffix.lower() not in PHOTO_SUFFIXES:
            unread = unread_suffix(source.name)
            if unread is not None:
                raise DataError(f"{unread[0]} is not read here", where=source, do=unread[1])
            raise DataError("is no photo", where=source, do="give a photo or a folder of photos")
        return PhotoFiles({readable(source.stem): source})
    if not source.is_dir():
        near = near_folder(source)
        hint = f"; did you mean {near}?" if near is not None else ""
        advice = f"give a photo or a folder of photos{hint}"
        raise DataError("does not exist", where=source, do=advice)
    folder = source / "JPEGImages" if (source / "JPEGImages").is_dir() else source
    found = find_photo_files(folder)
    if not found.photos:
        why = "".join(f"; {note}" for note in found.notes)
        advice = advice_without_photos(folder)
        raise DataError(f"no photos in this folder{why}", where=source, do=advice)
    return found


def _keep_photos_safe(photos: Mapping[str, Path], out: Path, suffix: str) -> None:
    for name, path in photos.items():
        if (out / f"{name}{suffix}").resolve() == path.resolve():
            raise DataError("a result would replace this photo", where=path, do="change --out")


def _check_place(photos: Mapping[str, Path], out: Path, suffix: str) -> None:
    """Raise WorkspaceError or DataError if a result could not be written, before any is made."""
    if out.suffix.lower() in PHOTO_SUFFIXES and not out.exists():
        raise DataError(
            "is named as a picture, but results are written into a folder",
            where=out,
            do=f"give a folder, such as {out.with_suffix('')}; files there are NAME{suffix}",
        )
    homes = {path.parent.resolve() for path in photos.values()}
    homes |= {Path(tar).parent.resolve() for tar in tars_of(photos.values())}
    if out.resolve() in homes:
        raise DataError(
            "holds photos, for which the results would be taken the next time",
            where=out,
            do="give a folder of their own",
        )
    check_folder(out)
    check_names_fit(photos, out, suffix)
    for folder in {out / name for photo in photos for name in PurePosixPath(photo).parents}:
        with one_line_errors(folder):
            if folder.exists() and not folder.is_dir():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    for file in (out / f"{name}{suffix}" for name in photos):
        with one_line_errors(file):
            if file.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def _mark(folder: Path, results: Set[str]) -> None:
    """Make the folder of results, marked so that none of them is read as a photo.

    A folder that holds other pictures, photos perhaps, is not marked.
    """
    _make_folder(folder)
    if list_pictures(folder, outputs=True).files.keys() <= results:
        write_json(folder / OUTPUT_MARKER, {"by": "tagseg predict", "version": tagseg.__version__})


def _remove_tars(out: Path) -> None:
    """Remove the tars of an earlier predict; DataError where they may be somebody else's."""
    tars = tars_in(out)
    if tars and not (out / OUTPUT_MARKER).is_file():
        raise DataError("holds tars that no predict wrote", where=out, do="change --out")
    for tar in tars:
        with one_line_errors(tar):
            tar.unlink()


def _make_folder(path: Path) -> None:
    with one_line_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def _write(path: Path, content: bytes) -> None:
    _make_folder(path.parent)
    with atomic_write(path) as file:
        file.write(content)


def _jpeg(picture: Image) -> bytes:
    ok, content = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not ok:
        raise DataError("an overlay cannot be encoded", do="leave --overlays out")
    return content.tobytes()
