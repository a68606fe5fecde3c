"""Photos that no weights learn from: by their labels a training says how it fares.

No ground truth may decide what helps. Labels that nothing was learned from can, be they
pseudo-labels: what answers them better has learned more of what they have in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from tagseg.evaluate.confusion import ConfusionMatrix
from tagseg.segment.predict import Refiner
from tagseg.segment.windowed import Sight, WindowedSegmenter
from tagseg.stages.context import Run
from tagseg.stages.refiners import Refinement, refiner_from
from tagseg.stages.shapes import evenly
from tagseg.stages.stage import Declared, LabelMaps, Trained, found

__all__ = ["HeldOut", "held_out_of"]

Indices = npt.NDArray[np.intp]

_AGREEMENT = Declared("held-out-agreement")
_REFINEMENT = Declared("held-out-refinement")

_ONE_IN, _FEWEST, _MOST = 16, 8, 40  # photos


def held_out_of(known: Indices) -> Indices:
    """One in 16 of the photos ``known``, 40 at most; none where they would be under 8."""
    chosen = known[_ONE_IN // 2 :: _ONE_IN]
    return chosen[evenly(len(chosen), _MOST)] if len(chosen) >= _FEWEST else known[:0]


@dataclass(frozen=True)
class HeldOut:
    """What the training labels of photos that are held out say of a segmenter.

    Attributes:
        photos: indices of them, maybe none.
        targets: their training labels.
        sight: how the segmenter looks at them.
        prefix: of its stages' names.
    """

    run: Run
    photos: Indices
    targets: LabelMaps
    sight: Sight
    prefix: str = ""

    def agreement(self, result: Trained[Any], number: int) -> float:
        """Mean IoU of the answers with the labels, after the cycle ``number``."""
        seen = found(
            self.run,
            _AGREEMENT.prefixed(self.prefix).round(number),
            lambda: self._met(result.model),
            planned=[0.0],
            inputs=[result],
        )
        (met,) = seen.value
        self.run.progress.say(
            f"after cycle {number + 1} of the training, the labels of {len(self.photos)} photos "
            f"held out are met to {100 * met:.1f} % mean IoU"
        )
        return met

    def refining_helps(self, result: Trained[Any], refinement: Any) -> bool:
        """Whether a refiner brings the answers nearer to the labels; False without photos.

        Args:
            refinement: what decides on it as JSON data, or None for no refiner.
        """
        if refinement is None or len(self.photos) == 0:
            return False
        seen = found(
            self.run,
            _REFINEMENT.prefixed(self.prefix),
            lambda: self._met(result.model, refiner_from(refinement)),
            planned=[0.0, 0.0],
            settings=[Refinement(refinement)],
            inputs=[result],
        )
        raw, refined = seen.value
        self.run.progress.say(
            f"of {len(self.photos)} photos held out, the labels are met to {100 * raw:.1f} % mean "
            f"IoU without refinement and {100 * refined:.1f} % with it: "
            f"it is {'used' if refined > raw else 'left out'}"
        )
        return refined > raw

    def _met(self, net: nn.Module, refiner: Refiner | None = None) -> list[float]:
        """Mean IoU with the labels, and that of refined answers where there is a refiner.

        0 where no label is known, which speaks for nothing.
        """
        photos, execution = self.run.photos, self.run.setup.execution
        segmenter = WindowedSegmenter(
            net, photos.classes, sight=self.sight, side=photos.side, execution=execution
        )
        met = [ConfusionMatrix(len(photos.classes) + 1) for _ in range(1 if refiner is None else 2)]
        for index in self.photos.tolist():
            image = photos.image(index)
            answers = [segmenter.forward(image[None])[0]]
            if refiner is not None:
                answers.append(refiner.refine(image, answers[0]))
            for matrix, probs in zip(met, answers, strict=True):
                matrix.update(probs.argmax(0).astype(np.uint8), self.targets(index))
        return [float(np.nan_to_num(matrix.mean_iou())) for matrix in met]
