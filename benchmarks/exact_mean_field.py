"""The exact mean field of a dense CRF at full size, as the judge of faster ones.

Every pair of pixels counts, at 500 x 375 with 21 labels in some 15 s an iteration on one core.
Pixels are sorted into compact tiles of feature space; a pair of tiles is left out only where every
weight between them is below 1e-10. Weights are float32, sums over tiles float64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

TILE = 192
FARTHEST = np.float32(46.2)  # squared distance from where a weight is below 1e-10

Float64 = npt.NDArray[np.float64]


class ExactGaussian:
    """Sums over all pairs of pixels with the weights exp(-|f_i - f_j|^2 / 2)."""

    def __init__(self, image: npt.NDArray[np.uint8], sigma_pixels: float, sigma_levels: float):
        self.shape = image.shape[:2]
        features = _features(image, sigma_pixels, sigma_levels)
        tiles = _tiles(features)
        self.order = np.full((len(tiles), TILE), -1)
        for row, members in zip(self.order, tiles, strict=True):
            row[: len(members)] = members
        self.real = self.order >= 0
        tiled = np.where(self.real[..., None], features[self.order], np.float32(0))
        self.low = np.where(self.real[..., None], tiled, np.inf).min(axis=1).astype(np.float32)
        self.high = np.where(self.real[..., None], tiled, -np.inf).max(axis=1).astype(np.float32)
        self.features = np.ascontiguousarray(tiled.transpose(0, 2, 1))

    def __call__(self, values: npt.NDArray[np.floating]) -> Float64:
        """sum_j k_ij v_j for ``values`` (L, H, W), j = i included."""
        flat = np.ascontiguousarray(values.reshape(len(values), -1).T, np.float32)
        tiled = np.where(self.real[..., None], flat[self.order], np.float32(0))
        sums = np.zeros(tiled.shape, np.float64)
        _add_pairs(self.features, tiled, self.low, self.high, sums)
        result = np.empty(flat.shape)
        result[self.order[self.real]] = sums[self.real]
        return result.T.reshape(len(values), *self.shape)


class ExactSmoothness:
    """The normalised smoothness message, separable and exact."""

    def __init__(self, shape: tuple[int, int], sigma: float) -> None:
        self.vertical, self.horizontal = (_gaussian(length, sigma) for length in shape)
        self.scale = 1 / np.sqrt(self.vertical.sum(1)[:, None] * self.horizontal.sum(1))

    def __call__(self, values: Float64) -> Float64:
        """Message (L, H, W)."""
        return self.scale * (self.vertical @ (self.scale * values) @ self.horizontal)


class ExactMeanField:
    """Exact messages and marginals of one photo."""

    def __init__(self, image, bilateral, smoothness) -> None:
        self.weights = bilateral[0], smoothness[0]
        self.gaussian = ExactGaussian(image, *bilateral[1:])
        self.scale = self.gaussian(np.ones((1, *image.shape[:2])))[0] ** -0.5
        self.smooth = ExactSmoothness(image.shape[:2], smoothness[1])

    def message(self, probs: Float64) -> Float64:
        """Weighted messages of both kernels."""
        bilateral = self.scale * self.gaussian(self.scale * probs)
        return self.weights[0] * bilateral + self.weights[1] * self.smooth(probs)

    def run(self, unary, iterations: int) -> Float64:
        """Marginals (L, H, W)."""
        probs = softmax(-unary.astype(np.float64))
        for _ in range(iterations):
            probs = softmax(self.message(probs) - unary)
        return probs


def softmax(energies: Float64) -> Float64:
    """Softmax over the first axis."""
    exponentials = np.exp(energies - energies.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def _gaussian(length: int, sigma: float) -> Float64:
    x = np.arange(length)
    return np.exp(-0.5 * ((x[:, None] - x) / sigma) ** 2)


def _features(image, sigma_pixels: float, sigma_levels: float):
    height, width, _ = image.shape
    features = np.empty((height, width, 5))
    features[..., 0] = (np.arange(width) - width / 2) / sigma_pixels
    features[..., 1] = (np.arange(height)[:, None] - height / 2) / sigma_pixels
    features[..., 2:] = (image - 127.5) / sigma_levels
    return features.reshape(-1, 5).astype(np.float32)


def _tiles(features) -> list[npt.NDArray[np.intp]]:
    """Halves of halves along the widest feature, until a tile holds all of its pixels."""
    todo, done = [np.arange(len(features))], []
    while todo:
        members = todo.pop()
        if len(members) <= TILE:
            done.append(members)
            continue
        spread = np.ptp(features[members], axis=0)
        half = len(members) // 2
        order = np.argpartition(features[members, spread.argmax()], half)
        todo += [members[order[half:]], members[order[:half]]]
    return done


@njit(nogil=True, cache=True, fastmath={"contract", "nsz", "nnan", "ninf"}, error_model="numpy")
def _weights(a, b, out, powers, power_bits, out_bits):
    """Weights between two tiles: 2^z as a polynomial on [-1/2, 1/2] times a power of two."""
    shift, scale = np.float32(12582912.0), np.float32(-0.5 * 1.4426950408889634)
    for i in range(a.shape[1]):
        for j in range(b.shape[1]):
            squares = np.float32(0)
            for d in range(5):
                squares += (a[d, i] - b[d, j]) ** 2
            z = max(squares * scale, np.float32(-120.0))
            shifted = z + shift
            rest = z - (shifted - shift)
            powers[j] = shifted
            p = np.float32(1.5403530393381609e-4)
            p = p * rest + np.float32(1.3333558146428443e-3)
            p = p * rest + np.float32(9.6181291076284772e-3)
            p = p * rest + np.float32(5.5504108664821580e-2)
            p = p * rest + np.float32(2.4022650695910071e-1)
            p = p * rest + np.float32(6.9314718055994531e-1)
            out[i, j] = p * rest + np.float32(1.0)
        for j in range(b.shape[1]):
            out_bits[i, j] += power_bits[j] << 23


@njit(nogil=True, cache=True)
def _are_far(low, high, i, j):
    squares = np.float32(0)
    for d in range(5):
        gap = max(low[i, d] - high[j, d], low[j, d] - high[i, d], np.float32(0))
        squares += gap * gap
    return squares > FARTHEST


@njit(nogil=True, cache=True)
def _add_pairs(features, values, low, high, sums):
    weights = np.empty((TILE, TILE), np.float32)
    powers = np.empty(TILE, np.float32)
    for i in range(len(features)):
        for j in range(i, len(features)):
            if _are_far(low, high, i, j):
                continue
            _weights(
                features[i],
                features[j],
                weights,
                powers,
                powers.view(np.int32),
                weights.view(np.int32),
            )
            sums[i] += np.dot(weights, values[j])
            if i != j:
                sums[j] += np.dot(weights.T, values[i])
