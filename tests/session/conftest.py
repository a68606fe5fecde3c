"""Runs on small photos."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from small_runs import Photos, trainer
from tagseg.session.train import Result


@pytest.fixture(scope="session")
def go(photos: Photos) -> Callable[..., Result]:
    """Trains on the photos in this process: stages are not what is tested here."""
    return trainer(photos)
