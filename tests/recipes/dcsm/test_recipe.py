"""The recipe of distinct class saliency maps, from photos to masks of new photos."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from small_runs import (
    DISTINCT,
    GREY,
    N_TRAIN,
    NEGATIVE,
    OPTIONS,
    QUICK,
    UNKNOWN,
    contents,
    cut_short,
    finished_stages,
    options,
    same_weights,
    weights_of,
)
from tagseg import training
from tagseg.data.masks import decode_mask
from tagseg.data.working import WorkingPhotos
from tagseg.errors import ConfigError
from tagseg.localize.dcsm import DcsmSettings
from tagseg.maps import labels_of_tags
from tagseg.recipes.dcsm.config import Config
from tagseg.run.workspace import Stage, Workspace
from tagseg.segment.predict import Segmenter
from tagseg.session.export import load_segmenter
from tagseg.session.train import Result, make_config, make_setup, train
from tagseg.stages.distinct_segmenter import DistinctSegmenter

TRAINED = {**DISTINCT, "segmenter": "trained"}
SIDE = 64


@pytest.fixture(scope="module")
def runs(go, tmp_path_factory) -> dict[str, Result]:
    folder = tmp_path_factory.mktemp("runs")
    chosen = {"none": DISTINCT, "trained": TRAINED}
    return {name: go("dcsm", config, out=folder / name) for name, config in chosen.items()}


Few = Callable[..., Result]


@pytest.fixture(scope="module")
def few(photos) -> Few:
    """Train on six photos, with two for validation."""
    names = (*photos.train[:6], *photos.val[:2])
    dataset = photos.dataset.select(names)

    def run(config: dict[str, Any], out: Path | None = None, **changed: Any) -> Result:
        usual = {"val": names[6:], "ground_truth": photos.truth(), "options": OPTIONS}
        values = {**QUICK, **DISTINCT, "classifier_iterations": 6, "upper_iterations": 5, **config}
        return train(dataset, "dcsm", values, out=out, **{**usual, **changed})

    return run


@pytest.fixture(scope="module")
def finished(few, tmp_path_factory) -> Path:
    return few({}, out=tmp_path_factory.mktemp("few") / "run").folder


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    """A copy of the finished run of few photos."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def working(photos: Any, split: str) -> WorkingPhotos:
    names = photos.train if split == "train" else photos.val
    return WorkingPhotos(photos.dataset.select(names), SIDE)


def stage_of(result: Result, name: str) -> Stage:
    return Workspace.read(result.folder).finished(name)


# What there is


@pytest.mark.parametrize(
    ("segmenter", "stages", "curves"),
    [("none", set(), ["classifier"]), ("trained", {"segmenter"}, ["classifier", "segmenter"])],
)
def test_stages_predictions_and_seeds(runs, segmenter, stages, curves):
    result = runs[segmenter]
    predicted = "segmenter" if segmenter == "trained" else "distinct maps, tags unknown"
    first = {"classifier-upper", "classifier", "distinct-maps", "training-masks"}
    last = {"masks", "predictions", "val-distinct-maps", "findings", "export"}
    assert set(finished_stages(result.folder)) == first | stages | last
    assert [(score.stage, score.split) for score in result.scores] == [
        ("distinct maps", "train"),
        ("distinct maps + CRF", "train"),
        ("masks of the photos (known tags)", "train"),
        (predicted, "val"),
        (f"{predicted} + CRF", "val"),
    ]
    about = json.loads((result.folder / "run.json").read_text())
    assert about["curves"] == curves
    rows = stage_of(result, "findings").load_json("seeds")
    assert [(row["method"], row["split"]) for row in rows] == [
        ("distinct class saliency", "val"),
        ("distinct class saliency + CRF", "val"),
        ("centre mean shape", "val"),
    ]
    page = result.report.read_text()
    assert "distinct class saliency" in page
    assert isinstance(result.segmenter, DistinctSegmenter) == (segmenter == "none")


