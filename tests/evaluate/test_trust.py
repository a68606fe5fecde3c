"""How far masks can be trusted: the range, each reason, and what is said of them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagseg.evaluate import trust
from tagseg.evaluate.trust import ClassFacts, ClassTrust, class_trust, overall, trust_lines

GOOD = ClassFacts("boat", 20, 80, [0.8] * 20, [0.3] * 20, 0.9, {"water": 0.5, "cat": 0.0})

SHARES = st.floats(0, 1)
NAMES = st.text(max_size=5)


@st.composite
def facts(draw: st.DrawFn) -> ClassFacts:
    photos = draw(st.integers(0, 12))
    each = st.lists(SHARES, min_size=photos, max_size=photos)
    return ClassFacts(
        draw(NAMES),
        photos,
        draw(st.integers(0, 12)),
        draw(st.lists(SHARES | st.just(math.nan), min_size=photos, max_size=photos)),
        draw(each),
        draw(st.none() | SHARES),
        draw(st.dictionaries(NAMES, SHARES, max_size=3)),
        draw(st.none() | st.floats(-1, 1)),
    )


def trust_of(spread: float = 0.1, **changed: Any) -> ClassTrust:
    return class_trust(replace(GOOD, **changed), spread=spread)


def reasons(**changed: Any) -> tuple[str, ...]:
    found = trust_of(**changed)
    assert not found.trusted or not found.reasons
    return found.reasons


# The expected IoU and its range


def test_many_photos_that_agree_have_the_spread_alone() -> None:
    found = trust_of(photos=2000, quality=[0.8] * 2000, areas=[0.3] * 2000)
    assert (found.expected, found.low, found.high) == pytest.approx((0.8, 0.7, 0.9), abs=1e-4)
    assert found.reasons == ()
    assert found.trusted


def test_the_error_of_the_mean_is_added_in_quadrature() -> None:
    quality = [0.4, 0.6, 0.5, 0.5] * 5
    error = math.sqrt(20 * np.var(quality) + 1 / 12) / 20
    found = trust_of(quality=quality)
    assert found.expected == pytest.approx(0.5)
    assert found.high - found.expected == pytest.approx(math.hypot(0.1, error))
    assert found.expected - found.low == pytest.approx(math.hypot(0.1, error))


@given(st.lists(SHARES, min_size=1, max_size=6), st.integers(2, 5), st.floats(0, 0.5))
def test_more_photos_of_the_same_kind_never_widen_the_range(quality, times, spread) -> None:
    few, many = (
        class_trust(
            replace(GOOD, photos=len(values), quality=values, areas=[0.3] * len(values)),
            spread=spread,
        )
        for values in (quality, quality * times)
    )
    assert many.expected == pytest.approx(few.expected)
    assert many.high - many.low <= few.high - few.low + 1e-9


@given(facts(), st.floats(0, 1), st.floats(0, 1))
def test_the_range_holds_what_is_expected_and_grows_with_the_spread(known, one, other) -> None:
    narrow, wide = (class_trust(known, spread=spread) for spread in sorted((one, other)))
    qualities = [value for value in known.quality if not math.isnan(value)]
    if not qualities:
        assert (wide.expected, wide.low, wide.high) == (None, None, None)
        assert wide.reasons
        return
    assert wide.expected == pytest.approx(np.mean(qualities))
    for found in (narrow, wide):
        assert 0 <= found.low <= found.expected <= found.high <= 1
    assert wide.low <= narrow.low + 1e-12
    assert wide.high >= narrow.high - 1e-12


@given(facts())
def test_nothing_lowers_what_is_expected_silently(known) -> None:
    """It is the mean of the qualities, whatever else is known; the range only widens to 0."""
    found = class_trust(known, spread=0.1)
    plain = class_trust(
        replace(GOOD, photos=known.photos, quality=known.quality, areas=[]), spread=0.1
    )
    assert (found.expected, found.high) == (plain.expected, plain.high)
    assert found.low in (plain.low, 0.0)
    if found.low != plain.low:
        assert found.reasons


def test_qualities_that_a_judge_cannot_mean() -> None:
    quality = [1.2, math.nan, -0.3, 0.5]
    found = trust_of(photos=4, quality=quality, areas=[0.3] * 4)
    assert found.expected == pytest.approx(0.5)


# Reasons


def test_a_class_without_photos_has_no_masks() -> None:
    found = trust_of(photos=0, quality=[], areas=[], told=None, companions={})
    assert (found.expected, found.low, found.high) == (None, None, None)
    assert found.line() == (
        "boat: expected IoU unknown, do not trust: "
        "no training photo has its tag, so it has no masks"
    )
    assert not found.trusted


def test_masks_that_were_not_judged() -> None:
    assert reasons(quality=[]) == ("its masks were not judged",)
    small = "its masks are smaller than any that the judge knows; look at them"
    assert reasons(quality=[math.nan] * 20, others=0)[0] == small
    assert len(reasons(quality=[], others=0)) == 2


@pytest.mark.parametrize(("photos", "said"), [(1, "only 1 photo"), (4, "only 4 photos"), (5, "")])
def test_few_photos(photos: int, said: str) -> None:
    found = reasons(photos=photos, quality=[0.8] * photos, areas=[0.3] * photos)
    assert found == ((said,) if said else ())


def test_a_class_in_every_photo() -> None:
    (reason,) = reasons(others=0)
    assert reason.startswith("it is in every photo: nothing tells it from what always comes")
    assert trust_of(others=0).low == 0
    assert trust_of(others=0).expected == trust_of().expected
    assert reasons(others=1) == ()


@pytest.mark.parametrize(
    ("area", "said", "blind"), [(0.85, False, False), (0.87, True, False), (0.97, True, True)]
)
def test_masks_of_whole_photos(area: float, said: bool, blind: bool) -> None:
    found = trust_of(areas=[area] * 11 + [0.1] * 9)
    assert len(found.reasons) == said
    assert (found.low == 0) == blind
    if said:
        assert found.reasons[0] == (
            f"its masks cover {area:.0%} of each photo: nothing in the tags tells it from its "
            "background; add photos without it, or give --saliency"
        ).replace("%", " %")


def test_empty_masks() -> None:
    assert reasons(areas=[0.0] * 12 + [0.3] * 8) == ("its masks are empty in 60 % of its photos",)
    assert reasons(areas=[0.0] * 10 + [0.3] * 10) == ()
    thousand = {"photos": 1000, "quality": [0.8] * 1000}
    (reason,) = reasons(**thousand, areas=[0.0] * 999 + [0.3])
    assert "empty in 99 %" in reason, "not in all"


def test_classes_that_come_together() -> None:
    apart = "the tags cannot tell them apart; add photos of one without the other"
    assert reasons(companions={"water": 1.0}) == (f"boat always comes with water: {apart}",)
    assert reasons(companions={"water": 0.9}) == (f"boat nearly always comes with water: {apart}",)
    several = {"water": 1.0, "sky": 1.0, "tree": 0.95, "cat": 0.89}
    assert reasons(companions=several) == (
        f"boat always comes with water and sky and nearly always comes with tree: {apart}",
    )
    three = dict.fromkeys(("water", "sky", "tree"), 1.0)
    assert reasons(companions=three) == (f"boat always comes with water, sky and tree: {apart}",)
    few = {"photos": 4, "quality": [0.8] * 4, "areas": [0.3] * 4}
    assert reasons(**few, companions={"water": 1.0}) == ("only 4 photos",)


def test_a_classifier_that_cannot_tell_the_class() -> None:
    assert reasons(told=0.41) == (
        "the classifier finds it again among the photos that it learned from with an average "
        "precision of 0.41 only; check the tags, or it looks like something else",
    )
    assert reasons(told=0.85) == reasons(told=None) == ()


def test_poor_masks_without_another_reason() -> None:
    poor = [0.3] * 20
    assert reasons(quality=poor) == ("its masks are not what makes the classifier see it",)
    assert len(reasons(quality=poor, others=0)) == 1
    middling = trust_of(quality=[0.4] * 20)
    assert middling.reasons == ()
    assert not middling.trusted
    assert middling.why_not == ("the expected IoU is under 0.5",)


# What is said


def test_a_line_of_a_class() -> None:
    assert ClassTrust("dog", 9, 0.721, 0.6, 0.811).line() == (
        "dog: expected IoU 0.72 (0.60 to 0.81)"
    )
    assert ClassTrust("dog", 9, 0.3, 0.0, 0.5, ("it is small", "it is dark")).line() == (
        "dog: expected IoU 0.30 (0.00 to 0.50), do not trust: it is small; also it is dark"
    )
    assert ClassTrust("dog", 9, 0.45, 0.25, 0.5).line() == (
        "dog: expected IoU 0.45 (0.25 to 0.50), do not trust: the expected IoU is under 0.5"
    )


@given(facts())
def test_a_line_says_whether_to_trust(known) -> None:
    found = class_trust(known, spread=0.1)
    assert found.trusted == ("do not trust: " not in found.line().removeprefix(known.name))
    assert found.trusted == (not found.why_not)


@given(facts())
def test_json_and_back(known) -> None:
    found = class_trust(known, spread=0.1)
    assert ClassTrust.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found


def test_all_classes_in_one_line_and_those_not_to_be_trusted_first() -> None:
    trusts = [trust_of(name="a"), trust_of(name="b", others=0), trust_of(name="c")]
    assert overall(trusts) == (
        "2 of 3 classes can be trusted (expected IoU of 0.5 or more, and nothing against it), "
        "by tags alone"
    )
    assert overall(trusts[1:2]).startswith("0 of 1 class can be trusted")
    lines = trust_lines(trusts)
    assert lines[0] == overall(trusts)
    assert [line[0] for line in lines[1:]] == ["b", "a", "c"]
    assert trust_lines([]) == []


def test_the_thresholds_are_in_order() -> None:
    assert trust.POOR < trust.TRUSTED
    assert trust.LARGE < trust.WHOLE
