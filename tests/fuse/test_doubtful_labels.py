"""Labels of which something is in doubt."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.fuse.doubtful_labels import without_doubtful

LABELS = np.array([[0, 0, 1], [2, 255, 0]], np.uint8)
MISSING = np.array([[0.0, 0.5, 1.0], [1.0, 1.0, 0.19]], np.float32)


def test_strong_evidence_on_background_is_ignored_and_tagged_classes_stay() -> None:
    found = without_doubtful(LABELS, MISSING, threshold=0.2)
    assert found.tolist() == [[0, 255, 1], [2, 255, 0]]
    assert found.dtype == np.uint8


def test_labels_of_tagged_classes_are_ignored_where_a_missing_one_is_seen_more_strongly() -> None:
    stronger = np.array([[0.0, 0.0, 1.0], [0.1, 0.0, 0.0]], np.float32)
    found = without_doubtful(LABELS, MISSING, threshold=0.2, stronger=stronger)
    assert found.tolist() == [[0, 255, 255], [2, 255, 0]]


def test_labels_of_wrong_tags_are_ignored() -> None:
    found = without_doubtful(LABELS, np.zeros_like(MISSING), threshold=0.2, wrong=[2])
    assert found.tolist() == [[0, 0, 1], [255, 255, 0]]


def test_without_doubts_the_labels_themselves_come_back() -> None:
    assert without_doubtful(LABELS, np.zeros_like(MISSING), threshold=0.2) is LABELS


@given(st.integers(0, 2**31), st.floats(0.01, 1))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_a_label_stays_or_becomes_unknown(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 255], (4, 5)).astype(np.uint8)
    missing = rng.random((4, 5), np.float32)
    found = without_doubtful(labels, missing, threshold=threshold)
    changed = found != labels
    assert (found[changed] == 255).all()
    assert (labels[changed] == 0).all()
    assert (missing[changed] >= threshold).all()
    assert not (found[missing >= threshold] == 0).any()
