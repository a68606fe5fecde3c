from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import ConfigError, ShapeError
from tagseg.fuse.region_seeds import (
    object_regions,
    paint,
    region_areas,
    region_labels,
    region_means,
    region_seeds,
)


def strip(*areas):
    """Superpixels that stand side by side in one row, and the pairs that touch."""
    ids = np.repeat(np.arange(len(areas), dtype=np.int32), areas)[None]
    return ids, np.array([[i, i + 1] for i in range(len(areas) - 1)], int).reshape(-1, 2)


def seeds_of(*heats, areas=None, neighbours=None, tags=None, **thresholds):
    """Seeds of a strip whose regions have the heat of each class, painted flat."""
    superpixels, pairs = strip(*(areas or [1] * len(heats[0])))
    maps = np.stack([paint(np.array(heat, np.float32), superpixels) for heat in heats])
    tags = np.ones(len(heats), bool) if tags is None else np.array(tags)
    pairs = pairs if neighbours is None else np.array(neighbours)
    found = region_seeds(maps, superpixels, pairs, tags, **thresholds)
    assert found.dtype == np.uint8
    return found.tolist()


# Section 4.1.


def test_local_maxima_and_what_is_over_the_threshold_are_seeds():
    heat = [0.1, 0.4, 0.3, 0.69, 1.0, 0.7, 0.3, 0.1]
    assert seeds_of(heat) == [0, 1, 255, 255, 1, 1, 255, 0]


def test_thresholds_are_of_the_hottest_region():
    assert seeds_of([0.01, 0.08, 0.1, 0.05]) == [0, 1, 1, 255]


def test_heat_is_the_mean_over_the_region():
    superpixels, pairs = strip(2, 4, 1)
    maps = np.array([[[1, 0, 0.5, 0.5, 1, 1, 0.75]]], np.float32)  # means 0.5, 0.75, 0.75
    seeds = region_seeds(maps, superpixels, pairs, np.array([True]), threshold=0.9)
    assert seeds.tolist() == [255, 1, 1]


def test_thresholds_can_be_given_and_count_as_reached():
    heat = [0.5, 0.75, 1.0, 0.25, 0.125]
    given_ = {"threshold": 0.75, "background_threshold": 0.25}
    assert seeds_of(heat, **given_) == [255, 1, 1, 255, 0]
    assert seeds_of([0.25, 0.0, 1.0], **given_) == [1, 0, 1]


def test_local_maximum_that_is_cold_is_background():
    assert seeds_of([1.0, 0.0, 0.1, 0.0]) == [1, 0, 0, 0]


def test_plateau_is_one_region():
    """On top of a hill it is a seed as a whole; on its slope none of it is."""
    assert seeds_of([1.0, 0.2, 0.5, 0.5, 0.5, 0.2]) == [1, 255, 1, 1, 1, 255]
    assert seeds_of([1.0, 0.5, 0.5, 0.5, 0.2]) == [1, 255, 255, 255, 255]


def test_regions_that_only_other_regions_join_are_no_neighbours():
    heat = [1.0, 0.5, 0.5]
    assert seeds_of(heat, neighbours=[[0, 1], [1, 2]]) == [1, 255, 255]
    assert seeds_of(heat, neighbours=[[0, 1], [0, 2]]) == [1, 255, 255]
    assert seeds_of(heat, neighbours=[[0, 1]]) == [1, 255, 1]


def test_flat_map_is_seed_everywhere():
    assert seeds_of([0.3, 0.3, 0.3]) == [1, 1, 1]


@pytest.mark.parametrize("heat", [0.0, 0.4], ids=str)
def test_photo_of_one_region(heat):
    assert seeds_of([heat], areas=[6]) == ([1] if heat else [0])


def test_map_of_zeros_has_no_seeds():
    assert seeds_of([0.0, 0.0, 0.0]) == [0, 0, 0]
    assert seeds_of([0.0, 0.0, 0.0], [0.0, 0.5, 0.2]) == [0, 2, 255]


def test_classes_that_both_want_a_region():
    """It goes to the one that is hotter there."""
    assert seeds_of([1.0, 0.9, 0.0], [0.0, 0.8, 1.0]) == [1, 1, 2]
    assert seeds_of([1.0, 0.8, 0.0], [0.0, 0.9, 1.0]) == [1, 2, 2]


def test_equal_heat_goes_to_the_class_with_the_smaller_seeds():
    assert seeds_of([1.0, 1.0, 0.0], [0.0, 1.0, 0.0], areas=[3, 2, 1]) == [1, 2, 0]
    assert seeds_of([0.0, 1.0, 0.0], [0.0, 1.0, 1.0], areas=[3, 2, 1]) == [0, 1, 2]
    assert seeds_of([0.0, 1.0, 1.0], [1.0, 1.0, 0.0], areas=[3, 2, 1]) == [2, 1, 1]


