from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import ConfigError, ShapeError
from tagseg.fuse.guide_labels import (
    component_guide,
    oracle_guide,
    oracle_mask,
    random_guide,
    salient_components,
    seed_guide,
)

LABEL_OF = {".": 0, "#": 1, "a": 1, "b": 2, "c": 3, "d": 4, "?": 255}


def read(drawing):
    """Maps (H, W) that stand side by side in ``drawing``, one character a pixel."""
    rows = [line.split() for line in drawing.strip().splitlines()]
    return [
        np.array([[LABEL_OF[pixel] for pixel in row] for row in column], np.uint8)
        for column in zip(*rows, strict=True)
    ]


def nearest_seed(component, seeds, classes, window):
    """Each pixel takes the class of the nearest seed of the whole photo, 255 if two are as near."""
    labels = np.zeros(component.shape, np.uint8)
    top, left = window[0].start, window[1].start
    for y, x in np.argwhere(component):
        distances = [
            min((sy - y - top) ** 2 + (sx - x - left) ** 2 for sy, sx in np.argwhere(seeds == c))
            for c in classes
        ]
        near = [c for c, d in zip(classes, distances, strict=True) if d == min(distances)]
        labels[y, x] = near[0] if len(near) == 1 else 255
    return labels


def nobody(*_):
    pytest.fail("no component is shared by two classes")


def check(drawing, share=nobody, **limits):
    """The first two maps are seeds and saliency, the third is the guide that they must give."""
    seeds, salient, expected = read(drawing)
    limits = {"min_seed_pixels": 1, "min_fraction": 0} | limits
    guide = seed_guide(seeds, salient == 1, share=share, **limits)
    np.testing.assert_array_equal(guide, expected)
    assert guide.dtype == np.uint8


# Supplement E, its cases in its order.


def test_component_without_a_seed_is_ignored():
    check("""
        .......  .......  .......
        .aa....  .##.##.  .aa.??.
        .aa....  .##.##.  .aa.??.
        .......  .......  .......
    """)


def test_component_of_one_class_takes_it_whole():
    check("""
        ......  .####.  .aaaa.
        ..aa..  .####.  .aaaa.
        ......  ...##.  ...aa.
        ......  ......  ......
    """)


def test_two_classes_share_a_component():
    check(
        """
        .......  #######  aaa?bbb
        .a...b.  #######  aaa?bbb
        .......  .......  .......
        """,
        nearest_seed,
    )


def test_seed_that_bleeds_out_is_ignored_there():
    check("""
        .......  .......  .......
        .aaaa..  ...###.  .??aaa.
        .aaaa..  ...###.  .??aaa.
        .......  .......  .......
    """)


def test_seed_spreads_over_every_component_that_it_touches():
    check("""
        .......  ##...##  aa...aa
        .aaaaa.  ##...##  aa???aa
        .......  ##...##  aa...aa
    """)


def test_isolated_seed_stays():
    check("""
        .......  .......  .......
        .aa.bb.  ....##.  .aa.bb.
        .aa.bb.  ....##.  .aa.bb.
    """)


def test_component_under_one_percent_is_none():
    """Of 10 x 11 pixels one is too few, two are enough."""
    seeds, salient = np.zeros((2, 10, 11), np.uint8)
    salient[2, 2] = salient[6, 5] = salient[7, 6] = 1
    expected = np.zeros((10, 11), np.uint8)
    expected[6, 5] = expected[7, 6] = 255
    guide = seed_guide(seeds, salient == 1, share=nobody)
    np.testing.assert_array_equal(guide, expected)


def test_component_of_one_percent_counts():
    salient = np.zeros((10, 10), bool)
    salient[4, 4] = True
    assert salient_components(salient).max() == 1
    assert salient_components(salient[:, :9]).max() == 1
    salient[0, 0:7] = True
    share = salient_components(salient, min_fraction=0.07)  # 0.07 * 100 is 7.000000000000001
    np.testing.assert_array_equal(share, np.where(np.indices((10, 10))[0] == 0, salient, 0))


