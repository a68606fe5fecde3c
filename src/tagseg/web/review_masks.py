"""Masks that a person accepted: files that are on disk before the line that names them."""

from __future__ import annotations

import base64
import binascii
import re
import struct
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import tagseg
from tagseg.data.finding import OUTPUT_MARKER
from tagseg.data.masks import decode_mask, encode_mask
from tagseg.errors import ConfigError, MaskError
from tagseg.formats.review import Accepted, ReviewFile, read_reviewed_mask
from tagseg.maps import IGNORE, Labels
from tagseg.run.files import atomic_write, one_line_errors, write_json
from tagseg.web.append_only import sync_folder

__all__ = ["MaskFolder", "Written", "drawn_mask"]

_ODD = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 80  # letters of a photo's name in that of a file
_HEADER = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"  # of every PNG
_SIZE = struct.Struct(">II")
_AGAIN = "load the page again"


class Written(NamedTuple):
    """A mask's file: its path from the review's folder, and the hash of its bytes."""

    mask: str
    sha256: str


class MaskFolder:
    """The folder of a review's masks, called as the review is.

    Attributes:
        folder: where they are.
    """

    def __init__(self, review: Path, run: str, classes: tuple[str, ...]) -> None:
        """Make the folder, marked so that nothing in it is taken for a photo.

        Raises ConfigError for a review whose name leaves none, WorkspaceError if it cannot be made.
        """
        if not review.suffix or not review.stem.strip("."):
            raise ConfigError(
                "masks lie in a folder called as the review is without its end",
                where=review,
                do="give a file such as review.jsonl",
            )
        self._review = ReviewFile(review, run, classes, ())
        self.folder = review.with_suffix("")
        with one_line_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        marker = self.folder / OUTPUT_MARKER
        if not marker.is_file():
            write_json(marker, {"by": "tagseg review", "version": tagseg.__version__})

    def write(self, photo: str, number: int, labels: Labels) -> Written:
        """Write a mask; it and its name are on disk when this returns.

        Args:
            number: of the deed that names it, so that no other mask is called so.
        """
        content = encode_mask(labels)
        short = _ODD.sub("_", photo)[-_LONGEST:].lstrip(".") or "photo"
        path = self.folder / f"{short}-{number}.png"
        with atomic_write(path) as file:
            file.write(content)
        sync_folder(self.folder)
        return Written(f"{self.folder.name}/{path.name}", sha256(content).hexdigest())

    def read(self, act: Accepted, shape: tuple[int, int]) -> Labels:
        """The mask of an act; MaskError if it is not what was accepted."""
        return read_reviewed_mask(self._review, act, shape)


def drawn_mask(text: object, shape: tuple[int, int], n_classes: int) -> Labels:
    """The labels that a page drew, from a PNG in base64.

    The size is compared before anything is decoded. Raises MaskError for all that is no mask of a
    photo of ``shape`` with labels of these classes.
    """
    if not isinstance(text, str):
        raise MaskError("no mask was sent", do=_AGAIN)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MaskError("the mask is no base64", do=_AGAIN) from None
    if not data.startswith(_HEADER) or len(data) < len(_HEADER) + _SIZE.size:
        raise MaskError("the mask is no PNG", do=_AGAIN)
    width, height = _SIZE.unpack_from(data, len(_HEADER))
    if (height, width) != shape:
        raise MaskError(
            f"the mask has {width} x {height} pixels, its photo {shape[1]} x {shape[0]}", do=_AGAIN
        )
    labels = decode_mask(data)
    if labels.shape != shape:
        raise MaskError("the mask has another size than it says", do=_AGAIN)
    strange = labels[(labels > n_classes) & (labels != IGNORE)]
    if strange.size:
        raise MaskError(f"the mask holds label {strange[0]} of {n_classes} classes", do=_AGAIN)
    return labels
