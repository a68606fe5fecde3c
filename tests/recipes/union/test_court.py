"""The court: what the judge is shown, what means are over, and what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import pytest

from guided_runs import LINE, few_photos, open_run
from small_runs import UNKNOWN
from tagseg.data.transforms import factor_to, resized_shape
from tagseg.evaluate.judge import FEATURES, case_for
from tagseg.maps import Labels
from tagseg.recipes.union.court import Court, Verdict
from tagseg.run.plan import Plan
from tagseg.stages.context import Run
from union_runs import (
    COLOUR,
    Listening,
    config_of,
    drawn,
    eye_of,
    judge_by,
    score_of,
    seen_of,
    stage_of,
)

COLUMN = {name: index for index, name in enumerate(FEATURES)}


@pytest.fixture
def run(photos, tmp_path) -> Iterator[Run]:
    few = few_photos(photos)
    with open_run(few, tmp_path / "run", recipe="union", progress=Listening()) as run:
        yield run


def court_of(run: Run, photos: Any, judge: Any = None, **changed: Any) -> Court:
    config = config_of(judged_photos=80, **changed)
    return Court(run, config, eye_of(run), seen_of(run, photos), judge or judge_by())


def qualities_of(court: Court, index: int, candidates: Any, **named: Any) -> np.ndarray:
    """Expected IoU (T, K) of the photo's T tags in each of K candidates."""
    features = court.features(index, candidates, **named)
    return np.stack([court._judge.quality(of_tag) for of_tag in features])


def pictures_seen(court: Court) -> int:
    return court._classifier.model.pictures


def held(run: Run) -> np.ndarray:
    """Numbers of photos of each class."""
    return run.photos.tags.sum(0)


def only(run: Run, index: int, tag: int) -> Labels:
    """The whole photo of one class if it has that, or of none."""
    shape = run.photos.image(index).shape[:2]
    return np.full(shape, (tag + 1) * run.photos.tags[index, tag], np.uint8)


# Which way is best


def test_means_are_over_classes_not_over_photos(run, photos):
    """A class of many photos counts as one of a single photo."""
    counts = held(run)
    many, one = int(counts.argmax()), int(np.flatnonzero(counts == 1)[0])
    assert counts[many] > 2
    court = court_of(run, photos)
    found = court.choose(
        lambda i: [only(run, i, many), only(run, i, one), np.zeros_like(only(run, i, one))],
        ["many", "one", "none"],
        [],
        1,
    )
    share = 1 / (counts > 0).sum()
    assert found.qualities == pytest.approx((share, share, 0), abs=1e-6)
    assert found.best == 0, "the first of equals"


def test_within_a_class_all_photos_count_alike(run, photos):
    counts = held(run)
    many = int(counts.argmax())
    first = np.flatnonzero(run.photos.tags[:, many])[0]

    def candidates(index: int) -> list[Labels]:
        whole = only(run, index, many)
        return [whole if index == first else np.zeros_like(whole), whole]

    found = court_of(run, photos).choose(candidates, ["in one", "in all"], [], 1)
    share = 1 / (counts > 0).sum()
    assert found.qualities == pytest.approx((share / counts[many], share), abs=1e-6)


def test_photos_that_are_heard(run, photos):
    """Those with tags, evenly spread; not those of which nothing is known or that hold nothing."""
    tags, known = run.photos.tags, run.photos.dataset.known
    everyone = np.flatnonzero(tags.any(1) & known).tolist()
    assert len(everyone) < len(tags)
    assert not {i for i, name in enumerate(run.photos.names) if name == f"train_{UNKNOWN}"} & {
        *everyone
    }
    assert court_of(run, photos).some() == everyone
    court = Court(run, config_of(judged_photos=2), eye_of(run), seen_of(run, photos), judge_by())
    assert court.some() == [everyone[0], everyone[-1]]
    asked: list[int] = []

    def candidates(index: int) -> list[Labels]:
        asked.append(index)
        return [only(run, index, 0)]

    court.choose(candidates, ["way"], [], 1)
    assert asked == [everyone[0], everyone[-1]]


def test_what_speaks_for_each_way_is_a_mean_over_classes_too(run, photos):
    def candidates(index: int) -> list[Labels]:
        true = drawn(run, photos, index)
        return [np.roll(true, 12, 1), true]

    court = court_of(run, photos)
    found = court.choose(candidates, ["beside it", "on it"], [], 1)
    of_class: dict[int, list[Any]] = {}
    for index in court.some():
        tags = np.flatnonzero(run.photos.tags[index]).tolist()
        for tag, features in zip(tags, court.features(index, candidates(index)), strict=True):
            of_class.setdefault(tag, []).append(case_for(features))
    wanted = np.mean([np.mean(rows, 0) for rows in of_class.values()], 0)
    assert found.cases == pytest.approx(wanted.tolist(), abs=1e-5)
    assert found.cases[1] > found.cases[0] > 0
    assert found.best == 1