# Cases that follow from them.


def test_seed_on_too_small_a_component_is_isolated():
    check(
        """
        .....  .....  .....
        .aa..  ..#..  .aa..
        .....  .....  .....
        """,
        min_fraction=0.1,
    )


def test_seed_bleeds_into_too_small_a_component():
    check(
        """
        aaaaa  ##..#  aa???
        .....  ##...  aa...
        """,
        min_fraction=0.2,
    )


def test_seed_below_the_least_pixels_does_not_count():
    """Outside it is background, and the component that it touches has no seed."""
    check(
        """
        aa.bbb.c  ##.###..  ??.bbb..
        .......c  ##.###..  ??.bbb..
        """,
        min_seed_pixels=3,
    )


def test_seed_of_25_pixels_counts_by_default():
    seeds, salient = np.zeros((2, 20, 20), np.uint8)
    seeds[2:7, 2:7], salient[2:9, 2:9] = 3, 1
    guide = seed_guide(seeds, salient == 1, share=nobody)
    np.testing.assert_array_equal(guide, 3 * salient)
    seeds[2, 2] = 0
    guide = seed_guide(seeds, salient == 1, share=nobody)
    np.testing.assert_array_equal(guide, 255 * salient)


def test_parts_of_a_seed_do_not_add_up():
    check(
        """
        aa.aa  #####  ?????
        """,
        min_seed_pixels=3,
    )


def test_a_small_seed_does_not_make_a_component_shared():
    check(
        """
        aaa..b  ######  aaaaaa
        aaa...  ######  aaaaaa
        """,
        min_seed_pixels=2,
    )


def test_seed_that_covers_exactly():
    check("""
        .aa..  .##..  .aa..
        .aa..  .##..  .aa..
    """)


def test_two_seeds_of_one_class_are_one_class():
    check("""
        .....  .....  .....
        aa.aa  .####  ?aaaa
        .....  .....  .....
    """)


def test_bleeding_seed_that_touches_two_components_of_which_one_is_shared():
    check(
        """
        .......  ##.####  aa.aabb
        aaaa..b  ##.####  aa?aabb
        """,
        nearest_seed,
    )


def test_seed_of_another_class_inside_shares_the_component():
    check(
        """
        aaaaa  #####  aaaaa
        aabaa  #####  aabaa
        aaaaa  #####  aaaaa
        """,
        nearest_seed,
    )


def test_corners_join_pixels():
    """Of seeds, and of components."""
    check(
        """
        a.....  #.....  a.....
        .a....  ......  .?....
        ..a...  ..#...  ..a...
        ......  ...#..  ...a..
        """,
        min_seed_pixels=3,
    )


def test_lying_side_by_side_is_not_touching():
    check("""
        .aa...  ...##.  .aa??.
        .aa...  ...##.  .aa??.
        ..aa..  ......  ..aa..
    """)


def test_no_saliency_leaves_the_seeds():
    check(
        """
        aa..b  .....  aa...
        aa...  .....  aa...
        ...cc  .....  ...cc
        """,
        min_seed_pixels=2,
    )


def test_all_salient():
    check("""
        .....  #####  ccccc
        ..c..  #####  ccccc
    """)
    check("""
        .....  #####  ?????
        .....  #####  ?????
    """)


def test_nothing_at_all_is_background():
    check("""
        .....  .....  .....
        .....  .....  .....
    """)


@pytest.mark.parametrize(
    "drawing", [". . .", "a . a", ". # ?", "a # a", "? . .", "? # ?"], ids=lambda d: d
)
def test_photo_of_one_pixel(drawing):
    check(drawing)


def test_unknown_seed_pixels_are_no_seeds():
    check("""
        ??????  ##....  aa....
        ?aa???  ##..##  aa?.??
        ??????  ##....  aa....
    """)


