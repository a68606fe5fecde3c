"""Whether photos show which way is up, judged by the photos alone.

A street does, a slide under a microscope or a field from above does not; where nothing tells,
turned photos are as good as new ones. The test is the pretext task of Gidaris et al.
(Unsupervised Representation Learning by Predicting Image Rotations, ICLR 2018) as a question: can
a linear classifier on a network's features tell photos from moved ones?
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tagseg.data.working import resized
from tagseg.maps import Image
from tagseg.training import Execution

__all__ = ["Movement", "Orientation", "movements_of", "told_apart"]

Movement = Literal["flip", "quarter"]

_SIDE = 224  # pixels, of the squares that the network sees
_FOLDS = 5
_FEWEST = 20  # photos, below which nothing is concluded
_CHANCE_UP_TO = 0.65  # accuracy; 1/2 is chance


class Orientation(NamedTuple):
    """Accuracy, 0 to 1, with which upside-down and quarter-turned photos are told from others.

    None for photos too few to say.
    """

    flip: float | None
    quarter: float | None

    def allowed(self) -> tuple[bool, bool]:
        """Whether crops may be upside down, and turned by quarters."""
        flip, quarter = (value is not None and value <= _CHANCE_UP_TO for value in self)
        return flip, flip and quarter

    def lines(self) -> list[str]:
        """What was seen and follows, for people."""
        rows = zip(("upside down", "turned a quarter"), self, self.allowed(), strict=True)
        return [
            f"photos {name} are told from others in {value:.0%} of cases (50% is chance): crops "
            f"are {'' if allowed else 'not '}{name}"
            for name, value, allowed in rows
            if value is not None
        ]


def movements_of(image: Image) -> tuple[Image, Image, Image]:
    """The middle square of a photo, (224, 224, 3): as it is, upside down, and turned a quarter."""
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    square = resized(image[top : top + side, left : left + side], (_SIDE, _SIDE))
    return square, square[::-1], np.rot90(square)


@torch.no_grad()
def photo_features(
    net: nn.Module, squares: Sequence[Image], execution: Execution
) -> npt.NDArray[np.float32]:
    """Mean and maximum of a backbone's last maps over the photo, (N, 2 C)."""
    net = net.to(execution.device).eval()
    rows = []
    for square in squares:
        x = torch.from_numpy(np.ascontiguousarray(square)).to(execution.device)
        maps = net(x.permute(2, 0, 1)[None].float() / 255)
        rows.append(torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)[0].cpu().numpy())
    return np.stack(rows)


def told_apart(
    upright: npt.NDArray[np.float32], moved: npt.NDArray[np.float32], *, seed: int = 0
) -> float | None:
    """Accuracy, cross-validated over photos, of telling features (N, D) from those moved."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n = len(upright)
    if n < _FEWEST:
        return None
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    features = np.concatenate([upright, moved])
    answers, photos = np.repeat([0, 1], n), np.tile(np.arange(n), 2)
    scores = cross_val_score(
        model,
        features,
        answers,
        groups=photos,
        cv=GroupKFold(_FOLDS, shuffle=True, random_state=seed),
    )
    return float(scores.mean())
