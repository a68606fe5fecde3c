"""The student: single photos' soft masks, learned from a teacher that watched video.

Croitoru, Bogolin and Leordeanu, "Unsupervised learning from video to detect foreground objects in
single images", ICCV 2017: the best of the teacher's masks are the network's targets, and what it
finds in single images is better than what it was taught.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from tagseg.errors import ConfigError, ShapeError, WeightsError
from tagseg.maps import Image, SaliencyMap, check_image
from tagseg.nets.student import GRID, INPUT_SIDE, StudentNet
from tagseg.run.files import atomic_write
from tagseg.training import Batch, Execution, Sample, Schedule, train

__all__ = [
    "SHIPPED",
    "Lesson",
    "best_frames",
    "fit_student",
    "lesson",
    "load_student",
    "mask_quality",
    "number_of_best",
    "save_student",
    "shipped_student",
    "student_saliencies",
    "student_saliency",
    "student_schedule",
]

SHIPPED = Path(__file__).parent / "student_small.safetensors"

_LESSON_SIDE = 160  # pixels; a random 128 x 128 of it is an input
_MASK_DECAY = 0.004  # weight decay of the full connection; the rest has none
_NOTES = "tagseg"
_FORMAT = "student"
_VERSION = "1"
_BATCH = 16  # photos through the network at a time


class Lesson(NamedTuple):
    """A frame and the teacher's soft mask of it, both of 160 x 160 pixels.

    Attributes:
        image: uint8 (160, 160, 3).
        mask: uint8 (160, 160), 255 times the soft mask.
    """

    image: Image
    mask: npt.NDArray[np.uint8]


def lesson(image: Image, mask: SaliencyMap) -> Lesson:
    """A frame (H, W, 3) and its soft mask float32 (H, W) in [0, 1], squeezed to 160 x 160.

    Raises ShapeError if they are no such arrays.
    """
    _check_mask(mask)
    if mask.shape != check_image(image).shape[:2]:
        raise ShapeError(
            f"mask has shape {mask.shape}, the frame {image.shape}", do="give both at one size"
        )
    small = np.clip(_squeezed(mask, _LESSON_SIDE), 0, 1)
    return Lesson(_squeezed(image, _LESSON_SIDE), np.rint(255 * small).astype(np.uint8))


def mask_quality(mask: SaliencyMap) -> float:
    """Mean of the pixels of a soft mask that are not zero: how sure the teacher was (0 if none)."""
    _check_mask(mask)
    positive = mask[mask > 0]
    return float(positive.mean(dtype=np.float64)) if positive.size else 0.0


def number_of_best(frames: int, part: float) -> int:
    """How many of so many frames are the best ``part`` (above 0 to 1), but 1 if there is one."""
    if not 0 < part <= 1:
        raise ConfigError(f"part is {part}", do="give a share above 0, up to 1")
    return min(frames, max(1, round(part * frames)))


def best_frames(masks: Iterable[SaliencyMap], part: float = 0.15) -> npt.NDArray[np.intp]:
    """Indices, rising, of the best of the teacher's masks by :func:`mask_quality`.

    Masks of zeros are never among them; of equally good ones the first are.

    Args:
        masks: float32 (H, W) in [0, 1], gone through once.
        part: share of all masks; the paper's is 0.1 to 0.2.

    Raises:
        ConfigError: part is no share.
        ShapeError: a mask is no such array.
    """
    qualities = np.array([mask_quality(mask) for mask in masks])
    best = np.argsort(-qualities, kind="stable")[: number_of_best(len(qualities), part)]
    return np.sort(best[qualities[best] > 0])


def student_schedule(iterations: int, batch_size: int = 32) -> Schedule:
    """Adam at 1e-3, 32 photos an update (Croitoru et al.); that the rate falls is assumed."""
    return Schedule(iterations, batch_size, 1e-3, optimizer="adam", weight_decay=0.0)


def fit_student(
    net: StudentNet,
    lessons: Sequence[Lesson],
    schedule: Schedule,
    *,
    execution: Execution,
    **hooks: Any,
) -> StudentNet:
    """Train ``net`` in place on random 128 x 128 crops of the lessons, mirrored half of the time.

    The loss of a crop is the squared L2 norm of the difference to the teacher's soft mask at
    32 x 32, a sum over positions: beside a mean the decay would press the masks into few shapes.
    Weights of the full connection decay by 0.004, as a penalty in the loss does; nothing else.

    Args:
        lessons: as :func:`lesson` makes them.
        schedule: see :func:`student_schedule`.
        hooks: checkpoint, log and ticks of :func:`tagseg.training.train`.

    Raises:
        ConfigError: there are no lessons.
        TrainingError: the loss is not finite.
    """
    if not lessons:
        raise ConfigError("there are no lessons", do="give frames with masks that are not zero")

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        found = module(batch["image"].float() / 255)
        return (found.float() - batch["mask"]).square().sum((1, 2)).mean()

    decays = {"mask": _MASK_DECAY}
    groups = [
        group | {"weight_decay": decays.get(group["name"], 0.0)} for group in net.parameter_groups()
    ]
    train(
        net, loss, _crops(lessons), len(lessons), schedule,
        groups=groups, execution=execution, **hooks,
    )  # fmt: skip
    return net


def student_saliency(net: StudentNet, image: Image) -> SaliencyMap:
    """What stands out in one photo: float32 (H, W) in [0, 1], for uint8 (H, W, 3) RGB.

    See :func:`student_saliencies`.
    """
    return next(student_saliencies(net, [image]))


def student_saliencies(net: StudentNet, images: Iterable[Image]) -> Iterator[SaliencyMap]:
    """What stands out in each of many photos, 16 of which go through the network at a time.

    The whole photo is squeezed to 128 x 128, whatever its aspect ratio: how the authors bring
    photos to the network is not published. The soft mask is clipped to [0, 1] and resized
    bilinearly. Computed where the network's weights are.

    Args:
        images: uint8 (H, W, 3) RGB, of any sizes.

    Yields:
        saliency_map float32 (H, W) in [0, 1] of each photo, in order.

    Raises:
        ShapeError: an image is no such array.
    """
    device = next(net.parameters()).device
    net.eval()
    remaining = iter(images)
    while group := list(islice(remaining, _BATCH)):
        small = np.stack([_squeezed(check_image(image), INPUT_SIDE) for image in group])
        x = torch.from_numpy(small).to(device).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            masks = net(x).clamp(0, 1).float().cpu().numpy()
        for image, mask in zip(group, masks, strict=True):
            height, width = image.shape[:2]
            full = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
            yield np.clip(full, 0, 1, dtype=np.float32)


def save_student(net: StudentNet, path: Path, about: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all, of weights rounded to float16.

    Args:
        about: what it was trained on, for the record.

    Raises:
        WorkspaceError: the file cannot be written.
    """
    notes = {
        "format": _FORMAT,
        "version": _VERSION,
        "configuration": net.configuration,
        "about": dict(about or {}),
    }
    state = net.state_dict().items()
    tensors = {name: value.detach().cpu().half().contiguous() for name, value in state}
    # One entry: safetensors writes several in any order, and equal students in unequal files.
    metadata = {_NOTES: json.dumps(notes, ensure_ascii=False, sort_keys=True)}
    with atomic_write(Path(path)) as file:
        file.write(safetensors.torch.save(tensors, metadata))