def test_share_sees_the_component_the_seeds_that_count_and_the_classes_that_touch():
    seeds, salient, _ = read("""
        ...d..  ......  ......
        bb.aaa  ..####  ......
        ..b...  ..####  ......
        c.....  #.....  ......
    """)
    calls = []

    def share(component, counted, classes, window):
        calls.append(window)
        np.testing.assert_array_equal(component, [[1, 1, 1, 1], [1, 1, 1, 1]])
        np.testing.assert_array_equal(counted, np.where(seeds < 3, seeds, 0))
        np.testing.assert_array_equal(classes, [1, 2])
        assert classes.dtype == counted.dtype == np.uint8
        assert component.dtype == bool
        return np.full((2, 4), 7, np.uint8)

    guide = seed_guide(seeds, salient == 1, share=share, min_seed_pixels=2, min_fraction=0)
    assert calls == [(slice(1, 3), slice(2, 6))]
    expected = [[0] * 6, [255, 255, 7, 7, 7, 7], [0, 0, 7, 7, 7, 7], [255, 0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(guide, expected)


def test_share_writes_into_its_component_alone():
    """Another component lies in the same window."""
    check(
        """
        a....b  ######  dddddd
        ......  #....#  d....d
        ..c...  #.##.#  d.cc.d
        ......  #....#  d....d
        """,
        lambda component, *_: np.full(component.shape, 4, np.uint8),
    )


# The loop version.


def flood(mask):
    """Components of ``mask`` as sets of pixels, by flood filling."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    found = []
    while left:
        queue = deque([left.pop()])
        part = set(queue)
        while queue:
            y, x = queue.popleft()
            for step in [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                pixel = y + step[0], x + step[1]
                if pixel in left:
                    left.remove(pixel)
                    part.add(pixel)
                    queue.append(pixel)
        found.append(part)
    return found


def loop_guide(seeds, salient, min_seed_pixels, min_fraction):
    """Supplement E, sentence by sentence."""
    regions = [r for r in flood(salient) if len(r) / salient.size >= min_fraction]
    parts = [
        (label, part)
        for label in range(1, 255)
        for part in flood(seeds == label)
        if len(part) >= min_seed_pixels
    ]
    guide = np.zeros(seeds.shape, np.uint8)
    for region in regions:
        categories = sorted({label for label, part in parts if part & region})
        for pixel in region:
            if len(categories) == 0:
                guide[pixel] = 255
            elif len(categories) == 1:
                guide[pixel] = categories[0]
            else:
                nearest = {
                    c: min(
                        (y - pixel[0]) ** 2 + (x - pixel[1]) ** 2
                        for label, part in parts
                        if label == c
                        for y, x in part
                    )
                    for c in categories
                }
                closest = [c for c in categories if nearest[c] == min(nearest.values())]
                guide[pixel] = closest[0] if len(closest) == 1 else 255
    covered = set().union(*regions)
    for label, part in parts:
        touches = any(part & region for region in regions)
        for pixel in part - covered:
            guide[pixel] = 255 if touches else label
    return guide


def random_maps(seed):
    """Seeds and saliency of a photo of up to 16 x 16, in blobs and in single pixels."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 17, 2)
    grain = int(rng.integers(1, 5))
    coarse = -(-height // grain), -(-width // grain)
    block = np.ones((grain, grain), np.uint8)
    seeds = rng.choice([0, 1, 2, 3, 255], coarse, p=[0.55, 0.15, 0.12, 0.1, 0.08])
    salient = rng.random(coarse) < rng.choice([0.15, 0.4, 0.6])
    seeds, salient = (np.kron(m, block)[:height, :width] for m in (seeds, salient))
    flips = rng.random(seeds.shape) < 0.05
    return np.where(flips, rng.integers(0, 4, seeds.shape), seeds).astype(np.uint8), salient == 1


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 100_000),
    min_seed_pixels=st.integers(0, 6),
    min_fraction=st.sampled_from([0, 0.01, 0.05, 0.2]),
)
def test_equals_the_loop(seed, min_seed_pixels, min_fraction):
    seeds, salient = random_maps(seed)
    limits = {"min_seed_pixels": min_seed_pixels, "min_fraction": min_fraction}
    guide = seed_guide(seeds, salient, share=nearest_seed, **limits)
    np.testing.assert_array_equal(guide, loop_guide(seeds, salient, **limits))


def guide_of(seeds, salient):
    return seed_guide(seeds, salient, share=nearest_seed, min_seed_pixels=3, min_fraction=0.02)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 100_000))
