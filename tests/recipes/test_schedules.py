"""The papers' schedule and the short one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tagseg.recipes import schedules
from tagseg.recipes.base import Setup, TrainingConfig
from tagseg.recipes.schedules import classifier_schedule, segmenter_schedule, uses_paper_schedule
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
