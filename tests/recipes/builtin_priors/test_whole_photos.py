"""Whole photos for the segmenter of ``builtin_priors`` (Saleh et al. 4.2.1)."""

from __future__ import annotations

import pytest

from small_runs import OPTIONS, quick
from tagseg.data.working import WorkingPhotos
from tagseg.recipes.builtin_priors import recipe
from tagseg.recipes.builtin_priors.config import Config
from tagseg.run.plan import Plan
from tagseg.run.progress import Progress
from tagseg.session.train import make_config, make_setup
from tagseg.stages.context import Run


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        ({"masks": "none"}, True),
        ({"masks": "foreground"}, True),
        ({"masks": "localization"}, False),
        ({"masks": "both"}, False),
        ({"masks": "both", "whole_photos": True}, True),
    ],
)
def test_which_segmenters_see_whole_photos(given, whole):
    config = make_config(Config, given)
    assert config.sees_whole() == whole
    assert ("segmenter_crop" in config.idle()) == whole


def test_the_segmenter_is_trained_on_samples_of_the_photos_own_size(photos):
    """Nothing is cut off, scaled or padded where photos come one by one."""
    found = {}
    for masks, whole in (("foreground", False), ("both", False), ("both", True)):
        given = {"masks": masks, "whole_photos": whole, "mask_regions": "none"}
        config, plan = make_config(Config, {**quick("builtin_priors"), **given}), Plan()
        few = WorkingPhotos(photos.dataset.subset(range(4)), 64)
        recipe.run(Run(few, "photos", None, "", make_setup(OPTIONS), plan, Progress()), config)
        record = plan.records["segmenter"]["config"]["augmentation"]
        found[masks, whole] = record["size"], tuple(record["scale"]), record["jitter"]
    assert found["foreground", False] == found["both", True] == (None, (1.0, 1.0), 0.0)
    assert found["both", False][0] is not None