def load_student(path: Path) -> StudentNet:
    """The student in a file of :func:`save_student`, on the CPU.

    Raises WeightsError if there is none, it is damaged, or it is no student.
    """
    path = Path(path)
    tensors, notes = _read(path)
    if notes.get("format") != _FORMAT:
        raise WeightsError("holds no student", where=path, do="give a file of tagseg train-student")
    if notes.get("version") != _VERSION:
        raise WeightsError(
            "is a student of another version of tagseg",
            where=path,
            do="train it again: tagseg train-student",
        )
    try:
        with torch.device("meta"):  # a file's numbers must not fill the memory
            net = StudentNet(**notes["configuration"])
        if not all(torch.isfinite(value).all() for value in tensors.values()):
            raise ValueError("values")
        net.load_state_dict({k: v.float() for k, v in tensors.items()}, assign=True)
    except (ConfigError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise _damaged(path) from error
    return net.eval()


@cache
def shipped_student() -> StudentNet:
    """The small student that comes with the package, trained on generated clips; one for all.

    Raises WeightsError if its file is missing.
    """
    if not SHIPPED.is_file():
        raise WeightsError(
            "the package's own student is missing", where=SHIPPED, do="install tagseg again"
        )
    return load_student(SHIPPED)


def _crops(lessons: Sequence[Lesson]) -> Sample:
    """Cut samples of lessons."""

    def sample(i: int, rng: np.random.Generator) -> Mapping[str, npt.NDArray[Any]]:
        top, left = rng.integers(0, _LESSON_SIDE - INPUT_SIDE + 1, 2)
        window = slice(top, top + INPUT_SIDE), slice(left, left + INPUT_SIDE)
        image, mask = (part[window] for part in lessons[i])
        if rng.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        exact = mask.astype(np.float32) / 255
        return {
            "image": np.ascontiguousarray(image.transpose(2, 0, 1)),
            "mask": cv2.resize(exact, (GRID, GRID), interpolation=cv2.INTER_AREA),
        }

    return sample


def _squeezed(image: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """Photo or mask at ``side`` x ``side``; each axis averages where it shrinks."""
    height, width = image.shape[:2]
    shrunk = cv2.resize(image, (min(width, side), min(height, side)), interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (side, side), interpolation=cv2.INTER_LINEAR)


def _check_mask(mask: Any) -> None:
    if not isinstance(mask, np.ndarray) or mask.dtype != np.float32 or mask.ndim != 2:
        raise ShapeError("a mask is no float32 array (H, W)", do="give the teacher's soft masks")
    if not mask.size or not ((mask >= 0) & (mask <= 1)).all():
        raise ShapeError("a mask is empty or holds values outside 0..1", do="scale it to 0..1")


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file and the notes beside them."""
    if not path.is_file():
        raise WeightsError("no such student file", where=path, do="train one: tagseg train-student")
    try:
        with safe_open(path, "pt") as file:
            notes = json.loads((file.metadata() or {}).get(_NOTES, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path) from error
    return tensors, notes if isinstance(notes, dict) else {}


def _damaged(path: Path) -> WeightsError:
    return WeightsError("is damaged or no student", where=path, do="train or copy it again")
