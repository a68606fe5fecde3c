"""Every field of every recipe acts: it changes the keys of the right stages, and of no others.

Runs are planned only: stages have keys and no work (:mod:`tagseg.run.plan`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from guided_runs import write_boxes, write_maps
from small_runs import OPTIONS, Photos
from stages_of_fields import STAGES_OF_FIELDS
from tagseg.data.working import WorkingPhotos
from tagseg.errors import ConfigError
from tagseg.nets.backbone import Backbone
from tagseg.recipes.catalog import RECIPES
from tagseg.run.manifest import Record
from tagseg.run.plan import Plan
from tagseg.run.progress import Progress
from tagseg.session.train import make_config, make_setup
from tagseg.stages.context import Run, Setup
from tagseg.stages.settings import BackboneSettings, TagLossSettings

SIDE = 64
QUICK = {"photo_side": SIDE, "segmenter_width": 8, "classifier_width": 8, "regionnet_width": 8}
LEARNED = {"boxes": "boxes"}
GIVEN = {"saliency_maps": "maps"}

# Configs that together let every field act; each field must act in one of them.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "builtin_priors": [
        {},
        {"segmenter_regions": "crisp"},
        {"candidates": True},
    ],
    "cam_baseline": [{}, {"segmenter_regions": "crisp"}],
    "coarse_to_fine": [{"rounds": 2}, {"rounds": 2, "segmenter_regions": "crisp"}, LEARNED, GIVEN],
    "coarse_to_fine_foreground": [
        {"rounds": 2},
        {"rounds": 2, "network": "deeplab"},
        {"rounds": 2, "segmenter_regions": "crisp"},
        LEARNED,
        GIVEN,
    ],
    "dcsm": [{}, {"segmenter": "trained"}, {"segmenter": "trained", "segmenter_regions": "crisp"}],
    "full_supervision": [{}, {"segmenter_regions": "crisp"}],
    "gradient_baseline": [{}, {"segmenter_regions": "crisp"}],
    "guided": [
        {},
        {"guide": "g1"},
        {"segmenter_regions": "crisp"},
        {"crf_seed": True, "crf_loss": True},
        LEARNED,
        GIVEN,
    ],
    "mcof": [{"rounds": 2}, {"rounds": 2, "segmenter_regions": "crisp"}, LEARNED, GIVEN],
    "sec": [{}, {"segmenter_regions": "crisp"}],
    "union": [
        {},
        {"segmenter": "published"},
        {"segmenter": "published", "segmenter_regions": "crisp"},
        LEARNED,
        GIVEN,
    ],
}


def quick(recipe: str) -> dict[str, Any]:
    """Narrow networks, of what the recipe has."""
    return {name: value for name, value in QUICK.items() if RECIPES[recipe].config.named(name)}


BESIDE_INCOMPLETE: dict[str, dict[str, Any]] = {
    "coarse_to_fine": {"rounds": 2},
    "dcsm": {"segmenter": "trained"},
    "mcof": {"rounds": 2},
}
for recipe_name, variants in VARIANTS.items():
    if RECIPES[recipe_name].config.named("pyramid_zoom") and recipe_name != "union":
        variants.append({"segmenter": "pyramid"})
    if RECIPES[recipe_name].config.named("tags_are"):
        variants.append({"tags_are": "incomplete", **BESIDE_INCOMPLETE.get(recipe_name, {})})
    if RECIPES[recipe_name].config.named("tag_loss"):
        variants += [{"tag_loss": "hill"}, {"tag_loss": "rejection"}]
    variants[:] = [{**quick(recipe_name), **variant} for variant in variants]

# Values that differ in effect from the default, where another value as such does not.
OTHER: dict[str, Any] = {
    "photo_side": 48,
    "output_stride": 16,
    "trained_blocks": 2,
    "schedule": "paper",
    "classifier_epochs": 1000.0,
    "segmenter_epochs": 1000.0,
    "upper_epochs": 1000.0,
    "saliency_epochs": 10_000.0,
    "regionnet_epochs": 1000.0,
    "classifier_size": 32,
    "segmenter_crop": 40,
    "cam_scales": (1.0, 0.5),
    "blocks": (3, 4),
    "regionnet_side": 80,
    "resize": 300,
    "square": 80,
    "background_window": 5,
    "classifier_stride": 16,
    "field_of_view": "small",
    "saliency": "activations",
    "segmenter": "pyramid",
    "pyramid_smoothing": 0.1,
    "pyramid_finest": 2,
    "objects": "none",
    "class_evidence": "cam+dcsm",
    "fusion_edges": "crf+superpixels",
    "classifier_crop": 32,
    "candidate_crfs": (0.5,),
    "tag_loss": "hill",
    "classifier_side": 96,
}
FILES = {
    "boxes",
    "saliency_maps",
    "box_photos",
    "boxes_left_out",
    "saliency_forest",
    "student",
    "saliency_model",
}
NAMES = {"localizer", "saliency_backbone", "saliency_weights", "regionnet_backbone"} | {
    "regionnet_weights"
}
STOPS = {
    "converged",
    "pyramid_cycles",
    "pyramid_gain",
}  # decide how many rounds there are, and on nothing in them
TAGS = {"completed_confidence"}  # decides on the photos' tags, before any stage


def other_value(name: str, value: Any, hint: Any, metadata: Any) -> Any:
    """A value that makes sense and is another."""
    if name in OTHER:
        return OTHER[name]
    if name == "refiner":
        return "none"
    if get_origin(hint) is Literal:
        return next(word for word in get_args(hint) if word not in (value, "auto", "boxes"))
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return tuple(0.9 * part for part in value)
    if value is None:
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return 17 if kinds == [int] else 0.017
    return value + 1 if isinstance(value, int) else 0.9 * value


class Planner:
    """Plans runs on the photos."""

    def __init__(self, photos: Photos, files: dict[str, str]) -> None:
        self.photos, self.files = photos, files
        self.setup = make_setup(OPTIONS)
        self.working = cache(self._working)

    def records(self, recipe: str, config: dict[str, Any]) -> dict[str, Record]:
        """What every stage of a run would be made from."""
        given = {name: self.files.get(str(value), value) for name, value in config.items()}
        settings = make_config(RECIPES[recipe].config, given)
        photos, val = self.working(settings.photo_side)
        plan = Plan()
        run = Run(
            photos=photos,
            photos_key="photos",
            val=val,
            val_key="val",
            setup=self.setup,
            workspace=plan,
            progress=Progress(),
        )
        RECIPES[recipe].outcome(run, settings, self.photos.truth(), "truth")
        return plan.records

    def _working(self, side: int) -> tuple[WorkingPhotos, WorkingPhotos]:
        parts = (
            self.photos.dataset.select(names) for names in (self.photos.train, self.photos.val)
        )
        photos, val = (WorkingPhotos(part, side) for part in parts)
        return photos, val


@pytest.fixture(scope="module", autouse=True)
def backbones_built_once() -> Iterator[None]:
    """A plan asks a backbone for its form alone, and most fields do not touch that."""
    real, built = Setup.build_backbone, dict[Any, Backbone]()

    def once(setup: Setup, settings: BackboneSettings, **geometry: Any) -> Backbone:
        form = (setup.means(), settings.only(BackboneSettings), *sorted(geometry.items()))
        if form not in built:
            built[form] = real(setup, settings, **geometry)
        return built[form]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Setup, "build_backbone", once)
        yield


@pytest.fixture(scope="module")
def planner(photos: Photos, tmp_path_factory: pytest.TempPathFactory) -> Planner:
    folder: Path = tmp_path_factory.mktemp("files")
    boxes = write_boxes(folder / "boxes")
    maps = write_maps(folder / "maps", photos.dataset, photos)
    return Planner(photos, {"boxes": str(boxes), "maps": str(maps)})


def touched(before: dict[str, Record], after: dict[str, Record]) -> set[str]:
    """Stages whose own settings differ, or that only one of the two has."""
    both = before.keys() & after.keys()
    own = {name for name in both if own_record(before[name]) != own_record(after[name])}
    return own | (before.keys() ^ after.keys())


def own_record(record: Record) -> Any:
    """Settings, and what the inputs are called."""
    return record["config"], [label for label, _ in record["inputs"]]


def changed(before: dict[str, Record], after: dict[str, Record]) -> set[str]:
    return {n for n in before.keys() | after.keys() if key(before, n) != key(after, n)}


def key(records: dict[str, Record], name: str) -> str | None:
    return records[name]["key"] if name in records else None


def behind(records: dict[str, Record], first: set[str]) -> set[str]:
    """The stages ``first`` and all that are made from them."""
    found = set(first)
    for name, record in records.items():  # in the order of the run
        if any(label in found for label, _ in record["inputs"]):
            found.add(name)
    return found


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_field_acts_on_the_right_keys(planner: Planner, recipe: str) -> None:
    kind = RECIPES[recipe].config
    hints, acts = get_type_hints(kind), {}
    bases = [(variant, planner.records(recipe, variant)) for variant in VARIANTS[recipe]]
    for item in fields(kind):
        if item.name in FILES | NAMES | STOPS | TAGS:
            continue
        acts[item.name] = set()
        for variant, before in bases:
            if item.name == "saliency" and variant.keys() & FILES:
                continue  # files of another source would be given in vain
            value = variant.get(item.name, item.default)
            other = other_value(item.name, value, hints[item.name], item.metadata)
            try:
                after = planner.records(recipe, {**variant, item.name: other})
            except ConfigError:  # asks for another variant
                continue
            acts[item.name] = touched(before, after)
            assert changed(before, after) <= behind({**before, **after}, acts[item.name]), item.name
            if acts[item.name]:
                break
    expected = {
        name: set(stages.split())
        for names, stages in STAGES_OF_FIELDS[recipe].items()
        for name in names.split()
    }
    assert acts == expected
    assert all(expected.values()), "a field that cannot act should not exist"


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    ("off", "sign"),
    [({"refiner": "none"}, "segmenter_unary"), ({"trained_blocks": 0}, "layer_decay")],
)
def test_idle_fields_decide_on_nothing(
    planner: Planner, recipe: str, off: dict[str, Any], sign: str
) -> None:
    kind, base = RECIPES[recipe].config, {**quick(recipe), **off}
    hints, before = get_type_hints(kind), planner.records(recipe, base)
    idle = make_config(kind, base).idle().keys() - {"segmenter_regions"}  # some refuse it
    for item in fields(kind):
        if item.name in idle:
            value = base.get(item.name, item.default)
            other = other_value(item.name, value, hints[item.name], item.metadata)
            after = planner.records(recipe, {**base, item.name: other})
            assert not changed(before, after), item.name
    assert sign in idle


OF_TAGS = {"tag-features", "tag-doubts", "likely-missing"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_complete_tags_leave_no_trace_in_keys(planner: Planner, recipe: str) -> None:
    """Runs of before there was anything to say about tags are finished still."""
    named = {item.name for item in fields(TagLossSettings)} | {"absent", "doubts"}
    for name, record in planner.records(recipe, quick(recipe)).items():
        assert not named & record["config"].keys(), name
        assert name not in OF_TAGS
        assert not name.startswith("sure-")
