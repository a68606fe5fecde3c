"""The masks of ``builtin_priors``: each step of Tables 4 to 6, and the regions behind them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from small_runs import OPTIONS, QUICK, contents
from tagseg.data.scenes import SCENES, scene_dataset
from tagseg.formats.masks.ground_truth import GroundTruth
from tagseg.priors import crisp
from tagseg.recipes.builtin_priors import masks as builtin_masks
from tagseg.run.workspace import Workspace
from tagseg.session.export import load_segmenter
from tagseg.session.train import train
from tagseg.stages import crf as smoothing

STEPS = ["CAM seeds", "masks before CRF", "masks after pairwise CRF", "training masks"]


def steps_of(result: Any) -> list[str]:
    return [s.stage for s in result.scores if s.split == "train"][:-1]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, STEPS),
        ({"masks": "localization"}, STEPS),
        ({"masks": "foreground"}, STEPS[1:]),
        ({"mask_regions": "none"}, [STEPS[0], STEPS[1], STEPS[3]]),
        ({"mask_crf": False}, [STEPS[0], STEPS[1], STEPS[3]]),
        ({"masks": "none"}, []),
    ],
)
def test_the_report_has_each_step(go, config, expected):
    assert steps_of(go("builtin_priors", config)) == expected


def test_strengths_of_0_are_the_pairwise_crf(go):
    """So the step before differs from the last one by the higher-order terms and nothing else."""
    none = {"crisp_weight": 0.0, "crisp_area_weight": 0.0}
    scores = {s.stage: s for s in go("builtin_priors", none).scores}
    assert scores["training masks"].iou == scores["masks after pairwise CRF"].iou
    assert scores["masks before CRF"].iou != scores["masks after pairwise CRF"].iou


def test_the_whole_recipe_over_regions_of_the_papers_preset(tmp_path, monkeypatch):
    """No stand-in and no quick numbers: the crisp regions that users get, from photo to predict."""
    monkeypatch.setattr(smoothing, "CRISP", crisp.CrispSettings())
    dataset, labels = scene_dataset(SCENES, 8, height=48, width=64)
    given: list[tuple[Any, ...]] = []
    real = smoothing.Smoothing.__call__

    def seen(self, image, costs, maps, regions):
        probs = real(self, image, costs, maps, regions)
        given.append((image, maps, regions, probs))
        return probs

    monkeypatch.setattr(smoothing.Smoothing, "__call__", seen)
    config = {**QUICK, "segmenter_regions": "crisp", "crf_iterations": 5}
    truth = GroundTruth(labels, dataset.classes)
    result = train(
        dataset, "builtin_priors", config, ground_truth=truth, out=tmp_path / "run", options=OPTIONS
    )
    assert steps_of(result) == STEPS
    store = Workspace.read(result.folder).finished("regions").maps("regions")
    moved = 0
    for index, name in enumerate(dataset.names):
        found = store.get(name)["regions"]
        assert np.array_equal(found, crisp.regions(dataset.image(index), 0.1))
        assert 1 < found.max() < 500
        uses = [g for g in given if g[2] is not None and np.array_equal(g[2], found)]
        labels_used = [len(g[1]) for g in uses]
        assert labels_used[:1] == [1 + dataset.tags[index].sum()]  # the photo's own labels alone
        moved += sum((g[3].argmax(0) != g[1].argmax(0)).sum() for g in uses)
    assert moved > 0
    image = dataset.image(0)
    loaded = load_segmenter(result.folder, device="cpu", precision="fp32")
    del given[:]
    assert np.array_equal(loaded.predict(image), result.segmenter.predict(image))
    assert [g[2] is not None for g in given] == [True, True]


def test_threads_change_no_region_and_no_mask(go, tmp_path):
    one, two = (
        go("builtin_priors", options=replace(OPTIONS, threads=n), out=tmp_path / str(n))
        for n in (1, 2)
    )
    assert contents(one.masks) == contents(two.masks)
    stores = [Workspace.read(r.folder).finished("regions").maps("regions") for r in (one, two)]
    assert stores[0].digest() == stores[1].digest()


def test_photos_of_background_alone_need_no_crf(photos, go, monkeypatch):
    calls: list[int] = []
    real = builtin_masks.Smoothing.__call__

    def count(self, image, costs, maps, regions):
        calls.append(len(maps))
        return real(self, image, costs, maps, regions)

    monkeypatch.setattr(builtin_masks.Smoothing, "__call__", count)
    go("builtin_priors", {"refiner": "none"}, ground_truth=None)
    assert min(calls) > 1
