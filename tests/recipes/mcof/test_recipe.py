"""MCOF as a whole: its numbers, its rounds, what depends on what, and interruptions."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from guided_runs import FEW, LINE, MINING, few_photos, few_runs, write_boxes, write_maps
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
from tagseg.data.masks import decode_mask, read_mask
from tagseg.errors import ConfigError, TagsegError
from tagseg.fuse.region_seeds import region_labels
from tagseg.iterate import StopRule
from tagseg.maps import IGNORE
from tagseg.priors.superpixels import SuperpixelSettings
from tagseg.recipes.mcof import regions as region_mining
from tagseg.recipes.mcof.config import Config
from tagseg.run.workspace import Workspace
from tagseg.segment.fit import GridBatch
from tagseg.session.export import load_segmenter
from tagseg.session.report import render_report
from tagseg.session.train import Result, make_config, train
from tagseg.stages import large_fov
from tagseg.stages.large_fov import grid_cross_entropy

Few = Callable[..., Result]


@pytest.fixture(scope="module")
def few(photos) -> Few:
    return few_runs(photos, "mcof", {**FEW, **MINING})


@pytest.fixture(scope="module")
def result(few, tmp_path_factory) -> Result:
    return few({}, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def folder(result, tmp_path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(result.folder, tmp_path / "run"))


def about(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


# Numbers


def test_the_papers_numbers():
    config = Config()
    assert (config.saliency_source(), config.supplement, config.mining) == ("drfi", True, True)
    assert config.rounds == 5
    assert (config.crf_bilateral, config.crf_smoothness) == ((4.0, 121.0, 5.0), (3.0, 3.0))
    assert config.stop_rule() == StopRule(5, 0.97)
    assert config.superpixel_settings() == SuperpixelSettings(100.0, 0.8, 100)
    assert [config.fraction_of(number) for number in (1, 2, 5)] == [1.0, 0.5, 0.5]


def test_numbers_as_given():
    config = make_config(
        Config,
        {
            "superpixel_scale": 50.0,
            "superpixel_sigma": 0.0,
            "superpixel_min": 1,
            "rounds": 1,
            "converged": 2.0,
            "later_fraction": 1.0,
            "seed_fraction": 1.0,
            "seed_threshold": 1.0,
            "background_threshold": 1.0,
            "start": "cold",
        },
    )
    assert config.superpixel_settings() == SuperpixelSettings(50.0, 0.0, 1)
    assert config.stop_rule() == StopRule(1, 2.0)
    assert config.fraction_of(2) == 1.0


THRESHOLDS = "background_threshold is {}, seed_threshold {}; use over 0, up to 1, the background's"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"saliency": "grabcut"}, "saliency is 'grabcut'; "),
        ({"seeder": "vgg"}, "seeder is 'vgg'; "),
        ({"start": "hot"}, "start is 'hot'; "),
        ({"bayes_feature": "depth"}, "bayes_feature is 'depth'; "),
        ({"regionnet_start": "random"}, "regionnet_start is 'random'; "),
        ({"rounds": 0}, "rounds is 0; use 1 or more"),
        ({"converged": 0.0}, "converged is 0.0; use a value over 0"),
        ({"converged": math.nan}, "converged is "),
        ({"superpixel_scale": 0.0}, "superpixel_scale is 0.0; use a value over 0"),
        ({"superpixel_sigma": -1.0}, "superpixel_sigma is -1.0; use 0 "),
        ({"superpixel_sigma": 101.0}, "superpixel_sigma is 101.0; use 0 to 100"),
        ({"superpixel_min": 0}, "superpixel_min is 0; use a value over 0"),
        ({"background_threshold": 0.0}, "background_threshold is 0.0; use over 0, up to 1"),
        ({"background_threshold": -0.1}, "background_threshold is -0.1; use over 0, up to 1"),
        ({"seed_threshold": 1.1}, "seed_threshold is 1.1; use over 0, up to 1"),
        ({"seed_threshold": 0.1}, THRESHOLDS.format(0.2, 0.1)),
        ({"seed_fraction": 0.0}, "seed_fraction is 0.0; use over 0, up to 1"),
        ({"seed_fraction": 1.5}, "seed_fraction is 1.5; use over 0, up to 1"),
        ({"later_fraction": 0.0}, "later_fraction is 0.0; use over 0, up to 1"),
        ({"later_fraction": 2.0}, "later_fraction is 2.0; use over 0, up to 1"),
        ({"regionnet_side": 0}, "regionnet_side is 0; use "),
        ({"regionnet_regions": 0}, "regionnet_regions is 0; use a value over 0"),
        ({"regionnet_iterations": 0}, "regionnet_iterations is 0; use a value over 0"),
        ({"regionnet_width": 0}, "regionnet_width is 0; use a value over 0"),
        ({"regionnet_batch_size": 0}, "regionnet_batch_size is 0; use a value over 0"),
        ({"regionnet_learning_rate": -1.0}, "regionnet_learning_rate is -1.0; use a value over"),
        ({"regionnet_epochs": 0.0}, "regionnet_epochs is 0.0; use a value over 0"),
        ({"bayes_bandwidth": 0.0}, "bayes_bandwidth is 0.0; use a value over 0"),
        ({"bayes_bandwidth": math.nan}, "bayes_bandwidth is "),
        ({"saliency_iterations": 0}, "saliency_iterations is 0; use a value over 0"),
        ({"seeder_side": 8}, "seeder_side is 8; use 16 or more"),
        ({"saliency": "boxes"}, "saliency=boxes has nothing to read; give --boxes FILE"),
        ({"boxes": "b", "saliency_forest": "f"}, "saliency_forest is given, but saliency comes"),
    ],
)
def test_numbers_that_make_no_sense(values, line):
    for make in (lambda: make_config(Config, values), lambda: Config(**values)):
        with pytest.raises(ConfigError) as caught:
            make()
        assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"bayes_bandwidth": math.inf}, "bayes_bandwidth is inf; use a value over 0"),
        ({"seed_threshold": math.nan}, "seed_threshold is nan; use over 0, up to 1"),
        ({"background_threshold": math.nan}, "background_threshold is nan; use over 0, up to 1"),
        ({"seed_fraction": math.nan}, "seed_fraction is nan; use over 0"),
    ],
)
def test_what_is_no_number(values, line):
    with pytest.raises(ConfigError) as caught:
        Config(**values)
    assert str(caught.value).startswith(line)


def test_without_the_supplement_no_saliency_is_needed_whatever_is_given():
    """Rows of the tables change the run's own."""
    Config(supplement=False, saliency="boxes")
    Config(supplement=False, boxes="b.csv", saliency_maps="m")


