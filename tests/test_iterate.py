"""Rounds: in order, on their own results, until the masks settle or enough were made."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tagseg.errors import ConfigError
from tagseg.iterate import StopRule, agreement, iterate


def run(agreements: list[float], rule: StopRule):
    """Rounds that give their own number, with these agreements from the second on."""
    steps: list[tuple[int, int | None]] = []
    compared: list[tuple[int, int, int]] = []

    def step(number: int, before: int | None) -> int:
        steps.append((number, before))
        return 10 * number

    def agree(number: int, before: int, after: int) -> float:
        compared.append((number, before, after))
        return agreements[number - 2]

    return list(iterate(step, agree, rule)), steps, compared


def test_each_round_works_on_the_result_of_the_one_before():
    found, steps, compared = run([0.1, 0.2], StopRule(3, 0.9))
    assert steps == [(1, None), (2, 10), (3, 20)]
    assert compared == [(2, 10, 20), (3, 20, 30)]
    assert [entry.number for entry in found] == [1, 2, 3]
    assert [entry.result for entry in found] == [10, 20, 30]
    assert [entry.agreement for entry in found] == [None, 0.1, 0.2]
    assert found[-1].result == 30
    assert [entry.ending for entry in found] == ["", "", "Stopped after 3 rounds, as configured."]


def test_settled_masks_end_the_rounds():
    found, steps, _ = run([0.5, 0.9, 0.3], StopRule(5, 0.9))
    assert [number for number, _ in steps] == [1, 2, 3]
    assert found[-1].agreement == 0.9
    assert found[-1].ending == (
        "Stopped after round 3: its masks agree with those before by 90.0 %, 90 % or more."
    )


def test_a_rule_over_1_never_ends_them_early():
    found, steps, _ = run([1.0, 1.0, 1.0], StopRule(4, 2.0))
    assert len(steps) == len(found) == 4


def test_one_round_is_compared_with_nothing():
    found, steps, compared = run([], StopRule(1))
    assert (steps, compared) == ([(1, None)], [])
    assert found[0].ending == "Stopped after one round, as configured."


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ({"max_rounds": 0}, "rounds is 0; use 1 or more"),
        ({"converged": 0.0}, "converged is 0.0; use over 0"),
        ({"converged": float("nan")}, "converged is nan; use over 0"),
    ],
)
def test_rules_that_make_no_sense(rule, line):
    with pytest.raises(ConfigError) as caught:
        StopRule(**rule)
    assert str(caught.value).startswith(line)


def test_results_are_kept_for_no_longer_than_the_next_round():
    class Heavy:
        """What holds a network."""

    alive: list[weakref.ref[Heavy]] = []

    def step(number: int, before: Heavy | None) -> Heavy:
        result = Heavy()
        alive.append(weakref.ref(result))
        return result

    for entry in iterate(step, lambda *_: 0.0, StopRule(4)):
        number = entry.number
        del entry
        assert [ref() is not None for ref in alive] == [False] * (number - 1) + [True]


MASKS = arrays.arrays(np.uint8, (3, 4), elements=st.sampled_from([0, 1, 2]))
PAIRS = st.lists(st.tuples(MASKS, MASKS), min_size=1, max_size=4)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(pairs=PAIRS)
def test_agreement_is_the_mean_iou_of_all_pixels_together(pairs):
    before = np.concatenate([first.ravel() for first, _ in pairs])
    after = np.concatenate([second.ravel() for _, second in pairs])
    ious = []
    for label in range(3):
        either = ((before == label) | (after == label)).sum()
        if either:
            ious.append(((before == label) & (after == label)).sum() / either)
    assert agreement(pairs, 3) == pytest.approx(np.mean(ious), abs=1e-12)
    assert agreement([(second, first) for first, second in pairs], 3) == pytest.approx(
        agreement(pairs, 3), abs=1e-12
    )


def test_agreement_of_nothing_and_of_ignored_pixels():
    ignored = np.full((2, 2), 255, np.uint8)
    labels = np.array([[0, 1], [1, 0]], np.uint8)
    assert agreement([], 3) == 1.0
    assert agreement([(ignored, labels)], 3) == 1.0
    assert agreement([(labels, labels)], 3) == 1.0
    assert agreement([(labels, ignored)], 3) == 0.0
