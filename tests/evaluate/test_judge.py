"""A judge without masks: each feature, how it weighs them, and how far it was off."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import ShapeError
from tagseg.evaluate import judge as module
from tagseg.evaluate.judge import FEATURES, Judge, Views, case_for, mask_features, shipped_judge

SEEDS = st.integers(0, 10_000)
QUICK = settings(max_examples=40, deadline=None, derandomize=True)
AREA = FEATURES.index("area")
SIZE = (7, 9)


def candidates(seed: int, count: int = 4) -> tuple[Any, Any, Any, Views, int]:
    """What features are made of; some masks are empty, whole or equal."""
    rng = np.random.default_rng(seed)
    image = (rng.integers(0, 4, (*SIZE, 3)) * 70 + rng.integers(0, 9)).astype(np.uint8)
    masks = rng.random((count, *SIZE)) < rng.choice([0.0, 0.2, 0.6, 1.0], (count, 1, 1))
    evidence = rng.random(SIZE, np.float32)
    views = Views(float(rng.random()), rng.random(count), rng.random(count))
    return image, masks, evidence, views, int(rng.integers(1, 5))


def columns(*given: Any) -> dict[str, np.ndarray]:
    found = mask_features(*given)
    assert found.shape == (len(given[1]), len(FEATURES))
    assert found.dtype == np.float64
    return dict(zip(FEATURES, found.T, strict=True))


# Features, with loops


def pixels() -> list[tuple[int, int]]:
    return [(y, x) for y in range(SIZE[0]) for x in range(SIZE[1])]


def loop_iou(one: np.ndarray, other: np.ndarray) -> float:
    both = sum(1 for p in pixels() if one[p] and other[p])
    either = sum(1 for p in pixels() if one[p] or other[p])
    return both / either if either else 0.0


def loop_agreement(masks: np.ndarray) -> list[float]:
    """IoU of each with what more than half of them hold."""
    most = np.zeros(SIZE, bool)
    for p in pixels():
        most[p] = sum(bool(mask[p]) for mask in masks) * 2 > len(masks)
    return [loop_iou(mask, most) for mask in masks]


def loop_area(mask: np.ndarray) -> float:
    return sum(1 for p in pixels() if mask[p]) / len(pixels())


def loop_mean(evidence: np.ndarray, mask: np.ndarray, inside: bool) -> float:
    values = [float(evidence[p]) for p in pixels() if bool(mask[p]) == inside]
    return sum(values) / len(values) if values else 0.0


def loop_on_edges(mask: np.ndarray) -> float:
    """Side after side."""
    height, width = SIZE
    held = [bool(mask[y, x]) for y in (0, height - 1) for x in range(width)]
    held += [bool(mask[y, x]) for x in (0, width - 1) for y in range(height)]
    return sum(held) / len(held)


def loop_colours(image: np.ndarray, mask: np.ndarray) -> float:
    """Half of sum (a - b)^2 / (a + b) over the colours, each channel in eight parts."""
    parts: dict[bool, dict[tuple[int, ...], float]] = {True: {}, False: {}}
    for p in pixels():
        counts, colour = parts[bool(mask[p])], tuple(int(value) // 32 for value in image[p])
        counts[colour] = counts.get(colour, 0) + 1
    if not parts[True] or not parts[False]:
        return 0.0
    total = 0.0
    for colour in {*parts[True], *parts[False]}:
        a, b = (parts[k].get(colour, 0) / sum(parts[k].values()) for k in (True, False))
        total += (a - b) ** 2 / (a + b)
    return total / 2


def deviation(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


Loop = Callable[[Any, Any, Any, Views, int], list[float]]


def loop_sizes(masks: Any) -> list[float]:
    return [math.log(loop_area(mask) + module._LEAST_AREA) for mask in masks]


LOOPS: dict[str, Loop] = {
    "seen": lambda i, masks, e, views, n: [views.seen] * len(masks),
    "shown": lambda i, m, e, views, n: [float(value) for value in views.shown],
    "hidden": lambda i, m, e, views, n: [float(value) for value in views.hidden],
    "area": lambda i, masks, e, v, n: [loop_area(mask) for mask in masks],
    "area squared": lambda i, masks, e, v, n: [loop_area(mask) ** 2 for mask in masks],
    "on edges": lambda i, masks, e, v, n: [loop_on_edges(mask) for mask in masks],
    "colours": lambda image, masks, e, v, n: [loop_colours(image, mask) for mask in masks],
    "agreement": lambda i, masks, e, v, n: loop_agreement(masks),
    "agreement of all": lambda i, masks, e, v, n: (
        [sum(loop_agreement(masks)) / len(masks)] * len(masks)
    ),
    "spread of areas": lambda i, masks, e, v, n: (
        [deviation([math.log(loop_area(mask) + module._LEAST_AREA) for mask in masks])] * len(masks)
    ),
    "evidence inside": lambda i, masks, evidence, v, n: [
        loop_mean(evidence, mask, True) for mask in masks
    ],
    "evidence outside": lambda i, masks, evidence, v, n: [
        loop_mean(evidence, mask, False) for mask in masks
    ],
    "tags": lambda i, masks, e, v, n_tags: [float(n_tags)] * len(masks),
    "both": lambda i, m, e, views, n: [
        float(a) * (1 - float(b)) for a, b in zip(views.shown, views.hidden, strict=True)
    ],
    "log area": lambda i, masks, e, v, n: loop_sizes(masks),
    "log area squared": lambda i, masks, e, v, n: [size**2 for size in loop_sizes(masks)],
}
for _name in ("both", "colours", "agreement", "evidence inside"):
    LOOPS[f"{_name} by log area"] = lambda *given, name=_name: [  # type: ignore[misc]
        value * size for value, size in zip(LOOPS[name](*given), loop_sizes(given[1]), strict=True)
    ]


def test_every_feature_has_a_name_of_its_own_and_a_loop() -> None:
    assert len(set(FEATURES)) == len(FEATURES)
    assert set(FEATURES) <= set(LOOPS)


@QUICK
@given(seed=SEEDS, count=st.integers(1, 5))
@pytest.mark.parametrize("name", [name for name in FEATURES if name in LOOPS])
def test_each_feature_equals_its_loop(name: str, seed: int, count: int) -> None:
    given_ = candidates(seed, count)
    found = columns(*given_)[name]
    np.testing.assert_allclose(found, LOOPS[name](*given_), rtol=1e-5, atol=1e-7)


@QUICK
@given(seed=SEEDS)
def test_features_leave_what_they_are_given_and_follow_the_order_of_masks(seed: int) -> None:
    image, masks, evidence, views, n_tags = candidates(seed)
    before = image.copy(), masks.copy(), evidence.copy()
    found = mask_features(image, masks, evidence, views, n_tags)
    for kept, now in zip(before, (image, masks, evidence), strict=True):
        np.testing.assert_array_equal(kept, now)
    order = np.random.default_rng(seed).permutation(len(masks))
    moved = Views(views.seen, views.shown[order], views.hidden[order])
    turned = mask_features(
        image[::-1, ::-1], masks[order][:, ::-1, ::-1], evidence[::-1, ::-1], moved, n_tags
    )
    np.testing.assert_allclose(turned, found[order], rtol=1e-5, atol=1e-9)


@QUICK
@given(seed=SEEDS)
def test_fractions_are_in_0_to_1(seed: int) -> None:
    found = columns(*candidates(seed))
    for name in FEATURES:
        if name in ("tags", "spread of areas") or "log" in name:
            continue
        assert (found[name] >= 0).all(), name
        assert (found[name] <= 1 + 1e-9).all(), name


def test_features_of_empty_and_whole_masks() -> None:
    image, _, evidence, _, n_tags = candidates(0)
    masks = np.stack([np.zeros(SIZE, bool), np.ones(SIZE, bool)])
    found = columns(image, masks, evidence, Views(0.5, np.zeros(2), np.zeros(2)), n_tags)
    assert found["area"].tolist() == [0, 1]
    assert found["on edges"].tolist() == [0, 1]
    assert found["colours"].tolist() == [0, 0]
    mean = float(evidence.mean())
    assert found["evidence inside"].tolist() == pytest.approx([0, mean])
    assert found["evidence outside"].tolist() == pytest.approx([mean, 0])


def test_colours_of_equal_and_of_other_kinds() -> None:
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, 2:] = 255
    masks = np.zeros((3, 2, 4), bool)
    masks[0, :, :2], masks[1, 0], masks[2, :, 1:3] = True, True, True
    zeros = np.zeros(3)
    found = columns(image, masks, np.zeros((2, 4), np.float32), Views(0.5, zeros, zeros), 1)
    assert found["colours"].tolist() == [1, 0, 0]


def views_of(count: int, others: int | None = None) -> Views:
    return Views(0.5, np.zeros(count), np.zeros(count if others is None else others))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": np.zeros((4, 7, 8), bool)}, r"masks \(4, 7, 8\) and evidence \(7, 9\)"),
        ({"masks": np.zeros((7, 9), bool)}, r"masks \(7, 9\)"),
        ({"evidence": np.zeros((1, 7, 9))}, r"evidence \(1, 7, 9\)"),
        ({"views": views_of(3)}, "4 masks, views of 3 alone and of 3 hidden"),
        ({"views": views_of(4, 5)}, "4 masks, views of 4 alone and of 5 hidden"),
        ({"masks": np.zeros((0, 7, 9), bool), "views": views_of(0)}, "0 masks"),
    ],
)
def test_arrays_that_do_not_fit_together(change: dict[str, Any], message: str) -> None:
    names = ("image", "masks", "evidence", "views", "n_tags")
    with pytest.raises(ShapeError, match=message):
        mask_features(**{**dict(zip(names, candidates(0), strict=True)), **change})


# The judge


def rows(seed: int, count: int = 60) -> np.ndarray:
    """Features of masks that are not empty."""
    found = np.random.default_rng(seed).random((count, len(FEATURES)))
    found[:, AREA] += 0.1
    return found


def any_judge(seed: int) -> Judge:
    rng = np.random.default_rng(seed)
    means, scales, weights = (tuple(row) for row in rng.uniform(0.2, 2, (3, len(FEATURES))))
    signed = tuple(float(w * s) for w, s in zip(weights, rng.choice([-1, 1], 99), strict=False))
    return Judge(means, scales, signed, level=float(rng.random()), spread=0.1)


def loop_quality(judge: Judge, features: np.ndarray) -> list[float]:
    out = []
    for row in features:
        value = judge.level
        for k in range(len(FEATURES)):
            value += judge.weights[k] * (row[k] - judge.means[k]) / judge.scales[k]
        out.append(0.0 if row[AREA] == 0 else min(1.0, max(0.0, value)))
    return out


@QUICK
@given(seed=SEEDS)
def test_quality_equals_the_loop_is_in_0_to_1_and_0_of_empty_masks(seed: int) -> None:
    judge, features = any_judge(seed), rows(seed)
    features[::5, AREA] = 0
    found = judge.quality(features)
    np.testing.assert_allclose(found, loop_quality(judge, features), atol=1e-9)
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert not found[::5].any()


def test_an_empty_mask_has_none_however_much_speaks_for_it() -> None:
    n = len(FEATURES)
    judge = Judge((0.0,) * n, (1.0,) * n, (0.0,) * n, level=0.9, spread=0.1)
    features = np.ones((2, n))
    features[1, AREA] = 0
    assert judge.quality(features).tolist() == [0.9, 0]


@QUICK
@given(seed=SEEDS)
def test_json_and_back(seed: int) -> None:
    judge = any_judge(seed)
    again = Judge.from_json(judge.to_json())
    assert again == judge
    assert hash(again) == hash(judge), "a setting, so that it can be looked up by it"
    content = json.loads(judge.to_json())
    assert content["features"] == list(FEATURES)
    features = rows(seed)
    fitted = Judge.fitted(features, features[:, 0], ["a", "b"] * 30)
    assert Judge.from_json(fitted.to_json()) == fitted


def test_a_judge_of_other_features_is_refused() -> None:
    content = json.loads(any_judge(0).to_json())
    for names in (FEATURES[:-1], FEATURES[::-1], [*FEATURES, "more"]):
        with pytest.raises(ShapeError, match=r"other features; run tools/calibrate_judge\.py"):
            Judge.from_json(json.dumps({**content, "features": list(names)}))


def test_the_judge_that_is_shipped_judges() -> None:
    judge = shipped_judge()
    assert judge is shipped_judge()
    assert len(judge.means) == len(judge.scales) == len(judge.weights) == len(FEATURES)
    assert min(judge.scales) > 0
    assert 0 <= judge.level <= 1
    assert 0 < judge.spread < 1
    assert np.isfinite(judge.quality(rows(0))).all()


# Fitting


def in_its_range(judge: Judge) -> Judge:
    """The same, which dares to judge the smallest masks too."""
    assert judge.smallest > 0
    return replace(judge, smallest=0.0)


def linear(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return 0.5 + (features - features.mean(0)) @ weights


@QUICK
@given(seed=SEEDS)
def test_a_fitted_judge_recovers_a_linear_relation(seed: int) -> None:
    features, new = rows(seed, 300), rows(seed + 1, 50)
    weights = np.random.default_rng(seed).uniform(-0.04, 0.04, len(FEATURES))
    quality = linear(features, weights)
    judge = Judge.fitted(features, quality, ["a", "b", "c"] * 100, ridge=1e-6)
    assert judge.level == pytest.approx(quality.mean())
    np.testing.assert_allclose(np.divide(judge.weights, judge.scales), weights, atol=1e-5)
    expected = 0.5 + (new - features.mean(0)) @ weights
    np.testing.assert_allclose(in_its_range(judge).quality(new), expected, atol=1e-4)
    assert judge.spread < 1e-4


def loop_fit(
    features: np.ndarray, quality: np.ndarray, ridge: float
) -> Callable[[np.ndarray], float]:
    """Ridge regression as least squares with a row more for each weight, of one row of features."""
    means = [float(np.mean(column)) for column in features.T]
    scales = [deviation(column.tolist()) or 1.0 for column in features.T]
    z = [[(row[k] - means[k]) / scales[k] for k in range(len(row))] for row in features]
    extra = np.sqrt(ridge) * np.eye(features.shape[1])
    target = np.append(quality - quality.mean(), np.zeros(len(extra)))
    weights = np.linalg.lstsq(np.vstack([z, extra]), target, rcond=None)[0]

    def value(row: np.ndarray) -> float:
        terms = [weights[k] * (row[k] - means[k]) / scales[k] for k in range(len(row))]
        return min(1.0, max(0.0, quality.mean() + sum(terms)))

    return value


@QUICK
@given(seed=SEEDS, ridge=st.sampled_from([0.1, 10.0, 100.0]))
def test_fit_and_spread_equal_the_loop_over_groups_left_out(seed: int, ridge: float) -> None:
    features, rng = rows(seed, 40), np.random.default_rng(seed)
    groups = rng.permutation(["a"] * 20 + ["b"] * 15 + ["c"] * 5).tolist()
    quality = (linear(features, rng.uniform(-0.1, 0.1, len(FEATURES)))).clip(0, 1)
    quality = np.where(np.array(groups) == "c", 0.5 * quality, quality)  # what others do not show
    judge = Judge.fitted(features, quality, groups, ridge=ridge)
    errors = []
    for name in ("a", "b", "c"):
        rest = [i for i in range(40) if groups[i] != name]
        own = [i for i in range(40) if groups[i] == name]
        other = loop_fit(features[rest], quality[rest], ridge)
        told = [other(features[i]) for i in own]
        errors.append(sum(told) / len(own) - float(np.mean(quality[own])))
    assert judge.spread == pytest.approx(math.sqrt(sum(e * e for e in errors) / 3), abs=1e-5)
    whole = loop_fit(features, quality, ridge)
    found = in_its_range(judge).quality(features)
    np.testing.assert_allclose(found, [whole(row) for row in features], atol=1e-4)


def test_the_spread_is_by_how_much_groups_that_were_left_out_are_off() -> None:
    """Features say nothing of quality, so each group is expected to be as the other."""
    features = rows(0, 400)
    features[200:] = features[:200]
    quality = np.repeat([0.3, 0.7], 200)
    judge = Judge.fitted(features, quality, ["low"] * 200 + ["high"] * 200)
    assert judge.spread == pytest.approx(0.4)
    alike = Judge.fitted(features, quality, ["one", "two"] * 200)
    assert alike.spread < 0.05
    np.testing.assert_array_equal(alike.quality(features), judge.quality(features))


def test_of_masks_smaller_than_those_it_was_fitted_to_nothing_is_said() -> None:
    features = rows(0, 200)
    area = FEATURES.index("area")
    features[:, area] = np.linspace(0.01, 0.5, 200)
    judge = Judge.fitted(features, np.full(200, 0.6), ["a", "b"] * 100)
    assert judge.smallest == pytest.approx(np.quantile(features[:, area], 0.02), rel=0.01)
    small = features[:3].copy()
    small[:, area] = (0.0, 0.005, 0.3)
    nothing, unknown, known = judge.quality(small)
    assert (nothing, math.isnan(unknown)) == (0, True)
    assert known == pytest.approx(0.6)
    assert Judge.from_json(judge.to_json()).smallest == judge.smallest


@QUICK
@given(seed=SEEDS)
def test_the_case_for_masks_is_the_product_of_three(seed: int) -> None:
    features = rows(seed, 20)
    for row, case in zip(features, case_for(features), strict=True):
        of = dict(zip(FEATURES, row.tolist(), strict=True))
        root = math.sqrt(max(0.0, min(1.0, 1 - of["hidden"])))
        expected = of["colours"] * of["evidence inside"] * root if of["area"] > 0 else 0.0
        assert case == pytest.approx(expected)


def test_of_one_group_nothing_can_be_left_out() -> None:
    features = rows(0)
    assert Judge.fitted(features, features[:, 0], ["a"] * 60).spread == 1.0


def test_ridge_makes_weights_smaller() -> None:
    features = rows(0)
    sizes = [
        np.linalg.norm(Judge.fitted(features, features[:, 0], ["a"] * 60, ridge=ridge).weights)
        for ridge in (0.1, 10.0, 1000.0)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < 0.2 * sizes[0]


@QUICK
@given(seed=SEEDS, value=st.floats(0, 1) | st.just(0.123456789))
def test_a_feature_of_one_value_weighs_nothing_on_others(seed: int, value: float) -> None:
    """The rounding of its mean is no deviation to divide by."""
    features, new = rows(seed), rows(seed + 1)
    column = next(k for k in range(1, len(FEATURES)) if k != AREA)
    features[:, column] = value
    judge = Judge.fitted(features, features[:, 0].clip(0.2, 0.8), ["a", "b"] * 30)
    there, elsewhere = new.copy(), new.copy()
    there[:, column], elsewhere[:, column] = value, value + 0.5
    np.testing.assert_allclose(judge.quality(there), judge.quality(elsewhere), atol=1e-6)


def test_numbers_of_a_fitted_judge_are_short() -> None:
    features = rows(0)
    judge = Judge.fitted(features, features[:, 0], ["a", "b"] * 30)
    for row in astuple(judge)[:3]:
        for value in row:
            assert value == float(f"{value:.6g}")
