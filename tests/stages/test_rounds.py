"""Rounds as stages of a run: masks at working size, agreement, and photos unseen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from guided_runs import FEW, MINING, few_photos, open_run
from small_runs import changed_stages, finished_stages
from tagseg.errors import WorkspaceError
from tagseg.iterate import agreement
from tagseg.maps import labels_of_tags
from tagseg.recipes import coarse_to_fine, mcof
from tagseg.recipes.mcof.config import Config
from tagseg.segment.predict import Segmenter
from tagseg.session.train import make_config
from tagseg.stages import rounds as module
from tagseg.stages.context import Run
from tagseg.stages.large_fov import large_fov_segmenter
from tagseg.stages.rounds import agreement_of, network_masks, working_masks
from tagseg.stages.segmenter import segmenter_of
from tagseg.stages.stage import BATCH, Declared, Plain, Trained, label_maps

NEGATIVE_AT, UNKNOWN_AT = 6, 7  # of guided_runs.few_photos


def config_of(**changed: Any) -> Any:
    return make_config(Config, {**FEW, **MINING, **changed})


Segmenting = tuple[Run, Trained[Segmenter]]


def refining(trained: Segmenting, config: Any) -> Trained[Segmenter]:
    """The same network with the refiner of ``config``."""
    run, segmenter = trained
    return replace(segmenter, model=segmenter_of(run, config, segmenter.model.net))


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory) -> Iterator[Segmenting]:
    """A segmenter of few odd photos that finds several labels in them."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with open_run(few_photos(photos), folder, val=photos.val[:2], recipe="mcof") as run:
        config, rng = config_of(segmenter_iterations=1), np.random.default_rng(0)

        def labels(index: int) -> Any:
            shape = run.photos.image(index).shape[:2]
            return rng.integers(0, len(run.photos.classes) + 1, shape).astype(np.uint8)

        targets = label_maps(run, Declared("targets"), labels)
        yield run, large_fov_segmenter(run, config, targets, declared=Declared("pixelnet-1"))


def expected_mask(run: Run, segmenter: Segmenter, index: int, by_tags: bool) -> Any:
    """Pixel by pixel the best label of those that the photo may have."""
    image = run.photos.image(index)
    probs = segmenter.forward(image[None])[0]
    allowed = np.arange(len(probs))
    if by_tags and run.photos.dataset.known[index]:
        allowed = labels_of_tags(run.photos.tags[index])
    probs = probs[allowed] / probs[allowed].sum(0)
    if segmenter.refiner is not None:
        probs = segmenter.refiner.refine(image, probs)
    return allowed[probs.argmax(0)]


@pytest.mark.parametrize("refiner", ["crf", "none"])
@pytest.mark.parametrize("by_tags", [True, False])
def test_masks_of_the_training_photos(trained, refiner, by_tags):
    run, _ = trained
    config = config_of(refiner=refiner, masks_by_tags=by_tags)
    segmenter = refining(trained, config)
    assert (segmenter.model.refiner is None) == (refiner == "none")
    number = 10 + 2 * by_tags + (refiner == "none")
    masks = working_masks(run, config, segmenter, number)
    assert masks.stage.name == f"masks-{number}"
    outside = 0
    for index in range(len(run.photos)):
        found = masks(index)
        assert (found.dtype, found.shape) == (np.uint8, run.photos.image(index).shape[:2])
        expected = expected_mask(run, segmenter.model, index, by_tags)
        assert (found == expected).mean() > 0.97  # batches round differently
        allowed = set(labels_of_tags(run.photos.tags[index]).tolist())
        if index != UNKNOWN_AT:
            outside += bool(set(np.unique(found).tolist()) - allowed)
    assert (outside == 0) == by_tags
    assert masks(NEGATIVE_AT).any() == (not by_tags), "known to hold nothing"
    assert masks(UNKNOWN_AT).any(), "nothing is known of it, so everything may be there"


def test_masks_are_made_once(trained, monkeypatch):
    run, segmenter = trained
    config, before = config_of(), finished_stages(run.workspace.folder)
    masks = working_masks(run, config, segmenter, 20)
    assert changed_stages(before, run.workspace.folder) == {"masks-20"}
    monkeypatch.setattr(Segmenter, "forward", None)
    again = working_masks(run, config, segmenter, 20)
    np.testing.assert_array_equal(again(1), masks(1))
    for other in (config_of(masks_by_tags=False), config_of(refiner="none")):
        changed = refining(trained, other)
        with pytest.raises(WorkspaceError, match="asked for twice, made from different things"):
            working_masks(run, other, changed, 20)


