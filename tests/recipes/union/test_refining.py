"""Whether the final masks are refined: what the court is asked, and what comes of its word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from guided_runs import few_photos, open_run
from small_runs import NEGATIVE, finished_stages
from tagseg.recipes import union
from tagseg.recipes.union.refining import refined_unless_worse
from tagseg.run.plan import Plan
from tagseg.stages.context import Run
from tagseg.stages.stage import Trained
from union_runs import Bench, config_of, stage_of

PLAIN, REFINED = "as the segmenter answers", "refined by crf"


@pytest.fixture
def run(photos, tmp_path) -> Iterator[Run]:
    with open_run(few_photos(photos), tmp_path / "run", recipe="union") as run:
        yield run


class Speckled:
    """A segmenter whose answers differ from pixel to pixel, as no photo's things do."""

    def __init__(self, n_labels: int) -> None:
        self.n_labels, self.decided_by = n_labels, None
        self.refiner: Any = None
        self.refinement: Any = None

    def forward(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        count, height, width = images.shape[:3]
        found = np.random.default_rng(0).random((count, self.n_labels, height, width), np.float32)
        return found / found.sum(1, keepdims=True)


def trained_of(run: Run) -> Trained[Any]:
    return Trained(Speckled(len(run.photos.classes) + 1), stage_of(run, "oracle"))


@pytest.mark.parametrize(
    ("wanted", "refined"),
    [
        ({PLAIN: 0.4, REFINED: 0.5}, True),
        ({PLAIN: 0.4, REFINED: 0.393}, True),
        ({PLAIN: 0.4, REFINED: 0.391}, False),
        ({PLAIN: 0.4, REFINED: 0.0}, False),
    ],
)
def test_refined_unless_less_speaks_for_the_masks(run, wanted, refined):
    trained, bench = trained_of(run), Bench(run, wanted)
    found = refined_unless_worse(run, config_of(), trained, bench)  # type: ignore[arg-type]
    assert bench.names == [PLAIN, REFINED]
    assert (found.model.refiner is not None) == refined
    assert (found.model.refinement is not None) == refined
    assert (found.model is trained.model) == (not refined)
    assert trained.model.refiner is None, "what it was made from stays as it is"
    assert found.stage.name.startswith("heard"), "masks depend on the word of the court"


def test_the_court_sees_the_masks_of_known_tags(run):
    bench = Bench(run, PLAIN)
    refined_unless_worse(run, config_of(), trained_of(run), bench)  # type: ignore[arg-type]
    differ = 0
    for index, name in enumerate(run.photos.names):
        if not run.photos.dataset.known[index]:
            continue
        names = {0, *(np.flatnonzero(run.photos.tags[index]) + 1)}
        plain, refined = bench.candidates(index)
        for labels in (plain, refined):
            assert labels.shape == run.photos.image(index).shape[:2]
            assert set(np.unique(labels).tolist()) <= names
        if name == f"train_{NEGATIVE}":
            assert not plain.any()
            assert not refined.any()
        differ += bool((plain != refined).any())
    assert differ, "the CRF smooths some"


def test_nothing_is_asked_where_there_is_no_choice(run):
    """Without a refiner, and of a segmenter that is refined as it is."""
    trained = trained_of(run)
    nobody: Any = None
    assert refined_unless_worse(run, config_of(refiner="none"), trained, nobody) is trained
    trained.model.refiner = object()
    assert refined_unless_worse(run, config_of(), trained, nobody) is trained
    assert set(finished_stages(run.workspace.folder)) == {"oracle"}


def test_what_the_word_depends_on(photos, tmp_path):
    """The judge's settings, the refiner's, and which classes masks may hold."""

    def key(**changed: Any) -> str:
        with open_run(few_photos(photos), tmp_path / "run", recipe="union") as run:
            plan = Plan()
            union.run(replace(run, workspace=plan), config_of(**changed))
        return plan.records["verdict-on-masks"]["key"]

    keys = {
        key(),
        key(crf_iterations=3),
        key(segmenter_unary="softmax"),
        key(masks_by_tags=False),
        key(judged_photos=3),
        key(pyramid_iterations=4),
    }
    assert len(keys) == 6