# Eq. 3


@pytest.mark.parametrize("seed", range(3))
def test_pixelnet_learns_by_eq_3(seed):
    """The sum over c and over u in S_c of -log f, divided by the sum of |S_c|."""
    rng = np.random.default_rng(seed)
    n_labels, shape = 4, (2, 5, 7)
    scores = 3 * rng.normal(size=(shape[0], n_labels, *shape[1:]))
    labels = rng.choice([0, 1, 3, IGNORE], shape).astype(np.uint8)
    total, size = 0.0, 0
    for c in range(n_labels):
        locations = [u for u in np.ndindex(shape) if labels[u] == c]  # S_c
        size += len(locations)
        for photo, y, x in locations:
            column = [math.exp(scores[photo, k, y, x]) for k in range(n_labels)]
            total += math.log(column[c] / sum(column))
    nothing = torch.empty(0)
    batch = GridBatch(nothing, torch.from_numpy(labels), nothing, nothing)
    found = grid_cross_entropy(torch.from_numpy(scores), batch).item()
    assert found == pytest.approx(-total / size, rel=1e-12)


# Runs


def round_of(number: int, *, mining: bool = True, supplement: bool = False) -> list[str]:
    """Stages of a round, in order."""
    found = [f"regionnet-{number}", f"object-regions-{number}"] if mining else []
    found += ["supplement"] if supplement else []
    found += [f"pixelnet-{number}", f"masks-{number}"]
    found += [f"agreement-{number}"] if number > 1 else []
    return [*found, f"predictions-{number}"]


