"""What Wang et al. state, typed from the paper's text and compared with the preset."""

from __future__ import annotations

from preset_texts import check_against_text, check_network, fields_of_text
from tagseg.recipes.mcof.preset import PRESET

# (section, what it says, the field that says it)
PAPER = [
    ("4.2", "regions initially labeled as background", "unseeded", "background"),
    ("4.3", "supplement object regions by incorporating saliency maps", "supplement", True),
    ("4.3", "we use saliency map of the DRFI method", "saliency", "auto"),
    ("4.2", "learn common object features from them and predict", "mining", True),
    ("5", "DeepLab-LargeFOV model as the basic network", "segmenter", "published"),
    ("4.3", "binarizing ... with a CRF [14]", "crf_filter", "lattice"),
    ("Table 3", "iter1 ... iter5", "rounds", 5),
]


def test_it_states_what_the_text_states():
    check_against_text(PRESET, PAPER)
    assert PRESET.stated.keys() == fields_of_text(PAPER)


def test_the_network_is_that_of_the_ablations():
    """6.3.1: "we use VGG16 as base network for PixelNet"."""
    check_network(PRESET, "vgg16")


def test_no_training_has_a_number():
    """The text names no iterations, rate, batch or width; what stands in for them says whose."""
    endings = ("iterations", "batch_size", "learning_rate")
    trainings = [
        f"{net}_{what}" for net in ("classifier", "regionnet", "segmenter") for what in endings
    ]
    assert set(trainings) <= PRESET.open.keys()
    for name in trainings:
        own = PRESET.source(name, None, "Fast R-CNN: of RegionNet")
        assert own.startswith(("Oh et al.", "Fast R-CNN")), name
