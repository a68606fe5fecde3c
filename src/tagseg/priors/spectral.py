"""Multi-scale normalised cuts on a grid of pixels.

Arbelaez, Pont-Tuset, Barron, Marques, Malik, "Multiscale combinatorial grouping" (CVPR 2014),
section 3: an affinity A is made smaller twice before its eigenvectors are taken. With the rows
A_k of every second pixel of every second row, and B = A_k divided by its column sums, the smaller
affinity is A_k B^T, and eigenvectors go back through B^T.

An affinity that joins pixels within a radius is a stencil: float32 (H, W, N), where [y, x, o] joins
pixel (y, x) to the one at offsets[o] from it, and is 0 where that is outside. The smaller affinity
has the same offsets: the mean of two steps within the radius is within the radius. Only rows of
kept pixels are ever read, so that no others need be computed.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.sparse as sp
from numba import njit
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from tagseg.priors.row_blocks import RowBlocks

__all__ = [
    "coarsen",
    "cut_eigenvectors",
    "disk_offsets",
    "generalised_eigenvectors",
    "upsample",
    "whitened",
]

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int32]

_SHIFT = 1e-10  # of all eigenvalues, so that none is 0
_TOLERANCE = 1e-4  # of ARPACK's eigenvectors; their eigenvalues are then right to about 1e-8
_DENSE = 300  # nodes up to which all eigenvectors are as quick as some


def disk_offsets(radius: int) -> Integers:
    """List the offsets (N, 2), row and column, of pixels within ``radius``, itself among them."""
    steps = range(-radius, radius + 1)
    disk = [(y, x) for y in steps for x in steps if y * y + x * x <= radius * radius]
    return np.array(disk, np.int32)


def cut_eigenvectors(
    kept: Float32,
    shape: tuple[int, int],
    offsets: Integers,
    *,
    n_vectors: int,
    n_coarsenings: int,
    blocks: RowBlocks,
) -> tuple[Float64, Float32]:
    """Find the smallest eigenvalues and eigenvectors of the normalised cut: (K,), (H, W, K).

    Args:
        kept: float32 (H // 2, W // 2, N), stencil rows of the kept pixels.
        shape: height and width of the full grid; both at least 2 to the power of n_coarsenings.
        offsets: int32 (N, 2) from :func:`disk_offsets`.
        n_vectors: how many at most, the constant one aside.
        n_coarsenings: how often the affinity is made smaller, 1 or more.
        blocks: what runs the kernels.

    Returns:
        eigenvalues, increasing, and eigenvectors at full size, not normalised.
    """
    levels = []
    for level in range(n_coarsenings):
        affinity, weights = coarsen(kept, shape, offsets, blocks)
        levels.append((weights, shape))
        shape = (affinity.shape[0], affinity.shape[1])
        if level + 1 < n_coarsenings:
            kept = np.ascontiguousarray(affinity[1::2, 1::2])
    values, vectors = generalised_eigenvectors(_sparse(affinity, offsets), n_vectors)
    maps = np.ascontiguousarray(vectors, np.float32).reshape(*shape, -1)
    for weights, finer in reversed(levels):
        maps = upsample(maps, weights, finer, offsets, blocks)
    return values, maps


def coarsen(
    kept: Float32, shape: tuple[int, int], offsets: Integers, blocks: RowBlocks
) -> tuple[Float32, Float32]:
    """Compute the affinity A_k B^T between kept pixels, and B: both (H // 2, W // 2, N).

    Args:
        kept: A_k, stencil rows (H // 2, W // 2, N).
        shape: H, W.
        offsets: int32 (N, 2).
        blocks: what runs the kernel.
    """
    weights = _column_shares(kept, shape, offsets)
    affinity = np.zeros_like(kept)
    blocks.run(_multiply, len(kept), kept, weights, offsets, *_products(offsets), affinity)
    return affinity, weights


def upsample(
    coarse: Float32,
    weights: Float32,
    shape: tuple[int, int],
    offsets: Integers,
    blocks: RowBlocks,
) -> Float32:
    """Bring values (h, w, K) of kept pixels to all pixels (H, W, K) by B^T."""
    fine = np.empty((*shape, coarse.shape[2]), np.float32)
    blocks.run(_gather, shape[0], coarse, weights, offsets, fine)
    return fine


def generalised_eigenvectors(affinity: sp.csr_array, n_vectors: int) -> tuple[Float64, Float64]:
    """Solve (D - A + 1e-10 I) v = lambda D v: values (K,), vectors (n, K), the constant left out.

    They are the largest of D^-1/2 A D^-1/2, which Lanczos' method finds without a factorisation.
    """
    n = affinity.shape[0]
    inverse = 1 / np.sqrt(affinity.sum(axis=1))
    scaled = sp.diags_array(inverse) @ affinity @ sp.diags_array(inverse)
    n_vectors = min(n_vectors, n - 1)
    if n <= max(_DENSE, 3 * n_vectors):
        values, vectors = scipy.linalg.eigh(
            scaled.toarray(), subset_by_index=[n - 1 - n_vectors, n - 1]
        )
    else:
        values, vectors = _largest(scaled.tocsr(), n_vectors + 1)
    order = np.argsort(values)[::-1][1:]
    return np.maximum(1 - values[order], 0) + _SHIFT, vectors[:, order] * inverse[:, None]


def _largest(matrix: sp.csr_array, n_vectors: int) -> tuple[Float64, Float64]:
    start = np.random.default_rng(0).uniform(size=matrix.shape[0])
    try:
        values, vectors = eigsh(matrix, n_vectors, which="LA", v0=start, tol=_TOLERANCE)
    except ArpackNoConvergence as error:  # what has converged still shows the strongest cuts
        values, vectors = error.eigenvalues, error.eigenvectors
    return values, vectors


def whitened(vectors: Float32) -> Float32:
    """Centre columns (n, K), and give them unit covariance, as little turned as possible."""
    centred = vectors - vectors.mean(0)
    covariance = (centred.T @ centred / len(centred)).astype(np.float64)
    variances, axes = np.linalg.eigh(covariance)
    kept = variances > variances[-1] * 1e-12
    whiten = (axes[:, kept] / np.sqrt(variances[kept])) @ axes[:, kept].T
    return centred @ whiten.astype(np.float32)


def _sparse(affinity: Float32, offsets: Integers) -> sp.csr_array:
    """Write a stencil (h, w, N) as a symmetric matrix (h w, h w)."""
    height, width, _ = affinity.shape
    y, x, o = np.nonzero(affinity)
    here = y * width + x
    there = here + offsets[o, 0] * width + offsets[o, 1]
    values = affinity[y, x, o].astype(np.float64)
    matrix = sp.csr_array((values, (here, there)), shape=(height * width,) * 2)
    return ((matrix + matrix.T) / 2).tocsr()


def _products(offsets: Integers) -> tuple[Integers, Integers, Integers]:
    """List the stencil entries that meet: kept pixels' steps u and v that end at one pixel.

    For offset o between the kept pixels, u = v + 2 o. Lists of u and v, where each o's begin.
    """
    place = {(int(y), int(x)): index for index, (y, x) in enumerate(offsets)}
    starts, ones, twos = [0], [], []
    for step_y, step_x in offsets:
        for (y, x), index in place.items():
            other = place.get((y - 2 * int(step_y), x - 2 * int(step_x)))
            if other is not None:
                ones.append(index)
                twos.append(other)
        starts.append(len(ones))
    return np.array(starts, np.int32), np.array(ones, np.int32), np.array(twos, np.int32)


@njit(nogil=True, cache=True, error_model="numpy")
def _column_shares(kept, shape, offsets):  # type: ignore[no-untyped-def]
    sums = np.zeros(shape, np.float32)
    shares = np.zeros_like(kept)
    for dividing in range(2):
        for row in range(kept.shape[0]):
            for column in range(kept.shape[1]):
                for o in range(len(offsets)):
                    y, x = 2 * row + 1 + offsets[o, 0], 2 * column + 1 + offsets[o, 1]
                    if 0 <= y < shape[0] and 0 <= x < shape[1]:
                        if dividing:
                            shares[row, column, o] = kept[row, column, o] / sums[y, x]
                        else:
                            sums[y, x] += kept[row, column, o]
    return shares


@njit(nogil=True, cache=True, error_model="numpy")
def _multiply(first_row, last_row, kept, weights, offsets, starts, ones, twos, out):  # type: ignore[no-untyped-def]
    rows, columns, n = kept.shape
    for y in range(first_row, last_row):
        for x in range(columns):
            for o in range(n):
                y2, x2 = y + offsets[o, 0], x + offsets[o, 1]
                if 0 <= y2 < rows and 0 <= x2 < columns:
                    total = np.float32(0)
                    for k in range(starts[o], starts[o + 1]):
                        total += kept[y, x, ones[k]] * weights[y2, x2, twos[k]]
                    out[y, x, o] = total


@njit(nogil=True, cache=True, error_model="numpy")
def _gather(first_row, last_row, coarse, weights, offsets, fine):  # type: ignore[no-untyped-def]
    rows, columns, n = weights.shape
    for y in range(first_row, last_row):
        for x in range(fine.shape[1]):
            values = fine[y, x]
            values[:] = 0
            for o in range(n):
                y2, x2 = y - offsets[o, 0] - 1, x - offsets[o, 1] - 1
                if y2 % 2 == 0 and x2 % 2 == 0 and 0 <= y2 < 2 * rows and 0 <= x2 < 2 * columns:
                    weight = weights[y2 // 2, x2 // 2, o]
                    source = coarse[y2 // 2, x2 // 2]
                    for k in range(len(values)):
                        values[k] += weight * source[k]
