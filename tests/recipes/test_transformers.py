"""Every recipe on a vision transformer: it works, or one line says why it cannot."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from guided_runs import MINING, RECURSION
from small_runs import DISTINCT, OPTIONS, WEIGHED, changed_stages, finished_stages
from tagseg.errors import ConfigError
from tagseg.nets.hugging_face import pretrained_state
from tagseg.recipes.catalog import RECIPES
from tagseg.run.workspace import Workspace
from tagseg.session.export import load_segmenter

transformers = pytest.importorskip("transformers", reason="pip install tagseg[foundation]")

MORE: dict[str, dict[str, Any]] = {
    "guided": {"seeder_side": 64},
    "sec": {"seeder_side": 64},
    "mcof": {"seeder_side": 64, **MINING},
    "dcsm": DISTINCT | {"method": "plain"},
    "gradient_baseline": {"method": "plain"},
    "coarse_to_fine": RECURSION,
    "coarse_to_fine_foreground": RECURSION,
    # The pyramid has 32 channels at least, more than this transformer.
    "union": {**WEIGHED, "segmenter": "published"},
}


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("vit")
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=5,
        num_attention_heads=2,
        intermediate_size=32,
        patch_size=8,
        image_size=64,
    )
    transformers.ViTModel(config).save_pretrained(folder)
    return f"hf:{folder}"


@pytest.mark.parametrize("recipe", RECIPES)
def test_trains_and_predicts(recipe: str, vit: str, go: Any, photos: Any, tmp_path: Path) -> None:
    options = replace(OPTIONS, backbone=vit)
    result = go(recipe, MORE.get(recipe, {}), options=options, out=tmp_path / "run")
    assert result.scores
    image = photos.dataset.image(0)
    again = load_segmenter(tmp_path / "run", device="cpu", precision="fp32")  # without its folder
    np.testing.assert_array_equal(again.predict(image), result.segmenter.predict(image))


@pytest.mark.parametrize("recipe", ["dcsm", "gradient_baseline"])
def test_guided_back_propagation_says_that_there_are_no_relus(
    recipe: str, vit: str, go: Any
) -> None:
    with pytest.raises(ConfigError, match=r"the backbone hf:.* has none; use plain"):
        go(recipe, MORE[recipe] | {"method": "guided"}, options=replace(OPTIONS, backbone=vit))


@pytest.mark.parametrize("localizer", ["grad_cam", "rollout"])
def test_localizers_of_transformers(
    localizer: str, vit: str, go: Any, photos: Any, tmp_path: Path
) -> None:
    """The classifier is that of CAM, and is not trained anew."""
    options, out = replace(OPTIONS, backbone=vit), tmp_path / "run"
    go("cam_baseline", options=options, out=out)
    before = finished_stages(out)
    result = go("cam_baseline", {"localizer": localizer}, options=options, out=out)
    changed = changed_stages(before, out)
    name = {"grad_cam": "grad-cam-maps", "rollout": "rollout-maps"}[localizer]
    assert {name, f"val-{name}", "seeds", "segmenter"} < changed
    assert "classifier" not in changed
    assert result.seeds[0].mean_precision > 0
    kept = Workspace.read(out).finished(name).maps("class-maps")
    for index, photo in enumerate(photos.dataset.names[: len(photos.train)]):
        maps = kept.get(photo)["present"]
        assert len(maps) == photos.dataset.tags[index].sum()
        assert np.isfinite(maps).all()
        assert not maps.size or maps.min() >= 0
    assert any(kept.get(photo)["present"].any() for photo in photos.train)


def weights_of_backbone(out: Path, stage: str, name: str) -> dict[str, Any]:
    tensors, _ = Workspace.read(out).finished(stage).load_tensors(name)
    prefix = "backbone.model."
    return {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}


@pytest.mark.parametrize("blocks", [0, 2])
def test_the_last_blocks_learn(blocks: int, vit: str, go: Any, tmp_path: Path) -> None:
    """Of the classifier and of the segmenter; what is below stays as it is in the folder."""
    options, out = replace(OPTIONS, backbone=vit), tmp_path / "run"
    go("cam_baseline", {"trained_blocks": blocks}, options=options, out=out)
    start, _, _ = pretrained_state(vit)
    start = {key.removeprefix("model."): tensor for key, tensor in start.items()}
    for stage, name in (("classifier", "classifier"), ("segmenter", "segmenter")):
        found = weights_of_backbone(out, stage, name)
        assert found.keys() == start.keys()
        moved = {key for key in found if not torch.equal(found[key], start[key])}
        assert {key.split(".")[1] for key in moved if ".attention." in key} == (
            {"3", "4"} if blocks else set()
        )
        assert any(key.startswith("layernorm.") for key in moved) == bool(blocks)
        assert not any(key.startswith("embeddings.") for key in moved)


def test_lower_layers_learn_more_slowly(vit: str, go: Any, tmp_path: Path) -> None:
    """AdamW moves weights by about the rate: three quarters of it a layer."""
    out = tmp_path / "run"
    go("cam_baseline", options=replace(OPTIONS, backbone=vit), out=out)
    start, _, _ = pretrained_state(vit)
    found = weights_of_backbone(out, "classifier", "classifier")
    moves = []
    for layer in range(5):
        keys = [key for key in found if re.match(rf"layers?\.{layer}\..*weight", key)]
        changes = [
            (found[key] - start[f"model.{key}"]).abs().mean() for key in keys if "norm" not in key
        ]
        moves.append(float(torch.stack(changes).mean()))
    rises = np.array(moves[1:]) / moves[:-1]
    assert 0.7 < (moves[0] / moves[4]) ** 0.25 < 0.85, rises


@pytest.mark.parametrize(
    ("recipe", "config", "line"),
    [
        ("cam_baseline", {"trained_blocks": 7}, "has 6 blocks, not 7; set trained_blocks to 5"),
        ("guided", {"seeder": "deeplab"}, "'deeplab' dilates .* use lowres, highres or roi"),
        ("mcof", {"seeder": "deeplab"}, "'deeplab' dilates .* use lowres, highres or roi"),
    ],
)
def test_what_cannot_be_had_shows_before_anything_is_written(
    recipe: str, config: dict[str, Any], line: str, vit: str, go: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=line):
        go(recipe, config, options=replace(OPTIONS, backbone=vit), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
