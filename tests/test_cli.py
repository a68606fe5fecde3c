"""The command line as people use it, verb by verb."""

from __future__ import annotations

import errno
import inspect
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

import tagseg as package
from guided_runs import MINING, RECURSION, write_boxes
from photo_trees import masks, photos
from small_reviews import review_of_masks
from small_runs import (
    DISTINCT,
    OPTION_FLAGS,
    QUICK_FLAGS,
    Said,
    contents,
    quick_flags,
    tagseg,
)
from tagseg import cli
from tagseg.data.finding import OUTPUT_MARKER
from tagseg.data.masks import read_mask, write_mask
from tagseg.data.scenes import SCENES
from tagseg.recipes.catalog import RECIPES

QUICK_FIELDS = QUICK_FLAGS[len(OPTION_FLAGS) :]
VERBS = (
    *("train", "check", "predict", "evaluate", "report", "tables", "recipes", "train-saliency"),
    "demo",
)


@pytest.fixture(scope="module")
def finished(scenes, tmp_path_factory) -> tuple[Path, Said]:
    """Folder of a run on the scenes, and what the command said."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, tagseg(*training(scenes, out))


def training(scenes: Path, out: Path, *more: object) -> tuple[object, ...]:
    truth = scenes / "SegmentationClass"
    words = ("train", scenes, "--out", out, "--val", "val", "--ground-truth", truth)
    if "--recipe" not in more:
        more = ("--recipe", "builtin_priors", *more)
    recipe = more[more.index("--recipe") + 1]
    return (*words, *quick_flags(str(recipe)), *more)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_is_quick_and_imports_no_torch():
    script = (
        "import sys, tagseg.cli; sys.argv = ['tagseg', *sys.argv[1:]]\n"
        "try: tagseg.cli.main()\n"
        "finally: print(*(m for m in ('torch', 'numpy', 'cv2', 'scipy') if m in sys.modules))"
    )
    for words in (["--help"], ["train", "--help"], ["--version"], []):
        seconds = []
        for _ in range(3):  # processor time: other work may run beside
            begun = _children_seconds()
            done = subprocess.run(
                [sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=60
            )
            seconds.append(_children_seconds() - begun)
        assert done.returncode == 0
        assert done.stderr == ""
        assert done.stdout.splitlines()[-1] == "", "heavy modules were imported"
        assert min(seconds) < 0.5


def test_help_of_every_verb():
    told = tagseg("--help")
    assert told.status == 0
    assert tagseg() == told
    for verb in VERBS:
        assert re.search(rf"^  {verb} ", told.out, re.MULTILINE)
        own = tagseg(verb, "--help")
        assert own.status == 0
        assert own.err == ""
        options = re.findall(r"^  (--\w[\w-]*).*?$", own.out, re.MULTILINE)
        assert options, verb
        assert "TEXT" not in own.out


def test_version():
    assert tagseg("--version") == Said(0, f"tagseg {package.__version__}\n", "")


def test_as_a_module(tmp_path):
    command = [sys.executable, "-m", "tagseg", "recipes"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == tagseg("recipes").out


def test_recipes():
    told = tagseg("recipes")
    assert told.status == 0
    names = [line for line in told.out.splitlines() if not line.startswith(" ")]
    assert names == list(RECIPES)
    assert "Saleh" in told.out


@pytest.mark.parametrize("name", RECIPES)
def test_fields_of_a_recipe(name):
    told = tagseg("recipes", "--fields", name)
    assert told.status == 0
    assert "photo_side = none\n    longest side of photos" in told.out
    wide = name in ("guided", "mcof", "coarse_to_fine", "coarse_to_fine_foreground")
    assert f"crf_bilateral = {'4.0,121.0,5.0' if wide else '10.0,80.0,13.0'}\n" in told.out
    assert "refiner = crf\n" in told.out
    without = ("full_supervision", "coarse_to_fine", "coarse_to_fine_foreground")
    assert ("classifier_iterations = none\n" in told.out) == (name not in without)


def test_fields_show_the_preset_whole():
    told = tagseg("recipes", "--fields", "builtin_priors").out
    assert (
        "alpha = 0.5\n    weight of the foreground prior (3.1.2, Eq. 3)\n    paper: 0.5 (" in told
    )
    assert "become 0 and 1; paper: 0 (assumed)\n    paper: 0.0 (3.1.1: scaled" in told
    assert (
        "crf_iterations = 10\n    mean-field iterations (assumed)\n    paper: open, 3.1.3" in told
    )
    assert "    paper: -, of tagseg's segmenter with skips\n" in told
    assert told.splitlines()[-1].endswith(" open; --backbone vgg16 (3.1.1, 4.2.1, 4.2.2)")
    assert "paper: " not in tagseg("recipes", "--fields", "union").out.replace("; paper: 0", "")


def test_train_tells_what_it_found_and_where_it_is(finished):
    out, said = finished
    assert said.status == 0
    lines = said.out.splitlines()
    scores = [line for line in lines if line.startswith("mIoU")]
    assert len(scores) == 7
    assert all(re.fullmatch(r"mIoU +\d+\.\d  (train|val  )  .+, (24|8) photos", s) for s in scores)
    assert "note: class 'car' has only 3 photos" in lines
    masks = Path(next(line for line in lines if line.startswith("masks:")).split(maxsplit=1)[1])
    assert sorted(p.name for p in masks.iterdir()) == [f"train_{i:05d}.png" for i in range(24)]
    assert lines[-1] == f"report: {out / 'report.html'}"
    assert "training the segmenter: 3 done" in said.err


def test_train_again_changes_nothing(finished, scenes):
    out, said = finished
    before = contents(out)
    again = tagseg(*training(scenes, out))
    assert (again.status, again.out) == (0, said.out)
    # The record of the command differs from that of pytest's own first call in nothing.
    assert contents(out) == before


def test_the_report_repeats_the_command(finished, scenes):
    page = (finished[0] / "report.html").read_text()
    assert f"tagseg train {scenes.name} --out {finished[0].name}" in page


def test_train_with_a_review(finished, scenes, tmp_path):
    """And what reads such a run: the report, masks for other tools, masks of new photos."""
    run = Path(shutil.copytree(finished[0], tmp_path / "run"))
    about = json.loads((run / "run.json").read_text())
    sure = {
        name: np.full_like(read_mask(masks_of(run) / f"{name}.png"), label)
        for label, name in enumerate(("train_00000", "train_00001"), start=1)
    }
    review = review_of_masks(run, about["classes"], sure, ["train_00007"])
    said = tagseg(*training(scenes, run), "--review", review, "--review-weight", "2")
    assert said.status == 0
    assert "review: 3 training photos were looked at; masks: 2 right, 0 picked" in said.err
    assert "stage segmenter runs again" in said.err
    assert "stage classifier" not in said.err
    assert "masks of the photos (known tags; 2 accepted by a person), 24 photos" in said.out
    page = Path(tagseg("report", run).out.split()[-1]).read_text()
    assert "Reviewed by a person:" in page
    assert "drew their photos 2 times as often as unsure" in page
    exported = tagseg("export", run, "--to", "png", "--out", tmp_path / "png", "--photos", scenes)
    assert exported.status == 0, exported.err
    found = [p for p in (tmp_path / "png").rglob("train_00001.png") if read_mask(p).max() == 2]
    assert len(found) == 1
    made = tagseg(
        "predict", run, scenes / "JPEGImages", "--out", tmp_path / "new", "--device", "cpu"
    )
    assert made.status == 0
    assert len(list((tmp_path / "new").rglob("*.png"))) == 32


def masks_of(run: Path) -> Path:
    (folder,) = run.glob("stages/*-masks/masks")
    return folder


def test_a_weight_without_a_review(scenes, tmp_path):
    said = tagseg(*training(scenes, tmp_path / "run"), "--review-weight", "2")
    assert said.status == 2
    assert "--review-weight counts masks of a review; give --review FILE" in said.err


def test_train_and_val_lists_by_name_and_by_path(scenes, tmp_path):
    some = tmp_path / "some.txt"
    some.write_text("\n".join(f"train_{i:05d}" for i in range(0, 24, 2)))
    out = tmp_path / "run"
    words = ("train", scenes, "--out", out, "--train", some, "--val", "val", "--recipe")
    said = tagseg(*words, "cam_baseline", *QUICK_FLAGS)
    assert said.status == 0
    assert "quality was not measured: no ground truth was given" in said.out
    masks = list(out.glob("stages/*-masks/masks/*.png"))
    assert sorted(p.stem for p in masks) == some.read_text().splitlines()
    about = json.loads((out / "run.json").read_text())
    assert about["photos"] == 12
    assert about["audit"][0] == "20 photos, 8 classes"


def test_train_on_csv_with_unlisted_photos(scenes, tmp_path):
    """Photos in a plain folder, tags elsewhere, some photos without an entry."""
    rows = (scenes / "tags.csv").read_text().splitlines()[:13]
    (tmp_path / "my tags.csv").write_text("\n".join(rows))
    said = tagseg(
        *("train", scenes / "JPEGImages", "--tags", tmp_path / "my tags.csv"),
        *("--classes", scenes / "classes.txt", "--untagged", "negative"),
        *("--out", tmp_path / "run", "--recipe", "cam_baseline", *QUICK_FLAGS),
    )
    assert said.status == 0
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["photos"] == 12
    assert "left out, because not in the tag file: 20" in about["audit"]


def another_set(scenes: Path, folder: Path) -> Path:
    """The scenes to validate with as a data set of its own: other class order, no tags."""
    classes = ("Unicorn", *(name.upper() for name in reversed(SCENES.classes)))
    (folder / "masks").mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(classes))
    ids = np.r_[0, range(len(SCENES.classes) + 1, 1, -1)].astype(np.uint8)
    ids = np.r_[ids, np.full(256 - len(ids), 255, np.uint8)]
    for i in range(8):
        name = f"val_{i:05d}"
        shutil.copy(scenes / "JPEGImages" / f"{name}.jpg", folder)
        labels = read_mask(scenes / "SegmentationClass" / f"{name}.png")
        write_mask(folder / "masks" / f"{name}.png", ids[labels])
    return folder


def _scores(said: Said) -> list[str]:
    return [line for line in said.out.splitlines() if line.startswith("mIoU")]


def test_another_data_set_as_target(scenes, tmp_path):
    """Other names, other order of classes, no tags: the scores are the same to the digit."""
    target = another_set(scenes, tmp_path / "other")
    words = ("train", scenes, "--train", "train", "--recipe", "cam_baseline", *QUICK_FLAGS)
    truth = scenes / "SegmentationClass"
    plain = tagseg(*words, "--out", tmp_path / "a", "--val", "val", "--ground-truth", truth)
    words = (*words, "--target", target, "--target-ground-truth", target / "masks")
    both = tagseg(*words, "--out", tmp_path / "b", "--ground-truth", truth)
    alone = tagseg(*words, "--out", tmp_path / "c")
    assert (plain.status, both.status, alone.status) == (0, 0, 0)
    of_val = [line for line in _scores(plain) if "  val  " in line]
    assert of_val
    assert _scores(both) == _scores(plain)
    assert _scores(alone) == of_val
    note = "note: classes of the target that are not learned count as background: Unicorn"
    assert note in alone.err.splitlines()
    page = (tmp_path / "b" / "report.html").read_text()
    assert "target/val_0000" in page
    (tmp_path / "some.txt").write_text("val_00003.jpg\nval_00001\n")
    told = tagseg("check", scenes, "--target", target, "--val", tmp_path / "some.txt")
    assert told.out.startswith("34 photos, 8 classes\n")
    assert re.search("without tags: [0-9]+ negative, 2 unknown", told.out)
    assert "val_00001, target/val_00001; with different tags; both in training and in" in told.out


def test_imagenets_folders_and_another_data_set(scenes, tmp_path):
    rows = (scenes / "tags.csv").read_text().splitlines()[1:25]
    first = {row.split(",")[0]: row.split(",")[1].split(";")[0] for row in rows}
    wnids = {name: f"n{i:08d}" for i, name in enumerate(sorted({*first.values()} - {""}), 5)}
    for photo, name in first.items():
        file = tmp_path / "in" / "train" / wnids.get(name, "n00000001") / f"{Path(photo).stem}.JPEG"
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scenes / "JPEGImages" / f"{Path(photo).stem}.jpg", file)
    listing = tmp_path / "synsets.txt"
    listing.write_text("".join(f"{wnid} {name}  # of mine\n" for name, wnid in wnids.items()))
    words = (tmp_path / "in", "--synsets", listing, "--target", scenes, "--val", "val")
    told = tagseg("check", *words)
    n_first = sum(name != "" for name in first.values())
    assert told.out.startswith(f"{n_first + 8} photos, {len(wnids)} classes\n")
    assert f"left out, because not in the tag file: {24 - n_first}" in told.out
    said = tagseg(
        *("train", *words, "--target-ground-truth", scenes / "SegmentationClass"),
        *("--recipe", "cam_baseline", *QUICK_FLAGS, "--out", tmp_path / "run"),
    )
    assert said.status == 0
    assert all(line.endswith(" 8 photos") for line in _scores(said))
    assert _scores(said)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--target-tags", "t.csv"], "--target-tags is given without --target; give --target DIR"),
        (["--target-layout", "voc"], "--target-layout is given without --target"),
        (["--target-ground-truth", "m"], "--target-ground-truth is given without --target"),
        (["--target", "no"], "no: this folder does not exist; check the path"),
        (["--target", "{scenes}", "--val", "vla"], "{scenes}: there is no list 'vla'; give a list"),
        (["--target", "{other}"], "the target has no class of those to learn: it has aeroplan"),
        (
            ["--target", "{scenes}", "--target-ground-truth", "no"],
            "no: this folder does not exist; check the path",
        ),
        (["--layout", "imagenet"], "layout 'imagenet' needs a list of synsets; give --synsets F"),
        (["--synsets", "no"], "no: cannot be read: No such file or directory; check the path"),
        (
            ["--synsets", "{scenes}/classes.txt"],
            "{scenes}/classes.txt, line 1: 'background' is not the id of a noun synset; write ",
        ),
        (["--layout", "object_discovery"], "{scenes}: no photos in folders Airplane, Car, Horse;"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_sources_and_targets(scenes, tmp_path, monkeypatch, flags, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    shutil.copy(scenes / "JPEGImages" / "val_00000.jpg", tmp_path / "other")
    (tmp_path / "other" / "classes.txt").write_text("aeroplan\n")
    places = {"scenes": scenes, "other": tmp_path / "other"}
    said = tagseg("train", scenes, "--out", "run", *(flag.format(**places) for flag in flags))
    assert (said.status, said.out) == (2, "")
    understood = ("read as ", "target: read as ")
    told = [text for text in said.err.splitlines() if not text.startswith(understood)]
    assert len(told) == 1
    assert told[0].startswith("tagseg: error: " + line.format(**places))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def asked(monkeypatch) -> list[tuple[str, dict[str, object]]]:
    """Recipe and values of each training that a command asks for; none begins."""
    given: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(
        cli, "_train_and_tell", lambda recipe, values, *rest: given.append((recipe, values))
    )
    return given


def test_the_default_is_union(scenes, tmp_path, asked):
    assert tagseg("train", scenes, "--out", tmp_path / "run").status == 0
    words = ("demo", "--train", 2, "--val", 1, "--out", tmp_path / "demo")
    said = tagseg(*words)
    assert said.status == 0
    assert "note: with the settings of --fast" in said.out
    assert asked == [("union", {}), ("union", dict(RECIPES["union"].demo.settings))]
    assert inspect.signature(package.train).parameters["recipe"].default == "union"


def test_fast_values_lie_under_those_that_are_set(scenes, tmp_path, asked):
    fast = RECIPES["union"].fast
    words = ("train", scenes, "--out", tmp_path / "run", "--fast")
    said = tagseg(*words, "--set", "rounds=3", "--set", "cam_scales=1,0.5")
    assert said.status == 0
    line = "fast: classifier_iterations=150, classifier_crop=320, fusion_thresholds=0.3,0.5, "
    (told,) = [text for text in said.err.splitlines() if text.startswith("fast: ")]
    assert told.startswith(line)
    assert asked == [("union", {**fast, "rounds": 3, "cam_scales": (1.0, 0.5)})]


def test_fast_values_that_would_do_nothing_are_left_out(scenes, tmp_path, asked):
    words = ("train", scenes, "--out", tmp_path / "run", "--fast")
    said = tagseg(*words, "--set", "segmenter=published")
    assert said.status == 0
    ((_, values),) = asked
    assert values["rounds"] == 1
    assert not [name for name in values if name.startswith("pyramid_")]
    assert "pyramid" not in said.err


def test_how_far_tags_are_believed_is_a_field(scenes, tmp_path, asked):
    words = ("train", scenes, "--out", tmp_path / "run")
    assert tagseg(*words, "--tags-are", "noisy", "--set", "tag_loss=hill").status == 0
    assert tagseg(*words, "--tags-are", "complete").status == 0
    values = [values for _, values in asked]
    assert values == [{"tags_are": "noisy", "tag_loss": "hill"}, {"tags_are": "complete"}]
    said = tagseg(*words, "--tags-are", "noisy", "--recipe", "full_supervision")
    assert (said.status, len(asked)) == (2, 2)
    assert "--tags-are says nothing to recipe full_supervision" in said.err


def test_check_counts_what_is_marked(tmp_path):
    photos(tmp_path, *(f"{i}.png" for i in range(4)))
    table = "image,tags\n0.png,cat;?dog\n1.png,dog;-cat\n2.png,cat;?dog\n3.png,dog\n"
    (tmp_path / "tags.csv").write_text(table)
    said = tagseg("check", tmp_path)
    assert said.status == 0
    assert "said of classes in photos: 2 not known, 1 surely absent" in said.out.splitlines()
    told = "marked tags: 2 with ? (nobody knows), 1 with - (surely absent)"
    assert any(told in line for line in (said.out + said.err).splitlines())
    found = json.loads(tagseg("check", tmp_path, "--json").out)
    assert (found["unsure"], found["absent"]) == (2, 1)


def test_percentage_of_full_supervision(scenes, finished, tmp_path):
    upper = tmp_path / "upper"
    assert tagseg(*training(scenes, upper, "--recipe", "full_supervision")).status == 0
    told = tagseg("report", finished[0], "--full-supervision", upper)
    assert told == Said(0, f"{finished[0] / 'report.html'}\n", "")
    with_it = (finished[0] / "report.html").read_text()
    assert re.search(r"Full supervision, .+ reaches \d+\.\d % mIoU on val", with_it)
    assert tagseg("report", finished[0]).status == 0  # it is remembered
    assert (finished[0] / "report.html").read_text() == with_it


def test_check(scenes):
    told = tagseg("check", scenes, "--val", "val", "--threads", "1")
    assert told.status == 0
    assert told.out.startswith("32 photos, 8 classes\nphotos per class: aeroplane ")
    assert "96 x 128 (smallest)" in told.out
    as_json = tagseg("check", scenes, "--val", "val", "--threads", "1", "--json")
    assert json.loads(as_json.out)["photos"] == 32
    understood, progress = as_json.err.splitlines()[:2]
    assert understood == "read as voc: 32 photos in JPEGImages, tags from Annotations"
    assert progress.startswith("checking the photos")


def test_check_says_what_is_no_photo_and_what_splits_there_are(tmp_path):
    photos(tmp_path, *(f"{split}/{c}/{split}.jpg" for split in ("train", "valid") for c in "ab"))
    masks(tmp_path, "train/a/train_mask.png")
    words = ("check", tmp_path, "--threads", "1")
    told = tagseg(*words)
    assert told.out.startswith("4 photos, 2 classes\nphotos per class: a 2, b 2\n")
    assert told.err.splitlines()[:3] == [
        "read as split_folders: 4 photos, the folder in that of the split is the class",
        "left out: 1 picture as masks, such as train/a/train_mask.png beside train/a/train.jpg "
        "(--ground-truth DIR scores with masks)",
        "splits: train 2 (training), valid 2 (validation); --train, --val take these names; "
        "--train all trains on all but --val",
    ]
    assert tagseg(*words, "--layout", "folders").out.startswith("4 photos, 2 classes\nphotos per ")
    some = tagseg(*words, "--exclude", "valid", "--exclude", "!*_mask*")
    assert some.out.startswith("3 photos, 2 classes")


def test_names_of_files_cannot_steer_the_terminal(tmp_path):
    for place in ("cat/a", "cat/b", "dog/c"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        PilImage.new("RGB", (40, 40)).save(tmp_path / f"{place}.png")
    (tmp_path / "dog" / "evil\x1b[2J\r.jpg").write_bytes(b"no picture")
    said = tagseg("check", tmp_path, "--allow-skipped", "0.5")
    assert "evil\\u001b[2J" in said.out + said.err
    assert not set("\x1b\r") & set(said.out + said.err)


@pytest.fixture
def one_class(tmp_path) -> Path:
    """Photos of one class, masks of 0 and 255 and class lists, in a folder."""
    rows = ["image,tags"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "masks").mkdir()
    for i in range(12):
        photo = np.full((40, 60, 3), 90 + i, np.uint8)
        mask = np.zeros((40, 60), np.uint8)
        mask[5 : 20 + i, 10:30] = 255
        PilImage.fromarray(photo).save(tmp_path / "photos" / f"{i}.png")
        PilImage.fromarray(mask).save(tmp_path / "masks" / f"{i}.png")
        rows.append(f"{i}.png,cat")
    (tmp_path / "photos" / "tags.csv").write_text("\n".join(rows))
    (tmp_path / "one.txt").write_text("Background\ncat\n")
    (tmp_path / "numbered.txt").write_text("255: cat\n")
    return tmp_path


def test_check_with_ground_truth(one_class):
    words = ("check", one_class / "photos", "--ground-truth", one_class / "masks", "--classes")
    said = tagseg(*words, one_class / "one.txt")
    assert said.status == 2
    assert "one.txt: 'Background' is no class; in masks 0 background, 1 cat" in said.err
    last = said.err.splitlines()[-1]
    assert last.startswith(f"tagseg: error: {one_class / 'masks'}: its 12 masks hold nothing but 0")
    assert f"error: {one_class / 'masks'}: its 12 masks" in said.out
    said = tagseg(*words, one_class / "numbered.txt")
    assert said.status == 0
    assert "ground truth: 12 of 12 photos have a mask; 0 masks are of no photo here" in said.out
    assert "masks per class: cat 12" in said.out
    said = tagseg(*words, one_class / "numbered.txt", "--json")
    assert json.loads(said.out)["ground_truth"]["masks_per_class"] == {"cat": 12}


def test_evaluate_with_the_numbers_of_the_class_list(one_class):
    predicted = one_class / "predicted"
    predicted.mkdir()
    for path in (one_class / "masks").iterdir():
        write_mask(predicted / path.name, (read_mask(path) > 0).astype(np.uint8))
    words = ("evaluate", predicted, one_class / "masks", "--classes")
    said = tagseg(*words, one_class / "one.txt")
    assert said.status == 2
    assert "write the line '255: cat' into the class list (--classes FILE)" in said.err
    assert not (one_class / "scores.json").exists()
    said = tagseg(*words, one_class / "numbered.txt")
    assert said.status == 0
    assert json.loads((one_class / "scores.json").read_text())["miou"] == 1


def test_evaluate_colours_of_another_tool(one_class):
    colours = np.array([(0, 0, 0), (48, 112, 32)], np.uint8)
    predicted, drawn = one_class / "predicted", one_class / "SegmentationClass"
    predicted.mkdir()
    drawn.mkdir()
    for path in (one_class / "masks").iterdir():
        labels = (read_mask(path) > 0).astype(np.uint8)
        write_mask(predicted / path.name, labels)
        PilImage.fromarray(colours[labels]).save(drawn / path.name)
    words = ("evaluate", predicted, drawn, "--classes", one_class / "one.txt")
    said = tagseg(*words)
    assert said.status == 2
    assert "colour (48, 112, 32) is not of the VOC palette" in said.err
    (one_class / "mine.csv").write_text("name,r,g,b\ncat,48,112,32\n")
    assert tagseg(*words, "--colours", one_class / "mine.csv").status == 0
    (drawn / "labelmap.txt").write_text("cat:48,112,32::\nbackground:0,0,0::\n")
    said = tagseg(*words)
    assert said.status == 0
    assert "labelmap.txt: says which colour is which class" in said.err
    assert json.loads((one_class / "scores.json").read_text())["miou"] == 1


def test_predict_a_folder(finished, scenes, tmp_path):
    photos = tmp_path / "photos"
    (photos / "sub").mkdir(parents=True)
    shapes = {"wide": (60, 150), "sub/high": (90, 40), "grey": (33, 44)}
    for name, shape in shapes.items():
        pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
        picture = PilImage.fromarray(pixels[..., 0] if name == "grey" else pixels)
        picture.save(photos / f"{name}.jpg")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff oh")
    before = contents(photos)
    words = ("predict", finished[0], photos, "--out", tmp_path / "masks", "--threads", "1")
    said = tagseg(*words, "--overlays", tmp_path / "over")
    assert said.status == 0
    assert said.out == f"3 masks in {tmp_path / 'masks'}, 1 photos skipped\n"
    assert f"skipped: {photos / 'broken.jpg'}: the JPEG file is cut short or damaged" in said.err
    assert sorted(contents(tmp_path / "masks")) == [
        *(OUTPUT_MARKER, "grey.png", "sub/high.png", "wide.png")
    ]
    assert sorted(contents(tmp_path / "over")) == [
        *(OUTPUT_MARKER, "grey.jpg", "sub/high.jpg", "wide.jpg")
    ]
    for name, shape in shapes.items():
        assert read_mask(tmp_path / "masks" / f"{name}.png").shape == shape
        with PilImage.open(tmp_path / "masks" / f"{name}.png") as mask:
            assert mask.mode == "P"
        with PilImage.open(tmp_path / "over" / f"{name}.jpg") as over:
            assert (over.size, over.mode) == (shape[::-1], "RGB")
    assert contents(photos) == before
    first = contents(tmp_path / "masks")
    assert tagseg(*words).status == 0
    assert contents(tmp_path / "masks") == first


def test_predict_agrees_with_the_runs_own_predictions(finished, scenes, tmp_path):
    """One photo, without tags: as the run segmented it for validation."""
    photo = scenes / "JPEGImages" / "val_00003.jpg"
    file = next(finished[0].glob("stages/*-export/segmenter.safetensors"))
    for source, extra in ((finished[0], ()), (file, ("--no-crf",))):
        out = tmp_path / source.name
        said = tagseg("predict", source, photo, "--out", out, "--device", "cpu", *extra)
        assert said.status == 0
        assert sorted(p.name for p in out.iterdir()) == [OUTPUT_MARKER, "val_00003.png"]
    segmenter = package.load_segmenter(finished[0], device="cpu")
    with PilImage.open(photo) as picture:
        image = np.asarray(picture.convert("RGB"))
    for source, refine in ((finished[0], True), (file, False)):
        mask = read_mask(tmp_path / source.name / "val_00003.png")
        assert np.array_equal(mask, segmenter.predict(image, refine=refine))


def test_predict_passes_over_its_own_results(finished, tmp_path):
    photos(tmp_path, "cat/a.jpg", "dog/b.jpg")
    words = ("predict", finished[0], tmp_path, "--threads", "1", "--out", tmp_path / "masks")
    words = (*words, "--overlays", tmp_path / "cat" / "over")
    for _ in range(2):
        told = tagseg(*words)
        assert told.out == f"2 masks in {tmp_path / 'masks'}, 0 photos skipped\n"
    assert "left out: 2 pictures in masks, which tagseg wrote" in told.err.splitlines()
    assert tagseg("check", tmp_path).out.startswith("2 photos, 2 classes\n")
    refused = tagseg("check", tmp_path / "masks")
    assert refused.status == 2
    assert "tagseg wrote this folder: its pictures are results, no photos" in refused.err
    refused = tagseg("check", finished[0])
    assert "tagseg wrote this folder" in refused.err


def test_predict_does_not_mark_a_folder_of_other_pictures(finished, tmp_path):
    photos(tmp_path, "cat/a.jpg", "new/b.jpg")
    words = ("predict", finished[0], tmp_path / "new", "--threads", "1", "--out", tmp_path / "cat")
    assert tagseg(*words).status == 0
    assert (tmp_path / "cat" / "b.png").exists()
    assert not (tmp_path / "cat" / OUTPUT_MARKER).exists()


def test_predict_refuses_to_write_over_photos(finished, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    PilImage.new("RGB", (20, 20)).save(photos / "a.png")
    PilImage.new("RGB", (20, 20)).save(photos / "b.jpg")
    before = contents(photos)
    for words in (("--out", photos), ("--out", tmp_path / "m", "--overlays", photos)):
        said = tagseg("predict", finished[0], photos, *words, "--threads", "1")
        assert said.status == 2
        assert "a result would replace this photo; " in said.err
        assert contents(photos) == before
        assert not (tmp_path / "m").exists()


def test_evaluate(finished, scenes, tmp_path):
    masks = next(finished[0].glob("stages/*-masks/masks"))
    words = ("evaluate", masks, scenes / "SegmentationClass", "--classes", scenes / "classes.txt")
    train_list = scenes / "ImageSets/Segmentation/train.txt"
    said = tagseg(*words, "--list", train_list, "--json", tmp_path / "scores.json")
    assert said.status == 0
    lines = said.out.splitlines()
    assert lines[0].split() == ["class", "IoU", "accuracy", "pixels"]
    assert [line.split()[0] for line in lines[1:11]] == [
        *("background", *SCENES.classes),
        "mIoU",
    ]
    assert lines[-2].endswith("over 24 photos")
    assert lines[-1] == f"written: {tmp_path / 'scores.json'}"
    scores = json.loads((tmp_path / "scores.json").read_text())
    told = next(line for line in finished[1].out.splitlines() if "masks of the photos" in line)
    assert float(told.split()[1]) == pytest.approx(100 * scores["miou"], abs=0.051)


def test_evaluate_with_missing_masks(finished, scenes, tmp_path):
    masks = next(finished[0].glob("stages/*-masks/masks"))
    words = ("evaluate", masks, scenes / "SegmentationClass", "--classes", scenes / "classes.txt")
    said = tagseg(*words)
    assert (said.status, said.out) == (2, "")
    assert f"{masks}: 8 of 32 photos with ground truth have no mask: val_00000, " in said.err
    assert "--allow-missing" in said.err
    said = tagseg(*words, "--allow-missing")
    assert said.status == 0
    assert "over 24 photos\n8 photos without a mask were left out\n" in said.out


def test_evaluating_the_masks_of_a_run_leaves_the_run_whole(finished, scenes, tmp_path):
    out = Path(shutil.copytree(finished[0], tmp_path / "run"))
    masks = next(out.glob("stages/[0-9][0-9]-masks/masks"))
    words = ("evaluate", masks, scenes / "SegmentationClass", "--classes", scenes / "classes.txt")
    said = tagseg(*words, "--allow-missing")
    assert said.status == 0
    written = Path(said.out.splitlines()[-1].removeprefix("written: "))
    assert "miou" in json.loads(written.read_text())
    again = tagseg(*training(scenes, out))
    assert again.status == 0
    assert "runs again" not in again.err


def test_tables(finished, scenes, tmp_path):
    run = Path(shutil.copytree(finished[0], tmp_path / "run"))
    words = ("tables", "builtin_priors", scenes, "--run", run, "--val", "val", "--threads", "1")
    words = (*words, "--ground-truth", scenes / "SegmentationClass", "--only", "4, fig10")
    said = tagseg(*words)
    assert said.status == 0
    assert said.err.count("checking the photos") == 1
    assert "training the tag classifier" not in said.err
    lines = said.out.splitlines()
    headings = [line.split(":")[0] for line in lines if line.startswith("#")]
    assert headings == ["## Table 4", "## Figure 10"]
    ours = next(line for line in lines if line.startswith("| Our masks"))
    assert re.fullmatch(r"\| Our masks +\| +60\.08 \|( +\d+\.\d \|){2}", ours)
    file = run / "tables" / "builtin_priors.md"
    assert lines[-1] == f"written: {file}"
    assert said.out.removesuffix(f"written: {file}\n") in file.read_text() + "\n"
    assert (
        f"- command: `tagseg tables builtin_priors {scenes.name} --run {run.name} "
        in file.read_text()
    )
    for written in (file, file.with_suffix(".json")):
        assert str(tmp_path) not in written.read_text()
        assert str(scenes) not in written.read_text()
    assert tagseg(*words).out == said.out


def test_what_the_machine_refuses_is_one_line(capsys):
    """Wherever it comes from: modules, too, are files that are opened late."""
    for code, line in (
        (errno.EMFILE, "a.py: Too many open files; allow more open files (ulimit -n), and give"),
        (errno.ENOSPC, "a.py: No space left on device; free some space, and give the same"),
    ):
        assert cli._told(OSError(code, os.strerror(code), "a.py")) == 2
        assert f"tagseg: error: {line}" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(FileNotFoundError):
        cli._told(FileNotFoundError(errno.ENOENT, "No such file", "a.py"))


def test_dcsm_from_photos_to_masks_of_new_ones(scenes, tmp_path):
    """Trained, segmented without a segmenter, and its tables."""
    run, masks = tmp_path / "run", tmp_path / "masks"
    flags = []
    for name, value in DISTINCT.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else value
        flags += ["--set", f"{name}={text}"]
    said = tagseg(*training(scenes, run, "--recipe", "dcsm", *flags))
    assert said.status == 0
    scores = [line.split(maxsplit=3) for line in said.out.splitlines() if line[:4] == "mIoU"]
    assert [(split, title.rpartition(",")[0]) for _, _, split, title in scores] == [
        ("train", "distinct maps"),
        ("train", "distinct maps + CRF"),
        ("train", "masks of the photos (known tags)"),
        ("val", "distinct maps, tags unknown"),
        ("val", "distinct maps, tags unknown + CRF"),
    ]
    seeds = [line for line in said.out.splitlines() if line.startswith("mP ")]
    assert [re.search(r"(val|train)  +(.+) \(precision", s)[2] for s in seeds] == [
        "distinct class saliency",
        "distinct class saliency + CRF",
        "centre mean shape",
    ]
    assert "training the tag classifier, upper layers: 10 done" in said.err
    words = ("predict", run, scenes / "JPEGImages", "--out", masks, "--threads", "1")
    assert tagseg(*words).out == f"32 masks in {masks}, 0 photos skipped\n"
    segmenter = package.load_segmenter(run, device="cpu")
    again, new = tmp_path / "again", tmp_path / "new"  # a JPEG would be decoded at reduced scale
    new.mkdir()
    pictures = {}
    for photo in ("val_00001", "train_00002"):
        with PilImage.open(scenes / "JPEGImages" / f"{photo}.jpg") as picture:
            pictures[photo] = np.asarray(picture.convert("RGB"))
        PilImage.fromarray(pictures[photo]).save(new / f"{photo}.png")
    assert tagseg("predict", run, new, "--out", again, "--threads", "1").status == 0
    for photo, picture in pictures.items():
        expected = segmenter.predict(picture)
        assert np.array_equal(read_mask(again / f"{photo}.png"), expected)
        near = read_mask(masks / f"{photo}.png") == expected
        assert near.mean() > 0.9
    words = ("tables", "dcsm", scenes, "--run", run, "--val", "val", "--threads", "1")
    words = (*words, "--ground-truth", scenes / "SegmentationClass", "--only", "5")
    told = tagseg(*words)
    assert told.status == 0
    (guided,) = [line for line in told.out.splitlines() if line.startswith("| GBP")]
    assert re.fullmatch(r"\| GBP +\| +44\.1 \|( +\d+\.\d \|){3}", guided)
    raw, smooth = (line[1] for line in scores[-2:])
    assert guided.split("|")[3].strip() == raw
    assert guided.split("|")[4].strip() == smooth


GUIDED_FLAGS = ("--recipe", "guided", "--set", "seeder_side=64", "--set", "saliency_iterations=2")


def config_in(run: Path) -> dict[str, object]:
    """What the run was asked for, with paths as they are found again; reports have no folders."""
    return json.loads((run / "workspace.json").read_text())["settings"]["config"]


def test_guided_with_maps_made_elsewhere(scenes, tmp_path, monkeypatch):
    """Given by a relative path, found again from another folder."""
    maps = tmp_path / "maps"
    maps.mkdir()
    for photo in (scenes / "JPEGImages").glob("*.jpg"):
        grey = np.asarray(PilImage.open(photo).convert("L"))
        PilImage.fromarray(grey).save(maps / f"{photo.stem}.png")
    monkeypatch.chdir(tmp_path)
    said = tagseg(*training(scenes, tmp_path / "run", *GUIDED_FLAGS, "--saliency", "maps"))
    assert said.status == 0
    assert "guide labels (G2), 24 photos" in said.out
    assert re.search(r"^mP .* val +seeder \(highres\) ", said.out, re.MULTILINE)
    config = config_in(tmp_path / "run")
    assert config["saliency_maps"] == str(maps)
    assert (config["boxes"], config["box_photos"]) == (None, None)
    monkeypatch.chdir("/")
    before = contents(tmp_path / "run")
    again = tagseg(*training(scenes, tmp_path / "run", *GUIDED_FLAGS, "--saliency", maps))
    assert (again.status, again.out) == (0, said.out)
    assert "the run was finished before; nothing had to be done" in again.err
    changed = {k for k, v in contents(tmp_path / "run").items() if v != before[k]}
    assert changed <= {"run.json", "workspace.json", "report.html"}, "but for the command"


def test_guided_with_boxes_of_pictures_elsewhere(scenes, tmp_path, monkeypatch):
    file = write_boxes(tmp_path / "boxed")
    (tmp_path / "my boxes").mkdir()
    shutil.move(file, tmp_path / "my boxes" / "b.csv")
    monkeypatch.chdir(tmp_path / "my boxes")
    words = ("--boxes", "b.csv", "--box-photos", Path("..") / "boxed", "--set", "guide=g0")
    said = tagseg(*training(scenes, tmp_path / "run", *GUIDED_FLAGS, *words))
    assert said.status == 0
    assert "training the saliency network: 2 done" in said.err
    config = config_in(tmp_path / "run")
    assert config["boxes"] == str(tmp_path / "my boxes" / "b.csv")
    assert Path(str(config["box_photos"])).resolve() == tmp_path / "boxed"
    assert Path(str(config["box_photos"])).is_absolute()


def test_the_demo_of_guided_generates_boxes(tmp_path):
    """Of as many pictures as there are scenes, once."""
    words = ("demo", "--train", 8, "--val", 2, "--out", tmp_path / "demo", *QUICK_FIELDS)
    said = tagseg(*words, *GUIDED_FLAGS)
    assert said.status == 0
    assert len(list((tmp_path / "demo" / "boxes-8" / "JPEGImages").iterdir())) == 8
    assert "training the saliency network" in said.err
    assert config_in(tmp_path / "demo" / "guided")["boxes"] == str(
        tmp_path / "demo" / "boxes-8" / "boxes.csv"
    )
    before = contents(tmp_path / "demo")
    assert tagseg(*words, *GUIDED_FLAGS).out == said.out
    assert contents(tmp_path / "demo") == before


def test_the_demo_of_guided_without_boxes(tmp_path, asked):
    """Another source of saliency was asked for: no boxes are generated or given."""
    words = ("demo", "--train", 2, "--val", 1, "--out", tmp_path / "demo", *GUIDED_FLAGS)
    assert tagseg(*words, "--set", "saliency=barrier").status == 0
    assert [(values["saliency"], values.get("boxes")) for _, values in asked] == [("barrier", None)]
    assert not list((tmp_path / "demo").glob("boxes-*"))


MCOF_FLAGS = ("--recipe", "mcof", "--set", "seeder_side=64")
for _name, _value in MINING.items():
    MCOF_FLAGS += ("--set", f"{_name}={_value}")


def test_mcof_with_maps_made_elsewhere_or_boxes(scenes, tmp_path, monkeypatch):
    """One run: its tables, then saliency from boxes, from which the first round is made anew."""
    maps, run = tmp_path / "maps", tmp_path / "run"
    maps.mkdir()
    for photo in (scenes / "JPEGImages").glob("*.jpg"):
        grey = np.asarray(PilImage.open(photo).convert("L"))
        PilImage.fromarray(grey).save(maps / f"{photo.stem}.png")
    monkeypatch.chdir(tmp_path)
    flags = (*MCOF_FLAGS, "--set", "saliency=auto")
    said = tagseg(*training(scenes, run, *flags, "--saliency", "maps"))
    assert said.status == 0
    assert config_in(run)["saliency_maps"] == str(maps)
    for line in ("saliency supplement, round 1, 24 photos", "PixelNet + CRF, round 2, 8 photos"):
        assert line in said.out
    assert "training RegionNet, round 2: 1 done" in said.err
    before = (run / "report.html").read_text()
    assert "Stopped after 2 rounds, as configured." in before
    assert tagseg("report", run).status == 0
    assert (run / "report.html").read_text() == before
    words = ("tables", "mcof", scenes, "--run", run, "--val", "val", "--threads", "1")
    words = (*words, "--ground-truth", scenes / "SegmentationClass", "--only", "fig8")
    told = tagseg(*words)
    assert told.status == 0
    (second,) = [line for line in told.out.splitlines() if line.startswith("| 2 ")]
    on_val = re.search(r"mIoU +(\d+\.\d)  val +PixelNet \+ CRF, round 2", said.out)
    assert on_val is not None
    assert second.split("|")[2].strip() == on_val[1]
    file = write_boxes(tmp_path / "boxed")
    flags = (*flags, "--set", "saliency_iterations=2", "--set", "rounds=1")
    boxed = tagseg(*training(scenes, run, *flags, "--boxes", file))
    assert boxed.status == 0
    assert "training the saliency network: 2 done" in boxed.err
    assert "training RegionNet" not in boxed.err, "it has not seen saliency"
    assert config_in(run)["boxes"] == str(file)


def test_the_demo_of_mcof_needs_no_boxes(tmp_path, asked):
    words = ("demo", "--train", 2, "--val", 1, "--out", tmp_path / "demo", "--recipe", "mcof")
    assert tagseg(*words).status == 0
    ((recipe, values),) = asked
    assert recipe == "mcof"
    assert not {"boxes", "saliency"} & values.keys()
    assert not list((tmp_path / "demo").glob("boxes-*"))


def test_demo(tmp_path):
    words = ("demo", "--train", 12, "--val", 4, "--out", tmp_path / "my demo", *QUICK_FIELDS)
    words = (*words, "--recipe", "builtin_priors")
    said = tagseg(*words)
    assert said.status == 0
    assert "mIoU" in said.out
    run = tmp_path / "my demo" / "builtin_priors"
    assert (run / "report.html").is_file()
    assert "note: to be quick, mask_regions=none; --set mask_regions=crisp " in said.out
    assert not list(run.glob("stages/*-regions"))
    before = contents(tmp_path / "my demo")
    again = tagseg(*words)
    assert (again.status, again.out) == (0, said.out)
    assert contents(tmp_path / "my demo") == before


def test_the_demo_with_regions_if_asked_for(tmp_path):
    words = ("demo", "--train", 8, "--val", 4, "--out", tmp_path / "demo", *QUICK_FIELDS)
    said = tagseg(*words, "--recipe", "builtin_priors", "--set", "mask_regions=crisp")
    assert said.status == 0
    assert "mask_regions=none" not in said.out
    assert "masks after pairwise CRF" in said.out


def test_the_demo_says_a_next_command_that_works(tmp_path):
    import shlex

    words = ("demo", "--train", 8, "--val", 4, "--out", tmp_path / "my demo")
    said = tagseg(*words, "--recipe", "cam_baseline", *QUICK_FIELDS)
    line = said.out.splitlines()[-1]
    assert line.startswith("next: tagseg predict ")
    follow = tagseg(*shlex.split(line)[2:], "--threads", "1")
    assert follow.status == 0
    assert len(list((tmp_path / "my demo" / "masks").glob("*.png"))) == 12


REFINING = ("--set", "rounds=1", "--set", "segmenter_iterations=1")
REFINING += ("--set", f"segmenter_learning_rate={RECURSION['segmenter_learning_rate']}")


@pytest.mark.parametrize("recipe", ["coarse_to_fine", "coarse_to_fine_foreground"])
def test_coarse_masks_made_elsewhere(scenes, tmp_path, monkeypatch, recipe):
    """Hard ones, given by a relative path: the coarse masks of the run are these."""
    maps, run = tmp_path / "my masks", tmp_path / "run"
    maps.mkdir()
    for photo in (scenes / "JPEGImages").glob("*.jpg"):
        mask = np.zeros((96, 128), np.uint8)
        mask[24:72, 32:96] = 255
        PilImage.fromarray(mask).save(maps / f"{photo.stem}.png")
    monkeypatch.chdir(tmp_path)
    words = ("--recipe", recipe, *REFINING, "--coarse-masks", "my masks")
    said = tagseg(*training(scenes, run, *words))
    assert said.status == 0
    config = config_in(run)
    assert config["saliency_maps"] == str(maps)
    assert (config["saliency"], config["boxes"], config["student"]) == ("auto", None, None)
    stages = {path.name[3:]: path for path in (run / "stages").iterdir()}
    assert "enhanced-masks" in stages
    assert re.search(r"^mIoU .* train +coarse masks", said.out, re.MULTILINE)
    before = contents(run)
    words = ("--recipe", recipe, *REFINING, "--saliency", maps)
    again = tagseg(*training(scenes, run, *words))
    assert (again.status, again.out) == (0, said.out)
    assert "the run was finished before; nothing had to be done" in again.err
    changed = {name for name, content in contents(run).items() if content != before[name]}
    assert changed <= {"run.json", "workspace.json", "report.html"}, "but for the command"


@pytest.mark.parametrize("recipe", ["coarse_to_fine", "coarse_to_fine_foreground"])
def test_the_demo_of_coarse_to_fine_learns_from_another_data_set(tmp_path, recipe):
    """From photos of one object each; scenes of several are its target, which nothing learns."""
    demo = tmp_path / "demo"
    fields = quick_flags(recipe)[len(OPTION_FLAGS) :]
    words = ("demo", "--train", 8, "--val", 3, "--out", demo, *fields)
    words = (*words, *REFINING, "--recipe", recipe, "--set", "foreground_limits=0,1")
    said = tagseg(*words)
    assert said.status == 0
    assert len(list((demo / "single-8" / "JPEGImages").iterdir())) == 8
    assert len(list((demo / "scenes-8-3" / "JPEGImages").iterdir())) == 11
    for row in (demo / "single-8" / "tags.csv").read_text().splitlines()[1:]:
        assert row.count(";") == 0
        assert row.split(",")[1] in SCENES.classes
    assert re.search(r"^mIoU .* train +coarse masks.*, 8 photos", said.out, re.MULTILINE)
    on_val = [line for line in said.out.splitlines() if re.match(r"mIoU .* val ", line)]
    assert on_val
    assert all(", 3 photos" in line for line in on_val)
    run = demo / recipe
    assert json.loads((run / "run.json").read_text())["photos"] == 8
    assert "target/val_00001" in (run / "report.html").read_text()
    assert config_in(run)["saliency_maps"] is None
    (masks,) = re.findall(r"^masks: +(.+)$", said.out, re.MULTILINE)
    assert len(list(Path(masks).rglob("*.png"))) == 8, "of the photos with one object alone"
    before = contents(demo)
    again = tagseg(*words)
    assert (again.status, again.out) == (0, said.out)
    assert contents(demo) == before