SEEDING = ["seeder", "location-maps", "seeds"]
FIRST = round_of(1, supplement=True)
LAST = ["masks", "predictions", "export", "val-location-maps", "findings"]
IDS = {"RegionNet": "regions", "saliency supplement": "supplement", "PixelNet": "round-masks"}
VARIANTS: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "plain": (
        {},
        ["superpixels", "saliency", *SEEDING, *FIRST, *round_of(2)],
        ["RegionNet 1", "saliency supplement 1", "PixelNet 1", "RegionNet 2", "PixelNet 2"],
    ),
    "without the supplement": (
        {"supplement": False, "saliency": "auto"},
        ["superpixels", *SEEDING, *round_of(1), *round_of(2)],
        ["RegionNet 1", "PixelNet 1", "RegionNet 2", "PixelNet 2"],
    ),
    "without mining": (
        {"mining": False},
        ["superpixels", "saliency", *SEEDING, *FIRST, *round_of(2, mining=False)],
        ["RegionNet 1", "saliency supplement 1", "PixelNet 1", "PixelNet 2"],
    ),
    "cold": (
        {"start": "cold"},
        ["superpixels", "saliency", *SEEDING, *FIRST, *round_of(2)],
        ["RegionNet 1", "saliency supplement 1", "PixelNet 1", "RegionNet 2", "PixelNet 2"],
    ),
    "one round": (
        {"rounds": 1},
        ["superpixels", "saliency", *SEEDING, *FIRST],
        ["RegionNet 1", "saliency supplement 1", "PixelNet 1"],
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_stages_and_predictions(few, folder, name):
    """Of the present settings: what the run had before is none of them."""
    config, stages, rounds = VARIANTS[name]
    made = few(config, folder)
    numbers = range(1, 3 if name != "one round" else 2)
    assert [stage["name"] for stage in about(folder)["stages"]] == [*stages, *LAST]
    by_round: list[tuple[str, str]] = []
    ids: list[list[tuple[str, str]]] = []
    for number in numbers:
        of_round = [title[:-2] for title in rounds if title.endswith(str(number))]
        by_round += [(f"{title}, round {number}", "train") for title in of_round]
        by_round.append((f"PixelNet + CRF, round {number}", "val"))
        ids.append([*((IDS[title], "train") for title in of_round), ("segmenter", "val")])
    assert [(score.stage, score.split) for score in made.scores] == [
        ("seeds", "train"),
        *by_round,
        ("masks of the photos (known tags)", "train"),
        ("PixelNet", "val"),
        ("PixelNet + CRF", "val"),
    ]
    by_title = {(score.stage, score.split): score.miou for score in made.scores}
    final = by_title["PixelNet + CRF", "val"]
    assert by_title[f"PixelNet + CRF, round {max(numbers)}", "val"] == final
    told = about(folder)
    trainings = [stage for stage in stages if stage.startswith(("regionnet-", "pixelnet-"))]
    assert told["curves"] == ["seeder", *trainings]
    assert [entry["round"] for entry in told["progression"]["rounds"]] == list(numbers)
    assert [
        [(id, split) for id, split in entry["predictions"]]
        for entry in told["progression"]["rounds"]
    ] == ids
    assert [
        (score.id, score.split, score.number) for score in made.scores if score.number is not None
    ] == [(*entry, number) for number, found in zip(numbers, ids, strict=True) for entry in found]
    seeds = Workspace.read(folder).finished("findings").load_json("seeds")
    assert [row["method"] for row in seeds] == ["seeder (highres)", "centre mean shape"]


def test_without_crf_and_validation_photos(few, folder):
    made = few({"refiner": "none"}, folder)
    titles = [score.stage for score in made.scores if score.split == "val"]
    assert titles == ["PixelNet, round 1", "PixelNet, round 2", "PixelNet"]
    made = few({"rounds": 1}, folder, val=())
    assert {score.split for score in made.scores} == {"train"}
    (first,) = about(folder)["progression"]["rounds"]
    assert first["predictions"][-1] == ["round-masks", "train"]


def test_the_answer_is_the_last_rounds_network(result):
    stage = Workspace.read(result.folder).finished("pixelnet-2")
    trained = stage.load_tensors("segmenter")[0]
    assert same_weights(weights_of(result), trained)
    loaded = load_segmenter(result.folder, device="cpu", precision="fp32")
    assert loaded.net.margin == result.segmenter.net.margin == 8
    image = np.random.default_rng(0).integers(0, 256, (41, 57, 3), np.uint8)
    np.testing.assert_array_equal(loaded.predict(image), result.segmenter.predict(image))


def test_a_photo_of_one_row_has_a_mask(result):
    assert read_mask(result.masks / f"{LINE}.png").shape == (1, 40)


def test_photos_of_nothing_at_all():
    """Nothing is tagged: all is background, the rounds agree, and nothing breaks."""
    images = [np.random.default_rng(i).integers(0, 256, (40, 56, 3), np.uint8) for i in range(3)]
    bare = Dataset.from_arrays(images, np.zeros((3, 2), bool), ("cat", "dog"))
    made = train(bare, "mcof", {**FEW, **MINING, "rounds": 3}, options=OPTIONS)
    for name in bare.names:
        assert not read_mask(made.masks / f"{name}.png").any()
    told = about(made.folder)["progression"]
    assert [entry["agreement"] for entry in told["rounds"]] == [None, 1.0]
    assert told["reason"].startswith("Stopped after round 2: its masks agree")


def test_random_weights_low_precision_and_a_backbone_of_its_own(few):
    config = {
        "regionnet_backbone": "mobilenet_v2",
        "regionnet_weights": "none",
        "regionnet_regions": 3,
        "rounds": 1,
        "bayes_bandwidth": 0.05,
    }
    how = options(weights="none", precision="bf16")
    made = few(config, options=how, val=(), ground_truth=None)
    assert all(torch.isfinite(tensor).all() for tensor in weights_of(made).values())
    tensors = Workspace.read(made.folder).finished("regionnet-1").load_tensors("regionnet")[0]
    assert tensors["fc6.weight"].shape == (16, 7 * 7 * 1280)
    assert made.segmenter.net.backbone.out_channels != 1280
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


# Rounds


def test_settled_masks_end_the_rounds(few, folder):
    """The run says why, and so does its page; without that rule it goes on."""
    before = finished_stages(folder)
    few({"rounds": 3, "converged": 0.01}, folder)
    assert changed_stages(before, folder) == set(), "the second round was there, the third is not"
    told = about(folder)["progression"]
    first, second = (entry["agreement"] for entry in told["rounds"])
    assert first is None
    assert 0.01 < second < 0.97
    assert told["reason"] == (
        f"Stopped after round 2: its masks agree with those before by {100 * second:.1f} %, "
        "1 % or more."
    )
    page = (folder / "report.html").read_text()
    assert told["reason"] in page
    assert f"{100 * second:.1f}</td>" in page
    few({"rounds": 3, "converged": 2.0}, folder)
    assert about(folder)["progression"]["reason"] == "Stopped after 3 rounds, as configured."
    assert {"regionnet-3", "pixelnet-3", "agreement-3"} <= finished_stages(folder).keys()


def test_the_page_tells_the_rounds(result, folder):
    page = result.report.read_text()
    section = page[page.index('<section id="rounds"') :]
    section = section[: section.index("</section>")]
    assert "Stopped after 2 rounds, as configured." in section
    miou = {(score.stage, score.split): f"{100 * score.miou:.1f}" for score in result.scores}
    for stage, split in (
        *(("RegionNet, round 1", "train"), ("saliency supplement, round 1", "train")),
        *(("PixelNet, round 2", "train"), ("PixelNet + CRF, round 2", "val")),
    ):
        assert f"{miou[stage, split]}</td>" in section
    assert render_report(folder).read_text() == page, "from the folder alone"


class Begun(NamedTuple):
    """What a training began with."""

    weights: dict[str, torch.Tensor]
    labels: Any
    iterations: int


@pytest.fixture
def begun(monkeypatch) -> dict[str, list[Begun]]:
    """What RegionNet's and PixelNet's trainings begin with, in order."""
    found: dict[str, list[Begun]] = {"regionnet": [], "pixelnet": []}
    regions, pixels = region_mining.fit_regions, large_fov.fit_on_grid

    def weights(net: Any) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in net.state_dict().items()}

    def fit_regions(net, photos, superpixels_of, labels_of, how, schedule, **named):
        found["regionnet"].append(Begun(weights(net), labels_of, schedule.iterations))
        return regions(net, photos, superpixels_of, labels_of, how, schedule, **named)

    def fit_on_grid(net, photos, targets, objective, how, schedule, **named):
        found["pixelnet"].append(Begun(weights(net), targets, schedule.iterations))
        return pixels(net, photos, targets, objective, how, schedule, **named)

    monkeypatch.setattr(region_mining, "fit_regions", fit_regions)
    monkeypatch.setattr(large_fov, "fit_on_grid", fit_on_grid)
    return found


