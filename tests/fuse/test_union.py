"""Evidence of classes and objects put together: the formula, and what follows from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import Fuse, FuserContract
from tagseg.errors import ConfigError, ShapeError
from tagseg.fuse.union import (
    Joining,
    agreed_labels,
    fused_probabilities,
    joined_maps,
    region_votes,
)
from tagseg.maps import IGNORE

SEEDS = st.integers(0, 10_000)
QUICK = settings(max_examples=40, deadline=None, derandomize=True)
JOININGS = st.sampled_from(["mean", "product"])
THRESHOLDS = st.floats(0.01, 0.99)


def evidence(seed: int, classes: int = 3, size: tuple[int, int] = (4, 5)) -> tuple[Any, Any]:
    """A score map and a saliency map, with zeros and ones."""
    rng = np.random.default_rng(seed)
    maps = rng.uniform(-0.2, 1.2, (classes + 1, *size)).clip(0, 1).astype(np.float32)
    return maps[:-1], maps[-1]


def loop_probabilities(
    score_map: np.ndarray, salient: np.ndarray | None, threshold: float, joining: Joining
) -> np.ndarray:
    """Pixel by pixel, with double precision."""
    classes, height, width = score_map.shape
    out = np.zeros((classes + 1, height, width))
    for y in range(height):
        for x in range(width):
            every = [threshold]
            for c in range(classes):
                value = float(score_map[c, y, x])
                if salient is not None and joining == "mean":
                    value = (value + float(salient[y, x])) / 2
                elif salient is not None:
                    value = (value * float(salient[y, x])) ** 0.5
                every.append(value)
            total = sum(value**4 for value in every)
            out[:, y, x] = [value**4 / total for value in every]
    return out


@QUICK
@given(seed=SEEDS, classes=st.integers(0, 4), threshold=THRESHOLDS, joining=JOININGS)
@pytest.mark.parametrize("with_objects", [True, False])
def test_equals_the_loop(
    seed: int, classes: int, threshold: float, joining: Joining, with_objects: bool
) -> None:
    score_map, salient = evidence(seed, classes)
    if not with_objects:
        salient = None
    before = score_map.copy(), np.copy(salient)
    found = fused_probabilities(score_map, salient, threshold=threshold, joining=joining)
    expected = loop_probabilities(score_map, salient, threshold, joining)
    assert found.dtype == np.float32
    assert found.shape == (classes + 1, 4, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(score_map, before[0])
    np.testing.assert_array_equal(np.copy(salient), before[1])


@QUICK
@given(seed=SEEDS, threshold=st.floats(0, 1, exclude_min=True, exclude_max=True), joining=JOININGS)
def test_probabilities_sum_to_1_at_any_threshold(
    seed: int, threshold: float, joining: Joining
) -> None:
    threshold = max(threshold, 1e-30)
    found = fused_probabilities(*evidence(seed), threshold=threshold, joining=joining)
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-5)
    assert (found >= 0).all()
    nothing = np.zeros((2, 1, 1), np.float32), np.zeros((1, 1), np.float32)
    found = fused_probabilities(*nothing, threshold=threshold, joining=joining)
    assert found.ravel().tolist() == [1, 0, 0]


@QUICK
@given(
    seed=SEEDS,
    more=st.floats(0, 1),
    label=st.integers(0, 2),
    threshold=THRESHOLDS,
    joining=JOININGS,
)
def test_more_evidence_of_a_class_makes_it_more_likely_and_the_others_less(
    seed: int, more: float, label: int, threshold: float, joining: Joining
) -> None:
    score_map, salient = evidence(seed)
    raised = score_map.copy()
    raised[label] += (1 - raised[label]) * np.float32(more)
    less, most = (
        fused_probabilities(maps, salient, threshold=threshold, joining=joining)
        for maps in (score_map, raised)
    )
    others = [k for k in range(4) if k != label + 1]
    assert (most[label + 1] >= less[label + 1] - 1e-6).all()
    assert (most[others] <= less[others] + 1e-6).all()


@QUICK
@given(seed=SEEDS, more=st.floats(0, 1), threshold=THRESHOLDS, joining=JOININGS)
def test_what_stands_out_more_and_a_lower_threshold_are_less_background(
    seed: int, more: float, threshold: float, joining: Joining
) -> None:
    score_map, salient = evidence(seed)
    found, raised, lower = (
        fused_probabilities(score_map, objects, threshold=least, joining=joining)[0]
        for objects, least in (
            (salient, threshold),
            (salient + (1 - salient) * np.float32(more), threshold),
            (salient, threshold * 0.9),
        )
    )
    assert (raised <= found + 1e-6).all()
    assert (lower <= found + 1e-6).all()


@QUICK
@given(seed=SEEDS, threshold=THRESHOLDS)
def test_mean_and_product_agree_where_both_maps_are_equal(seed: int, threshold: float) -> None:
    score_map, _ = evidence(seed, classes=1)
    salient = score_map[0]
    mean, product = (
        fused_probabilities(score_map, salient, threshold=threshold, joining=joining)
        for joining in ("mean", "product")
    )
    alone = fused_probabilities(score_map, None, threshold=threshold)
    np.testing.assert_allclose(mean, alone, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(product, alone, rtol=1e-5, atol=1e-7)


@QUICK
@given(seed=SEEDS, threshold=THRESHOLDS)
def test_the_product_asks_for_more_than_the_mean(seed: int, threshold: float) -> None:
    mean, product = (
        fused_probabilities(*evidence(seed), threshold=threshold, joining=joining)
        for joining in ("mean", "product")
    )
    assert (product[0] >= mean[0] - 1e-6).all()


def test_a_class_wins_over_the_background_above_the_threshold() -> None:
    score_map = np.array([[[0.39, 0.41, 0.5, 0.9]], [[0.0, 0.0, 0.6, 0.8]]], np.float32)
    probs = fused_probabilities(score_map, None, threshold=0.4)
    assert probs.argmax(0).tolist() == [[0, 1, 2, 1]]


def test_the_mean_forgives_a_map_that_has_missed_a_thing_and_the_product_does_not() -> None:
    score_map, salient = np.array([[[1.0, 0.0]]]), np.array([[0.0, 1.0]])
    for joining, expected in (("mean", [[1, 1]]), ("product", [[0, 0]])):
        probs = fused_probabilities(score_map, salient, threshold=0.4, joining=joining)
        assert probs.argmax(0).tolist() == expected


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.3, float("nan")])
def test_thresholds_that_nothing_or_everything_passes(threshold: float) -> None:
    with pytest.raises(ConfigError, match="threshold is"):
        fused_probabilities(*evidence(0), threshold=threshold)


@pytest.mark.parametrize("with_objects", [True, False])
def test_another_joining_is_refused(with_objects: bool) -> None:
    score_map, salient = evidence(0)
    joining: Any = "maximum"
    with pytest.raises(ConfigError, match="joining is 'maximum'; use mean or product"):
        fused_probabilities(
            score_map, salient if with_objects else None, threshold=0.4, joining=joining
        )


def test_maps_that_differ_in_size_are_refused() -> None:
    score_map, salient = evidence(0)
    for other in (salient[:3], salient[:, :1], salient[None], salient[0]):
        with pytest.raises(ShapeError, match=r"a saliency map of .* for score maps of"):
            fused_probabilities(score_map, other, threshold=0.4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda maps, salient: (maps[0], salient), "score_map is a float32 array of shape"),
        (lambda maps, salient: (maps > 0.5, salient), "score_map is a bool array"),
        (lambda maps, salient: (maps * np.nan, salient), "score_map holds NaN"),
        (lambda maps, salient: (maps, salient > 0.5), "salient is a bool array"),
        (lambda maps, salient: (maps, salient + np.inf), "salient holds NaN or infinity"),
    ],
)
def test_maps_of_another_kind_are_refused(change: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        fused_probabilities(*change(*evidence(0)), threshold=0.4)


@pytest.mark.parametrize("joining", ["mean", "product"])
class TestLabelsByProbability(FuserContract):
    @pytest.fixture
    def fuse(self, joining: Joining) -> Fuse:
        def labels(score_map: np.ndarray, salient: np.ndarray, tags: np.ndarray) -> np.ndarray:
            probs = fused_probabilities(score_map[tags], salient, threshold=0.5, joining=joining)
            of_index = np.concatenate(([0], np.flatnonzero(tags) + 1)).astype(np.uint8)
            return of_index[probs.argmax(0)]

        return labels


# Votes


@given(SEEDS, st.floats(0, 1))
@QUICK
def test_agreed_labels_pixel_by_pixel(seed, least):
    rng = np.random.default_rng(seed)
    votes = rng.dirichlet(np.ones(4) / 2, (6, 7)).transpose(2, 0, 1).astype(np.float32)
    found = agreed_labels(votes, least=least)
    assert found.dtype == np.uint8
    most = {
        label: max((v.max() for v in votes.reshape(4, -1).T if v.argmax() == label), default=0.0)
        for label in range(1, 4)
    }
    for y in range(6):
        for x in range(7):
            here = votes[:, y, x]
            label = int(here.argmax())
            needed = least if label == 0 else min(least, most[label])
            assert found[y, x] == (label if here[label] >= needed else IGNORE)
    for label in range(1, 4):
        assert (label in found) == (label in votes.argmax(0)), "each class teaches something"


def test_votes_of_another_shape():
    with pytest.raises(ShapeError):
        agreed_labels(np.zeros((2, 3)), least=0.5)


# Several score maps as one


def test_joined_maps_are_geometric_means_over_their_maxima():
    rng = np.random.default_rng(0)
    maps = [rng.random((2, 5, 7), dtype=np.float32) for _ in range(3)]
    found = joined_maps(maps)
    for tag in range(2):
        slow = np.ones((5, 7))
        for one in maps:
            slow = slow * one[tag].astype(np.float64)
        slow = slow ** (1 / 3)
        np.testing.assert_allclose(found[tag], slow / slow.max(), rtol=1e-5)


def test_one_map_stays_as_it_is_and_no_evidence_is_none():
    half = np.full((1, 2, 2), 0.5, np.float32)
    np.testing.assert_array_equal(joined_maps([half]), half)
    assert not joined_maps([half, np.zeros_like(half)]).any()
    assert joined_maps([np.zeros((0, 2, 2), np.float32)] * 2).shape == (0, 2, 2)


@pytest.mark.parametrize("maps", [[], [np.zeros((1, 2, 2)), np.zeros((1, 2, 3))]])
def test_maps_that_cannot_be_joined(maps):
    with pytest.raises(ShapeError, match="no score maps of one shape"):
        joined_maps(maps)


# Votes of regions


def regions_of(seed: int, size: tuple[int, int] = (4, 5)) -> np.ndarray:
    """Region ids without gaps, of any form."""
    drawn = np.random.default_rng(seed).integers(0, 6, size)
    return np.unique(drawn, return_inverse=True)[1].reshape(size).astype(np.int32)


@QUICK
@given(seed=SEEDS, classes=st.integers(1, 3))
def test_votes_of_regions_equal_the_loop(seed: int, classes: int) -> None:
    probs = fused_probabilities(*evidence(seed, classes), threshold=0.4)
    regions = regions_of(seed)
    expected = np.zeros(probs.shape)
    for label, y, x in np.ndindex(probs.shape):
        own = [
            float(probs[label, v, u])
            for v, u in np.ndindex(regions.shape)
            if regions[v, u] == regions[y, x]
        ]
        expected[label, y, x] = sum(own) / len(own)
    found = region_votes(probs, regions)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


def test_regions_of_one_pixel_change_nothing() -> None:
    probs = fused_probabilities(*evidence(3), threshold=0.4)
    single = np.arange(20, dtype=np.int32).reshape(4, 5)
    np.testing.assert_array_equal(region_votes(probs, single), probs)


def test_regions_of_another_size() -> None:
    with pytest.raises(ShapeError, match="maps has shape"):
        region_votes(np.zeros((2, 4, 5), np.float32), np.zeros((4, 4), np.int32))
