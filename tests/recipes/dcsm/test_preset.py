"""The numbers of Shimoda and Yanai, typed from the paper's text and compared with the preset."""

from __future__ import annotations

from preset_texts import check_against_text, check_network, fields_of_text
from tagseg.recipes.dcsm.classifier import two_phase_schedules
from tagseg.recipes.dcsm.config import Config
from tagseg.recipes.dcsm.preset import PRESET
from tagseg.session.train import make_config
from tagseg.stages.context import Setup
from tagseg.stages.settings import CrispSettings
from tagseg.training import Execution

# (section, what it says, the field that says it)
PAPER = [
    ("3.1", "Finally we obtain a segmentation result", "segmenter", "none"),
    ("3.2", "to have the largest size of the 500 pixels", "square", 500),
    ("3.2", "randomly between the ratio 0.7 and 1.4", "batch_scale", (0.7, 1.4)),
    ("3.2", "we resize training images", "classifier_flip", False),
    ("3.2", "... resize", "classifier_jitter", 0),
    ("3.2", "we use the VGG-16", "classifier_stride", None),
    ("3.2", "replaced with the equivalent convolutional layers", "classifier_width", None),
    ("4.2", "For the first 30000 iterations, ... only the upper", "upper_iterations", 30_000),
    ("4.2", "for the next 20000 iterations", "classifier_iterations", 20_000),
    ("4.2", "we fine-tuned all the layers", "trained_blocks", None),
    ("4.2", "with batchsize 2", "classifier_batch_size", 2),
    ("4.2", "learning rate 1e-5", "classifier_learning_rate", 1e-5),
    ("4.2", "... one rate", "layer_decay", 1),
    ("4.2", "We used Caffe to train", "schedule", "paper"),
    ("Eq. 5", "alpha is a constant which we set to 3", "alpha", 3),
    ("4.4", "the combination of Block 3,4,5 achieved the best", "blocks", (3, 4, 5)),
    ("4.4", "400 x 400, 500 x 500 and 600 x 600", "scales", (400 / 500, 500 / 500, 600 / 500)),
    ("3.3", "we set 0.5 to the threshold", "candidate_threshold", 0.5),
    ("3.3", "... and 3 to the minimum number", "min_candidates", 3),
    ("3.3", "we adopted guided back-propagation", "method", "guided"),
    ("Eq. 4", "the sum of max(M^c - M^c', 0)", "variant", "paper"),
    ("3.4", "we apply CRF to estimate object boundaries", "refiner", "crf"),
    ("3.4", "the efficient inference proposed by [2]", "map_filter", "lattice"),
    ("4.2", "w1 = 1, gamma_alpha = 30, gamma_beta = 10", "map_bilateral", (1, 30, 10)),
    ("4.2", "w2 = 1, gamma_gamma = 3", "map_smoothness", (1, 3)),
]


def test_it_states_what_the_text_states():
    check_against_text(PRESET, PAPER)
    assert PRESET.stated.keys() == fields_of_text(PAPER)


def test_the_network_is_vgg_16():
    check_network(PRESET, "vgg16")


def test_what_is_no_field():
    """4.2: "momentum 0.9 and weight decay 0.0005", at one rate in both phases."""
    config = make_config(Config, PRESET.values)
    schedules = two_phase_schedules(config, Setup("tiny", None, Execution()), n_photos=10)
    assert [schedule.iterations for schedule in schedules] == [30_000, 20_000]
    for schedule in schedules:
        assert (schedule.optimizer, schedule.momentum) == ("sgd", 0.9)
        assert (schedule.weight_decay, schedule.steps) == (0.0005, ())
        assert (schedule.batch_size, schedule.learning_rate) == (2, 1e-5)


def test_no_segmenter_is_trained():
    config = make_config(Config, PRESET.values)
    beside = {name for name, what in PRESET.beside.items() if what.startswith("of a segmenter")}
    assert "segmenter_epochs" in beside
    by_regions = {"segmenter_regions", *CrispSettings.__dataclass_fields__}
    assert config.segmenter_regions == "none"
    assert beside - by_regions <= config.idle().keys()