def test_equal_seeds_go_to_the_lower_label():
    assert seeds_of([0.5, 1.0], [0.5, 1.0], [0.5, 1.0]) == [255, 1]


def test_region_is_background_only_if_cold_for_all():
    assert seeds_of([1.0, 0.1, 0.1, 0.1], [0.0, 0.1, 0.3, 1.0]) == [1, 0, 255, 2]


def test_absent_classes_are_never_read():
    absent = [np.nan, np.nan, np.nan]
    seeds = seeds_of(absent, [1.0, 0.4, 0.1], absent, tags=[False, True, False])
    assert seeds == [2, 255, 0]


def test_without_tags_all_is_background():
    assert seeds_of([1.0, 0.5], [0.5, 1.0], tags=[False, False]) == [0, 0]
    superpixels, pairs = strip(2, 1)
    none = region_seeds(np.zeros((0, 1, 3), np.float32), superpixels, pairs, np.zeros(0, bool))
    assert none.tolist() == [0, 0]


def loop_seeds(score_map, superpixels, neighbours, tags, threshold, background_threshold):
    """Section 4.1, region by region."""
    n = int(superpixels.max()) + 1
    pixels = [[tuple(p) for p in np.argwhere(superpixels == i)] for i in range(n)]
    around = [set() for _ in range(n)]
    for i, j in neighbours.tolist():
        around[i].add(j)
        around[j].add(i)
    heat, wanted = {}, {}
    for c in np.flatnonzero(tags).tolist():
        means = [sum(float(score_map[c][p]) for p in part) / len(part) for part in pixels]
        highest = max(means)
        heat[c] = [np.float32(mean / highest if highest > 0 else 0) for mean in means]
        wanted[c] = set()
        for i in range(n):
            plateau, left = {i}, [i]
            while left:
                more = {j for j in around[left.pop()] if heat[c][j] == heat[c][i]} - plateau
                plateau |= more
                left += more
            top = all(heat[c][k] <= heat[c][i] for j in plateau for k in around[j])
            hot = heat[c][i] >= np.float32(threshold)
            if hot or (top and heat[c][i] >= np.float32(background_threshold)):
                wanted[c].add(i)
    labels = []
    for i in range(n):
        claims = [
            (-heat[c][i], sum(len(pixels[j]) for j in wanted[c]), c)
            for c in wanted
            if i in wanted[c]
        ]
        cold = all(heat[c][i] < np.float32(background_threshold) for c in heat)
        labels.append(min(claims)[2] + 1 if claims else 0 if cold else 255)
    return labels


def touching(superpixels):
    pairs = np.concatenate(
        [
            np.stack((superpixels[:, :-1].ravel(), superpixels[:, 1:].ravel()), 1),
            np.stack((superpixels[:-1].ravel(), superpixels[1:].ravel()), 1),
        ]
    )
    pairs = np.unique(np.sort(pairs, 1), axis=0)
    return pairs[pairs[:, 0] < pairs[:, 1]]


