"""Scores of predictions, the sample of training photos, and what the gallery shows."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from small_runs import QUICK
from tagseg.data.audit import audit
from tagseg.data.dataset import Dataset
from tagseg.data.working import WorkingPhotos
from tagseg.evaluate import masks
from tagseg.evaluate.trust import ClassTrust
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.report.page import FOREGROUND_COLOUR, ForegroundIou
from tagseg.run.files import read_json
from tagseg.run.progress import Progress
from tagseg.run.workspace import Stage, Workspace
from tagseg.session import scoring
from tagseg.session.report import render_report, write_about
from tagseg.session.scoring import examine, key_of_truth, score_foreground, score_prediction
from tagseg.stages.context import Run
from tagseg.stages.outcome import Outcome, Prediction, Progression, RoundPredictions
from tagseg.stages.recipe import Recipe
from tagseg.stages.settings import WorkSettings

CLASSES = ("a", "b")
TOY = Recipe("toy", "nobody's", WorkSettings, lambda run, config: None)
N = 9
A_ONLY = np.tile([True, False], (N, 1))


@pytest.fixture
def run(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (20, 24, 3), np.uint8) for _ in range(N)]
    dataset = Dataset.from_arrays(pictures, np.ones((N, 2), bool), CLASSES)
    settings = {"options": {}, "setup": {}}
    work = Workspace.open(tmp_path / "run", recipe="toy", settings=settings, classes=CLASSES)
    with work:
        yield Run(
            WorkingPhotos(dataset, 12), "photos", None, "none", SimpleNamespace(), work, Progress()
        )


def truth_of(run: Run, label: int = 1) -> GroundTruth:
    """Left half background, right half ``label``."""
    mask = np.zeros((20, 24), np.uint8)
    mask[:, 12:] = label
    return GroundTruth(dict.fromkeys(run.photos.names, mask), CLASSES)


def stage_of(run: Run) -> Stage:
    """What predictions are from."""
    with run.stage("guessing", {}, []) as stage:
        return stage


def outcome_of(run: Run, labels_of, **more) -> Outcome:
    guess = Prediction("guess", "a guess", "train", labels_of, stage_of(run), **more)
    return Outcome(None, (guess,))  # type: ignore[arg-type]


def right(index: int) -> np.ndarray:
    """Right at half size for all photos but the last, where nothing is found."""
    mask = np.zeros((10, 12), np.uint8)
    mask[:, 6:] = 1 if index < N - 1 else 0
    return mask


def test_scores_are_of_the_full_size(run):
    found = examine(run, outcome_of(run, right), truth_of(run), "t")
    (score,) = found.scores()
    pixels = 20 * 12
    iou = [N * pixels / ((N + 1) * pixels), (N - 1) / N]
    assert score.iou[:2] == pytest.approx(iou)
    assert score.iou[2] is None
    assert score.miou == pytest.approx(np.mean(iou))
    counts, of = found.confusion()
    assert of == "a guess, train"
    assert (score.id, score.stage, score.number) == ("guess", "a guess", None)
    assert counts.sum() == N * 20 * 24
    assert found.tag_score() is None


def test_scoring_goes_on_where_it_was_cut_short(run, monkeypatch):
    """Photos that were compared before are not compared again, and the scores are the same."""
    whole = examine(run, outcome_of(run, right), truth_of(run), "t").scores()
    compared: list[str] = []
    compare = masks._compare

    def until(stop: int) -> None:
        def counting(labels: Any, truth: Any, name: str, n_labels: int) -> Any:
            if len(compared) == stop:
                raise KeyboardInterrupt
            compared.append(name)
            return compare(labels, truth, name, n_labels)

        monkeypatch.setattr(masks, "_compare", counting)

    until(5)
    run.workspace._stages.clear()  # another key, so it is scored anew
    with pytest.raises(KeyboardInterrupt):
        examine(run, outcome_of(run, right), truth_of(run), "another key")
    until(1000)
    run.workspace._stages.clear()
    again = examine(run, outcome_of(run, right), truth_of(run), "another key").scores()
    assert again == whole
    assert sorted(compared) == sorted(run.photos.names)


def test_foreground_masks_are_scored_as_such(run):
    """Ground truth of class b is foreground too, where masks tell no classes apart."""
    (score,) = examine(run, outcome_of(run, right, by_class=False), truth_of(run, 2), "t").scores()
    assert score.iou is None
    assert score.miou == pytest.approx(np.mean([N / (N + 1), (N - 1) / N]))
    share = f"{100 * (N - 1) / N:.0f} % of the photos"  # all but that of class a alone
    assert score.note == f"foreground against background; IoU over 0.6 in {share}"


def class_a_in_half(run: Run) -> Run:
    """Photos 0, 2, ... are of class a, the others of class b; of photo 1 nothing is known."""
    dataset = run.photos.dataset
    tags = np.zeros((N, 2), bool)
    tags[::2, 0] = tags[1::2, 1] = True
    known = np.arange(N) != 1
    tags[~known] = False
    photos = WorkingPhotos(replace(dataset, tags=tags, known=known), 12)
    return replace(run, photos=photos)


def half_of(share: float) -> np.ndarray:
    """A mask whose IoU with the right half is ``share``."""
    mask = np.zeros((20, 24), np.uint8)
    mask[:, 12 : 12 + round(12 * share)] = 1
    return mask


def by_photo(index: int) -> np.ndarray:
    return half_of((index + 1) / 12)


def test_foreground_is_scored_by_class_of_photo(run):
    """Photo 1 counts for the class in its ground truth; photo 8 has no object in it."""
    run, truth = class_a_in_half(run), truth_of(run, 2)
    masks = {name: truth.labels(name, (20, 24)) for name in truth.names()}
    masks[run.photos.names[8]] = np.zeros((20, 24), np.uint8)
    truth = GroundTruth(masks, CLASSES)
    (score,) = examine(run, outcome_of(run, by_photo, by_class=False), truth, "t").scores()
    expected = [np.mean([1, 3, 5, 7]) / 12, np.mean([2, 4, 6, 8]) / 12]
    assert [found.name for found in score.foreground] == ["a", "b"]
    assert [found.iou for found in score.foreground] == pytest.approx(expected)
    assert [found.photos for found in score.foreground] == [4, 4]
    assert score.foreground_average == pytest.approx(np.mean(expected))
    assert score.photos == N
    assert isinstance(score.foreground[0], ForegroundIou)


def test_classes_are_not_scored_as_foreground(run):
    (score,) = examine(run, outcome_of(run, right), truth_of(run), "t").scores()
    assert score.foreground == ()
    assert score.foreground_average is None
    assert score_foreground(run, outcome_of(run, right).predictions[0], None) is None


def test_a_class_without_photos_has_no_foreground(run):
    run = replace(run, photos=WorkingPhotos(replace(run.photos.dataset, tags=A_ONLY), 12))
    (score,) = examine(run, outcome_of(run, by_photo, by_class=False), truth_of(run), "t").scores()
    assert score.foreground[1] == ("b", None, 0)
    assert score.foreground_average == score.foreground[0].iou


def test_photos_of_noise_alone_have_no_foreground(run):
    (score,) = examine(run, outcome_of(run, right, by_class=False), truth_of(run, 0), "t").scores()
    assert score.foreground == (("a", None, 0), ("b", None, 0))
    assert score.foreground_average is None
    assert score.miou is not None


def test_photos_of_foreground_masks_are_ranked_by_their_foreground(run):
    (prediction,) = outcome_of(run, by_photo, by_class=False).predictions
    scored = score_prediction(run, prediction, truth_of(run))
    assert list(scored.photos.values()) == pytest.approx([(i + 1) / 12 for i in range(N)])
    items = examine(run, outcome_of(run, by_photo, by_class=False), truth_of(run), "t").gallery()
    assert [item.name for item in items if item.rank == "best"] == list(run.photos.names[:5:-1])
    assert {item.measure for item in items} == {"foreground IoU"}
    assert all(item.foreground for item in items)


def several_predictions(run: Run, *by_class: bool) -> Outcome:
    stage = stage_of(run)
    predictions = [
        Prediction(str(kind), f"by class: {kind}", "train", right, stage, kind) for kind in by_class
    ]
    return Outcome(None, tuple(predictions))  # type: ignore[arg-type]


@pytest.mark.parametrize("by_class", [(True, False), (False, True)])
def test_the_confusion_is_of_the_last_prediction_that_tells_classes_apart(run, by_class):
    """And the gallery's scores are of the last prediction, whatever it is."""
    found = examine(run, several_predictions(run, *by_class), truth_of(run), "t")
    counts, of = found.confusion()
    assert of == "by class: True, train"
    assert counts.shape == (3, 4)
    measure = "mIoU" if by_class[-1] else "foreground IoU"
    assert {(item.measure, item.foreground) for item in found.gallery()} == {(measure, True)}


