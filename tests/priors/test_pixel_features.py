from __future__ import annotations

import numpy as np
import pytest

from tagseg.priors.pixel_features import colour_features, decorrelated, texture_features


def photo(height=17, width=23, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def slow_decorrelated(features):
    """Scale, whiten by the inverse root of the covariance, scale, halve: in float64."""
    columns = features.reshape(-1, features.shape[2]).astype(np.float64)
    for step in range(2):
        for c in range(columns.shape[1]):
            columns[:, c] -= columns[:, c].min()
            columns[:, c] /= columns[:, c].max()
        if step == 0:
            columns -= columns.mean(0)
            covariance = sum(np.outer(row, row) for row in columns) / len(columns)
            values, axes = np.linalg.eigh(covariance)
            columns = columns @ axes @ np.diag(values**-0.5) @ axes.T
    return (columns / 2).reshape(features.shape)


def slow_texture(image, radius):
    height, width, _ = image.shape
    colours = image.reshape(-1, 3) / 255
    colours = colours - colours.mean(0)
    colours = (colours @ np.linalg.eigh(colours.T @ colours)[1]).reshape(image.shape)
    colours = np.pad(colours, ((radius, radius), (radius, radius), (0, 0)), mode="symmetric")
    deviations = np.empty(image.shape)
    for y in range(height):
        for x in range(width):
            near = [
                colours[y + radius + dy, x + radius + dx]
                for dy in range(-radius, radius + 1)
                for dx in range(-radius, radius + 1)
                if dy * dy + dx * dx <= radius * radius
            ]
            deviations[y, x] = np.std(near, axis=0, ddof=1)
    return slow_decorrelated(np.sqrt(deviations))


def test_whitening_equals_the_formula():
    features = np.random.default_rng(0).gamma(2, size=(9, 11, 3)) @ [
        [1, 0.5, 0],
        [0, 1, 2],
        [0, 0, 1],
    ]
    np.testing.assert_allclose(decorrelated(features), slow_decorrelated(features), atol=1e-6)


def test_features_are_uncorrelated_and_fill_their_range():
    for features in (colour_features(photo()), texture_features(photo(), 2)):
        assert features.dtype == np.float32
        np.testing.assert_allclose(features.min((0, 1)), 0, atol=1e-7)
        np.testing.assert_allclose(features.max((0, 1)), 0.5, rtol=1e-6)
        correlations = np.corrcoef(features.reshape(-1, 3).T)
        np.testing.assert_allclose(correlations, np.eye(3), atol=1e-3)


@pytest.mark.parametrize("radius", [1, 2])
def test_texture_equals_the_loop(radius):
    image = photo()
    np.testing.assert_allclose(
        texture_features(image, radius), slow_texture(image, radius), atol=2e-4
    )


def test_grey_photos_have_one_feature_axis():
    grey = photo()[..., :1].repeat(3, 2)
    for features in (colour_features(grey), texture_features(grey, 2)):
        assert np.isfinite(features).all()
        values = features.reshape(-1, 3).astype(np.float64)
        singular = np.linalg.svd(values - values.mean(0), compute_uv=False)
        assert singular[1] < 1e-3 * singular[0]
        assert features.max() == 0.5


@pytest.mark.parametrize("level", [0, 128, 255])
def test_constant_photos_have_no_features(level):
    image = np.full((8, 9, 3), level, np.uint8)
    assert not colour_features(image).any()
    assert not texture_features(image, 2).any()
