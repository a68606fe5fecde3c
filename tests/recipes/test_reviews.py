"""What holds for every recipe that is given a review: what reruns, what is taught, what comes out.

Each one is trained on the same small photos without a review, and then in the same folder with one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guided_runs import MINING, RECURSION
from small_reviews import AT, accepted, rejected, retagged, review_of_masks, write_review
from small_runs import (
    DISTINCT,
    OPTIONS,
    UNKNOWN,
    WEIGHED,
    Photos,
    changed_stages,
    contents,
    finished_stages,
    quick,
    same_weights,
    weights_of,
)
from tagseg.data.masks import decode_mask, read_mask
from tagseg.data.working import WorkingPhotos, labels_at
from tagseg.errors import MaskError, TagsegError, TrainingError
from tagseg.formats.review import Cleared
from tagseg.maps import IGNORE, Labels
from tagseg.recipes.catalog import RECIPES
from tagseg.run.manifest import Record
from tagseg.run.stage import record_in
from tagseg.run.workspace import Workspace
from tagseg.session import train as session
from tagseg.session.report import render_report
from tagseg.session.reviewing import ReviewSource
from tagseg.session.train import Result, train
from tagseg.stages.review import ReviewSettings

PYRAMID: dict[str, Any] = {
    "segmenter": "pyramid",
    "pyramid_iterations": 3,
    "pyramid_batch_size": 2,
    "pyramid_crop": 32,
    "pyramid_turns": "none",
    "pyramid_zoom": 1.0,
}
SMALL = {"seeder_side": 64}
CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in RECIPES}
CASES["dcsm"] = ("dcsm", DISTINCT)
CASES["dcsm, trained"] = ("dcsm", {**DISTINCT, "segmenter": "trained"})
CASES["guided"], CASES["sec"] = ("guided", SMALL), ("sec", SMALL)
CASES["mcof"] = ("mcof", {**SMALL, **MINING})
CASES["mcof, pyramid"] = ("mcof", {**SMALL, **MINING, **PYRAMID})
CASES["coarse_to_fine"] = ("coarse_to_fine", RECURSION)
CASES["coarse_to_fine_foreground"] = ("coarse_to_fine_foreground", RECURSION)
CASES["union"] = ("union", WEIGHED)
CASES["cam_baseline, pyramid"] = ("cam_baseline", PYRAMID)
CASES |= {f"builtin_priors, {m}": ("builtin_priors", {"masks": m}) for m in ("none", "foreground")}

TAUGHT: dict[str, set[str]] = {  # labels that a review changes, where they are several
    "union": {"round-1-reviewed-labels", "reviewed-labels"},
    "mcof": {"pixelnet-1-reviewed-labels", "pixelnet-2-reviewed-labels"},
    "mcof, pyramid": {
        "pixelnet-1-reviewed-labels",
        "pixelnet-2-reviewed-labels",
        "reviewed-labels",
    },
    "coarse_to_fine": {"deeplab-1-reviewed-labels", "deeplab-2-reviewed-labels"},
    "coarse_to_fine_foreground": {"fpn-1-reviewed-labels", "fpn-2-reviewed-labels"},
    "dcsm": set(),  # no segmenter
    "builtin_priors, none": set(),  # which learns from tags alone
}
CORRECTED, WRONG = 5, 2  # photos; one that is smaller than the grid's stride, one of usual size
THRICE = ReviewSettings(3)
RIGHT = (0, 3, 6, UNKNOWN)  # one larger than at work; one of which no tags are known


def mask_of(photos: Photos, index: int) -> Labels:
    """Ground truth with pixels of which a person is not sure; of a photo without objects some."""
    mask = photos.labels[photos.train[index]].copy()
    if index == UNKNOWN:
        mask[2:20, 3:30] = 4
    mask[-3:, -4:] = IGNORE
    return mask


@dataclass(frozen=True)
class Reviewed:
    """A finished run, the same after a review, and what was done for it."""

    case: str
    recipe: str
    config: dict[str, Any]
    before: Result
    after: Result
    worked: list[str]
    ran: set[str]
    records: dict[str, Record]
    review: Path
    weights: dict[str, Any]

    @property
    def taught(self) -> set[str]:
        return TAUGHT.get(self.case, {"reviewed-labels"})

    @property
    def by_class(self) -> bool:
        """Whether the segmenter tells classes apart."""
        return "foreground" not in self.recipe

    @property
    def taught_classes(self) -> bool:
        """Whether its labels do."""
        return "foreground" not in self.case

    def stored(self, stage: str, name: str) -> Labels:
        work = Workspace.read(self.after.folder)
        found = work.finished(stage)
        labels = decode_mask(found.maps("labels").get_bytes(name))
        found.close()
        return labels


def any_class(labels: Labels) -> Labels:
    return np.where((labels > 0) & (labels < IGNORE), np.uint8(1), labels)


def records_of(folder: Path) -> dict[str, Record]:
    found = {path.name[3:]: record_in(path) for path in sorted(folder.glob("stages/[0-9]*"))}
    return {name: record for name, record in found.items() if record is not None}


def behind(records: dict[str, Record], first: set[str]) -> set[str]:
    """The stages ``first`` and all that are made from them."""
    found = set(first)
    for name, record in records.items():
        if any(label in found for label, _ in record["inputs"]):
            found.add(name)
    return found


@dataclass
class Watched:
    """Names of the stages that a run worked on."""

    worked: list[str] = field(default_factory=list)

    def __call__(self, run: Any, *args: Any) -> None:
        self.worked[:] = run.worked
        session_write_about(run, *args)


session_write_about: Callable[..., None] = session.write_about


@pytest.fixture(scope="module", params=CASES)
def reviewed(request, photos, go, tmp_path_factory) -> Reviewed:
    recipe, config = CASES[request.param]
    out = tmp_path_factory.mktemp("runs") / "run"
    before = go(recipe, config, out=out)
    weights = weights_of(before)
    finished = finished_stages(out)
    folder, names = tmp_path_factory.mktemp("reviews"), photos.train
    acts = [accepted(folder, names[i], mask_of(photos, i), "right") for i in RIGHT[:2]]
    acts += [accepted(folder, names[i], mask_of(photos, i), "pick") for i in RIGHT[2:]]
    acts += [accepted(folder, names[CORRECTED], mask_of(photos, CORRECTED), "corrected")]
    acts += [rejected(names[WRONG]), rejected(photos.val[0])]
    review = write_review(folder, photos.dataset.classes, acts)
    watched = Watched()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "write_about", watched)
        after = go(recipe, config, out=out, review=ReviewSource(review, THRICE))
    return Reviewed(
        request.param,
        recipe,
        config,
        before,
        after,
        watched.worked,
        changed_stages(finished, out),
        records_of(out),
        review,
        weights,
    )


def test_what_is_behind_reruns_and_nothing_else(reviewed):
    """By the stages that the run says it worked on, and by the files."""
    first = reviewed.taught | {"masks"}  # which is of accepted masks in any case
    known = reviewed.before.folder
    assert {name for name in reviewed.records if name.endswith("reviewed-labels")} == (
        reviewed.taught
    )
    assert reviewed.ran == behind(reviewed.records, first)
    assert set(reviewed.worked) == reviewed.ran
    assert {"masks", "findings"} <= reviewed.ran < set(finished_stages(known))
    if not reviewed.taught:
        assert reviewed.ran == {"masks", "findings"}


def test_accepted_masks_are_the_final_ones(reviewed, photos):
    for index in (*RIGHT, CORRECTED):
        found = read_mask(reviewed.after.masks / f"{photos.train[index]}.png")
        mask = mask_of(photos, index)
        assert np.array_equal(found, mask if reviewed.by_class else any_class(mask)), index


def test_accepted_masks_are_taught_and_rejected_ones_are_not(reviewed, photos):
    working = WorkingPhotos(photos.dataset.select(photos.train), 64)
    for stage in reviewed.taught:
        for index in (*RIGHT, CORRECTED):
            labels = reviewed.stored(stage, photos.train[index])
            mask = labels_at(mask_of(photos, index), working.image(index).shape[:2])
            assert np.array_equal(labels, mask if reviewed.taught_classes else any_class(mask))
        assert (reviewed.stored(stage, photos.train[WRONG]) == IGNORE).all()


def test_it_is_another_segmenter_where_there_is_one(reviewed):
    assert same_weights(reviewed.weights, weights_of(reviewed.after)) == (not reviewed.taught)


def test_the_same_review_again_changes_nothing(reviewed, go):
    before = finished_stages(reviewed.after.folder)
    review = ReviewSource(reviewed.review, THRICE)
    again = go(reviewed.recipe, reviewed.config, out=reviewed.after.folder, review=review)
    assert changed_stages(before, reviewed.after.folder) == set()
    assert again.scores == reviewed.after.scores


def test_acts_are_told(reviewed):
    about = json.loads((reviewed.after.folder / "run.json").read_text())["review"]
    assert about == {
        "review_weight": 3,
        "acts": {
            "right": 2,
            "picked": 2,
            "corrected": 1,
            "wrong": 1,
            "tags": 0,
            "photos": 6,
            "acts": 7,
        },
    }
    page = render_report(reviewed.after.folder).read_text()
    assert "6 training photos were looked at; masks: 2 right, 2 picked, 1 corrected, 1 wr" in page
    assert ("drew their photos 3 times" in page) == bool(reviewed.taught)
    titles = [s.stage for s in reviewed.after.scores if s.id == "masks"]
    assert titles
    assert all("5 accepted by a person" in title for title in titles)


@pytest.fixture
def folder(go, tmp_path) -> Path:
    return go("cam_baseline", out=tmp_path / "run").folder


def kept(folder: Path) -> dict[str, str]:
    """The key of each stage, and the hash of each mask and network."""
    keys = {name: record["key"] for name, record in records_of(folder).items()}
    files = contents(folder / "stages")
    return keys | {k: v for k, v in files.items() if k.endswith((".png", ".safetensors"))}


def test_without_a_review_all_is_as_before(folder, go, photos, tmp_path):
    """As after one that was taken back, or says nothing of masks."""
    before, finished = kept(folder), finished_stages(folder)
    classes, names = photos.dataset.classes, photos.train
    go(
        "cam_baseline",
        out=folder,
        review=review_of_masks(tmp_path, classes, {names[0]: mask_of(photos, 0)}),
    )
    assert changed_stages(finished, folder) >= {"segmenter", "masks"}
    go("cam_baseline", out=folder)
    after = kept(folder)
    assert {name: after[name] for name in before} == before
    assert "reviewed-labels" not in {entry.name for entry in Workspace.read(folder).summary()}
    finished = finished_stages(folder)
    cleared = [rejected(names[0]), Cleared(photo=names[0], at=AT)]
    for acts in ([], cleared):
        go("cam_baseline", out=folder, review=write_review(tmp_path / "other", classes, acts))
        assert changed_stages(finished, folder) == set()


def test_changed_tags_rerun_what_depends_on_them(folder, photos, tmp_path):
    """The run is that of a data set with these tags, to the bit; masks alone rerun less."""
    classes, name = photos.dataset.classes, photos.train[3]
    (old,) = (classes[i] for i in np.flatnonzero(photos.dataset.tags[3])[:1])
    new = next(c for i, c in enumerate(classes) if not photos.dataset.tags[3, i])
    review = write_review(tmp_path / "r", classes, [retagged(name, [new], [old])])
    shared: dict[str, Any] = {"val": photos.val, "options": OPTIONS}
    before = finished_stages(folder)
    result = train(
        photos.dataset, "cam_baseline", quick("cam_baseline"), out=folder, review=review, **shared
    )
    assert {"classifier", "location-maps", "seeds", "segmenter"} <= changed_stages(before, folder)
    tags = photos.dataset.tags.copy()
    tags[3, classes.index(new)], tags[3, classes.index(old)] = True, False
    other = train(
        replace(photos.dataset, tags=tags), "cam_baseline", quick("cam_baseline"), **shared
    )
    assert same_weights(weights_of(result), weights_of(other))
    assert contents(result.masks) == contents(other.masks)


def test_tags_of_validation_photos_stay(folder, go, photos, tmp_path):
    review = write_review(tmp_path, photos.dataset.classes, [retagged(photos.val[0], ["unicorn"])])
    before = finished_stages(folder)
    go("cam_baseline", out=folder, review=review)
    assert changed_stages(before, folder) == set()


def test_weight_and_masks_decide_on_the_segmenter(folder, go, photos, tmp_path):
    """Another weight is another training; another way to the same mask is not."""
    names, classes = photos.train, photos.dataset.classes
    one = write_review(tmp_path, classes, [accepted(tmp_path, names[0], mask_of(photos, 0))])
    go("cam_baseline", out=folder, review=one)
    before = finished_stages(folder)
    acts = [rejected(names[0]), accepted(tmp_path, names[0], mask_of(photos, 0), "corrected", 2)]
    go("cam_baseline", out=folder, review=write_review(tmp_path, classes, acts))
    assert changed_stages(before, folder) == set()
    heavier = ReviewSource(one, ReviewSettings(5))
    go("cam_baseline", out=folder, review=heavier)
    assert "segmenter" in changed_stages(before, folder)
    assert "seeds" not in changed_stages(before, folder)


def test_other_order_of_classes(go, photos, tmp_path):
    """Values are told by the names of the review's classes."""
    classes, name = photos.dataset.classes, photos.train[0]
    mask, backward = mask_of(photos, 0), tuple(reversed(classes))
    value = {i + 1: backward.index(c) + 1 for i, c in enumerate(classes)} | {0: 0, IGNORE: IGNORE}
    other = np.vectorize(value.__getitem__, otypes=[np.uint8])(mask)
    assert not np.array_equal(other, mask)
    review = review_of_masks(tmp_path, backward, {name: other})
    result = go("cam_baseline", review=review)
    assert np.array_equal(read_mask(result.masks / f"{name}.png"), mask)


