"""Outlines of regions, from which the tools' own rasterisers get the same pixels back.

A tool decides in one of two ways which pixels a polygon covers: those whose middle lies inside
(pycocotools, scikit-image), or those that the polygon with corners cut to whole numbers touches
(OpenCV's fillPoly as ultralytics calls it, about Pillow's as labelme does). An outline that runs a
quarter of a pixel inside the region's border is the same region for both: it holds all middles, and
its corners, cut, are pixels of the region. So that is where ours run.

A polygon has no holes in these formats. Each hole is joined with what encloses it by a cut of no
width, which goes there and back inside the region and so covers nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
import numpy.typing as npt

from tagseg.formats.export.regions import Region

__all__ = ["polygons_of"]

Points = npt.NDArray[np.float64]
_Ring = npt.NDArray[np.intp]  # (n, 2), x and y, in half pixels
_Cut = tuple[int, int, int]  # from this point of a ring, to that ring, at that point of it


def polygons_of(region: Region) -> list[Points]:
    """A polygon for each connected part: float (n, 2), x and y in pixels, not closed.

    The photo's upper left corner is (0, 0), and pixel (x, y) reaches from there to x + 1, y + 1.
    All coordinates end in .25 or .75.
    """
    doubled = np.repeat(np.repeat(region.mask.view(np.uint8), 2, axis=0), 2, axis=1)
    found, tree = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    rings = [ring[:, 0].astype(np.intp) for ring in found]
    offset = (region.left + 0.25, region.top + 0.25)
    return [_corners(ring) / 2 + offset for ring in _joined(rings, tree[0], doubled)]


def _joined(
    rings: list[_Ring], tree: npt.NDArray[np.int32], doubled: npt.NDArray[np.uint8]
) -> Iterator[_Ring]:
    """The outer rings, each with its holes cut open."""
    holes = [number for number, row in enumerate(tree.tolist()) if row[3] != -1]
    cuts = _cuts(rings, holes, doubled) if holes else {}
    for number, row in enumerate(tree.tolist()):
        if row[3] == -1:
            yield np.concatenate(list(_walk(rings, cuts, number)))


def _cuts(
    rings: list[_Ring], holes: Iterable[int], doubled: npt.NDArray[np.uint8]
) -> dict[int, list[_Cut]]:
    """Where each ring is left for which holes, in the order of its points.

    From the hole's leftmost point the cut goes left, through the region, to the next border. What
    that is the border of begins farther left, so that no two holes wait for one another.
    """
    ends = np.cumsum([len(ring) for ring in rings])
    of_point = np.full(doubled.shape, -1, np.intp)
    every = np.concatenate(rings)
    of_point[every[:, 1], every[:, 0]] = np.arange(len(every))
    cuts: dict[int, list[_Cut]] = {}
    for hole in holes:
        start = int(np.argmin(rings[hole][:, 0]))
        x, y = rings[hole][start].tolist()
        outside = np.flatnonzero(doubled[y, :x] == 0)
        place = int(of_point[y, outside[-1] + 1 if len(outside) else 0])
        ring = int(np.searchsorted(ends, place, side="right"))
        cuts.setdefault(ring, []).append((place - int(ends[ring]) + len(rings[ring]), hole, start))
    return {ring: sorted(found) for ring, found in cuts.items()}


def _walk(rings: list[_Ring], cuts: dict[int, list[_Cut]], outer: int) -> Iterator[_Ring]:
    """The points of a ring in order; at each cut those of the hole, and the cut's end again.

    A stack stands for the holes in holes' way, of which there may be thousands.
    """
    work: list[tuple[int, int, int, list[_Cut]]] = [(outer, 0, 0, list(cuts.get(outer, ())))]
    while work:
        ring, start, at, waiting = work.pop()
        size = len(rings[ring])
        if not waiting:
            # A hole is walked all around, to where the cut came in.
            yield _part(rings[ring], start + at, start + size + (ring != outer))
            continue
        (place, hole, entry), *rest = waiting
        ahead = (place - start) % size
        yield _part(rings[ring], start + at, start + ahead + 1)
        inner = _turned(cuts.get(hole, ()), entry, len(rings[hole]))
        work += [(ring, start, ahead, rest), (hole, entry, 0, inner)]


def _turned(cuts: Iterable[_Cut], start: int, size: int) -> list[_Cut]:
    """Cuts in the order in which they are met from point ``start`` on."""
    return sorted(cuts, key=lambda cut: ((cut[0] - start) % size, cut[1]))


def _part(ring: _Ring, start: int, stop: int) -> _Ring:
    """Points ``start`` to ``stop`` of a ring that goes on from its end to its beginning."""
    return ring[np.arange(start, stop) % len(ring)]


def _corners(ring: _Ring) -> Points:
    """A ring without the points that lie straight between their neighbours."""
    step = np.sign(np.roll(ring, -1, axis=0) - ring)
    is_move = step.any(axis=1)
    ring, step = ring[is_move], step[is_move]  # a point twice in a row is one
    turns = (step != np.roll(step, 1, axis=0)).any(axis=1)
    return ring[turns].astype(np.float64)