def random_photo(seed):
    """Superpixels of up to 14 x 14 pixels, their neighbours, and maps in coarse steps."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 15, 2)
    points = rng.random((int(rng.integers(1, 30)), 2)) * (height, width)
    grid = np.stack(np.mgrid[:height, :width], -1)[:, :, None]
    nearest = ((grid - points) ** 2).sum(-1).argmin(-1)
    superpixels = np.unique(nearest, return_inverse=True)[1].reshape(height, width)
    superpixels = superpixels.astype(np.int32)
    n_classes = int(rng.integers(1, 5))
    per_region = rng.integers(0, 6, (n_classes, superpixels.max() + 1)) / np.float32(5)
    maps = per_region[:, superpixels].astype(np.float32)
    if seed % 2:
        maps = rng.random(maps.shape, np.float32)
    return superpixels, touching(superpixels), maps, rng.random(n_classes) < 0.7, rng


@settings(max_examples=80, deadline=None, derandomize=True)
@given(seed=st.integers(0, 100_000), threshold=st.sampled_from([0.4, 0.7, 1.0]))
def test_seeds_equal_the_loop(seed, threshold):
    superpixels, pairs, maps, tags, _ = random_photo(seed)
    seeds = region_seeds(maps, superpixels, pairs, tags, threshold=threshold)
    expected = loop_seeds(maps, superpixels, pairs, tags, threshold, 0.2)
    assert seeds.tolist() == expected
    labelled = region_seeds(
        maps, superpixels, pairs, tags, threshold=threshold, unseeded="background"
    )
    assert labelled.tolist() == [0 if label == 255 else label for label in expected]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 100_000))
def test_ids_of_regions_mean_nothing(seed):
    superpixels, pairs, maps, tags, rng = random_photo(seed)
    new = rng.permutation(superpixels.max() + 1).astype(np.int32)
    renamed, shuffled = new[superpixels], rng.permutation(np.sort(new[pairs], 1))
    masks = rng.choice(np.array([0, 1, 2, 255], np.uint8), superpixels.shape)
    seeds = region_seeds(maps, superpixels, pairs, tags)
    np.testing.assert_array_equal(region_seeds(maps, renamed, shuffled, tags)[new], seeds)
    labels = region_labels(masks, superpixels)
    np.testing.assert_array_equal(region_labels(masks, renamed)[new], labels)
    means = region_means(maps, superpixels)
    np.testing.assert_array_equal(region_means(maps, renamed)[:, new], means)


# Masks become seeds.


def test_region_takes_the_label_of_half_its_pixels():
    superpixels, _ = strip(4, 4, 4, 1)
    labels = np.array([[1, 1, 2, 0, 3, 2, 2, 2, 1, 0, 2, 2, 254]], np.uint8)
    assert region_labels(labels, superpixels).tolist() == [1, 2, 2, 254]
    assert region_labels(labels, superpixels, min_fraction=0.6).tolist() == [255, 2, 255, 254]


def test_of_two_halves_the_lower_label_counts():
    superpixels, _ = strip(4, 2)
    labels = np.array([[2, 1, 1, 2, 3, 0]], np.uint8)
    assert region_labels(labels, superpixels).tolist() == [1, 0]


def test_ignored_pixels_count_against_a_label():
    superpixels, _ = strip(4, 4, 2)
    labels = np.array([[1, 255, 255, 255, 255, 255, 0, 0, 255, 255]], np.uint8)
    assert region_labels(labels, superpixels).tolist() == [255, 0, 255]


def test_share_is_of_the_pixels_exactly():
    superpixels, _ = strip(100)
    labels = np.array([[3] * 7 + [255] * 93], np.uint8)
    assert region_labels(labels, superpixels, min_fraction=0.07).tolist() == [3]
    assert region_labels(labels, superpixels, min_fraction=0.0701).tolist() == [255]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 100_000), min_fraction=st.sampled_from([0.1, 0.5, 1.0]))
def test_labels_equal_the_loop(seed, min_fraction):
    superpixels, _, _, _, rng = random_photo(seed)
    masks = rng.choice(np.array([0, 1, 2, 254, 255], np.uint8), superpixels.shape)
    expected = []
    for i in range(superpixels.max() + 1):
        inside = masks[superpixels == i].tolist()
        most = max(range(255), key=inside.count)  # the first of equals
        expected.append(most if inside.count(most) >= min_fraction * len(inside) else 255)
    found = region_labels(masks, superpixels, min_fraction=min_fraction)
    assert found.tolist() == expected
    assert found.dtype == np.uint8


def test_painted_labels_come_back():
    superpixels, _, _, _, rng = random_photo(8)
    labels = rng.choice(np.array([0, 3, 255], np.uint8), superpixels.max() + 1)
    painted = paint(labels, superpixels)
    assert painted.dtype == np.uint8
    assert painted.shape == superpixels.shape
    assert all(painted[p] == labels[superpixels[p]] for p in np.ndindex(painted.shape))
    np.testing.assert_array_equal(region_labels(painted, superpixels), labels)


# Predictions.


def test_absent_classes_become_background():
    """And do not pass the region on to their second best."""
    probs = np.array([[0.1, 0.5, 0.4], [0.1, 0.4, 0.5], [0.6, 0.3, 0.1]], np.float32)
    assert object_regions(probs, np.array([True, True])).tolist() == [1, 2, 0]
    assert object_regions(probs, np.array([True, False])).tolist() == [1, 0, 0]
    assert object_regions(probs, np.array([False, False])).tolist() == [0, 0, 0]


def test_of_equal_probabilities_the_lowest_label_counts():
    probs = np.array([[0.2, 0.4, 0.4], [0.5, 0.5, 0.0]], np.float32)
    found = object_regions(probs, np.array([True, True]))
    assert found.tolist() == [1, 0]
    assert found.dtype == np.uint8


# Areas and means.


def test_areas_and_means():
    superpixels = np.array([[2, 0, 0], [2, 1, 0]], np.int32)
    maps = np.array([[[1, 0.5, 0], [0, 1, 1]], [[0, 0, 0], [1, 0.25, 0]]], np.float32)
    assert region_areas(superpixels).tolist() == [3, 1, 2]
    assert region_means(maps, superpixels).tolist() == [[0.5, 1, 0.5], [0, 0.25, 0.5]]
    assert region_means(maps[1], superpixels).tolist() == [0, 0.25, 0.5]
    assert region_means(maps, superpixels).dtype == np.float32


def test_means_equal_the_loop():
    superpixels, _, maps, _, _ = random_photo(77)
    expected = [
        [m[superpixels == i].mean(dtype=np.float64) for i in range(superpixels.max() + 1)]
        for m in maps
    ]
    np.testing.assert_allclose(region_means(maps, superpixels), expected, rtol=1e-6)


# What does not fit.

IDS = np.array([[0, 0, 1], [2, 2, 1]], np.int32)
PAIRS = np.array([[0, 1], [0, 2], [1, 2]])
MAPS = np.ones((2, 2, 3), np.float32)
TAGS = np.array([True, False])


@pytest.mark.parametrize(
    ("superpixels", "message"),
    [
        (IDS.astype(np.float32), "superpixels is float32"),
        (IDS[0], r"superpixels is int32 \(3,\)"),
        (np.zeros((0, 3), np.int32), "superpixels is int32"),
        (None, "superpixels is NoneType"),
        (IDS - 1, "gaps or below 0"),
        (IDS + 1, "gaps"),
        (IDS * 2, "gaps"),
        (IDS * 2**30, "gaps"),
    ],
)
def test_ids_are_0_to_n(superpixels, message):
    with pytest.raises(ShapeError, match=message):
        region_areas(superpixels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score_map": MAPS[:1]}, "1 score maps for 2 tags"),
        ({"score_map": MAPS[:, :, :2]}, r"\(1, 2, 2\)"),
        ({"score_map": MAPS * np.float32(np.nan)}, "NaN"),
        ({"score_map": MAPS.astype(int)}, "score_map is a int64"),
        ({"neighbours": PAIRS.T}, r"neighbours is int64 \(2, 3\)"),
        ({"neighbours": PAIRS / 2}, "neighbours is float64"),
        ({"neighbours": PAIRS.tolist()}, "neighbours is list"),
        ({"neighbours": PAIRS + 1}, "ids 1 to 3"),
        ({"superpixels": IDS[:1]}, "photo is 1 x 3|ids 0 to 2"),
    ],
)
def test_seeds_refuse_what_does_not_fit(change, message):
    given_ = {"score_map": MAPS, "superpixels": IDS, "neighbours": PAIRS, "tags": TAGS}
    with pytest.raises(ShapeError, match=message):
        region_seeds(**(given_ | change))


def test_regions_that_are_no_seed_are_background_if_asked_for():
    """4.2: regions "initially labeled as background"; each has a label then."""
    heat = [0.1, 0.4, 0.3, 0.69, 1.0, 0.7, 0.3, 0.1]
    assert seeds_of(heat, unseeded="background") == [0, 1, 0, 0, 1, 1, 0, 0]
    with pytest.raises(ConfigError, match="unseeded is 'none'; use ignore or background"):
        seeds_of(heat, unseeded="none")


@pytest.mark.parametrize(
    ("threshold", "background_threshold"), [(0.7, 0.0), (0.2, 0.3), (1.1, 0.2), (np.nan, 0.2)]
)
def test_seeds_refuse_thresholds_out_of_order(threshold, background_threshold):
    with pytest.raises(ConfigError, match=f"threshold is {threshold}"):
        region_seeds(
            MAPS,
            IDS,
            PAIRS,
            TAGS,
            threshold=threshold,
            background_threshold=background_threshold,
        )


def test_other_functions_refuse_what_does_not_fit():
    labels = np.zeros((2, 3), np.uint8)
    with pytest.raises(ShapeError, match=r"labels has shape \(2, 2\)"):
        region_labels(labels[:, :2], IDS)
    with pytest.raises(ShapeError, match="int64"):
        region_labels(labels.astype(int), IDS)
    for share in (0, 1.5, np.nan):
        with pytest.raises(ConfigError, match=f"min_fraction is {share}"):
            region_labels(labels, IDS, min_fraction=share)
    with pytest.raises(ShapeError, match=r"probs has shape \(3, 2\), tags \(2,\)"):
        object_regions(np.zeros((3, 2), np.float32), TAGS)
    with pytest.raises(ShapeError, match="NaN"):
        object_regions(np.full((3, 3), np.nan, np.float32), TAGS)
    with pytest.raises(ShapeError, match=r"values has shape \(2,\)"):
        paint(np.zeros(2, np.uint8), IDS)
    with pytest.raises(ShapeError, match=r"maps has shape \(2, 2, 2\)"):
        region_means(MAPS[..., :2], IDS)
    with pytest.raises(ShapeError, match="NaN"):
        region_means(MAPS * np.inf, IDS)


def test_inputs_are_left_as_they_are():
    superpixels, pairs, maps, tags, _ = random_photo(3)
    before = [a.copy() for a in (superpixels, pairs, maps, tags)]
    region_seeds(maps, superpixels, pairs, tags)
    for array, copy in zip((superpixels, pairs, maps, tags), before, strict=True):
        np.testing.assert_array_equal(array, copy)
