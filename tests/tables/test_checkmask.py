"""CheckMask: picks are simulated from ground truth, become a review, and reach nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from small_runs import N_TRAIN, N_VAL, NEGATIVE, UNKNOWN, Photos, contents
from tagseg.data.masks import decode_mask
from tagseg.data.working import labels_at
from tagseg.errors import MaskError
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.formats.review import Accepted, read_review
from tagseg.maps import Labels
from tagseg.run.workspace import Workspace
from tagseg.session.photo_trust import agreement
from tagseg.tables.base import Table
from tagseg.tables.checkmask import FRACTIONS
from tagseg.tables.making import make_tables

ABLE = N_TRAIN - 2  # photos with tags
STORES = {  # of each candidate, by the id of its prediction
    "candidate-alpha-0.25": "alpha-0.25",
    "candidate-alpha-0.75": "alpha-0.75",
    "candidate-block4": "block4",
    "candidate-block5": "block5",
    "candidate-background-0.75": "background-0.75",
    "candidate-background-1.5": "background-1.5",
    "candidate-crf-0": "crf-0",
}


@pytest.fixture
def tables(tabulated) -> dict[str, Table]:
    return {table.name: table for table in tabulated.made.tables}


def stored(work: Workspace, stage: str, store: str, name: str) -> Labels:
    return decode_mask(work.finished(stage).maps(store).get_bytes(name))


def offered(tabulated: Any, name: str) -> dict[str, Labels]:
    work = Workspace.read(tabulated.run / "tables/checkmask")
    masks = {"training-masks": stored(work, "training-masks", "labels", name)}
    return masks | {id: stored(work, "candidates", store, name) for id, store in STORES.items()}


def mean_iou(mask: Labels, truth: Labels) -> float:
    """Slowly, in float64: the mean over the labels in either, where ground truth says anything."""
    counted = truth != 255
    found = []
    for label in sorted({*mask[counted].tolist(), *truth[counted].tolist()}):
        a, b = (mask == label) & counted, (truth == label) & counted
        found.append(np.float64((a & b).sum()) / np.float64((a | b).sum()))
    return float(np.mean(found))


def review_of(tabulated: Any, variant: str) -> dict[str, Accepted]:
    (path,) = tabulated.run.glob(f"tables/{variant}/stages/*-simulated-review/review.jsonl")
    return {act.photo: act for act in read_review(path).acts if isinstance(act, Accepted)}


def test_the_papers_figures_and_what_is_said(tables):
    table = tables["3"]
    assert [row[1:3] for row in table.rows] == [(50.9, 52.6), (51.5, 52.9)]
    for name in ("3", "checkmask"):
        assert "SIMULATED FROM GROUND TRUTH" in tables[name].markdown()
    assert "simulated" in str(table.rows[1][0])
    assert f"{ABLE} of {N_TRAIN} training photos were picked" in table.notes[1]


def test_without_looks_it_is_table_6(tables):
    assert tables["3"].rows[0][3:] == tables["6"].rows[-1][2:]
    first, last = tables["checkmask"].rows[0], tables["checkmask"].rows[-1]
    assert first[1] == first[2] == tables["6"].rows[-1][3]
    assert last[1] == last[2] == tables["3"].rows[1][4]
    assert [row[0] for row in tables["checkmask"].rows] == [
        f"{100 * part:g} % ({round(part * ABLE)} photos)" for part in FRACTIONS
    ]


def test_picks_are_the_best_masks(tabulated, photos):
    acts = review_of(tabulated, "checkmask-100")
    assert len(acts) == ABLE
    assert photos.train[UNKNOWN] not in acts
    assert photos.train[NEGATIVE] not in acts
    kinds = set()
    for name, act in acts.items():
        masks = offered(tabulated, name)
        shape = next(iter(masks.values())).shape
        truth = labels_at(photos.labels[name], shape)
        scores = {id: mean_iou(mask, truth) for id, mask in masks.items()}
        assert scores[str(act.candidate)] == pytest.approx(max(scores.values()), abs=1e-12), name
        kinds.add(act.candidate)
    assert len(kinds) > 2


def test_orders(tabulated, photos):
    """The least trusted first, by the run's own maps; the random ones are another half."""
    work = Workspace.read(tabulated.run / "tables/checkmask")
    trust = {}
    for index, name in enumerate(photos.train):
        if index not in (UNKNOWN, NEGATIVE):
            maps = [stored(work, "masks-1", "labels", name), *offered(tabulated, name).values()]
            trust[name] = agreement(maps, photos.dataset.tags[index])
    half = round(ABLE / 2)
    doubted = review_of(tabulated, "checkmask-doubt-50")
    assert list(doubted) == sorted(trust, key=lambda name: trust[name])[:half]
    drawn = review_of(tabulated, "checkmask-random-50")
    assert len(drawn) == half
    assert set(drawn) != set(doubted)
    fewer = list(review_of(tabulated, "checkmask-random-20"))
    assert fewer == list(drawn)[: len(fewer)]


def test_picks_make_training_labels_better(tables):
    """By much less than ground truth would, but never worse where all are looked at."""
    before, after = tables["checkmask"].rows[0][3], tables["checkmask"].rows[-1][3]
    assert float(str(after)) > float(str(before))
    assert f"{N_VAL} validation" not in tables["checkmask"].notes[0]


def test_ground_truth_reaches_the_picks_alone(tabulated, run, photos):
    """With other ground truth, all that is made before the picks is taken over as it is."""
    labels = {name: np.zeros_like(mask) for name, mask in photos.labels.items()}
    shared: dict[str, Any] = {"val": photos.val, "threads": 1, "only": ["3"]}
    other = GroundTruth(labels, photos.dataset.classes)
    make_tables("builtin_priors", photos.dataset, run, ground_truth=other, **shared)
    for stage in ("candidates", "training-masks", "photo-trust", "segmenter"):
        one, two = (
            Workspace.read(folder / "tables/checkmask").finished(stage).key
            for folder in (tabulated.run, run)
        )
        assert one == two, stage
    first, second = (
        {k: v for k, v in contents(folder / "tables/checkmask").items() if "candidates" in k}
        for folder in (tabulated.run, run)
    )
    stores = [name for name in first if name.endswith(".sqlite")]
    assert len(stores) == len(STORES)
    assert second.keys() == first.keys()


def test_without_ground_truth_of_training_photos(run, photos: Photos):
    some = replace(photos, labels={name: photos.labels[name] for name in photos.val}).truth()
    shared: dict[str, Any] = {"val": photos.val, "threads": 1, "only": ["checkmask"]}
    with pytest.raises(MaskError, match="picks are simulated from ground truth"):
        make_tables("builtin_priors", photos.dataset, run, ground_truth=some, **shared)
    assert not (run / "tables/checkmask").exists()
