from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import ConfigError, ShapeError
from tagseg.fuse.bayes import colour_histograms, object_probability, refined_regions


def random_regions(seed, n_bins=12):
    """Prior, sparse histograms, object regions and areas of up to 20 regions."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 21))
    counts = rng.integers(0, 9, (n, n_bins)) * (rng.random((n, n_bins)) < 0.4)
    counts[np.arange(n), rng.integers(0, n_bins, n)] += 1
    histograms = (counts / counts.sum(1, keepdims=True)).astype(np.float32)
    is_object = rng.random(n) < 0.4
    is_object[0], is_object[1] = True, False
    prior = rng.random(n).astype(np.float32)
    prior[rng.random(n) < 0.2] = rng.integers(2)
    return prior, histograms, is_object, rng.integers(1, 500, n), rng


def chi2(a, b):
    terms = [(x - y) ** 2 / (x + y) for x, y in zip(a, b, strict=True) if x + y > 0]
    return sum(terms) / 2


def cosine(a, b):
    lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
    return 1 - (sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0)


def loop_probability(prior, features, is_object, areas, bandwidth, distance):
    """Eq. 2, region by region."""
    rows = [[float(x) for x in row] for row in features]
    result = []
    for i, p in enumerate(prior):
        p = min(max(float(p), 0.01), 0.99)
        density = {}
        for wanted in (True, False):
            members = [j for j in range(len(rows)) if is_object[j] == wanted]
            kernel = sum(
                int(areas[j]) * math.exp(-distance(rows[i], rows[j]) / bandwidth) for j in members
            )
            density[wanted] = kernel / sum(int(areas[j]) for j in members)
        of_object, of_background = p * density[True], (1 - p) * density[False]
        result.append(of_object / (of_object + of_background))
    return result


# Eq. 2.


def test_two_regions_by_hand():
    """The histograms share half: chi2 = 1/2 (0.25 / 0.5 + 0.25 / 0.5) = 1/2, so K = 1 / e."""
    features = np.array([[0.5, 0.5, 0], [0, 0.5, 0.5]], np.float32)
    prior, other = np.array([0.6, 0.6], np.float32), 1 / math.e
    found = object_probability(
        prior, features, np.array([True, False]), np.array([3, 9]), bandwidth=0.5
    )
    expected = [0.6 / (0.6 + 0.4 * other), 0.6 * other / (0.6 * other + 0.4)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32


def test_areas_weigh_within_a_set_by_hand():
    """v of region 3 is that of region 1; region 2 is three times as large and unlike it."""
    features = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], np.float32)
    far = math.exp(-2)
    found = object_probability(
        np.full(4, 0.5, np.float32),
        features,
        np.array([False, True, True, True]),
        np.array([5, 1, 6, 1]),
        bandwidth=0.5,
    )
    like_object = (1 + 1 + 6 * far) / 8
    np.testing.assert_allclose(found[3], like_object / (like_object + 1), rtol=1e-6)
    unlike = (2 * far + 6) / 8
    np.testing.assert_allclose(found[2], unlike / (unlike + far), rtol=1e-6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 100_000), bandwidth=st.sampled_from([0.05, 0.15, 1.0]))
def test_equals_the_loop_for_histograms(seed, bandwidth):
    prior, histograms, is_object, areas, _ = random_regions(seed)
    found = object_probability(prior, histograms, is_object, areas, bandwidth=bandwidth)
    expected = loop_probability(prior, histograms, is_object, areas, bandwidth, chi2)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 100_000))
def test_equals_the_loop_for_a_networks_features(seed):
    prior, histograms, is_object, areas, rng = random_regions(seed)
    features = rng.normal(size=histograms.shape).astype(np.float32)
    features[rng.random(len(features)) < 0.2] = 0
    found = object_probability(prior, features, is_object, areas, bandwidth=0.2, distance="cosine")
    expected = loop_probability(prior, features, is_object, areas, 0.2, cosine)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7)


def test_chi2_takes_histograms_that_do_not_sum_to_one():
    prior, histograms, is_object, areas, rng = random_regions(4)
    histograms *= rng.uniform(0, 2, (len(histograms), 1)).astype(np.float32)
    found = object_probability(prior, histograms, is_object, areas, bandwidth=0.3)
    expected = loop_probability(prior, histograms, is_object, areas, 0.3, chi2)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 100_000))
def test_order_of_regions_means_nothing(seed):
    *arrays, rng = random_regions(seed)
    order = rng.permutation(len(arrays[0]))
    found = object_probability(*arrays)
    again = object_probability(*(array[order] for array in arrays))
    np.testing.assert_allclose(again, found[order], rtol=1e-5)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 100_000))
def test_object_and_background_change_places(seed):
    """p(bg | v) is p(obj | v) with sets and prior turned round."""
    prior, histograms, is_object, areas, _ = random_regions(seed)
    found = object_probability(prior, histograms, is_object, areas)
    turned = object_probability(1 - prior, histograms, ~is_object, areas)
    np.testing.assert_allclose(found, 1 - turned, atol=2e-6)


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("distance", ["chi2", "cosine"])
def test_without_one_of_the_sets_the_prior_stays(everything, distance):
    prior, histograms, is_object, areas, _ = random_regions(2)
    is_object[:] = everything
    found = object_probability(prior, histograms, is_object, areas, distance=distance)
    np.testing.assert_array_equal(found, prior.clip(0.01, 0.99))
    assert found.dtype == np.float32


@pytest.mark.parametrize("is_object", [True, False])
def test_photo_of_one_region(is_object):
    one = np.ones(1, np.float32)
    found = object_probability(0.4 * one, one[None], np.array([is_object]), np.array([9]))
    np.testing.assert_array_equal(found, np.float32([0.4]))


def test_constant_photo_keeps_the_prior():
    prior, histograms, is_object, areas, _ = random_regions(6)
    histograms[:] = histograms[0]
    found = object_probability(prior, histograms, is_object, areas)
    np.testing.assert_allclose(found, prior.clip(0.01, 0.99), rtol=1e-5)


@pytest.mark.parametrize("saliency", [0.0, 1.0])
def test_features_can_overrule_saliency(saliency):
    """Of 0 or 1 everywhere: what looks like one set alone belongs to it."""
    features = np.array([[1, 0], [0, 1]], np.float32)
    found = object_probability(
        np.full(2, saliency, np.float32), features, np.array([True, False]), np.array([1, 1])
    )
    assert found[0] > 0.85
    assert found[1] < 0.15


def test_salient_region_that_looks_like_the_object_is_added():
    """And one that is as salient but looks like the background, or the other way, is not."""
    features = np.array([[1, 0], [0, 1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1]], np.float32)
    prior = np.array([0.9, 0.1, 0.6, 0.6, 0.02], np.float32)
    areas = np.array([20, 400, 20, 20, 20])
    found = object_probability(prior, features, np.arange(5) == 0, areas)
    assert (found > 0.5).tolist() == [True, False, True, False, False]


def test_features_far_from_everything_keep_the_prior():
    """A kernel so narrow that even nearness to itself rounds to nothing: zero features."""
    prior = np.array([0.3, 0.8, 0.7], np.float32)
    features = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
    found = object_probability(
        prior,
        features,
        np.array([True, True, False]),
        np.ones(3, int),
        bandwidth=1e-4,
        distance="cosine",
    )
    np.testing.assert_allclose(found, [0.3, 1, 0])


# Colour histograms.


def test_histograms_count_the_colours_of_each_region():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, 11, 3), np.uint8)
    superpixels = rng.integers(0, 5, (9, 11)).astype(np.int32)
    found = colour_histograms(image, superpixels)
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    expected = np.zeros((5, 8, 8, 8))
    for pixel in np.ndindex(9, 11):
        expected[(superpixels[pixel], *(int(level) // 32 for level in lab[pixel]))] += 1
    expected /= expected.sum((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(found, expected.reshape(5, 512), rtol=1e-6)
    assert found.dtype == np.float32


def test_histogram_of_a_constant_photo_is_one_bin():
    image = np.full((4, 6, 3), 200, np.uint8)
    found = colour_histograms(image, np.arange(24, dtype=np.int32).reshape(4, 6) // 2)
    assert np.count_nonzero(found, axis=1).tolist() == [1] * 12
    np.testing.assert_array_equal(found, np.broadcast_to(found[0], found.shape))


# Binarising.


def test_object_is_what_the_crf_finds_more_probable():
    probability = np.array([[0.2, 0.8, 0.6]], np.float32)
    seen = []

    def binarise(probs):
        seen.append(probs)
        return np.array([[[0.4, 0.5, 0.1]], [[0.6, 0.5, 0.9]]], np.float32)

    labels = refined_regions(probability, 7, binarise)
    assert labels.tolist() == [[7, 0, 7]]
    assert labels.dtype == np.uint8
    np.testing.assert_allclose(seen[0], [[[0.8, 0.2, 0.4]], [[0.2, 0.8, 0.6]]], rtol=1e-6)
    assert seen[0].dtype == np.float32


# What does not fit.


@pytest.mark.parametrize(
    ("position", "change", "message"),
    [
        (0, lambda a: a[:-1], "prior has shape"),
        (0, lambda a: a[None], "give 1 dimensions"),
        (0, lambda a: a + 1, "prior is not within 0 to 1"),
        (0, lambda a: a * np.float32(np.nan), "prior is not within 0 to 1"),
        (1, lambda a: a[0], "features"),
        (1, lambda a: a[:-1], "features"),
        (1, lambda a: a * np.float32(np.inf), "NaN"),
        (1, lambda a: a - 1, "below 0"),
        (2, lambda a: a[:, None], "is_object"),
        (2, lambda a: a.astype(int), "is_object is a int64"),
        (3, lambda a: a[1:], "areas"),
        (3, lambda a: a * 0, "above 0"),
    ],
)
def test_regions_that_do_not_fit_are_refused(position, change, message):
    arrays = list(random_regions(1)[:4])
    with np.errstate(invalid="ignore"):
        arrays[position] = change(arrays[position])
    with pytest.raises(ShapeError, match=message):
        object_probability(*arrays)


def test_wrong_settings_are_refused():
    arrays = random_regions(1)[:4]
    for bandwidth in (0, -1, np.nan, np.inf):
        with pytest.raises(ConfigError, match=f"bandwidth is {bandwidth}"):
            object_probability(*arrays, bandwidth=bandwidth)
    with pytest.raises(ConfigError, match="distance is 'l2'"):
        object_probability(*arrays, distance="l2")


def test_photo_and_regions_of_two_sizes_are_refused():
    with pytest.raises(ShapeError, match=r"photo \(3, 4\), superpixels \(4, 3\)"):
        colour_histograms(np.zeros((3, 4, 3), np.uint8), np.zeros((4, 3), np.int32))


def test_binarising_refuses_what_does_not_fit():
    probability = np.full((3, 4), 0.5, np.float32)
    for label in (0, 255, -1):
        with pytest.raises(ConfigError, match=f"label is {label}"):
            refined_regions(probability, label, lambda probs: probs)
    for wrong in (probability[0], 2 * probability + 1, probability * np.float32(np.nan)):
        with pytest.raises(ShapeError, match="probability_map"):
            refined_regions(wrong, 1, lambda probs: probs)
    with pytest.raises(ShapeError, match="what binarise returned"):
        refined_regions(probability, 1, lambda probs: probs[:, 1:])
    with pytest.raises(ShapeError, match="returned 1 maps"):
        refined_regions(probability, 1, lambda probs: probs[:1])
