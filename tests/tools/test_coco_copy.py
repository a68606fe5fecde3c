"""Generated copies of COCO: read back, they are the scenes that they were made of."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tagseg.data.scenes import SCENES, draw_scene
from tagseg.formats.coco.instances import read_instances
from tagseg.formats.loading import load_dataset
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.maps import IGNORE
from tool_modules import load_tool

COUNTS = {"train2014": 14, "val2014": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("coco") / "copy"
    load_tool("coco_copy").write_scenes(home, COUNTS, seed=3)
    return home


def test_the_ground_truth_is_the_scenes(folder):
    tool = load_tool("coco_copy")
    data = load_dataset(folder)
    assert data.classes == tuple(tool.IDS)
    truth = GroundTruth(folder, data.classes)
    ids = [data.classes.index(tool.NAMES.get(name, name)) + 1 for name in SCENES.classes]
    to_label = np.array([0, *ids], np.uint8)
    crowds = 0
    for number in range(1, COUNTS["train2014"] + 1):
        name = f"train2014/COCO_train2014_{number:012d}"
        scene = draw_scene(SCENES, 3, number - 1)
        found, expected = truth.labels(name, (96, 128)), to_label[scene.labels]
        crowds += bool((found == IGNORE).any())
        assert np.array_equal(found, np.where(found == IGNORE, IGNORE, expected))
        tags = to_label[1:][scene.tags] - 1
        assert np.flatnonzero(data.tags[data.names.index(name)]).tolist() == sorted(tags)
    assert crowds


def test_every_form_of_an_object_is_there(folder):
    whole = json.loads((folder / "annotations" / "instances_train2014.json").read_text())
    outlines = [one["segmentation"] for one in whole["annotations"]]
    kinds = {type(o if isinstance(o, list) else o["counts"]).__name__ for o in outlines}
    assert kinds == {"list", "str"}
    assert any(isinstance(o, dict) and isinstance(o["counts"], list) for o in outlines)
    assert any(one["iscrowd"] for one in whole["annotations"])
    assert {one["image_id"] for one in whole["annotations"]} <= {
        one["id"] for one in whole["images"]
    }


def test_a_list_without_photos(tmp_path):
    path = tmp_path / "instances_train2017.json"
    load_tool("coco_copy").write_list(path, 1500, 4000, seed=1)
    found = read_instances(path)
    assert found is not None
    assert (len(found.names), len(found.images), len(found.categories)) == (1500, 4000, 80)
    assert found.crowds.any()
    truth = GroundTruth(path, found.categories)
    assert truth.labels(truth.names()[int(found.images[0])], (480, 640)).any()
