from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesRegressor

from tagseg.priors.pair_forest import PairForest, fit_forest, kept_affinity
from tagseg.priors.pointwise_information import ordered_pairs
from tagseg.priors.row_blocks import RowBlocks
from tagseg.priors.spectral import disk_offsets


def model_and_pairs(seed, levels=None):
    rng = np.random.default_rng(seed)
    pairs = rng.uniform(0, 0.5, (500, 6)).astype(np.float32)
    if levels:  # values that thresholds may meet exactly
        pairs = np.round(pairs * levels) / np.float32(levels)
    target = np.sin(20 * pairs).sum(1)
    model = ExtraTreesRegressor(3, min_samples_leaf=2, random_state=seed, n_jobs=1)
    return model.fit(pairs, target), pairs


def walk(forest, slots):
    """The forest's answer to one pair, node by node."""
    total = 0.0
    for node in forest.roots:
        while True:
            left, feature = divmod(int(forest.jump[node]), 16)
            step = left + int(slots[feature] > forest.threshold[node])
            if step == node:
                break
            node = step
        total += forest.value[node]
    return total


@pytest.mark.parametrize("levels", [None, 8])
def test_flat_trees_equal_scikit_learn(levels):
    model, pairs = model_and_pairs(0, levels)
    forest = PairForest.of(model)
    np.testing.assert_allclose([walk(forest, p) for p in pairs], model.predict(pairs), atol=1e-5)


def slow_affinity(features, models, offsets):
    height, width, _ = features.shape
    out = np.zeros((height // 2, width // 2, len(offsets)))
    for row, column, o in np.ndindex(out.shape):
        y, x = 2 * row + 1, 2 * column + 1
        y2, x2 = y + offsets[o][0], x + offsets[o][1]
        if 0 <= y2 < height and 0 <= x2 < width:
            total = 0.0
            for k, model in enumerate(models):
                one, two = (features[p][None, 3 * k : 3 * k + 3] for p in ((y, x), (y2, x2)))
                total += model.predict(ordered_pairs(one, two))[0]
            out[row, column, o] = np.exp(total)
    return out


def test_affinity_equals_predictions_for_each_pair():
    models = [model_and_pairs(seed)[0] for seed in (0, 1)]
    forest = PairForest.joined([PairForest.of(m, 6 * k) for k, m in enumerate(models)])
    features = np.random.default_rng(2).uniform(0, 0.5, (7, 6, 6)).astype(np.float32)
    offsets = disk_offsets(2)
    expected = slow_affinity(features, models, offsets)
    for threads in (1, 3):
        with RowBlocks(threads) as blocks:
            found = kept_affinity(features, forest, offsets, blocks)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert (found == 0).any()


def test_affinity_is_symmetric_also_where_first_channels_are_equal():
    models = [model_and_pairs(seed)[0] for seed in (0, 1)]
    forest = PairForest.joined([PairForest.of(m, 6 * k) for k, m in enumerate(models)])
    rng = np.random.default_rng(3)
    features = (rng.integers(0, 2, (16, 18, 6)) / 4).astype(np.float32)
    offsets = disk_offsets(5)
    with RowBlocks(1) as blocks:
        affinity = kept_affinity(features, forest, offsets, blocks)
    place = {tuple(o): k for k, o in enumerate(offsets.tolist())}
    checked = 0
    for row, column, o in np.ndindex(affinity.shape):
        dy, dx = offsets[o].tolist()
        row2, column2 = row + dy // 2, column + dx // 2
        if dy % 2 == dx % 2 == 0 and 0 <= row2 < 8 and 0 <= column2 < 9:
            assert affinity[row, column, o] == affinity[row2, column2, place[-dy, -dx]] > 0
            checked += 1
    assert checked > 800


def test_fitted_forests_learn_and_repeat():
    rng = np.random.default_rng(0)
    pairs = rng.uniform(0, 0.5, (3000, 6)).astype(np.float32)
    target = (pairs[:, 0] - pairs[:, 3]).astype(np.float32) * 4
    settings = {"n_trees": 4, "min_leaf": 5, "max_depth": 16, "seed": 1}
    forest, again = (fit_forest(pairs, target, **settings) for _ in range(2))
    np.testing.assert_array_equal(forest.threshold, again.threshold)
    error = np.array([walk(forest, p) for p in pairs[:200]]) - target[:200]
    assert error.std() < 0.25 * target.std()
