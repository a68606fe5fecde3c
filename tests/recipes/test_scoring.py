"""Scores of products, the sample of training photos, and what the gallery shows."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from small_runs import QUICK
from tagseg.data.dataset import Dataset
from tagseg.data.ground_truth import GroundTruth
from tagseg.data.working import WorkingPhotos
from tagseg.recipes import scoring
from tagseg.recipes.base import Outcome, Product, Run
from tagseg.recipes.scoring import examine, key_of_truth
from tagseg.run.progress import Progress
from tagseg.run.workspace import Workspace

CLASSES = ("a", "b")
N = 9


@pytest.fixture
def run(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (20, 24, 3), np.uint8) for _ in range(N)]
    dataset = Dataset.from_arrays(pictures, np.ones((N, 2), bool), CLASSES)
    work = Workspace.open(tmp_path / "run", recipe="toy", settings={})
    with work:
        yield Run(
            WorkingPhotos(dataset, 12), "photos", None, "none", SimpleNamespace(), work, Progress()
        )


def truth_of(run: Run, label: int = 1) -> GroundTruth:
    """Left half background, right half ``label``."""
    mask = np.zeros((20, 24), np.uint8)
    mask[:, 12:] = label
    return GroundTruth(dict.fromkeys(run.photos.names, mask), CLASSES)


def outcome_of(labels_of, **more) -> Outcome:
    return Outcome(None, (Product("guess", "train", labels_of, (), **more),))  # type: ignore[arg-type]


def right(index: int) -> np.ndarray:
    """Right at half size for all photos but the last, where nothing is found."""
    mask = np.zeros((10, 12), np.uint8)
    mask[:, 6:] = 1 if index < N - 1 else 0
    return mask


def test_scores_are_of_the_full_size(run):
    found = examine(run, outcome_of(right), truth_of(run), "t")
    (score,) = found.scores()
    pixels = 20 * 12
    iou = [N * pixels / ((N + 1) * pixels), (N - 1) / N]
    assert score.iou[:2] == pytest.approx(iou)
    assert score.iou[2] is None
    assert score.miou == pytest.approx(np.mean(iou))
    counts, of = found.confusion()
    assert of == "guess, train"
    assert counts.sum() == N * 20 * 24
    assert found.tag_score() is None


def test_foreground_masks_are_scored_as_such(run):
    """Ground truth of class b is foreground too, where masks tell no classes apart."""
    (score,) = examine(run, outcome_of(right, by_class=False), truth_of(run, 2), "t").scores()
    assert score.iou is None
    assert score.miou == pytest.approx(np.mean([N / (N + 1), (N - 1) / N]))
    assert score.note == "foreground against background"


def test_a_sample_of_many_training_photos(run, monkeypatch):
    monkeypatch.setattr(scoring, "_MOST_TRAINING_PHOTOS", 4)
    asked = []

    def labels(index: int) -> np.ndarray:
        asked.append(index)
        return right(index)

    (score,) = examine(run, outcome_of(labels), truth_of(run), "t").scores()
    assert score.photos == 4
    assert {0, 8} <= set(asked) < set(range(N))


def test_the_gallery_shows_the_best_and_the_worst(run):
    found = examine(run, outcome_of(right), truth_of(run), "t")
    items = found.gallery()
    assert items[-1].rank == "worst"
    assert run.photos.names[N - 1] in {i.name for i in items if i.rank == "worst"}
    assert len({item.name for item in items}) == len(items)
    for item in items:
        assert [title for title, _ in item.panels] == ["guess", "ground truth"]


def test_without_ground_truth_there_is_a_sample(run):
    found = examine(run, outcome_of(right), None, "none")
    assert found.scores() == []
    assert found.confusion() == (None, "")
    assert {item.rank for item in found.gallery()} == {"sample"}
    assert len(found.gallery()) == 8


def test_the_key_of_the_ground_truth(tmp_path):
    from tagseg.data.images import write_mask

    assert key_of_truth(None) == "no ground truth"
    mask = np.zeros((4, 5), np.uint8)
    write_mask(tmp_path / "a.png", mask)
    first = key_of_truth(GroundTruth(tmp_path, CLASSES))
    assert key_of_truth(GroundTruth(tmp_path, CLASSES)) == first
    write_mask(tmp_path / "b.png", mask)
    assert key_of_truth(GroundTruth(tmp_path, CLASSES)) != first
    one, other = ({"a": mask + k} for k in (0, 1))
    assert key_of_truth(GroundTruth(one, CLASSES)) != key_of_truth(GroundTruth(other, CLASSES))


def test_average_precision_of_the_tag_classifier(go, photos):
    """Only with validation tags; a class without a positive photo has none."""
    result = go("cam_baseline")
    findings = scoring.Findings(result._workspace.finished("findings"))
    score = findings.tag_score()
    assert score.photos == len(photos.val)
    known = [value for value in score.average_precision if value is not None]
    assert score.mean == pytest.approx(np.mean(known))
    assert score.average_precision[-1] is None  # there is no unicorn
    assert QUICK["photo_side"] == 64
