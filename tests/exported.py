"""What tests of exports share: photos with difficult masks, and one format's files of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image as PilImage

from tagseg.formats.export.catalog import FORMATS
from tagseg.formats.export.masked_photos import ClassTable, Export, MaskedPhoto, Piece
from tagseg.maps import IGNORE, Labels

CLASSES = ClassTable(("cat", 'tv "set"', "Käfer & Co"), ((200, 30, 90), (0, 128, 255), (9, 8, 7)))
NAMES = ("one", "more/two ö.v2", "empty")

MASKS = arrays.arrays(
    np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 14)), elements=st.booleans()
)
LABELS = arrays.arrays(
    np.uint8,
    st.tuples(st.integers(1, 12), st.integers(1, 14)),
    elements=st.sampled_from([0, 1, 1, 2, 3, IGNORE]),
)
CHECKED = settings(max_examples=60, derandomize=True, deadline=None)


def labels_of(name: str) -> Labels:
    """A ring with a thing in its hole, single pixels, corners that touch, unknown pixels."""
    labels = np.zeros((24, 31), np.uint8)
    if name == "empty":
        return labels
    labels[2:20, 3:25] = 1
    labels[5:16, 6:20] = 0
    labels[8:12, 9:15] = 2
    labels[9:11, 11:13] = 0
    labels[22, 0] = labels[23, 1] = 3
    labels[0, 30] = 3
    if name != "one":
        labels = np.ascontiguousarray(labels.T)
        labels[28:, 20:] = IGNORE
    return labels


def exported(folder: Path, to: str, **changes: object) -> tuple[Export, list[MaskedPhoto]]:
    """The files of a format in ``folder``, as the session writes them, without the photos."""
    form = FORMATS[to]
    shapes = changes.get("shapes", next(iter(form.annotations), "masks"))
    made = {
        "photos": form.photos_by[0],
        "shapes": shapes,
        "per": form.annotations.get(shapes, ("region",))[0],
    }
    export = Export(folder, folder, CLASSES, **{**made, **changes})
    folder.mkdir(exist_ok=True)
    photos = [_photo(folder, name) for name in NAMES]
    form.check(export)
    pieces = [form.one(photo, export) for photo in photos]
    for piece in pieces:
        _write(folder, piece)
    form.whole((piece.entry for piece in pieces), export)
    return export, photos


def without_unknown(labels: Labels) -> Labels:
    """Labels as formats keep them that have no unknown pixels."""
    return np.where(labels == IGNORE, 0, labels).astype(np.uint8)


def _photo(folder: Path, name: str) -> MaskedPhoto:
    labels = labels_of(name)
    path = folder.parent / "own photos" / f"{name}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    PilImage.new("RGB", labels.shape[::-1], (90, 120, 60)).save(path)
    return MaskedPhoto(name, f"{name}.jpg", path, labels)


def _write(folder: Path, piece: Piece) -> None:
    for name, content in piece.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
