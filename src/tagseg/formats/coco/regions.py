"""What pixels an object of COCO covers: polygons and run lengths, as pycocotools has them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tagseg.errors import MaskError

__all__ = ["Covered", "covered", "polygon_pixels", "run_pixels", "unpacked_counts"]

Shape = tuple[int, int]

_FINE = 5  # steps of an outline in a pixel
_FAR = 4  # sides of the photo, beyond which no point can be meant
_LONGEST = 1 << 20  # pixels, of an outline


class Covered(NamedTuple):
    """Pixels of an object: bool (H, w) of the columns from ``left`` on; none elsewhere."""

    left: int
    pixels: npt.NDArray[np.bool_]


def covered(segmentation: Any, shape: Shape, where: object) -> Covered:
    """The pixels that an object's ``segmentation`` covers in a photo of ``shape``.

    Args:
        segmentation: a list of polygons ``[x, y, x, y, ...]``, which are put together, or run
            lengths ``{"size": [h, w], "counts": list or text}``.
        where: for messages.

    Raises MaskError for anything else.
    """
    if isinstance(segmentation, dict):
        return Covered(0, run_pixels(_counts(segmentation, shape, where), shape, where))
    if not isinstance(segmentation, list) or not segmentation:
        raise MaskError("has no segmentation", where=where, do="export with outlines, not boxes")
    outlines = [_outline(points, shape, where) for points in segmentation]
    lefts, rights = zip(*(_columns(outline, shape[1]) for outline in outlines), strict=True)
    left, right = min(lefts), max(rights)
    pixels = np.zeros((shape[0], right - left), bool)
    for outline in outlines:
        pixels |= polygon_pixels(outline, (shape[0], right - left), left)
    return Covered(left, pixels)


def polygon_pixels(
    outline: npt.NDArray[np.float64], shape: Shape, left: int = 0
) -> npt.NDArray[np.bool_]:
    """The pixels (H, W) inside an outline (n, 2) of x and y, of the columns from ``left`` on.

    The rule is that of COCO's own tools. The outline is drawn on a grid five times as fine; where
    it passes the middle of a column of pixels, going down that column, outside and inside change.
    So masks are those of pycocotools (``frPyObjects``) to the pixel; those of OpenCV's fillPoly and
    of scikit-image are others at the border.
    """
    height, width = shape
    u, v = _drawn(np.trunc(_FINE * outline + 0.5).astype(np.int64))
    before = np.minimum(u[1:], u[:-1])  # where a step leads into another column of the fine grid
    passes = (u[1:] != u[:-1]) & (before % _FINE == _FINE // 2)
    x = before[passes] // _FINE - left
    y = np.ceil((np.minimum(v[1:], v[:-1])[passes] + 0.5) / _FINE - 0.5)
    inside = (x >= 0) & (x < width)
    places = np.sort(x[inside] * height + np.clip(y[inside], 0, height).astype(np.int64))
    return _of_runs(np.diff(places, prepend=0, append=height * width), shape)


def run_pixels(counts: npt.NDArray[np.int64], shape: Shape, where: object) -> npt.NDArray[np.bool_]:
    """The pixels (H, W) of run lengths, down each column: of 0 first, then of 1, and so on.

    Raises MaskError if these are not all pixels of ``shape``.
    """
    total = shape[0] * shape[1]
    wrong = len(counts) and ((counts < 0) | (counts > total)).any()
    if wrong or counts.sum() != total:
        raise MaskError(
            f"its run lengths do not fill {shape[0]} x {shape[1]} pixels",
            where=where,
            do="check the file",
        )
    return _of_runs(counts, shape)


def unpacked_counts(text: str, where: object) -> npt.NDArray[np.int64]:
    """The run lengths that COCO's compressed text holds; MaskError for another text.

    Each letter, less 48, has five bits of a number and in the sixth whether more follow, the lowest
    first; the last one's fifth bit is the sign. From the fourth number on, they say how much longer
    a run is than the one before of its kind.
    """
    bad = MaskError("its counts are no run lengths", where=where, do="check the file")
    if not text.isascii():
        raise bad
    codes = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    if not len(codes) or (codes < 0).any() or (codes > 63).any() or codes[-1] & 32:
        raise bad
    last = (codes & 32) == 0
    first = np.flatnonzero(np.concatenate(([True], last[:-1])))
    place = np.arange(len(codes)) - np.repeat(first, np.diff(first, append=len(codes)))
    if place.max() > 6:  # over 35 bits: longer than any photo
        raise bad
    numbers = np.add.reduceat((codes & 31) << (5 * place), first)
    numbers -= np.where(codes[last] & 16, 1, 0) << (5 * (place[last] + 1))
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _counts(segmentation: dict[str, Any], shape: Shape, where: object) -> npt.NDArray[np.int64]:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != list(shape):
        raise MaskError(
            f"its run lengths are of a photo of size {size!r:.60}, the image is {shape[0]} x "
            f"{shape[1]}",
            where=where,
            do="check height and width in images",
        )
    if isinstance(counts, str):
        return unpacked_counts(counts, where)
    if not isinstance(counts, list) or not all(type(n) is int and abs(n) < 1 << 40 for n in counts):
        raise MaskError("its counts are no run lengths", where=where, do="check the file")
    return np.array(counts, np.int64)


def _outline(points: Any, shape: Shape, where: object) -> npt.NDArray[np.float64]:
    bad = MaskError(
        "has a polygon that is no list of at least three points x, y",
        where=where,
        do="check the file",
    )
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        raise bad
    if not all(type(value) in (int, float) and abs(value) < 1e9 for value in points):
        raise bad
    outline = np.array(points, np.float64).reshape(-1, 2)
    sides = np.array(shape[::-1], np.float64)
    far = ((outline < -_FAR * sides) | (outline > (1 + _FAR) * sides)).any(axis=1)
    if far.any():
        x, y = outline[np.argmax(far)]
        raise MaskError(
            f"has a point ({x:g}, {y:g}) far outside of its image, which is {shape[0]} x "
            f"{shape[1]}",
            where=where,
            do="check the outline, and height and width in images",
        )
    if np.abs(np.diff(outline, axis=0, append=outline[:1])).sum() > _LONGEST:
        raise MaskError(
            f"has a polygon of over {_LONGEST:,} pixels' length", where=where, do="check the file"
        )
    return outline


def _columns(outline: npt.NDArray[np.float64], width: int) -> tuple[int, int]:
    """The first column of pixels that an outline may cover, and the one behind the last."""
    left, right = np.floor(outline[:, 0].min()) - 1, np.ceil(outline[:, 0].max()) + 2
    return int(np.clip(left, 0, width)), int(np.clip(right, 0, width))


def _drawn(points: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All points of the fine grid on a closed outline (n, 2), in order: x and y.

    Each side takes one point a step of its longer direction, counted from its lower end there, so
    that a side is the same drawn from either end.
    """
    ends = np.roll(points, -1, axis=0)
    long = np.abs(ends - points)
    flat = long[:, 0] >= long[:, 1]  # longer in x
    steps = long.max(axis=1)
    along = np.where(flat[:, None], points[:, :1], points[:, 1:])[:, 0]
    to = np.where(flat[:, None], ends[:, :1], ends[:, 1:])[:, 0]
    back = along > to
    low = np.where(back[:, None], ends, points)
    high = np.where(back[:, None], points, ends)
    across_low = np.where(flat, low[:, 1], low[:, 0])
    across_high = np.where(flat, high[:, 1], high[:, 0])
    slope = (across_high - across_low) / np.maximum(steps, 1)
    side = np.repeat(np.arange(len(points)), steps + 1)
    begin = np.cumsum(steps + 1) - (steps + 1)
    step = np.arange(len(side)) - begin[side]
    step = np.where(back[side], steps[side] - step, step)
    first = np.minimum(along, to)[side] + step
    second = np.trunc(across_low[side] + slope[side] * step + 0.5).astype(np.int64)
    return np.where(flat[side], first, second), np.where(flat[side], second, first)


def _of_runs(counts: npt.NDArray[np.int64], shape: Shape) -> npt.NDArray[np.bool_]:
    """Runs of 0 and 1 in turn, down each column, as bool (H, W)."""
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return values.reshape(shape[1], shape[0]).T
