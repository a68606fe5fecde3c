"""What recipes have to show: what the network of a round makes of photos unseen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from guided_runs import FEW, MINING, few_photos, open_run
from small_runs import CLASSES, finished_stages
from tagseg.data.masks import decode_mask
from tagseg.nets.deeplab import SegmentationNet
from tagseg.recipes.mcof.config import Config
from tagseg.session.train import make_config
from tagseg.stages.predictions import round_predictions
from tagseg.stages.segmenter import segmenter_of
from tagseg.stages.stage import Trained


def config_of(**changed: Any) -> Any:
    return make_config(Config, {**FEW, **MINING, **changed})


@pytest.mark.parametrize(
    ("refiner", "title"), [("crf", "Net + CRF, round 3"), ("none", "Net, round 3")]
)
def test_what_a_rounds_network_makes_of_photos_unseen(photos, tmp_path, refiner, title):
    """Without their tags; as the network of the last round will be scored."""
    folder = tmp_path / "run"
    with open_run(few_photos(photos), folder, val=photos.val[:2], recipe="mcof") as own:
        net = SegmentationNet(own.setup.build_backbone(config_of()), len(CLASSES) + 1, width=16)
        segmenter = segmenter_of(own, config_of(refiner=refiner), net)
        with own.stage("net", {}, []) as stage:
            pass
        after = Trained(segmenter, stage)
        (found,) = round_predictions(own, after, 3, "Net")
        assert (found.id, found.title, found.split, found.number) == ("segmenter", title, "val", 3)
        assert found.stage.name == "predictions-3"
        val = own.split("val").photos
        for index in range(len(val)):
            image = val.image(index)
            probs = segmenter.forward(image[None])[0]
            if segmenter.refiner is not None:
                probs = segmenter.refiner.refine(image, probs)
            assert (found.labels(index) == probs.argmax(0)).mean() > 0.97
            raw = own.workspace.finished("predictions-3").maps("raw")
            assert decode_mask(raw.get_bytes(val.names[index])).shape == image.shape[:2]
        (other,) = round_predictions(own, after, 3, "Net", by_class=False)
        assert (found.by_class, other.by_class) == (True, False)
        assert round_predictions(replace(own, val=None), after, 3, "Net") == []
    assert set(finished_stages(folder)) == {"net", "predictions-3"}
