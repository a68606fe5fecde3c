"""Whole runs from Python: odd data, what is refused, and what is kept."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PilImage
from rich.console import Console

import tagseg
from paired_ranks import Board, Paired
from small_runs import (
    N_TRAIN,
    OPTIONS,
    QUICK,
    changed_stages,
    fields_of,
    finished_stages,
    options,
)
from tagseg.data.dataset import Dataset
from tagseg.data.masks import read_mask
from tagseg.data.scenes import SCENES, scene_dataset
from tagseg.errors import (
    ConfigError,
    DataError,
    MaskError,
    TagError,
    TagsegError,
    WeightsError,
    WorkspaceError,
)
from tagseg.evaluate.trust import ClassTrust
from tagseg.formats.loading import load_dataset
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.ranks.alone import ALONE
from tagseg.recipes.catalog import find_recipe
from tagseg.run.progress import Progress
from tagseg.run.together import Together
from tagseg.run.work import Local
from tagseg.run.workspace import Workspace
from tagseg.session.export import load_segmenter
from tagseg.session.recorded import recorded_command
from tagseg.session.report import render_report
from tagseg.session.train import (
    Caller,
    Data,
    Options,
    _engine,
    _with_preset,
    check_data,
    check_truth,
    make_setup,
    train,
)
from tagseg.stages.settings import PhotoSettings


@pytest.fixture(scope="module")
def scenes() -> tuple[Dataset, dict[str, np.ndarray]]:
    return scene_dataset(SCENES, 12, height=64, width=80)


def quick(dataset: Dataset, recipe: str = "cam_baseline", **more: object) -> tagseg.Result:
    return train(dataset, recipe, fields_of(recipe, QUICK), **{"options": OPTIONS, **more})


def test_one_class(scenes):
    dataset, labels = scenes
    one = Dataset.from_arrays(
        dataset.sources, dataset.tags[:, :1] | True, ("thing",), dataset.names
    )
    truth = GroundTruth({n: (m > 0).astype(np.uint8) for n, m in labels.items()}, ("thing",))
    for recipe in ("builtin_priors", "cam_baseline", "full_supervision"):
        result = quick(one, recipe, ground_truth=truth, val=one.names[:3])
        assert result.segmenter.classes == ("thing",)
        assert all(len(score.iou) == 2 for score in result.scores if score.iou)


@pytest.mark.parametrize("recipe", ["builtin_priors", "cam_baseline"])
def test_one_photo(scenes, recipe):
    dataset = scenes[0].subset([0])
    result = quick(dataset, recipe)
    assert read_mask(result.masks / f"{dataset.names[0]}.png").shape == (64, 80)


@pytest.mark.parametrize("recipe", ["builtin_priors", "cam_baseline"])
def test_photos_of_nothing_at_all(scenes, recipe):
    """All photos are negatives: nothing to learn, but no crash and no invented objects."""
    dataset, labels = scenes
    nothing = replace(dataset, tags=np.zeros_like(dataset.tags))
    empty = {name: np.zeros_like(mask) for name, mask in labels.items()}
    result = quick(
        nothing,
        recipe,
        val=dataset.names[:3],
        ground_truth=GroundTruth(empty, dataset.classes),
    )
    masks = sorted(result.masks.iterdir())
    assert len(masks) == 9
    assert not any(read_mask(path).any() for path in masks)
    assert "photos" in result.report.read_text()


def test_ground_truth_of_nothing_but_255(scenes):
    """Scores that are not defined are None, and the report says so."""
    dataset, labels = scenes
    blank = {name: np.full_like(mask, 255) for name, mask in labels.items()}
    result = quick(dataset, ground_truth=GroundTruth(blank, dataset.classes))
    assert {score.miou for score in result.scores} == {None}
    assert result.report.is_file()


def test_ground_truth_of_some_photos(scenes):
    dataset, labels = scenes
    some = dict(list(labels.items())[:5])
    truth = GroundTruth(some, dataset.classes)
    result = quick(dataset, val=dataset.names[:3], ground_truth=truth)
    assert {(s.split, s.photos) for s in result.scores} == {("val", 3), ("train", 2)}


def test_unknown_tags_teach_nothing(scenes):
    """A photo whose tags are unknown trains no network, whatever it shows, but gets its mask."""
    dataset, _ = scenes
    known = np.ones(12, bool)
    known[4] = False
    tags = dataset.tags.copy()
    tags[4] = False
    unknown = replace(dataset, known=known, tags=tags)
    pictures = list(dataset.sources)
    pictures[4] = 255 - pictures[4]
    other = replace(unknown, sources=tuple(pictures))
    for recipe in ("cam_baseline", "builtin_priors"):
        one, two = quick(unknown, recipe), quick(other, recipe)
        a, b = (r.segmenter.net.state_dict() for r in (one, two))
        assert all(torch.equal(a[k], b[k]) for k in a)
        assert (one.masks / f"{dataset.names[4]}.png").is_file()


def test_unreadable_photos_are_left_out(photos, go, tmp_path):
    folder = tmp_path / "photos"
    names = photos.dataset.names[:10]
    sources = []
    for name in names:
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos.dataset.sources[photos.dataset.names.index(name)], path)
        sources.append(path)
    sources[3].write_bytes(b"oh")
    dataset = replace(photos.dataset.select(names), sources=tuple(sources))
    with pytest.raises(DataError, match=r"1 of 10 photos cannot be used: .* --allow-skipped 0.10"):
        quick(dataset)
    result = quick(dataset, options=options(allow_skipped=0.1))
    assert [name for name, _ in result.audit.skipped] == [names[3]]
    assert not (result.masks / f"{names[3]}.png").exists()
    assert "not a picture" in result.report.read_text()


def test_the_keys_of_checked_photos_are_those_that_a_run_is_made_from(photos, finished):
    def checked(val: tuple[str, ...]) -> Data:
        recipe = find_recipe("cam_baseline")
        sides = PhotoSettings(QUICK["photo_side"])
        return check_data(photos.dataset, val, recipe, sides, OPTIONS, Progress())

    data = checked(photos.val)
    assert data.photos.names == photos.train
    assert data.val is not None
    assert data.val.names == photos.val
    assert data.photos.side == data.val.side == 64
    assert {data.photos_key, data.val_key} < Workspace.read(finished).outer_inputs()
    fewer = checked(photos.val[1:])
    assert fewer.photos_key != data.photos_key
    assert checked(()).val is None


def test_val_photos_are_never_trained_on(photos, go):
    """Other pixels in the validation photos, the same network."""
    pictures = [photos.dataset.image(i) for i in range(len(photos.dataset))]
    for i in range(N_TRAIN, len(pictures)):
        pictures[i] = 255 - pictures[i]
    other = replace(photos.dataset, sources=tuple(pictures))
    one = go("builtin_priors", ground_truth=None)
    two = train(other, "builtin_priors", QUICK, val=photos.val, options=OPTIONS)
    a, b = (r.segmenter.net.state_dict() for r in (one, two))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_preset_lies_under_what_is_given_and_is_recorded(scenes, tmp_path):
    given = {**fields_of("builtin_priors", QUICK), "mask_regions": "none"}
    given |= {"segmenter_regions": "none", "classifier_stride": 16}
    screen = io.StringIO()
    caller = Caller(Progress(Console(file=screen, width=200)))
    out = tmp_path / "run"
    by_paper = replace(OPTIONS, preset="paper")
    train(scenes[0], "builtin_priors", given, options=by_paper, out=out, caller=caller)
    first = screen.getvalue().splitlines()[0]
    assert first.startswith("preset paper of builtin_priors: ")
    assert (
        "set otherwise: classifier_batch_size, classifier_iterations, classifier_stride, " in first
    )
    about = json.loads((out / "run.json").read_text())
    assert (about["settings"]["preset"], about["settings"]["backbone"]) == ("paper", "tiny")
    config = {name: (value, where) for name, value, where in about["config"]}
    assert config["prior_saturate"] == (0.0, "3.1.1: scaled between 0 and 1")
    assert config["segmenter_iterations"][0] == QUICK["segmenter_iterations"]


def test_the_backbone_of_a_preset_gives_way_to_one_that_is_chosen(scenes):
    recipe, progress = find_recipe("builtin_priors"), Progress()
    for chosen, expected in ((None, "vgg16"), ("tiny", "tiny")):
        asked = tagseg.Options(backbone=chosen, weights="none")
        values, options = _with_preset(recipe, "paper", {"alpha": 0.25}, asked, progress)
        assert options == replace(asked, backbone=expected)
        assert values["alpha"] == 0.25
        assert values["sharpness"] == 5.0
    assert tagseg.Options().network() == "efficientnet_lite0"


@pytest.mark.parametrize(
    ("recipe", "config", "preset", "line"),
    [
        ("union", None, "paper", "recipe union has no preset of a paper; use builtin_priors"),
        ("builtin_priors", None, "papers", "there is no preset 'papers'; did you mean paper"),
        ("builtin_priors", "whole", "paper", "a whole Config is given, under which no preset"),
    ],
)
def test_presets_that_cannot_be(scenes, tmp_path, recipe, config, preset, line):
    given = find_recipe(recipe).config() if config == "whole" else config
    options = replace(OPTIONS, preset=preset)
    with pytest.raises(ConfigError) as caught:
        train(scenes[0], recipe, given, options=options, out=tmp_path / "run")
    assert str(caught.value).startswith(line)
    assert not (tmp_path / "run").exists()


def test_loading_workers_change_nothing(scenes):
    one, two = (quick(scenes[0], options=options(workers=n)) for n in (0, 1))
    a, b = (r.segmenter.net.state_dict() for r in (one, two))
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"seed": -1}, "seed is -1; use 0 to 9223372036854775807"),
        ({"seed": 1 << 63}, "seed is 9223372036854775808; use 0 to"),
        ({"workers": -1}, "workers is -1; use 0 to 256"),
        ({"threads": 0}, "threads is 0; use 1 to 1024"),
        ({"allow_skipped": -0.1}, "allow_skipped is -0.1; use a fraction, 0 to 1"),
        ({"allow_skipped": float("nan")}, "allow_skipped is nan; use a fraction, 0 to 1"),
        ({"allow_skipped": 2}, "allow_skipped is 2; use a fraction, 0 to 1"),
        ({"engine": "spark"}, "engine 'spark' does not exist; use local or ray"),
    ],
)
def test_options_that_do_not_fit(changed, line):
    with pytest.raises(ConfigError) as caught:
        options(**changed)
    assert str(caught.value).startswith(line)


def test_the_largest_seed_works(scenes):
    assert quick(scenes[0], options=options(seed=(1 << 63) - 1)).segmenter


@pytest.mark.parametrize(
    ("wrong", "error", "line"),
    [
        ({"options": options(backbone="vgg")}, ConfigError, "there is no backbone 'vgg'; did you"),
        ({"options": options(device="tpu")}, ConfigError, "device 'tpu' does not exist; use auto"),
        ({"options": options(precision="x")}, ConfigError, "precision 'x' does not exist; use"),
        ({"val": ["nobody"]}, DataError, "1 validation photos are not among the photos: nobody"),
        ({"recipe": "cam"}, ConfigError, "there is no recipe 'cam'; "),
        ({"recipe": "full_supervision"}, ConfigError, "full_supervision needs ground truth; give"),
    ],
)
def test_refused_before_anything_is_written(scenes, tmp_path, wrong, error, line):
    with pytest.raises(error) as caught:
        quick(scenes[0], **wrong, out=tmp_path / "run")
    assert str(caught.value).startswith(line)
    assert not (tmp_path / "run").exists()


def test_data_refused_before_anything_is_written(scenes, tmp_path):
    dataset, labels = scenes
    unknown = replace(dataset, known=np.zeros(12, bool))
    others = GroundTruth({"x": labels[dataset.names[0]]}, dataset.classes)
    most = GroundTruth({n: labels[n] for n in dataset.names[1:]}, dataset.classes)
    cases = [
        (DataError, "all photos are for validation", dataset, {"val": dataset.names}),
        (DataError, "no training photo can be used and has known tags", unknown, {}),
        (MaskError, "no photo has ground truth", dataset, {"ground_truth": others}),
        (
            MaskError,
            f"1 of 12 training photos have no ground truth: {dataset.names[0]}",
            dataset,
            {"ground_truth": most, "recipe": "full_supervision"},
        ),
    ]
    for error, line, photos, more in cases:
        with pytest.raises(error) as caught:
            quick(photos, **more, out=tmp_path / "run")
        assert str(caught.value).startswith(line)
        assert not (tmp_path / "run").exists()
    with pytest.raises((DataError, TagError)):
        quick(dataset.subset([]), out=tmp_path / "run")


@pytest.mark.parametrize(
    ("recipe", "config", "notes"),
    [
        ("cam_baseline", {"segmenter_unary": "log"}, []),
        ("cam_baseline", {"refiner": "none"}, []),
        (
            "cam_baseline",
            {"refiner": "none", "segmenter_unary": "log", "segmenter_regions": "crisp"},
            [
                "note: segmenter_regions does nothing; it acts with refiner=crf",
                "note: segmenter_unary does nothing; it acts with refiner=crf",
            ],
        ),
        (
            "gradient_baseline",
            {"refiner": "none", "crf_filter": "lattice", "crf_iterations": 3},
            ["note: crf_filter does nothing; it acts with refiner=crf"],
        ),
        (
            "dcsm",
            {"segmenter_epochs": 3.0},
            ["note: segmenter_epochs does nothing; it acts with segmenter=trained"],
        ),
        (
            "builtin_priors",
            {"mask_crf": False, "mask_regions": "none"},
            ["note: mask_regions does nothing; it acts with mask_crf=true"],
        ),
        (
            "builtin_priors",
            {"masks": "none", "prior_saturate": 0.1},
            ["note: prior_saturate does nothing; it acts with masks=foreground or both"],
        ),
    ],
)
def test_fields_that_do_nothing_are_told(scenes, recipe, config, notes):
    """Of those that were set; before anything is looked at."""
    said = io.StringIO()
    progress = Progress(Console(file=said, width=500))
    with pytest.raises(DataError, match="not among the photos: nobody"):
        train(scenes[0], recipe, config, val=["nobody"], options=OPTIONS, caller=Caller(progress))
    found = [line for line in said.getvalue().splitlines() if "does nothing" in line]
    assert sorted(found) == sorted(notes)


def test_a_field_that_a_recipe_lacks(scenes, tmp_path):
    """Full supervision has no classifier."""
    with pytest.raises(ConfigError) as caught:
        train(scenes[0], "full_supervision", {"classifier_width": 8}, out=tmp_path / "run")
    line = "the recipe has no field 'classifier_width'; did you mean segmenter_width?"
    assert str(caught.value) == line
    assert not (tmp_path / "run").exists()


def test_ground_truth_is_looked_at_before_anything_is_written(scenes, tmp_path):
    dataset, labels = scenes
    other = {name: (mask > 0) * np.uint8(99) for name, mask in labels.items()}
    binary = {name: (mask > 0) * np.uint8(255) for name, mask in labels.items()}
    said = io.StringIO()
    progress = Progress(Console(file=said, width=1000))
    for masks, line in ((other, "holds class id"), (binary, "hold nothing but 0 and 255")):
        with pytest.raises(MaskError, match=line):
            quick(dataset, ground_truth=GroundTruth(masks, dataset.classes), out=tmp_path / "run")
        assert not (tmp_path / "run").exists()
    swapped = np.array([0, *range(len(dataset.classes), 0, -1)], np.uint8)
    masks = {name: swapped[mask] for name, mask in labels.items()}
    truth = check_truth(GroundTruth(masks, dataset.classes), dataset, OPTIONS, progress)
    assert truth is not None
    assert "are the classes in the order of the masks' numbers?" in said.getvalue()
    assert check_truth(None, dataset, OPTIONS, progress) is None


def test_full_supervision_may_leave_validation_photos_unlabelled(scenes):
    dataset, labels = scenes
    truth = GroundTruth({n: labels[n] for n in dataset.names[3:]}, dataset.classes)
    result = quick(dataset, "full_supervision", ground_truth=truth, val=dataset.names[:3])
    assert {score.split for score in result.scores} == {"train"}


def test_percentage_of_full_supervision(photos, go, tmp_path):
    upper = go("full_supervision", out=tmp_path / "upper")
    run = go("cam_baseline", out=tmp_path / "run", caller=Caller(full_supervision=upper.folder))
    full = [s.miou for s in upper.scores if s.split == "val"][-1]
    text = re.sub(r"\s+", " ", run.report.read_text())
    assert f"reaches {100 * full:.1f} % mIoU on val" in text
    # It is remembered, but not for other validation photos, to which it says nothing.
    again = go("cam_baseline", out=tmp_path / "run")
    assert "Full supervision" in again.report.read_text()
    fewer = {"val": photos.val[:4], "out": tmp_path / "run"}
    assert "Full supervision" not in go("cam_baseline", **fewer).report.read_text()
    before = finished_stages(tmp_path / "run")
    with pytest.raises(ConfigError, match="upper: was scored on other validation photos; give a"):
        go("cam_baseline", **fewer, caller=Caller(full_supervision=upper.folder))
    assert finished_stages(tmp_path / "run") == before


def test_a_wrong_reference_is_told_before_training(go, tmp_path):
    lower = go("cam_baseline", out=tmp_path / "lower").folder
    unscored = go("full_supervision", val=(), out=tmp_path / "unscored").folder
    for folder, line in (
        (tmp_path / "none", "holds no finished run; finish it: tagseg train"),
        (lower, "is a run of cam_baseline; give one of full_supervision"),
        (unscored, "has no scores on val; train it with --val"),
    ):
        caller = Caller(full_supervision=folder)
        with pytest.raises(TagsegError) as caught:
            go("builtin_priors", caller=caller, out=tmp_path / "run")
        assert str(caught.value).startswith(f"{folder}: {line}")
        assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def finished(go, tmp_path_factory) -> Path:
    return go("cam_baseline", out=tmp_path_factory.mktemp("runs") / "run").folder


def test_the_report_of_a_moved_run(finished, tmp_path):
    moved = Path(shutil.copytree(finished, tmp_path / "moved"))
    (moved / "report.html").unlink()
    path = render_report(moved)
    assert path == moved / "report.html"
    assert path.read_bytes() == (finished / "report.html").read_bytes()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"recipe": "cam_baseline"}', "null"])
def test_a_damaged_record_of_the_run(finished, go, tmp_path, content):
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    (folder / "run.json").write_text(content)
    with pytest.raises(WorkspaceError, match=r"run.json: is damaged.*; run (tagseg|the)"):
        render_report(folder)
    before = finished_stages(folder)
    go("cam_baseline", out=folder)  # as the advice is
    assert finished_stages(folder) == before
    assert render_report(folder).read_text().count("<h1") == 1


@pytest.mark.parametrize(
    "changed",
    [{"stages": [None]}, {"config": [1]}, {"progression": {"rounds": "²"}}, {"trust": [[]]}],
)
def test_a_record_of_before_there_were_checks_that_says_odd_things(finished, tmp_path, changed):
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    about = json.loads((folder / "run.json").read_text())
    del about["check"]
    (folder / "run.json").write_text(json.dumps(about))
    render_report(folder)
    (folder / "run.json").write_text(json.dumps({**about, **changed}))
    with pytest.raises(
        WorkspaceError, match=r"run.json: is damaged \(\w+\); run tagseg train again"
    ):
        render_report(folder)


def test_the_report_of_an_unfinished_run(finished, tmp_path):
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    (folder / "run.json").unlink()
    with pytest.raises(WorkspaceError, match="holds no finished run; finish it: tagseg train"):
        render_report(folder)


def test_a_damaged_stage_is_made_again(photos, finished, go, tmp_path):
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    mask = next(folder.glob("stages/*-masks/masks/**/*.png"))
    content = mask.read_bytes()
    mask.write_bytes(content[:-20])
    before = finished_stages(folder)
    result = go("cam_baseline", out=folder)
    after = finished_stages(folder)
    assert {name for name in after if after[name] != before[name]} == {"masks"}
    assert (result.masks / mask.relative_to(next(folder.glob("stages/*-masks/masks")))).exists()
    assert mask.read_bytes() == content


def test_the_masks_of_a_killed_run_hold_no_leavings(finished, go, tmp_path):
    """A mask that was being written when the run was killed is not among the masks."""
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    stage = next(folder.glob("stages/[0-9][0-9]-masks"))
    manifest = json.loads((stage / "manifest.json").read_text())
    (stage / "manifest.json").unlink()
    started = {"record": manifest["record"], "seconds": 1.0, "began": 0.0}
    (stage / "started.json").write_text(json.dumps(started))
    (stage / "masks" / ".tmp-train_1.png").write_bytes(b"half a mask")
    (stage / "masks" / "train_1.png").unlink()
    go("cam_baseline", out=folder)
    again = json.loads((stage / "manifest.json").read_text())
    assert again["artefacts"] == manifest["artefacts"]
    assert not [p for p in folder.rglob("*") if p.name.startswith(".") and p.name != ".lock"]


def test_load_segmenter_from_a_folder_and_from_its_file(finished):
    file = next(finished.glob("stages/*-export/segmenter.safetensors"))
    image = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
    one, two = (load_segmenter(s, device="cpu") for s in (finished, str(file)))
    assert np.array_equal(one.predict(image), two.predict(image))
    with pytest.raises(ConfigError, match="device 'x' does not exist"):
        load_segmenter(finished, device="x")


def test_a_read_only_picture_can_be_predicted(finished):
    """What numpy.asarray makes of a Pillow image is not writable."""
    image = np.zeros((20, 30, 3), np.uint8)
    image.flags.writeable = False
    assert load_segmenter(finished, device="cpu").predict(image).shape == (20, 30)


def test_the_public_names():
    assert {name for name in tagseg.__all__ if not hasattr(tagseg, name)} == set()
    assert tagseg.train is train
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        tagseg.trian


# Late failures


def test_the_segmenter_is_kept_if_scoring_fails(scenes, tmp_path, monkeypatch):
    dataset, labels = scenes
    truth = GroundTruth(labels, dataset.classes)
    told = io.StringIO()

    def refuse(*args: object) -> None:
        raise MaskError("has another size", where="a.png")

    with monkeypatch.context() as patch:
        patch.setattr("tagseg.session.train.examine", refuse)
        with pytest.raises(MaskError, match="has another size"):
            quick(
                dataset,
                out=tmp_path / "run",
                ground_truth=truth,
                caller=Caller(Progress(Console(file=told, width=400))),
            )
    (file,) = tmp_path.glob("run/stages/*-export/segmenter.safetensors")
    assert f"the segmenter is trained, and kept: {file}" in told.getvalue()
    assert "scoring failed; once that is mended, the same command goes on there" in told.getvalue()
    assert load_segmenter(tmp_path / "run").classes == dataset.classes
    before = finished_stages(tmp_path / "run")
    assert quick(dataset, out=tmp_path / "run", ground_truth=truth).scores
    assert changed_stages(before, tmp_path / "run") == {"findings"}


def test_what_masks_can_be_trusted_is_said_last(scenes, tmp_path, monkeypatch):
    """In the order of the labels in the result, those not to be trusted first on the console."""
    classes = scenes[0].classes
    trusts = tuple(
        ClassTrust(name, 9, 0.75, 0.5, 1.0, ("only 9 photos",) if i in (1, 2) else ())
        for i, name in enumerate(classes)
    )
    recipe = find_recipe("cam_baseline")
    judging = replace(recipe, run=lambda *given: replace(recipe.run(*given), trust=trusts))
    monkeypatch.setattr("tagseg.session.train.find_recipe", lambda name: judging)
    told = io.StringIO()
    caller = Caller(Progress(Console(file=told, width=400)))
    assert quick(scenes[0], out=tmp_path / "run", caller=caller).trust == trusts
    summary, *lines = told.getvalue().splitlines()[-len(classes) - 1 :]
    assert summary.startswith(f"{len(classes) - 2} of {len(classes)} classes can be trusted")
    assert lines == [trust.line() for trust in (*trusts[1:3], trusts[0], *trusts[3:])]
    assert 'id="trust"' in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("out", "line"),
    [
        ("file", "cannot be used: Not a directory"),
        ("file/below/run", "cannot be used: Not a directory"),
        ("/dev/null/run", "cannot be used: Not a directory"),
        ("/proc/nothing/run", "cannot be used: "),
        ("r\udce9n", r"r\\udce9n: its path is not UTF-8; give another"),
        ("letters", r"is neither empty nor a run \(no workspace.json\)"),
    ],
)
def test_a_bad_place_is_found_before_photos_are_decoded(scenes, tmp_path, monkeypatch, out, line):
    (tmp_path / "file").write_text("")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("Dear Anna")
    monkeypatch.setattr("tagseg.session.train.audit", lambda *args, **more: pytest.fail("decoded"))
    with pytest.raises(WorkspaceError, match=line):
        quick(scenes[0], out=tmp_path / out)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.txt", "file", "letters"]


def test_long_names_and_names_that_are_not_utf8(scenes, tmp_path):
    """From the folders to the report, and once more."""
    for kind in ("cat", "dog", "h\udcf6rse"):
        os.mkdir(tmp_path / kind)
    names = ("cat/" + "写" * 82 + "007ab", "dog/caf\udce9 5", "h\udcf6rse/" + "x" * 251)
    for i, name in enumerate((*names, "cat/a", "dog/b", "h\udcf6rse/c")):
        PilImage.fromarray(scenes[0].image(i)).save(tmp_path / f"{name}.png")
    dataset = load_dataset(tmp_path)
    assert dataset.classes == ("cat", "dog", "h%F6rse")
    assert any(note.startswith("names that are not UTF-8: 3, ") for note in dataset.notes)
    result = quick(dataset, val=("dog/b",), out=tmp_path / "run")
    masks = {p.relative_to(result.masks).as_posix() for p in result.masks.rglob("*.png")}
    assert masks == {f"{name}.png" for name in dataset.names if name != "dog/b"}
    assert "h%F6rse" in result.report.read_text(encoding="utf-8")
    again = quick(dataset, val=("dog/b",), out=tmp_path / "run")
    assert again.report.read_bytes() == result.report.read_bytes()


def test_names_that_no_file_can_have_are_refused_at_once(scenes, monkeypatch):
    monkeypatch.setattr("tagseg.session.train.audit", lambda *args, **more: pytest.fail("decoded"))
    for name, error, line in (
        ("x" * 252, WorkspaceError, "has 256 bytes; names may have 255 there; rename the photo"),
        ("h\udcf6rse", DataError, "the photo's name 'h%F6rse' is no Unicode text; rename it"),
        ("\ud800", DataError, "the photo's name '%uD800' is no Unicode text"),
    ):
        with pytest.raises(error, match=line):
            quick(replace(scenes[0], names=(*scenes[0].names[1:], name)))
    with pytest.raises(TagError, match="the class name 'h%F6rse' is no Unicode text"):
        replace(scenes[0], classes=("h\udcf6rse", *scenes[0].classes[1:]))


# What rots on the disk


def what_a_run_gives(folder: Path) -> dict[str, str]:
    """Masks, segmenter and report of a run; its date and its times do not count."""
    kept = {}
    for pattern in ("stages/*-masks/masks/**/*.png", "stages/*-export/*.safetensors"):
        kept |= {path.name: path.read_bytes().hex() for path in sorted(folder.glob(pattern))}
    about = json.loads((folder / "run.json").read_text())
    return kept | {name: about[name] for name in ("recipe", "config", "classes")}


@pytest.mark.slow
def test_a_flipped_bit_in_any_file_is_found_and_mended(finished, go, tmp_path):
    """The same command makes what rotted, and leaves what the run gives as it was."""
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    whole = what_a_run_gives(folder)
    files = [p.relative_to(folder) for p in sorted(folder.rglob("*")) if p.is_file()]
    masks = [name for name in files if name.parent.name == "masks"]
    kept_for_show = {"report.html", ".lock", "metrics.jsonl"}
    for name in files:
        if name.name in kept_for_show or name in masks[1:]:
            continue
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 4
        (folder / name).write_bytes(content)
        go("cam_baseline", out=folder)
        assert what_a_run_gives(folder) == whole, name


def test_a_segmenter_that_rots_is_not_used(finished, tmp_path):
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    (file,) = folder.glob("stages/*-export/segmenter.safetensors")
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(8 * len(content), size=40):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(damaged)
        with pytest.raises(WeightsError):
            load_segmenter(folder)
    file.write_bytes(content)
    load_segmenter(folder)


def test_a_run_knows_where_its_photos_were_and_no_key_does(tmp_path):
    from_arrays, _ = scene_dataset(SCENES, 4, height=64, width=80)
    keys = []
    for name in ("a", "b"):
        home, run = tmp_path / name, tmp_path / "runs" / name
        home.mkdir()
        for index, photo in enumerate(from_arrays.names):
            PilImage.fromarray(from_arrays.image(index)).save(home / f"{photo}.png")
        tags = [f"{n},{from_arrays.classes[i % 2]}" for i, n in enumerate(from_arrays.names)]
        (home / "tags.csv").write_text("\n".join(["image,tags", *tags]))
        quick(load_dataset(home), out=run)
        work = Workspace.read(run)
        assert recorded_command(work, run, None, lambda words: {}).photos == home.resolve()
        keys.append([stage.key for stage in work.summary()])
    assert keys[0] == keys[1]


def test_processes_share_the_work_or_a_cluster_does():
    cpu, two = torch.device("cpu"), Paired(0, 2, Board(2))
    assert isinstance(_engine(Options(), 1, cpu, two), Together)
    assert isinstance(_engine(Options(), 1, cpu, ALONE), Local)
    with pytest.raises(ConfigError, match="several processes share the work, and engine is ray"):
        _engine(Options(engine="ray"), 1, cpu, two)


def test_networks_that_processes_share_are_not_compiled():
    assert make_setup(options(compiles=True)).execution.compiles
    with pytest.raises(ConfigError, match=r"several processes share .*; leave --compile out"):
        make_setup(options(compiles=True), ranks=Paired(0, 2, Board(2)))


def test_the_engine_is_chosen_before_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_setup(options()).engine == Local()
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"--engine ray needs Ray; pip install 'tagseg\[ray\]'"):
        make_setup(options(engine="ray"))


def test_a_run_keeps_an_index_and_looks_at_no_photo_again(
    scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    paths = [tmp_path / f"{i}.png" for i in range(len(scenes[0]))]
    for i, path in enumerate(paths):
        PilImage.fromarray(scenes[0].image(i)).save(path)
    dataset = replace(scenes[0], sources=paths)
    first = quick(dataset, out=tmp_path / "run")
    assert (tmp_path / "run" / "index.arrow").exists()
    monkeypatch.setattr("tagseg.data.audit._Looks.look_at", None)
    again = quick(dataset, out=tmp_path / "run")
    assert again.audit.to_dict() == first.audit.to_dict()
    assert again.masks == first.masks
