"""A training as a stage of a run: done once, resumed where it stopped, loaded ever after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from torch import nn

from tagseg.run.workspace import Stage
from tagseg.stages.context import Run
from tagseg.training import Schedule

__all__ = ["Fit", "trained"]


class Fit(Protocol):
    """Trains a network in place, with the hooks of :func:`tagseg.training.train`."""

    def __call__(self, *, execution: Any, frozen_batch_norm: bool, **hooks: Any) -> object:
        """``hooks`` are checkpoint, log and ticks."""


def trained(
    run: Run,
    name: str,
    title: str,
    net: nn.Module,
    fit: Fit,
    schedule: Schedule,
    made_from: Mapping[str, Any],
    inputs: Sequence[Stage | str],
    *,
    tensors: str,
) -> Stage:
    """Let ``fit`` train ``net`` in stage ``name``, or load what was trained before.

    Args:
        title: of the progress bar, after "training".
        fit: trains ``net`` as ``schedule`` says.
        made_from: what decides on the result, beside the schedule and ``inputs``.
        tensors: name of the file that keeps the weights.
    """
    setup = run.setup
    with run.stage(name, {**made_from, "schedule": asdict(schedule)}, list(inputs)) as stage:
        if stage.pending:
            with run.task(f"training {title}", schedule.iterations) as ticks:
                fit(
                    execution=setup.execution,
                    frozen_batch_norm=setup.weights is not None,
                    checkpoint=stage.checkpoint,
                    log=stage.log,
                    ticks=ticks,
                )
            stage.save_tensors(tensors, net.state_dict())
    net.load_state_dict(stage.load_tensors(tensors)[0])
    return stage