def test_objects_of_any_class_have_a_colour_of_their_own(run):
    item = examine(run, several_predictions(run, True, False), truth_of(run), "t").gallery()[0]
    by_class, any_class, _ = (picture[-1, -1] for _, picture in item.panels)
    expected = 0.45 * item.photo[-1, -1] + 0.55 * np.array(FOREGROUND_COLOUR)
    assert any_class == pytest.approx(expected, abs=1)
    assert (any_class != by_class).any()


def test_foreground_alone_has_no_confusion(run):
    found = examine(run, outcome_of(run, right, by_class=False), truth_of(run), "t")
    assert found.confusion() == (None, "")


def test_findings_of_older_runs_can_be_read(run):
    """They have no foreground per class, and their gallery does not say what its scores are."""
    found = examine(run, outcome_of(run, right, by_class=False), truth_of(run), "t")
    stage = found.stage
    rows = [
        {key: value for key, value in row.items() if not key.startswith("foreground")}
        for row in stage.load_json("scores")
    ]
    entries = [
        {key: value for key, value in entry.items() if key not in ("measure", "foreground")}
        for entry in stage.load_json("gallery")
    ]
    with run.stage("old", {}, []) as old:
        old.save_json("scores", rows)
        old.save_json("gallery", entries)
        store, kept = old.maps("gallery"), stage.maps("gallery")
        for entry in entries:
            store.put(entry["key"], **kept.get(entry["key"]))
    findings = scoring.Findings(old)
    (score,) = findings.scores()
    assert score == replace(found.scores()[0], foreground=(), foreground_average=None)
    assert {(item.measure, item.foreground) for item in findings.gallery()} == {("mIoU", False)}


