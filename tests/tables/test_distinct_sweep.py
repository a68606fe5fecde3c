"""What the sweep shares between settings, and how it adds photos up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tagseg.localize.dcsm import CandidateClasses
from tagseg.recipes.dcsm.config import Config
from tagseg.run.workspace import Workspace
from tagseg.tables.distinct_sweep import PLAIN, SMOOTH, TAGGED, _total, _view, _Views


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ((3, 4, 5), (1, 2, 3, 4, 5)),
        ((1,), (1, 2, 3, 4, 5)),
        ((0,), (0,)),
        ((5, 0), (0, 1, 2, 3, 4, 5)),
    ],
)
def test_feature_maps_are_looked_at_together_and_the_photo_if_asked(blocks, expected):
    assert _view(Config(blocks=blocks, method="plain"), 0.8) == ("plain", expected, 0.8)


def candidates(*classes: int) -> CandidateClasses:
    targets = np.isin(np.arange(5), classes)
    return CandidateClasses(targets, np.array(classes, np.intp), targets[None])


def test_each_class_goes_back_once():
    """In whatever company it is asked for, a class has its own maps."""
    asked: list[list[int]] = []

    def saliency(classes: list[int]) -> dict[str, torch.Tensor]:
        asked.append(classes)
        maps = torch.tensor(classes, dtype=torch.float32).view(1, -1, 1, 1).expand(-1, -1, 2, 3)
        return {"a": maps, "b": maps + 10}

    view = ("guided", (1,), 1.0)
    views = object.__new__(_Views)
    views._records, views._kept = {view: SimpleNamespace(saliency=saliency)}, {}  # type: ignore
    both: Any = SimpleNamespace(names=("a", "b"))
    one: Any = SimpleNamespace(names=("b",))
    for layers, classes in ((both, (1, 3)), (one, (0, 1, 3)), (both, (0,)), (both, (3, 4))):
        found = views._saliency_of(view, layers, candidates(*classes))
        assert tuple(found) == layers.names
        for name, maps in found.items():
            expected = [c + 10 * (name == "b") for c in classes]
            assert maps[:, 0, 0].tolist() == expected
            assert maps.shape == (len(classes), 2, 3)
    assert asked == [[1, 3], [0], [4]]


def test_photos_add_up_and_tags_count_only_if_all_are_known(tmp_path):
    with Workspace.open(tmp_path / "run", recipe="toy", settings={}) as work:
        with work.stage("row", config={}, inputs=[]) as stage:
            store = stage.maps("counts")
            one = np.arange(6, dtype=np.int64).reshape(2, 3)
            store.put("x", **{PLAIN: one, SMOOTH: one + 1, TAGGED: one + 2})
            store.put("y", **{PLAIN: 10 * one, SMOOTH: one})
        whole = _total(stage, ["x", "y"])
        assert whole.photos == 2
        np.testing.assert_array_equal(whole.get(PLAIN).counts, 11 * one)
        np.testing.assert_array_equal(whole.get(SMOOTH).counts, 2 * one + 1)
        assert whole.get(TAGGED) is None
        alone = _total(stage, ["x"])
        np.testing.assert_array_equal(alone.get(TAGGED).counts, one + 2)
