"""An engine that works as another process would: with a copy of the work, by pickling."""

from __future__ import annotations

from collections.abc import Sequence

import cloudpickle

from tagseg.run.progress import Task
from tagseg.run.stage import Stage
from tagseg.run.work import Local, PhotoWork


class Pickled(Local):
    """This process, which does not share memory with whoever gives the work."""

    def fill(self, stage: Stage, stores: Sequence[str], work: PhotoWork, progress: Task) -> None:
        super().fill(stage, stores, cloudpickle.loads(cloudpickle.dumps(work)), progress)