def test_a_photo_whose_mask_was_rejected_is_never_drawn(go, photos, tmp_path, monkeypatch):
    """Nor is what its pixels are: grey in their place, the segmenter is the same to the bit."""
    name = photos.train[WRONG]
    review = write_review(tmp_path, photos.dataset.classes, [rejected(name)])
    drawn: list[int] = []
    real = WorkingPhotos.image

    def image(self: WorkingPhotos, index: int) -> Any:
        drawn.append(index)
        return real(self, index)

    def fit(*args: Any, **named: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(WorkingPhotos, "image", image)
            return real_fit(*args, **named)

    from tagseg.stages import segmenter

    real_fit = segmenter.fit_segmenter
    monkeypatch.setattr(segmenter, "fit_segmenter", fit)
    go("cam_baseline", {"segmenter_iterations": 12}, review=review)
    assert len(drawn) == 12 * 4
    assert set(drawn) == set(range(len(photos.train))) - {WRONG, UNKNOWN}


def test_all_rejected(go, photos, tmp_path):
    review = write_review(tmp_path, photos.dataset.classes, [*map(rejected, photos.train)])
    with pytest.raises(TrainingError, match="the masks of all photos were rejected"):
        go("cam_baseline", review=review)


def test_what_does_not_fit_is_found_before_long_work(go, photos, tmp_path):
    classes, names = photos.dataset.classes, photos.train
    wrong_size = accepted(tmp_path, names[0], np.zeros((3, 3), np.uint8))
    unicorns = accepted(tmp_path, names[1], np.ones((48, 64), np.uint8))
    for acts, of, error, said in (
        ([rejected("nobody")], classes, TagsegError, "line 2: photo 'nobody' is not in the data"),
        ([], ("cat", "griffin"), TagsegError, "class 'griffin' is not one of the data set"),
        ([wrong_size], classes, MaskError, "has 3 x 3 pixels, its photo"),
        ([replace(unicorns, sha256="0" * 64)], classes, MaskError, "not the mask that was accepte"),
    ):
        review = write_review(tmp_path, of, acts)
        out = tmp_path / "run"
        with pytest.raises(error, match=said):
            go("cam_baseline", review=review, out=out)
        assert not out.exists()
