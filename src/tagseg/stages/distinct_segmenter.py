"""Segmentation without a segmenter: distinct class saliency maps of a classifier, and a CRF.

Shimoda & Yanai 2016, 3.1: a photo's classes come from the classifier, its unary potentials from
their maps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tagseg.errors import ConfigError
from tagseg.localize.backprop import Method
from tagseg.localize.dcsm import DcsmSettings, unary, with_background
from tagseg.localize.seeds import DistinctSeeder
from tagseg.maps import Image, Probs, ScoreMap
from tagseg.nets.fully_convolutional import FullyConvolutionalClassifier
from tagseg.refine.dense_crf import CrfParameters, refine
from tagseg.segment.model_file import (
    damage_in_one_line,
    pack_backbone,
    pack_tensors,
    positive,
    unpack_backbone,
)
from tagseg.segment.predict import NOTHING, Known, Segmenter
from tagseg.stages.crf import from_json
from tagseg.training import Execution

__all__ = [
    "DISTINCT_FORMAT",
    "DistinctRefiner",
    "DistinctSegmenter",
    "SeederSettings",
    "distinct_probabilities",
    "pack_distinct",
    "unpack_distinct",
]

DISTINCT_FORMAT = "tagseg-distinct-1"


@dataclass(frozen=True)
class SeederSettings:
    """All numbers of a :class:`tagseg.localize.seeds.DistinctSeeder`."""

    equations: DcsmSettings
    blocks: tuple[int, ...]
    method: Method
    side: int

    def seeder(self, net: FullyConvolutionalClassifier, execution: Execution) -> DistinctSeeder:
        """The seeder itself."""
        return DistinctSeeder(
            net.to(execution.device).eval(),
            self.equations,
            side=self.side,
            blocks=self.blocks,
            method=self.method,
            precision=execution.precision,
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SeederSettings:
        """Inverse of ``dataclasses.asdict`` through JSON."""
        equations = DcsmSettings(**from_json(data["equations"]))
        return cls(equations, tuple(data["blocks"]), data["method"], positive(data["side"]))


class DistinctSegmenter(Segmenter):
    """Finds the classes of a photo and their places with a tag classifier alone."""

    def __init__(
        self,
        net: FullyConvolutionalClassifier,
        classes: tuple[str, ...],
        settings: SeederSettings,
        *,
        side: int,
        execution: Execution,
        refinement: Mapping[str, Any] | None = None,
    ) -> None:
        refiner = None if refinement is None else DistinctRefiner(refinement)
        super().__init__(
            net, classes, side=side, execution=execution, refiner=refiner, refinement=refinement
        )
        self.settings = settings
        self.seeder = settings.seeder(net, execution)

    def forward(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities (B, C+1, h, w) of photos (B, h, w, 3) at working size, not refined."""
        return np.stack([distinct_probabilities(self.seeder(i).score_map) for i in images])


def distinct_probabilities(score_map: ScoreMap) -> Probs:
    """M^ with the background of Eq. 7, brought to sum 1: (C + 1, H, W).

    The sum changes the unary -log M^ of a pixel by one constant for all labels, and so no label.
    """
    maps = with_background(torch.from_numpy(score_map))
    return (maps / maps.sum(0)).numpy()


class DistinctRefiner:
    """The dense CRF of Eq. 6 to 8 over the labels that a photo has maps of.

    ``settings`` are the fields of CrfParameters, and "regions": None.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        values = from_json(settings)
        if values.pop("regions", None) is not None:
            raise ConfigError("the CRF of distinct maps has no regions", do="leave them out")
        self._parameters = CrfParameters(**values)

    def refine(self, image: Image, probs: Probs, known: Known = NOTHING) -> Probs:
        """Probabilities (L, H, W) after the CRF; 0 for labels without any before."""
        here = probs.any((1, 2))
        if here.sum() < 2:
            return probs
        refined = np.zeros_like(probs)
        costs = unary(torch.from_numpy(probs[here])).numpy()
        refined[here] = refine(image, costs, self._parameters)
        return refined


def pack_distinct(segmenter: DistinctSegmenter) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a segmenter."""
    net = cast(FullyConvolutionalClassifier, segmenter.net)
    metadata = {
        "format": DISTINCT_FORMAT,
        "classes": json.dumps(segmenter.classes),
        "photo_side": str(segmenter.side),
        **pack_backbone(net.backbone),
        "width": str(net.fc6.out_channels),
        "kernel": str(net.fc6.kernel_size[0]),
        "seeder": json.dumps(asdict(segmenter.settings)),
        "refinement": json.dumps(segmenter.refinement),
    }
    return pack_tensors(net), metadata


def unpack_distinct(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    *,
    execution: Execution,
    where: object = None,
) -> DistinctSegmenter:
    """The segmenter of :func:`pack_distinct`; WeightsError if the file is damaged."""
    with damage_in_one_line(where):
        classes = tuple(json.loads(metadata["classes"]))
        net = FullyConvolutionalClassifier(
            unpack_backbone(metadata),
            len(classes),
            hidden=positive(metadata["width"]),
            kernel=positive(metadata["kernel"]),
        )
        net.load_state_dict(dict(tensors))
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return DistinctSegmenter(
            net,
            classes,
            SeederSettings.from_dict(json.loads(metadata["seeder"])),
            side=positive(metadata["photo_side"]),
            execution=execution,
            refinement=json.loads(metadata["refinement"]),
        )
