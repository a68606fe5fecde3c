"""Which photos come first: by the judge, by agreement, by the segmenter's doubt."""

from __future__ import annotations

import numpy as np
import pytest

from review_runs import labels_for, make_run, opened
from tagseg.maps import IGNORE
from tagseg.run.workspace import Workspace
from tagseg.session.label_maps import find_label_maps
from tagseg.session.photo_trust import agreement, judged, margin, measure_of


def test_the_judge_counts_by_each_photos_worst_class(tmp_path):
    run = opened(make_run(tmp_path))
    assert run.measure.about.startswith("the run's judge")
    trust = dict(zip(run.photos.names, run.measure.known.tolist(), strict=True))
    assert trust == pytest.approx({"a": 0.5, "b": 0.2, "c": -1.0, "d": 1.0, "e": 0.7})


def test_a_judge_of_other_photos_does_not_count(tmp_path):
    made = make_run(tmp_path)
    run = opened(made)
    work = Workspace.read(made.run)
    assert judged(work, run.photos.subset([0, 1])) is None
    some, maps = run.photos.subset([0, 1]), find_label_maps(work, run.photos)
    assert measure_of(made.run, work, some, maps).known is None


def test_agreement_where_there_is_no_judge(tmp_path):
    run = opened(make_run(tmp_path, judge=False))
    assert "label maps of the run agree" in run.measure.about
    assert run.measure.known is None
    found = {name: run.measure.of_photo(i) for i, name in enumerate(run.photos.names)}
    assert 0 < found["a"] < 1
    assert found["d"] == 1.0  # nothing is there to be wrong


def test_agreement_by_hand():
    one, two = labels_for(("cat",)), labels_for(("cat", "dog"))
    cat, both = np.array([True, False]), np.array([True, True])
    assert agreement([one, one], cat) == 1.0
    assert agreement([two, one], both) == 0.0  # no dog in the other
    assert agreement([one], cat) == 1.0
    unknown = np.full_like(one, IGNORE)
    assert agreement([one, unknown], cat) == 0.0
    assert agreement([one, np.repeat(np.repeat(one, 2, 0), 2, 1)], cat) == 1.0  # of another size


def test_margin_is_the_lead_of_the_first_label():
    sure = np.array([[[1.0]], [[0.0]]], np.float32)
    torn = np.array([[[0.5]], [[0.4]], [[0.1]]], np.float32)
    assert margin(sure) == 1.0
    assert margin(torn) == pytest.approx(0.1)
    assert margin(sure[:1]) == 1.0


def test_the_segmenter_is_asked_where_there_are_final_masks_alone(tmp_path, monkeypatch):
    class Sure:
        def probabilities(self, image, *, refine):
            assert not refine
            return np.stack([np.full(image.shape[:2], p, np.float32) for p in (0.7, 0.3)])

    monkeypatch.setattr("tagseg.session.export.load_segmenter", lambda run: Sure())
    run = opened(make_run(tmp_path, judge=False, candidates=False))
    assert run.measure.about == "how sure the segmenter is"
    assert run.measure.of_photo(0) == pytest.approx(0.4)
