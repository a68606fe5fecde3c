"""Is a JPEG file whole? Decoders paint what is missing grey and say nothing.

libjpeg goes on where coded data are damaged, with a warning that Pillow does not pass on;
:func:`check_coded` asks for it. :func:`check_markers` finds what libjpeg has no warning for:
progressive files that lost their last scans, and files of so many scans that decoding never ends.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass

__all__ = ["NotWholeError", "check_coded", "check_markers"]

_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_FRAMES = {0xC0, 0xC1, 0xC2}  # Huffman-coded: baseline, extended, progressive
_WITHOUT_LENGTH = {0x01, _START, *range(0xD0, 0xD8)}
# 0xFF, then neither a stuffed zero nor a restart marker: what ends entropy-coded data. A pattern
# that begins with one plain byte is searched as fast as memory is read; "\xff+" takes ten times as
# long.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_CUT_SHORT = "it ends before the picture does"
_MOST_SCANS = 100  # encoders write up to about 20


class NotWholeError(ValueError):
    """Parts of the picture are missing; the message says which."""


@dataclass
class _Walk:
    """What the markers tell.

    Attributes:
        scans: how many there are.
        missing: by component, for each of its 64 coefficients, the bits still to come; None:
            nothing came. None without a Huffman-coded frame, in which a whole scan may stop early.
    """

    data: bytes
    scans: int = 0
    missing: dict[int, list[int | None]] | None = None


def check_markers(data: bytes) -> None:
    """Raise NotWholeError unless the JPEG file ``data`` has an end and all scans before it.

    What is behind that picture's end (trailing junk, the further pictures of a phone's MPO file)
    does not count, and an end marker inside an embedded thumbnail is none.
    """
    walk = _Walk(data)
    _follow(walk)
    if not walk.scans:
        raise NotWholeError(_CUT_SHORT)
    if walk.missing is not None and any(
        bits != 0 for missing in walk.missing.values() for bits in missing
    ):
        raise NotWholeError("its last scans are missing")


def check_coded(data: bytes) -> None:
    """Raise NotWholeError where libjpeg warns; all coded data are read, few pixels are made."""
    try:
        import simplejpeg  # not on every machine; what Pillow finds must do there
    except ImportError:
        warnings.warn(
            "simplejpeg is not installed: JPEG files that are damaged inside are not noticed",
            RuntimeWarning,
            stacklevel=2,
        )
        return
    try:
        simplejpeg.decode_jpeg(data, strict=True, min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        raise NotWholeError(str(error)) from None


def _follow(walk: _Walk) -> None:
    """Walk from marker to marker, to the end of the first picture."""
    data, position = walk.data, 2
    while match := _MARKER.search(data, position):
        marker, position = match.group(1)[0], match.end()
        if marker == _END:
            return
        if marker in _WITHOUT_LENGTH:
            continue
        size = int.from_bytes(data[position : position + 2], "big")
        segment = data[position + 2 : position + size]
        if size < 2 or len(segment) != size - 2:
            break
        position += size
        try:
            _read_segment(walk, marker, segment)
        except (IndexError, KeyError):
            raise NotWholeError("its header is damaged") from None
    raise NotWholeError(_CUT_SHORT)


def _read_segment(walk: _Walk, marker: int, segment: bytes) -> None:
    if marker in _FRAMES:
        components = [segment[i] for i in range(6, 6 + 3 * segment[5], 3)]
        walk.missing = {component: [None] * 64 for component in components}
    elif marker == _SCAN:
        walk.scans += 1
        if walk.scans > _MOST_SCANS:
            raise NotWholeError(f"it has more than {_MOST_SCANS} scans")
        if walk.missing is not None:
            _read_scan(walk.missing, segment)


def _read_scan(missing: dict[int, list[int | None]], header: bytes) -> None:
    """Note which coefficient bits the scan brings."""
    count = header[0]
    keys = [header[1 + 2 * i] for i in range(count)]
    first, last, approximation = (header[1 + 2 * count + i] for i in range(3))
    for key in keys:
        for coefficient in range(first, last + 1):
            missing[key][coefficient] = approximation & 15