def trained(folder: Path, name: str) -> dict[str, torch.Tensor]:
    tensors = "segmenter" if name.startswith("pixelnet") else "regionnet"
    return dict(Workspace.read(folder).finished(name).load_tensors(tensors)[0])


ANEW = {"seed_fraction": 0.6, "rounds": 3, "converged": 2.0}  # of which no training is finished


@pytest.mark.parametrize("start", ["warm", "cold"])
def test_what_later_rounds_start_from(few, folder, begun, start):
    few({**ANEW, "start": start}, folder)
    for name in ("regionnet", "pixelnet"):
        assert [entry.iterations for entry in begun[name]] == [2, 1, 1]
        first, second, third = (entry.weights for entry in begun[name])
        if start == "cold":
            assert same_weights(first, second)
            assert same_weights(first, third)
        else:
            assert not same_weights(first, second)
            assert same_weights(second, trained(folder, f"{name}-1"))
            assert same_weights(third, trained(folder, f"{name}-2"))


@pytest.mark.parametrize(
    ("config", "follows"),
    [
        ({}, True),
        ({"regionnet_start": "imagenet"}, False),
        ({"regionnet_backbone": "tiny"}, False),
    ],
    ids=["classifier", "imagenet", "its own"],
)
def test_what_the_first_regionnet_starts_from(few, folder, begun, config, follows):
    """The trained seeder's backbone, where it is the same network."""
    few({**ANEW, "rounds": 1, "supplement": False, **config}, folder)
    (first,) = begun["regionnet"]
    seeder = Workspace.read(folder).finished("seeder").load_tensors("classifier")[0]
    of_seeder = {name: tensor for name, tensor in seeder.items() if name.startswith("backbone.")}
    assert len(of_seeder) > 20
    assert same_weights({name: first.weights[name] for name in of_seeder}, of_seeder) == follows


