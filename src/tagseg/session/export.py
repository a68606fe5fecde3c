"""The trained segmenter of a run as one file, and back."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError

from tagseg.data.depth import WHITE
from tagseg.errors import ConfigError, WeightsError, WorkspaceError
from tagseg.run.engine import choose_device, choose_precision
from tagseg.segment.model_file import damage_in_one_line, positive, unpack_segmenter
from tagseg.segment.onnx_segmenter import open_onnx
from tagseg.segment.predict import Segmenter
from tagseg.stages.context import Run
from tagseg.stages.distinct_segmenter import DISTINCT_FORMAT, unpack_distinct
from tagseg.stages.outcome import Outcome
from tagseg.stages.refiners import refiner_from
from tagseg.tensor_files import RottenError, read_tensors
from tagseg.training import Execution

__all__ = ["export", "load_segmenter"]

_MODEL = "segmenter"
_WHITE = "white_of_16_bits"


def export(run: Run, outcome: Outcome) -> Path:
    """Write the segmenter with its refinement as one file, and return its path."""
    outcome.segmenter.white = run.photos.dataset.white
    tensors, metadata = outcome.pack(outcome.segmenter)
    if outcome.segmenter.white != WHITE:
        metadata[_WHITE] = str(outcome.segmenter.white)
    # The metadata hold all that no training depends on.
    with run.stage("export", metadata, [outcome.curves[-1]]) as stage:
        if stage.pending:
            stage.save_tensors(_MODEL, tensors, metadata)
    return stage.read_path(f"{_MODEL}.safetensors")


def load_segmenter(
    source: Path | str, *, device: str = "auto", precision: str = "auto"
) -> Segmenter:
    """The segmenter of a run folder, of its ``segmenter.safetensors``, or of an .onnx file.

    The latter is one that ``tagseg export`` wrote.

    Raises:
        WorkspaceError: the folder holds no finished run.
        WeightsError: the file holds no segmenter.
        ConfigError: the device or precision is none that it can be run with.
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
    if path.suffix.lower() == ".onnx":
        return _exported(path, device, precision)
    try:
        tensors, metadata = read_tensors(path)
    except RottenError as error:
        do = "run the training command again, which mends it, or copy the file again"
        raise WeightsError(f"is damaged: {error}", where=path, do=do) from error
    except (SafetensorError, OSError) as error:
        raise WeightsError("is no safetensors file", where=path, do="give a run folder") from error
    chosen = choose_device(device)
    execution = Execution(chosen, choose_precision(precision, chosen))
    if metadata.get("format") == DISTINCT_FORMAT:
        segmenter: Segmenter = unpack_distinct(tensors, metadata, execution=execution, where=path)
    else:
        segmenter = unpack_segmenter(
            tensors, metadata, execution=execution, refinement=refiner_from, where=path
        )
    with damage_in_one_line(path):
        segmenter.white = positive(metadata.get(_WHITE, str(WHITE)))
    return segmenter


def _exported(path: Path, device: str, precision: str) -> Segmenter:
    for flag, given, can in (("device", device, "cpu"), ("precision", precision, "fp32")):
        if given not in ("auto", can):
            raise ConfigError(
                f"an .onnx file has no {flag} {given}", where=path, do=f"use {can}, or the run"
            )
    return open_onnx(path, refinement=refiner_from)
