"""The papers' schedule and the short one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tagseg.recipes import schedules
from tagseg.recipes.base import Setup, TrainingConfig
from tagseg.recipes.dcsm import Config as TwoPhaseConfig
from tagseg.recipes.schedules import (
    classifier_schedule,
    segmenter_schedule,
    two_phase_schedules,
    uses_paper_schedule,
)
from tagseg.training import Execution, learning_rate_factor

VGG, TINY = (Setup(name, None, Execution()) for name in ("vgg16", "tiny"))
CONFIG = TrainingConfig()


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
    assert make(CONFIG, TINY, 3).iterations == schedules._LEAST
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
    assert [s.iterations for s in two_phase_schedules(config, TINY, 3)] == [schedules._LEAST] * 2


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