@pytest.mark.parametrize(
    ("config", "targets"),
    [
        ({}, ["supplement", "object-regions-2", "object-regions-3"]),
        ({"supplement": False}, ["object-regions-1", "object-regions-2", "object-regions-3"]),
        ({"mining": False, "later_fraction": 1.0}, ["supplement", "masks-1", "masks-2"]),
    ],
    ids=["plain", "without the supplement", "without mining"],
)
def test_what_each_network_learns_from(few, photos, folder, begun, config, targets):
    few({**ANEW, **config}, folder)
    assert [entry.labels.stage.name for entry in begun["pixelnet"]] == targets
    work = Workspace.read(folder)
    sources = ["seeds", "masks-1", "masks-2"][: 3 if config.get("mining", True) else 1]
    assert len(begun["regionnet"]) == len(sources)
    names = few_photos(photos).names  # those for validation stand last
    for entry, source in zip(begun["regionnet"], sources, strict=True):
        for index in (0, 3):
            labels = decode_mask(work.finished(source).maps("labels").get_bytes(names[index]))
            kept = work.finished("superpixels").maps("superpixels").get(names[index])
            regions = kept["superpixels"]
            expected = region_labels(labels, regions.astype(np.int32), min_fraction=0.6)
            np.testing.assert_array_equal(entry.labels(index), expected)
    if "mining" in config:
        assert [entry.iterations for entry in begun["pixelnet"]] == [2, 2, 2]
        second = begun["pixelnet"][1]
        assert same_weights(second.weights, trained(folder, "pixelnet-1"))


# What depends on what

END = {"masks", "predictions", "findings", "export"}
TWO = {*round_of(2), *END}
AFTER_SUPPLEMENT = {"pixelnet-1", "masks-1", "predictions-1", *TWO}
AFTER_REGIONS = {"supplement", *AFTER_SUPPLEMENT}


def test_more_rounds_go_on_from_those_there_are(few, folder):
    """And give what as many at once give."""
    before = finished_stages(folder)
    more = few({"rounds": 3}, folder)
    assert changed_stages(before, folder) == {*round_of(3), *END}
    again = few({"rounds": 3}, folder.with_name("fresh"))
    assert same_weights(weights_of(more), weights_of(again))
    assert contents(more.masks) == contents(again.masks)


