"""Photos to train on and a function that trains on them; all tests compute on one thread.

So results do not depend on the machine, nor timings on company.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from pickled import Pickled
from small_runs import QUICK_CRISP, Photos, make_photos, trainer
from tagseg.data.scenes import write_scenes
from tagseg.session.train import Result

os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start
torch.set_num_threads(1)
cv2.setNumThreads(1)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """24 generated scenes to train on and 8 to validate with, in VOC's layout."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(folder, train=24, val=8)
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    return make_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session", autouse=True)
def quick_crisp() -> Iterator[None]:
    """Crisp regions with few samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tagseg.stages.crf.CRISP", QUICK_CRISP)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_power_cut() -> Iterator[None]:
    """Nothing waits for the disk: a killed process loses nothing by that, nor does any test."""
    connect = sqlite3.connect

    def connected(*args: Any, **named: Any) -> sqlite3.Connection:
        connection = connect(*args, **named)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        patch.setattr("sqlite3.connect", connected)
        yield


@pytest.fixture(scope="session")
def go(photos: Photos) -> Callable[..., Result]:
    """Trains on the photos (:func:`trainer`).

    Whatever stages make of photos is made by a copy of their work, as other processes get it.
    """
    run = trainer(photos)

    def apart(*args: Any, **named: Any) -> Result:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tagseg.session.train.Local", Pickled)
            return run(*args, **named)

    return apart