def test_maps_of_training_photos_are_of_the_known_tags(runs, photos):
    """Those of a photo with unknown tags are of the classes that the classifier finds in it."""
    result, part = runs["none"], working(photos, "train")
    store = stage_of(result, "distinct-maps").maps("score-maps")
    seeder = result.segmenter.seeder
    for index in (0, 1, 2, 5, GREY, NEGATIVE, UNKNOWN):
        image = part.image(index)
        tags = None if index == UNKNOWN else part.tags[index]
        expected = seeder(image, tags).score_map
        kept = store.get(part.names[index])
        assert kept["present"].tolist() == expected.any((1, 2)).tolist()
        np.testing.assert_allclose(kept["scores"], expected[kept["present"]], atol=1e-3)
        assert tags is None or not kept["present"][~tags].any()
    assert store.get(part.names[NEGATIVE])["scores"].shape[0] == 0
    assert store.get(part.names[0])["present"].any()


def test_a_photo_of_unknown_tags_with_a_class_in_it(go, photos):
    """Its masks hold what the classifier finds, and only of it."""
    known = photos.dataset.known.copy()
    known[:6] = False
    tags = photos.dataset.tags & known[:, None]
    untold = replace(photos.dataset, tags=tags, known=known)
    config = {**QUICK, **DISTINCT}
    result = train(untold, "dcsm", config, options=OPTIONS)
    part = WorkingPhotos(untold, SIDE)
    found = set()
    for index in range(6):
        targets = result.segmenter.seeder(part.image(index)).classes.targets
        mask = decode_mask((result.masks / f"{part.names[index]}.png").read_bytes())
        assert set(np.unique(mask)) <= set(labels_of_tags(targets))
        found |= set(np.unique(mask))
    assert found - {0}


def test_masks_by_tags_or_by_what_the_classifier_finds(runs, go, photos, tmp_path):
    """Without ``masks_by_tags`` the photos' masks are those of new photos."""
    result = go("dcsm", {**DISTINCT, "masks_by_tags": False}, out=tmp_path / "run")
    differ = 0
    for index in (0, 1, 2, 3, 8):
        image, name = photos.dataset.image(index), photos.train[index]
        mask = decode_mask((result.masks / f"{name}.png").read_bytes())
        assert np.array_equal(mask, runs["none"].segmenter.predict(image))
        differ += (mask != decode_mask((runs["none"].masks / f"{name}.png").read_bytes())).sum()
    assert differ > 0


# New photos


@pytest.mark.parametrize("segmenter", ["none", "trained"])
def test_the_exported_file_predicts_as_the_run_does(runs, photos, tmp_path, segmenter):
    result = runs[segmenter]
    file = next(result.folder.glob("stages/*-export/segmenter.safetensors"))
    alone = tmp_path / "model.safetensors"
    shutil.copy(file, alone)
    loaded = load_segmenter(alone, device="cpu", precision="fp32")
    assert type(loaded) is (DistinctSegmenter if segmenter == "none" else Segmenter)
    assert loaded.classes == photos.dataset.classes
    rng = np.random.default_rng(0)
    new = [photos.dataset.image(i) for i in (N_TRAIN, N_TRAIN + 1, N_TRAIN + 3, N_TRAIN + 6)]
    new += [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in ((1, 1), (200, 31), (7, 90))]
    for image in new:
        assert np.array_equal(loaded.predict(image), result.segmenter.predict(image))
        both = (s.predict(image, refine=False) for s in (loaded, result.segmenter))
        assert np.array_equal(*both)