@pytest.mark.parametrize(
    ("cases", "near"),
    [
        ((0.2, 0.5, 0.3), [1]),
        ((0.5, 0.36, 0.34), [0, 1]),  # 0.35 is three tenths less
        ((0.5, 0.5), [0, 1]),
        ((0.0, 0.0), [0, 1]),  # nothing speaks for any
        ((0.3,), [0]),
    ],
)
def test_ways_that_have_a_vote(cases, near):
    verdict = Verdict(cases, (0.9,) * len(cases), None)  # type: ignore[arg-type]
    assert verdict.near(0.3) == near
    assert verdict.near(0.0) == [i for i, case in enumerate(cases) if case == max(cases)]
    assert verdict.near(1.0) == list(range(len(cases)))
    assert verdict.best == int(np.argmax(cases))


@pytest.mark.parametrize(("cases", "best"), [((0.5, 0.36), 1), ((0.5, 0.34), 0), ((0.2, 0.4), 1)])
def test_the_favourite_is_taken_unless_it_has_lost_too_much(cases, best):
    """Whatever the expected IoU: smooth answers are not judged as well as labels along edges."""
    verdict = Verdict(cases, (0.9, 0.1), None, favourite=1)  # type: ignore[arg-type]
    assert verdict.best == best


def test_masks_too_small_to_say(run, photos):
    """Nothing is said of ways most of whose masks are; what speaks for them is."""

    def candidates(index: int) -> list[Labels]:
        tags = np.flatnonzero(run.photos.tags[index]) + 1
        height, width = run.photos.image(index).shape[:2]
        stripes = tags[np.arange(width) * len(tags) // width]
        halves = np.tile(stripes.astype(np.uint8), (height, 1))
        specks = np.zeros_like(halves)
        specks[0, : len(tags)] = tags
        return [specks, halves, np.zeros_like(halves)]

    court = court_of(run, photos, judge_by(level=0.2, smallest=0.1))
    found = court.choose(candidates, ["specks", "stripes", "none"], [], 1)
    assert found.qualities[0] is None
    assert found.qualities[1] is not None
    assert found.qualities[1] > 0.2
    assert found.qualities[2] == 0, "that nothing is there is known to be wrong"
    rows = court.expected(candidates, [])
    flat = [row for of_class in rows for row in of_class]
    assert {row[0] for row in flat if row[0] is not None} == set()
    assert all(0 < row[1] < 0.1 for row in flat)


def test_what_is_said(run, photos):
    tag = int(held(run).argmax())
    court = court_of(run, photos, judge_by(level=0.25))
    names = ["all", "none"]
    court.choose(lambda i: [only(run, i, tag), np.zeros_like(only(run, i, tag))], names, [], 3)
    share = 1 / (held(run) > 0).sum()
    assert run.progress.said == [  # type: ignore[attr-defined]
        f"labels of round 3: all (expected IoU {share:.2f}), one of 2 ways; what speaks for it: "
        "0.00, for the others 0.00 to 0.00"
    ]


def test_a_verdict_is_kept(photos, tmp_path):
    """No pass of the classifier when the run goes on."""
    found, seen = [], []
    for _ in range(2):
        with open_run(few_photos(photos), tmp_path / "run", recipe="union") as run:
            many, court = int(held(run).argmax()), court_of(run, photos)
            ways = partial(candidates_of, run, many)
            found.append(
                (court.choose(ways, ["a", "b"], [], 1).qualities, court.expected(ways, []))
            )
            seen.append(pictures_seen(court))
    assert found[0] == found[1]
    assert seen[0] > 0
    assert seen[1] == 0


def candidates_of(run: Run, tag: int, index: int) -> list[Labels]:
    return [only(run, index, tag), np.zeros_like(only(run, index, tag))]


def key_of(run: Run, photos: Any, names: str = "ab", judge: Any = None, **changed: Any) -> str:
    """Of a verdict, in a run that is only planned."""
    planned = replace(run, workspace=Plan())
    made_of = [stage_of(planned, "labels", of=changed.pop("of", 0))]
    config = config_of(**changed)
    eye, seen = eye_of(planned), seen_of(planned, photos)
    court = Court(planned, config, eye, seen, judge or judge_by())
    return court.choose(partial(candidates_of, run, 0), tuple(names), made_of, 1).stage.key


def test_what_a_verdict_depends_on(run, photos):
    """Names of the ways, what they are made of, the judge and how it looks."""
    keys = [
        key_of(run, photos),
        key_of(run, photos, "ac"),
        key_of(run, photos, "abc"),
        key_of(run, photos, judge=judge_by(level=0.1)),
        key_of(run, photos, judge_side=64),
        key_of(run, photos, judged_photos=3),
        key_of(run, photos, of=1),
    ]
    assert len(set(keys)) == len(keys)
    assert key_of(run, photos) == keys[0]
    assert key_of(run, photos, rounds=3, answer_confidence=0.1) == keys[0]


def test_nothing_to_tell_ways_by(photos, tmp_path):
    """In photos of which all are known to hold nothing the first way is as good as any."""
    few = few_photos(photos)
    bare = replace(few, tags=np.zeros_like(few.tags))
    with open_run(bare, tmp_path / "run", recipe="union", progress=Listening()) as run:
        court = court_of(run, photos)
        found = court.choose(lambda i: [only(run, i, 0)] * 2, ["a", "b"], [], 1)
        assert (found.cases, found.qualities, found.best) == ((0.0, 0.0), (None, None), 0)
        assert run.progress.said == []
        assert court.expected(lambda i: [only(run, i, 0)], []) == [[] for _ in bare.classes]


# How good masks are


def test_expected_of_each_class_in_each_of_its_photos(run, photos):
    court = court_of(run, photos, judge_by("shown", level=0.1))
    tags, known = run.photos.tags, run.photos.dataset.known

    def candidates(index: int) -> list[Labels]:
        true = drawn(run, photos, index)
        return [true, np.roll(true, 5, 1)]

    rows = court.expected(candidates, [])
    assert len(rows) == len(run.photos.classes)
    for tag, of_class in enumerate(rows):
        holders = np.flatnonzero(tags[:, tag] & known).tolist()
        assert len(of_class) == len(holders)
        for (quality, area, inside, outside), index in zip(of_class, holders, strict=True):
            own = candidates(index)[0] == tag + 1
            evidence = seen_of(run, photos)(index)[tag]
            assert inside == pytest.approx(evidence[own].mean() if own.any() else 0, abs=1e-3)
            assert outside == pytest.approx(evidence[~own].mean(), abs=1e-3)
            place = np.flatnonzero(tags[index]).tolist().index(tag)
            assert area == pytest.approx(own.mean(), abs=1e-4)
            wanted = qualities_of(court, index, candidates(index))[place, 0]
            assert quality == pytest.approx(wanted, abs=1e-4)
    assert sum(len(of_class) for of_class in rows) > 5
    again = court_of(run, photos, judge_by("shown", level=0.1))
    assert again.expected(candidates, []) == rows
    assert pictures_seen(again) == 0


def test_an_empty_mask_is_worth_nothing(run, photos):
    """However much the judge thinks of the photo; nor is one that another class covers."""
    court = court_of(run, photos, judge_by("seen", level=0.9))
    index = int(run.photos.tags.sum(1).argmax())
    tags = np.flatnonzero(run.photos.tags[index])
    assert len(tags) > 1
    nothing = np.zeros(run.photos.image(index).shape[:2], np.uint8)
    first = np.full_like(nothing, tags[0] + 1)
    found = qualities_of(court, index, [nothing, first])
    assert found.shape == (len(tags), 2)
    assert found[0].tolist() == [0, 1]
    assert not found[1:].any()
    unknown = np.full_like(nothing, 255)
    assert not qualities_of(court, index, [unknown]).any()


# What the judge is shown


def judged_size(image: np.ndarray, side: int) -> tuple[int, int]:
    return resized_shape(image.shape[:2], factor_to(side, image.shape[:2]))


@pytest.mark.parametrize("side", [48, 64, 150])
def test_what_is_hidden_takes_the_mean_colour(run, photos, side):
    """All shown is the photo, nothing shown is that colour; and hidden the other way round."""
    court = court_of(run, photos, judge_side=side)
    for index in (0, 1, 2, 3):
        image, tags = run.photos.image(index), np.flatnonzero(run.photos.tags[index])
        tag = int(tags[0])
        every = np.full(image.shape[:2], tag + 1, np.uint8)
        found = court.features(index, [every, np.zeros_like(every)])[0]
        height, width = judged_size(image, side)
        seen = score_of(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), tag)
        flat = score_of(np.full((2, 2, 3), COLOUR, np.uint8), tag)
        # How photos are brought to the size is not the court's: a mean may be a level off.
        np.testing.assert_allclose(found[:, COLUMN["seen"]], seen, atol=0.02)
        whole = found[0, COLUMN["seen"]]
        np.testing.assert_allclose(found[:, COLUMN["shown"]], [whole, flat], atol=1e-5)
        np.testing.assert_allclose(found[:, COLUMN["hidden"]], [flat, whole], atol=1e-5)


