"""Masked RoI max pooling: features of all regions of a batch, without what surrounds them.

Wang et al. 2018, section 4.2: a region's external rectangle is the RoI of Fast R-CNN, "features
inside superpixel regions are pooled while features inside the external rectangle but outside the
superpixel regions are pooled as zero".
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from tagseg.errors import ShapeError
from tagseg.threads import in_threads

__all__ = ["RegionCells", "masked_roi_pool", "region_cells"]

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_CHANNELS = 64  # of a thread's share of the backward pass, at least
_MOST_IDS = 1 << 20  # of a photo: far more than there are, and few enough to count
_TENSOR_TYPES = {np.int8: torch.int8, np.int16: torch.int16, np.int32: torch.int32}
_FEW = 8  # cells of a bin up to which all channels are looked at cell by cell


class RegionCells(NamedTuple):
    """The cells of a feature grid that R regions of B photos lie in.

    Attributes:
        ids: (R, 2) photo and region id, ascending; ids that no pixel has are left out.
        boxes: (R, 4) the rectangle of a region's cells: top, left, height, width.
        offsets: (R + 1,) where a region's box begins in ``inside``.
        inside: the boxes' cells row by row, one box after another; True in the region.
        grid: (B, h, w) photos, rows and columns.
    """

    ids: Int64
    boxes: Int32
    offsets: Int64
    inside: Mask
    grid: tuple[int, int, int]


class _Bins(NamedTuple):
    """The cells of each region's bins, R * size^2 of them; numpy arrays, or tensors elsewhere."""

    starts: Any  # int64 (bins + 1,), where a bin's cells begin
    cells: Any  # int32, positions in a list of all photos' cells, row by row in a bin
    padded: Any  # bool (bins,), whether the bin covers cells outside the region, too


def region_cells(
    regions: npt.NDArray[np.integer],
    grid: tuple[int, int],
    stride: int | None,
    *,
    seen: tuple[int, int] | None = None,
) -> RegionCells:
    """Find the cells of every region; each has at least one, which neighbours may share.

    A cell belongs to a region if any of the region's pixels lies in it: with a ``stride`` in the
    cell i for which pixel stride * i is nearest (the later one of two, the last one beyond it);
    with None, cell floor(y h / H) of pixel y. See
    :func:`tagseg.nets.backbone.upsample_grid` for both kinds of grid.

    Args:
        regions: (B, H, W) integers, ids from 0; -1 where there is no region to pool.
        grid: height and width h, w of the features.
        stride: the backbone's ``grid_stride``.
        seen: height and width of the photos as the network had them, where those of ``regions``
            differ (larger, as a rule: the pixels of a smaller map leave cells out).

    Raises:
        ShapeError: regions is no such array.
    """
    regions = _checked(regions)
    photos, height, width = regions.shape
    seen = (height, width) if seen is None else seen
    rows = _cells_of_pixels(height, grid[0], stride, seen[0])
    columns = _cells_of_pixels(width, grid[1], stride, seen[1])
    count = int(regions.max(initial=-1)) + 1
    corners = _corners(regions, rows, columns, count)
    ids = np.argwhere(corners[:, :, 2] >= 0)
    found = corners[ids[:, 0], ids[:, 1]]
    boxes = np.concatenate((found[:, :2], found[:, 2:] - found[:, :2] + 1), 1)
    offsets = np.concatenate(([0], np.cumsum(boxes[:, 2].astype(np.int64) * boxes[:, 3])))
    index = np.full((photos, count), -1, np.int64)
    index[ids[:, 0], ids[:, 1]] = np.arange(len(ids))
    inside = np.zeros(offsets[-1], np.bool_)
    _mark(regions, rows, columns, index, boxes, offsets, inside)
    return RegionCells(ids, boxes, offsets, inside, (photos, *grid))


