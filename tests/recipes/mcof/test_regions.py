"""The stages of a round of MCOF, each beside a slow composition of its parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from guided_runs import FEW, MINING, few_photos, open_run
from small_runs import finished_stages, same_weights
from tagseg.data.transforms import Augmentation
from tagseg.errors import TagsegError
from tagseg.fuse.bayes import colour_histograms, object_probability
from tagseg.fuse.region_seeds import object_regions, paint, region_seeds
from tagseg.maps import BACKGROUND, IGNORE, labels_of_tags
from tagseg.nets.catalog import build_backbone
from tagseg.nets.gap import GapClassifier, gap_seeder
from tagseg.nets.weights import LoadedWeights, resolve
from tagseg.priors.superpixels import neighbours, superpixels
from tagseg.recipes.mcof import regions as region_mining
from tagseg.recipes.mcof.config import Config
from tagseg.recipes.mcof.regions import (
    MinedRegions,
    RegionMiner,
    initial_seeds,
    region_schedule,
    supplemented,
)
from tagseg.run.stage import record_in
from tagseg.segment.regions import describe_regions, predict_regions
from tagseg.session.train import make_config
from tagseg.stages import priors
from tagseg.stages.context import Run
from tagseg.stages.crf import Smoothing
from tagseg.stages.saliency import PhotoSaliency
from tagseg.stages.seeder import SeederMaps
from tagseg.stages.settings import ReferenceSide
from tagseg.stages.stage import Declared, LabelMaps, Trained, label_maps

LINE_AT, GREY_AT, NEGATIVE_AT, UNKNOWN_AT = 0, 4, 6, 7  # of guided_runs.few_photos


def config_of(**changed: Any) -> Any:
    return make_config(Config, {**FEW, **MINING, **changed})


class Round(NamedTuple):
    """What the first round made of few odd photos, up to the supplement."""

    run: Run
    config: Any
    miner: RegionMiner
    seeding: SeederMaps
    seeds: LabelMaps
    mined: MinedRegions
    refined: LabelMaps


@pytest.fixture(scope="module")
def first(photos, tmp_path_factory) -> Iterator[Round]:
    config = config_of(seed_threshold=0.6, background_threshold=0.3, bayes_bandwidth=0.4)
    folder = tmp_path_factory.mktemp("runs") / "run"
    with open_run(few_photos(photos), folder, val=photos.val[:2], recipe="mcof") as run:
        miner = RegionMiner(run, config)
        seeding = SeederMaps(run, config, config.seeder, config.background_threshold)
        seeds = initial_seeds(run, config, seeding.maps, miner.superpixels)
        mined = miner.mine(1, seeds, seeding.seeder)
        refined = supplemented(run, config, mined, PhotoSaliency(run, config).maps(), miner)
        yield Round(run, config, miner, seeding, seeds, mined, refined)


@pytest.fixture
def run(photos, tmp_path) -> Iterator[Run]:
    where = tmp_path / "run"
    with open_run(few_photos(photos), where, val=photos.val[:2], recipe="mcof") as run:
        yield run


def test_the_photos_are_what_this_file_says(first):
    photos = first.run.photos
    assert photos.image(LINE_AT).shape == (1, 40, 3)
    assert not np.ptp(photos.image(GREY_AT), axis=2).any()
    assert not photos.tags[NEGATIVE_AT].any()
    assert photos.dataset.known.tolist() == [True] * 7 + [False]
    counts = photos.tags.sum(1).tolist()
    assert 1 in counts
    assert max(counts) > 1


# Superpixels


def kept_superpixels(run, config):
    return priors.photo_superpixels(run, config.superpixel_settings(), config.only(ReferenceSide))


def test_superpixels_are_found_once_and_kept(first, monkeypatch):
    config, photos = first.config, first.run.photos
    found = [first.miner.superpixels(index) for index in range(len(photos))]
    monkeypatch.setattr(priors, "superpixels", None)
    again = kept_superpixels(first.run, config)
    assert again.stage is first.miner.superpixels.stage
    for index, regions in enumerate(found):
        image = photos.image(index)
        expected = superpixels(image, config.superpixel_settings(), reference_side=500)
        assert regions.dtype == again(index).dtype == np.int32
        np.testing.assert_array_equal(regions, expected)
        np.testing.assert_array_equal(again(index), expected)
    assert max(regions.max() for regions in found) > 5


def test_numbers_of_superpixels_are_for_photos_of_500_pixels_or_as_they_are(run):
    """Fixed ones are fewer: their least area does not shrink with the photo."""
    settings = config_of().superpixel_settings()
    found = kept_superpixels(run, config_of(crf_reference_side=None))
    fixed, scaled = (
        superpixels(run.photos.image(1), settings, reference_side=side) for side in (None, 500)
    )
    np.testing.assert_array_equal(found(1), fixed)
    assert fixed.max() < scaled.max()


def test_photos_of_more_regions_than_16_bits_hold(photos, tmp_path, monkeypatch):
    """As their numbers are: ids beyond 65535 are kept as they are."""
    many = np.arange(300 * 300, dtype=np.int32).reshape(300, 300)
    monkeypatch.setattr(priors, "superpixels", lambda image, *rest, **named: many)
    one = few_photos(photos).subset([1])
    with open_run(one, tmp_path / "run", recipe="mcof") as run:
        read = kept_superpixels(run, config_of())
        assert read(0).dtype == np.int32
        np.testing.assert_array_equal(read(0), many)


# Seeds


def test_seeds_are_those_of_the_seeders_maps(first):
    photos, seen = first.run.photos, set()
    for index in range(len(photos)):
        regions, tags = first.miner.superpixels(index), photos.tags[index]
        scores = first.seeding.maps(index)
        expected = region_seeds(
            scores, regions, neighbours(regions), tags, threshold=0.6, background_threshold=0.3
        )[regions]
        found = first.seeds(index)
        np.testing.assert_array_equal(found, expected)
        assert set(np.unique(found)) <= {*labels_of_tags(tags).tolist(), IGNORE}
        seen |= set(np.unique(found).tolist())
        if tags.sum() == 1 and scores.max() > 0:
            assert (found == np.flatnonzero(tags) + 1).any(), "each map has a maximum"
    assert {BACKGROUND, IGNORE} <= seen
    assert len(seen) > 3
    for index in (NEGATIVE_AT, UNKNOWN_AT):
        assert not first.seeds(index).any()


def test_regions_that_are_no_seed_can_be_background(first, run):
    """4.2: "initially labeled as background"."""
    config = replace(first.config, unseeded="background")
    labelled = initial_seeds(run, config, first.seeding.maps, first.miner.superpixels)
    seen = set()
    for index in range(len(run.photos)):
        seeds = first.seeds(index)
        seen |= set(np.unique(seeds).tolist())
        np.testing.assert_array_equal(labelled(index), np.where(seeds == IGNORE, 0, seeds))
    assert IGNORE in seen


# RegionNet


def test_regions_of_all_photos_get_the_best_of_all_labels_or_background(first):
    """As Fast R-CNN's enlarged photos say; of photos without known tags, too."""
    run, photos, net = first.run, first.run.photos, first.mined.net.model
    for index in range(len(photos)):
        regions, tags = first.miner.superpixels(index), photos.tags[index]
        (probs,) = predict_regions(
            net, photos.image(index)[None], [regions], execution=run.setup.execution, side=64
        )
        found = first.mined.labels(index)
        expected = paint(object_regions(probs, tags), regions)
        assert (found == expected).mean() > 0.98  # batches round differently
        assert set(np.unique(found)) <= set(labels_of_tags(tags).tolist())
        if not tags.any():
            assert not found.any()


