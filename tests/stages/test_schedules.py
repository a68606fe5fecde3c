"""The papers' schedule and the short one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tagseg.recipes.cam_baseline import Config as CamConfig
from tagseg.recipes.coarse_to_fine.recipe import Config as RecursionConfig
from tagseg.recipes.dcsm.classifier import two_phase_schedules
from tagseg.recipes.dcsm.config import Config as TwoPhaseConfig
from tagseg.recipes.guided.config import Config as GuidedConfig
from tagseg.recipes.mcof.config import Config as MiningConfig
from tagseg.recipes.mcof.regions import region_schedule
from tagseg.stages import schedules
from tagseg.stages.box_saliency import saliency_schedule
from tagseg.stages.context import Setup
from tagseg.stages.schedules import (
    aspp_schedule,
    classifier_schedule,
    gap_schedule,
    guide_classifier_schedule,
    large_fov_schedule,
    segmenter_schedule,
    shortened,
    uses_paper_schedule,
)
from tagseg.training import Execution, learning_rate_factor

VGG, TINY = (Setup(name, None, Execution()) for name in ("vgg16", "tiny"))
CONFIG = CamConfig()  # a classifier's numbers and a segmenter's


@pytest.mark.parametrize(
    ("schedule", "setup", "photos", "expected"),
    [
        ("auto", VGG, 10_582, True),
        ("auto", VGG, 5000, True),
        ("auto", VGG, 4999, False),
        ("auto", TINY, 10_582, False),
        ("paper", TINY, 3, True),
        ("short", VGG, 10_582, False),
    ],
)
def test_which(schedule, setup, photos, expected):
    assert uses_paper_schedule(replace(CONFIG, schedule=schedule), setup, photos) is expected


def test_the_papers():
    """Saleh et al. 4.2: SGD at 1e-4, 1e-5 from iteration 40,000 of 60,000 on."""
    for make, batch in ((classifier_schedule, 15), (segmenter_schedule, 1)):
        schedule = make(CONFIG, VGG, 10_582)
        assert (schedule.iterations, schedule.batch_size) == (60_000, batch)
        assert (schedule.optimizer, schedule.momentum, schedule.weight_decay) == ("sgd", 0.9, 5e-4)
        rates = [schedule.learning_rate * learning_rate_factor(schedule, t) for t in (0, 39_999)]
        assert rates == [1e-4, 1e-4]
        later = [
            schedule.learning_rate * learning_rate_factor(schedule, t) for t in (40_000, 59_999)
        ]
        assert later == pytest.approx([1e-5, 1e-5])


@pytest.mark.parametrize(
    ("make", "name"), [(classifier_schedule, "classifier"), (segmenter_schedule, "segmenter")]
)
def test_the_short_one(make, name):
    epochs = getattr(CONFIG, f"{name}_epochs")
    schedule = make(CONFIG, TINY, 2000)
    assert schedule.iterations == -(-int(epochs * 2000) // schedule.batch_size)
    assert make(CONFIG, TINY, 3).iterations == schedules.MIN_ITERATIONS
    assert learning_rate_factor(schedule, schedule.iterations - 1) < 0.01
    for paper in ("paper", "short"):
        own = {f"{name}_iterations": 7, f"{name}_batch_size": 3, f"{name}_learning_rate": 0.5}
        schedule = make(replace(CONFIG, schedule=paper, **own), TINY, 2000)
        assert (schedule.iterations, schedule.batch_size, schedule.learning_rate) == (7, 3, 0.5)


# Two phases


def test_shimoda_and_yanais():
    """4.2: SGD of 2 photos at 1e-5, of the upper layers 30,000 times, of all 20,000 times."""
    phases = two_phase_schedules(TwoPhaseConfig(), VGG, 10_582)
    assert [schedule.iterations for schedule in phases] == [30_000, 20_000]
    for schedule in phases:
        assert (schedule.batch_size, schedule.learning_rate) == (2, 1e-5)
        assert (schedule.optimizer, schedule.momentum, schedule.weight_decay) == ("sgd", 0.9, 5e-4)
        assert schedule.multipliers == {}
        assert schedule.warmup == 0
        assert schedule.clip is None
        for t in (0, schedule.iterations // 2, schedule.iterations - 1):
            assert learning_rate_factor(schedule, t) == 1


def test_two_short_ones():
    config = TwoPhaseConfig()
    upper, whole = two_phase_schedules(config, TINY, 2000)
    assert upper.iterations == -(-int(config.upper_epochs * 2000) // upper.batch_size)
    assert whole.iterations == -(-int(config.classifier_epochs * 2000) // whole.batch_size)
    assert upper.iterations < whole.iterations
    assert replace(upper, iterations=whole.iterations) == whole
    assert whole == classifier_schedule(config, TINY, 2000)
    of_few = [schedule.iterations for schedule in two_phase_schedules(config, TINY, 3)]
    assert of_few == [schedules.MIN_ITERATIONS] * 2


@pytest.mark.parametrize("schedule", ["paper", "short"])
def test_each_phase_as_configured(schedule):
    config = TwoPhaseConfig(
        schedule=schedule,
        upper_iterations=7,
        classifier_iterations=9,
        classifier_batch_size=3,
        classifier_learning_rate=0.5,
    )
    phases = two_phase_schedules(config, TINY, 2000)
    assert [schedule.iterations for schedule in phases] == [7, 9]
    assert {(s.batch_size, s.learning_rate) for s in phases} == {(3, 0.5)}


# Guided segmentation and SEC


GUIDED = GuidedConfig()


def rates(schedule, *iterations):
    return [schedule.learning_rate * learning_rate_factor(schedule, t) for t in iterations]


@pytest.mark.parametrize(
    ("make", "iterations", "batch", "every", "multipliers"),
    [
        (gap_schedule, 8000, 15, 2000, {"score": 10.0}),
        (large_fov_schedule, 8000, 15, 2000, {"score": 10.0, "score_bias": 20.0}),
        (guide_classifier_schedule, 30_000, 40, 5000, {}),
    ],
)
def test_oh_et_als(make, iterations, batch, every, multipliers):
    """B.2 and F: SGD from 1e-3, a tenth of it every 2,000 or 5,000 iterations."""
    schedule = make(GUIDED, VGG, 10_582)
    assert (schedule.iterations, schedule.batch_size) == (iterations, batch)
    assert (schedule.optimizer, schedule.momentum, schedule.weight_decay) == ("sgd", 0.9, 5e-4)
    assert (schedule.warmup, schedule.clip, schedule.multipliers) == (0, None, multipliers)
    for stage in range(iterations // every):
        first, last = every * stage, every * (stage + 1) - 1
        assert rates(schedule, first, last) == pytest.approx([10.0 ** -(3 + stage)] * 2)


@pytest.mark.parametrize("photos", [5000, 11_041])
def test_chen_et_als_for_the_saliency_network(photos):
    """DeepLab-v2, 4.1: SGD of 10 photos from 2.5e-4, poly with power 0.9 over 20,000."""
    schedule = saliency_schedule(GUIDED, VGG, photos)
    assert (schedule.iterations, schedule.batch_size) == (20_000, 10)
    assert (schedule.optimizer, schedule.momentum, schedule.weight_decay) == ("sgd", 0.9, 5e-4)
    assert schedule.multipliers == {"score": 10.0, "score_bias": 20.0}
    at = (0, 10_000, 19_999)
    assert rates(schedule, *at) == pytest.approx([2.5e-4 * (1 - t / 20_000) ** 0.9 for t in at])


def test_short_ones_of_guided_segmentation():
    for setup, photos in ((TINY, 2000), (VGG, 4999), (TINY, 3)):
        gap = gap_schedule(GUIDED, setup, photos)
        assert gap == guide_classifier_schedule(GUIDED, setup, photos)
        assert gap == classifier_schedule(GUIDED, setup, photos)
        assert large_fov_schedule(GUIDED, setup, photos) == segmenter_schedule(
            GUIDED, setup, photos
        )
        saliency = saliency_schedule(GUIDED, setup, photos)
        wanted = -(-int(GUIDED.saliency_epochs * photos) // saliency.batch_size)
        assert saliency.iterations == max(wanted, schedules.MIN_ITERATIONS)
        assert saliency.optimizer == "adamw"
        assert saliency.multipliers == {"backbone": GUIDED.segmenter_backbone_factor}


def test_the_papers_where_it_is_asked_for():
    paper = replace(GUIDED, schedule="paper")
    for make in (gap_schedule, large_fov_schedule, guide_classifier_schedule, saliency_schedule):
        assert make(paper, TINY, 3) == make(GUIDED, VGG, 10_582)
        assert make(replace(GUIDED, schedule="short"), VGG, 10_582).optimizer == "adamw"


@pytest.mark.parametrize("schedule", ["paper", "short"])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (gap_schedule, "classifier"),
        (guide_classifier_schedule, "classifier"),
        (large_fov_schedule, "segmenter"),
    ],
)
def test_guided_segmentation_as_configured(make, name, schedule):
    own = {f"{name}_iterations": 7, f"{name}_batch_size": 3, f"{name}_learning_rate": 0.5}
    found = make(replace(GUIDED, schedule=schedule, **own), TINY, 2000)
    assert (found.iterations, found.batch_size, found.learning_rate) == (7, 3, 0.5)


@pytest.mark.parametrize("schedule", ["paper", "short"])
def test_the_saliency_network_as_configured(schedule):
    config = replace(GUIDED, schedule=schedule, saliency_iterations=7)
    assert saliency_schedule(config, TINY, 2000).iterations == 7
    # The segmenter's and the classifier's numbers are not its own.
    other = replace(config, segmenter_iterations=9, classifier_iterations=9)
    assert saliency_schedule(other, TINY, 2000) == saliency_schedule(config, TINY, 2000)


# MCOF


MINING = MiningConfig()


def test_fast_r_cnns():
    """Girshick 2015, 4: two photos from 1e-3, a tenth of it for the last 10,000 of 40,000."""
    schedule = region_schedule(MINING, VGG, 10_582)
    assert (schedule.iterations, schedule.batch_size) == (40_000, 2)
    assert (schedule.optimizer, schedule.momentum, schedule.weight_decay) == ("sgd", 0.9, 5e-4)
    assert (schedule.warmup, schedule.clip) == (0, None)
    assert schedule.multipliers == {"score_bias": 2.0}
    at = (0, 29_999, 30_000, 39_999)
    assert rates(schedule, *at) == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])
    assert region_schedule(replace(MINING, schedule="paper"), TINY, 3) == schedule


@pytest.mark.parametrize(("setup", "photos"), [(TINY, 2000), (VGG, 4999), (TINY, 3)])
def test_a_short_one_of_regionnet(setup, photos):
    schedule = region_schedule(MINING, setup, photos)
    wanted = -(-int(MINING.regionnet_epochs * photos) // schedule.batch_size)
    assert schedule.batch_size == 4
    assert schedule.iterations == max(wanted, schedules.MIN_ITERATIONS)
    assert schedule.optimizer == "adamw"
    factor = MINING.classifier_backbone_factor
    assert schedule.multipliers == {"backbone": factor, "head": 0.1}
    # The segmenter's factor is not its own.
    other = replace(MINING, segmenter_backbone_factor=0.9, classifier_backbone_factor=0.7)
    changed = {"backbone": 0.7, "head": 0.1}
    assert region_schedule(other, setup, photos) == replace(schedule, multipliers=changed)


@pytest.mark.parametrize("schedule", ["paper", "short"])
def test_regionnet_as_configured(schedule):
    own = {"iterations": 7, "batch_size": 3, "learning_rate": 0.5}
    named = {f"regionnet_{name}": value for name, value in own.items()}
    config = replace(MINING, schedule=schedule, **named)
    found = region_schedule(config, TINY, 2000)
    assert {name: getattr(found, name) for name in own} == own
    other = replace(config, segmenter_iterations=9, classifier_iterations=9, saliency_iterations=9)
    assert region_schedule(other, TINY, 2000) == found


# Coarse to fine


RECURSION = RecursionConfig()


@pytest.mark.parametrize("photos", [5000, 10_582])
def test_jing_et_als(photos):
    """IV-B: SGD of 12 photos from 2.5e-4; Chen et al. 2017: poly with power 0.9 over 20,000."""
    schedule = aspp_schedule(RECURSION, VGG, photos)
    assert (schedule.iterations, schedule.batch_size) == (20_000, 12)
    assert (schedule.optimizer, schedule.momentum, schedule.weight_decay) == ("sgd", 0.9, 5e-4)
    assert (schedule.warmup, schedule.clip) == (0, None)
    assert schedule.multipliers == {"score": 10.0, "score_bias": 20.0}
    at = (0, 10_000, 19_999)
    assert rates(schedule, *at) == pytest.approx([2.5e-4 * (1 - t / 20_000) ** 0.9 for t in at])
    assert aspp_schedule(replace(RECURSION, schedule="paper"), TINY, 3) == schedule


@pytest.mark.parametrize(("setup", "photos"), [(TINY, 20_000), (VGG, 4999), (TINY, 3)])
def test_a_short_one_of_coarse_to_fine(setup, photos):
    assert aspp_schedule(RECURSION, setup, photos) == segmenter_schedule(RECURSION, setup, photos)
    short = replace(RECURSION, schedule="short")
    assert aspp_schedule(short, VGG, photos) == aspp_schedule(short, TINY, photos)


@pytest.mark.parametrize("schedule", ["paper", "short"])
def test_coarse_to_fine_as_configured(schedule):
    own = {"iterations": 7, "batch_size": 3, "learning_rate": 0.5}
    named = {f"segmenter_{name}": value for name, value in own.items()}
    config = replace(RECURSION, schedule=schedule, **named)
    found = aspp_schedule(config, TINY, 2000)
    assert {name: getattr(found, name) for name in own} == own
    other = replace(config, saliency_iterations=9)
    assert aspp_schedule(other, TINY, 2000) == found
    assert not RecursionConfig.named("classifier_iterations"), "there is no classifier"


@pytest.mark.parametrize(
    ("iterations", "part", "expected"), [(40, 1.0, 40), (40, 0.5, 20), (3, 0.5, 2), (3, 0.01, 1)]
)
@pytest.mark.parametrize("make", [region_schedule, large_fov_schedule, aspp_schedule])
def test_a_part_of_a_schedule(make, iterations, part, expected):
    """The same course of the rate, in fewer iterations, of which there is one at least."""
    config = replace(
        MINING, schedule="paper", regionnet_iterations=iterations, segmenter_iterations=iterations
    )
    whole = make(config, VGG, 3)
    found = shortened(whole, part)
    assert found == replace(whole, iterations=expected)
    if expected == 20:
        for t in range(expected):
            assert learning_rate_factor(found, t) == learning_rate_factor(whole, 2 * t)
