"""Every recipe on a vision transformer: it works, or one line says why it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guided_runs import MINING, RECURSION
from small_runs import DISTINCT, OPTIONS
from tagseg.errors import ConfigError
from tagseg.recipes.catalog import RECIPES
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
    again = load_segmenter(tmp_path / "run")  # without the folder of the transformer
    np.testing.assert_array_equal(again.predict(image), result.segmenter.predict(image))


@pytest.mark.parametrize("recipe", ["dcsm", "gradient_baseline"])
def test_guided_back_propagation_says_that_there_are_no_relus(
    recipe: str, vit: str, go: Any
) -> None:
    with pytest.raises(ConfigError, match=r"the backbone hf:.* has none; use plain"):
        go(recipe, MORE[recipe] | {"method": "guided"}, options=replace(OPTIONS, backbone=vit))