def masked_roi_pool(features: Tensor, cells: RegionCells, size: int = 7) -> Tensor:
    """Pool each region's box to ``size`` x ``size``, counting what is outside the region as zero.

    Wang et al. 2018, section 4.2, with the bins of Fast R-CNN's RoI pooling: bin i of a box of n
    rows covers rows floor(i n / size) to ceil((i + 1) n / size), so that bins overlap by a row
    where n is no multiple of ``size``, and repeat rows where n is smaller.

    The gradient goes to the first maximal cell of a bin, row by row. Where a zero from outside the
    region is as large as that, the zero has won and no cell gets any.

    On a CPU it is a kernel of its own, with as many threads as PyTorch has; the result does not
    depend on their number. Elsewhere it is made of PyTorch's operations, without a loop over
    regions; that has been compared with the kernel on a CPU, and never been run on a GPU. There
    the gradient's sums may come in another order each time.

    Args:
        features: (B, C, h, w) floats. In channels_last memory they are not copied.
        cells: of the same batch and grid.
        size: bins a side.

    Returns:
        (R, C, size, size), in the order of ``cells.ids`` and in channels_last memory; float32, or
        float64 for such features.

    Raises:
        ShapeError: the features are not on the grid of ``cells``.
    """
    photos, channels, height, width = features.shape
    if (photos, height, width) != cells.grid:
        raise ShapeError(
            f"features of {photos} photos on {height} x {width} cells, regions of "
            f"{cells.grid[0]} on {cells.grid[1]} x {cells.grid[2]}",
            do="give both for the same batch",
        )
    if features.dtype != torch.float64:
        features = features.float()
    flat = features.permute(0, 2, 3, 1).reshape(-1, channels)
    pooled: Tensor = _MaskedMax.apply(flat, _bins(cells, size))
    return pooled.view(len(cells.ids), size, size, channels).permute(0, 3, 1, 2)


class _MaskedMax(torch.autograd.Function):
    """Largest value per bin and channel, (bins, C), of features (B * h * w, C)."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, bins: _Bins) -> Tensor:
        ctx.bins, ctx.features_shape = bins, features.shape
        pooled, winners = _ways(features.device)[0](features, bins)
        ctx.save_for_backward(winners)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (winners,) = ctx.saved_tensors
        back = _ways(gradient.device)[1]
        return back(gradient.contiguous(), winners, ctx.bins, ctx.features_shape), None


Forward = Callable[[Tensor, _Bins], tuple[Tensor, Tensor]]
Backward = Callable[[Tensor, Tensor, _Bins, torch.Size], Tensor]


def _ways(device: torch.device) -> tuple[Forward, Backward]:
    """How to pool and how to go back; winners are a cell's place in its bin, -1 for a zero."""
    if device.type == "cpu":
        return _kernel_forward, _kernel_backward
    return _tensor_forward, _tensor_backward


def _kernel_forward(features: Tensor, bins: _Bins) -> tuple[Tensor, Tensor]:
    data = features.detach().contiguous().numpy()
    # NumPy asks for huge pages where there are some: PyTorch's memory comes in small ones, which
    # took longer to get than the rest of the work.
    pooled = np.empty((len(bins.padded), data.shape[1]), data.dtype)
    winners = np.empty(pooled.shape, _winner_type(bins))
    _in_threads(
        lambda first, last: _pool(data, *bins, first, last, pooled, winners), len(pooled), 1
    )
    return torch.from_numpy(pooled), torch.from_numpy(winners)


def _kernel_backward(gradient: Tensor, winners: Tensor, bins: _Bins, shape: torch.Size) -> Tensor:
    # Threads share out channels, so that no two write to one place.
    given = gradient.numpy(), winners.numpy(), bins.starts, bins.cells
    total = np.zeros(shape, given[0].dtype)
    _in_threads(lambda first, last: _unpool(*given, first, last, total), shape[1], _CHANNELS)
    return torch.from_numpy(total)


def _tensor_forward(features: Tensor, bins: _Bins) -> tuple[Tensor, Tensor]:
    """All bins at once, one cell of each at a step."""
    starts, cells, padded = (torch.from_numpy(a).to(features.device) for a in bins)
    counts = starts.diff()
    lowest = torch.full_like(padded, -torch.inf, dtype=features.dtype).masked_fill_(padded, 0)
    pooled = lowest[:, None].repeat(1, features.shape[1])
    winners = torch.full_like(pooled, -1, dtype=_TENSOR_TYPES[_winner_type(bins)])
    for step in range(int(np.diff(bins.starts).max(initial=0))):
        rows = (counts > step).nonzero()[:, 0]
        values, known = features[cells[starts[rows] + step].long()], pooled[rows]
        ahead = values > known
        pooled[rows] = torch.where(ahead, values, known)
        winners[rows] = winners[rows].masked_fill(ahead, step)
    return pooled, winners


