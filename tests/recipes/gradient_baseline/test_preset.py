"""The numbers of Oh et al. for their gradient seeders, typed from the text."""

from __future__ import annotations

from preset_texts import check_against_text, check_network, fields_of_text
from tagseg.recipes.gradient_baseline.config import Config
from tagseg.recipes.gradient_baseline.preset import PRESET
from tagseg.session.train import make_config
from tagseg.stages.context import Setup
from tagseg.stages.schedules import guide_classifier_schedule
from tagseg.training import Execution

# (section, what it says, the field that says it)
PAPER = [
    ("4.2", "(pseudo-)gradients from the VGG-16 classifier", "classifier_form", "fully_connected"),
    ("Table 6", "VGG-16: input (3, 224, 224)", "classifier_size", 224),
    ("Table 6", "VGG-16: pool1 to pool5", "classifier_stride", 2**5),
    ("Table 6", "VGG-16: fc6 (4096, 7, 7), fc7 (4096, 1, 1)", "classifier_width", 4096),
    ("F", "SGD, momentum 0.9, weight decay 5e-4", "schedule", "paper"),
    ("6.1", "fine-tune on the Pascal VOC 2012 trainaug set", "trained_blocks", None),
    ("F", "base learning rate", "layer_decay", 1),
    ("F", "The training stops at 30 000 iterations", "classifier_iterations", 30_000),
    ("F", "minibatch size 40", "classifier_batch_size", 40),
    ("F", "base learning rate 0.001", "classifier_learning_rate", 0.001),
    ("4.2", "maximal absolute gradient value across the RGB channels", "blocks", (0,)),
    ("4.2", "smoothed first with vanilla Gaussian and then with dense CRF", "seed_crf", True),
    ("C.1", "w1 = 4, theta_alpha = 121, theta_beta = 5", "seed_bilateral", (4, 121, 5)),
    ("C.1", "w2 = 3, theta_gamma = 3", "seed_smoothness", (3, 3)),
    ("4.2", "dense CRF [19]", "seed_filter", "lattice"),
    ("C.1", "... in pixels", "crf_reference_side", None),
]
PHOTOS = 10_582  # of trainaug, 4.2


def test_it_states_what_the_text_states():
    check_against_text(PRESET, PAPER)
    assert PRESET.stated.keys() == fields_of_text(PAPER)


def test_the_network_is_vgg_16():
    check_network(PRESET, "vgg16")


def test_the_schedule_is_that_of_all_classifiers():
    """F: "decreased by the factor of 10 at every 5 000 iterations"."""
    config = make_config(Config, PRESET.values)
    schedule = guide_classifier_schedule(config, Setup("vgg16", None, Execution()), PHOTOS)
    assert (schedule.iterations, schedule.batch_size) == (30_000, 40)
    assert (schedule.optimizer, schedule.learning_rate) == ("sgd", 0.001)
    assert (schedule.momentum, schedule.weight_decay, schedule.gamma) == (0.9, 5e-4, 0.1)
    steps = [round(part * 30_000) for part in schedule.steps]
    assert steps == [5_000, 10_000, 15_000, 20_000, 25_000]