@pytest.mark.parametrize("rounds", [0, 3])
def test_the_report_of_a_run_without_classes(run, rounds):
    predictions = [Prediction("coarse", "coarse masks", "train", right, stage_of(run), False)]
    entries = []
    for number in range(1, rounds + 1):
        title = f"masks of the photos, round {number}"
        masks = Prediction("masks", title, "train", by_photo, stage_of(run), False, number)
        entries.append(RoundPredictions(number, 0.8 if number > 1 else None, (masks,)))
        predictions.append(masks)
    progression = Progression(tuple(entries), "That was asked for.") if rounds else None
    outcome = Outcome(None, tuple(predictions), progression=progression)  # type: ignore[arg-type]
    scores = examine(run, outcome, truth_of(run), "t").scores()
    write_about(run, TOY, WorkSettings(), audit(run.photos.dataset), outcome, "tagseg train")
    page = render_report(run.workspace.folder).read_text()
    for section in ("quality", "foreground", "gallery", "run"):
        assert f'<section id="{section}"' in page
    for section in ("classes", "confusion", "seeds", "training"):
        assert f'id="{section}"' not in page
        assert f'href="#{section}"' not in page
    assert ('<section id="rounds"' in page) == bool(rounds)
    assert page.count("foreground against background") == len(scores) == 1 + rounds
    assert "· foreground IoU" in page
    assert "· mIoU" not in page


def test_the_report_says_how_far_to_trust_the_masks(run):
    """From run.json, which has no word on it for a recipe that says none."""
    trusts = (
        ClassTrust("a", 9, 0.25, 0.0, 0.5, ("its masks are empty", "only 9 photos")),
        ClassTrust("b", 0, None, None, None, ("it has no masks",)),
    )
    masks = Prediction("masks", "masks of the photos", "train", right, stage_of(run))
    outcome = Outcome(None, (masks,))  # type: ignore[arg-type]
    examine(run, outcome, truth_of(run), "t")
    folder = run.workspace.folder
    found = audit(run.photos.dataset)
    for said in ((), trusts):
        write_about(run, TOY, WorkSettings(), found, replace(outcome, trust=said), "tagseg train")
        kept = read_json(folder / "run.json").get("trust", [])
        assert tuple(ClassTrust.from_json(row) for row in kept) == said
        page = render_report(folder).read_text()
        assert ('<section id="trust"' in page) == bool(said)
    assert "its masks are empty<br>only 9 photos" in page
    assert "Measured IoU" in page


def test_a_sample_of_many_training_photos(run, monkeypatch):
    monkeypatch.setattr(scoring, "_MOST_TRAINING_PHOTOS", 4)
    asked = []

    def labels(index: int) -> np.ndarray:
        asked.append(index)
        return right(index)

    (score,) = examine(run, outcome_of(run, labels), truth_of(run), "t").scores()
    assert score.photos == 4
    assert {0, 8} <= set(asked) < set(range(N))


def test_the_gallery_shows_the_best_and_the_worst(run):
    found = examine(run, outcome_of(run, right), truth_of(run), "t")
    items = found.gallery()
    assert items[-1].rank == "worst"
    assert run.photos.names[N - 1] in {i.name for i in items if i.rank == "worst"}
    assert len({item.name for item in items}) == len(items)
    for item in items:
        assert [title for title, _ in item.panels] == ["a guess", "ground truth"]


def test_without_ground_truth_there_is_a_sample(run):
    found = examine(run, outcome_of(run, right), None, "none")
    assert found.scores() == []
    assert found.confusion() == (None, "")
    assert {item.rank for item in found.gallery()} == {"sample"}
    assert len(found.gallery()) == 8


def test_the_key_of_the_ground_truth(tmp_path):
    from tagseg.data.masks import write_mask

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


def test_photos_of_which_nobody_knows_do_not_count_in_average_precision():
    images = [np.zeros((3, 3, 3), np.uint8)] * 4
    photos = Dataset.from_arrays(images, [["a"], [], ["a"], ["b"]], ("a", "b"))
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.3], [0.1, 0.9]], np.float32)
    unsure = np.zeros((4, 2), bool)
    unsure[1, 0] = True  # the one that came between
    assert scoring._precision(scores, photos).tolist() == pytest.approx([5 / 6, 1])
    assert scoring._precision(scores, replace(photos, unsure=unsure)).tolist() == [1, 1]
