"""The numbers of Jing et al., typed from the paper's text and compared with both presets."""

from __future__ import annotations

import pytest

from preset_texts import check_against_text, fields_of_text
from tagseg.recipes.coarse_to_fine.foreground import RECIPE as FOREGROUND
from tagseg.recipes.coarse_to_fine.preset import FOREGROUND_PRESET, PRESET
from tagseg.recipes.coarse_to_fine.recipe import RECIPE
from tagseg.session.train import make_config
from tagseg.stages.context import Setup
from tagseg.stages.schedules import aspp_schedule
from tagseg.training import Execution

# (section, what it says, the field that says it)
SHARED = [
    ("III-B", "the student network is employed to generate the coarse masks", "saliency", "auto"),
    ("III-C", "the enhanced coarse masks are obtained", "initial", "enhanced"),
    ("III-C", "repeating the two-step procedure until it converges", "grabcut_iterations", None),
    ("IV-D.2", "the GrabCut is applied on the predicted masks", "between", "grabcut"),
    (
        "IV-D.2",
        "less than 1% pixels or more than 80% pixels",
        "foreground_limits",
        (1 / 100, 80 / 100),
    ),
    ("IV-D.2", "not be used ... in next training round", "filter_first", False),
    ("IV-B", "Training is completed for 5 training rounds", "rounds", 5),
    ("IV-B", "... completed", "converged", 2),  # an agreement that there is not
    ("III-D", "to continue to train the network", "start", "warm"),
    ("IV-B", "Stochastic Gradient Descent", "schedule", "paper"),
    ("IV-B", "a batch size of 12 images", "segmenter_batch_size", 12),
    ("IV-B", "The learning rate is set to 0.00025", "segmenter_learning_rate", 0.00025),
    ("IV-B", "each image is resized to 321 x 321", "resize", 321),
    ("IV-B", "... to 321 x 321", "resize_range", (1, 1)),
    ("IV-B", "random cropped to the size of 256 x 256", "segmenter_crop", 256),
]
OF_CLASSES = [
    ("III-D", "We choose DeepLab as the semantic segmentation network", "segmenter", "published"),
    ("IV-E", "can identify multi-categories in the training image", "masks_by_tags", False),
]
OF_FOREGROUND = [("III-E", "we choose the Feature Pyramid Network", "network", "fpn")]


@pytest.mark.parametrize(
    ("preset", "paper"),
    [(PRESET, SHARED + OF_CLASSES), (FOREGROUND_PRESET, SHARED + OF_FOREGROUND)],
    ids=["classes", "foreground"],
)
def test_it_states_what_the_text_states(preset, paper):
    check_against_text(preset, paper)
    assert preset.stated.keys() == fields_of_text(paper)
    assert preset.backbone is None, "the text names no network below DeepLab"


@pytest.mark.parametrize("recipe", [RECIPE, FOREGROUND], ids=lambda recipe: recipe.name)
def test_what_is_no_field(recipe):
    """IV-B: "momentum to 0.9, and weight decay to 0.0005"."""
    config = make_config(recipe.config, recipe.paper_preset.values)
    schedule = aspp_schedule(config, Setup("tiny", None, Execution()), n_photos=10)
    assert (schedule.optimizer, schedule.momentum, schedule.weight_decay) == ("sgd", 0.9, 0.0005)
    assert (schedule.batch_size, schedule.learning_rate) == (12, 0.00025)
