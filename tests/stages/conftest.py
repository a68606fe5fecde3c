"""A run on few odd photos, few photos, and boxes of others, for tests of stages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from guided_runs import few_photos, write_boxes
from small_runs import OPTIONS, UNKNOWN, Photos
from tagseg.data.dataset import Dataset
from tagseg.data.working import WorkingPhotos
from tagseg.run.progress import Progress
from tagseg.run.workspace import Workspace
from tagseg.session.train import make_setup
from tagseg.stages.context import Run


@pytest.fixture
def odd_run(photos: Photos, tmp_path: Path) -> Iterator[Run]:
    """The first photos, up to the one of which nothing is known, to train on and to validate."""
    few = WorkingPhotos(photos.dataset.subset(range(UNKNOWN + 1)), 64)
    with Workspace.open(tmp_path / "run", recipe="toy", settings={}) as work:
        yield Run(few, "photos", few, "val", make_setup(OPTIONS), work, Progress())


@pytest.fixture(scope="module")
def few(photos: Photos) -> Dataset:
    return few_photos(photos)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_boxes(tmp_path_factory.mktemp("boxes") / "set")
