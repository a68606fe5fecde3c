"""Gradients as seeds: the recipe, its numbers, and what depends on them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from small_runs import UNKNOWN, finished_stages
from tagseg.data.masks import decode_mask
from tagseg.data.working import WorkingPhotos
from tagseg.errors import ConfigError
from tagseg.fuse.seed_labels import cam_labels
from tagseg.localize.seeds import GradientSeeder
from tagseg.nets.gap import GapClassifier
from tagseg.nets.tiny import Tiny
from tagseg.recipes.gradient_baseline import Config
from tagseg.run.workspace import Workspace
from tagseg.session.train import Result, make_config
from tagseg.stages.crf import smoothed_scores

SIDE = 64


@pytest.fixture(scope="module")
def result(go, tmp_path_factory) -> Result:
    config = {"method": "plain", "blocks": (0, 3), "seed_sigma": 20.0, "seed_threshold": 0.4}
    return go("gradient_baseline", config, out=tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.parametrize("smooth", [True, False])
def test_seeds_are_smoothed_and_thresholded_gradients(result, go, photos, smooth, tmp_path):
    """As with the recipe's classifier alone; Oh et al. 4.2."""
    config: dict[str, Any] = {"method": "plain", "blocks": (0, 3), "seed_sigma": 20.0}
    if not smooth:
        config |= {"seed_crf": False, "seed_threshold": 0.4}
        result = go("gradient_baseline", config, out=tmp_path / "run", ground_truth=None)
    work = Workspace.read(result.folder)
    net = GapClassifier(Tiny(), len(photos.dataset.classes), hidden=16).eval()
    net.load_state_dict(work.finished("classifier").load_tensors("classifier")[0])
    seeder = GradientSeeder(net, "plain", blocks=(0, 3), sigma=20.0)
    crf = make_config(Config, {"crf_iterations": 2}).crf()
    part = WorkingPhotos(photos.dataset.select(photos.train), SIDE)
    maps, labels = (
        work.finished(name).maps(store)
        for name, store in (("gradient-seeds", "score-maps"), ("seeds", "labels"))
    )
    seen = 0
    for index in (0, 1, 5, 8, UNKNOWN):
        image, tags = part.image(index), part.tags[index]
        expected = seeder(image, tags)
        if smooth:
            expected = smoothed_scores(image, expected, crf, contrast=3.0)
        kept = maps.get(part.names[index])
        assert kept["present"].tolist() == expected.any((1, 2)).tolist()
        np.testing.assert_allclose(kept["scores"], expected[kept["present"]], atol=2e-3)
        ours = decode_mask(labels.get_bytes(part.names[index]))
        assert (ours == cam_labels(expected, tags, threshold=0.4)).mean() > 0.99
        seen += len(np.unique(ours)) - 1
    assert seen >= 3
    assert kept["scores"].size == 0  # nothing is known of the last
    work.close()


def test_stages_products_and_seeds(result):
    names = ["classifier", "gradient-seeds", "seeds", "segmenter", "masks", "predictions"]
    expected = {*names, "val-gradient-seeds", "findings", "export"}
    assert set(finished_stages(result.folder)) == expected
    assert result.scores[0].stage == "plain back-propagation seeds"
    rows = Workspace.read(result.folder).finished("findings").load_json("seeds")
    assert [(row["method"], row["threshold"]) for row in rows] == [
        ("plain back-propagation", 0.4),
        ("centre mean shape", None),
    ]
    about = json.loads((result.folder / "run.json").read_text())
    assert about["curves"] == ["classifier", "segmenter"]


def test_the_papers_numbers():
    config = Config()
    assert (config.method, config.blocks, config.seed_threshold) == ("guided", (0,), 0.2)
    assert (config.seed_bilateral, config.seed_smoothness) == ((4.0, 121.0, 5.0), (3.0, 3.0))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"method": "foo"}, "method is 'foo'; "),
        ({"blocks": (6,)}, "blocks is (6,); use some of 0, 1, 2, 3, 4, 5"),
        ({"blocks": ()}, "blocks is (); use some of 0, 1, 2, 3, 4, 5"),
        ({"seed_sigma": -1.0}, "seed_sigma is -1.0; use 0 or more"),
        ({"seed_contrast": 0.0}, "seed_contrast is 0.0; use a value over 0"),
        ({"seed_threshold": 0.0}, "seed_threshold is 0.0; use over 0, up to 1"),
        ({"seed_threshold": 1.5}, "seed_threshold is 1.5; use over 0, up to 1"),
        ({"seed_bilateral": (4.0, -1.0, 5.0)}, "seed_bilateral is 4,-1,5; use"),
    ],
)
def test_numbers_that_make_no_sense(values, line):
    for make in (lambda: make_config(Config, values), lambda: Config(**values)):
        with pytest.raises(ConfigError) as caught:
            make()
        assert str(caught.value).startswith(line)
