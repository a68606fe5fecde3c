"""How large labelled things are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagseg.errors import ShapeError
from tagseg.segment.sizes import typical_size, zoom_for


def test_median_over_photos_and_classes() -> None:
    first = np.zeros((20, 20), np.uint8)
    first[:3, :3], first[10:15, 10:15] = 1, 2
    second = np.zeros((20, 20), np.uint8)
    second[:8, :8] = 1
    second[19] = 255  # unknown is no thing
    assert typical_size([first, second]) == pytest.approx(5)


def test_nothing_labelled() -> None:
    assert typical_size([np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)]) is None
    assert zoom_for(None, 100, wanted=112, least=100, most=1000) == 1


def test_labels_of_another_kind() -> None:
    with pytest.raises(ShapeError, match="uint8"):
        typical_size([np.zeros((4, 4), np.int32)])  # type: ignore[list-item]


@given(st.floats(1, 500), st.floats(16, 4000))
def test_zoom_is_a_quarter_within_bounds(typical: float, longer: float) -> None:
    zoom = zoom_for(typical, longer, wanted=112, least=1, most=1536)
    assert zoom >= 1
    assert zoom * 4 == round(zoom * 4)
    assert zoom == 1 or zoom * longer <= 1536 + 0.125 * longer
    assert zoom == 1 or zoom * typical <= 112 + 0.125 * typical


def test_small_things_are_enlarged() -> None:
    assert zoom_for(56, 120, wanted=112, least=100, most=1536) == 2
    assert zoom_for(300, 320, wanted=112, least=100, most=1536) == 1
    assert zoom_for(10, 1024, wanted=112, least=100, most=1536) == 1.5
    assert zoom_for(10, 100, wanted=112, least=100, most=1536) == 3


def test_small_photos_are_enlarged() -> None:
    assert zoom_for(60, 120, wanted=64, least=224, most=1536) == 1.75
    assert zoom_for(None, 120, wanted=64, least=224, most=1536) == 1.75
    assert zoom_for(60, 20, wanted=64, least=224, most=1536) == 3
    assert zoom_for(20, 120, wanted=64, least=224, most=1536) == 3