def test_new_photos_have_the_classes_that_the_classifier_finds(runs, photos):
    result, part = runs["none"], working(photos, "val")
    store = stage_of(result, "predictions").maps("raw")
    numbers, crf_moved = set(), 0
    for index, name in enumerate(part.names):
        image = part.image(index)
        found = result.segmenter.seeder(image)
        raw = decode_mask(store.get_bytes(name))
        expected = np.concatenate((1 - found.score_map.max(0, keepdims=True), found.score_map))
        assert np.array_equal(raw, expected.argmax(0))
        smooth = result.segmenter.predict(image)
        assert set(np.unique(smooth)) <= set(labels_of_tags(found.classes.targets))
        crf_moved += (smooth != raw).sum()
        numbers.add(int(found.classes.targets.sum()))
        if not found.classes.targets.any():
            assert not raw.any()
            assert not smooth.any()
    assert min(numbers) == 0, "DISTINCT is to have both cases"
    assert max(numbers) >= 2, "DISTINCT is to have both cases"
    assert crf_moved > 0


def test_a_photo_in_which_nothing_is_found_is_background(few):
    result = few({"candidate_threshold": 0.9}, val=(), ground_truth=None)
    image = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
    probs = result.segmenter.probabilities(image)
    assert (probs[0] == 1).all()
    assert not probs[1:].any()
    assert not result.segmenter.predict(image).any()


# What depends on what


AFTER_MASKS = {"training-masks", "masks", "predictions", "findings", "export"}
AFTER_MAPS = {"distinct-maps", "val-distinct-maps"} | AFTER_MASKS
AFTER_CLASSIFIER = {"classifier"} | AFTER_MAPS
ALL = {"classifier-upper"} | AFTER_CLASSIFIER


def rerun(folder: Path, few: Few, config: dict[str, Any]) -> tuple[set[str], Result]:
    """The stages that ran."""
    before = finished_stages(folder)
    result = few(config, folder)
    after = finished_stages(folder)
    return {n for n in after if after[n] != before.get(n)}, result


