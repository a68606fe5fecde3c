"""What holds for every recipe: each one in the catalog is trained on the same small photos."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from guided_runs import MINING, RECURSION, write_boxes, write_maps
from small_runs import (
    DISTINCT,
    N_TRAIN,
    N_VAL,
    OPTIONS,
    UNKNOWN,
    WEIGHED,
    Photos,
    changed_stages,
    contents,
    finished_stages,
    quick,
    same_weights,
    times,
    weights_of,
)
from tagseg.data.masks import decode_mask, read_mask, voc_palette
from tagseg.data.working import WorkingPhotos
from tagseg.errors import ConfigError
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.localize.backprop import ClassSaliency
from tagseg.maps import IGNORE, Labels, labels_of_tags
from tagseg.recipes.catalog import RECIPES
from tagseg.run.plan import Plan
from tagseg.run.progress import Progress
from tagseg.run.workspace import Workspace
from tagseg.segment.predict import Segmenter
from tagseg.session.export import load_segmenter
from tagseg.session.scoring import key_of_truth
from tagseg.session.train import Result, check_data, make_config, make_setup
from tagseg.stages.distinct_segmenter import DistinctSegmenter
from tagseg.stages.recipe import Recipe
from tagseg.training import Checkpoint

CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in RECIPES}
CASES |= {
    f"builtin_priors, {masks}": ("builtin_priors", {"masks": masks})
    for masks in ("none", "foreground", "localization")
}
CASES["builtin_priors, no CRF"] = ("builtin_priors", {"refiner": "none", "mask_crf": False})
CASES["builtin_priors, any label, no regions"] = (
    "builtin_priors",
    {"masks_by_tags": False, "mask_regions": "none"},
)
CASES["builtin_priors, regions after the segmenter"] = (
    "builtin_priors",
    {"segmenter_regions": "crisp"},
)
CASES["dcsm"] = ("dcsm", DISTINCT)
SMALL = {"seeder_side": 64}
CASES["guided"], CASES["sec"] = ("guided", SMALL), ("sec", SMALL)
CASES["guided, seeds, all CRFs"] = (
    "guided",
    {**SMALL, "guide": "seeds", "seeder": "deeplab", "crf_seed": True, "crf_loss": True},
)
CASES["guided, G0, activations"] = ("guided", {"guide": "g0", "saliency": "activations"})
CASES["guided, G1, maps"] = ("guided", {"guide": "g1", "saliency_maps": "maps"})
CASES["guided, G2, boxes"] = (
    "guided",
    {**SMALL, "guide": "g2", "boxes": "boxes", "saliency_iterations": 2},
)
CASES["mcof"] = ("mcof", {**SMALL, **MINING})
CASES["mcof, without RegionNet later and without saliency"] = (
    "mcof",
    {**SMALL, **MINING, "mining": False, "supplement": False, "start": "cold"},
)
CASES["coarse_to_fine"] = ("coarse_to_fine", RECURSION)
CASES["coarse_to_fine, from coarse masks, nothing between, cold"] = (
    "coarse_to_fine",
    {**RECURSION, "initial": "coarse", "between": "nothing", "start": "cold"},
)
CASES["coarse_to_fine, from boxes, rules between, known tags"] = (
    "coarse_to_fine",
    {**RECURSION, "initial": "boxes", "between": "rules", "masks_by_tags": True},
)
CASES["coarse_to_fine_foreground"] = ("coarse_to_fine_foreground", RECURSION)
CASES["coarse_to_fine_foreground, deeplab, maps"] = (
    "coarse_to_fine_foreground",
    {**RECURSION, "network": "deeplab", "saliency": "auto", "saliency_maps": "maps"},
)
CASES["union"] = ("union", WEIGHED)
CASES["union, given maps, published segmenter"] = (
    "union",
    {**WEIGHED, "saliency_maps": "maps", "objects": "given", "segmenter": "published"},
)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_choice_is_one_of_a_few_words(recipe: Recipe):
    """Of every field that is one; what a word asks for beside it may be missing."""
    hints = get_type_hints(recipe.config)
    choices = {name: get_args(kind) for name, kind in hints.items() if get_origin(kind) is Literal}
    assert len(choices) > 3
    for name, words in choices.items():
        said = f"; use {', '.join(words[:-1])} or {words[-1]}"
        for wrong in ("teapot", "", words[0].upper(), None, 0):
            with pytest.raises(ConfigError) as caught:
                recipe.config(**{name: wrong})
            assert str(caught.value) == f"{name} is {wrong!r}{said}"
        for word in words:
            try:
                found, told = getattr(recipe.config(**{name: word}), name), ""
            except ConfigError as error:
                found, told = word, str(error)
            assert found == word
            assert said not in told
    for name in hints.keys() - choices.keys():
        kind = hints[name]
        assert "Literal" not in str(kind) or get_origin(kind) is ClassVar, f"{name} is unchecked"


class LateTruth(GroundTruth):
    """Ground truth that nobody may read before the masks of all photos are finished."""

    def __init__(self, source: Any, classes: Any, run: Path) -> None:
        super().__init__(source, classes)
        self.run = run

    def labels(self, name: str, shape: tuple[int, int]) -> Labels:
        assert {"predictions", "masks"} <= finished_stages(self.run).keys(), "read before scoring"
        return super().labels(name, shape)


class Tomorrow(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime.now(tz) + timedelta(days=1)


@dataclass(frozen=True)
class Finished:
    recipe: str
    config: dict[str, Any]
    result: Result
    photos: Photos

    @property
    def weakly(self) -> bool:
        return self.recipe != "full_supervision"

    @property
    def classes(self) -> tuple[str, ...]:
        """That the segmenter tells apart."""
        any_class = self.recipe == "coarse_to_fine_foreground"
        return ("foreground",) if any_class else self.photos.dataset.classes

    @property
    def by_tags(self) -> bool:
        """Whether masks hold known tags only."""
        default = getattr(RECIPES[self.recipe].config, "masks_by_tags", False)
        return bool(self.config.get("masks_by_tags", default))

    @property
    def truth(self) -> GroundTruth:
        """Of the labels that the segmenter tells apart."""
        if len(self.classes) > 1:
            return self.photos.truth()
        either = {
            name: np.where((labels > 0) & (labels < IGNORE), np.uint8(1), labels)
            for name, labels in self.photos.labels.items()
        }
        return GroundTruth(either, self.classes)


def with_files(config: dict[str, Any], photos: Photos, folder: Path) -> dict[str, Any]:
    """Fields that name files, and the files."""
    made: dict[str, Any] = {}
    if "boxes" in config:
        made["boxes"] = str(write_boxes(folder / "boxes"))
    if "saliency_maps" in config:
        made["saliency_maps"] = str(write_maps(folder / "maps", photos.dataset, photos))
    return {**config, **made}


@pytest.fixture(scope="module", params=CASES)
def run(request, photos, go, tmp_path_factory) -> Finished:
    recipe, config = CASES[request.param]
    config = with_files(config, photos, tmp_path_factory.mktemp("files"))
    out = tmp_path_factory.mktemp("runs") / "run"
    weakly = recipe != "full_supervision"
    truth = photos.truth(LateTruth, out) if weakly else photos.truth()
    return Finished(recipe, config, go(recipe, config, ground_truth=truth, out=out), photos)


def test_a_plan_has_the_keys_of_the_run(run):
    """So what tests of plans prove of keys (test_keys.py) holds for runs."""
    if run.recipe.startswith("coarse_to_fine"):
        pytest.skip("which photos it learns from stands in its keys, and depends on the masks")
    recipe, photos = RECIPES[run.recipe], run.photos
    config = make_config(recipe.config, {**quick(run.recipe), **run.config})
    data = check_data(photos.dataset, photos.val, recipe, config, OPTIONS, Progress())
    plan, truth = Plan(), photos.truth()
    planned = data.run(make_setup(OPTIONS), plan, Progress())
    recipe.outcome(planned, config, truth, key_of_truth(truth))
    work = Workspace.read(run.result.folder)
    kept = {name: work.finished(name).key for name in finished_stages(run.result.folder)}
    assert {name: record["key"] for name, record in plan.records.items()}.items() <= kept.items()
    more = kept.keys() - plan.records.keys()  # made for the scores
    assert {"findings", "export"} <= more
    assert all(name.startswith("val-") for name in more - {"findings", "export"})


def test_the_segmenter_predicts_photos_of_any_size(run):
    segmenter = run.result.segmenter
    for shape in ((50, 70), (9, 200), (1, 1)):
        labels = segmenter.predict(np.full((*shape, 3), 128, np.uint8))
        assert labels.shape == shape
        assert labels.dtype == np.uint8
        assert labels.max() <= len(run.classes)


def test_the_masks_have_the_photos_sizes_and_the_known_tags(run):
    names = run.photos.train
    made = {p.relative_to(run.result.masks).with_suffix("").as_posix() for p in files(run)}
    assert made == set(names)
    for index, name in enumerate(names):
        mask = read_mask(run.result.masks / f"{name}.png")
        assert mask.shape == run.photos.labels[name].shape, name
        if run.by_tags and index != UNKNOWN:
            allowed = labels_of_tags(run.photos.dataset.tags[index])
        else:
            allowed = np.arange(len(run.classes) + 1)
        assert set(np.unique(mask)) <= set(allowed), name


def test_the_masks_are_palettised(run):
    for path in files(run):
        with PilImage.open(path) as picture:
            assert picture.mode == "P"
            palette = np.array(picture.getpalette()[:30]).reshape(-1, 3)
            assert np.array_equal(palette, voc_palette()[:10])


def test_every_validation_photo_is_predicted_without_its_tags(run):
    working = WorkingPhotos(run.photos.dataset.select(run.photos.val), 64)
    stage = Workspace.read(run.result.folder).finished("predictions")
    for index, name in enumerate(run.photos.val):
        raw = decode_mask(stage.maps("raw").get_bytes(name))
        assert raw.shape == working.image(index).shape[:2]
        probs = run.result.segmenter.forward(working.image(index)[None])[0]
        assert (raw == probs.argmax(0)).mean() > 0.99  # batches round differently
    stage.close()


def test_both_splits_are_scored(run):
    by_split = {s: [x for x in run.result.scores if x.split == s] for s in ("train", "val")}
    assert {score.photos for score in by_split["train"]} == {N_TRAIN}
    assert {score.photos for score in by_split["val"]} == {N_VAL}
    last = [score for score in by_split["val"] if ", round " not in score.stage]
    settings = make_config(RECIPES[run.recipe].config, run.config)
    unrefined = settings.refiner == "none" or getattr(settings, "segmenter", "") == "pyramid"
    if run.recipe == "union" and unrefined:  # by what its judge says
        unrefined = run.result.segmenter.refiner is None
    assert len(last) == (1 if unrefined else 2)
    assert len(by_split["val"]) - len(last) == run.config.get("rounds", 0)
    for score in run.result.scores:
        assert 0 <= score.miou <= 1
        if score.iou is not None:
            known = [value for value in score.iou if value is not None]
            assert len(score.iou) == len(run.classes) + 1
            assert score.miou == pytest.approx(np.mean(known))


def test_the_scores_of_the_masks_are_those_of_the_files(run):
    from tagseg.evaluate.masks import evaluate_masks

    rows = [s for s in run.result.scores if s.stage.startswith("masks of the photos")]
    (row,) = [s for s in rows if ", round " not in s.stage]
    names = run.photos.train
    scored = evaluate_masks(run.result.masks, run.truth, run.classes, names=names)
    assert row.miou == pytest.approx(scored.miou)


def test_the_report_needs_nothing_else(run):
    page = run.result.report.read_text()
    assert run.result.report == run.result.folder / "report.html"
    assert re.findall(r"<(?:link|script|iframe|object)\b[^>]*(?:href|src|data)=", page) == []
    assert {s.split(":")[0] for s in re.findall(r"src=\"([^\"]{5})", page)} == {"data"}
    assert "@import" not in page
    assert "url(http" not in page
    assert run.recipe in page
    assert "unicorn" in page


def test_the_same_call_again_changes_nothing(run, go, monkeypatch):
    def must_not(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("worked on a finished run")

    before, changed_at = contents(run.result.folder), times(run.result.folder)
    for kind, work in (
        (Segmenter, "forward"),
        (DistinctSegmenter, "forward"),
        (ClassSaliency, "forward"),
        (torch.optim.AdamW, "step"),
        (Checkpoint, "save"),
    ):
        monkeypatch.setattr(kind, work, must_not)
    monkeypatch.setattr("tagseg.stages.classifier.tag_scores", must_not)
    for module in ("crf", "distinct_segmenter"):
        monkeypatch.setattr(f"tagseg.stages.{module}.refine", must_not)
    monkeypatch.setattr("tagseg.priors.crisp.regions", must_not)
    monkeypatch.setattr("tagseg.stages.saliency.minimum_barrier_saliency", must_not)
    for work in ("object_mask", "fit_on_grid"):
        monkeypatch.setattr(f"tagseg.stages.box_saliency.{work}", must_not)
    for work in ("score_changes", "seed_guide", "random_guide"):
        monkeypatch.setattr(f"tagseg.recipes.guided.guides.{work}", must_not)
    monkeypatch.setattr("tagseg.stages.priors.superpixels", must_not)
    for work in ("fit_regions", "predict_regions", "object_probability"):
        monkeypatch.setattr(f"tagseg.recipes.mcof.regions.{work}", must_not)
    monkeypatch.setattr("tagseg.stages.rounds.agreement", must_not)
    for work in ("enhanced_mask", "salient_mask", "boxed"):
        monkeypatch.setattr(f"tagseg.recipes.coarse_to_fine.masks.{work}", must_not)
    for work in ("enhanced_mask", "has_usable_foreground", "fit_on_grid"):
        monkeypatch.setattr(f"tagseg.recipes.coarse_to_fine.rounds.{work}", must_not)
    for work in ("background_saliency", "sure_pixels"):
        monkeypatch.setattr(f"tagseg.recipes.sec.background_maps.{work}", must_not)
    monkeypatch.setattr("tagseg.session.report.datetime", Tomorrow)
    again = go(run.recipe, run.config, out=run.result.folder)
    assert contents(run.result.folder) == before
    rewritten = {k for k, v in times(run.result.folder).items() if v != changed_at[k]}
    assert rewritten <= {"workspace.json", ".lock"}  # the record of who works here
    assert again.scores == run.result.scores
    assert same_weights(weights_of(again), weights_of(run.result))


def test_the_exported_segmenter_is_the_trained_one(run):
    loaded = load_segmenter(run.result.folder, device="cpu", precision="fp32")
    image = run.photos.dataset.image(0)
    assert loaded.classes == run.classes
    assert np.array_equal(loaded.probabilities(image), run.result.segmenter.probabilities(image))


def test_other_ground_truth_decides_on_the_scores_only(run, go, tmp_path):
    """Of wrong labels, of some photos; with none at all a run is the same, too: the next test."""
    if not run.weakly:
        pytest.skip("full supervision trains on it")
    folder = Path(shutil.copytree(run.result.folder, tmp_path / "copy"))
    before, names = finished_stages(folder), run.photos.train
    wrong = {name: np.zeros_like(run.photos.labels[name]) for name in names}
    other = go(
        run.recipe,
        run.config,
        ground_truth=GroundTruth(wrong, run.photos.dataset.classes),
        out=folder,
    )
    assert changed_stages(before, folder) == {"findings"}
    assert {score.split for score in other.scores} == {"train"}
    of_train = [score.miou for score in run.result.scores if score.split == "train"]
    assert [score.miou for score in other.scores] != of_train
    assert same_weights(weights_of(other), weights_of(run.result))
    assert contents(other.masks) == contents(run.result.masks)


def test_without_ground_truth_and_without_files(run, go):
    if not run.weakly:
        with pytest.raises(ConfigError, match="full_supervision needs ground truth"):
            go(run.recipe, run.config, ground_truth=None)
        return
    result = go(run.recipe, run.config, ground_truth=None)
    folder = result.folder
    assert result.scores == ()
    assert same_weights(weights_of(result), weights_of(run.result))
    assert contents(result.masks) == contents(run.result.masks)
    assert "not measured" in result.report.read_text()
    del result
    assert not folder.exists()


def test_the_run_folder_tells_what_it_was_made_from(run):
    about = json.loads((run.result.folder / "run.json").read_text())
    assert about["recipe"] == run.recipe
    assert dict(row[:2] for row in about["config"])["segmenter_iterations"] == 3
    assert about["settings"]["backbone"] == "tiny"
    assert [stage["name"] for stage in about["stages"]][-1] == "findings"


def files(run: Finished) -> list[Path]:
    return sorted(path for path in run.result.masks.rglob("*") if path.is_file())
