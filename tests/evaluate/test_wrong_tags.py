"""Which tags are probably wrong: on features that tell two classes, with tags that were spoiled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.errors import ShapeError
from tagseg.evaluate.wrong_tags import cross_fitted, error_confidence, presence


def told(n: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 6) of which the first two show the classes, and the true tags (n, 2)."""
    rng = np.random.default_rng(seed)
    tags = rng.random((n, 2)) < 0.4
    features = rng.normal(size=(n, 6))
    features[:, :2] += 6 * tags
    return features.astype(np.float32), tags


ALL = np.ones((120, 2), bool)


def test_probes_have_not_learned_from_the_photos_that_they_are_asked_about() -> None:
    features, tags = told()
    found = cross_fitted(features, tags, ALL)
    assert found is not None
    changed = tags.copy()
    changed[7] = ~changed[7]
    again = cross_fitted(features, changed, ALL)
    assert again is not None
    np.testing.assert_allclose(found.probabilities[7], again.probabilities[7])
    assert np.bincount(found.fold).tolist() == [24] * 5
    own = found.probes[found.fold[7]].probabilities(features[7:8])
    np.testing.assert_allclose(own[0], found.probabilities[7])


def test_missing_tags_come_first() -> None:
    features, tags = told()
    said = tags.copy()
    gone = np.argwhere(tags)[::4]
    said[tuple(gone.T)] = False
    found = cross_fitted(features, said, ALL)
    assert found is not None
    confidence = error_confidence(found.probabilities, said, ALL, "missing")
    first = np.argsort(-confidence, axis=None)[: len(gone)]
    assert (tags & ~said).flatten()[first].mean() > 0.9
    assert not confidence[said].any()
    assert 0 <= confidence.min() <= confidence.max() < 1


def test_wrong_tags_of_either_kind_come_first() -> None:
    features, tags = told()
    said, wrong = tags.copy(), np.zeros_like(tags)
    wrong[::12, 0] = wrong[5::12, 1] = True
    said[wrong] = ~said[wrong]
    found = cross_fitted(features, said, ALL)
    assert found is not None
    confidence = error_confidence(found.probabilities, said, ALL, "any")
    first = np.argsort(-confidence, axis=None)[: int(wrong.sum())]
    assert wrong.flatten()[first].mean() > 0.9
    assert {bool(said.flatten()[place]) for place in first} == {True, False}


def test_what_does_not_count_is_neither_learned_nor_doubted() -> None:
    features, tags = told()
    counted = ALL.copy()
    counted[:40, 1] = False
    found = cross_fitted(features, tags, counted)
    other = tags.copy()
    other[:40, 1] = ~other[:40, 1]
    again = cross_fitted(features, other, counted)
    assert found is not None
    assert again is not None
    np.testing.assert_array_equal(found.probabilities, again.probabilities)
    for errors in ("missing", "any"):
        assert not error_confidence(found.probabilities, tags, counted, errors)[:40, 1].any()


def test_how_likely_a_class_is_there_whatever_is_said() -> None:
    features, tags = told()
    counted = ALL.copy()
    counted[:30, 0] = False
    found = cross_fitted(features, tags, counted)
    assert found is not None
    likely = presence(found.probabilities, tags & counted, counted)[:30, 0]
    assert likely[tags[:30, 0]].min() > likely[~tags[:30, 0]].max()


def test_of_few_photos_nothing_is_said() -> None:
    features, tags = told()
    assert cross_fitted(features[:15], tags[:15], ALL[:15]) is None
    few = np.zeros_like(ALL)
    few[:19] = True
    assert cross_fitted(features, tags, few) is None


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_class_of_no_photo_or_of_all_is_never_in_doubt_for_long(share: float) -> None:
    features, tags = told()
    tags[:, 1] = bool(share)
    found = cross_fitted(features, tags, ALL)
    assert found is not None
    np.testing.assert_allclose(found.probabilities[:, 1], share, atol=0.01)
    for errors in ("missing", "any"):
        assert (error_confidence(found.probabilities, tags, ALL, errors)[:, 1] < 0.5).all()


def test_without_tags_nothing_is_in_doubt() -> None:
    nothing = np.zeros((4, 2), bool)
    half = np.full((4, 2), 0.5)
    assert not error_confidence(half, nothing, ~nothing, "missing").any()
    assert not presence(half, nothing, ~nothing).any()


@given(st.integers(0, 2**31), st.sampled_from(["missing", "any"]))
@settings(max_examples=40, derandomize=True, deadline=None)
def test_confidence_rises_with_what_speaks_against_a_tag(seed: int, errors: str) -> None:
    rng = np.random.default_rng(seed)
    probabilities, tags = rng.random((9, 3)), rng.random((9, 3)) < 0.5
    found = error_confidence(probabilities, tags, np.ones_like(tags), errors)
    assert 0 <= found.min() <= found.max() < 1
    for kind, sign in ((~tags, 1), (tags, -1)):
        order = np.argsort(sign * probabilities[kind])
        assert (np.diff(found[kind][order]) >= -1e-6).all()


def test_arrays_that_do_not_fit_are_refused() -> None:
    features, tags = told()
    with pytest.raises(ShapeError):
        cross_fitted(features[:5], tags, ALL)
