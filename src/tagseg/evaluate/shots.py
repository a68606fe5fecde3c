"""How well the object of each shot of videos is found: the measure of YouTube-Objects."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import numpy.typing as npt

from tagseg.errors import ShapeError
from tagseg.maps import IGNORE, MAX_CLASSES, Labels, check_labels, label_of_tag

__all__ = ["ShotScores"]


class ShotScores:
    """IoU of the class of a video against all else: of frames, then of shots, then of a class.

    Methods that segment videos are compared so on the masks of Jain and Grauman 2014: every frame
    weighs the same in its shot, and every shot in its class. Pixels of 255 do not count. A frame in
    which there is no object and none was found counts as right.

    Examples:
        A shot of two frames, of which half of the object is found in one.

        >>> import numpy as np
        >>> from tagseg.evaluate import ShotScores
        >>> scores = ShotScores(1)
        >>> truth = np.array([[0, 1, 1]], np.uint8)
        >>> scores.update("cat/1", 0, np.array([[0, 0, 1]], np.uint8), truth)
        >>> scores.update("cat/1", 0, truth, truth)
        >>> scores.mean().tolist()
        [0.75]
    """

    def __init__(self, classes: int) -> None:
        self._shots: list[dict[str, list[float]]] = [defaultdict(list) for _ in range(classes)]

    def update(self, shot: str, tag: int, prediction: Labels, truth: Labels) -> None:
        """Add one frame of a shot of class ``tag``; labels are uint8 (H, W).

        Raises:
            ShapeError: they are not, or are of two sizes.
        """
        check_labels(truth, MAX_CLASSES, "truth")
        if prediction.shape != truth.shape:
            raise ShapeError(f"prediction is {prediction.shape}, truth {truth.shape}")
        label, known = label_of_tag(tag), truth != IGNORE
        found, true = (prediction == label) & known, (truth == label) & known
        union = np.count_nonzero(found | true)
        iou = np.count_nonzero(found & true) / union if union else 1.0
        self._shots[tag][shot].append(iou)

    def counts(self) -> list[int]:
        """Return the number of shots of each class."""
        return [len(shots) for shots in self._shots]

    def mean(self) -> npt.NDArray[np.float64]:
        """Return the mean over the shots of each class, float64 (C,); NaN without any."""
        means = [[np.mean(frames) for frames in shots.values()] for shots in self._shots]
        return np.array([np.mean(of_class) if of_class else np.nan for of_class in means])
