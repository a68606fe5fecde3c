from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import correlate

from tagseg.priors.oriented_energy import derivative_filters, oriented_energy
from tagseg.priors.row_blocks import RowBlocks


def energy_of(maps, threads=1):
    with RowBlocks(threads) as blocks:
        return oriented_energy(maps, sigma=1.0, support=3.0, n_orientations=8, blocks=blocks)


def slow_energy(maps):
    """Eight rotated first derivatives of a Gaussian, each as one two-dimensional filter."""
    y, x = np.mgrid[-3:4, -3:4].astype(np.float64)
    gauss, ramp = (lambda t: np.exp(-(t**2) / 2)), np.arange(-3, 4)
    scale = gauss(ramp).sum() * (np.abs(ramp) * gauss(ramp)).sum()
    out = []
    for k in range(8):
        along = np.cos(k * np.pi / 8) * x + np.sin(k * np.pi / 8) * y
        kernel = along * gauss(np.hypot(x, y)) / scale
        responses = [
            correlate(one, kernel, mode="nearest") for one in maps.astype(float).transpose(2, 0, 1)
        ]
        out.append(np.abs(responses).sum(0))
    return np.array(out)


@pytest.mark.parametrize("shape", [(14, 17, 3), (1, 9, 2), (8, 1, 1), (2, 2, 40)])
@pytest.mark.parametrize("threads", [1, 2])
def test_energy_equals_rotated_filters(shape, threads):
    maps = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(energy_of(maps, threads), slow_energy(maps), rtol=1e-4, atol=1e-5)


def test_an_edge_is_strongest_along_its_normal():
    y, x = np.mgrid[:21, :21] - 10.0
    for k in range(8):
        angle = k * np.pi / 8
        step = np.tanh(np.cos(angle) * x + np.sin(angle) * y).astype(np.float32)[..., None]
        assert energy_of(step)[:, 10, 10].argmax() == k


def test_filters():
    smooth, derivative = derivative_filters(1.0, 3.0)
    assert len(smooth) == len(derivative) == 7
    assert smooth.sum() == pytest.approx(1, abs=1e-6)
    assert np.abs(derivative).sum() == pytest.approx(1, abs=1e-6)
    assert derivative.sum() == pytest.approx(0, abs=1e-6)