@dataclass(frozen=True)
class From(Plain):
    """What masks are made from."""

    source: str


def test_masks_from_what_a_network_says(trained):
    """Each photo's own answers, and the photo itself, reach the function; once a photo."""
    run, segmenter = trained
    asked: list[int] = []

    def mask_of(index: int, image: Any, probs: Any) -> Any:
        asked.append(index)
        np.testing.assert_array_equal(image, run.photos.image(index))
        np.testing.assert_allclose(probs, segmenter.model.forward(image[None])[0], atol=1e-4)
        return np.full(image.shape[:2], index, np.uint8)

    masks = network_masks(run, segmenter, mask_of, [From("indices")], 30)
    assert sorted(asked) == list(range(len(run.photos)))
    for index in range(len(run.photos)):
        assert (masks(index) == index).all()
        assert masks(index).shape == run.photos.image(index).shape[:2]
    network_masks(run, segmenter, mask_of, [From("indices")], 30)
    assert len(asked) == len(run.photos), "it is finished"
    with pytest.raises(WorkspaceError, match="made from different things"):
        network_masks(run, segmenter, mask_of, [From("else")], 30)


def test_masks_go_on_where_they_were_cut_short(trained):
    """Batches that are there as a whole are not asked for again."""
    run, segmenter = trained
    batches = [indices for indices, _ in run.photos.batches(BATCH)]
    asked: list[int] = []

    def whole(index: int, image: Any, probs: Any) -> Any:
        asked.append(index)
        return probs.argmax(0).astype(np.uint8)

    def cut(index: int, image: Any, probs: Any) -> Any:
        if index in batches[3]:
            raise KeyboardInterrupt
        return whole(index, image, probs)

    with pytest.raises(KeyboardInterrupt):
        network_masks(run, segmenter, cut, [], 40)
    assert asked == [index for batch in batches[:3] for index in batch]
    asked.clear()
    masks = network_masks(run, segmenter, whole, [], 40)
    assert asked == [index for batch in batches[3:] for index in batch]
    assert masks(0).shape == run.photos.image(0).shape[:2]


def test_agreement_is_of_all_stored_masks(trained):
    """Mean IoU of all pixels of all photos, label by label; counted once and kept."""
    run = trained[0]

    def some(seed: int) -> Any:
        def make(index: int) -> Any:
            rng = np.random.default_rng((min(seed, index), index))  # photo 0 does not change
            return rng.integers(0, 3, run.photos.image(index).shape[:2]).astype(np.uint8)

        return label_maps(run, Declared(f"some-{seed}"), make)

    before, after = some(0), some(5)
    found = agreement_of(run, 7, before, after)
    one, other = (
        np.concatenate([labels(i).ravel() for i in range(len(run.photos))])
        for labels in (before, after)
    )
    shares = [
        ((one == c) & (other == c)).sum() / ((one == c) | (other == c)).sum() for c in range(3)
    ]
    assert found == pytest.approx(np.mean(shares))
    assert 0.1 < found < 0.5
    pairs = [(before(i), after(i)) for i in range(len(run.photos))]
    assert found == agreement(pairs, len(run.photos.classes) + 1)
    stage = run.workspace.finished("agreement-7")
    assert stage.load_json("found") == found


def test_agreement_is_read_back(trained, monkeypatch):
    run, segmenter = trained
    masks = working_masks(run, config_of(), segmenter, 50)
    assert agreement_of(run, 8, masks, masks) == 1.0
    monkeypatch.setattr(module, "agreement", None)
    assert agreement_of(run, 8, masks, masks) == 1.0


@pytest.mark.parametrize("kind", [coarse_to_fine.Config, mcof.Config])
@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({}, 3.0),
        ({"rounds": 1}, 1.0),
        ({"rounds": 3, "later_fraction": 0.25}, 1.5),
        ({"start": "cold"}, 0.5),
        ({"start": "cold", "rounds": 1}, 1.0),
    ],
    ids=str,
)
def test_how_long_the_last_network_has_learned(kind, config, part):
    """In all rounds where they go on from each other, else in the last."""
    assert kind(**config).fraction_of_all() == pytest.approx(part)
