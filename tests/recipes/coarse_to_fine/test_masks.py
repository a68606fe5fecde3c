"""The masks that Jing et al. begin with, and the numbers of their method."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guided_runs import RECURSION, WITHOUT_CLASSIFIER, one_label_photos, open_run
from small_runs import changed_stages, finished_stages
from tagseg.errors import ConfigError
from tagseg.iterate import StopRule
from tagseg.priors.saliency.minimum_barrier import minimum_barrier_saliency
from tagseg.recipes import coarse_to_fine
from tagseg.recipes.coarse_to_fine import masks as coarse_masks
from tagseg.recipes.coarse_to_fine.config import RecursionConfig
from tagseg.recipes.coarse_to_fine.masks import FirstMasks, Target, first_masks
from tagseg.refine.box_masks import boxed
from tagseg.refine.grabcut import GrabCutSettings, enhanced_mask
from tagseg.session.train import make_config
from tagseg.stages.context import Run
from tagseg.stages.saliency import PhotoSaliency


def config_of(**changed: Any) -> Any:
    return make_config(RecursionConfig, {**WITHOUT_CLASSIFIER, **RECURSION, **changed})


# Numbers


def test_the_papers_numbers():
    config = RecursionConfig()
    assert config.saliency_source() == "student"
    assert (config.initial, config.between, config.start) == ("enhanced", "grabcut", "warm")
    assert config.foreground_limits == (0.01, 0.8)
    assert (config.resize, config.segmenter_crop) == (321, 256)
    assert config.stop_rule() == StopRule(5, 2.0)
    assert coarse_to_fine.Config().masks_by_tags is False
    assert config.grabcut() == GrabCutSettings()
    assert config.filter_first is True
    assert config.resize_range == (1.0, 1.0)
    assert [config.fraction_of(number) for number in (1, 2, 5)] == [1.0, 0.5, 0.5]


def test_numbers_as_given():
    config = make_config(
        RecursionConfig,
        {
            "grabcut_iterations": 5,
            "grabcut_side": 300,
            "grabcut_start_iterations": 3,
            "grabcut_start_side": 90,
            "coarse_fraction": 0.6,
            "foreground_limits": [0.02, 0.5],
            "rounds": 1,
            "converged": 0.9,
            "later_fraction": 1.0,
            "saliency_maps": "m",
        },
    )
    assert config.grabcut() == GrabCutSettings(
        iterations=5, side=300, start_iterations=3, start_side=90
    )
    assert config.foreground_limits == (0.02, 0.5)
    assert config.stop_rule() == StopRule(1, 0.9)
    assert config.fraction_of(2) == 1.0
    assert config.saliency_source() == "folder"


def test_grabcut_until_it_converges():
    """It has no start on smaller photos, whose numbers then say nothing."""
    config = RecursionConfig(grabcut_iterations=None, grabcut_start_iterations=9, grabcut_side=300)
    assert config.grabcut() == GrabCutSettings(iterations=None, side=300)
    start = {"grabcut_start_iterations", "grabcut_start_side"}
    assert start <= config.idle().keys()
    assert not start & RecursionConfig().idle().keys()


RANGE = "; use two factors over 0, the lesser first"
LIMITS = "; use two shares, 0 to 1, the lesser first"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"saliency": "grabcut"}, "saliency is 'grabcut'; "),
        ({"initial": "soft"}, "initial is 'soft'; "),
        ({"between": "rule"}, "between is 'rule'; "),
        ({"start": "hot"}, "start is 'hot'; "),
        ({"coarse_fraction": 0.0}, "coarse_fraction is 0.0; use over 0, up to 1"),
        ({"coarse_fraction": -0.5}, "coarse_fraction is -0.5; use over 0, up to 1"),
        ({"coarse_fraction": 1.01}, "coarse_fraction is 1.01; use over 0, up to 1"),
        ({"later_fraction": 0.0}, "later_fraction is 0.0; use over 0, up to 1"),
        ({"later_fraction": 1.1}, "later_fraction is 1.1; use over 0, up to 1"),
        ({"foreground_limits": (0.5, 0.5)}, f"foreground_limits is 0.5,0.5{LIMITS}"),
        ({"foreground_limits": (0.8, 0.01)}, f"foreground_limits is 0.8,0.01{LIMITS}"),
        ({"foreground_limits": (-0.1, 0.8)}, f"foreground_limits is -0.1,0.8{LIMITS}"),
        ({"foreground_limits": (0.0, 80.0)}, f"foreground_limits is 0,80{LIMITS}"),
        ({"resize_range": (0.0, 1.0)}, "resize_range is 0,1; use values over 0"),
        ({"resize_range": (1.5, 0.5)}, f"resize_range is 1.5,0.5{RANGE}"),
        ({"grabcut_iterations": 0}, "grabcut_iterations is 0; use 1 or more"),
        ({"grabcut_side": -1}, "grabcut_side is -1; use 1 or more"),
        ({"grabcut_start_iterations": 0}, "grabcut_start_iterations is 0; use 1 or more"),
        ({"grabcut_start_side": 0}, "grabcut_start_side is 0; use 1 or more"),
        ({"rounds": 0}, "rounds is 0; use 1 or more"),
        ({"converged": 0.0}, "converged is 0.0; use a value over 0"),
        ({"resize": 255}, "resize is 255, segmenter_crop 256; use crops no larger than"),
        ({"segmenter_crop": 8}, "segmenter_crop is 8; use 16 or more"),
        ({"saliency": "boxes"}, "saliency=boxes has nothing to read; give --boxes FILE"),
        ({"saliency": "barrier", "student": "s"}, "student is given, but saliency comes from"),
    ],
)
def test_numbers_that_make_no_sense(values, line):
    for make in (
        lambda: make_config(RecursionConfig, values),
        lambda: RecursionConfig(**values),
    ):
        with pytest.raises(ConfigError) as caught:
            make()
        assert str(caught.value).startswith(line)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("coarse_fraction", "use over 0, up to 1"),
        ("later_fraction", "use over 0, up to 1"),
        ("converged", "use a value over 0"),
    ],
)
def test_what_is_no_number(name, advice):
    with pytest.raises(ConfigError, match=f"^{name} is nan; {advice}$"):
        RecursionConfig(**{name: math.nan})


@pytest.mark.parametrize(
    "values",
    [{"foreground_limits": "0.1"}, {"foreground_limits": "a,b"}, {"grabcut_side": 20.5}],
    ids=str,
)
def test_what_is_of_another_kind(values):
    with pytest.raises(ConfigError, match=next(iter(values))) as caught:
        make_config(RecursionConfig, values)
    assert "\n" not in str(caught.value)


# Masks

LABELS = [1, 1, 0, 3, 9, 2, 0, 0]  # of one_label_photos, as if tagged so


def target_of(labels: list[int] = LABELS, *, by_class: bool = True) -> Target:
    network: Any = lambda scale: None  # noqa: E731
    return Target(np.array(labels, np.intp), ("a", "b"), network, "form", by_class)


@pytest.fixture(scope="module")
def few(photos) -> Any:
    return one_label_photos(photos)


def begin(few: Any, photos: Any, folder: Path) -> Any:
    return open_run(few, folder, val=photos.val[:2], recipe="coarse_to_fine")


@pytest.fixture(scope="module")
def run(few, photos, tmp_path_factory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("runs") / "run"
    with begin(few, photos, folder) as run:
        yield run


def masks_of(run: Run, config: Any, target: Target | None = None) -> FirstMasks:
    return first_masks(run, config, target or target_of(), PhotoSaliency(run, config).maps())


def stored_map(image: Any) -> Any:
    """The coarse mask as the run keeps it, in 255 levels."""
    return (np.rint(255 * minimum_barrier_saliency(image)) / 255).astype(np.float32)


def test_pseudo_labels_are_of_the_photos_own_label():
    foreground = np.array([[True, False, True]])
    target = target_of([7, 0])
    np.testing.assert_array_equal(target.pseudo_label(0, foreground), [[7, 0, 7]])
    np.testing.assert_array_equal(target.pseudo_label(1, foreground), [[255, 255, 255]])
    assert target.pseudo_label(0, foreground).dtype == np.uint8


def test_coarse_enhanced_and_boxed(run):
    """Table I's three: half of the maximum; GrabCut on the soft map; the box around its result."""
    found = masks_of(run, config_of(initial="boxes"))
    assert found.enhanced is not None
    assert found.boxes is not None
    assert found.chosen(config_of(initial="boxes")) is found.boxes
    differ = 0
    for index, label in enumerate(LABELS):
        image = run.photos.image(index)
        coarse, enhanced, boxes = (
            labels(index) for labels in (found.coarse, found.enhanced, found.boxes)
        )
        for labels in (coarse, enhanced, boxes):
            assert (labels.dtype, labels.shape) == (np.uint8, image.shape[:2])
        if label == 0:
            assert {*np.unique(coarse), *np.unique(enhanced), *np.unique(boxes)} == {255}
            continue
        soft = stored_map(image)
        expected = np.where(soft >= 0.5 * soft.max(), label, 0)
        np.testing.assert_array_equal(coarse, expected)
        cut = enhanced_mask(image, soft, config_of().grabcut())
        np.testing.assert_array_equal(enhanced, np.where(cut, label, 0))
        np.testing.assert_array_equal(boxes, np.where(boxed(cut), label, 0))
        differ += int((coarse != enhanced).any() and (enhanced != boxes).any())
    assert differ >= 3


