"""What a person said, as a value: its weight, its counts, and whether it is about masks."""

from __future__ import annotations

import numpy as np
import pytest

from tagseg.errors import ConfigError
from tagseg.stages.review import Acts, Review, ReviewSettings, foreground_of


@pytest.mark.parametrize("weight", [0, -1, 101])
def test_weights_that_cannot_be_meant(weight):
    with pytest.raises(ConfigError, match="review_weight is"):
        ReviewSettings(weight)


def test_acts_as_a_line_and_as_json():
    acts = Acts(right=1, picked=2, corrected=3, wrong=4, tags=5, photos=10, acts=20)
    assert acts.accepted == 6
    assert Acts.from_json(acts.to_json()) == acts
    assert acts.line() == (
        "10 training photos were looked at; masks: 1 right, 2 picked, 3 corrected, 4 wrong; tags "
        "changed: 5; acts in all: 20"
    )


def test_one_photo():
    assert Acts(photos=1).line().startswith("1 training photo was looked at; masks: 0 right")


def test_whether_it_is_about_masks():
    assert not Review(acts=Acts(tags=1)).of_masks
    assert Review(rejected=frozenset([0])).of_masks
    assert Review({0: lambda: np.zeros((1, 1), np.uint8)}).of_masks


def test_foreground_of_classes():
    mask = np.array([[0, 1, 7, 255]], np.uint8)
    assert foreground_of(mask).tolist() == [[0, 1, 1, 255]]
    assert foreground_of(mask).dtype == np.uint8
