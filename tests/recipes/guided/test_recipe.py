"""Guided segmentation as a whole: its numbers, what depends on what, and interruptions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from guided_runs import FEW, LINE, few_photos, few_runs, write_boxes, write_maps
from small_runs import (
    OPTIONS,
    changed_stages,
    contents,
    cut_short,
    finished_stages,
    options,
    same_weights,
    weights_of,
)
from tagseg import training
from tagseg.data.dataset import Dataset
from tagseg.data.masks import read_mask
from tagseg.errors import ConfigError, TagsegError
from tagseg.recipes.guided.config import Config
from tagseg.refine.component_crf import ComponentCrf
from tagseg.refine.dense_crf import CrfParameters
from tagseg.run.workspace import Workspace
from tagseg.session.export import load_segmenter
from tagseg.session.train import Result, make_config, train

Few = Callable[..., Result]


@pytest.fixture(scope="module")
def few(photos) -> Few:
    return few_runs(photos, "guided", FEW)


@pytest.fixture(scope="module")
def files(photos, tmp_path_factory) -> dict[str, str]:
    """Maps and boxes, as the configuration names them."""
    folder, few = tmp_path_factory.mktemp("files"), few_photos(photos)
    maps = few.without(photos.val[:2])  # there need be none of photos for validation
    return {
        "saliency_maps": str(write_maps(folder / "maps", maps, photos)),
        "boxes": str(write_boxes(folder / "boxes")),
    }


# Numbers


def test_the_papers_numbers():
    config = Config()
    assert (config.guide, config.seeder, config.seed_threshold) == ("g2", "highres", 0.2)
    assert (config.saliency_threshold, config.min_component, config.min_seed) == (0.5, 0.01, 25)
    assert (config.crf_seed, config.crf_loss) == (False, False)
    assert (config.crf_bilateral, config.crf_smoothness) == ((4.0, 121.0, 5.0), (3.0, 3.0))
    crf = CrfParameters((4.0, 121.0, 5.0), (3.0, 3.0), 10, 500, "lattice")
    assert config.component_crf() == ComponentCrf(crf, sigma=10.0)
    assert (config.segmenter_unary, config.refiner) == ("log", "crf")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"guide": "g3"}, "guide is 'g3'; "),
        ({"seeder": "vgg"}, "seeder is 'vgg'; "),
        ({"saliency": "grabcut"}, "saliency is 'grabcut'; "),
        ({"without_rise": "none"}, "without_rise is 'none'; "),
        ({"seed_threshold": 0.0}, "seed_threshold is 0.0; use over 0, up to 1"),
        ({"saliency_threshold": 1.5}, "saliency_threshold is 1.5; use over 0, up to 1"),
        ({"saliency_threshold": float("nan")}, "saliency_threshold is "),
        ({"min_component": 1.0}, "min_component is 1.0; use 0 to below 1"),
        ({"min_seed": -1}, "min_seed is -1; use 0 or more"),
        ({"share_sigma": 0.0}, "share_sigma is 0.0; use a value over 0"),
        ({"share_bilateral": (4.0, 0.0, 5.0)}, "share_bilateral is 4,0,5; use values over 0"),
        ({"saliency_iterations": 0}, "saliency_iterations is 0; use a value over 0"),
        ({"saliency_epochs": 0.0}, "saliency_epochs is 0.0; use a value over 0"),
        ({"seeder_side": 8}, "seeder_side is 8; use 16 or more"),
    ],
)
def test_numbers_that_make_no_sense(values, line):
    for make in (lambda: make_config(Config, values), lambda: Config(**values)):
        with pytest.raises(ConfigError) as caught:
            make()
        assert str(caught.value).startswith(line)


# Runs


CHOICES: dict[str, tuple[dict[str, Any], set[str], list[str]]] = {
    "seeds": ({}, {"seeder", "location-maps", "val-location-maps"}, ["seeder"]),
    "g0": ({"saliency": "activations"}, {"activation-prior"}, []),
    "g1": ({"boxes": "boxes"}, {"box-masks", "saliency-net", "saliency", "classifier"}, []),
    "g2": (
        {"saliency_maps": "saliency_maps"},
        {"saliency", "seeder", "location-maps", "val-location-maps"},
        ["seeder"],
    ),
}
LATER = {"guide-labels", "segmenter", "masks", "predictions", "findings", "export"}


def config_of(files: dict[str, str], guide: str) -> dict[str, Any]:
    given = {name: files.get(value, value) for name, value in CHOICES[guide][0].items()}
    return {"guide": guide, "saliency_iterations": 3, **given}


@pytest.fixture(scope="module")
def runs(few, files, tmp_path_factory) -> Callable[[str], Result]:
    made: dict[str, Result] = {}

    def run(guide: str) -> Result:
        if guide not in made:
            out = tmp_path_factory.mktemp("runs") / guide
            made[guide] = few(config_of(files, guide), out)
        return made[guide]

    return run


@pytest.mark.parametrize("guide", CHOICES)
def test_stages_and_predictions(runs, guide):
    result, (_, stages, seeders) = runs(guide), CHOICES[guide]
    assert set(finished_stages(result.folder)) == stages | LATER
    titles = [score.stage for score in result.scores]
    expected = {
        "seeds": ["seeds"],
        "g0": ["salient regions", "guide labels (G0)"],
        "g1": ["salient regions", "guide labels (G1)"],
        "g2": ["seeds", "salient regions", "guide labels (G2)"],
    }[guide]
    last = ["masks of the photos (known tags)", "segmenter", "segmenter + CRF"]
    assert titles == expected + last
    about = json.loads((result.folder / "run.json").read_text())
    assert about["curves"][-1] == "segmenter"
    assert [name for name in about["curves"] if name == "seeder"] == seeders
    assert ("saliency-net" in about["curves"]) == (guide == "g1")
    rows = Workspace.read(result.folder).finished("findings").load_json("seeds")
    methods = ["seeder (highres)", "centre mean shape"] if seeders else []
    assert [row["method"] for row in rows or []] == methods


def test_a_photo_of_one_row_has_a_mask(runs):
    assert read_mask(runs("g2").masks / f"{LINE}.png").shape == (1, 40)


def test_the_exported_file_keeps_the_margin(runs):
    loaded = load_segmenter(runs("g2").folder, device="cpu", precision="fp32")
    assert loaded.net.margin == runs("g2").segmenter.net.margin == 8
    image = np.random.default_rng(0).integers(0, 256, (41, 57, 3), np.uint8)
    np.testing.assert_array_equal(loaded.predict(image), runs("g2").segmenter.predict(image))


def test_photos_of_nothing_at_all():
    """Nothing is tagged: no guide finds anything, and nothing breaks."""
    images = [np.random.default_rng(i).integers(0, 256, (40, 56, 3), np.uint8) for i in range(3)]
    bare = Dataset.from_arrays(images, np.zeros((3, 2), bool), ("cat", "dog"))
    for guide in ("g1", "g2"):
        result = train(bare, "guided", {**FEW, "guide": guide}, options=OPTIONS)
        for name in bare.names:
            assert not read_mask(result.masks / f"{name}.png").any()


# What depends on what


def test_changed_and_moved_files(runs, few, files, tmp_path):
    """What is in them counts, and where they lie does not."""
    for guide, name, expected in (
        ("g2", "saliency_maps", {"saliency"} | LATER),
        ("g1", "boxes", {"box-masks", "saliency-net", "saliency"} | LATER),
    ):
        folder = Path(shutil.copytree(runs(guide).folder, tmp_path / guide))
        given = Path(files[name])
        there = tmp_path / f"{name} elsewhere"
        shutil.copytree(given if given.is_dir() else given.parent, there)
        path = there if given.is_dir() else there / given.name
        config = {**config_of(files, guide), name: str(path)}
        before = finished_stages(folder)
        few(config, folder)
        assert changed_stages(before, folder) == set()
        if given.is_dir():
            grey = PilImage.fromarray(np.tile(np.arange(40, dtype=np.uint8), (1, 1)))
            grey.save(path / f"{LINE}.png")
        else:
            lines = path.read_text().splitlines()
            path.write_text("\n".join(lines[:-1]))  # one annotator fewer
        few(config, folder)
        assert changed_stages(before, folder) == expected


def test_a_rerun_gives_what_a_fresh_run_gives(runs, few, files, tmp_path):
    folder = Path(shutil.copytree(runs("g2").folder, tmp_path / "run"))
    config = {**config_of(files, "g2"), "saliency_threshold": 0.3}
    again, fresh = few(config, folder), few(config, tmp_path / "fresh")
    assert same_weights(weights_of(again), weights_of(fresh))
    assert contents(again.masks) == contents(fresh.masks)


# Interrupted

CUT = {  # what is called for each photo or iteration of a stage
    "g1": {
        "box-masks": "tagseg.stages.box_saliency.object_mask",
        "saliency-net": "tagseg.stages.box_saliency.grid_cross_entropy",
        "saliency": "tagseg.stages.box_saliency.levels",
        "guide-labels": "tagseg.recipes.guided.guides.score_changes",
    },
    "g2": {
        "seeder": "tagseg.localize.classifier.multi_label_loss",
        "guide-labels": "tagseg.recipes.guided.guides.seed_guide",
        "segmenter": "tagseg.losses.pixel._mean_over",
    },
}


@pytest.mark.parametrize("guide", CUT)
def test_interrupted_in_each_stage(runs, few, files, tmp_path, monkeypatch, guide):
    """Cut short again and again, later each time, it ends as the undisturbed run."""
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY", 0.0)
    folder, config = tmp_path / "run", config_of(files, guide)
    for stage, function in CUT[guide].items():
        done = finished_stages(folder)
        cut_short(lambda: few(config, folder), folder, stage, function)
        (at_work,) = folder.glob("stages/*/started.json")
        assert at_work.parent.name[3:] == stage
        assert all(finished_stages(folder)[name] == at for name, at in done.items())
    result = few(config, folder)
    expected = runs(guide)
    assert same_weights(weights_of(result), weights_of(expected))
    assert contents(result.masks) == contents(expected.masks)
    for name in ("saliency-net", "seeder", "classifier"):
        if name in finished_stages(folder):
            ours, theirs = (
                next(run.folder.glob(f"stages/*-{name}/*.safetensors")).read_bytes()
                for run in (result, expected)
            )
            assert ours == theirs


# What cannot be


def test_random_weights_and_low_precision(few, files):
    config, how = (
        {**config_of(files, "g1"), "crf_loss": True},
        options(weights="none", precision="bf16"),
    )
    result = few(config, options=how, val=(), ground_truth=None)
    assert all(torch.isfinite(tensor).all() for tensor in weights_of(result).values())


def test_a_missing_folder_or_file_shows_before_training(few, tmp_path):
    for name, line in (
        ("saliency_maps", "this folder does not exist"),
        ("boxes", "cannot be read"),
    ):
        folder = tmp_path / name
        with pytest.raises(TagsegError, match=line):
            few({name: str(tmp_path / "no such thing")}, folder)
        assert finished_stages(folder) == {}