def test_regions_hold_a_class(first):
    """Or the tests above and below say nothing."""
    found = [set(np.unique(first.mined.labels(index)).tolist()) for index in range(8)]
    assert set().union(*found) - {BACKGROUND}


def test_regionnets_form(first):
    """Not dilated, at stride 8 for small photos; the width and labels as configured."""
    net, stage = first.mined.net.model, first.mined.net.stage
    assert (net.fc6.out_features, net.fc7.out_features) == (16, 16)
    assert net.score.out_features == len(first.run.photos.classes) + 1
    assert net.backbone.output_stride == 8
    assert stage.name == "regionnet-1"
    assert [line["iteration"] for line in stage.read_log()] == [2]
    tensors = stage.load_tensors("regionnet")[0]
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, tensors[name])


def nothing_in(run: Run) -> LabelMaps:
    """Seeds that are background."""
    photos = run.photos
    return label_maps(
        run, Declared("nothing"), lambda index: np.zeros(photos.image(index).shape[:2], np.uint8)
    )


def given(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What RegionNet would be trained with, and no training; regions are as good as any."""
    calls: list[dict[str, Any]] = []

    def remember(net, photos, superpixels_of, labels_of, how, schedule, **named):
        calls.append({"net": net, "how": how, "schedule": schedule, **named})

    def guess(net, images, regions, **named):
        return [np.ones((m.max() + 1, net.score.out_features), np.float32) for m in regions]

    monkeypatch.setattr(region_mining, "fit_regions", remember)
    monkeypatch.setattr(region_mining, "predict_regions", guess)
    return calls


@pytest.mark.parametrize(
    ("backbone", "size", "side", "expected", "stride"),
    [
        ("tiny", (48, 64), None, 128, 8),  # twice theirs
        ("tiny", (48, 64), 64, 64, 8),
        ("tiny", (150, 200), None, 256, 8),
        ("tiny", (300, 400), None, 400, 8),  # as they are
        ("vgg16", (48, 64), None, 128, 8),
        ("vgg16", (150, 200), None, 400, 8),
        ("vgg16", (375, 500), None, 800, 16),  # Fast R-CNN's 600 on the shorter side
        ("vgg16", (375, 500), 480, 480, 16),
        ("resnet50", (300, 400), None, 800, 16),
        ("mobilenet_v2", (150, 200), None, 256, 8),
        ("mobilenet_v2", (300, 400), 480, 480, 8),
    ],
)
def test_photos_as_regionnet_sees_them(
    photos, tmp_path, monkeypatch, backbone, size, side, expected, stride
):
    calls = given(monkeypatch)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    one = replace(few_photos(photos).subset([1]), sources=(image,))
    own = {"regionnet_backbone": backbone, "regionnet_weights": "none"}
    config = config_of(**own, regionnet_side=side, regionnet_regions=7, photo_side=500)
    with open_run(one, tmp_path / "run", side=500, recipe="mcof") as run:
        RegionMiner(run, config).mine(1, nothing_in(run), None)
    (call,) = calls
    how: Augmentation = call["how"]
    factor = expected / size[1]
    assert how.scale == (factor, factor)
    assert max(how.size) == expected
    assert how.size[0] == pytest.approx(size[0] * factor, abs=8)
    assert call["net"].backbone.output_stride == stride
    assert call["regions_per_photo"] == 7


@pytest.mark.parametrize(("side", "most"), [(64, 16), (512, 16), (800, 6), (1024, 4), (3000, 1)])
def test_large_photos_are_few_in_a_forward_pass(photos, tmp_path, monkeypatch, side, most):
    """Four million pixels, and 16 photos, at most; one at least."""
    sizes: list[int] = []

    def found(net: Any, images: Any, regions: Any, **named: Any) -> list[Any]:
        assert named["side"] == side
        sizes.append(len(images))
        return [np.ones((m.max() + 1, 2), np.float32) for m in regions]

    monkeypatch.setattr(region_mining, "fit_regions", lambda *_, **named: None)
    monkeypatch.setattr(region_mining, "predict_regions", found)
    monkeypatch.setattr(
        region_mining, "object_regions", lambda probs, _: probs[:, 0].astype(np.uint8)
    )
    one, image = few_photos(photos).subset([1]), np.zeros((20, 24, 3), np.uint8)
    same = replace(
        one,
        names=tuple(f"photo {i}" for i in range(18)),
        tags=np.repeat(one.tags, 18, 0),
        known=np.repeat(one.known, 18),
        sources=(image,) * 18,
    )
    with open_run(same, tmp_path / "run", recipe="mcof") as run:
        config = config_of(regionnet_side=side, regionnet_start="imagenet")
        RegionMiner(run, config).mine(1, nothing_in(run), None)
    assert sum(sizes) == 18
    assert max(sizes) == most


def test_later_rounds_are_shorter(run, monkeypatch):
    calls = given(monkeypatch)
    config = config_of(regionnet_iterations=40, regionnet_start="imagenet")
    miner = RegionMiner(run, config)
    miner.mine(1, nothing_in(run), None)
    miner.mine(2, nothing_in(run), None, fraction=0.25)
    whole = region_schedule(config, run.setup, len(run.photos))
    assert [call["schedule"] for call in calls] == [whole, replace(whole, iterations=10)]


@pytest.mark.parametrize(
    ("backbone", "width", "expected"),
    [("vgg16", None, 4096), ("vgg16", 32, 32), ("tiny", None, 256), ("mobilenet_v2", None, 256)],
)
def test_the_width_of_fc6_and_fc7(run, monkeypatch, backbone, width, expected):
    made: list[int] = []

    def net(found: Any, n_labels: int, units: int) -> Any:
        made.append(units)
        return torch.nn.Identity()

    monkeypatch.setattr(region_mining, "RegionNet", net)
    config = config_of(regionnet_backbone=backbone, regionnet_weights="none", regionnet_width=width)
    miner = RegionMiner(run, config)
    assert miner.setup.backbone == backbone
    assert miner.setup.weights is None
    assert run.setup.backbone == "tiny"
    miner._network()
    assert made == [expected]


def random_seeder(run: Run, seed: int) -> Trained[GapClassifier]:
    """A network, and the stage that stands for its training."""
    torch.manual_seed(seed)
    net = gap_seeder("highres", "tiny", None, len(run.photos.classes), width=16)
    with run.stage("seeder", {"seed": seed}, []) as stage:
        pass
    return Trained(net, stage)


@pytest.mark.parametrize(
    ("config", "follows"),
    [
        ({}, True),
        ({"regionnet_start": "imagenet"}, False),
        ({"regionnet_backbone": "tiny"}, False),
        ({"regionnet_backbone": "tiny", "regionnet_start": "imagenet"}, False),
    ],
    ids=["classifier", "imagenet", "its own", "its own, imagenet"],
)
def test_the_backbone_starts_from_the_seeders(photos, tmp_path, monkeypatch, config, follows):
    """As configured, and where RegionNet has no backbone of its own; on nothing else of it."""
    calls = given(monkeypatch)
    imagenet = build_backbone("tiny", resolve("imagenet", "tiny")).state_dict()
    made: list[MinedRegions] = []
    for seed in (0, 1):
        with open_run(few_photos(photos), tmp_path / str(seed), recipe="mcof") as run:
            seeder = random_seeder(run, seed)
            made.append(RegionMiner(run, config_of(**config)).mine(1, nothing_in(run), seeder))
            first = calls[-1]["net"].backbone.state_dict()
            expected = seeder.model.backbone.state_dict() if follows else imagenet
            assert same_weights(first, expected)
            assert made[-1].net.model.backbone is not seeder.model.backbone
    one, other = made
    assert (one.net.stage.key != other.net.stage.key) == follows
    assert (one.labels.stage.key != other.labels.stage.key) == follows
    for layer in ("fc6", "fc7", "score"):
        ours, theirs = (getattr(mined.net.model, layer).state_dict() for mined in made)
        assert same_weights(ours, theirs)


def test_a_later_round_goes_on_from_the_one_before(run, monkeypatch):
    """From all of it, whatever the seeder."""
    calls = given(monkeypatch)
    miner, seeder, seeds = RegionMiner(run, config_of()), random_seeder(run, 0), nothing_in(run)
    before = miner.mine(1, seeds, seeder)
    with torch.no_grad():
        for tensor in before.net.model.parameters():
            tensor.add_(0.01)
    after = miner.mine(2, seeds, seeder, start=before)
    assert same_weights(calls[-1]["net"].state_dict(), before.net.model.state_dict())
    assert after.net.model is not before.net.model
    anew = miner.mine(3, seeds, seeder)
    assert same_weights(anew.net.model.backbone.state_dict(), seeder.model.backbone.state_dict())
    inputs = {
        name: [label for label, _ in record["inputs"]]
        for name in ("regionnet-1", "regionnet-2", "regionnet-3")
        if (record := record_in(miner.run.workspace.finished(name).folder)) is not None
    }
    assert "seeder" in inputs["regionnet-1"]
    assert "seeder" in inputs["regionnet-3"]
    assert "regionnet-1" in inputs["regionnet-2"]
    assert "seeder" not in inputs["regionnet-2"], "but by way of the first"


def test_it_starts_from_the_classifier_of_the_weights_file(run, monkeypatch):
    """fc6 and fc7 as Fast R-CNN has them, where the file holds a classifier that fits."""
    seen: list[Any] = []
    monkeypatch.setattr(
        region_mining, "initialise_from_classifier", lambda net, state: seen.append(state)
    )
    miner = RegionMiner(run, config_of())
    miner._network()
    assert isinstance(miner.setup.weights, LoadedWeights)
    assert seen == [miner.setup.weights.state]


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"regionnet_backbone": "resnet"}, "there is no backbone 'resnet'"),
        ({"regionnet_backbone": "tiny", "regionnet_weights": "/no/such.pth"}, "no such weights"),
    ],
)
def test_a_network_that_there_is_not_costs_no_superpixels(run, config, line):
    with pytest.raises(TagsegError, match=line):
        RegionMiner(run, config_of(**config))
    assert finished_stages(run.workspace.folder) == {}


# The supplement


def test_single_class_photos_are_supplemented_by_eq_2(first):
    run, photos = first.run, first.run.photos
    saliency_of = PhotoSaliency(run, first.config).maps()
    smoothing, changed = Smoothing.of(first.config), 0
    for index in range(len(photos)):
        found, regions = first.mined.labels(index), first.miner.superpixels(index)
        refined = first.refined(index)
        if photos.tags[index].sum() != 1:
            np.testing.assert_array_equal(refined, found)
            continue
        (label,) = np.flatnonzero(photos.tags[index]) + 1
        assert set(np.unique(refined)) <= {BACKGROUND, label}
        ids = range(regions.max() + 1)
        of_object = np.array([(found[regions == i] == label).all() for i in ids])
        image, saliency = photos.image(index), saliency_of(index)
        chances = object_probability(
            np.array([saliency[regions == i].mean() for i in ids], np.float32),
            colour_histograms(image, regions),
            of_object,
            np.array([(regions == i).sum() for i in ids]),
            bandwidth=0.4,
        )[regions]
        probs = np.stack((1 - chances, chances)).clip(1e-6, 1)
        sharp = smoothing(image, -np.log(probs), probs, None)
        expected = np.where(sharp[1] > 0.5, label, BACKGROUND)
        assert (refined == expected).mean() > 0.98
        changed += bool((refined != found).any())
    assert changed > 0
    for index in (NEGATIVE_AT, UNKNOWN_AT):
        assert not first.refined(index).any()


def test_features_of_regionnet_may_take_the_place_of_colours(first, photos, tmp_path):
    """fc7 of each region, by cosine distance."""
    (expected,) = describe_regions(
        first.mined.net.model,
        first.run.photos.image(1)[None],
        [first.miner.superpixels(1)],
        execution=first.run.setup.execution,
        side=64,
    )
    np.testing.assert_array_equal(first.miner.features(first.mined, 1), expected)
    config = replace(first.config, bayes_feature="regionnet")
    where = tmp_path / "run"
    with open_run(few_photos(photos), where, val=photos.val[:2], recipe="mcof") as run:
        miner = RegionMiner(run, config)
        seeding = SeederMaps(run, config, config.seeder, 0.3)
        seeds = initial_seeds(run, config, seeding.maps, miner.superpixels)
        mined = miner.mine(1, seeds, seeding.seeder)
        saliency_of = PhotoSaliency(run, config).maps()
        refined = supplemented(run, config, mined, saliency_of, miner)
        smoothing, single = Smoothing.of(config), np.flatnonzero(run.photos.tags.sum(1) == 1)
        for index in single:
            regions, image = miner.superpixels(int(index)), run.photos.image(int(index))
            saliency = saliency_of(int(index))
            (label,) = np.flatnonzero(run.photos.tags[index]) + 1
            ids = range(regions.max() + 1)
            found = mined.labels(int(index))
            chances = object_probability(
                np.array([saliency[regions == i].mean() for i in ids], np.float32),
                miner.features(mined, int(index)),
                np.array([(found[regions == i] == label).all() for i in ids]),
                np.array([(regions == i).sum() for i in ids]),
                bandwidth=0.4,
                distance="cosine",
            )[regions]
            probs = np.stack((1 - chances, chances)).clip(1e-6, 1)
            sharp = smoothing(image, -np.log(probs), probs, None)
            expected_labels = np.where(sharp[1] > 0.5, label, BACKGROUND)
            assert (refined(int(index)) == expected_labels).mean() > 0.98
    assert len(single) > 0
