"""A finished run, the same with all its tables, and what work that took."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from small_runs import Photos, trainer
from tagseg.session import train as session
from tagseg.session.train import Result
from tagseg.stages import classifier, priors, segmenter
from tagseg.tables.making import Tables, make_tables

WORK = {
    "classifier": (classifier, "train_tag_classifier"),
    "location maps": (classifier, "class_activation_maps"),
    "activation prior": (priors, "channel_means"),
    "segmenter": (segmenter, "fit_segmenter"),
}


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """How often each piece of work is begun."""
    count: Counter[str] = Counter()

    def counted(title: str, function: Any) -> Any:
        def work(*args: Any, **named: Any) -> Any:
            count[title] += 1
            return function(*args, **named)

        return work

    with pytest.MonkeyPatch.context() as patch:
        for title, (module, name) in WORK.items():
            patch.setattr(module, name, counted(title, getattr(module, name)))
        patch.setattr(session, "audit", counted("audit", session.audit))
        yield count


@pytest.fixture
def worked() -> Iterator[Counter[str]]:
    with counting() as count:
        yield count


@pytest.fixture(scope="session")
def go(photos: Photos) -> Callable[..., Result]:
    """Trains on the photos in this process: what is tested here is not how runs are made."""
    return trainer(photos)


@pytest.fixture(scope="session")
def result(go: Any, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return go("builtin_priors", out=tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def run(result: Result, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(result.folder, tmp_path / "run"))


class Tabulated(NamedTuple):
    run: Path
    made: Tables
    worked: Counter[str]


@pytest.fixture(scope="session")
def tabulated(
    result: Result, photos: Photos, tmp_path_factory: pytest.TempPathFactory
) -> Tabulated:
    """A run with all its tables."""
    run = Path(shutil.copytree(result.folder, tmp_path_factory.mktemp("tabulated") / "run"))
    with counting() as count:
        made = make_tables(
            "builtin_priors",
            photos.dataset,
            run,
            val=photos.val,
            ground_truth=photos.truth(),
            threads=1,
        )
    return Tabulated(run, made, count)