def test_settings_reach_both(few, photos, tmp_path, monkeypatch):
    """GrabCut is given the soft map, not the mask cut out of it."""
    given: list[tuple[bool, GrabCutSettings]] = []

    def nothing(image: Any, coarse: Any, settings: GrabCutSettings) -> Any:
        given.append((len(np.unique(coarse)) > 2, settings))
        return np.zeros(image.shape[:2], bool)

    monkeypatch.setattr(coarse_masks, "enhanced_mask", nothing)
    config = config_of(coarse_fraction=0.3, grabcut_iterations=3, grabcut_side=40)
    with begin(few, photos, tmp_path / "run") as run:
        found = masks_of(run, config)
        soft = stored_map(run.photos.image(1))
        np.testing.assert_array_equal(found.coarse(1), soft >= 0.3 * soft.max())
        assert found.enhanced is not None
        assert not found.enhanced(1).any()
    settings = GrabCutSettings(iterations=3, side=40)
    assert given == [(True, settings)] * np.count_nonzero(LABELS)


@pytest.mark.parametrize(
    ("initial", "made", "titles"),
    [
        ("coarse", {"coarse-masks"}, ["coarse masks"]),
        ("enhanced", {"coarse-masks", "enhanced-masks"}, ["coarse masks", "enhanced masks"]),
        (
            "boxes",
            {"coarse-masks", "enhanced-masks", "box-masks"},
            ["coarse masks", "enhanced masks", "boxes of these"],
        ),
    ],
)
def test_no_more_is_made_than_asked_for(few, photos, tmp_path, initial, made, titles):
    with begin(few, photos, tmp_path / "run") as run:
        config = config_of(initial=initial)
        found = masks_of(run, config)
        names = {"enhanced": found.enhanced, "coarse": found.coarse, "boxes": found.boxes}
        assert found.chosen(config) is names[initial]
        shown = found.predictions(target_of())
    assert set(finished_stages(tmp_path / "run")) == {"saliency", *made}
    assert [(masks.title, masks.split, masks.by_class) for masks in shown] == [
        (title, "train", True) for title in titles
    ]
    without = target_of(by_class=False)
    assert {masks.by_class for masks in found.predictions(without)} == {False}
    order = {"coarse": "coarse-masks", "enhanced": "enhanced-masks", "boxes": "box-masks"}
    assert [(masks.id, masks.stage.name) for masks in shown] == [
        (id, stage) for id, stage in order.items() if stage in made
    ]


