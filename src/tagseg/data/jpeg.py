"""Is a JPEG file whole? Decoders paint what is missing grey and say nothing.

Pillow refuses a file that just stops, but not one that lost its end and was closed with an end
marker again, as download managers and recovery tools do: libjpeg then leaves the missing blocks
grey. :func:`padded_copy` finds what the markers tell, and prepares the test that shows the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil
from typing import NamedTuple

__all__ = ["NotWholeError", "padded_copy"]

_START, _END, _SCAN, _RESTART_INTERVAL = 0xD8, 0xD9, 0xDA, 0xDD
_FRAMES = {0xC0, 0xC1, 0xC2}  # Huffman-coded: baseline, extended, progressive
_WITHOUT_LENGTH = {0x01, _START, *range(0xD0, 0xD8)}
# 0xFF, then neither a stuffed zero nor a restart marker: what ends entropy-coded data. A pattern
# that begins with one plain byte is searched as fast as memory is read; "\xff+" takes ten times as
# long.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_PADDING = bytes((i * 37 + 90) % 251 for i in range(96))  # no 0xFF and no short period
_CUT_SHORT = "it ends before the picture does"


class NotWholeError(ValueError):
    """Parts of the picture are missing; the message says which."""


class _Component(NamedTuple):
    across: int  # sampling factors
    down: int


@dataclass
class _Frame:
    width: int
    height: int
    components: dict[int, _Component]
    # Per component, for each of its 64 coefficients, the bits still to come; None: nothing came.
    missing: dict[int, list[int | None]]


@dataclass
class _Walk:
    data: bytes
    frame: _Frame | None = None
    restart_interval: int = 0
    scan_ends: list[int] = field(default_factory=list)


def padded_copy(data: bytes) -> bytes | None:
    """The JPEG file ``data`` with bytes inserted behind every scan, for a second decoding.

    A decoder that has all blocks of a scan discards what follows up to the next marker; one that
    lacks blocks takes them from the inserted bytes. So a whole file decodes to the same pixels
    with and without them, and a file with a hole does not. Bytes behind the first picture's end
    (trailing junk, the further pictures of a phone's MPO file) are dropped.

    Returns None for coding processes (arithmetic, lossless) in which a whole scan may stop early.
    Raises NotWholeError if there is no end marker after the last scan (one inside an embedded
    thumbnail does not count), or scans or restart intervals that the header promises are missing.
    """
    walk = _Walk(data)
    end = _follow(walk)
    if not walk.scan_ends:
        raise NotWholeError(_CUT_SHORT)
    if walk.frame is None:
        return None
    if any(bits != 0 for missing in walk.frame.missing.values() for bits in missing):
        raise NotWholeError("its last scans are missing")
    return _PADDING.join(data[a:b] for a, b in pairwise([0, *walk.scan_ends, end]))


def _follow(walk: _Walk) -> int:
    """Walk from marker to marker; return where the first picture ends."""
    data, position = walk.data, 2
    while match := _MARKER.search(data, position):
        marker, position = match.group(1)[0], match.end()
        if marker == _END:
            return position
        if marker in _WITHOUT_LENGTH:
            continue
        size = int.from_bytes(data[position : position + 2], "big")
        segment = data[position + 2 : position + size]
        if size < 2 or len(segment) != size - 2:
            break
        position += size
        try:
            _read_segment(walk, marker, segment, position)
        except (IndexError, KeyError):
            raise NotWholeError("its header is damaged") from None
    raise NotWholeError(_CUT_SHORT)


def _read_segment(walk: _Walk, marker: int, segment: bytes, end: int) -> None:
    if marker in _FRAMES:
        walk.frame = _read_frame(segment)
    elif marker == _RESTART_INTERVAL:
        walk.restart_interval = int.from_bytes(segment[:2], "big")
    elif marker == _SCAN:
        stop = _end_of_scan(walk.data, end)
        walk.scan_ends.append(stop)
        if walk.frame is not None:
            _read_scan(walk, walk.frame, segment, walk.data[end:stop])


def _end_of_scan(data: bytes, begin: int) -> int:
    """Where the entropy-coded data end, before any fill bytes (0xFF) of the marker behind them."""
    match = _MARKER.search(data, begin)
    if match is None:
        raise NotWholeError(_CUT_SHORT)
    stop = match.start()
    while data[stop - 1] == 0xFF and stop > begin:
        stop -= 1
    return stop


def _read_frame(segment: bytes) -> _Frame:
    height, width = (int.from_bytes(segment[i : i + 2], "big") for i in (1, 3))
    components = {}
    for i in range(6, 6 + 3 * segment[5], 3):
        factors = segment[i + 1]
        components[segment[i]] = _Component(max(1, factors >> 4), max(1, factors & 15))
    return _Frame(width, height, components, {key: [None] * 64 for key in components})


def _read_scan(walk: _Walk, frame: _Frame, header: bytes, coded: bytes) -> None:
    """Note which coefficient bits the scan brings, and count its restart markers."""
    count = header[0]
    keys = [header[1 + 2 * i] for i in range(count)]
    first, last, approximation = (header[1 + 2 * count + i] for i in range(3))
    for key in keys:
        for coefficient in range(first, last + 1):
            frame.missing[key][coefficient] = approximation & 15
    if walk.restart_interval:
        intervals = ceil(_units(frame, keys) / walk.restart_interval)
        if len(_RESTART.findall(coded)) < intervals - 1:
            raise NotWholeError("part of the picture is missing")


def _units(frame: _Frame, keys: list[int]) -> int:
    """Number of minimum coded units of a scan over the components ``keys``."""
    widest = max(c.across for c in frame.components.values())
    tallest = max(c.down for c in frame.components.values())
    if len(keys) > 1:
        return ceil(frame.width / (8 * widest)) * ceil(frame.height / (8 * tallest))
    # A scan of one component counts its own 8 x 8 blocks.
    one = frame.components[keys[0]]
    columns = ceil(ceil(frame.width * one.across / widest) / 8)
    return columns * ceil(ceil(frame.height * one.down / tallest) / 8)
