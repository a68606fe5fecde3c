"""A changed field, option or photo reruns the stages that depend on it, and no others."""

from __future__ import annotations

import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from small_runs import OPTIONS, QUICK, Photos, contents, finished_stages, options, quick
from tagseg.recipes.catalog import RECIPES
from tagseg.run.plan import Plan
from tagseg.run.progress import Progress
from tagseg.session.scoring import key_of_truth
from tagseg.session.train import Caller, check_data, make_config, make_setup, train

AFTER_SEGMENTER = {"segmenter", "masks", "predictions", "findings", "export"}
AFTER_MASKS = {"training-masks"} | AFTER_SEGMENTER
AFTER_CLASSIFIER = {"classifier", "location-maps", "val-location-maps"} | AFTER_MASKS
ALL = {"activation-prior", "regions"} | AFTER_CLASSIFIER

Cases = list[tuple[dict[str, Any], set[str]]]
FIELDS: Cases = [  # one of each set of stages, on a finished run
    ({"crf_iterations": 3}, AFTER_MASKS),
    ({"refiner": "none"}, {"masks", "predictions", "findings", "export"}),
    ({"masks_by_tags": False}, {"masks", "findings"}),
    ({"crisp_threshold": 0.2}, {"regions"} | AFTER_MASKS),
    ({"segmenter_width": 8}, AFTER_SEGMENTER),
    ({"classifier_iterations": 2}, AFTER_CLASSIFIER),
    ({"cam_scales": (1.0, 0.5)}, AFTER_CLASSIFIER - {"classifier"}),
    ({"output_stride": 16}, ALL - {"regions"}),
    ({"photo_side": 48}, ALL),
    # What comes to the same by another way is the same.
    ({"classifier_epochs": 3.0, "segmenter_epochs": 3.0, "schedule": "short"}, set()),
]
MORE_FIELDS: Cases = [  # those that act on the same sets, by their keys
    ({"crf_bilateral": (10.0, 60.0, 13.0)}, AFTER_MASKS),
    ({"crf_reference_side": None}, AFTER_MASKS),
    ({"mask_crf": False}, AFTER_MASKS),
    ({"mask_regions": "none"}, AFTER_MASKS),
    ({"crisp_weight": 0.5}, AFTER_MASKS),
    ({"crisp_gamma_max": 4.0}, AFTER_MASKS),
    ({"crisp_area_weight": 0.0}, AFTER_MASKS),
    ({"segmenter_regions": "crisp"}, {"masks", "predictions", "findings", "export"}),
    ({"alpha": 0.25}, AFTER_MASKS),
    ({"cam_threshold": 0.4}, AFTER_MASKS),
    ({"masks": "localization"}, AFTER_MASKS),
    ({"sharpness": 4.0}, AFTER_SEGMENTER),
    ({"field_of_view": "small"}, AFTER_SEGMENTER),
    ({"scale_field_of_view": False}, AFTER_SEGMENTER),
    ({"segmenter_iterations": 2}, AFTER_SEGMENTER),
    ({"segmenter_learning_rate": 0.01}, AFTER_SEGMENTER),
    ({"segmenter_crop": 40}, AFTER_SEGMENTER),
    ({"classifier_hidden_layers": 1}, AFTER_CLASSIFIER),
    ({"classifier_backbone_factor": 0.0}, AFTER_CLASSIFIER),
    ({"segmenter_backbone_factor": 0.1}, AFTER_SEGMENTER),
    ({"cam_flip": True}, AFTER_CLASSIFIER - {"classifier"}),
    ({"prior_saturate": 0.1}, AFTER_MASKS),
]
FOR_SCORES = {"findings", "export", "val-location-maps"}  # of which a plan knows nothing


@pytest.fixture(scope="module")
def finished(go, tmp_path_factory) -> Path:
    return go("builtin_priors", out=tmp_path_factory.mktemp("runs") / "run").folder


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def rerun(folder: Path, go: Any, config: dict[str, Any], **changed: Any) -> tuple[set[str], str]:
    """The stages that ran, and what was said of them."""
    before, said = finished_stages(folder), StringIO()
    progress = Progress(Console(file=said, width=500))
    go("builtin_priors", config, out=folder, caller=Caller(progress), **changed)
    after = finished_stages(folder)
    return {name for name in after if after[name] != before.get(name)}, said.getvalue()


@pytest.mark.parametrize(("config", "expected"), FIELDS, ids=[str(c) for c, _ in FIELDS])
def test_a_changed_field(folder, go, config, expected):
    ran, said = rerun(folder, go, config)
    assert ran == expected
    announced = {line.split()[1] for line in said.splitlines() if line.startswith("stage ")}
    assert announced == expected


def planned(photos: Photos, config: dict[str, Any]) -> dict[str, str]:
    """The key of each stage of a run, without the run: test_contract.py finds them the same."""
    recipe = RECIPES["builtin_priors"]
    settings = make_config(recipe.config, {**quick(recipe.name), **config})
    data = check_data(photos.dataset, photos.val, recipe, settings, OPTIONS, Progress())
    plan, truth = Plan(), photos.truth()
    run = data.run(make_setup(OPTIONS), plan, Progress())
    recipe.outcome(run, settings, truth, key_of_truth(truth))
    return {name: record["key"] for name, record in plan.records.items()}


def test_keys_of_changed_fields(photos):
    before = planned(photos, {})
    for config, expected in (*FIELDS, *MORE_FIELDS):
        after = planned(photos, config)
        changed = {name for name in after if after[name] != before.get(name)}
        assert changed == expected - FOR_SCORES, config


