"""Photos to train on, and a function that trains on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from small_runs import OPTIONS, QUICK, QUICK_CRISP, Photos, make_photos
from tagseg.recipes.session import Result, train


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    return make_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session", autouse=True)
def quick_crisp() -> Iterator[None]:
    """Crisp regions with few samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tagseg.recipes.smoothing.CRISP", QUICK_CRISP)
        yield


Go = Callable[..., Result]


@pytest.fixture(scope="session")
def go(photos: Photos) -> Go:
    """Train on the photos with few steps; keyword arguments over the usual ones."""

    def run(recipe: str, config: Mapping[str, Any] | None = None, **changed: Any) -> Result:
        settings = {**QUICK, **(config or {})}
        usual: dict[str, Any] = {
            "val": photos.val,
            "ground_truth": photos.truth(),
            "options": OPTIONS,
        }
        return train(photos.dataset, recipe, settings, **{**usual, **changed})

    return run
