"""Pointwise mutual information of neighbouring pixels' features, learned within one photo.

Isola, Zoran, Krishnan, Adelson, "Crisp boundary detection using pointwise mutual information"
(ECCV 2014), section 3: features A and B of neighbouring pixels are likely on one object where they
occur together more often than apart,

    PMI_rho(A, B) = log( P(A, B)^rho / (P(A) P(B)) ).

P(A, B) is a kernel density over pairs of neighbouring pixels, P(A) its marginal.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["epanechnikov_density", "ordered_pairs", "pair_information", "sample_pairs"]

Float32: TypeAlias = npt.NDArray[np.float32]

_N_FEATURES = 3
_REASSOCIATE = {"reassoc", "contract", "nsz"}  # lets sums run in vector lanes; NaN stays NaN


def sample_pairs(
    features: Float32, n_pairs: int, sigma: float, rng: np.random.Generator
) -> Float32:
    """Draw random pairs of neighbouring pixels: their features, float32 (n_pairs, 6), ordered.

    Pairs lie at p + r and p - r, p uniform, r a unit vector plus Gaussian noise of variance
    ``sigma``, its length cut at 4 sigma + 1; rounded to pixels. In photos that are smaller than
    this, r is as long as they allow.

    Args:
        features: float32 (H, W, 3).
        n_pairs: how many.
        sigma: variance of either coordinate of the noise, in pixels squared.
        rng: where chance comes from.
    """
    angles = rng.uniform(0, 2 * np.pi, n_pairs)
    offsets = np.stack([np.sin(angles), np.cos(angles)], 1)
    offsets += rng.normal(0, np.sqrt(sigma), (n_pairs, 2))
    lengths = np.linalg.norm(offsets, axis=1, keepdims=True)
    offsets *= np.minimum(1, (4 * sigma + 1) / np.maximum(lengths, 1e-9))
    last = np.array(features.shape[:2]) - 1
    margin = np.minimum(np.abs(offsets), last / 2)
    middle = margin + rng.uniform(size=(n_pairs, 2)) * (last - 2 * margin)
    ends = [
        np.clip(np.rint(middle + side), 0, last).astype(np.intp) for side in (offsets, -offsets)
    ]
    return ordered_pairs(*(features[end[:, 0], end[:, 1]] for end in ends))


def ordered_pairs(one: Float32, two: Float32) -> Float32:
    """Put pairs of features (N, 3) in one order, (N, 6): smaller first channel first.

    The other channels decide where the first ones are equal, so that a pair has the same features
    from either side.
    """
    swap = np.zeros(len(one), bool)
    for channel in reversed(range(_N_FEATURES)):
        a, b = one[:, channel], two[:, channel]
        swap = (a > b) | ((a == b) & swap)
    return np.hstack([np.where(swap[:, None], two, one), np.where(swap[:, None], one, two)])


def pair_information(
    pairs: Float32, kernels: Float32, *, bandwidth: float, rho: float, regulariser: float
) -> Float32:
    """Compute the PMI of feature pairs under the density of sampled pairs: float32 (N,).

    PMI = log( J^rho / (M_A M_B + regulariser) ), with J = regulariser + P(A, B) / 2, halved because
    ordered pairs cover half of the space, and M the density of both ends of the sampled pairs.

    Args:
        pairs: float32 (N, 6) from :func:`ordered_pairs`.
        kernels: float32 (M, 6) from :func:`sample_pairs`.
        bandwidth: of the kernels, in units of the features.
        rho: exponent of the joint density.
        regulariser: density added to both.
    """
    joint = regulariser + epanechnikov_density(pairs, kernels, bandwidth) / 2
    ends = np.concatenate([kernels[:, :_N_FEATURES], kernels[:, _N_FEATURES:]])
    one, two = (
        epanechnikov_density(end, ends, bandwidth)
        for end in (pairs[:, :_N_FEATURES], pairs[:, _N_FEATURES:])
    )
    information = rho * np.log(joint) - np.log(one * two + regulariser)
    return information.astype(np.float32)


def epanechnikov_density(points: Float32, kernels: Float32, bandwidth: float) -> Float32:
    """Compute the density at ``points`` (N, D) of kernels at ``kernels`` (M, D), D = 3 or 6.

    The kernels are Epanechnikov's:

    1/M sum_m prod_d 3 / (4 h) max(0, 1 - ((x_d - k_md) / h)^2). Kernels are sorted by their first
    coordinate, so that each point meets only those within one bandwidth of it.
    """
    scale = np.float32(1 / bandwidth)
    order = np.argsort(kernels[:, 0], kind="stable")
    centres = np.ascontiguousarray((kernels[order] * scale).T)
    queries = np.ascontiguousarray(points * scale)
    first = np.searchsorted(centres[0], queries[:, 0] - 1)
    last = np.searchsorted(centres[0], queries[:, 0] + 1)
    sums = np.empty(len(points), np.float32)
    add_up: Any = _sum_products_3 if points.shape[1] == _N_FEATURES else _sum_products_6
    add_up(queries, tuple(centres), first, last, sums)
    return sums * np.float32((0.75 / bandwidth) ** points.shape[1] / len(kernels))


@njit(nogil=True, cache=True, inline="always")
def _bump(distance):  # type: ignore[no-untyped-def]
    height = np.float32(1) - distance * distance
    return height if height > np.float32(0) else np.float32(0)


# One array a coordinate, sliced to the window: LLVM turns the inner loops into vector code.
@njit(nogil=True, cache=True, fastmath=_REASSOCIATE, error_model="numpy")
def _sum_products_3(queries, centres, first, last, sums):  # type: ignore[no-untyped-def]
    k0, k1, k2 = centres
    for i in range(len(queries)):
        a, b, c = queries[i]
        start, stop = first[i], last[i]
        p, q, r = k0[start:stop], k1[start:stop], k2[start:stop]
        total = np.float32(0)
        for j in range(len(p)):
            total += _bump(p[j] - a) * _bump(q[j] - b) * _bump(r[j] - c)
        sums[i] = total


@njit(nogil=True, cache=True, fastmath=_REASSOCIATE, error_model="numpy")
def _sum_products_6(queries, centres, first, last, sums):  # type: ignore[no-untyped-def]
    k0, k1, k2, k3, k4, k5 = centres
    for i in range(len(queries)):
        a, b, c, d, e, f = queries[i]
        start, stop = first[i], last[i]
        p, q, r = k0[start:stop], k1[start:stop], k2[start:stop]
        s, t, u = k3[start:stop], k4[start:stop], k5[start:stop]
        total = np.float32(0)
        for j in range(len(p)):
            one = _bump(p[j] - a) * _bump(q[j] - b) * _bump(r[j] - c)
            total += one * _bump(s[j] - d) * _bump(t[j] - e) * _bump(u[j] - f)
        sums[i] = total