def must_not(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("maps were made again")


def stand_in(self: DistinctSegmenter, images: np.ndarray) -> np.ndarray:
    """Predictions need maps; here it is of no matter which."""
    return np.full((len(images), len(self.classes) + 1, *images.shape[1:3]), 0.1, np.float32)


def test_a_rerun_gives_what_a_fresh_run_gives(folder, few, tmp_path):
    rerun(folder, few, {"alpha": 1.5})
    fresh = few({"alpha": 1.5}, tmp_path / "fresh")
    assert results(folder) == results(fresh.folder)


def test_networks_from_random_weights_are_trained_as_a_whole(few, tmp_path):
    random = {"out": tmp_path / "run", "options": options(weights="none")}
    result = few({}, **random)
    assert set(finished_stages(result.folder)) == ALL - {"classifier-upper"}
    again = few({"upper_iterations": 7}, **random)
    assert same_weights(weights_of(again), weights_of(result))


def test_the_first_phase_leaves_the_backbone_and_the_second_moves_it(runs):
    upper, whole = (
        stage_of(runs["none"], name).load_tensors("classifier")[0]
        for name in ("classifier-upper", "classifier")
    )
    begun = make_setup(OPTIONS).build_backbone(Config()).state_dict()
    for name, tensor in begun.items():
        assert torch.equal(upper[f"backbone.{name}"], tensor), name
    kernel = "backbone.block5.conv2.weight"
    assert not torch.equal(whole[kernel], upper[kernel])
    assert not torch.equal(upper["score.weight"], whole["score.weight"])


# Interrupted


ONE_OF = {  # what is called for each photo or iteration of a stage
    "classifier-upper": "tagseg.localize.classifier.multi_label_loss",
    "classifier": "tagseg.localize.classifier.multi_label_loss",
    "distinct-maps": "tagseg.localize.seeds.distinct_score_map",
    "training-masks": "tagseg.stages.distinct_segmenter.refine",
    "masks": "tagseg.stages.distinct_segmenter.refine",
    "predictions": "tagseg.stages.segmenter.encode_mask",
    "val-distinct-maps": "tagseg.localize.seeds.distinct_score_map",
}


def test_interrupted_in_each_stage(finished, few, tmp_path, monkeypatch):
    """One run that is cut short again and again, later each time, ends as the undisturbed one."""
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY", 0.0)
    folder = tmp_path / "run"
    for stage, function in ONE_OF.items():
        done = finished_stages(folder)
        cut_short(lambda: few({}, folder), folder, stage, function)
        (at_work,) = folder.glob("stages/*/started.json")
        assert at_work.parent.name[3:] == stage
        assert all(finished_stages(folder)[name] == at for name, at in done.items())
    few({}, folder)
    assert results(folder) == results(finished)


def results(run: Path) -> dict[str, Any]:
    """What a run is for, to the byte; stores by content."""
    work = Workspace.read(run)
    found: dict[str, Any] = {"masks": contents(work.finished("masks").folder / "masks")}
    for name in ("classifier-upper", "classifier"):
        stage = work.finished(name)
        found[name] = (stage.folder / "classifier.safetensors").read_bytes()
        found[f"{name}, log"] = [
            {k: v for k, v in line.items() if k not in ("seconds", "rate")}
            for line in stage.read_log()
        ]
    found["export"] = (work.finished("export").folder / "segmenter.safetensors").read_bytes()
    for stage, store in (
        ("distinct-maps", "score-maps"),
        ("val-distinct-maps", "score-maps"),
        ("training-masks", "labels"),
        ("predictions", "raw"),
        ("predictions", "smooth"),
    ):
        found[f"{stage}, {store}"] = work.finished(stage).maps(store).digest()
    found["findings"] = work.finished("findings").load_json("seeds")
    work.close()
    return found


# Numbers


def test_the_papers_numbers():
    config = Config()
    assert config.equations() == DcsmSettings()
    assert (config.blocks, config.method, config.batch_scale) == ((3, 4, 5), "guided", (0.7, 1.4))
    crf = config.crf()
    assert (crf.bilateral, crf.smoothness) == ((1.0, 30.0, 10.0), (1.0, 3.0))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"alpha": 0.0}, "alpha is 0.0; use a value over 0"),
        ({"scales": (0.0,)}, "scales is 0; use values over 0"),
        ({"scales": ()}, "DCSM: scales is (); give one factor over 0 or more"),
        ({"min_candidates": -1}, "min_candidates is -1; use 0 or more"),
        ({"candidate_threshold": 1.5}, "candidate_threshold is 1.5; use 0 to 1"),
        ({"variant": "code", "normalise": "none"}, "DCSM: normalise is 'none'; the variant code"),
        ({"blocks": (7,)}, "blocks is (7,); use some of 0, 1, 2, 3, 4, 5"),
        ({"blocks": ()}, "blocks is (); use some of 0, 1, 2, 3, 4, 5"),
        ({"square": 8}, "square is 8; use 16 or more"),
        ({"classifier_stride": 7}, "classifier_stride is 7; use 8, 16, 32 or none"),
        ({"batch_scale": (1.4, 0.7)}, "batch_scale is (1.4, 0.7); give two factors, the smaller"),
        ({"batch_scale": (0.0, 1.0)}, "batch_scale is 0,1; use values over 0"),
        ({"upper_iterations": 0}, "upper_iterations is 0; use a value over 0"),
        ({"upper_epochs": 0.0}, "upper_epochs is 0.0; use a value over 0"),
        ({"map_bilateral": (1.0, 0.0, 10.0)}, "map_bilateral is 1,0,10; use values over 0"),
        ({"method": "foo"}, "method is 'foo'; "),
        ({"segmenter": "foo"}, "segmenter is 'foo'; "),
        ({"segmenter_regions": "crisp"}, "segmenter_regions needs a segmenter; set segmenter=tra"),
    ],
)
def test_numbers_that_make_no_sense(values, line):
    for make in (lambda: make_config(Config, values), lambda: Config(**values)):
        with pytest.raises(ConfigError) as caught:
            make()
        assert str(caught.value).startswith(line)
