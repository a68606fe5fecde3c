"""Refiners by name: one class and one registration are all that a new one takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from small_runs import OPTIONS, QUICK, changed_stages, finished_stages
from tagseg.data.masks import read_mask
from tagseg.data.scenes import SCENES, scene_dataset
from tagseg.errors import ConfigError, WeightsError
from tagseg.maps import Image, Probs, Tags, labels_of_tags
from tagseg.recipes.builtin_priors.config import Config
from tagseg.segment.predict import NOTHING, Known
from tagseg.session.export import load_segmenter
from tagseg.session.train import make_config, train
from tagseg.stages import refiners
from tagseg.stages.crf import CrfRefiner, crf_settings
from tagseg.stages.refiners import Refining, find_refiner, refiner_from, register_refiner
from tagseg.stages.settings import RefinementSettings


class Shifter:
    """Moves every label but the last to the next one: nothing that a CRF would do."""

    told: list[Tags | None] = []  # noqa: RUF012

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.by = settings["by"]

    def refine(self, image: Image, probs: Probs, known: Known = NOTHING) -> Probs:
        assert image.shape[:2] == probs.shape[1:]
        self.told.append(known.tags)
        return np.roll(probs, self.by, axis=0)


def shifted_by(settings: RefinementSettings, seed: int) -> dict[str, Any]:
    return {"by": settings.crf_iterations}


@pytest.fixture
def shifter(monkeypatch) -> Iterator[str]:
    """Registered as a module would, until the test ends."""
    monkeypatch.setattr(refiners, "_REFINERS", dict(refiners._REFINERS))
    monkeypatch.setattr(Shifter, "told", [])
    register_refiner("shifter", Refining(shifted_by, Shifter))
    return "shifter"


def config_of(**changed: Any) -> Any:
    return make_config(Config, {**QUICK, **changed})


def test_none_is_none():
    assert find_refiner(config_of(refiner="none", segmenter_regions="crisp"), 0) is None


def test_the_crf_is_one_of_them():
    config = config_of(segmenter_regions="crisp")
    found = find_refiner(config, 7)
    assert found == {"refiner": "crf", **crf_settings(config, 7)}
    assert isinstance(refiner_from(found), CrfRefiner)
    old = {name: value for name, value in found.items() if name != "refiner"}
    assert isinstance(refiner_from(old), CrfRefiner), "files of version 0.1 name none"


def test_a_new_one_by_its_name(shifter):
    found = find_refiner(RefinementSettings(refiner=shifter, crf_iterations=3), 0)
    assert found == {"refiner": "shifter", "by": 3}
    refiner = refiner_from(found)
    assert isinstance(refiner, Shifter)
    assert refiner.by == 3


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("cfr", "there is no refiner 'cfr'; did you mean crf?"),
        ("shiftre", "there is no refiner 'shiftre'; did you mean shifter?"),
        ("", "there is no refiner ''; choose one of crf, shifter, none"),
    ],
)
def test_a_name_that_there_is_not(shifter, name, line):
    """It shows when the settings are read."""
    with pytest.raises(ConfigError) as caught:
        make_config(Config, {"refiner": name})
    assert str(caught.value) == line


@pytest.fixture
def dataset() -> Any:
    return scene_dataset(SCENES, 10, height=48, width=64)[0]


def test_a_run_with_a_new_one(shifter, dataset, tmp_path):
    """Its masks, its predictions, its exported file; and the CRF's run is another."""
    out, val = tmp_path / "run", dataset.names[:3]
    config = {**QUICK, "refiner": shifter, "crf_iterations": 1}
    result = train(dataset, "cam_baseline", config, val=val, out=out, options=OPTIONS)
    photos = {name: dataset.image(i) for i, name in enumerate(dataset.names)}
    tags = dict(zip(dataset.names, dataset.tags, strict=True))
    plain, refined = result.segmenter.predict(photos[val[0]], refine=False), set()
    shifted = (plain + 1) % (len(dataset.classes) + 1)
    assert np.array_equal(result.segmenter.predict(photos[val[0]]), shifted)
    for name in dataset.names[3:]:
        probs = result.segmenter.forward(photos[name][None])[0]
        allowed = labels_of_tags(tags[name])
        expected = allowed[np.roll(probs[allowed], 1, axis=0).argmax(0)]
        found = read_mask(result.masks / f"{name}.png")
        assert (found == expected).mean() > 0.97  # batches round differently
        refined |= set(np.unique(found).tolist())
    assert len(refined) > 1
    of_training = [told for told in Shifter.told if told is not None]
    assert {told.tobytes() for told in of_training} == {
        tags[name].tobytes() for name in dataset.names[3:]
    }
    assert any(told is None for told in Shifter.told), "validation photos have no tags"
    again = load_segmenter(out, device="cpu", precision="fp32")
    assert again.refinement == {"refiner": "shifter", "by": 1}
    assert isinstance(again.refiner, Shifter)
    assert np.array_equal(again.predict(photos[val[0]]), shifted)
    before = finished_stages(out)
    train(dataset, "cam_baseline", {**config, "refiner": "crf"}, val=val, out=out, options=OPTIONS)
    assert changed_stages(before, out) == {"masks", "predictions", "findings", "export"}


def test_a_file_whose_refiner_is_not_known_here(shifter, dataset, tmp_path, monkeypatch):
    """The message says what to do: the file is whole, and training it again is no help."""
    out, config = tmp_path / "run", {**QUICK, "refiner": shifter}
    train(dataset, "cam_baseline", config, out=out, options=OPTIONS)
    monkeypatch.delitem(refiners._REFINERS, shifter)
    with pytest.raises(WeightsError, match="no refiner 'shifter'; import the module that has it"):
        refiner_from({"refiner": "shifter", "by": 1})
    with pytest.raises((ConfigError, WeightsError), match="no refiner 'shifter'; import the mod"):
        load_segmenter(out, device="cpu")