def test_a_rerun_gives_what_a_fresh_run_gives(folder, go, tmp_path):
    rerun(folder, go, {"crf_iterations": 3})
    fresh = go("builtin_priors", {"crf_iterations": 3}, out=tmp_path / "fresh").folder
    for name in ("masks", "export", "training-masks", "predictions"):
        (one,), (other,) = (list(f.glob(f"stages/[0-9][0-9]-{name}")) for f in (folder, fresh))
        files = {k: v for k, v in contents(one).items() if k.endswith((".png", ".safetensors"))}
        others = {k: v for k, v in contents(other).items() if k.endswith((".png", ".safetensors"))}
        assert files == others, name


@pytest.mark.parametrize(
    ("masks", "left_out"),
    [
        ("localization", {"activation-prior"}),
        ("foreground", {"classifier", "location-maps", "val-location-maps"}),
        ("none", ALL - AFTER_MASKS),
    ],
)
def test_only_the_evidence_that_the_masks_need_is_made(go, tmp_path, finished, masks, left_out):
    assert set(finished_stages(finished)) == ALL, "masks of both kinds of evidence need all"
    folder = go("builtin_priors", {"masks": masks}, out=tmp_path / "run").folder
    assert set(finished_stages(folder)) == ALL - left_out
    ran, _ = rerun(folder, go, {"masks": masks, "classifier_iterations": 2})
    assert ran == (set() if "classifier" in left_out else AFTER_CLASSIFIER)


def test_ablations_share_the_regions(folder, go):
    """Other masks, or masks without the CRF in between, find the regions as they were."""
    assert rerun(folder, go, {"masks": "foreground"})[0] == AFTER_MASKS
    assert rerun(folder, go, {"mask_crf": False})[0] >= {"training-masks"}
    ran, said = rerun(folder, go, {})
    assert "regions" not in ran
    assert "stage regions" not in said


def test_what_is_said_of_changed_regions(folder, go):
    _, said = rerun(folder, go, {"crisp_threshold": 0.2})
    assert "stage regions runs again: crisp_threshold 0.1 -> 0.2\n" in said
    assert "stage training-masks runs again: input regions " in said


def test_regions_after_the_segmenter_alone(go, tmp_path):
    """The masks of the photos need no more of them than are kept, whatever the masks are."""
    config = {"masks": "none", "segmenter_regions": "crisp"}
    folder = go("builtin_priors", config, out=tmp_path / "run").folder
    assert "regions" in finished_stages(folder)
    after = {"masks", "predictions", "findings", "export"}
    assert rerun(folder, go, {**config, "crisp_weight": 0.5})[0] == after
    assert rerun(folder, go, {**config, "crisp_threshold": 0.3})[0] == after | {"regions"}


def test_the_threshold_of_the_cam_baseline(go, tmp_path):
    folder = go("cam_baseline", out=tmp_path / "run").folder
    before = finished_stages(folder)
    go("cam_baseline", {"cam_threshold": 0.6}, out=folder)
    after = finished_stages(folder)
    assert {n for n in after if after[n] != before[n]} == {"seeds"} | AFTER_SEGMENTER


def test_a_changed_seed_reruns_all(folder, go):
    ran, said = rerun(folder, go, {}, options=options(seed=1))
    assert ran == ALL
    assert "seed 0 -> 1" in said


def test_threads_rerun_nothing(folder, go):
    assert rerun(folder, go, {}, options=options(threads=2))[0] == set()


def test_a_changed_tag_reruns_all_but_validation_does_not_count(folder, go, photos):
    tags = photos.dataset.tags.copy()
    tags[-1] = ~tags[-1]
    other = replace(photos.dataset, tags=tags)
    assert rerun_on(other, folder, photos) == {"val-location-maps", "predictions", "findings"}
    tags = photos.dataset.tags.copy()
    tags[0, 0] ^= True
    assert rerun_on(replace(photos.dataset, tags=tags), folder, photos) == ALL


def rerun_on(dataset: Any, folder: Path, photos: Any) -> set[str]:
    before = finished_stages(folder)
    train(
        dataset,
        "builtin_priors",
        QUICK,
        val=photos.val,
        ground_truth=photos.truth(),
        out=folder,
        options=OPTIONS,
    )
    after = finished_stages(folder)
    return {name for name in after if after[name] != before[name]}


def test_fewer_validation_photos_rerun_their_predictions_only(folder, go, photos):
    left_out = photos.dataset.without(photos.val[:2])
    before = finished_stages(folder)
    result = train(
        left_out,
        "builtin_priors",
        QUICK,
        val=photos.val[2:],
        ground_truth=photos.truth(),
        out=folder,
        options=OPTIONS,
    )
    after = finished_stages(folder)
    assert {n for n in after if after[n] != before[n]} == {
        "val-location-maps",
        "predictions",
        "findings",
    }
    assert {s.photos for s in result.scores if s.split == "val"} == {6}


def test_other_weights_rerun_all_that_networks_do(folder, go):
    assert rerun(folder, go, {}, options=options(weights="none"))[0] == ALL - {"regions"}


def test_photos_of_the_same_pixels_in_memory_need_no_files(go, photos):
    """Arrays train as files do: nothing of a run depends on where its photos are."""
    pictures = tuple(photos.dataset.image(i) for i in range(len(photos.dataset)))
    in_memory = replace(photos.dataset, sources=pictures)
    one = train(in_memory, "cam_baseline", QUICK, val=photos.val, options=OPTIONS)
    other = go("cam_baseline", ground_truth=None)
    image = np.full((40, 40, 3), 77, np.uint8)
    assert np.array_equal(one.segmenter.forward(image[None]), other.segmenter.forward(image[None]))
