"""A run's segmenter as a file for other programs: ONNX, or a program of ``torch.export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import tagseg
from tagseg.data.masks import read_mask
from tagseg.data.working import resized
from tagseg.errors import ConfigError, WorkspaceError
from tagseg.maps import Image
from tagseg.nets.onnx_files import onnx_session
from tagseg.report.page import GalleryItem
from tagseg.run.files import atomic_write, check_file
from tagseg.run.mask_files import MaskFiles
from tagseg.run.workspace import Workspace
from tagseg.segment.exported import (
    check_extra,
    exported_program,
    least_side,
    onnx_network,
    program_file,
    quantised,
)
from tagseg.segment.onnx_graph import IMAGE, LABELS, PROBABILITIES, Frame, assemble
from tagseg.segment.onnx_segmenter import OnnxSegmenter, pack_onnx
from tagseg.segment.predict import Segmenter
from tagseg.segment.windowed import WindowedSegmenter
from tagseg.session.export import load_segmenter
from tagseg.session.scoring import Findings
from tagseg.stages.distinct_segmenter import DistinctSegmenter

__all__ = ["export_onnx", "export_torch"]

_CLOSE = 1e-4  # of probabilities, between onnxruntime and PyTorch
_SHAPES = ((37, 50), (64, 32), (81, 120))  # of the photos that are compared
_LONGEST = 512  # pixels of a photo that ranges for 8 bits are taken from


def export_onnx(run: Path, out: Path, *, int8: bool = False) -> str:
    """Write the segmenter of a run as one ONNX file, and return what to say of it.

    Resizing, windows, scales, normalisation and the way back to the photo's size are in the graph;
    the refinement by a CRF is not. Before the file is written, its probabilities are compared with
    PyTorch's on pictures of several sizes.

    Args:
        run: a run folder, or its segmenter.safetensors.
        int8: quantise the network by the photos that the run's report shows.

    Raises:
        ConfigError: a package is missing, or the segmenter is none that ONNX can hold.
        WeightsError, WorkspaceError: the run has no segmenter, or ``out`` cannot be written.
    """
    check_extra()
    import onnx

    segmenter = _segmenter_of(run, out, ".onnx")
    sight = segmenter.sight if isinstance(segmenter, WindowedSegmenter) else None
    photos = _calibration(run, segmenter) if int8 else []
    network = onnx_network(segmenter.net)
    if int8:
        network = quantised(network, photos)
    frame = Frame(segmenter.side, len(segmenter.classes) + 1, sight)
    model = assemble(network, frame, pack_onnx(segmenter, tagseg.__version__, int8=int8))
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    _check_answers(content, segmenter, out, _CLOSE if not int8 else 1.0)
    with atomic_write(out) as file:
        file.write(content)
    left_out = "; without its CRF, which tagseg predict adds" if segmenter.refiner else ""
    of = f"{len(segmenter.classes)} classes and background"
    return f"{out}: {len(content) / 1e6:.1f} MB, photos of any size to labels of {of}{left_out}"


def export_torch(run: Path, out: Path) -> str:
    """Write the network of a run as a file of ``torch.export``, and return what to say of it.

    Its program takes a photo uint8 (1, h, w, 3) at the size that the network sees, and gives
    probabilities (1, C + 1, h, w); what is around it is not in the file. Class names and sizes are
    in its extra file ``tagseg.json``.

    Raises:
        ConfigError, WeightsError, WorkspaceError: as of :func:`export_onnx`.
    """
    segmenter = _segmenter_of(run, out, ".pt2")
    program = exported_program(segmenter.net)
    about: dict[str, Any] = {
        "tagseg": tagseg.__version__,
        "classes": list(segmenter.classes),
        "photo_side": segmenter.side,
        "least_side": least_side(program),
    }
    if isinstance(segmenter, WindowedSegmenter):
        about["sight"] = vars(segmenter.sight)
    _check_program(program, segmenter, about["least_side"])
    content = program_file(program, about)
    with atomic_write(out) as file:
        file.write(content)
    return (
        f"{out}: {len(content) / 1e6:.1f} MB, the network alone, for photos as it sees them, at "
        f"least {about['least_side']} pixels a side; resizing, windows and CRF are left out"
    )


def _segmenter_of(run: Path, out: Path, suffix: str) -> Segmenter:
    """The segmenter to be written to ``out``; what makes that impossible is said first."""
    if out.suffix.lower() != suffix:
        raise ConfigError(
            f"is no name for such a file, which ends in {suffix}",
            where=out,
            do=f"use {out.with_suffix(suffix).name}",
        )
    check_file(out)
    segmenter = load_segmenter(run, device="cpu", precision="fp32")
    if isinstance(segmenter, OnnxSegmenter):
        raise ConfigError("is an exported file itself", where=run, do="give a run folder")
    if isinstance(segmenter, DistinctSegmenter):
        raise ConfigError(
            "finds classes by back-propagation, which no exported file can hold",
            where=run,
            do="train with --set segmenter=trained",
        )
    return segmenter


def _calibration(run: Path, segmenter: Segmenter) -> list[Image]:
    """Training photos that the report shows, at the size that the network sees.

    A run folder does not know where its photos lie, but it keeps these.
    """
    if not run.is_dir():
        raise ConfigError("int8 needs training photos", where=run, do="give the run's folder")
    gallery = Findings(Workspace.read(run).finished("findings")).gallery()
    shown = [item for item in gallery if item.split == "train"]
    if not shown:
        raise WorkspaceError("keeps no training photo, which int8 needs", where=run, do="train it")
    return [_as_seen(item, run, segmenter) for item in shown]


def _as_seen(item: GalleryItem, run: Path, segmenter: Segmenter) -> Image:
    """A photo of the report, which shows it small, at the size that the network sees.

    That follows from the photo's own size, which is its mask's.
    """
    folders = map(MaskFiles, run.glob("stages/*-masks/masks"))
    known = [read_mask(f.path(item.name)).shape for f in folders if item.name in f]
    height, width = known[0] if known else (_LONGEST, _LONGEST)
    zoom = segmenter.sight.zoom if isinstance(segmenter, WindowedSegmenter) else 1.0
    longest = min(_LONGEST, zoom * min(segmenter.side, max(height, width)))
    old_height, old_width = item.photo.shape[:2]
    factor = longest / max(old_height, old_width)
    return resized(
        item.photo, (max(1, round(old_width * factor)), max(1, round(old_height * factor)))
    )


def _check_answers(content: bytes, segmenter: Segmenter, out: Path, close: float) -> None:
    """Raise ConfigError unless onnxruntime gives what PyTorch gives, on pictures of some sizes."""
    session = onnx_session(content, out, torch.get_num_threads())
    for shape in _SHAPES:
        photo = _picture(shape)
        try:
            labels, probs = session.run([LABELS, PROBABILITIES], {IMAGE: photo})
        except Exception:  # a size that was taken for a constant
            raise _differs(segmenter, "onnxruntime") from None
        expected = segmenter.probabilities(photo, refine=False)
        if probs.shape != expected.shape or labels.shape != shape:
            raise _differs(segmenter, "onnxruntime")
        if not np.abs(probs - expected).max() <= close:
            raise _differs(segmenter, "onnxruntime")


def _check_program(program: torch.export.ExportedProgram, segmenter: Segmenter, least: int) -> None:
    """Raise ConfigError unless a program gives what its network gives, on pictures of some sizes.

    Guards are left out as users have to: they hold for the example's rows and columns, beyond which
    the program computes the same.
    """
    run = program.module(check_guards=False)
    for shape in _SHAPES:
        photo = _picture((max(least, shape[0]), max(least, shape[1])))[None]
        try:
            found = run(torch.from_numpy(photo)).numpy()
        except Exception:  # a size that was taken for a constant
            raise _differs(segmenter, "torch.export") from None
        expected = Segmenter.forward(segmenter, photo)
        if found.shape != expected.shape or not np.abs(found - expected).max() <= _CLOSE:
            raise _differs(segmenter, "torch.export")


def _picture(shape: tuple[int, int]) -> Any:
    """A smooth picture uint8 (H, W, 3), the same each time."""
    rough = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    return cv2.resize(rough, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _differs(segmenter: Segmenter, by: str) -> ConfigError:
    backbone = getattr(getattr(segmenter.net, "backbone", None), "name", "this backbone")
    return ConfigError(
        f"a segmenter on {backbone} comes out otherwise in {by} than in PyTorch",
        do="train on another backbone",
    )
