"""Regions of masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from exported import CHECKED, LABELS, labels_of, without_unknown
from tagseg.formats.export.regions import regions_of


@pytest.mark.parametrize("per", ["region", "class"])
@given(labels=LABELS)
@CHECKED
def test_regions_are_the_mask(per, labels):
    back = np.zeros_like(labels)
    for region in regions_of(labels, per):
        left, top, width, height = region.box
        assert region.mask.shape == (height, width)
        assert region.mask[0].any()
        assert region.mask[-1].any()
        assert region.mask[:, 0].any()
        assert region.mask[:, -1].any()
        part = back[top : top + height, left : left + width]
        assert not part[region.mask].any()
        part[region.mask] = region.label
        assert region.area == region.mask.sum()
    assert np.array_equal(back, without_unknown(labels))


def test_corners_touch():
    found = [(r.label, r.box) for r in regions_of(labels_of("one"), "region")]
    assert found == [
        (1, (3, 2, 22, 18)),
        (2, (9, 8, 6, 4)),
        (3, (30, 0, 1, 1)),
        (3, (0, 22, 2, 2)),
    ]
    assert [r.box for r in regions_of(labels_of("one"), "class")][2] == (0, 0, 31, 24)
