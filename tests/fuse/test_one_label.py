from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tagseg.errors import ConfigError, ShapeError
from tagseg.fuse.one_label import check_limits, has_usable_foreground, of_category, one_label

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))
LABELS = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.sampled_from([0, 1, 2, 255]),
)
FEW = settings(max_examples=40, deadline=None, derandomize=True)


@FEW
@given(MASKS, st.integers(1, 254))
def test_the_one_label_is_where_the_foreground_is(mask, label):
    found = one_label(mask, label)
    assert found.dtype == np.uint8
    assert found.shape == mask.shape
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            assert found[y, x] == (label if mask[y, x] else 0)


@FEW
@given(MASKS, st.integers(1, 254))
def test_of_category_takes_back_what_one_label_gave(mask, label):
    np.testing.assert_array_equal(of_category(one_label(mask, label), label), mask)


@FEW
@given(LABELS)
def test_other_categories_become_background(labels):
    found = one_label(of_category(labels, 2), 2)
    for before, after in zip(labels.ravel(), found.ravel(), strict=True):
        assert after == (2 if before == 2 else 0)


@FEW
@given(LABELS)
def test_rule_a_against_a_loop(labels):
    known = foreground = 0
    for value in labels.ravel().tolist():
        known += value != 255
        foreground += value not in (0, 255)
    expected = known > 0 and 0.2 <= foreground / known <= 0.6
    assert has_usable_foreground(labels, (0.2, 0.6)) == expected


@pytest.mark.parametrize(
    ("pixels", "usable"),
    [(0, False), (9, False), (10, True), (800, True), (801, False), (1000, False)],
)
def test_rule_a_leaves_out_less_than_1_and_more_than_80_per_cent(pixels, usable):
    labels = np.zeros(1000, np.uint8)
    labels[:pixels] = 7
    assert has_usable_foreground(labels.reshape(20, 50)) == usable


def test_of_a_photo_of_which_nothing_is_known_nothing_is_used():
    assert not has_usable_foreground(np.full((3, 4), 255, np.uint8), (0.0, 1.0))


@pytest.mark.parametrize("label", [0, 255, -1, 300])
def test_a_label_must_be_one_of_a_class(label):
    with pytest.raises(ShapeError, match="no foreground label"):
        one_label(np.zeros((2, 2), bool), label)
    with pytest.raises(ShapeError, match="no foreground label"):
        of_category(np.zeros((2, 2), np.uint8), label)


@pytest.mark.parametrize("mask", [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 1), bool)])
def test_a_mask_must_be_bool_and_flat(mask):
    with pytest.raises(ShapeError, match="bool array"):
        one_label(mask, 1)


@pytest.mark.parametrize(
    "limits", [(0.5, 0.5), (0.8, 0.01), (-0.1, 0.8), (0.0, 1.1), (float("nan"), 0.8)]
)
def test_limits_must_be_two_shares_that_rise(limits):
    with pytest.raises(ConfigError, match="foreground_limits"):
        check_limits(limits)


def test_the_published_limits_pass():
    check_limits((0.01, 0.8))
    check_limits((0.0, 1.0))
