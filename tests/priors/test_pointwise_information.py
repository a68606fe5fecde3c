from __future__ import annotations

import numpy as np
import pytest

from tagseg.priors.pointwise_information import (
    epanechnikov_density,
    ordered_pairs,
    pair_information,
    sample_pairs,
)


def slow_density(points, kernels, h):
    out = []
    for point in points.astype(np.float64):
        total = 0.0
        for kernel in kernels.astype(np.float64):
            product = 1.0
            for x, k in zip(point, kernel, strict=True):
                product *= 0.75 / h * max(0.0, 1 - ((x - k) / h) ** 2)
            total += product
        out.append(total / len(kernels))
    return np.array(out)


def features(seed, n, d):
    return np.random.default_rng(seed).uniform(0, 0.5, (n, d)).astype(np.float32)


@pytest.mark.parametrize("d", [3, 6])
def test_density_equals_the_loop(d):
    kernels, points = features(0, 120, d), features(1, 40, d)
    expected = slow_density(points, kernels, 0.25)
    assert (expected > 0).any()
    np.testing.assert_allclose(
        epanechnikov_density(points, kernels, 0.25), expected, rtol=1e-4, atol=1e-5 * expected.max()
    )


def test_density_is_one_in_all():
    steps = np.linspace(-0.3, 0.8, 45, dtype=np.float32)
    points = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    density = epanechnikov_density(points, features(0, 50, 3), 0.25)
    assert density.sum() * (steps[1] - steps[0]) ** 3 == pytest.approx(1, abs=1e-2)


def test_density_far_from_all_kernels_is_zero():
    assert epanechnikov_density(features(0, 5, 3) + 9, features(1, 5, 3), 0.05).tolist() == [0] * 5


def test_information_equals_the_formula():
    kernels = ordered_pairs(features(0, 80, 3), features(1, 80, 3))
    pairs = ordered_pairs(features(2, 30, 3), features(3, 30, 3))
    joint = 100 + slow_density(pairs, kernels, 0.2) / 2
    ends = np.vstack([kernels[:, :3], kernels[:, 3:]])
    product = slow_density(pairs[:, :3], ends, 0.2) * slow_density(pairs[:, 3:], ends, 0.2)
    expected = np.log(joint**1.25 / (product + 100))
    found = pair_information(pairs, kernels, bandwidth=0.2, rho=1.25, regulariser=100.0)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_pair_is_the_same_from_either_side():
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 3, (2, 200, 3)).astype(np.float32)  # many ties
    pairs = ordered_pairs(one, two)
    np.testing.assert_array_equal(pairs, ordered_pairs(two, one))
    for a, b, pair in zip(one, two, pairs, strict=True):
        assert [tuple(pair[:3]), tuple(pair[3:])] == sorted([tuple(a), tuple(b)])


def place_features(height, width):
    """The features of a pixel are where it is."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, np.zeros_like(y)], 2).astype(np.float32)


def test_sampled_pairs_are_neighbours_all_over_the_photo():
    pairs = sample_pairs(place_features(60, 90), 20_000, 0.25, np.random.default_rng(0))
    step = pairs[:, 3:5] - pairs[:, :2]
    distance = np.hypot(*step.T)
    assert distance.max() <= 4 + np.sqrt(2)  # both ends are rounded
    assert 2 < distance.mean() < 3
    middle = (pairs[:, 3:5] + pairs[:, :2]) / 2
    np.testing.assert_allclose(middle.mean(0), [29.5, 44.5], atol=0.5)
    np.testing.assert_allclose(middle.std(0), [60 / 12**0.5, 90 / 12**0.5], rtol=0.08)
    across = np.abs(step)
    assert across[:, 0].mean() == pytest.approx(across[:, 1].mean(), rel=0.03)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2), (3, 1)])
def test_photos_smaller_than_the_window(shape):
    pairs = sample_pairs(place_features(*shape), 300, 0.25, np.random.default_rng(0))
    places = pairs.reshape(-1, 3)
    assert np.unique(places[:, :2], axis=0).shape[0] == shape[0] * shape[1]
