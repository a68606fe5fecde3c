"""The index of a run's photos, ``index.arrow``, which the next look at them begins with."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from tagseg.data.audit import Audit
from tagseg.data.digests import state_of
from tagseg.data.paths import Paths
from tagseg.data.photo_index import INDEX, PhotoIndex, write_index
from tagseg.run.files import atomic_write

__all__ = ["keep_index"]


def keep_index(folder: Path, audit: Audit, before: PhotoIndex | None) -> None:
    """Write what was found of the photos, unless the index ``before`` says it; needs pyarrow."""
    dataset, index, path = audit.dataset, audit.index, folder / INDEX
    if find_spec("pyarrow") is None or not isinstance(dataset.sources, Paths):
        return
    if before is not None and before.check() == index.check():
        return
    states = np.fromiter(map(state_of, dataset.sources), np.uint64, len(dataset))
    order = np.full(len(dataset), -1, np.intp)
    known, rows = index.places(states)
    order[known] = rows
    with atomic_write(path) as file:
        write_index(file, index, order, dataset.names, dataset.tags, dataset.classes)
