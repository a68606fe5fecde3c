"""What the command line says to everything that cannot work: one line, status 2, nothing done."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from guided_runs import write_boxes
from small_runs import QUICK_FLAGS, contents, quick_flags, tagseg
from tagseg.run.workspace import Workspace

TINY = ("--backbone", "tiny", "--threads", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def a_run(scenes, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    words = ("train", scenes, "--out", out, "--recipe", "cam_baseline", "--val", "val")
    assert tagseg(*words, *QUICK_FLAGS).status == 0
    return out


@dataclass(frozen=True)
class Place:
    """What a case may use and break: its own copies."""

    here: Path
    scenes: Path
    run: Path

    @property
    def out(self) -> Path:
        return self.here / "out"

    @property
    def photos(self) -> Path:
        return self.scenes / "JPEGImages"

    def train(self, *more: object) -> tuple[object, ...]:
        return ("train", self.scenes, "--out", self.out, *TINY, *more)

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.here / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path


@pytest.fixture
def place(scenes, a_run, tmp_path) -> Place:
    copies = {n: shutil.copytree(f, tmp_path / n) for n, f in (("d", scenes), ("r", a_run))}
    return Place(tmp_path, Path(copies["d"]), Path(copies["r"]))


# What is no part of the error:
BEFORE = (
    "checking the photos: ",
    "checking the masks: ",
    "read as ",
    "target: read as ",
    "preset paper of ",
)  # what is no part of the error
Case = Callable[[Place], tuple[tuple[object, ...], str]]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    """Register a case: it breaks something and gives the command and the start of its line."""
    CASES[function.__name__.replace("_", " ")] = function
    return function


@pytest.mark.parametrize("name", CASES)
def test_one_line_and_nothing_done(place, name):
    words, line = CASES[name](place)
    before = contents(place.here)
    said = tagseg(*words)
    assert said.status == 2
    assert said.out == ""
    told = [text for text in said.err.splitlines() if not text.startswith(BEFORE)]
    assert len(told) == 1, said.err
    assert told[0].startswith("tagseg: error: ")
    assert told[0].removeprefix("tagseg: error: ").startswith(line)
    assert contents(place.here) == before, "something was written"


# Flags and fields


@case
def unknown_verb(place):
    return ("trian", place.scenes), "No such command 'trian'."


@case
def unknown_flag(place):
    return place.train("--epochs", "3"), "No such option: --epochs"


@case
def no_out(place):
    return ("train", place.scenes), "Missing option '--out'."


@case
def unknown_recipe(place):
    line = "there is no recipe 'builtin-priors'; did you mean builtin_priors?"
    return place.train("--recipe", "builtin-priors"), line


@case
def unknown_recipe_of_fields(place):
    line = "there is no recipe 'x'; choose one of builtin_priors, cam_baseline, coarse_to_fine, "
    return ("recipes", "--fields", "x"), line


@case
def unknown_field(place):
    line = "the recipe has no field 'alhpa'; did you mean alpha?"
    return place.train("--recipe", "builtin_priors", "--set", "alhpa=1"), line


@case
def field_of_another_recipe(place):
    line = "the recipe has no field 'sharpness'; choose one of cam_flip, "
    return place.train("--recipe", "cam_baseline", "--set", "sharpness=3"), line


@case
def field_without_value(place):
    return place.train("--set", "alpha"), "--set 'alpha' has no '='; write --set field=value"


def wrong_value_of(recipe: str, text: str, line: str) -> None:
    CASES[f"{recipe}: set {text}"] = lambda place: (
        place.train("--recipe", recipe, "--set", text),
        line,
    )


def wrong_value(text: str, line: str) -> None:
    wrong_value_of("builtin_priors", text, line)


wrong_value("alpha=much", "--set alpha: 'much' does not fit; give a number")
wrong_value("alpha=nan", "--set alpha: 'nan' does not fit; give a number")
wrong_value("alpha=1.5", "alpha is 1.5; use 0 to 1")
wrong_value("alpha=none", "--set alpha: 'none' does not fit; give a number")
wrong_value("sharpness=0", "sharpness is 0.0; use over 0, up to 10")
wrong_value("cam_threshold=1", "cam_threshold is 1.0; use over 0, below 1")
wrong_value("photo_side=3.5", "--set photo_side: '3.5' does not fit; give a whole number")
wrong_value("photo_side=8", "photo_side is 8; use 16 or more")
wrong_value("output_stride=32", "output_stride is 32; use 8, 16 or none")
wrong_value("schedule=long", "--set schedule: 'long' does not fit; give auto or paper or short")
wrong_value("mask_crf=perhaps", "--set mask_crf: 'perhaps' does not fit; give true or false")
wrong_value(
    "crf_bilateral=10,80",
    "--set crf_bilateral: '10,80' does not fit; give 3 values with commas between",
)
wrong_value("crf_bilateral=10,0,13", "crf_bilateral is 10,0,13; use values over 0")
wrong_value("crf_iterations=-1", "crf_iterations is -1; use 0 or more")
wrong_value("refiner=cfr", "there is no refiner 'cfr'; did you mean crf?")
wrong_value("crf_reference_side=0", "crf_reference_side is 0; use 1 or more")
wrong_value(
    "classifier_iterations=few",
    "--set classifier_iterations: 'few' does not fit; give a whole number or none",
)
wrong_value("classifier_iterations=0", "classifier_iterations is 0; use a value over 0")
wrong_value("segmenter_batch_size=0", "segmenter_batch_size is 0; use a value over 0")
wrong_value("segmenter_learning_rate=-1", "segmenter_learning_rate is -1.0; use a value over 0")
wrong_value("segmenter_epochs=0", "segmenter_epochs is 0.0; use a value over 0")
wrong_value("classifier_width=0", "classifier_width is 0; use a value over 0")
wrong_value("prior_saturate=0.5", "prior_saturate is 0.5; use 0 to below 0.5")
wrong_value("cam_scales=", "cam_scales is (); use positive factors, 1 among them")
wrong_value("cam_scales=0.5,2", "cam_scales is (0.5, 2.0); use positive factors, 1 among them")
wrong_value("cam_scales=0,1", "cam_scales is 0,1; use values over 0")
wrong_value("cam_scales=big", "--set cam_scales: 'big' does not fit; give values with commas")
wrong_value("segmenter_backbone_factor=-1", "segmenter_backbone_factor is -1.0; use 0 or more")
wrong_value("classifier_hidden_layers=-1", "classifier_hidden_layers is -1; use 0 or more")


wrong_value_of("cam_baseline", "localizer=cma", "there is no localizer 'cma'; did you mean cam?")
wrong_value_of(
    "full_supervision",
    "classifier_width=8",
    "the recipe has no field 'classifier_width'; did you mean segmenter_width?",
)
wrong_value_of("dcsm", "alpha=0", "alpha is 0.0; use a value over 0")
wrong_value_of("dcsm", "alpha=inf", "--set alpha: 'inf' does not fit; give a number")
wrong_value_of("dcsm", "scales=0", "scales is 0; use values over 0")
wrong_value_of("dcsm", "scales=", "DCSM: scales is (); give one factor over 0 or more")
wrong_value_of("dcsm", "blocks=7", "blocks is (7,); use some of 0, 1, 2, 3, 4, 5")
wrong_value_of("dcsm", "blocks=block3", "--set blocks: 'block3' does not fit; give values with")
wrong_value_of("dcsm", "min_candidates=-1", "min_candidates is -1; use 0 or more")
wrong_value_of("dcsm", "candidate_threshold=2", "candidate_threshold is 2.0; use 0 to 1")
wrong_value_of("dcsm", "method=foo", "--set method: 'foo' does not fit; give guided or plain or")
wrong_value_of("dcsm", "normalise=max", "--set normalise: 'max' does not fit; give map or none")
wrong_value_of("dcsm", "variant=matlab", "--set variant: 'matlab' does not fit; give paper or")
wrong_value_of("dcsm", "segmenter=all", "segmenter is 'all'; use none, trained or pyramid")
wrong_value_of("dcsm", "square=8", "square is 8; use 16 or more")
wrong_value_of("dcsm", "batch_scale=1.4,0.7", "batch_scale is (1.4, 0.7); give two factors, the")
wrong_value_of("dcsm", "batch_scale=0,1", "batch_scale is 0,1; use values over 0")
wrong_value_of("dcsm", "batch_scale=1", "--set batch_scale: '1' does not fit; give 2 values with")
wrong_value_of("dcsm", "classifier_stride=7", "classifier_stride is 7; use 8, 16, 32 or none")
wrong_value_of("dcsm", "upper_iterations=0", "upper_iterations is 0; use a value over 0")
wrong_value_of("dcsm", "map_bilateral=1,30", "--set map_bilateral: '1,30' does not fit; give 3")
wrong_value_of("dcsm", "map_bilateral=1,0,10", "map_bilateral is 1,0,10; use values over 0")
wrong_value_of("gradient_baseline", "method=foo", "--set method: 'foo' does not fit; give guided")
wrong_value_of("gradient_baseline", "blocks=6", "blocks is (6,); use some of 0, 1, 2, 3, 4, 5")
wrong_value_of("gradient_baseline", "seed_sigma=-1", "seed_sigma is -1.0; use 0 or more")
wrong_value_of(
    "gradient_baseline", "seed_threshold=0", "seed_threshold is 0.0; use over 0, up to 1"
)
wrong_value_of(
    "gradient_baseline", "seed_bilateral=4,0,5", "seed_bilateral is 4,0,5; use values over 0"
)


wrong_value_of("guided", "guide=g3", "--set guide: 'g3' does not fit; give seeds or g0 or g1 or g2")
wrong_value_of("guided", "seeder=vgg", "--set seeder: 'vgg' does not fit; give lowres or highres")
wrong_value_of("guided", "saliency=boxes", "saliency=boxes has nothing to read; give --boxes FILE")
wrong_value_of("guided", "saliency=folder", "saliency=folder has nothing to read; give --saliency")
wrong_value_of("guided", "saliency=grabcut", "--set saliency: 'grabcut' does not fit; give auto")
wrong_value_of("guided", "saliency_threshold=0", "saliency_threshold is 0.0; use over 0, up to 1")
wrong_value_of("guided", "seed_threshold=1.1", "seed_threshold is 1.1; use over 0, up to 1")
wrong_value_of("guided", "min_component=1", "min_component is 1.0; use 0 to below 1")
wrong_value_of("guided", "share_bilateral=4,0,5", "share_bilateral is 4,0,5; use values over 0")
wrong_value_of("guided", "share_sigma=0", "share_sigma is 0.0; use a value over 0")
wrong_value_of("guided", "saliency_iterations=0", "saliency_iterations is 0; use a value over 0")
wrong_value_of("sec", "background_window=2", "background_window is 2; use an odd number")
wrong_value_of("sec", "background_fraction=2", "background_fraction is 2.0; use 0 to 1")
wrong_value_of("sec", "foreground_decay=0", "foreground_decay is 0.0; use over 0, up to 1")
wrong_value_of("sec", "foreground_threshold=1", "foreground_threshold is 1.0; use 0 to below 1")
wrong_value_of("sec", "guide=g2", "the recipe has no field 'guide'; choose one of cam_flip, ")
wrong_value_of("mcof", "saliency=folder", "saliency=folder has nothing to read; give --saliency")
wrong_value_of("mcof", "seeder=vgg", "--set seeder: 'vgg' does not fit; give lowres or highres")
wrong_value_of("mcof", "start=hot", "--set start: 'hot' does not fit; give warm or cold")
wrong_value_of(
    "mcof",
    "regionnet_start=random",
    "--set regionnet_start: 'random' does not fit; give classifier or imagenet",
)
wrong_value_of("mcof", "rounds=0", "rounds is 0; use 1 or more")
wrong_value_of("mcof", "converged=0", "converged is 0.0; use a value over 0")
wrong_value_of("mcof", "converged=inf", "--set converged: 'inf' does not fit; give a number")
wrong_value_of("mcof", "superpixel_min=0", "superpixel_min is 0; use a value over 0")
wrong_value_of("mcof", "seed_threshold=2", "seed_threshold is 2.0; use over 0, up to 1")
wrong_value_of("mcof", "background_threshold=0", "background_threshold is 0.0; use over 0, up")
wrong_value_of(
    "mcof", "background_threshold=0.8", "background_threshold is 0.8, seed_threshold 0.7; use over"
)
wrong_value_of("mcof", "seed_fraction=0", "seed_fraction is 0.0; use over 0, up to 1")
wrong_value_of("mcof", "later_fraction=2", "later_fraction is 2.0; use over 0, up to 1")
wrong_value_of("mcof", "regionnet_iterations=0", "regionnet_iterations is 0; use a value over 0")
wrong_value_of("mcof", "bayes_bandwidth=0", "bayes_bandwidth is 0.0; use a value over 0")
wrong_value_of("mcof", "mining=perhaps", "--set mining: 'perhaps' does not fit; give true or false")


def flag_of_other_recipes(recipe: str, flag: str) -> None:
    CASES[f"{recipe} takes no {flag}"] = lambda place: (
        place.train("--recipe", recipe, flag, place.scenes),
        f"recipe {recipe} takes no {flag}; use coarse_to_fine, coarse_to_fine_foreground, "
        "guided, mcof or union",
    )


for _recipe in ("builtin_priors", "sec", "full_supervision"):
    for _flag in ("--saliency", "--boxes", "--box-photos"):
        flag_of_other_recipes(_recipe, _flag)


@case
def no_fast_form(place):
    line = "recipe cam_baseline has no fast form; leave --fast out"
    return place.train("--fast", "--recipe", "cam_baseline"), line


@case
def no_preset_of_a_paper(place):
    line = "recipe union has no preset of a paper; use builtin_priors"
    return place.train("--preset", "paper"), line


@case
def a_preset_that_does_not_exist(place):
    line = "Invalid value for '--preset': Value error, 'own' is not one of"
    return place.train("--preset", "own", "--recipe", "builtin_priors"), line


@case
def a_wrong_value_beside_those_of_the_paper(place):
    words = ("--preset", "paper", "--recipe", "builtin_priors", "--set", "alpha=2")
    return place.train(*words), "alpha is 2.0; use 0 to 1"


@case
def a_preset_on_a_network_that_cannot_have_its_form(place):
    line = "classifier_stride is 32, and tiny has no such form; use 8 or 16, or none"
    return place.train("--preset", "paper", "--recipe", "builtin_priors"), line


@case
def a_wrong_value_beside_those_of_fast(place):
    line = "rounds is 9; use 1 to 5"
    return place.train("--fast", "--set", "rounds=9"), line


@case
def saliency_and_boxes(place):
    words = ("--saliency", place.photos, "--boxes", place.scenes / "tags.csv")
    line = "--saliency is given, but saliency comes from boxes; leave one of the two out"
    return place.train("--recipe", "guided", *words), line


@case
def box_photos_without_boxes(place):
    line = "--box-photos is given without --boxes; give --boxes FILE"
    return place.train("--recipe", "guided", "--box-photos", place.photos), line


@case
def boxes_and_another_source(place):
    words = ("--boxes", place.scenes / "tags.csv", "--set", "saliency=activations")
    line = "--boxes is given, but saliency comes from activations; leave one of the two out"
    return place.train("--recipe", "guided", *words), line


@case
def dcsm_numbers_that_do_not_go_together(place):
    words = place.train("--recipe", "dcsm", "--set", "variant=code", "--set", "normalise=none")
    return words, "DCSM: normalise is 'none'; the variant code always normalises: use map"


@case
def more_threads_than_can_be(place):
    return place.train("--threads", "1000000000"), "threads is 1000000000; use 1 to 1024"


@case
def a_pipe_for_tags(place):
    os.mkfifo(place.run.parent / "pipe")
    line = f"{place.run.parent / 'pipe'}: is a pipe, which may never end; save it into a file"
    return place.train("--tags", place.run.parent / "pipe"), line


@case
def a_device_for_classes(place):
    return place.train("--classes", "/dev/zero"), "/dev/zero: is a device, which may never end"


@case
def a_device_for_weights(place):
    line = "/dev/zero: is a device, which may never end; save it into a file"
    return ("train", place.scenes, "--out", place.out, "--backbone", "tiny", "--weights",
            "/dev/zero", "--device", "cpu"), line  # fmt: skip


@case
def no_threads(place):
    return place.train("--threads", "0"), "threads is 0; use 1 to 1024"


@case
def no_threads_to_check(place):
    words = ("check", place.scenes, "--threads", "0")
    return words, "threads is 0; use 1 to 1024"


@case
def no_threads_to_predict(place):
    words = ("predict", place.run, place.photos, "--out", place.out, "--threads", "0")
    return words, "threads is 0; use 1 to 1024"


@case
def negative_seed(place):
    return place.train("--seed", "-1"), f"seed is -1; use 0 to {(1 << 63) - 1}"


@case
def huge_seed(place):
    seed = 1 << 63
    return place.train("--seed", seed), f"seed is {seed}; use 0 to {seed - 1}"


@case
def negative_workers(place):
    return place.train("--workers", "-1"), "workers is -1; use 0 to 256"


@case
def workers_that_are_no_number(place):
    return place.train("--workers", "many"), "workers is many; use auto, or 0 to 256"


@case
def allow_skipped_over_one(place):
    line = "allow_skipped is 2.0; use a fraction, 0 to 1"
    return place.train("--allow-skipped", "2"), line


@case
def allow_skipped_in_words(place):
    line = "Invalid value for '--allow-skipped': "
    return ("check", place.scenes, "--allow-skipped", "all"), line


@case
def no_processes(place):
    return place.train("--processes", "0"), "processes is 0; use 1 to 64"


@case
def unknown_device(place):
    line = "device 'gpu' does not exist; use auto, cpu, cuda, cuda:1, mps or the like"
    return place.train("--device", "gpu"), line


@case
def cuda_without_a_gpu(place):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    line = "device cuda is not available here; use auto or cpu"
    return place.train("--device", "cuda"), line


@case
def cuda_without_a_gpu_to_predict(place):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    words = ("predict", place.run, place.photos, "--out", place.out, "--device", "cuda")
    return words, "device cuda is not available here; use auto or cpu"


@case
def unknown_precision(place):
    line = "Invalid value for '--precision': "
    return place.train("--precision", "fp16"), line


@case
def unknown_layout(place):
    line = "Invalid value for '--layout': "
    return place.train("--layout", "pascal"), line


# Backbones and weights


@case
def unknown_backbone(place):
    line = "there is no backbone 'mobilenet'; did you mean mobilenet_v2?"
    return place.train("--backbone", "mobilenet"), line


@case
def no_weights_file(place):
    path = place.here / "w.pth"
    line = f"{path}: no such weights file; use imagenet, none, a path or a URL"
    return place.train("--weights", path), line


@case
def weights_of_another_network(place):
    path = place.here / "w.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    return place.train("--weights", path), f"{path}: is not a file for tiny: "


@case
def weights_cut_short(place):
    path = place.here / "w.pth"
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])
    line = f"{path}: is damaged or cut short; fetch or copy it again"
    return place.train("--weights", path), line


@case
def safetensors_cut_short(place):
    whole = next(place.run.glob("stages/*-export/segmenter.safetensors")).read_bytes()
    path = place.file("w.safetensors", whole[: len(whole) // 2])
    line = f"{path}: is damaged or cut short; fetch or copy it again"
    return place.train("--weights", path), line


class _Code:
    def __reduce__(self):
        return pytest.fail, ("code of a weights file ran",)


class _Shell:
    def __reduce__(self):
        return os.system, ("exit 1",)


@case
def weights_that_run_code(place):
    path = place.here / "w.pth"
    torch.save({"a": _Code()}, path)
    line = f"{path}: holds Python objects besides tensors, which are not loaded as they could run"
    return place.train("--weights", path), line


@case
def a_pickle_that_runs_code(place):
    path = place.file("w.pth", pickle.dumps({"a": _Shell()}, protocol=2))
    line = f"{path}: holds Python objects besides tensors, which are not loaded as they could run"
    return place.train("--weights", path), line


@case
def weights_that_are_a_web_page(place):
    path = place.file("w.pth", "<!doctype html>")
    line = f"{path}: is a web page, not a weights file; give a .pth that torch.save wrote"
    return place.train("--weights", path), line


@case
def weights_that_are_a_folder(place):
    line = f"{place.run}: is a folder; name a weights file in it"
    return place.train("--weights", place.run), line


# Photos, tags and lists


@case
def no_photo_folder(place):
    line = f"{place.here / 'no'}: this folder does not exist; check the path"
    return ("train", place.here / "no", "--out", place.out, *TINY), line


@case
def empty_photo_folder(place):
    (place.here / "empty").mkdir()
    line = f"{place.here / 'empty'}: no photos in this folder; check the path"
    return ("check", place.here / "empty"), line


@case
def photos_without_tags(place):
    line = f"{place.photos}: no tags: neither tags.csv nor metadata.jsonl nor class folders; add"
    return ("train", place.photos, "--out", place.out, *TINY), line


@case
def no_tag_file(place):
    path = place.here / "t.csv"
    line = f"{path}: cannot be read: No such file or directory; check the path"
    return place.train("--tags", path), line


@case
def tag_file_without_header(place):
    path = place.file("t.csv", "cat,12\ndog,13\n")
    line = f"{path}: the first line has no column 'image'; begin with the line image,tags and put"
    return place.train("--tags", path), line


@case
def misspelt_tag(place):
    path = place.file("t.csv", "image,tags\ntrain_00000.jpg,cta\n")
    line = f"{path}, line 2: tag 'cta' is not in the class list; did you mean 'cat'?"
    return place.train("--tags", path), line


@case
def class_list_without_a_tag(place):
    tags = place.file("t.csv", "image,tags\ntrain_00000.jpg,zebra\n")
    line = f"{tags}, line 2: tag 'zebra' is not in the class list; add it to the class list"
    return place.train("--tags", tags), line


@case
def class_listed_twice(place):
    path = place.file("c.txt", "cat\ncat\n")
    return place.train("--classes", path), f"{path}: class 'cat' is listed twice; remove one"


@case
def tags_that_say_nothing(place):
    tags = place.file("t.csv", "image,tags\ntrain_00000.jpg,\ntrain_00001.jpg,cat\n")
    line = f"{tags}: 1 of 2 photos have no tags; say what that means: --untagged negative (none"
    return place.train("--tags", tags), line


@case
def no_known_tags_at_all(place):
    tags = place.file("t.csv", "image,tags\ntrain_00000.jpg,\ntrain_00001.jpg,\n")
    line = "no training photo can be used and has known tags; mend or tag some, or use --untagged"
    return place.train("--tags", tags, "--untagged", "unknown"), line


@case
def missing_photos(place):
    tags = place.file("t.csv", "image,tags\ntrain_00000.jpg,cat\nlost.jpg,cat\n")
    line = f"{place.photos}: 1 of 2 tagged photos are not here: lost; check the folder"
    return place.train("--tags", tags), line


@case
def broken_photos(place):
    for i in range(2):
        (place.photos / f"train_0000{i}.jpg").write_bytes(b"\xff\xd8\xff")
    line = "2 of 32 photos cannot be used: train_00000 (the JPEG file is cut short or damaged ("
    return place.train(), line


@case
def broken_photos_to_check(place):
    (place.photos / "train_00003.jpg").write_bytes(b"")
    line = (
        "1 of 32 photos cannot be used: train_00003 (the file is empty); mend or remove them, or "
        "go on without them: --allow-skipped 0.04"
    )
    return ("check", place.scenes), line


@case
def all_training_photos_broken(place):
    for path in place.photos.glob("train_*.jpg"):
        path.write_bytes(b"")
    line = "no training photo can be used and has known tags; mend or tag some"
    return place.train("--val", "val", "--allow-skipped", "0.9"), line


@case
def two_photos_of_one_name(place):
    PilImage.new("RGB", (40, 40)).save(place.photos / "val_00000.png")
    line = f"{place.photos}: val_00000.jpg and val_00000.png have the same name; rename one"
    return place.train(), line


@case
def no_list(place):
    line = f"{place.scenes}: there is no list 'valid'; give a list file"
    return place.train("--val", "valid"), line


@case
def empty_list(place):
    path = place.file("l.txt", "\n")
    line = f"{path}: this list names no photos; write one name a line"
    return place.train("--val", path), line


@case
def val_list_with_an_unknown_photo(place):
    path = place.file("l.txt", "val_00000\nval_x\n")
    line = f"{place.photos}: 1 of 2 tagged photos are not here: val_x; check the folder"
    return place.train("--val", path), line


@case
def val_list_with_a_photo_without_entry(place):
    path = place.file("l.txt", "val_00000\nval_x\n")
    line = f"{place.scenes / 'tags.csv'}: 1 of 2 listed photos have no entry: val_x; add them, or"
    words = place.train("--val", path, "--layout", "csv", "--untagged", "negative")
    return words, line


@case
def a_list_that_is_a_folder(place):
    line = (
        f"{place.scenes}: '{place.photos}' is a folder, no list; give a file with one name a line"
    )
    return place.train("--val", place.photos), line


@case
def a_list_that_is_misspelt(place):
    path = place.file("val.txt", "val_00000\n")
    line = (
        f"{place.scenes}: there is no list '{path.parent / 'vall.txt'}'; give a list file; did you"
    )
    return place.train("--val", path.parent / "vall.txt"), line


@case
def a_list_whose_line_may_mean_two_photos(place):
    path = place.file("l.txt", "val_00000,val_00001\nval_00002,val_00003\n")
    line = f"{path}, line 1: 'val_00000,val_00001' may mean photo 'val_00000' or 'val_00001'; write"
    return place.train("--val", path), line


@case
def a_list_with_a_photo_that_has_no_tags(place):
    path, tags = (
        place.file("l.txt", "val_00000\n"),
        place.file("t.csv", "image,tags\ntrain_00000,cat"),
    )
    line = f"{tags}: 1 of 1 listed photos have no entry: val_00000; add them, or take them off the"
    return place.train("--val", path, "--tags", tags), line


@case
def a_file_of_tags_for_a_folder(place):
    path = place.file("coco.json", "{}")
    line = (
        f"{path}: this is a file, not a folder of photos; give the folder of the photos, and this"
    )
    return ("train", path, "--out", place.out, *TINY), line


@case
def an_archive_for_a_folder(place):
    path = place.file("photos.zip", "PK")
    line = f"{path}: this is an archive, not a folder of photos; unpack it, and give the folder"
    return ("check", path), line


@case
def an_address_for_a_folder(place):
    return ("check", "https://example.org/photos"), "https:/example.org/photos: this is an address"


@case
def a_folder_that_is_misspelt(place):
    line = f"{place.here / 'dd'}: this folder does not exist; check the path"
    return ("check", place.here / "dd"), line


@case
def all_photos_in_val(place):
    path = place.file("l.txt", "\n".join(p.stem for p in place.photos.iterdir()))
    line = "all photos are for validation; leave some to train on"
    return place.train("--val", path), line


# Ground truth


@case
def full_supervision_without_ground_truth(place):
    line = "full_supervision needs ground truth; give --ground-truth DIR"
    return place.train("--recipe", "full_supervision"), line


@case
def no_ground_truth_folder(place):
    path = place.here / "gt"
    line = f"{path}: this folder does not exist; check the path"
    return place.train("--ground-truth", path), line


@case
def ground_truth_folder_without_masks(place):
    line = f"{place.photos}: no masks in this folder; give the folder of masks"
    return place.train("--ground-truth", place.photos), line


@case
def ground_truth_of_other_photos(place):
    path = place.here / "gt"
    path.mkdir()
    PilImage.new("L", (128, 96)).save(path / "2007_000032.png")
    line = "no photo has ground truth; name the masks as the photos, and give the folder"
    return place.train("--ground-truth", path), line


@case
def full_supervision_with_a_mask_missing(place):
    (place.scenes / "SegmentationClass" / "train_00005.png").unlink()
    truth = place.scenes / "SegmentationClass"
    line = "1 of 24 training photos have no ground truth: train_00005; full_supervision needs it"
    words = ("--recipe", "full_supervision", "--ground-truth", truth, "--val", "val")
    return place.train(*words), line


# Run folders


@case
def out_is_a_file(place):
    path = place.file("out", "")
    return place.train(), f"{path}: cannot be used: Not a directory; check the path"


@case
def out_is_another_folder(place):
    place.out.mkdir()
    (place.out / "letter.txt").write_text("Dear Anna")
    line = f"{place.out}: is neither empty nor a run (no workspace.json); give another folder"
    return place.train(), line


@case
def out_is_a_run_of_another_recipe(place):
    line = f"{place.run}: holds a run of recipe cam_baseline, not union; give another"
    return ("train", place.scenes, "--out", place.run, *TINY), line


@case
def out_is_a_run_of_another_format(place):
    path = place.run / "workspace.json"
    about = json.loads(path.read_text())
    del about["check"]
    path.write_text(json.dumps({**about, "format": 0}))
    line = f"{place.run}: was written by another version of tagseg (not format 1); give another"
    return ("train", place.scenes, "--out", place.run, *TINY), line


@case
def percentage_of_no_run(place):
    line = f"{place.scenes}: holds no finished run; finish it: tagseg train"
    return place.train("--full-supervision", place.scenes, "--val", "val"), line


@case
def percentage_of_another_recipe(place):
    line = f"{place.run}: is a run of cam_baseline; give one of full_supervision"
    return place.train("--full-supervision", place.run, "--val", "val"), line


@case
def report_of_no_run(place):
    line = f"{place.scenes}: holds no finished run; finish it: tagseg train"
    return ("report", place.scenes), line


@case
def report_of_a_damaged_run(place):
    path = place.run / "run.json"
    path.write_text("[]")
    line = f"{path}: is damaged; run tagseg train again"
    return ("report", place.run), line


@case
def report_of_an_unfinished_run(place):
    next(place.run.glob("stages/*-findings/manifest.json")).unlink()
    line = f"{place.run}: stage findings is not finished; run the training command again"
    return ("report", place.run), line


# Predict


@case
def predict_with_no_run(place):
    line = f"{place.here / 'no'}: no such file or run folder; check the path"
    return ("predict", place.here / "no", place.photos, "--out", place.out), line


@case
def predict_with_an_unfinished_run(place):
    shutil.rmtree(next(place.run.glob("stages/*-export")))
    line = f"{place.run}: holds no trained segmenter; finish the run with tagseg train"
    return ("predict", place.run, place.photos, "--out", place.out), line


@case
def predict_with_another_file(place):
    path = place.scenes / "tags.csv"
    line = f"{path}: is no safetensors file; give a run folder"
    return ("predict", path, place.photos, "--out", place.out), line


@case
def predict_with_a_segmenter_cut_short(place):
    path = next(place.run.glob("stages/*-export/segmenter.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])
    line = f"{path}: is no safetensors file; give a run folder"
    return ("predict", path, place.photos, "--out", place.out), line


@case
def predict_with_the_weights_of_a_stage(place):
    path = next(place.run.glob("stages/*-segmenter/segmenter.safetensors"))
    line = f"{path}: holds no segmenter of tagseg; give a run folder or its segmenter"
    return ("predict", path, place.photos, "--out", place.out), line


@case
def predict_no_photos(place):
    line = f"{place.here / 'no'}: does not exist; give a photo or a folder of photos"
    return ("predict", place.run, place.here / "no", "--out", place.out), line


@case
def predict_an_empty_folder(place):
    (place.here / "empty").mkdir()
    line = f"{place.here / 'empty'}: no photos in this folder; check the path"
    return ("predict", place.run, place.here / "empty", "--out", place.out), line


@case
def predict_no_photo(place):
    line = f"{place.scenes / 'tags.csv'}: is no photo; give a photo or a folder of photos"
    return ("predict", place.run, place.scenes / "tags.csv", "--out", place.out), line


@case
def predict_into_a_file(place):
    path = place.file("out", "")
    line = f"{path}: cannot be used: File exists; check the path"
    return ("predict", place.run, place.photos, "--out", path, "--threads", "1"), line


@case
def overlays_over_photos(place):
    line = f"{place.photos / 'train_00000.jpg'}: a result would replace this photo; change"
    words = ("predict", place.run, place.photos, "--out", place.out)
    return (*words, "--overlays", place.photos), line


@case
def predict_to_a_picture(place):
    out = place.here / "mask.png"
    line = f"{out}: is named as a picture, but results are written into a folder; give a folder, su"
    return ("predict", place.run, place.photos / "val_00000.jpg", "--out", out), line


@case
def predict_below_a_file(place):
    out = place.file("file", "") / "masks"
    line = f"{out}: cannot be used: Not a directory; check the path"
    return ("predict", place.run, place.photos, "--out", out), line


@case
def predict_among_the_photos(place):
    line = f"{place.photos}: holds photos, for which the results would be taken the next time; give"
    return ("predict", place.run, place.photos, "--out", place.photos), line


@case
def out_below_a_file(place):
    out = place.file("file", "") / "run"
    line = f"{out}: cannot be used: Not a directory; check the path"
    return ("train", place.scenes, "--out", out, *TINY), line


@case
def out_on_a_device(place):
    line = "/dev/null/run: cannot be used: Not a directory; check the path"
    return ("train", place.scenes, "--out", "/dev/null/run", *TINY), line


# Evaluate


def evaluation(place: Place, *more: object) -> tuple[object, ...]:
    truth = place.scenes / "SegmentationClass"
    classes = place.scenes / "classes.txt"
    return ("evaluate", place.here / "m", truth, "--classes", classes, *more)


@case
def evaluate_no_folder(place):
    line = f"{place.here / 'm'}: this folder does not exist; check the path"
    return evaluation(place), line


@case
def evaluate_an_empty_folder(place):
    (place.here / "m").mkdir()
    line = f"{place.here / 'm'}: no photo has both a mask and ground truth (no mask for train_000"
    return evaluation(place), line


@case
def evaluate_masks_of_another_size(place):
    (place.here / "m").mkdir()
    PilImage.new("L", (64, 48)).save(place.here / "m" / "val_00000.png")
    truth = place.scenes / "SegmentationClass" / "val_00000.png"
    return evaluation(place, "--allow-missing"), f"{truth}: the mask is 96 x 128 (uint8), the photo"


@case
def evaluate_masks_of_more_classes(place):
    (place.here / "m").mkdir()
    grey = np.full((96, 128), 99, np.uint8)
    PilImage.fromarray(grey).save(place.here / "m" / "val_00000.png")
    line = "val_00000: prediction holds label 99"
    return evaluation(place, "--allow-missing"), line


@case
def evaluate_a_broken_mask(place):
    (place.here / "m").mkdir()
    (place.here / "m" / "val_00000.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    line = f"{place.here / 'm' / 'val_00000.png'}: the PNG file is cut short or damaged ("
    return evaluation(place, "--allow-missing"), line


@case
def evaluate_with_ground_truth_of_more_classes(place):
    masks = shutil.copytree(place.scenes / "SegmentationClass", place.here / "m")
    wrong = place.scenes / "SegmentationClass" / "val_00000.png"
    PilImage.fromarray(np.full((96, 128), 99, np.uint8)).save(wrong)
    assert masks
    line = f"{wrong}: holds class id 99, but there are 8 classes; check the class list, or mark"
    return evaluation(place), line


@case
def evaluate_with_no_class_list(place):
    path = place.here / "c.txt"
    truth = place.scenes / "SegmentationClass"
    line = f"{path}: cannot be read: No such file or directory; check the path"
    return ("evaluate", truth, truth, "--classes", path), line


@case
def evaluate_jpegs(place):
    folder = place.here / "m"
    folder.mkdir()
    PilImage.new("RGB", (128, 96)).save(folder / "val_00000.jpg")
    line = f"{folder}: no masks in this folder, but 1 JPEG files, and JPEG changes class ids; save"
    return evaluation(place), line


@case
def evaluate_into_no_folder(place):
    shutil.copytree(place.scenes / "SegmentationClass", place.here / "m")
    path = place.here / "no" / "scores.json"
    return evaluation(place, "--json", path), f"{path}: cannot be used: No such file or directory"


# Tables


def tables_of(place: Place, *more: object) -> tuple[object, ...]:
    words = ("tables", "builtin_priors", place.scenes, "--run", place.run)
    truth = place.scenes / "SegmentationClass"
    return (*words, "--val", "val", "--ground-truth", truth, "--threads", "1", *more)


@case
def tables_of_an_unknown_paper(place):
    line = "there are no tables of 'builtin_prior'; did you mean builtin_priors?"
    return ("tables", "builtin_prior", *tables_of(place)[2:]), line


@case
def tables_that_the_paper_has_not(place):
    line = "builtin_priors has no table '9'; choose of 3, 4, 5, 6, 7, 8, fig9, fig10, checkmask"
    return tables_of(place, "--only", "4,9"), line


@case
def tables_without_ground_truth(place):
    words = ("tables", "builtin_priors", place.scenes, "--run", place.run, "--val", "val")
    return words, "tables need ground truth; give --ground-truth DIR"


@case
def tables_without_val(place):
    words = ("tables", "builtin_priors", place.scenes, "--run", place.run, "--ground-truth")
    line = "table 3 needs validation photos; give --val, or choose with --only"
    return (*words, place.scenes / "SegmentationClass"), line


@case
def tables_without_ground_truth_of_val(place):
    for mask in place.scenes.glob("SegmentationClass/val_*.png"):
        mask.unlink()
    line = "table 3 needs ground truth of validation photos, and none has any; name the masks as"
    return tables_of(place), line


@case
def tables_of_no_run(place):
    line = f"{place.photos}: is neither empty nor a run (no workspace.json); give another folder"
    return tables_of(place, "--run", place.photos), line


@case
def tables_of_a_missing_run(place):
    path = place.here / "nothing"
    return tables_of(place, "--run", path), f"{path}: holds no run; give a folder that has a"


@case
def tables_of_another_recipes_run(place):
    line = f"{place.run}: is a run of cam_baseline; give one of builtin_priors with --run"
    return tables_of(place), line


@case
def tables_of_dcsm_that_the_paper_has_not(place):
    words = tables_of(place, "--only", "6")
    return ("tables", "dcsm", *words[2:]), "dcsm has no table '6'; choose of 1, 2, 3, 4, 5"


@case
def tables_of_dcsm_of_another_recipes_run(place):
    line = f"{place.run}: is a run of cam_baseline; give one of dcsm with --run"
    return ("tables", "dcsm", *tables_of(place)[2:]), line


# Demo


@case
def demo_without_photos(place):
    line = "0 + 100 scenes are too few; ask for more"
    return ("demo", "--train", "0", "--out", place.out), line


@case
def demo_of_an_unknown_recipe(place):
    line = "there is no recipe 'u-net'; choose one of builtin_priors, "
    return ("demo", "--recipe", "u-net", "--out", place.out), line


@case
def demo_with_an_unknown_field(place):
    line = "the recipe has no field 'rouns'; did you mean rounds?"
    return ("demo", "--set", "rouns=1", "--out", place.out), line


# What leaves a trace, on purpose


def test_a_run_in_use(place):
    with filelock.FileLock(place.run / ".lock"):
        before = contents(place.run)
        words = ("train", place.scenes, "--out", place.run, "--recipe", "cam_baseline", *TINY)
        said = tagseg(*words)
        assert contents(place.run) == before
    assert (said.status, said.out) == (2, "")
    line = f"tagseg: error: {place.run}: in use by another process; wait for it, or end it"
    assert said.err.splitlines()[-1] == line


@pytest.mark.parametrize("recipe", ["cam_baseline", "full_supervision"])
@pytest.mark.parametrize(
    ("mask", "line"),
    [
        (np.full((96, 128), 99, np.uint8), "holds class id 99, but there are 8 classes; check the"),
        (np.zeros((48, 64), np.uint8), "the mask is 48 x 64 (uint8), the photo 96 x 128; give a"),
    ],
)
def test_wrong_ground_truth_costs_no_training(place, recipe, mask, line):
    """All masks are looked at before anything else; the same command works once it is mended."""
    truth = place.scenes / "SegmentationClass"
    wrong = truth / "train_00002.png"
    good = wrong.read_bytes()
    PilImage.fromarray(mask).save(wrong)
    words = place.train("--recipe", recipe, "--ground-truth", truth, "--val", "val")
    said = tagseg(*words, *quick_flags(recipe))
    assert (said.status, said.out) == (2, "")
    assert said.err.splitlines()[-1].startswith(f"tagseg: error: {wrong}: {line}")
    assert "training" not in said.err
    assert not place.out.exists()
    wrong.write_bytes(good)
    said = tagseg(*words, *quick_flags(recipe))
    assert said.status == 0
    assert "training the segmenter" in said.err


GuidedCase = Callable[[Place], tuple[tuple[object, ...], str]]
GUIDED: dict[str, GuidedCase] = {}


def guided(function: GuidedCase) -> GuidedCase:
    """Register a case of files that ``guided`` reads: what it breaks, its flags and the line."""
    GUIDED[function.__name__.replace("_", " ")] = function
    return function


@guided
def no_folder_of_maps(place):
    path = place.here / "maps"
    return ("--saliency", path), f"{path}: this folder does not exist; check the path"


@guided
def a_file_for_a_folder_of_maps(place):
    path = place.scenes / "tags.csv"
    return ("--saliency", path), f"{path}: this folder does not exist; check the path"


@guided
def an_empty_folder_of_maps(place):
    (place.here / "maps").mkdir()
    line = f"{place.here / 'maps'}: no saliency maps in this folder; give a folder of PNG, JPEG or"
    return ("--saliency", place.here / "maps"), line


def grey_maps(place: Place) -> Path:
    (place.here / "maps").mkdir()
    for photo in place.photos.glob("train_*.jpg"):
        PilImage.new("L", (128, 96), 80).save(place.here / "maps" / f"{photo.stem}.png")
    return place.here / "maps"


@guided
def a_map_missing(place):
    folder = grey_maps(place)
    (folder / "train_00007.png").unlink()
    (folder / "train_00009.png").unlink()
    line = f"{folder}: 2 of 24 photos have no saliency map, the first is 'train_00007'; add one"
    return ("--saliency", folder), line


@guided
def a_map_of_another_shape(place):
    path = grey_maps(place) / "train_00003.png"
    PilImage.new("L", (96, 128), 80).save(path)
    return ("--saliency", path.parent), f"{path}: the saliency map is 128 x 96, the photo 48 x 64;"


@guided
def a_map_in_colour(place):
    path = grey_maps(place) / "train_00003.png"
    PilImage.new("RGB", (128, 96), (80, 0, 0)).save(path)
    return ("--saliency", path.parent), f"{path}: the saliency map holds colours; save it as a grey"


@guided
def a_map_cut_short(place):
    path = grey_maps(place) / "train_00003.png"
    path.write_bytes(path.read_bytes()[:50])
    return ("--saliency", path.parent), f"{path}: the PNG file is cut short or damaged ("


@guided
def no_file_of_boxes(place):
    path = place.here / "boxes.csv"
    return ("--boxes", path), f"{path}: cannot be read: No such file or directory; check the path"


@guided
def another_file_of_boxes(place):
    path = place.file("b.csv", "image,tag\nbox_00000,cat\n")
    line = f"{path}, line 1: unknown column 'tag'; "
    return ("--boxes", path), line


@guided
def pictures_of_the_boxes_are_not_there(place):
    file = write_boxes(place.here / "boxed")
    words = ("--boxes", file, "--box-photos", place.photos)
    return words, f"{place.photos}: 4 of 4 annotated photos are not here: box_00000, box_00001, "


@guided
def boxes_of_target_classes_alone(place):
    file = write_boxes(place.here / "boxed")
    lines = file.read_text().splitlines()
    cars = [",".join([*line.split(",")[:-1], "Car"]) for line in lines[1:]]
    file.write_text("\n".join([lines[0], *cars]))
    return ("--boxes", file), f"{file}: none of the 4 photos is left; "


@guided
def a_broken_picture_with_boxes(place):
    file = write_boxes(place.here / "boxed")
    path = file.parent / "JPEGImages" / "box_00001.jpg"
    path.write_bytes(b"\xff\xd8\xff oh")
    return ("--boxes", file), f"{path}: the JPEG file is cut short or damaged ("


@guided
def an_unknown_backbone_for_saliency(place):
    file = write_boxes(place.here / "boxed")
    words = ("--boxes", file, "--set", "saliency_backbone=resnet11")
    return words, "there is no backbone 'resnet11'; "


MINED: dict[str, GuidedCase] = {
    name: GUIDED[name] for name in ("no folder of maps", "a map of another shape")
}


def mined(function: GuidedCase) -> GuidedCase:
    """Register a case of files that ``mcof`` reads, likewise."""
    MINED[function.__name__.replace("_", " ")] = function
    return function


@mined
def no_forest(place):
    path = place.here / "forest.safetensors"
    words = ("--set", f"saliency_forest={path}")
    return words, f"{path}: no such forest file; train one: tagseg train-saliency"


@mined
def a_broken_forest(place):
    path = place.file("forest.safetensors", "oh no")
    return ("--set", f"saliency_forest={path}"), f"{path}: "


@mined
def an_unknown_backbone_for_regionnet(place):
    return ("--set", "regionnet_backbone=resnet11"), "there is no backbone 'resnet11'; "


@mined
def no_weights_for_regionnet(place):
    path = place.here / "no.pth"
    words = ("--set", "regionnet_backbone=tiny", "--set", f"regionnet_weights={path}")
    return words, f"{path}: no such weights file; "


REFINED: dict[str, GuidedCase] = {}


def refined(function: GuidedCase) -> GuidedCase:
    """Register a case of files that ``coarse_to_fine`` reads, likewise."""
    REFINED[function.__name__.replace("_", " ")] = function
    return function


@refined
def no_folder_of_coarse_masks(place):
    path = place.here / "masks"
    return ("--coarse-masks", path), f"{path}: this folder does not exist; check the path"


@refined
def a_coarse_mask_missing(place):
    folder = grey_maps(place)
    (folder / "train_00007.png").unlink()
    line = f"{folder}: 1 of 24 photos have no saliency map, the first is 'train_00007'; add one"
    return ("--coarse-masks", folder), line


OF_RECIPES = [
    *(("guided", name, case) for name, case in GUIDED.items()),
    *(("mcof", name, case) for name, case in MINED.items()),
    *(("coarse_to_fine", name, case) for name, case in REFINED.items()),
    *(("coarse_to_fine_foreground", name, case) for name, case in REFINED.items()),
]


@pytest.mark.parametrize(
    ("recipe", "broken"),
    [(recipe, case) for recipe, _, case in OF_RECIPES],
    ids=[f"{recipe}: {name}" for recipe, name, _ in OF_RECIPES],
)
def test_files_of_a_recipe_cost_no_training(place, recipe, broken):
    """They are looked at inside the run, whose folder is begun; the photos stay as they are."""
    flags, line = broken(place)
    before = contents(place.scenes)
    said = tagseg(*place.train("--recipe", recipe, "--val", "val", *flags), *quick_flags(recipe))
    assert (said.status, said.out) == (2, "")
    told = said.err.splitlines()
    assert [text.startswith("tagseg: error: ") for text in told] == [False] * (len(told) - 1) + [
        True
    ]
    assert told[-1].removeprefix("tagseg: error: ").startswith(line)
    done = "".join(text for text in told if not text.startswith("note: "))
    assert "training" not in done
    assert "learning" not in done
    assert not list(place.out.glob("stages/*/*.safetensors"))
    assert contents(place.scenes) == before


def test_a_closed_pipe_is_no_traceback(scenes):
    command = [sys.executable, "-m", "tagseg", "recipes", "--fields", "builtin_priors"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


# Coarse masks


def no_coarse_masks_for(recipe: str) -> None:
    CASES[f"{recipe} takes no --coarse-masks"] = lambda place: (
        place.train("--recipe", recipe, "--coarse-masks", place.photos),
        f"recipe {recipe} takes no --coarse-masks; use coarse_to_fine",
    )


for _recipe in ("mcof", "guided", "sec", "builtin_priors"):
    no_coarse_masks_for(_recipe)


def coarse_masks_and_saliency(recipe: str) -> None:
    CASES[f"{recipe}: --coarse-masks and --saliency"] = lambda place: (
        place.train("--recipe", recipe, "--coarse-masks", place.photos, "--saliency", place.photos),
        "--coarse-masks and --saliency mean the same; leave one of them out",
    )


for _recipe in ("coarse_to_fine", "coarse_to_fine_foreground"):
    coarse_masks_and_saliency(_recipe)


# What is told all the same


def test_scores_are_shown_before_they_are_written(place, monkeypatch):
    masks = place.scenes / "SegmentationClass"
    words = ("evaluate", masks, masks, "--classes", place.scenes / "classes.txt")
    (place.scenes / "scores.json").mkdir()  # in the way of the file
    said = tagseg(*words)
    assert said.status == 2
    assert "mIoU                  100.0   over 32 photos" in said.out
    line = f"tagseg: error: {place.scenes / 'scores.json'}: cannot be used: Is a directory"
    assert said.err.startswith(line)


def test_a_list_to_evaluate_is_looked_up(place):
    masks = place.scenes / "SegmentationClass"
    path = place.file("l.txt", "image,class\nVAL_00000.jpg,cat\nmasks/val_00001.png,dog\nzz,x\n")
    words = ("evaluate", masks, masks, "--classes", place.scenes / "classes.txt", "--list", path)
    said = tagseg(*words)
    assert said.status == 0
    assert "over 2 photos" in said.out
    assert "1 of 3 listed photos have neither mask nor ground truth: zz" in said.err
    assert (
        "l.txt: 1 name is found in other capitals: 'VAL_00000.jpg' is photo 'val_00000'" in said.err
    )


@pytest.mark.parametrize(
    ("verb", "function", "words", "told"),
    [
        (
            "train",
            "tagseg.session.train.audit",
            ("--out", "run", *TINY),
            "the same command continues",
        ),
        ("check", "tagseg.session.train.audit", (), "nothing was written"),
        (
            "predict",
            "tagseg.session.predict.predict_folder",
            ("--out", "masks"),
            "the masks so far are whole; the same command makes all of them again",
        ),
    ],
)
def test_a_stop_is_told(place, monkeypatch, verb, function, words, told):
    def stop(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(place.here)
    monkeypatch.setattr(function, stop)
    runs = (place.run,) if verb == "predict" else ()
    said = tagseg(verb, *runs, place.photos if runs else place.scenes, *words)
    assert said.status == 130
    assert said.err.splitlines()[-1] == f"stopped; {told}"
    assert "Traceback" not in said.err


def test_a_photo_of_both_lists_is_told(place):
    both = place.file("both.txt", "train_00000\ntrain_00001\nval_00000\n")
    said = tagseg("check", place.scenes, "--train", both, "--val", "val")
    assert said.status == 0
    assert "1 photo is in both --train and --val, and not trained on: val_00000" in said.err


def test_missing_photos_are_left_out_and_told(place):
    rows = "".join(f"val_0000{i}.jpg,cat\n" for i in range(4))
    tags = place.file("t.csv", f"image,tags\n{rows}gone.jpg,cat\n")
    words = ("check", place.scenes, "--tags", tags)
    refused = tagseg(*words)
    assert refused.err.rstrip().endswith("or go on without them: --allow-skipped 0.20")
    said = tagseg(*words, "--allow-skipped", "0.20")
    assert said.status == 0
    assert "1 of 5 tagged photos are not here, and left out: gone" in said.err
    assert "4 photos, " in said.out
    assert "cat 4" in said.out


def test_no_absolute_path_goes_into_reports(place, scenes, tmp_path_factory):
    """Not the home's, not the photos', not in pictures: of a run and its segmenter.

    Yet the run, which its owner reviews, knows where they are.
    """
    out = place.here / "run of mine"
    truth = place.scenes / "SegmentationClass"
    words = ("train", place.scenes, f"--out={out}", "--val", "val", "--ground-truth", truth)
    maps = place.here / "maps"
    maps.mkdir()
    for photo in place.photos.iterdir():
        PilImage.new("L", (128, 96), 80).save(maps / f"{photo.stem}.png")
    more = ("--recipe", "guided", "--saliency", maps, *quick_flags("guided"))
    assert tagseg(*words, *more).status == 0
    written = [out / "run.json", out / "report.html", *out.glob("stages/*-export/*.safetensors")]
    assert len(written) == 3
    for file in written:
        content = file.read_bytes()
        for part in (place.here, place.here.parent, tmp_path_factory.getbasetemp()):
            assert os.fsencode(part) not in content, file
    page = (out / "report.html").read_text()
    assert "&#39;--out=run of mine&#39; --val val --ground-truth SegmentationClass" in page
    files = Workspace.read(out).settings["files"]
    assert {name: Path(file) for name, file in files.items()} == {
        "photos": place.scenes.resolve(),
        "ground_truth": truth.resolve(),
        "saliency": maps.resolve(),
    }
