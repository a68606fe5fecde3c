"""The numbers of Saleh et al., typed from the paper's text and compared with the preset."""

from __future__ import annotations

from preset_texts import check_against_text, check_network, fields_of_text
from tagseg.recipes.builtin_priors.preset import PRESET

# (section, what it says, the field that says it)
PAPER = [
    ("3.1.2", "we set alpha = 0.5", "alpha", 0.5),
    ("3.1.2", "values that are above 20% of the maximum value", "cam_threshold", 0.20),
    ("3.2", "following [19], we set r to 5", "sharpness", 5),
    ("4.2.1", "a stride of 8", "output_stride", 8),
    ("4.2.1", "10^-4 for the first 40k iterations", "segmenter_learning_rate", 10**-4),
    ("4.2.1", "... and 10^-5 for the next 20k", "segmenter_iterations", 40_000 + 20_000),
    ("4.2.1", "mini-batches of size 1", "segmenter_batch_size", 1),
    ("4.2.2", "VGG-16, fc6 and fc7 substituted: five pools of 2", "classifier_stride", 2**5),
    ("4.2.2", "images of size of 224 x 224", "classifier_size", 224),
    ("4.2.2", "the last two fully-connected layers", "classifier_hidden_layers", 2),
    ("4.2.2", "mini-batches of size 15", "classifier_batch_size", 15),
    ("4.2.2", "the same values as for the semantic", "classifier_learning_rate", 10**-4),
    ("4.2.2", "... segmentation network", "classifier_iterations", 60_000),
]


def test_numbers_are_those_of_the_text():
    check_against_text(PRESET, PAPER)


def test_no_number_stands_in_the_preset_alone():
    def is_number(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    numbers = {name for name, said in PRESET.stated.items() if is_number(said.value)}
    plain = {"prior_saturate": 0, "crisp_area_weight": 0, "layer_decay": 1}  # no further term
    assert {name: PRESET.stated[name].value for name in plain} == plain
    assert numbers == fields_of_text(PAPER) | plain.keys()


def test_the_network_is_vgg_16():
    check_network(PRESET, "vgg16")
