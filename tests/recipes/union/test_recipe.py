"""Union as a whole: what it trains, what it says of its masks, and interruptions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from guided_runs import few_photos, few_runs, open_run
from small_runs import (
    CLASSES,
    contents,
    cut_short,
    finished_stages,
    same_weights,
    weights_of,
)
from tagseg import training
from tagseg.evaluate.trust import trust_lines
from tagseg.recipes.union import recipe as module
from tagseg.run.plan import Plan
from tagseg.session.train import Caller, Result
from union_runs import FEW, Listening, config_of

QUICKER: dict[str, Any] = {"objects": "barrier"}
Few = Callable[..., Result]


@pytest.fixture(scope="module")
def few(photos) -> Few:
    return few_runs(photos, "union", {**FEW, **QUICKER})


class Told(NamedTuple):
    result: Result
    said: list[str]


@pytest.fixture(scope="module")
def told(few, tmp_path_factory) -> Told:
    """A run of two rounds, and what was said."""
    progress = Listening()
    out = tmp_path_factory.mktemp("runs") / "run"
    return Told(few({}, out, caller=Caller(progress)), progress.said)


# What is said of the masks


def test_every_class_can_be_trusted_or_not(told):
    """In label order, those without photos too."""
    trust = told.result.trust
    assert tuple(of_class.name for of_class in trust) == CLASSES
    for of_class in trust:
        small = any("smaller than any" in reason for reason in of_class.reasons)
        assert (of_class.expected is None) == (of_class.photos == 0 or small)
        assert of_class.why_not, "there are three photos of a class at most"
    assert trust[CLASSES.index("unicorn")].photos == 0


def test_the_lines_are_said_at_the_end(told):
    lines = trust_lines(told.result.trust)
    assert told.said[-len(lines) :] == lines
    assert len(lines) == len(CLASSES) + 1
    assert sum(line in lines for line in told.said) == len(lines)
    ways = [line for line in told.said if line.startswith("labels of round ")]
    assert [line.split(":")[0] for line in ways] == ["labels of round 1", "labels of round 2"]
    assert ", one of 6 ways; what speaks for it: " in ways[0]
    assert ", one of 2 ways; what speaks for it: " in ways[1]


def test_the_report_says_so_too(told):
    page = told.result.report.read_text()
    assert "How far to trust the masks" in page
    about = json.loads((told.result.folder / "run.json").read_text())
    assert about["trust"] == [of_class.to_json() for of_class in told.result.trust]
    assert "only 3 photos" in page


def test_the_same_call_again_says_it_again(told, few, monkeypatch):
    progress = Listening()
    monkeypatch.setattr(training, "_update", lambda *a, **k: pytest.fail("trained again"))
    again = few({}, told.result.folder, caller=Caller(progress))
    assert again.trust == told.result.trust
    lines = trust_lines(told.result.trust)
    assert progress.said[-len(lines) :] == lines
    assert "the run was finished before; nothing had to be done" in progress.said


def test_labels_of_both_rounds_are_scored_and_maps_are_shown(told):
    titles = [score.stage for score in told.result.scores if score.split == "train"]
    assert titles == ["labels, round 1", "labels, round 2", "masks of the photos (known tags)"]
    page = told.result.report.read_text()
    assert "where tags are seen" in page
    assert "what stands out: barrier" in page


# Rounds


class Trainings(NamedTuple):
    """Of one pyramid each."""

    prefix: str
    cycles: int
    start: Any
    made: Any


@pytest.fixture
def pyramids(monkeypatch) -> list[Trainings]:
    found: list[Trainings] = []
    real = module.pyramid_segmenter

    def spy(run: Any, config: Any, labels: Any, *, prefix: str, start: Any) -> Any:
        made = real(run, config, labels, prefix=prefix, start=start)
        found.append(Trainings(prefix, config.pyramid_cycles, start, made))
        return made

    monkeypatch.setattr(module, "pyramid_segmenter", spy)
    return found


def test_one_round_trains_one_pyramid(few, tmp_path, pyramids):
    few({"rounds": 1, "objects": "none", "pyramid_cycles": 3}, tmp_path / "run")
    assert [one[:3] for one in pyramids] == [("", 3, None)]
    stages = set(finished_stages(tmp_path / "run"))
    assert {"hiding-classifier", "verdict-1", "union-labels", "pyramid"} <= stages
    assert not [
        name for name in stages if name.startswith(("round-", "union-answers", "verdict-2"))
    ]


def test_each_round_goes_on_from_the_one_before(few, tmp_path, pyramids):
    """In one cycle each, but for the last."""
    few({"rounds": 3, "objects": "none", "pyramid_cycles": 2}, tmp_path / "run")
    assert [one.prefix for one in pyramids] == ["round-1-", "round-2-", ""]
    assert [one.cycles for one in pyramids] == [1, 1, 2]
    assert [one.start for one in pyramids] == [None, *(one.made for one in pyramids[:-1])]
    stages = set(finished_stages(tmp_path / "run"))
    assert {"union-labels", "union-labels-2", "union-labels-3", "verdict-3"} <= stages
    assert {"round-1-pyramid", "round-2-pyramid", "pyramid"} <= stages


def test_more_rounds_take_over_what_came_before(photos, tmp_path):
    """All of two rounds but the last pyramid, whose place is another, is that of three."""
    records = []
    with open_run(few_photos(photos), tmp_path / "run", recipe="union") as run:
        for rounds in (2, 3):
            plan = Plan()
            module.run(replace(run, workspace=plan), config_of(rounds=rounds))
            records.append(plan.records)
    two, three = records
    for name in ("union-labels", "round-1-pyramid", "union-answers-2", "verdict-2"):
        assert two[name]["key"] == three[name]["key"]
    assert {"round-2-pyramid", "union-labels-3"} <= three.keys() - two.keys()


# Interruptions


def test_interrupted_in_each_stage(few, told, tmp_path, monkeypatch):
    """One run that is cut short again and again, later each time, ends as the undisturbed one."""
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY", 0.0)
    folder = tmp_path / "cut"

    def go() -> Result:
        return few({}, folder)

    court = "tagseg.recipes.union.court.mask_features"
    for stage, function in {
        "hiding-classifier": "tagseg.training._update",
        "evidence-of-tags": "tagseg.stages.classifier.class_activation_maps",
        "verdict-1": court,
        "union-labels": "tagseg.recipes.union.labels.fused_probabilities",
        "round-1-pyramid": "tagseg.training._update",
        "union-answers-2": "tagseg.segment.windowed.in_windows",
        "verdict-2": court,
        "pyramid": "tagseg.training._update",
        "verdict-on-masks": court,
        "expected-quality": court,
    }.items():
        done = finished_stages(folder)
        cut_short(go, folder, stage, function)
        assert stage not in finished_stages(folder)
        assert all(finished_stages(folder)[name] == at for name, at in done.items())
    result = go()
    assert same_weights(weights_of(result), weights_of(told.result))
    assert result.trust == told.result.trust
    assert contents(result.masks) == contents(told.result.masks)
    assert [score.miou for score in result.scores] == [s.miou for s in told.result.scores]
