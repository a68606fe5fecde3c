"""The tag classifier of a finished run, to be asked about other photos."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tagseg.data.transforms import resize_batch
from tagseg.data.working import working_image
from tagseg.errors import DamagedError, WorkspaceError
from tagseg.maps import Image
from tagseg.nets.catalog import build_backbone
from tagseg.nets.fully_convolutional import FullyConvolutionalClassifier
from tagseg.nets.gap import GapClassifier
from tagseg.nets.top_pool import TopPoolClassifier
from tagseg.recipes.union.classifier import least_side
from tagseg.run.engine import choose_device
from tagseg.run.stage import record_in
from tagseg.run.workspace import Workspace

__all__ = ["RunClassifier", "load_classifier"]


class _Made(NamedTuple):
    """A network without its weights, and the least longer side that it sees photos at."""

    net: nn.Module
    least: int


@dataclass(frozen=True)
class RunClassifier:
    """A classifier with its weights.

    Attributes:
        classes: that it knows, in order.
        key: of the stage that trained it; another one gives other answers.
        net: RGB in [0, 1], (B, 3, H, W) -> scores before the sigmoid, (B, C).
        most: longer side to which larger photos are brought.
        least: longer side to which smaller ones are.
    """

    classes: tuple[str, ...]
    key: str
    net: nn.Module
    most: int
    least: int

    @torch.no_grad()
    def probabilities(self, image: Image) -> npt.NDArray[np.float32]:
        """Probability of each class (C,) in a photo (H, W, 3)."""
        device = next(self.net.parameters()).device
        small = np.ascontiguousarray(working_image(image, self.most).transpose(2, 0, 1))
        x = torch.from_numpy(small)[None].to(device).float() / 255
        longer = max(x.shape[2:])
        if longer < self.least:
            x = resize_batch(x, self.least / longer)
        return torch.sigmoid(self.net(x)[0].float()).cpu().numpy()


def load_classifier(run: Path, *, device: str = "auto") -> RunClassifier:
    """The tag classifier of the run in a folder.

    Known are those of ``union`` and of the recipes with class activation maps of a network with
    global average pooling (``builtin_priors``, ``cam_baseline``, ``gradient_baseline``, in either
    form).

    Raises:
        WorkspaceError: there is no run, or none with such a classifier that is trained.
        DamagedError: what the run holds is not what was written.
    """
    work = Workspace.read(run)
    about = work.settings
    for name, build in _KINDS.items():
        try:
            stage = work.finished(name)
        except DamagedError:
            raise
        except WorkspaceError:
            continue
        record = record_in(stage.folder)
        tensors, _ = stage.load_tensors("classifier")
        try:
            config = record["config"] if record is not None else {}
            made = build(config, str(about["options"]["backbone"]), len(work.classes))
            made.net.load_state_dict(tensors)
            most = int(config["photo_side"])
        except (KeyError, TypeError, ValueError, RuntimeError) as problem:
            raise WorkspaceError(
                f"its classifier cannot be built again ({type(problem).__name__})",
                where=run,
                do="train it again with this version",
            ) from None
        net = made.net.to(choose_device(device)).eval()
        return RunClassifier(tuple(work.classes), stage.key, net, most, made.least)
    raise WorkspaceError(
        "has no trained tag classifier that can be asked",
        where=run,
        do="give a run of union, builtin_priors or cam_baseline, or leave --run out",
    )


def _top_pool(config: Mapping[str, Any], backbone: str, classes: int) -> _Made:
    stride = int(config["output_stride"])
    net = TopPoolClassifier(
        build_backbone(backbone, output_stride=stride), classes, fraction=config["classifier_top"]
    )
    return _Made(net, least_side(backbone, stride))


def _gap(config: Mapping[str, Any], backbone: str, classes: int) -> _Made:
    if "fully_connected_side" in config:
        return _fully_connected(config, backbone, classes)
    net = GapClassifier(
        build_backbone(
            backbone, output_stride=int(config["output_stride"]), dilated=config.get("dilated")
        ),
        classes,
        hidden=config["classifier_width"],
        hidden_layers=config["classifier_hidden_layers"],
    )
    return _Made(net, 1)


def _fully_connected(config: Mapping[str, Any], backbone: str, classes: int) -> _Made:
    net = FullyConvolutionalClassifier(
        build_backbone(
            backbone, output_stride=int(config["output_stride"]), dilated=config["dilated"]
        ),
        classes,
        hidden=config["classifier_width"],
        side=config["fully_connected_side"],
    )
    return _Made(net, 1)


_KINDS: dict[str, Callable[[Mapping[str, Any], str, int], _Made]] = {
    "hiding-classifier": _top_pool,
    "classifier": _gap,
}
