"""Run-length encodings: runs of 0 and 1 in turn, and Label Studio's packing of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["brush_bytes", "runs"]

_SIZES = (3, 4, 8, 16)  # bits for the length of a run; two bits say which
_WORD = 8  # bits of a value
_CHANNELS = 4
_OPAQUE = 255


def runs(
    mask: npt.NDArray[np.bool_],
    offset: tuple[int, int] = (0, 0),
    shape: tuple[int, int] | None = None,
) -> npt.NDArray[np.int64]:
    """Lengths of the runs of a mask, row by row: of 0 first, which may be none, then 1, 0 and on.

    Args:
        mask: bool (h, w).
        offset: row and column of its corner in a larger mask, which is 0 elsewhere.
        shape: height and width of that one; None for the mask itself.

    >>> runs(np.array([[False, True], [True, False]])).tolist()
    [1, 2, 1]
    """
    height, width = mask.shape if shape is None else shape
    top, left = offset
    padded = np.pad(mask.view(np.int8), ((0, 0), (1, 1)))
    rows, columns = np.nonzero(np.diff(padded, axis=1))  # a run's begin and its end in turn
    borders = (rows + top) * width + columns + left
    begins, ends = borders[::2], borders[1::2]
    goes_on = begins[1:] == ends[:-1]  # from the end of one row into the next
    begins = begins[np.concatenate(([True], ~goes_on))] if len(begins) else begins
    ends = ends[np.concatenate((~goes_on, [True]))] if len(ends) else ends
    marks = np.stack((begins, ends), axis=1).ravel()
    lengths = np.diff(marks, prepend=0, append=height * width)
    return lengths if lengths[-1] else lengths[:-1]


def brush_bytes(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Label Studio's form of a mask: the runs of its RGBA picture, in as few bits as each needs.

    The format is that of thi.ng's rle-pack: the number of values in 32 bits, the size of a value
    less 1 in 5, four sizes of lengths less 1 in 4 bits each; then for each run a 1, the number of
    its size in 2 bits, its length less 1, and its value. All channels hold 255 where the mask is 1.

    Args:
        lengths: as of :func:`runs`, over the whole photo.
    """
    values = np.where(np.arange(len(lengths)) % 2, _OPAQUE, 0)
    lengths, values = _limited(lengths * _CHANNELS, values)
    sizes = np.array(_SIZES)
    which = np.searchsorted(2**sizes, lengths)
    bits = 1 + 2 + sizes[which] + _WORD
    codes = (((0b100 | which) << sizes[which] | (lengths - 1)) << _WORD) | values
    head = _bits(np.array([lengths.sum(), _WORD - 1, *(size - 1 for size in _SIZES)]),
                 np.array([32, 5, *[4] * len(_SIZES)]))  # fmt: skip
    return np.packbits(np.concatenate((head, _bits(codes, bits))))


def _limited(
    lengths: npt.NDArray[np.int64], values: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The runs without empty ones, and long ones in parts that the largest size can count."""
    most = 2 ** _SIZES[-1]
    parts = -(-lengths // most)
    split = np.full(int(parts.sum()), most, np.int64)
    last = np.cumsum(parts)[parts > 0] - 1
    split[last] = (lengths - (parts - 1) * most)[parts > 0]
    return split, np.repeat(values, parts)


def _bits(codes: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """The last ``sizes`` bits of each code, one after the other."""
    words = np.unpackbits(codes.astype(">u4").view(np.uint8)).reshape(len(codes), 32)
    return words[np.arange(32) >= 32 - sizes[:, None]]