def test_mirrored_photos_have_mirrored_guides(seed):
    seeds, salient = random_maps(seed)
    guide = guide_of(seeds, salient)
    for mirror in (np.flipud, np.fliplr, np.transpose):
        mirrored = guide_of(mirror(seeds), mirror(salient))
        np.testing.assert_array_equal(mirrored, mirror(guide))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 100_000), order=st.permutations([1, 2, 254]))
def test_classes_have_no_order(seed, order):
    seeds, salient = random_maps(seed)
    names = np.arange(256, dtype=np.uint8)
    names[1:4] = order
    np.testing.assert_array_equal(guide_of(names[seeds], salient), names[guide_of(seeds, salient)])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 100_000), min_fraction=st.sampled_from([0, 0.03, 0.2]))
def test_components_are_those_of_flood_filling(seed, min_fraction):
    _, salient = random_maps(seed)
    components = salient_components(salient, min_fraction=min_fraction)
    regions = [r for r in flood(salient) if len(r) / salient.size >= min_fraction]
    found = [{tuple(p) for p in np.argwhere(components == i + 1)} for i in range(len(regions))]
    assert sorted(map(sorted, found)) == sorted(map(sorted, regions))
    assert components.max() == len(regions)
    assert components.dtype == np.int32


def test_inputs_are_left_as_they_are():
    seeds, salient = random_maps(5)
    before = seeds.copy(), salient.copy()
    guide_of(seeds, salient)
    np.testing.assert_array_equal(seeds, before[0])
    np.testing.assert_array_equal(salient, before[1])


@pytest.mark.parametrize(
    ("seeds", "salient", "limits", "error", "message"),
    [
        (np.zeros((3, 4), int), np.zeros((3, 4), bool), {}, ShapeError, "seeds is a int64"),
        (np.zeros((3, 4), np.uint8), np.zeros((3, 4)), {}, ShapeError, "salient is a float64"),
        (np.zeros((3, 4), np.uint8), np.zeros((4, 3), bool), {}, ShapeError, r"\(4, 3\)"),
        (np.zeros((0, 4), np.uint8), np.zeros((0, 4), bool), {}, ShapeError, "one pixel"),
        (*np.zeros((2, 3, 4), bool), {}, ShapeError, "seeds is a bool"),
        (None, np.zeros((3, 4), bool), {}, ShapeError, "seeds is a NoneType"),
        (
            np.zeros((3, 4), np.uint8),
            np.zeros((3, 4), bool),
            {"min_fraction": 1.5},
            ConfigError,
            "min_fraction is 1.5",
        ),
        (
            np.zeros((3, 4), np.uint8),
            np.zeros((3, 4), bool),
            {"min_seed_pixels": -1},
            ConfigError,
            "min_seed_pixels is -1",
        ),
    ],
)
def test_wrong_arguments_are_refused(seeds, salient, limits, error, message):
    with pytest.raises(error, match=message):
        seed_guide(seeds, salient, share=nobody, **limits)


# G0.


def test_random_guide_gives_all_salient_pixels_one_of_the_tags():
    rng = np.random.default_rng(0)
    salient = rng.random((6, 7)) < 0.4
    drawn = []
    for _ in range(300):
        guide = random_guide(salient, np.array([False, True, False, True]), rng)
        (label,) = np.unique(guide[salient])
        drawn.append(int(label))
        assert not guide[~salient].any()
        assert guide.dtype == np.uint8
    assert set(drawn) == {2, 4}
    assert 110 < drawn.count(2) < 190