FIELDS: list[tuple[dict[str, Any], bool, set[str]]] = [  # the second: labels are of classes
    ({}, True, set()),
    ({"between": "nothing", "foreground_limits": (0.1, 0.9), "start": "cold"}, True, set()),
    ({"initial": "enhanced"}, True, set()),
    ({"grabcut_iterations": 7}, True, {"enhanced-masks", "box-masks"}),
    ({"grabcut_side": 50}, True, {"enhanced-masks", "box-masks"}),
    ({"grabcut_iterations": None}, True, {"enhanced-masks", "box-masks"}),
    ({"coarse_fraction": 0.4}, True, {"coarse-masks"}),
    ({}, False, {"coarse-masks", "enhanced-masks", "box-masks"}),
]


@pytest.fixture(scope="module")
def finished(few, photos, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    with begin(few, photos, folder) as run:
        masks_of(run, config_of(initial="boxes"))
    return folder


@pytest.mark.parametrize(
    ("changed", "by_class", "expected"),
    FIELDS,
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_what_depends_on_what(few, photos, finished, tmp_path, changed, by_class, expected):
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    before = finished_stages(folder)
    with begin(few, photos, folder) as run:
        masks_of(run, config_of(**{"initial": "boxes", **changed}), target_of(by_class=by_class))
    assert changed_stages(before, folder) == expected


def test_labels_are_made_anew_from_other_tags(few, photos, finished, tmp_path):
    """Which are those of the photos' key: a target's labels say nothing that tags do not."""
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    before = finished_stages(folder)
    tags = few.tags.copy()
    tags[0] = np.roll(tags[0], 1)
    labels = [2, *LABELS[1:]]
    with begin(replace(few, tags=tags), photos, folder) as run:
        found = masks_of(run, config_of(initial="boxes"), target_of(labels))
        assert set(np.unique(found.coarse(0)).tolist()) == {0, 2}
    made = {"saliency", "coarse-masks", "enhanced-masks", "box-masks"}
    assert changed_stages(before, folder) == made