# Interrupted

CUT = {  # what is called for each photo or iteration of a stage
    "superpixels": "tagseg.stages.priors.superpixels",
    "seeds": "tagseg.recipes.mcof.regions.region_seeds",
    "regionnet-1": "tagseg.segment.regions._loss",
    "object-regions-1": "tagseg.recipes.mcof.regions.object_regions",
    "supplement": "tagseg.recipes.mcof.regions.refined_regions",
    "pixelnet-1": "tagseg.losses.pixel._mean_over",
    "masks-1": "tagseg.stages.rounds.refined_by_tags",
    "regionnet-2": "tagseg.segment.regions._loss",
    "pixelnet-2": "tagseg.losses.pixel._mean_over",
    "masks-2": "tagseg.stages.rounds.refined_by_tags",
    "predictions-2": "tagseg.stages.segmenter.encode_mask",
}
WHOLE = {"later_fraction": 1.0}  # two iterations in the second round, too


def test_interrupted_in_each_stage(few, folder, tmp_path, monkeypatch):
    """Cut short again and again, later each time, it ends as the undisturbed run."""
    expected = few(WHOLE, folder)
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY", 0.0)
    run = tmp_path / "cut"
    for stage, function in CUT.items():
        done = finished_stages(run)
        cut_short(lambda: few(WHOLE, run), run, stage, function)
        (at_work,) = run.glob("stages/*/started.json")
        assert at_work.parent.name[3:] == stage
        assert all(finished_stages(run)[name] == at for name, at in done.items())
    made = few(WHOLE, run)
    assert same_weights(weights_of(made), weights_of(expected))
    assert contents(made.masks) == contents(expected.masks)
    assert about(run)["progression"] == about(folder)["progression"]
    for name in ("regionnet-1", "regionnet-2", "pixelnet-1"):
        ours, theirs = (
            next(place.glob(f"stages/*-{name}/*.safetensors")).read_bytes()
            for place in (run, folder)
        )
        assert ours == theirs
    assert stored(run) == stored(folder)


def stored(run: Path) -> dict[str, Any]:
    """The labels of every stage of every round."""
    work, found = Workspace.read(run), {}
    for name in ("seeds", "object-regions-1", "supplement", "masks-1", "object-regions-2"):
        maps = work.finished(name).maps("labels")
        found[name] = {photo: maps.get_bytes(photo) for photo in maps.names()}
    work.close()
    return found


# What cannot be


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"saliency": "auto", "saliency_maps": "no such thing"}, "this folder does not exist"),
        ({"saliency": "auto", "boxes": "no such thing"}, "cannot be read"),
        ({"saliency": "auto", "saliency_forest": "no such thing"}, "no such thing"),
        ({"regionnet_backbone": "resnet11"}, "there is no backbone 'resnet11'"),
        (
            {"regionnet_backbone": "mobilenet_v2", "regionnet_weights": "no such thing"},
            "no such weights file",
        ),
    ],
    ids=["maps", "boxes", "forest", "backbone", "weights"],
)
def test_a_missing_file_shows_before_any_work(few, tmp_path, config, line):
    with pytest.raises(TagsegError, match=line) as caught:
        few(config, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert finished_stages(tmp_path / "run") == {}


@pytest.mark.parametrize("source", ["boxes", "saliency_maps"])
def test_other_sources_of_saliency(few, folder, photos, tmp_path, source):
    made: dict[str, Callable[[], Path]] = {
        "boxes": lambda: write_boxes(tmp_path / "boxes"),
        "saliency_maps": lambda: write_maps(tmp_path / "maps", few_photos(photos), photos),
    }
    before = finished_stages(folder)
    given = {source: str(made[source]()), "saliency": "auto", "saliency_iterations": 2}
    few({**given, "rounds": 1}, folder)
    learned = {"box-masks", "saliency-net"} if source == "boxes" else set()
    assert changed_stages(before, folder) == {
        *learned,
        "saliency",
        *(AFTER_REGIONS - {*round_of(2)}),
    }
    assert ("saliency-net" in about(folder)["curves"]) == (source == "boxes")
