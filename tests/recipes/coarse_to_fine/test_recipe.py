"""Coarse to fine as a whole, by class and as foreground: what depends on what, interruptions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from rich.console import Console

from guided_runs import (
    LINE,
    RECURSION,
    TWO_TAGS,
    WITHOUT_CLASSIFIER,
    one_label_photos,
    write_maps,
)
from small_runs import (
    OPTIONS,
    Photos,
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
from tagseg.data.masks import decode_mask, read_mask
from tagseg.data.working import WorkingPhotos
from tagseg.errors import ConfigError, DataError, TagError, TagsegError, TrainingError
from tagseg.fuse.one_label import has_usable_foreground
from tagseg.maps import IGNORE, Labels
from tagseg.nets.aspp import AsppNet
from tagseg.nets.fpn import FpnNet
from tagseg.nets.student import StudentNet
from tagseg.priors.student import save_student, student_saliency
from tagseg.recipes import coarse_to_fine
from tagseg.recipes.coarse_to_fine import foreground as coarse_to_fine_foreground
from tagseg.refine.grabcut import enhanced_mask
from tagseg.run.progress import Progress
from tagseg.run.workspace import Workspace
from tagseg.session.export import load_segmenter
from tagseg.session.train import Caller, Result, make_config, train

FORMS = {"coarse_to_fine": "deeplab", "coarse_to_fine_foreground": "fpn"}
Go = Callable[..., Result]


@pytest.fixture(scope="module")
def few(photos) -> Dataset:
    return one_label_photos(photos)


@pytest.fixture(scope="module")
def train_few(few, photos) -> Go:
    def run(recipe: str, config: dict[str, Any], out: Path | None = None, **changed: Any) -> Result:
        usual = {"val": photos.val[:2], "ground_truth": photos.truth(), "options": OPTIONS}
        dataset = changed.pop("dataset", few)
        settings = {**WITHOUT_CLASSIFIER, **RECURSION, **config}
        return train(dataset, recipe, settings, out=out, **{**usual, **changed})

    return run


class Done(NamedTuple):
    """A finished run of a recipe, and the same with other settings."""

    recipe: str
    result: Result
    go: Go

    @property
    def form(self) -> str:
        return FORMS[self.recipe]


@pytest.fixture(scope="module", params=FORMS)
def done(request, train_few, tmp_path_factory) -> Done:
    recipe: str = request.param
    out = tmp_path_factory.mktemp("runs") / "run"

    def go(config: dict[str, Any], out: Path | None = None, **changed: Any) -> Result:
        return train_few(recipe, config, out, **changed)

    return Done(recipe, go({}, out), go)


@pytest.fixture
def folder(done, tmp_path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(done.result.folder, tmp_path / "run"))


def about(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def labels_in(folder: Path, stage: str) -> dict[str, Labels]:
    """The labels that a stage keeps, by photo."""
    work = Workspace.read(folder)
    maps = work.finished(stage).maps("labels")
    found = {name: decode_mask(maps.get_bytes(name)) for name in maps.names()}
    work.close()
    return found


def chosen_in(folder: Path, stage: str) -> list[int]:
    return Workspace.read(folder).finished(stage).load_json("found")


# Numbers


def test_the_papers_numbers():
    by_class, foreground = coarse_to_fine.Config(), coarse_to_fine_foreground.Config()
    for config in (by_class, foreground):
        assert config.saliency_source() == "student"
        assert (config.rounds, config.converged) == (5, 2.0)
        assert (config.initial, config.between) == ("enhanced", "grabcut")
    assert foreground.network == "fpn"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"network": "unet"}, "network is 'unet'; "),
        ({"network": ""}, "network is ''; "),
        ({"coarse_fraction": 0.0}, "coarse_fraction is 0.0; use over 0"),
    ],
)
def test_numbers_that_make_no_sense(values, line):
    kind = coarse_to_fine_foreground.Config
    for make in (lambda: make_config(kind, values), lambda: kind(**values)):
        with pytest.raises(ConfigError) as caught:
            make()
        assert str(caught.value).startswith(line)
        assert "\n" not in str(caught.value)


def test_a_field_of_the_other_recipe():
    with pytest.raises(ConfigError, match="the recipe has no field 'network'"):
        make_config(coarse_to_fine.Config, {"network": "fpn"})
    with pytest.raises(ConfigError, match="the recipe has no field 'masks_by_tags'"):
        make_config(coarse_to_fine_foreground.Config, {"masks_by_tags": True})


# Runs

END = ["masks", "predictions", "export", "findings"]


def round_of(form: str, number: int, *, rules: bool = True) -> list[str]:
    """Stages of a round, in order."""
    found = [f"{form}-{number}-photos"] if rules else []
    found += [f"{form}-{number}", f"masks-{number}"]
    found += [f"agreement-{number}"] if number > 1 else []
    return [*found, f"predictions-{number}"]


VARIANTS: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "plain": ({}, ["coarse-masks", "enhanced-masks"], ["coarse masks", "enhanced masks"]),
    "coarse, nothing, cold": (
        {"initial": "coarse", "between": "nothing", "start": "cold"},
        ["coarse-masks"],
        ["coarse masks"],
    ),
    "boxes, rules": (
        {"initial": "boxes", "between": "rules"},
        ["coarse-masks", "enhanced-masks", "box-masks"],
        ["coarse masks", "enhanced masks", "boxes of these"],
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_stages_and_predictions(done, folder, name):
    """Of the present settings: what the run had before is none of them."""
    config, first, titles = VARIANTS[name]
    made = done.go(config, folder)
    rules = config.get("between") != "nothing"
    rounds = [stage for n in (1, 2) for stage in round_of(done.form, n, rules=rules)]
    told = about(folder)
    assert [stage["name"] for stage in told["stages"]] == ["saliency", *first, *rounds, *END]
    by_round = [
        (title.format(number), split)
        for number in (1, 2)
        for title, split in (
            ("masks of the photos, round {}", "train"),
            ("segmenter + CRF, round {}", "val"),
        )
    ]
    assert [(score.stage, score.split) for score in made.scores] == [
        *((title, "train") for title in titles),
        *by_round,
        ("masks of the photos", "train"),
        ("segmenter", "val"),
        ("segmenter + CRF", "val"),
    ]
    by_title = {(score.stage, score.split): score.miou for score in made.scores}
    assert by_title["segmenter + CRF", "val"] == by_title["segmenter + CRF, round 2", "val"]
    assert told["curves"] == [f"{done.form}-{number}" for number in (1, 2)]
    assert [entry["round"] for entry in told["progression"]["rounds"]] == [1, 2]
    of_round = [["round-masks", "train"], ["segmenter", "val"]]
    assert [entry["predictions"] for entry in told["progression"]["rounds"]] == [of_round] * 2
    assert told["progression"]["reason"] == "Stopped after 2 rounds, as configured."


def test_foreground_is_scored_as_such(done, few):
    foreground = done.recipe == "coarse_to_fine_foreground"
    for score in done.result.scores:
        assert score.note.startswith("foreground against background") == foreground
        assert (score.iou is None) == foreground
        assert bool(score.foreground) == foreground
    classes = done.result.segmenter.classes
    assert classes == (("foreground",) if foreground else few.classes)
    page = done.result.report.read_text()
    assert "Stopped after 2 rounds, as configured." in page


def test_the_answer_is_the_last_rounds_network(done):
    trained = Workspace.read(done.result.folder).finished(f"{done.form}-2")
    assert same_weights(weights_of(done.result), dict(trained.load_tensors("segmenter")[0]))
    assert isinstance(done.result.segmenter.net, {"deeplab": AsppNet, "fpn": FpnNet}[done.form])
    loaded = load_segmenter(done.result.folder, device="cpu", precision="fp32")
    assert loaded.classes == done.result.segmenter.classes
    image = np.random.default_rng(0).integers(0, 256, (41, 57, 3), np.uint8)
    np.testing.assert_array_equal(
        loaded.probabilities(image), done.result.segmenter.probabilities(image)
    )


def test_masks_of_odd_photos(done, few, photos):
    """Of all training photos, of one row, and of which nothing is known, at their own size."""
    most = 1 if done.form == "fpn" else len(few.classes)
    assert read_mask(done.result.masks / f"{LINE}.png").shape == (1, 40)
    names = [name for name in few.names if name not in photos.val]
    assert len(list(done.result.masks.rglob("*.png"))) == len(names)
    for index, name in enumerate(names):
        mask = read_mask(done.result.masks / f"{name}.png")
        assert mask.shape == few.image(index).shape[:2]
        assert mask.max() <= most


@pytest.mark.parametrize("between", ["grabcut", "rules", "nothing"])
def test_rules_between_rounds(done, few, photos, folder, between):
    """Of the stored masks of a run: rule a before, b and c after each network (IV-D.2)."""
    made = done.go({"between": between, "rounds": 1}, folder)
    training = few.without(photos.val)
    working = WorkingPhotos(training, 64)
    single = training.known & (training.tags.sum(1) == 1)
    found, enhanced = labels_in(folder, "masks-1"), labels_in(folder, "enhanced-masks")
    settings, taking = make_config(coarse_to_fine.Config, RECURSION).grabcut(), []
    for indices, images in working.batches(16):
        for index, image, probs in zip(
            indices, images, made.segmenter.forward(images), strict=True
        ):
            name, label = training.names[index], 1
            if done.form == "deeplab":
                label = int(np.flatnonzero(training.tags[index])[0]) + 1 if single[index] else 0
            if label == 0:
                assert (found[name] == IGNORE).all()
                assert (enhanced[name] == IGNORE).all()
                continue
            expected = probs.argmax(0)
            if between != "nothing":
                own = expected == label
                if between == "grabcut":
                    own = enhanced_mask(image, own.astype(np.float32), settings)
                expected = np.where(own, label, 0)
            np.testing.assert_array_equal(found[name], expected)
            if has_usable_foreground(enhanced[name], (0.01, 0.8)):
                taking.append(index)
    assert found.keys() == set(training.names)
    if between == "nothing":
        assert f"{done.form}-1-photos" not in [stage["name"] for stage in about(folder)["stages"]]
    else:
        assert chosen_in(folder, f"{done.form}-1-photos") == sorted(taking)


def test_without_crf_and_validation_photos(done, folder):
    made = done.go({"refiner": "none", "rounds": 1}, folder)
    titles = [score.stage for score in made.scores if score.split == "val"]
    assert titles == ["segmenter, round 1", "segmenter"]
    made = done.go({"rounds": 1}, folder, val=())
    assert {score.split for score in made.scores} == {"train"}


def test_random_weights_and_low_precision(done):
    made = done.go({"rounds": 1}, options=options(weights="none", precision="bf16"), val=())
    assert all(torch.isfinite(tensor).all() for tensor in weights_of(made).values())


# One label per photo


def said_by(go: Go, *args: Any, **named: Any) -> str:
    said = StringIO()
    go(*args, caller=Caller(Progress(Console(file=said, width=500))), **named)
    return said.getvalue()


def test_photos_without_exactly_one_tag_are_left_out(train_few, few, photos):
    """Three of them; the note says so, and there is none where all photos have one tag."""
    said = said_by(train_few, "coarse_to_fine", {"rounds": 1}, val=(), ground_truth=None)
    wanted = "note: 5 of 10 training photos do not have exactly one tag; they are not learned from"
    assert wanted in said
    names = [name for i, name in enumerate(few.names) if few.known[i] and few.tags[i].sum() == 1]
    assert TWO_TAGS not in names
    said = said_by(
        train_few, "coarse_to_fine", {"rounds": 1},
        dataset=few.select(names), val=(), ground_truth=None,
    )  # fmt: skip
    assert "exactly one tag" not in said
    said = said_by(train_few, "coarse_to_fine_foreground", {"rounds": 1}, ground_truth=None)
    assert "exactly one tag" not in said


def test_no_photo_has_exactly_one_tag(train_few, few, tmp_path):
    tags = few.tags.copy()
    tags[few.tags.sum(1) == 1, 2:4] = True
    with pytest.raises(TagError) as caught:
        train_few("coarse_to_fine", {}, tmp_path / "run", dataset=replace(few, tags=tags))
    assert str(caught.value) == (
        "no photo has exactly one tag; tag photos with one class each for this recipe"
    )
    assert finished_stages(tmp_path / "run") == {}, "before any work"


def test_the_tags_of_other_photos_teach_nothing(train_few, few):
    """Two of the tags of the photo that has two change no mask and no weight."""
    results = []
    for classes in ((2, 5), (3, 4)):
        tags = few.tags.copy()
        tags[few.names.index(TWO_TAGS)] = np.isin(np.arange(tags.shape[1]), classes)
        dataset = replace(few, tags=tags)
        results.append(train_few("coarse_to_fine", {"rounds": 1}, dataset=dataset))
    assert same_weights(*map(weights_of, results))
    assert contents(results[0].masks) == contents(results[1].masks)


# No labels at all


def test_no_tag_is_read(train_few, few, photos):
    """Tags of the training photos among each other, and others known: nothing changes."""
    training = [i for i, name in enumerate(few.names) if name not in photos.val]
    tags, known = few.tags.copy(), few.known.copy()
    tags[training] = few.tags[training][::-1]
    known[training] = few.known[training][::-1]
    assert (tags != few.tags).any(1).sum() > 3
    one, other = (
        train_few("coarse_to_fine_foreground", {}, dataset=dataset)
        for dataset in (few, replace(few, tags=tags, known=known))
    )
    assert same_weights(weights_of(one), weights_of(other))
    assert contents(one.masks) == contents(other.masks)
    for stage in ("coarse-masks", "enhanced-masks", "masks-1", "masks-2"):
        ours, theirs = (labels_in(result.folder, stage) for result in (one, other))
        assert {*np.unique(np.concatenate([m.ravel() for m in ours.values()]))} <= {0, 1}
        for name, labels in ours.items():
            np.testing.assert_array_equal(labels, theirs[name])


def test_photos_without_any_known_tag(train_few, few):
    """Enough for the recipe that uses none; too few for the other."""
    nothing = replace(few, tags=few.tags & False, known=few.known & False)
    result = train_few("coarse_to_fine_foreground", {"rounds": 1}, dataset=nothing)
    assert len(labels_in(result.folder, "masks-1")) > 3
    with pytest.raises(DataError, match="no training photo can be used and has known tags"):
        train_few("coarse_to_fine", {}, dataset=nothing)


def test_the_pyramid_keeps_a_stride_that_is_asked_for(train_few):
    plain, finer = (
        train_few("coarse_to_fine_foreground", {"rounds": 1, "output_stride": stride}, val=())
        for stride in (None, 8)
    )
    strides = [made.segmenter.net.backbone.output_stride for made in (plain, finer)]
    assert strides == [16, 8]


# What depends on what


TWO = {*round_of("deeplab", 2), *END}
AFTER_ONE = {"masks-1", *TWO}
AFTER_MASKS = {*round_of("deeplab", 1), *TWO}
PHOTOS_1, PHOTOS_2 = ({f"deeplab-{number}-photos"} for number in (1, 2))
FIELDS: list[tuple[dict[str, Any], set[str]]] = [
    ({"converged": 0.999, "segmenter_epochs": 3.0}, set()),
    ({"rounds": 1}, set(END)),
    ({"rounds": 3}, {*round_of("deeplab", 3), *END}),
    ({"later_fraction": 1.0}, TWO - PHOTOS_2),
    ({"start": "cold"}, TWO - PHOTOS_2),
    ({"between": "rules"}, AFTER_ONE),
    # No photo is left out in the first round, whose network stays.
    ({"between": "nothing"}, AFTER_ONE - PHOTOS_2),
    ({"foreground_limits": (0.0, 1.0)}, PHOTOS_1 | TWO),
    # Neither here, so that the network stays; of which photos take part, nothing is kept.
    ({"filter_first": False}, set()),
    ({"refiner": "none"}, {"predictions-1", "predictions-2", *END}),
    ({"grabcut_iterations": 7}, {"enhanced-masks", *AFTER_MASKS}),
    ({"coarse_fraction": 0.4}, {"coarse-masks", "findings"}),
    ({"segmenter_iterations": 3}, AFTER_MASKS - PHOTOS_1),
    ({"resize_range": (0.9, 1.1)}, AFTER_MASKS - PHOTOS_1),
]


@pytest.mark.parametrize("done", ["coarse_to_fine"], indirect=True)
@pytest.mark.parametrize(
    ("config", "expected"),
    FIELDS,
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else str(value),
)
def test_a_changed_field(done, folder, config, expected):
    before = finished_stages(folder)
    done.go(config, folder)
    assert changed_stages(before, folder) == expected


@pytest.mark.parametrize("done", ["coarse_to_fine_foreground"], indirect=True)
def test_another_network(done, folder):
    """DeepLab in place of the pyramid; the first masks stay."""
    before = finished_stages(folder)
    made = done.go({"network": "deeplab", "foreground_limits": (0.0, 1.0)}, folder)
    rounds = {*round_of("deeplab", 1), *round_of("deeplab", 2)}
    assert changed_stages(before, folder) == {*rounds, *END}
    assert isinstance(made.segmenter.net, AsppNet)
    assert made.segmenter.classes == ("foreground",)
    loaded = load_segmenter(folder, device="cpu", precision="fp32")
    image = np.random.default_rng(1).integers(0, 256, (64, 40, 3), np.uint8)
    labels = loaded.predict(image)
    np.testing.assert_array_equal(labels, made.segmenter.predict(image))
    assert labels.max() <= 1


def test_other_masks_to_begin_with_keep_those_there_are(done, folder):
    before = finished_stages(folder)
    done.go({"initial": "boxes", "rounds": 1}, folder)
    changed = changed_stages(before, folder)
    assert changed == {"box-masks", *round_of(done.form, 1), *END}


def test_more_rounds_go_on_from_those_there_are(done, folder):
    """And give what as many at once give."""
    more = done.go({"rounds": 3}, folder)
    again = done.go({"rounds": 3}, folder.with_name("fresh"))
    assert same_weights(weights_of(more), weights_of(again))
    assert contents(more.masks) == contents(again.masks)


def test_the_same_call_again_changes_nothing(done, folder):
    said = said_by(done.go, {}, folder)
    assert "the run was finished before; nothing had to be done" in said
    before = contents(done.result.folder)
    changed = {name for name, content in contents(folder).items() if content != before.get(name)}
    assert {Path(name).name for name in changed} <= {".lock", "workspace.json"}


# Interrupted

CUT = {  # what is called for each photo or iteration of a stage
    "coarse-masks": "tagseg.recipes.coarse_to_fine.masks.salient_mask",
    "enhanced-masks": "tagseg.recipes.coarse_to_fine.masks.enhanced_mask",
    "{}-1-photos": "tagseg.recipes.coarse_to_fine.rounds.has_usable_foreground",
    "{}-1": "tagseg.losses.pixel._mean_over",
    "masks-1": "tagseg.recipes.coarse_to_fine.rounds.enhanced_mask",
    "{}-2": "tagseg.losses.pixel._mean_over",
    "masks-2": "tagseg.recipes.coarse_to_fine.rounds.enhanced_mask",
    "predictions-2": "tagseg.stages.segmenter.encode_mask",
    "masks": "tagseg.stages.segmenter.refined_by_tags",
}
WHOLE = {"later_fraction": 1.0}  # two iterations in the second round, too


def test_interrupted_in_each_stage(done, folder, tmp_path, monkeypatch):
    """Cut short again and again, later each time, it ends as the undisturbed run."""
    expected = done.go(WHOLE, folder)
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY", 0.0)
    run = tmp_path / "cut"
    for stage, function in CUT.items():
        name = stage.format(done.form)
        finished = finished_stages(run)
        cut_short(lambda: done.go(WHOLE, run), run, name, function)
        (at_work,) = run.glob("stages/*/started.json")
        assert at_work.parent.name[3:] == name
        assert all(finished_stages(run)[stage] == at for stage, at in finished.items())
    made = done.go(WHOLE, run)
    assert same_weights(weights_of(made), weights_of(expected))
    assert contents(made.masks) == contents(expected.masks)
    assert about(run)["progression"] == about(folder)["progression"]
    for stage in ("coarse-masks", "enhanced-masks", "masks-1", "masks-2"):
        ours, theirs = labels_in(run, stage), labels_in(folder, stage)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(labels, theirs[name]) for name, labels in ours.items())


# Sources of coarse masks


def test_masks_by_a_student(train_few, few, tmp_path):
    """Of a file; which one it is decides on the masks, not where it lies."""
    torch.manual_seed(0)
    net, path = StudentNet(width=4, last=1, branch=2, rank=4), tmp_path / "student.safetensors"
    save_student(net, path)
    config = {"saliency": "auto", "student": str(path), "rounds": 1, "initial": "coarse"}
    config["foreground_limits"] = (0.0, 1.0)
    out = tmp_path / "run"
    train_few("coarse_to_fine_foreground", config, out)
    found = labels_in(out, "coarse-masks")
    image = WorkingPhotos(few, 64).image(1)
    soft = student_saliency(net, image)
    assert np.mean(found[few.names[1]] == (soft >= 0.5 * soft.max())) > 0.95  # kept in 255 levels
    before = finished_stages(out)
    moved = path.rename(tmp_path / "s.safetensors")
    train_few("coarse_to_fine_foreground", {**config, "student": str(moved)}, out)
    assert changed_stages(before, out) == set()


def test_given_maps(train_few, few, photos: Photos, tmp_path):
    maps = write_maps(tmp_path / "maps", few, photos)
    config = {"saliency": "auto", "saliency_maps": str(maps), "rounds": 1}
    made = train_few("coarse_to_fine", config)
    row = next(score for score in made.scores if score.stage == "coarse masks")
    other = train_few("coarse_to_fine", {"rounds": 1})
    assert row.miou > next(s for s in other.scores if s.stage == "coarse masks").miou


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"saliency": "auto", "saliency_maps": "no such thing"}, "this folder does not exist"),
        ({"saliency": "auto", "student": "no such thing"}, "no such student file"),
        ({"saliency": "auto", "saliency_forest": "no such thing"}, "no such thing"),
    ],
    ids=["maps", "student", "forest"],
)
def test_a_missing_file_shows_before_any_work(done, tmp_path, config, line):
    with pytest.raises(TagsegError, match=line) as caught:
        done.go(config, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert finished_stages(tmp_path / "run") == {}


def test_no_mask_is_within_the_limits(done, folder):
    with pytest.raises(
        TrainingError, match=r"round 1 none has 99 % to 99\.5 % foreground; "
    ) as caught:
        done.go({"foreground_limits": (0.99, 0.995)}, folder)
    assert "\n" not in str(caught.value)
