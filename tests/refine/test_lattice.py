from __future__ import annotations

import itertools

import numpy as np
import pytest

from tagseg.errors import ConfigError
from tagseg.refine.lanes import Width
from tagseg.refine.lattice import FINE, STANDARD, build_lattice

BLURS = pytest.mark.parametrize("blur", [STANDARD, FINE], ids=["standard", "fine"])


def pixel_weights(lattice, height, width):
    """Weights (pixels, points) of every pixel, from the entries of the groups."""
    starts, points, weights = lattice.splat
    found = np.zeros((height * width, lattice.n_points), np.float32)
    across = -(-width // 2)
    for group, (first, last) in enumerate(itertools.pairwise(starts)):
        assert len(set(points[first:last])) == last - first
        for pixel in range(4):
            y, x = group // across * 2 + pixel // 2, group % across * 2 + pixel % 2
            if y < height and x < width:
                found[y * width + x, points[first:last]] = weights[first:last, pixel]
            else:
                assert not weights[first:last, pixel].any()
    return found


def lattice_filter(features, signal, blur=STANDARD, shift=0.0):
    """Splat, blur and slice of ``signal`` (H * W,), with plain numpy for splat and slice."""
    height, width = features.shape[1:]
    lattice = build_lattice(features, blur, shift=shift)
    weights = pixel_weights(lattice, height, width)
    values = weights.T @ signal.astype(np.float32)
    blurred, _ = lattice.blur(values, np.empty_like(values), Width(1))
    return weights @ blurred


def exact_filter(features, signal):
    wide = features.reshape(len(features), -1).T.astype(np.float64)
    return np.exp(-0.5 * ((wide[:, None] - wide[None]) ** 2).sum(axis=-1)) @ signal


def points(d, height, width, extent=4.0, seed=0):
    return (np.random.default_rng(seed).random((d, height, width)) * extent).astype(np.float32)


@BLURS
@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 1), (20, 24), (7, 33)])
@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_weights_are_barycentric(d, shape, shift, blur):
    lattice = build_lattice(points(d, *shape) - 2, blur, shift=shift)
    weights = pixel_weights(lattice, *shape)
    assert (weights > -1e-5).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert ((weights > 1e-6).sum(axis=1) <= d + 1).all()
    assert not weights[:, -1].any()


@BLURS
@pytest.mark.parametrize("d", [1, 2, 5])
def test_one_step_up_and_down_is_no_step(d, blur):
    lattice = build_lattice(points(d, 20, 40) - 2, blur)
    index = np.arange(lattice.n_vertices)
    for neighbours in lattice.neighbours:
        up, down = neighbours[:, 0], neighbours[:, 1]
        there = up < lattice.n_vertices
        assert there.any()
        np.testing.assert_array_equal(down[up[there]], index[there])
        back = down < lattice.n_vertices
        np.testing.assert_array_equal(up[down[back]], index[back])
        if blur is FINE:
            reached = np.append(up, lattice.n_vertices)[np.append(up, lattice.n_vertices)[:-1]]
            np.testing.assert_array_equal(neighbours[:, 2], reached)


def test_filling_adds_the_vertices_between_two_touched_ones():
    features = points(3, 8, 8, extent=9.0)
    touched = build_lattice(features, FINE._replace(fill=False)).n_vertices
    lattice = build_lattice(features, FINE)
    added = lattice.neighbours[:, touched:, :2]
    contacts = (added < touched).sum(axis=(0, 2))
    assert len(contacts) > 0
    assert (contacts >= 2).all()
    np.testing.assert_array_equal(np.unique(lattice.splat.points), np.arange(touched))


@pytest.mark.parametrize(("d", "bound"), [(1, 0.002), (2, 0.003), (5, 0.008)])
def test_filter_is_close_to_the_gaussian(d, bound):
    features = points(d, 30, 50, extent=3.0)
    signal = np.random.default_rng(1).random(1500).astype(np.float32)
    exact = exact_filter(features, signal) / exact_filter(features, np.ones(1500))
    errors = []
    for blur in (STANDARD, FINE):
        got = lattice_filter(features, signal, blur) / lattice_filter(
            features, np.ones_like(signal), blur
        )
        errors.append(np.sqrt(np.mean((got - exact) ** 2)) / exact.mean())
    assert errors[0] < bound
    assert errors[1] < errors[0]


def test_the_holes_of_one_lattice_are_the_vertices_of_the_other():
    features = points(5, 6, 8)
    lattice = build_lattice(features)
    middle = np.zeros((5, 1, 1), np.float32)
    at_vertex = pixel_weights(build_lattice(middle), 1, 1)
    in_hole = pixel_weights(build_lattice(middle, shift=1.0), 1, 1)
    assert at_vertex.max() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(np.sort(in_hole[0])[1:], 1 / 6, atol=1e-6)
    assert lattice.n_vertices > 6


@BLURS
def test_filter_is_symmetric_where_no_vertex_is_missing(blur):
    features = np.stack(np.meshgrid(*[np.arange(0, 3, 0.1)] * 2)).astype(np.float32)
    flat = features.reshape(2, -1)
    inner = np.flatnonzero(np.all((flat > 1) & (flat < 2), axis=0))[:2]
    responses = np.empty((2, 2))
    for row, i in enumerate(inner):
        signal = np.zeros(flat.shape[1], np.float32)
        signal[i] = 1
        responses[row] = lattice_filter(features, signal, blur)[inner]
    assert responses[0, 1] == pytest.approx(responses[1, 0], rel=1e-5)


@BLURS
def test_the_table_grows_with_the_vertices(blur):
    lattice = build_lattice(points(5, 150, 200, extent=40.0), blur)
    assert lattice.n_vertices > 5 * 30000  # hardly any simplex is shared
    assert len(np.unique(lattice.splat.points)) > 5 * 30000


def test_equal_points_share_their_vertices():
    lattice = build_lattice(np.full((5, 3, 5), 1.25, np.float32))
    assert lattice.n_vertices == 6
    weights = pixel_weights(lattice, 3, 5)
    assert (weights == weights[0]).all()


def test_normalised_weights_make_ones_of_ones():
    features = points(5, 12, 14, extent=2.0)
    lattice = build_lattice(features)
    n = lattice_filter(features, np.ones(12 * 14))
    plain = pixel_weights(lattice, 12, 14)
    lattice.normalise(3.0)
    np.testing.assert_allclose(
        pixel_weights(lattice, 12, 14), plain * np.sqrt(3 / n)[:, None], rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("far", [1e15, np.inf])
def test_too_fine_a_lattice_is_refused(far):
    features = np.zeros((5, 1, 2), np.float32)
    features[:, 0, 1] = far
    with pytest.raises(ConfigError, match="too small"):
        build_lattice(features)
