"""The trained segmenter of a run as one file, and back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tagseg.errors import WeightsError, WorkspaceError
from tagseg.run.engine import choose_device, choose_precision
from tagseg.segment.model_file import pack_segmenter, unpack_segmenter
from tagseg.segment.predict import Segmenter
from tagseg.stages.context import Run
from tagseg.stages.crf import crf_refinement
from tagseg.stages.distinct_segmenter import (
    DISTINCT_FORMAT,
    DistinctSegmenter,
    pack_distinct,
    unpack_distinct,
)
from tagseg.stages.outcome import Outcome
from tagseg.training import Execution

__all__ = ["export", "load_segmenter"]

_MODEL = "segmenter"


def export(run: Run, outcome: Outcome) -> None:
    """The segmenter with its refinement as one file."""
    segmenter = outcome.segmenter
    made_from: dict[str, Any] = {"crf": segmenter.refinement}
    if isinstance(segmenter, DistinctSegmenter):  # no training depends on these
        made_from["seeder"] = asdict(segmenter.settings)
    with run.stage("export", made_from, [outcome.curves[-1]]) as stage:
        if stage.pending:
            stage.save_tensors(_MODEL, *_pack(segmenter))


def _pack(segmenter: Segmenter) -> tuple[dict[str, Tensor], dict[str, str]]:
    if isinstance(segmenter, DistinctSegmenter):
        return pack_distinct(segmenter)
    return pack_segmenter(segmenter, segmenter.refinement)


def load_segmenter(
    source: Path | str, *, device: str = "auto", precision: str = "auto"
) -> Segmenter:
    """The segmenter of a run folder, or of a ``segmenter.safetensors`` file.

    Raises:
        WorkspaceError: the folder holds no finished run.
        WeightsError: the file holds no segmenter.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(path.glob(f"stages/*-export/{_MODEL}.safetensors"))
        if not found:
            raise WorkspaceError(
                "holds no trained segmenter", where=path, do="finish the run with tagseg train"
            )
        path = found[0]
    if not path.is_file():
        raise WeightsError("no such file or run folder", where=path, do="check the path")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError("is no safetensors file", where=path, do="give a run folder") from error
    chosen = choose_device(device)
    execution = Execution(chosen, choose_precision(precision, chosen))
    if metadata.get("format") == DISTINCT_FORMAT:
        return unpack_distinct(tensors, metadata, execution=execution, where=path)
    return unpack_segmenter(
        tensors, metadata, execution=execution, refinement=crf_refinement, where=path
    )
