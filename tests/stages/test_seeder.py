"""The seeders' form and training."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

from guided_runs import FEW, few_photos, open_run
from tagseg.data.transforms import Augmentation
from tagseg.nets.gap import SEEDERS
from tagseg.recipes.guided.config import Config
from tagseg.session.train import make_config
from tagseg.stages import seeder as gap_seeds
from tagseg.stages.classifier import classifier_scores, location_maps
from tagseg.stages.schedules import gap_schedule
from tagseg.stages.seeder import SeederMaps, seeder_side, trained_seeder
from tagseg.stages.shapes import view_scale
from tagseg.stages.stage import Trained


def config_of(**changed: Any) -> Any:
    return make_config(Config, {**FEW, **changed})


@pytest.fixture
def run(photos, tmp_path):
    with open_run(few_photos(photos), tmp_path / "run") as run:
        yield run


@pytest.fixture
def given(monkeypatch) -> list[dict[str, Any]]:
    """What would be trained, and no training."""
    calls: list[dict[str, Any]] = []

    def remember(run, declared, net, fit, schedule, *, settings, inputs, title):
        assert inputs == []  # tags are complete
        form, how = settings
        calls.append(
            {
                "net": net,
                "fit": fit,
                "schedule": schedule,
                "form": asdict(form),
                "how": how,
                "name": declared.name,
                "title": title,
            }
        )
        return Trained(net, None)

    monkeypatch.setattr(gap_seeds, "trained", remember)
    return calls


@pytest.mark.parametrize("seeder", SEEDERS)
def test_each_seeder_is_trained_as_the_authors_do(run, given, seeder):
    """Crops of at least 80 % a side, mirrored to a square, flips; a stage of its own name."""
    config = config_of(seeder_side=321, classifier_width=None)
    trained_seeder(run, config, seeder)
    (call,) = given
    assert call["how"] == Augmentation((321, 321), letterbox="reflect", edges=0.1)
    assert call["schedule"] == gap_schedule(config, run.setup, len(run.photos))
    assert (call["name"], call["title"]) == ("seeder", f"the seeder ({seeder})")
    assert call["form"] == {
        "seeder": seeder,
        "classifier_width": None,
        "scale_field_of_view": True,
    }
    assert call["net"].scores.in_features == 256
    assert call["fit"].args == (call["net"], run.photos, call["how"], call["schedule"])
    assert call["net"].backbone.output_stride == SEEDERS[seeder].output_stride
    assert call["net"].scores.out_features == len(run.photos.classes)


@pytest.mark.parametrize(
    ("config", "scale", "dilation"),
    [
        ({"seeder_side": 321}, 1.0, 12),
        ({"seeder_side": 161}, 0.502, 6),
        ({"seeder_side": 64}, 0.199, 2),
        ({"seeder_side": 64, "scale_field_of_view": False}, 1.0, 12),
        ({"seeder_side": 642}, 1.0, 12),
    ],
)
def test_dilations_are_for_photos_of_321_pixels(run, given, config, scale, dilation):
    made = config_of(**config)
    trained_seeder(run, made, "deeplab")
    (call,) = given
    side = made.seeder_side
    assert view_scale(made, [(side, side)], reference=321) == scale
    assert call["form"]["scale_field_of_view"] == config.get("scale_field_of_view", True)
    assert call["net"].hidden[0].dilation == (dilation, dilation)


@pytest.mark.parametrize(
    ("photo_side", "given", "expected"),
    [(64, None, 96), (200, None, 300), (300, None, 321), (300, 500, 500), (64, 32, 32)],
)
def test_photos_are_enlarged_to_at_most_the_papers_321(
    photos, tmp_path, given, photo_side, expected
):
    big = np.zeros((200, 400, 3), np.uint8)
    dataset = replace(few_photos(photos).subset([0]), sources=(big,))
    with open_run(dataset, tmp_path / "run", side=photo_side) as run:
        found = seeder_side(run, config_of(photo_side=photo_side, seeder_side=given))
    assert found == expected


@pytest.mark.parametrize("seeder", SEEDERS)
def test_it_learns_from_odd_photos_and_gives_maps_of_them(run, seeder):
    """One row of pixels, a grey one, one without tags, an unknown one."""
    config = config_of(classifier_iterations=2)
    trained = trained_seeder(run, config, seeder)
    assert not trained.model.training
    maps_of = location_maps(run, config, trained, side=config.seeder_side)
    for index in range(len(run.photos)):
        maps = maps_of(index)
        assert maps.shape[1:] == run.photos.image(index).shape[:2]
        assert np.isfinite(maps).all()
        assert not maps[~run.photos.tags[index]].any()


def must_not(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("trained again")


def test_finished_weights_are_read_back(run, monkeypatch):
    first = trained_seeder(run, config_of(), "highres")
    kept = first.model.state_dict()
    monkeypatch.setattr(gap_seeds, "train_tag_classifier", must_not)
    again = trained_seeder(run, config_of(), "highres")
    assert again.stage is first.stage
    assert again.model is not first.model
    assert all(torch.equal(tensor, again.model.state_dict()[name]) for name, tensor in kept.items())


def test_a_seeder_with_its_maps(photos, tmp_path):
    """Maps of both splits at the side that it sees, what the report shows of them, and scores."""
    config = config_of(seeder_side=48)
    with open_run(few_photos(photos), tmp_path / "run", val=photos.val[:2]) as run:
        found = SeederMaps(run, config, "roi", 0.4)
        trained = trained_seeder(run, config, "roi")
        assert (found.side, found.seeder.stage) == (48, trained.stage)
        expected = location_maps(run, config, trained, side=48)
        assert found.maps.stage is expected.stage
        for index in range(len(run.photos)):
            np.testing.assert_array_equal(found.maps(index), expected(index))
        title, show = found.view
        assert title == "seeder's class maps"
        assert show(1).shape == run.photos.image(1).shape
        (seeds,) = found.seeds
        assert (seeds.id, seeds.method, seeds.threshold) == ("seeder", "seeder (roi)", 0.4)
        of_val = seeds.maps_of("val")
        val = run.split("val").photos
        assert of_val.stage.name == "val-location-maps"
        assert of_val(0).shape == (len(val.classes), *val.image(0).shape[:2])
        assert found.tag_scores is not None
        scores = classifier_scores(run, trained.model, val, side=48)
        np.testing.assert_array_equal(found.tag_scores(), scores)
        assert SeederMaps(replace(run, val=None), config, "roi", 0.4).tag_scores is None
