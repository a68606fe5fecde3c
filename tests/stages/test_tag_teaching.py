"""What a run's tag classifier is taught, and what of it stands in a key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from small_runs import QUICK
from tagseg.data.working import WorkingPhotos
from tagseg.errors import ConfigError
from tagseg.localize.classifier import multi_label_loss
from tagseg.losses.image_tags import hill_loss, rejection_loss, tag_cross_entropy
from tagseg.recipes.catalog import RECIPES
from tagseg.recipes.union.config import Config
from tagseg.run.plan import Plan
from tagseg.session.train import make_config
from tagseg.stages.context import Run
from tagseg.stages.tag_doubts import Doubts
from tagseg.stages.tag_teaching import taught_tags
from tagseg.training import Batch

GENERATOR = torch.Generator().manual_seed(0)


def config(**values: Any) -> Config:
    own = {name: value for name, value in QUICK.items() if Config.named(name)}
    return make_config(Config, {**own, **values})


def marked(run: Run, name: str) -> tuple[Run, np.ndarray]:
    """The run with one class of one photo marked as unsure or absent."""
    dataset = run.photos.dataset
    mark = np.zeros_like(dataset.tags)
    mark[0, np.flatnonzero(~dataset.tags[0])[0]] = True
    other = replace(dataset, **{name: mark})
    return replace(run, photos=WorkingPhotos(other, run.photos.side)), mark


def batch_of(run: Run, arrays: dict[str, Any], iteration: int = 0) -> tuple[torch.Tensor, Batch]:
    scores = torch.randn(run.photos.tags.shape, generator=GENERATOR)
    batch = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    return scores, {**batch, "iteration": torch.tensor(iteration)}


def loss_of(run: Run, settings: Config, iteration: int = 0) -> tuple[float, torch.Tensor, Batch]:
    teaching = taught_tags(run, settings).teaching
    scores, batch = batch_of(run, dict(teaching.of_photos), iteration)
    return float(teaching.batch_loss(scores, batch, len(scores))), scores, batch


def test_complete_tags_are_taught_as_they_always_were(odd_run: Run) -> None:
    taught = taught_tags(odd_run, config())
    assert taught.decided_by == []
    assert taught.inputs == []
    assert list(taught.teaching.of_photos) == ["tags"]
    assert taught.teaching.of_photos["tags"] is odd_run.photos.tags
    value, scores, batch = loss_of(odd_run, config())
    assert value == float(multi_label_loss(scores, batch["tags"]))


def test_what_is_surely_absent_changes_nothing_of_complete_tags(odd_run: Run) -> None:
    run, _ = marked(odd_run, "absent")
    taught = taught_tags(run, config())
    assert taught.decided_by == []
    assert list(taught.teaching.of_photos) == ["tags"]


def test_what_nobody_knows_is_not_taught(odd_run: Run) -> None:
    run, unsure = marked(odd_run, "unsure")
    taught = taught_tags(run, config())
    assert taught.decided_by == []  # it is in the photos' own key
    value, scores, batch = loss_of(run, config())
    known = torch.from_numpy(~unsure)
    assert value == pytest.approx(float(tag_cross_entropy(scores, batch["tags"], known=known)))


def test_hill_is_taught_with_its_numbers(odd_run: Run) -> None:
    run, absent = marked(odd_run, "absent")
    settings = config(tag_loss="hill", hill_margin=0.5)
    value, scores, batch = loss_of(run, settings)
    expected = hill_loss(scores, batch["tags"], absent=torch.from_numpy(absent), margin=0.5)
    assert value == pytest.approx(float(expected))
    keys = [taught_tags(r, settings).decided_by for r in (run, odd_run)]
    assert len(keys[0]) == 2  # what is surely absent decides, too
    assert len(keys[1]) == 1


def test_rejection_goes_by_the_epoch_alone(odd_run: Run) -> None:
    settings = config(tag_loss="rejection", rejection_rate=10.0)
    for iteration in (0, 1, 3):  # one batch is an epoch here
        value, scores, batch = loss_of(odd_run, settings, iteration)
        expected = rejection_loss(scores, batch["tags"], 0.1 * iteration)
        assert value == pytest.approx(float(expected))


def test_selection_leaves_out_what_is_in_doubt(
    odd_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    confidence = np.zeros(odd_run.photos.tags.shape, np.float32)
    confidence[1, 2] = 0.8
    stage = odd_run.stage("doubts", {}, [])
    nothing = np.zeros_like(confidence)
    doubts = Doubts(
        confidence, nothing, odd_run.photos.tags, np.zeros(len(nothing), np.intp), (), stage
    )
    monkeypatch.setattr("tagseg.stages.tag_teaching.tag_doubts", lambda run, settings: doubts)
    for tags_are in ("incomplete", "noisy"):
        settings = config(tags_are=tags_are, tag_loss="selection")
        taught = taught_tags(odd_run, settings)
        assert np.argwhere(~taught.teaching.of_photos["known"]).tolist() == [[1, 2]]
        assert taught.inputs == [doubts]
        value, scores, batch = loss_of(odd_run, settings)
        known = torch.from_numpy(confidence < 0.5)
        assert value == pytest.approx(float(tag_cross_entropy(scores, batch["tags"], known=known)))


def test_complete_tags_cannot_be_selected_from() -> None:
    with pytest.raises(ConfigError, match="selects nothing from complete tags"):
        config(tag_loss="selection")


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_without_a_tag_classifier_refuse_the_loss(recipe: str) -> None:
    kind = RECIPES[recipe].config
    without = {"coarse_to_fine", "coarse_to_fine_foreground", "full_supervision"}
    assert kind.named("tag_loss") == (recipe not in without)
    assert kind.named("tags_are") == (recipe not in without - {"coarse_to_fine"})
    if recipe in without:
        with pytest.raises(ConfigError, match="tag_loss"):
            make_config(kind, {"tag_loss": "hill"})


@pytest.mark.parametrize("tags_are", ["complete", "incomplete", "noisy"])
def test_the_usual_losses(tags_are: str) -> None:
    usual = {"complete": "bce", "incomplete": "selection", "noisy": "selection"}
    assert config(tags_are=tags_are).chosen_loss() == usual[tags_are]
    assert config(tags_are=tags_are, tag_loss="hill").chosen_loss() == "hill"


def test_a_planned_run_asks_nothing(odd_run: Run) -> None:
    planned = replace(odd_run, workspace=Plan())
    taught = taught_tags(planned, config(tags_are="noisy"))
    assert taught.teaching.of_photos["known"].all()