def test_random_guide_is_repeatable():
    tags, salient = np.ones(20, bool), np.ones((2, 2), bool)
    first, again = (
        [random_guide(salient, tags, rng)[0, 0] for _ in range(9)]
        for rng in (np.random.default_rng(3), np.random.default_rng(3))
    )
    assert first == again


def test_random_guide_without_tags_or_saliency_is_background():
    rng = np.random.default_rng(0)
    assert not random_guide(np.ones((3, 4), bool), np.zeros(4, bool), rng).any()
    assert not random_guide(np.zeros((3, 4), bool), np.ones(4, bool), rng).any()


# G1.

COMPONENTS = np.array([[1, 1, 0, 2], [0, 0, 0, 2], [3, 0, 0, 0]], np.int32)


def test_component_guide_takes_the_greatest_rise_of_a_present_class():
    changes = np.array([[9.0, 0.1, 0.2], [9.0, -0.1, -0.2], [9.0, 0.3, -5.0]])
    guide = component_guide(COMPONENTS, changes, np.array([False, True, True]))
    np.testing.assert_array_equal(guide, [[3, 3, 0, 2], [0, 0, 0, 2], [2, 0, 0, 0]])
    assert guide.dtype == np.uint8


def test_component_guide_where_no_score_rises():
    changes = np.array([[9.0, 0.1, 0.2], [9.0, -0.1, -0.2], [9.0, 0.0, -5.0]])
    tags = np.array([False, True, True])
    guide = component_guide(COMPONENTS, changes, tags, without_rise="ignore")
    np.testing.assert_array_equal(guide, [[3, 3, 0, 255], [0, 0, 0, 255], [255, 0, 0, 0]])


@pytest.mark.parametrize("without_rise", ["best", "ignore"])
def test_component_guide_without_tags_or_components_is_background(without_rise):
    no_tags = component_guide(
        COMPONENTS, np.ones((3, 2)), np.zeros(2, bool), without_rise=without_rise
    )
    none = np.zeros((3, 4), np.int32)
    nothing = component_guide(none, np.ones((0, 2)), np.ones(2, bool), without_rise=without_rise)
    np.testing.assert_array_equal(no_tags, none)
    np.testing.assert_array_equal(nothing, none)


def test_component_guide_refuses_what_does_not_fit():
    tags = np.array([True, False])
    with pytest.raises(ShapeError, match="3 components and 2 tags"):
        component_guide(COMPONENTS, np.ones((2, 2)), tags)
    with pytest.raises(ShapeError, match="NaN"):
        component_guide(COMPONENTS, np.full((3, 2), np.nan), tags)
    with pytest.raises(ConfigError, match="without_rise is 'worst'"):
        component_guide(COMPONENTS, np.ones((3, 2)), tags, without_rise="worst")


# The oracle.


def test_oracle_is_the_annotated_foreground():
    truth, expected = read("""
        .ab?.  .##..
        ?ccd.  .###.
    """)
    np.testing.assert_array_equal(oracle_mask(truth), expected == 1)


def test_oracle_guide_ignores_what_nobody_annotated():
    """The rim keeps the objects apart, and the seed's own class decides, not the annotation's."""
    seeds, truth, expected = read("""
        .a......  ?bb?cc?.  ?aa????.
        ........  ?bb?cc?.  ?aa????.
        .......b  ????????  ????????
    """)
    guide = oracle_guide(seeds, truth, share=nobody, min_seed_pixels=1, min_fraction=0)
    np.testing.assert_array_equal(guide, expected)


def test_oracle_guide_leaves_small_objects_out():
    truth = np.zeros((20, 20), np.uint8)
    truth[1, 1:4] = 1
    assert not oracle_guide(np.zeros_like(truth), truth, share=nobody).any()
