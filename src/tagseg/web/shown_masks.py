"""Masks as the page shows them: labels at the photo's size, and small pictures over photos."""

from __future__ import annotations

import colorsys
import io
import zlib
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

from tagseg.data.working import labels_at
from tagseg.errors import MaskError, TagsegError
from tagseg.formats.review import Accepted
from tagseg.maps import BACKGROUND, IGNORE, Labels
from tagseg.session.run_to_review import RunToReview
from tagseg.web.review_masks import MaskFolder

__all__ = ["ShownMasks", "over_photo", "packed", "page_colours"]

_KEPT = 24  # masks in memory
_GOLDEN = 0.61803398875  # turns of the hue from one class to the next, so that all are far apart
_LIGHTNESS = (0.62, 0.5, 0.74)
_STRIPE = 6  # pixels from one stripe of what is not sure to the next


class ShownMasks:
    """Masks of a run's photos.

    Args:
        run: whose label maps are shown.
        accepted: the masks that a person accepted.
    """

    def __init__(self, run: RunToReview, accepted: MaskFolder) -> None:
        self._run, self._accepted = run, accepted
        self._final = lru_cache(_KEPT)(self._read_final)

    def shape(self, photo: int) -> tuple[int, int]:
        """Height and width of a photo as it is displayed, which its final mask has, too."""
        height, width = self._final(photo).shape
        return height, width

    def candidate(self, photo: int, number: int, without: Sequence[int] = ()) -> Labels:
        """A label map of the run at the photo's size; do not write into it.

        Args:
            number: of the map, 0 for the final mask.
            without: labels that a person says are not there: their pixels are not sure.

        Raises MaskError if there is none.
        """
        if not 0 <= number < len(self._run.maps):
            raise MaskError("there is no such candidate", do="load the page again")
        labels = self._final(photo)
        if number:
            try:
                own = self._run.maps[number].read(self._run.photos.names[photo])
            except KeyError:
                raise MaskError("there is no such candidate for this photo") from None
            labels = labels_at(own, labels.shape)
        if not len(without):
            return labels
        return np.where(np.isin(labels, list(without)), np.uint8(IGNORE), labels)

    def accepted(self, photo: int, act: Accepted) -> Labels:
        """The mask that a person accepted; MaskError if it has changed since."""
        return self._accepted.read(act, self.shape(photo))

    def same(self, photo: int) -> list[int | None]:
        """For each label map the first one that is the same to the pixel; None where none is."""
        seen: dict[bytes, int] = {}
        found: list[int | None] = []
        for number in range(len(self._run.maps)):
            try:
                labels = self.candidate(photo, number)
            except TagsegError:
                found.append(None)
                continue
            digest = blake2b(labels.tobytes(), digest_size=16).digest()
            found.append(seen.setdefault(digest, number))
        return found

    def _read_final(self, photo: int) -> Labels:
        return self._run.maps[0].read(self._run.photos.names[photo])


def page_colours(classes: int) -> npt.NDArray[np.uint8]:
    """Colours of labels on the page, (256, 3): bright, as they lie over photos; 255 is white."""
    colours = np.full((256, 3), 255, np.uint8)
    colours[BACKGROUND] = 0
    for number in range(classes):
        hue, light = (0.02 + number * _GOLDEN) % 1, _LIGHTNESS[number % len(_LIGHTNESS)]
        colours[number + 1] = np.rint(np.multiply(colorsys.hls_to_rgb(hue, light, 0.95), 255))
    return colours


def over_photo(
    labels: Labels, side: int, colours: npt.NDArray[np.uint8], *, outline: bool
) -> bytes:
    """Labels as a PNG that lies over a photo of the longer side ``side``; background is clear."""
    scale = min(1.0, side / max(labels.shape))
    shape = (max(1, round(labels.shape[0] * scale)), max(1, round(labels.shape[1] * scale)))
    small = labels_at(labels, shape)
    rows, columns = np.indices(shape)
    clear = (rows + columns) % _STRIPE >= _STRIPE // 3
    shown = np.where((small == IGNORE) & clear, np.uint8(BACKGROUND), small)
    if outline:
        shown = np.where(_inner_edge(small), small, np.uint8(BACKGROUND))
    picture = PilImage.fromarray(shown)
    picture.putpalette(colours.tobytes())
    content = io.BytesIO()
    picture.save(content, "PNG", transparency=BACKGROUND, compress_level=3)
    return content.getvalue()


def _inner_edge(labels: Labels) -> npt.NDArray[np.bool_]:
    """Pixels within two of a pixel of another label."""
    square = np.ones((5, 5), np.uint8)
    return cv2.erode(labels, square) != cv2.dilate(labels, square)  # type: ignore[return-value]


def packed(maps: npt.NDArray) -> bytes:
    """A map (H, W) for the page: width and height, then its values, all deflated."""
    head = np.array(maps.shape[::-1], "<u4").tobytes()
    return zlib.compress(head + np.ascontiguousarray(maps).tobytes(), 1)
