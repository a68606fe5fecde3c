"""The iterations of a dense CRF's mean field, over buffers of one photo, in one or more threads.

Each thread has a share of the pixels and lattice values of its own to add to. Between two passes
the values are summed and blurred, by one thread for each kernel. Threads wait for each other in
``threading.Barrier``, which sleeps; the kernels hold no interpreter lock.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from tagseg.maps import Probs
from tagseg.refine.groups import GROUP, Filter, NoFilter, groups_of
from tagseg.refine.lanes import Width
from tagseg.refine.pixel_kernels import BLOCK, Grids, Pixels, Regions, update, write_probs

__all__ = ["Filters", "MeanField"]

Float32 = npt.NDArray[np.float32]
Pair = tuple[Filter, Filter]  # of the bilateral and of the smoothness kernel
Filters = list[Pair]  # iteration i takes number i modulo their count

_CACHE_LINE = 16  # float32
_VANISHED = -100.0  # sum of log Q below which no product over all but one pixel is left


class MeanField:
    """Fills ``probs`` (L, H, W) from a photo's pixels, filters and regions."""

    def __init__(
        self,
        pixels: Pixels,
        filters: Filters,
        regions: Regions,
        probs: Probs,
        width: Width,
        threads: int,
    ) -> None:
        self.pixels, self.filters, self.regions = pixels, filters, regions
        self.probs, self.width, self.threads = probs, width, threads
        height, length = probs.shape[1:]
        bounds = np.linspace(0, groups_of(height, length), threads + 1).astype(np.int64)
        self.shares = list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
        sizes = [
            max(pair[kernel].n_points for pair in filters) * width.lanes for kernel in range(2)
        ]
        self.read = [_aligned(size) for size in sizes]
        self.writes = [[_aligned(size) for size in sizes] for _ in range(threads)]
        self.region_sums = [_aligned(regions.sums.size) for _ in range(threads)]
        self.rows = [_aligned(BLOCK * GROUP * width.lanes) for _ in range(threads)]
        self.barrier = threading.Barrier(threads)

    def run(self, iterations: int) -> None:
        """Do ``iterations`` and fill ``probs``."""
        if self.threads == 1:
            self._run_share(0, iterations)
            return
        with ThreadPoolExecutor(self.threads) as pool:
            shares = [pool.submit(self._run_share, k, iterations) for k in range(self.threads)]
            for share in shares:
                share.result()

    def _run_share(self, thread: int, iterations: int) -> None:
        try:
            filters, regions = self._before_any_message()
            for iteration in range(iterations):
                turn = self.filters[iteration % len(self.filters)]
                self._splat(thread, filters, regions, turn)
                self.barrier.wait()
                self._blur(thread, turn)
                self.barrier.wait()
                filters, regions = turn, self.regions
            if thread == 0:  # the last pass needs neither: room for its result
                self.filters.clear()
                self.writes.clear()
            write_probs(
                *self.shares[thread],
                self.pixels,
                _grids(filters, self.read),
                self._own(regions, thread),
                self.rows[thread],
                self.probs,
                self.width,
            )
        except BaseException:
            self.barrier.abort()
            raise

    def _before_any_message(self) -> tuple[Pair, Regions]:
        """Return what leaves the first pass with the unary alone."""
        nothing = NoFilter(*self.probs.shape[1:])
        regions = self.regions
        if regions.ids.size:
            nobody = np.zeros_like(regions.agree)
            regions = regions._replace(costs=np.zeros_like(regions.costs), agree=nobody)
        return (nothing, nothing), regions

    def _own(self, regions: Regions, thread: int) -> Regions:
        return regions._replace(sums_next=self.region_sums[thread])

    def _splat(self, thread: int, filters: Pair, regions: Regions, turn: Pair) -> None:
        """Pass over this thread's pixels: read ``filters``, add to those of ``turn``."""
        write = self.writes[thread]
        for values, target in zip(write, turn, strict=True):
            values[: target.n_points * self.width.lanes] = 0
        self.region_sums[thread][:] = 0
        update(
            *self.shares[thread],
            self.pixels,
            _grids(filters, self.read),
            _grids(turn, write),
            self._own(regions, thread),
            self.rows[thread],
            self.width,
        )

    def _sum_regions(self) -> None:
        """Sum up log Q of every region, and find those where a product may be left."""
        regions = self.regions
        np.sum(self.region_sums, axis=0, out=regions.sums)
        by_region = regions.sums.reshape(-1, self.width.lanes)
        np.greater(by_region.max(axis=1), _VANISHED, out=regions.agree[: len(by_region)])

    def _blur(self, thread: int, turn: Pair) -> None:
        """Sum up what the threads have added, and blur it: one kernel a thread."""
        if thread == 0:
            self._sum_regions()
        for kernel, filter_ in enumerate(turn):
            if thread != kernel % self.threads:
                continue
            used = filter_.n_points * self.width.lanes
            first = self.writes[0][kernel]
            for other in self.writes[1:]:
                first[:used] += other[kernel][:used]
            self.read[kernel], self.writes[0][kernel] = filter_.blur(
                first, self.read[kernel], self.width
            )


def _grids(pair: Pair, values: list[Float32]) -> Grids:
    return Grids((pair[0].splat, pair[1].splat), (values[0], values[1]))


def _aligned(size: int) -> Float32:
    """Return zeros (size,) that begin with a cache line: no vector then lies in two lines."""
    room = np.zeros(size + _CACHE_LINE, np.float32)
    start = -(room.ctypes.data // 4) % _CACHE_LINE
    return room[start : start + size]
