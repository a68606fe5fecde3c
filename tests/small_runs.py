"""What tests of whole runs share: difficult photos, tiny networks, few steps."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from tagseg import cli
from tagseg.data.dataset import Dataset
from tagseg.data.scenes import SCENES, draw_scene
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.maps import IGNORE, Labels
from tagseg.priors.crisp import CrispSettings
from tagseg.recipes.catalog import find_recipe
from tagseg.session.train import Options, Result, train

QUICK: dict[str, Any] = {
    "photo_side": 64,
    "classifier_width": 16,
    "classifier_iterations": 3,
    "classifier_batch_size": 4,
    "segmenter_width": 16,
    "segmenter_iterations": 3,
    "segmenter_batch_size": 4,
    "crf_iterations": 2,
}


def quick(recipe: str) -> dict[str, Any]:
    """Few steps, of what the recipe has."""
    return {k: v for k, v in QUICK.items() if find_recipe(recipe).config.named(k)}


DISTINCT: dict[str, Any] = {
    "upper_iterations": 10,
    "classifier_iterations": 30,
    "classifier_learning_rate": 0.003,
    "candidate_threshold": 0.16,
    "scales": (0.8, 1.2),
}  # for recipe dcsm: several classes are found in most photos, and none in the flat ones
WEIGHED: dict[str, Any] = {
    "classifier_side": 64,
    "classifier_crop": 48,
    "fusion_thresholds": (0.3, 0.5),
    "judged_photos": 6,
    "judge_side": 48,
    "pyramid_iterations": 3,
    "pyramid_batch_size": 2,
    "pyramid_crop": 48,
    "pyramid_zoom": 1.0,
    "pyramid_turns": "none",
    "objects": "barrier",
}  # for recipe union
QUICK_CRISP = CrispSettings(
    n_kernels=200, n_forest_pairs=300, n_trees=1, n_vectors=8, radius=3, n_orientations=4
)  # 5 ms for a photo of 48 x 64 instead of 75
OPTIONS = Options(backbone="tiny", device="cpu", precision="fp32", threads=1)
CLASSES = (*SCENES.classes, "unicorn")  # of which there is no photo
N_TRAIN, N_VAL = 16, 8
_TRAIN, _VAL = range(N_TRAIN), range(24, 24 + N_VAL)  # of the scenes that are drawn

SIZES = {0: (96, 128), 1: (48, 64), 2: (128, 96), 5: (7, 30), 6: (210, 280)}
GREY, NEGATIVE, UNKNOWN = 4, 7, 9


@dataclass(frozen=True)
class Photos:
    """A folder of photos as people have them, with exact labels by name.

    Of several sizes, one grey, one smaller than the network's stride allows, one big; names with
    folders; one photo without tags that is known to hold nothing, one of which nothing is known.
    """

    dataset: Dataset
    labels: dict[str, Labels]
    val: tuple[str, ...]

    @property
    def train(self) -> tuple[str, ...]:
        return tuple(name for name in self.dataset.names if name not in self.val)

    def truth(self, kind: type[GroundTruth] = GroundTruth, *args: Any) -> GroundTruth:
        return kind(self.labels, self.dataset.classes, *args)


def make_photos(folder: Path) -> Photos:
    """Write the photos into ``folder``."""
    sources, labels, tags = {}, {}, []
    for i in (*_TRAIN, *_VAL):
        scene = draw_scene(SCENES, 3, i)
        picture, mask = resized(scene.image, scene.labels, SIZES.get(i, SIZES[i % 3]))
        split = "train" if i in _TRAIN else "val"
        name = f"{split}/a.b/photo {i}" if i % 4 == 0 else f"{split}_{i}"
        tags.append(np.append(scene.tags, False))
        if i == GREY:
            picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        if i in (NEGATIVE, UNKNOWN, _VAL[1]):
            picture = np.full_like(picture, 90 + i)
            mask, tags[-1] = np.zeros_like(mask), np.zeros(len(CLASSES), bool)
        sources[name] = folder / f"{name}.png"
        sources[name].parent.mkdir(parents=True, exist_ok=True)
        PilImage.fromarray(picture).save(sources[name])
        labels[name] = mask
    known = np.ones(len(sources), bool)
    known[UNKNOWN] = False
    dataset = Dataset(CLASSES, tuple(sources), np.array(tags), known, tuple(sources.values()))
    return Photos(dataset, labels, dataset.names[N_TRAIN:])


def trainer(photos: Photos) -> Callable[..., Result]:
    """Trains on the photos with few steps; keyword arguments over the usual ones."""

    def run(recipe: str, config: Mapping[str, Any] | None = None, **changed: Any) -> Result:
        settings = {**quick(recipe), **(config or {})}
        usual = {"val": photos.val, "ground_truth": photos.truth(), "options": OPTIONS}
        return train(photos.dataset, recipe, settings, **{**usual, **changed})

    return run


def resized(picture: Any, mask: Labels, size: tuple[int, int]) -> tuple[Any, Labels]:
    picture = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)
    mask = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)
    mask[:1] = IGNORE
    return picture, mask


def fields_of(recipe: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values for which the recipe has a field."""
    config = find_recipe(recipe).config
    return {name: value for name, value in values.items() if config.named(name)}


class Refines:
    """A refiner from a function of photo and probabilities."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.function = function

    def refine(self, image: Any, probs: Any, known: Any = None) -> Any:
        return self.function(image, probs)


def weights_of(result: Result) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in result.segmenter.net.state_dict().items()}


def same_weights(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def times(folder: Path) -> dict[str, int]:
    """Time of change of every file."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def finished_stages(folder: Path) -> dict[str, int]:
    """When each stage was finished last."""
    return {
        path.parent.name[3:]: path.stat().st_mtime_ns
        for path in folder.glob("stages/*/manifest.json")
    }


def changed_stages(before: Mapping[str, int], folder: Path) -> set[str]:
    """The stages that were finished since :func:`finished_stages` gave ``before``."""
    after = finished_stages(folder)
    return {name for name in after if after[name] != before.get(name)}


def cut_short(go: Callable[[], Any], folder: Path, stage: str, function: str) -> None:
    """Start the run, and end it in the second call of ``function`` in ``stage``."""
    module, _, name = function.rpartition(".")
    real, calls = getattr(importlib.import_module(module), name), iter(range(1, 1000))

    def cut(*args: Any, **kwargs: Any) -> Any:
        if list(folder.glob(f"stages/??-{stage}/started.json")) and next(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(function, cut)
        with pytest.raises(KeyboardInterrupt):
            go()


def options(**changed: Any) -> Options:
    return replace(OPTIONS, **changed)


@dataclass(frozen=True)
class Said:
    """What a command ended with and printed."""

    status: int
    out: str
    err: str


OPTION_FLAGS = ("--backbone", "tiny", "--device", "cpu", "--precision", "fp32", "--threads", "1")


def quick_flags(recipe: str) -> tuple[str, ...]:
    """Options and QUICK fields of a recipe, for the command line."""
    values = fields_of(recipe, QUICK)
    return (
        *OPTION_FLAGS,
        *(part for name, value in values.items() for part in ("--set", f"{name}={value}")),
    )


QUICK_FLAGS = quick_flags("builtin_priors")  # and of every other recipe with a classifier


def tagseg(*words: object) -> Said:
    """Run a command line in this process, as the installed script does."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["tagseg", *map(str, words)])
        patch.setattr("tagseg.session.train.usable_cores", lambda: 1)
        patch.setattr("tagseg.stages.crf.CRISP", QUICK_CRISP)
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
    return Said(status, out.getvalue(), err.getvalue())
