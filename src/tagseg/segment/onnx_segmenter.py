"""A segmenter whose network is an ONNX file of :mod:`tagseg.segment.onnx_graph`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tagseg.errors import WeightsError, one_line
from tagseg.nets.onnx_files import onnx_content, onnx_session
from tagseg.segment.model_file import damage_in_one_line, positive
from tagseg.segment.onnx_graph import IMAGE, LABELS, PROBABILITIES
from tagseg.segment.predict import Refiner, Segmenter
from tagseg.training import Execution

__all__ = ["ONNX_FORMAT", "OnnxSegmenter", "open_onnx", "pack_onnx"]

ONNX_FORMAT = "tagseg-onnx-1"
_EXPECTED = {IMAGE: "tensor(uint8)"}, {LABELS: "tensor(uint8)", PROBABILITIES: "tensor(float)"}


class OnnxSegmenter(Segmenter):
    """A :class:`Segmenter` that onnxruntime computes, on the CPU and in float32 or 8 bits.

    Args:
        session: an ``onnxruntime.InferenceSession`` of the file.
        where: the file, for messages; other arguments are a segmenter's.
    """

    def __init__(
        self,
        session: Any,
        classes: tuple[str, ...],
        *,
        side: int,
        where: Path,
        refiner: Refiner | None = None,
        refinement: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            nn.Identity(),
            classes,
            side=side,
            execution=Execution(),
            refiner=refiner,
            refinement=refinement,
        )
        self._session, self._where = session, where

    def forward(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities (B, C+1, h, w) of photos (B, h, w, 3) at working size, not refined."""
        return np.stack([self._of_photo(image) for image in images])

    def _of_photo(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        try:
            (probs,) = self._session.run([PROBABILITIES], {IMAGE: np.ascontiguousarray(image)})
        except Exception as error:  # the library has many kinds of error
            raise WeightsError(
                f"cannot be run ({one_line(error, 120)})", where=self._where, do="export it again"
            ) from None
        expected = (len(self.classes) + 1, *image.shape[:2])
        if probs.shape != expected or not np.isfinite(probs).all():
            raise WeightsError(
                f"gives {probs.shape} where {expected} finite numbers are expected",
                where=self._where,
                do="export it again",
            )
        return probs


def pack_onnx(segmenter: Segmenter, version: str, *, int8: bool) -> dict[str, str]:
    """What an ONNX file says of itself: for :func:`open_onnx`, and in words for other programs."""
    refined = segmenter.refiner is not None
    return {
        "format": ONNX_FORMAT,
        "tagseg": version,
        "classes": json.dumps(segmenter.classes),
        "names": "\n".join(["background", *segmenter.classes]),  # of labels, for other programs
        "photo_side": str(segmenter.side),
        "white_of_16_bits": str(segmenter.white),
        "refinement": json.dumps(segmenter.refinement),
        "arithmetic": "int8" if int8 else "float32",
        "input": "image: uint8 (height, width, 3), RGB in display orientation, of any size",
        "output": (
            "labels: uint8 (height, width), 0 background, k the k-th class; probabilities: float32 "
            "(classes + 1, h, w) at working size, of the photo's size if the optional input "
            "full_probabilities is true"
        ),
        "sizes": (
            f"the longer side is brought down to {segmenter.side} pixels by area, if it has more: "
            "the working size; labels are those of probabilities upsampled bilinearly"
        ),
        "left_out": "the refinement by a dense CRF" if refined else "nothing",
    }


def open_onnx(path: Path, *, refinement: Callable[[Mapping[str, Any]], Refiner]) -> OnnxSegmenter:
    """The segmenter of a file that ``tagseg export`` wrote, with as many threads as PyTorch.

    Raises:
        WeightsError: the file is none of these.
        ConfigError: onnxruntime is not installed.
    """
    session = onnx_session(onnx_content(path), path, torch.get_num_threads())
    metadata = session.get_modelmeta().custom_metadata_map
    if metadata.get("format") != ONNX_FORMAT or _form(session) != _EXPECTED:
        raise WeightsError(
            "is no segmenter of tagseg",
            where=path,
            do="give a file that tagseg export --to onnx wrote",
        )
    with damage_in_one_line(path):
        stored = json.loads(metadata["refinement"])
        segmenter = OnnxSegmenter(
            session,
            _names(json.loads(metadata["classes"])),
            side=positive(metadata["photo_side"]),
            where=path,
            refiner=None if stored is None else refinement(stored),
            refinement=stored,
        )
        segmenter.white = positive(metadata["white_of_16_bits"])
    return segmenter


def _form(session: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Names and types of the inputs that must be given, and of the outputs."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    return {i.name: i.type for i in inputs}, {o.name: o.type for o in outputs}


def _names(stored: Any) -> tuple[str, ...]:
    if not isinstance(stored, list) or not all(isinstance(name, str) for name in stored):
        raise ValueError("classes")
    return tuple(stored)
