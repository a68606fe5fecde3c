"""The numbers of Oh et al., typed from the paper's text and compared with the preset."""

from __future__ import annotations

from dataclasses import replace

import pytest

from preset_texts import check_against_text, check_network, fields_of_text
from small_runs import OPTIONS
from tagseg.nets.aspp import AsppNet
from tagseg.nets.catalog import build_backbone
from tagseg.recipes.guided.config import Config
from tagseg.recipes.guided.preset import PRESET
from tagseg.session.train import make_config, make_setup
from tagseg.stages.box_saliency import saliency_schedule
from tagseg.stages.schedules import gap_schedule, guide_classifier_schedule, large_fov_schedule
from tagseg.stages.shapes import view_scale

# (section, what it says, the field that says it)
PAPER = [
    ("6.1", "The test time foreground threshold tau is set to 0.2", "seed_threshold", 0.2),
    ("Table 6", "input (3, 321, 321)", "seeder_side", 321),
    ("Table 6", "VGG-16: input (3, 224, 224)", "classifier_size", 224),
    ("Table 6", "VGG-16: pool1 to pool5", "classifier_stride", 2**5),
    ("B.2", "base learning rate 0.001", "classifier_learning_rate", 0.001),
    ("F", "base learning rate 0.001", "segmenter_learning_rate", 0.001),
    ("F", "minibatch size 15", "segmenter_batch_size", 15),
    ("F", "The training stops at 8 000 iterations", "segmenter_iterations", 8_000),
    ("6.1", "We threshold at 50% of the maximal", "saliency_threshold", 0.50),
    ("E", "area >= 1% of the image size", "min_component", 0.01),
    ("C.1", "w1 = 4, theta_alpha = 121, theta_beta = 5", "crf_bilateral", (4, 121, 5)),
    ("C.1", "w2 = 3, theta_gamma = 3", "crf_smoothness", (3, 3)),
    ("C.1", "Throughout the paper", "share_bilateral", (4, 121, 5)),
    ("C.1", "Throughout the paper", "share_smoothness", (3, 3)),
    ("Table 6", "output heatmap (20, 41, 41) of 321", "output_stride", 320 // 40),
    ("Table 6", "GAP-DeepLab: fc6 (1024, 3, 3)", "segmenter_width", 1024),
]
PHOTOS = 10_582  # of trainaug, 6.1


def test_numbers_are_those_of_the_text():
    check_against_text(PRESET, PAPER)


def test_no_number_stands_in_the_preset_alone():
    def is_number(value: object) -> bool:
        kinds = int | float | tuple
        return isinstance(value, kinds) and not isinstance(value, bool)

    numbers = {name for name, said in PRESET.stated.items() if is_number(said.value)}
    assert PRESET.stated["layer_decay"].value == 1, "no further factor"
    assert numbers == fields_of_text(PAPER) | {"layer_decay"}


def test_the_networks():
    check_network(PRESET, "vgg16")
    assert PRESET.stated["saliency_backbone"].value == "resnet101"


@pytest.fixture
def setup():
    return replace(make_setup(OPTIONS), backbone="vgg16", weights=None)


@pytest.mark.parametrize(
    ("schedule_of", "iterations", "batch", "every"),
    [
        (gap_schedule, 8_000, 15, 2_000),  # B.2
        (guide_classifier_schedule, 30_000, 40, 5_000),  # F, Classifiers
        (large_fov_schedule, 8_000, 15, 2_000),  # F, Segmenter
    ],
)
def test_schedules_are_those_of_the_text(setup, schedule_of, iterations, batch, every):
    schedule = schedule_of(make_config(Config, PRESET.values | {"boxes": "b"}), setup, PHOTOS)
    assert (schedule.iterations, schedule.batch_size) == (iterations, batch)
    assert schedule.learning_rate == 0.001
    assert (schedule.momentum, schedule.weight_decay, schedule.gamma) == (0.9, 5e-4, 0.1)
    steps = [round(part * iterations) for part in schedule.steps]
    assert steps == list(range(every, iterations, every))


def test_saliency_follows_deeplab_v2_and_its_rates_do_not_follow_the_boxed_photos(setup):
    """F, and Chen et al. 2017: 20,000 iterations, rates 6, 12, 18, 24 at whatever size."""
    config = make_config(Config, PRESET.values | {"boxes": "b"})
    schedule = saliency_schedule(config, setup, 11_041)
    assert (schedule.iterations, schedule.batch_size) == (20_000, 10)
    assert schedule.learning_rate == 2.5e-4
    for side in (100, 500):
        scale = view_scale(config, [(side, side)])
        net = AsppNet(build_backbone("tiny", output_stride=8), 2, view_scale=scale)
        assert net.dilations == (6, 12, 18, 24)
