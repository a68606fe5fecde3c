"""What tests of union share: small settings, and stand-ins for its classifier, evidence and judge.

The classifier sees colours, the evidence is drawn around the things themselves, and the judge goes
by one feature: so what comes of them can be told beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from small_runs import WEIGHED, Photos, quick
from tagseg.evaluate.judge import FEATURES, Judge
from tagseg.maps import Image, Labels
from tagseg.recipes.union.config import Config
from tagseg.recipes.union.court import Verdict
from tagseg.recipes.union.labels import Evidence
from tagseg.run.progress import Progress
from tagseg.session.train import make_config
from tagseg.stages.context import Run
from tagseg.stages.stage import Declared, PhotoMaps, ScoreMaps, Trained, label_maps

__all__ = [
    "COLOUR",
    "FEW",
    "Bench",
    "Eye",
    "Listening",
    "config_of",
    "drawn",
    "eye_of",
    "judge_by",
    "made_up_evidence",
    "score_of",
    "seen_of",
    "stage_of",
]

FEW: dict[str, Any] = {**quick("union"), **WEIGHED, "objects": "auto"}
COLOUR = (120, 110, 100)  # of what is hidden


def config_of(**changed: Any) -> Config:
    return make_config(Config, {**FEW, **changed})


class Listening(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


class Eye(nn.Module):
    """Scores of classes from the mean of a colour channel each, and how many pictures it saw."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes, self.pictures = n_classes, 0
        self.backbone: Any = SimpleNamespace(preprocessing=SimpleNamespace(mean_colour=COLOUR))

    def forward(self, x: Tensor) -> Tensor:
        self.pictures += len(x)
        means = x.mean((2, 3))
        return torch.stack([8 * means[:, c % 3] - 4 + 0.1 * c for c in range(self.n_classes)], 1)


def score_of(picture: Image, tag: int) -> float:
    """How sure an Eye is of a class in a picture."""
    logit = 8 * float(picture[..., tag % 3].mean() / 255) - 4 + 0.1 * tag
    return 1 / (1 + float(np.exp(-logit)))


def stage_of(run: Run, name: str, **config: Any) -> Any:
    """A finished stage that holds nothing."""
    with run.stage(name, config, []) as stage:
        pass
    return stage


def eye_of(run: Run) -> Trained[Any]:
    return Trained(Eye(len(run.photos.classes)), stage_of(run, "eye"))


def drawn(run: Run, photos: Photos, index: int) -> Labels:
    """True labels of a photo at working size, without 255; of one without any a square in it."""
    height, width = run.photos.image(index).shape[:2]
    name = run.photos.names[index]
    if name in photos.labels:
        true = cv2.resize(photos.labels[name], (width, height), interpolation=cv2.INTER_NEAREST)
        true[true == 255] = 0
        return true  # type: ignore[return-value]
    square = np.zeros((height, width), np.uint8)
    square[height // 4 :, width // 4 : -(width // 4)] = run.photos.tags[index].argmax() + 1
    return square


def seen_of(run: Run, photos: Photos) -> ScoreMaps:
    """Score maps: nearly 1 on the upper half of what each class is, and little elsewhere."""

    def read(index: int) -> npt.NDArray[np.float32]:
        labels, tags = drawn(run, photos, index), run.photos.tags[index]
        maps = np.full((len(tags), *labels.shape), 0.05, np.float32)
        for tag in np.flatnonzero(tags):
            rows = np.flatnonzero((labels == tag + 1).any(1))
            maps[tag][labels == tag + 1] = 0.35
            if len(rows):
                maps[tag, : int(rows.mean()) + 1][labels[: int(rows.mean()) + 1] == tag + 1] = 0.95
        maps[~tags] = 0
        return maps

    return PhotoMaps(stage_of(run, "seen"), read)


def made_up_evidence(run: Run, photos: Photos, config: Config, *sources: str) -> Evidence:
    """The same beside what stands out: all things, as every source has it."""

    def read(index: int) -> npt.NDArray[np.float32]:
        return np.where(drawn(run, photos, index) > 0, np.float32(0.9), np.float32(0.02))

    found = {name: PhotoMaps(stage_of(run, f"{name}-there"), read) for name in sources}
    return Evidence(run, config, [seen_of(run, photos)], found)


def judge_by(feature: str = "area", level: float = 0.0, smallest: float = 0.0) -> Judge:
    """A judge to whom quality is one feature, and more by ``level``."""
    weights = tuple(float(name == feature) for name in FEATURES)
    none = (0.0,) * len(FEATURES)
    return Judge(none, (1.0,) * len(FEATURES), weights, level=level, spread=0.1, smallest=smallest)


def labels_by(run: Run, name: str, labels: Sequence[Labels]) -> Any:
    """Label maps as a stage keeps them."""
    return label_maps(run, Declared(name), lambda index: labels[index])


class Bench:
    """A court that likes what it is told to like, and remembers what it was shown."""

    def __init__(self, run: Run, wanted: str | dict[str, float]) -> None:
        self.run = run
        self.wanted = {wanted: 1.0} if isinstance(wanted, str) else wanted
        self.names: list[str] = []
        self.candidates: Callable[[int], Sequence[Labels]] = lambda index: []

    def choose(
        self,
        candidates: Any,
        names: Any,
        inputs: Any,
        number: int | None,
        settings: Any = (),
        favourite: int | None = None,
        **how: Any,
    ) -> Verdict:
        self.names, self.candidates = list(names), candidates
        assert set(self.wanted) <= set(self.names)
        stage = stage_of(self.run, f"heard-{number or 'masks'}", wanted=self.wanted)
        liked = tuple(self.wanted.get(name, 0.0) for name in names)
        return Verdict(liked, liked, stage, favourite, **how)
