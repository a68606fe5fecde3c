from __future__ import annotations

import numpy as np
import pytest

from tagseg.errors import ConfigError
from tagseg.refine.lanes import LANES
from tagseg.refine.lattice import blur, build_lattice


def lattice_filter(features, signal):
    """Splat, blur and slice of ``signal`` (N,), with plain numpy for splat and slice."""
    lattice = build_lattice(features)
    values = np.zeros((lattice.n_vertices + 1, LANES), np.float32)
    for v in range(lattice.vertices.shape[1]):
        np.add.at(values[:, 0], lattice.vertices[:, v], lattice.weights[:, v] * signal)
    blurred, _ = blur(values.ravel(), np.empty(values.size, np.float32), lattice.neighbours)
    return (lattice.weights * blurred[lattice.vertices * LANES]).sum(axis=1)


def exact_filter(features, signal):
    wide = features.astype(np.float64)
    return np.exp(-0.5 * ((wide[:, None] - wide[None]) ** 2).sum(axis=-1)) @ signal


def points(n, d, extent=4.0, seed=0):
    return (np.random.default_rng(seed).random((n, d)) * extent).astype(np.float32)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_weights_are_barycentric(d):
    lattice = build_lattice(points(500, d) - 2)
    assert lattice.vertices.shape == lattice.weights.shape == (500, d + 1)
    assert (lattice.weights > -1e-5).all()
    np.testing.assert_allclose(lattice.weights.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(np.unique(lattice.vertices), np.arange(lattice.n_vertices))


@pytest.mark.parametrize("d", [1, 2, 5])
def test_one_step_up_and_down_is_no_step(d):
    lattice = build_lattice(points(800, d) - 2)
    index = np.arange(lattice.n_vertices)
    for up, down in lattice.neighbours.transpose(0, 2, 1):
        there = up < lattice.n_vertices
        assert there.any()
        np.testing.assert_array_equal(down[up[there]], index[there])
        back = down < lattice.n_vertices
        np.testing.assert_array_equal(up[down[back]], index[back])


@pytest.mark.parametrize(("d", "bound"), [(1, 0.002), (2, 0.003), (5, 0.008)])
def test_filter_is_close_to_the_gaussian(d, bound):
    features = points(1500, d, extent=3.0)
    signal = np.random.default_rng(1).random(1500).astype(np.float32)
    got = lattice_filter(features, signal) / lattice_filter(features, np.ones_like(signal))
    exact = exact_filter(features, signal) / exact_filter(features, np.ones(1500))
    error = np.sqrt(np.mean((got - exact) ** 2)) / exact.mean()
    assert error < bound


def test_filter_is_symmetric_where_no_vertex_is_missing():
    features = np.stack(np.meshgrid(*[np.arange(0, 3, 0.1)] * 2), axis=-1).reshape(-1, 2)
    features = features.astype(np.float32)
    inner = np.flatnonzero(np.all((features > 1) & (features < 2), axis=1))[:2]
    responses = np.empty((2, 2))
    for row, i in enumerate(inner):
        signal = np.zeros(len(features), np.float32)
        signal[i] = 1
        responses[row] = lattice_filter(features, signal)[inner]
    assert responses[0, 1] == pytest.approx(responses[1, 0], rel=1e-5)


def test_the_table_grows_with_the_vertices():
    n = 30000
    features = points(n, 5, extent=40.0)
    lattice = build_lattice(features)
    assert lattice.n_vertices > 5 * n  # hardly any simplex is shared
    ones = lattice_filter(features, np.ones(n, np.float32))
    assert (ones > 0).all()


def test_equal_points_share_their_vertices():
    lattice = build_lattice(np.full((7, 5), 1.25, np.float32))
    assert lattice.n_vertices == 6
    assert (lattice.vertices == lattice.vertices[0]).all()


@pytest.mark.parametrize("far", [1e15, np.inf])
def test_too_fine_a_lattice_is_refused(far):
    features = np.zeros((2, 5), np.float32)
    features[1] = far
    with pytest.raises(ConfigError, match="too small"):
        build_lattice(features)