def test_half_a_photo(run, photos):
    """At working size nothing is resized, so what is seen can be told to the pixel."""
    court = court_of(run, photos, judge_side=64)
    index = run.photos.names.index("train_1")
    image, tags = run.photos.image(index), np.flatnonzero(run.photos.tags[index])
    assert max(image.shape) == 64
    for place, tag in enumerate(tags.tolist()):
        left = np.zeros(image.shape[:2], np.uint8)
        left[:, :20] = tag + 1
        (found,) = court.features(index, [left])[place]
        inside = (left > 0)[..., None]
        for name, kept in (("shown", inside), ("hidden", ~inside)):
            picture = np.where(kept, image, np.array(COLOUR, np.uint8))
            assert found[COLUMN[name]] == pytest.approx(score_of(picture, tag), abs=1e-5)
        assert found[COLUMN["seen"]] == pytest.approx(score_of(image, tag), abs=1e-5)
        assert found[COLUMN["tags"]] == len(tags)
        assert found[COLUMN["area"]] == pytest.approx((left > 0).mean())


def test_of_many_candidates_each_is_seen(run, photos):
    """More pictures than one pass takes."""
    court = court_of(run, photos)
    rng = np.random.default_rng(0)
    index, tag = 1, int(np.flatnonzero(run.photos.tags[1])[0])
    shape = run.photos.image(index).shape[:2]
    many = [((rng.random(shape) < share) * (tag + 1)).astype(np.uint8) for share in rng.random(20)]
    together = court.features(index, many)[0]
    for place in (0, 7, 8, 15, 16, 19):
        (alone,) = court.features(index, [many[place]])[0]
        for name in ("seen", "shown", "hidden", "area", "colours"):
            assert together[place, COLUMN[name]] == pytest.approx(alone[COLUMN[name]], abs=1e-5)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_looking_at_the_first_alone(run, photos, index):
    """It still says how far all agree, and the classifier sees three pictures of each tag."""
    judge = judge_by("agreement", level=0.3)
    rng = np.random.default_rng(index)
    court = court_of(run, photos, judge)
    tags = np.flatnonzero(run.photos.tags[index])
    shape = run.photos.image(index).shape[:2]
    some = [rng.choice([0, *(tags + 1)], shape).astype(np.uint8) for _ in range(3)]
    every = court.features(index, some)
    before = pictures_seen(court)
    first = court.features(index, some, only_first=True)
    assert pictures_seen(court) - before == 3 * len(tags)
    for one, of_all in zip(first, every, strict=True):
        assert one.shape == (1, len(FEATURES))
        np.testing.assert_allclose(one, of_all[:1], atol=1e-6)
    np.testing.assert_allclose(
        qualities_of(court, index, some, only_first=True),
        qualities_of(court, index, some)[:, :1],
        atol=1e-6,
    )


def test_a_photo_of_one_row(run, photos):
    court = court_of(run, photos)
    index = run.photos.names.index(LINE)
    first, second = np.flatnonzero(run.photos.tags[index])
    row = np.array([[first + 1] * 20 + [second + 1] * 20], np.uint8)
    found = qualities_of(court, index, [row, row[:, ::-1]])
    np.testing.assert_allclose(found, 0.5)


def test_evidence_is_that_of_the_class(run, photos):
    maps = seen_of(run, photos)
    court = Court(run, config_of(), eye_of(run), maps, judge_by())
    for index in court.some():
        true, tags = drawn(run, photos, index), np.flatnonzero(run.photos.tags[index])
        for tag, found in zip(tags.tolist(), court.features(index, [true]), strict=True):
            seen, mask = maps(index)[tag], true == tag + 1
            inside, outside = (seen[m].mean() if m.any() else 0 for m in (mask, ~mask))
            assert found[0, COLUMN["evidence inside"]] == pytest.approx(inside, abs=1e-5)
            assert found[0, COLUMN["evidence outside"]] == pytest.approx(outside, abs=1e-5)