def _tensor_backward(gradient: Tensor, winners: Tensor, bins: _Bins, shape: torch.Size) -> Tensor:
    starts, cells = (torch.from_numpy(a).to(gradient.device) for a in bins[:2])
    places = starts[:-1, None] + winners.clamp(min=0)
    total = torch.zeros(shape, dtype=gradient.dtype, device=gradient.device)
    if len(cells) == 0:
        return total
    places = cells[places.clamp(max=len(cells) - 1)].long()
    return total.scatter_add_(0, places, gradient.masked_fill(winners < 0, 0))


def _winner_type(bins: _Bins) -> type[np.signedinteger]:
    """The smallest type for a cell's place in its bin: int8, but for huge grids or few bins."""
    most = int(np.diff(bins.starts).max(initial=0))
    fitting = (kind for kind in (np.int8, np.int16) if most <= np.iinfo(kind).max)
    return next(fitting, np.int32)


def _in_threads(run: Callable[[int, int], None], count: int, least: int) -> None:
    """Share 0..count-1 out among PyTorch's number of threads, at least ``least`` to each."""
    parts = max(1, min(torch.get_num_threads(), count // least))
    edges = [count * part // parts for part in range(parts + 1)]
    in_threads(lambda part: run(*part), pairwise(edges), parts)


def _checked(regions: npt.NDArray[np.integer]) -> Int32:
    if regions.ndim != 3 or not np.issubdtype(regions.dtype, np.integer) or 0 in regions.shape:
        raise ShapeError(
            f"regions is a {regions.dtype} array of shape {regions.shape}",
            do="give integers (B, H, W)",
        )
    lowest, highest = int(regions.min()), int(regions.max())
    if lowest < -1 or highest >= _MOST_IDS:
        raise ShapeError(
            f"regions holds ids from {lowest} to {highest}",
            do="number the regions of a photo from 0, and use -1 for none",
        )
    return np.ascontiguousarray(regions, np.int32)


def _cells_of_pixels(length: int, cells: int, stride: int | None, seen: int) -> Int32:
    """The row (or column) of cells that each row of ``length`` pixels lies in."""
    pixel = np.arange(length, dtype=np.int64)
    if stride is None:
        return (pixel * cells // length).astype(np.int32)
    # Pixel y lies on p = (y + 1/2) seen / length - 1/2 of what the network saw; this is
    # floor(p / stride + 1/2) in whole numbers.
    place = ((2 * pixel + 1) * seen - length + length * stride) // (2 * length * stride)
    return np.minimum(place, cells - 1).astype(np.int32)


def _bins(cells: RegionCells, size: int) -> _Bins:
    _, height, width = cells.grid
    counts = np.zeros((len(cells.ids), size, size), np.int64)
    padded = np.zeros(counts.size, np.bool_)
    given = cells.ids, cells.boxes, cells.offsets, cells.inside
    _count_bins(*given, size, counts, padded)
    starts = np.concatenate(([0], np.cumsum(counts)))
    listed = np.empty(starts[-1], np.int32)
    _fill_bins(*given, size, height, width, starts, listed)
    return _Bins(starts, listed, padded)


@njit(nogil=True, cache=True, error_model="numpy")
def _corners(regions, rows, columns, count):  # type: ignore[no-untyped-def]
    """First and last row and column of cells of each region, (B, count, 4); -1 without pixels."""
    photos, height, width = regions.shape
    corners = np.empty((photos, count, 4), np.int32)
    corners[:, :, :2] = np.iinfo(np.int32).max
    corners[:, :, 2:] = -1
    for b in range(photos):
        for y in range(height):
            row = rows[y]
            for x in range(width):
                region = regions[b, y, x]
                if region < 0:
                    continue
                box = corners[b, region]
                box[0], box[2] = min(box[0], row), max(box[2], row)
                box[1], box[3] = min(box[1], columns[x]), max(box[3], columns[x])
    return corners


@njit(nogil=True, cache=True, error_model="numpy")
def _mark(regions, rows, columns, index, boxes, offsets, inside):  # type: ignore[no-untyped-def]
    """Set ``inside`` at the cells that hold a pixel of their region."""
    photos, height, width = regions.shape
    for b in range(photos):
        for y in range(height):
            for x in range(width):
                region = regions[b, y, x]
                if region < 0:
                    continue
                r = index[b, region]
                place = (rows[y] - boxes[r, 0]) * boxes[r, 3] + columns[x] - boxes[r, 1]
                inside[offsets[r] + place] = True


@njit(nogil=True, cache=True, error_model="numpy")
def _count_bins(ids, boxes, offsets, inside, size, counts, padded):  # type: ignore[no-untyped-def]
    """Cells of each bin that are in its region, and whether it has others."""
    row = 0
    for r in range(len(ids)):
        height, width = boxes[r, 2], boxes[r, 3]
        for i in range(size):
            top, bottom = i * height // size, -(-(i + 1) * height // size)
            for j in range(size):
                left, right = j * width // size, -(-(j + 1) * width // size)
                found = 0
                for y in range(top, bottom):
                    for x in range(left, right):
                        found += inside[offsets[r] + y * width + x]
                counts[r, i, j] = found
                padded[row] = found < (bottom - top) * (right - left)
                row += 1


@njit(nogil=True, cache=True, error_model="numpy")
def _fill_bins(  # type: ignore[no-untyped-def]
    ids, boxes, offsets, inside, size, grid_height, grid_width, starts, listed
):
    """List what :func:`_count_bins` counts."""
    row = 0
    for r in range(len(ids)):
        height, width = boxes[r, 2], boxes[r, 3]
        corner = (ids[r, 0] * grid_height + boxes[r, 0]) * grid_width + boxes[r, 1]
        for i in range(size):
            top, bottom = i * height // size, -(-(i + 1) * height // size)
            for j in range(size):
                left, right = j * width // size, -(-(j + 1) * width // size)
                place = starts[row]
                for y in range(top, bottom):
                    for x in range(left, right):
                        if inside[offsets[r] + y * width + x]:
                            listed[place] = corner + y * grid_width + x
                            place += 1
                row += 1


@njit(nogil=True, cache=True, error_model="numpy")
def _pool(  # type: ignore[no-untyped-def]
    features, starts, cells, padded, first, last, pooled, winners
):
    """Fill ``pooled`` and ``winners`` for the bins from ``first`` to before ``last``."""
    channels = features.shape[1]
    for row in range(first, last):
        best, winner = pooled[row], winners[row]
        start = starts[row]
        count = starts[row + 1] - start
        if padded[row]:
            best[:], winner[:], known = 0, -1, 0
        else:
            best[:], winner[:], known = features[cells[start]], 0, 1
        for k in range(known, count):
            values, own = features[cells[start + k]], winners.dtype.type(k)
            for c in range(channels):  # without a branch, so that it becomes vector code
                ahead = values[c] > best[c]
                best[c] = values[c] if ahead else best[c]
                winner[c] = own if ahead else winner[c]


@njit(nogil=True, cache=True, error_model="numpy")
def _unpool(  # type: ignore[no-untyped-def]
    gradient, winners, starts, cells, first, last, total
):
    """Add each bin's gradient to its winner, in the channels from ``first`` to before ``last``."""
    nothing = total.dtype.type(0)
    for row in range(len(starts) - 1):
        start = starts[row]
        count = starts[row + 1] - start
        given, winner = gradient[row, first:last], winners[row, first:last]
        if count <= _FEW:
            for k in range(count):
                sums, own = total[cells[start + k], first:last], winners.dtype.type(k)
                for c in range(len(given)):
                    sums[c] += given[c] if winner[c] == own else nothing
        else:
            for c in range(len(given)):
                if winner[c] >= 0:
                    total[cells[start + winner[c]], first + c] += given[c]
