from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

from tagseg.priors.row_blocks import RowBlocks
from tagseg.priors.spectral import (
    coarsen,
    cut_eigenvectors,
    disk_offsets,
    generalised_eigenvectors,
    upsample,
    whitened,
)


def symmetric_affinity(height, width, radius, seed=0):
    """Random symmetric affinity, dense (n, n), of the pixels within ``radius``."""
    rng = np.random.default_rng(seed)
    y, x = (part.ravel() for part in np.mgrid[:height, :width])
    near = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2 <= radius**2
    values = np.exp(rng.normal(0, 2, near.shape))
    return np.where(near, values + values.T, 0)


def stencil(dense, height, width, offsets):
    out = np.zeros((height, width, len(offsets)), np.float32)
    for y, x, o in np.ndindex(out.shape):
        y2, x2 = y + offsets[o][0], x + offsets[o][1]
        if 0 <= y2 < height and 0 <= x2 < width:
            out[y, x, o] = dense[y * width + x, y2 * width + x2]
    return out


def kept_rows(height, width):
    return [y * width + x for y in range(1, height, 2) for x in range(1, width, 2)]


SHAPES = [(8, 10), (9, 7), (13, 12)]


def test_disk():
    offsets = disk_offsets(5)
    assert len(offsets) == 81
    assert np.hypot(*offsets.T).max() == 5
    assert [0, 0] in offsets.tolist()


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize("threads", [1, 3])
def test_coarsening_equals_dense_matrices(height, width, threads):
    offsets = disk_offsets(3)
    dense = symmetric_affinity(height, width, 3)
    rows = dense[kept_rows(height, width)]
    b = rows / rows.sum(0)
    kept = np.ascontiguousarray(stencil(dense, height, width, offsets)[1::2, 1::2])
    coarse = np.random.default_rng(1).normal(size=(*kept.shape[:2], 4)).astype(np.float32)
    with RowBlocks(threads) as blocks:
        affinity, weights = coarsen(kept, (height, width), offsets, blocks)
        fine = upsample(coarse, weights, (height, width), offsets, blocks)
    h, w = kept.shape[:2]
    # All that the product joins is within the radius again: nothing is lost.
    assert np.count_nonzero(rows @ b.T) == np.count_nonzero(affinity)
    np.testing.assert_allclose(affinity, stencil(rows @ b.T, h, w, offsets), rtol=1e-5)
    expected = (b.T @ coarse.reshape(h * w, 4)).reshape(height, width, 4)
    np.testing.assert_allclose(fine, expected, rtol=1e-4, atol=1e-5)


def test_constant_maps_stay_constant():
    offsets = disk_offsets(3)
    dense = symmetric_affinity(11, 9, 3)
    kept = np.ascontiguousarray(stencil(dense, 11, 9, offsets)[1::2, 1::2])
    with RowBlocks(1) as blocks:
        _, weights = coarsen(kept, (11, 9), offsets, blocks)
        ones = np.ones((5, 4, 1), np.float32)
        np.testing.assert_allclose(upsample(ones, weights, (11, 9), offsets, blocks), 1, rtol=1e-6)


@pytest.mark.parametrize(("side", "n_vectors"), [(6, 10), (24, 12)])  # dense, Lanczos
def test_eigenvectors_equal_the_generalised_problem(side, n_vectors):
    a = symmetric_affinity(side, side, 2)
    d = np.diag(a.sum(1))
    expected, vectors = scipy.linalg.eigh(d - a + 1e-10 * np.eye(len(a)), d)
    found, ours = generalised_eigenvectors(sp.csr_array(a), n_vectors)
    np.testing.assert_allclose(found, expected[1 : n_vectors + 1], rtol=1e-4, atol=1e-8)
    # The same space: D-orthonormal bases whose products are orthogonal.
    overlap = vectors[:, 1 : n_vectors + 1].T @ d @ ours
    np.testing.assert_allclose(np.linalg.svd(overlap, compute_uv=False), 1, atol=1e-4)


def test_more_vectors_than_pixels():
    values, vectors = generalised_eigenvectors(sp.csr_array(symmetric_affinity(2, 2, 2)), 100)
    assert values.shape == (3,)
    assert vectors.shape == (4, 3)


def test_cuts_separate_two_groups():
    offsets = disk_offsets(5)
    label = (np.mgrid[:32, :40][1] >= 19).ravel()
    dense = symmetric_affinity(32, 40, 5, seed=3)
    dense *= np.where(label[:, None] == label, 1, 1e-5)
    kept = np.ascontiguousarray(stencil(dense, 32, 40, offsets)[1::2, 1::2])
    with RowBlocks(2) as blocks:
        values, maps = cut_eigenvectors(
            kept, (32, 40), offsets, n_vectors=5, n_coarsenings=2, blocks=blocks
        )
    assert maps.shape == (32, 40, 5)
    assert values[0] < 1e-3 < values[1]
    first = maps[..., 0].ravel()
    left, right = first[~label], first[label]
    assert max(left.std(), right.std()) < 0.01 * abs(left.mean() - right.mean())


def test_whitening():
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)) + 3).astype(np.float32)
    white = whitened(vectors)
    np.testing.assert_allclose(white.T @ white / 500, np.eye(4), atol=1e-3)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-4)
    centred = vectors.astype(np.float64) - vectors.mean(0)
    root = scipy.linalg.sqrtm(centred.T @ centred / 500).real
    np.testing.assert_allclose(white @ root, centred, atol=1e-2)
