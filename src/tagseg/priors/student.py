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
from safetensors import SafetensorError
from torch import Tensor, nn

from tagseg.errors import ConfigError, ShapeError, WeightsError
from tagseg.maps import Image, SaliencyMap, check_image
from tagseg.nets.student import GRID, INPUT_SIDE, StudentNet
from tagseg.priors.float_arrays import float_array
from tagseg.run.files import atomic_write
from tagseg.tensor_files import read_tensors
from tagseg.training import Batch, Loop, Sample, Schedule, train

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

Floats = npt.NDArray[np.floating]

SHIPPED = Path(__file__).parent / "student_small.safetensors"

_LESSON_SIDE = 160  # pixels; a random 128 x 128 of it is an input
_MASK_DECAY = 0.004  # weight decay of the full connection; the rest has none
_NOTES = "tagseg"
_FORMAT = "student"
_VERSION = "1"
_BATCH = 16  # photos through the network at a time


class Lesson(NamedTuple):
    """What the student is taught by: a frame and the teacher's soft mask, of 160 x 160 pixels.

    Attributes:
        image: uint8 (160, 160, 3), RGB.
        mask: uint8 (160, 160), 255 times the soft mask.

    Examples:
        >>> import numpy as np
        >>> from tagseg.priors import Lesson
        >>> one = Lesson(np.zeros((160, 160, 3), np.uint8), np.full((160, 160), 255, np.uint8))
        >>> one.image.shape, one.mask.shape
        ((160, 160, 3), (160, 160))
    """

    image: Image
    mask: npt.NDArray[np.uint8]


def lesson(image: Image, mask: Floats) -> Lesson:
    """Make a lesson for the student: squeeze a frame and its soft mask to 160 x 160 pixels.

    Args:
        image: uint8 (H, W, 3) RGB; floats are refused.
        mask: float (H, W) in [0, 1], such as the teacher's, :func:`tagseg.priors.videopca_masks`.

    Raises:
        ShapeError: image or mask is no such array, or they differ in size.

    Examples:
        >>> import numpy as np
        >>> from tagseg.priors import lesson
        >>> frame = np.zeros((240, 320, 3), np.uint8)
        >>> mask = np.zeros((240, 320))
        >>> mask[:, 160:] = 0.6  # the right half
        >>> one = lesson(frame, mask)
        >>> one.image.shape, one.mask[0, ::40].tolist()
        ((160, 160, 3), [0, 0, 153, 153])
    """
    mask = _checked_mask(mask)
    if mask.shape != check_image(image).shape[:2]:
        raise ShapeError(
            f"mask has shape {mask.shape}, the frame {image.shape}", do="give both at one size"
        )
    small = np.clip(_squeezed(mask, _LESSON_SIDE), 0, 1)
    return Lesson(_squeezed(image, _LESSON_SIDE), np.rint(255 * small).astype(np.uint8))


def mask_quality(mask: Floats) -> float:
    """Measure how sure the teacher was: the mean of a soft mask's pixels that are not zero.

    Croitoru et al. 2017. A mask of zeros has quality 0.

    Args:
        mask: float (H, W) in [0, 1].

    Raises:
        ShapeError: mask is no such array.

    Examples:
        >>> import numpy as np
        >>> from tagseg.priors import mask_quality
        >>> mask_quality(np.array([[0.0, 0.0], [0.5, 1.0]]))
        0.75
    """
    mask = _checked_mask(mask)
    positive = mask[mask > 0]
    return float(positive.mean(dtype=np.float64)) if positive.size else 0.0


def number_of_best(frames: int, fraction: float) -> int:
    """Return how many frames the best ``fraction`` (above 0 to 1) of ``frames`` is, 1 or more.

    Without frames it is 0. Raises ConfigError if ``fraction`` is out of range.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction is {fraction}", do="give a share above 0, up to 1")
    return min(frames, max(1, round(fraction * frames)))


def best_frames(masks: Iterable[Floats], fraction: float = 0.15) -> npt.NDArray[np.intp]:
    """Choose the frames whose soft masks by the teacher are best, by :func:`mask_quality`.

    Masks of zeros are never among them; of equally good ones the first are.

    Args:
        masks: float (H, W) in [0, 1], one for each frame, gone through once.
        fraction: how many of all masks to choose, above 0 to 1; the paper's is 0.1 to 0.2.

    Returns:
        The indices of the chosen frames, rising.

    Raises:
        ConfigError: fraction is out of range.
        ShapeError: a mask is no such array.

    Examples:
        >>> import numpy as np
        >>> from tagseg.priors import best_frames
        >>> masks = [np.full((2, 2), level) for level in (0.2, 0.9, 0.0, 0.8)]
        >>> best_frames(masks, fraction=0.5).tolist()
        [1, 3]
    """
    qualities = np.array([mask_quality(mask) for mask in masks])
    best = np.argsort(-qualities, kind="stable")[: number_of_best(len(qualities), fraction)]
    return np.sort(best[qualities[best] > 0])


def student_schedule(iterations: int, batch_size: int = 32) -> Schedule:
    """Plan the student's training: Adam at 1e-3, 32 photos an update (Croitoru et al. 2017).

    That the learning rate falls to 0 is assumed.

    Args:
        iterations: updates.
        batch_size: crops for each update.

    Raises:
        ConfigError: a number is below 1.

    Examples:
        >>> from tagseg.priors import student_schedule
        >>> schedule = student_schedule(1500)
        >>> schedule.iterations, schedule.batch_size, schedule.optimizer
        (1500, 32, 'adam')
    """
    return Schedule(iterations, batch_size, 1e-3, optimizer="adam", weight_decay=0.0)


def fit_student(
    net: StudentNet,
    lessons: Sequence[Lesson],
    schedule: Schedule,
    *,
    loop: Loop,
) -> StudentNet:
    """Train ``net`` in place on random 128 x 128 crops of the lessons, mirrored half of the time.

    Croitoru et al. 2017. The loss of a crop is the squared L2 norm of the difference to the
    teacher's soft mask at 32 x 32, a sum over positions: beside a mean the decay would press the
    masks into few shapes. Weights of the full connection decay by 0.004, as a penalty in the loss
    does; nothing else.

    Args:
        net: the network to train, such as ``tagseg.nets.student.student_net("small")``.
        lessons: as :func:`lesson` makes them.
        schedule: see :func:`student_schedule`.
        loop: the device to train on, its precision, the seed of the crops, and what is told, as in
            :func:`tagseg.training.train`.

    Returns:
        ``net``.

    Raises:
        ConfigError: there are no lessons.
        TrainingError: the loss is not finite.

    Examples:
        One update of a student with a single channel:

        >>> import numpy as np
        >>> from tagseg.nets.student import StudentNet
        >>> from tagseg.priors import fit_student, lesson, student_saliency, student_schedule
        >>> from tagseg.training import Loop
        >>> frame, mask = np.full((32, 48, 3), 120, np.uint8), np.zeros((32, 48))
        >>> mask[8:24, 16:32] = 1.0
        >>> lessons = [lesson(frame, mask)]
        >>> net = StudentNet(width=1, last=1, rank=1)
        >>> net = fit_student(net, lessons, student_schedule(1, 1), loop=Loop())
        >>> student_saliency(net, frame).shape
        (32, 48)
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
        groups=groups, loop=loop,
    )  # fmt: skip
    return net


def student_saliency(net: StudentNet, image: Image) -> SaliencyMap:
    """Map what stands out in one photo, by a student network.

    It is what :func:`student_saliencies` gives for a single photo.

    Args:
        net: a student, such as :func:`shipped_student`.
        image: uint8 (H, W, 3) RGB; floats are refused.

    Returns:
        The saliency map, float32 (H, W) in [0, 1].

    Raises:
        ShapeError: image is not uint8 (H, W, 3).

    Examples:
        >>> import numpy as np
        >>> from tagseg.priors import shipped_student, student_saliency
        >>> image = np.full((96, 128, 3), 120, np.uint8)
        >>> image[30:70, 40:90] = (200, 60, 40)
        >>> saliency = student_saliency(shipped_student(), image)
        >>> inside, outside = saliency[35:65, 45:85].mean(), saliency[:20].mean()
        >>> saliency.shape, bool(inside > 10 * outside)
        ((96, 128), True)
    """
    return next(student_saliencies(net, [image]))


def student_saliencies(net: StudentNet, images: Iterable[Image]) -> Iterator[SaliencyMap]:
    """Map what stands out in each of many photos, by a student network.

    16 photos go through the network at a time, and are taken as they are needed. The whole photo is
    squeezed to 128 x 128, whatever its aspect ratio: how the authors bring photos to the network is
    not published. The soft mask is clipped to [0, 1] and resized bilinearly. Computed where the
    network's weights are.

    Args:
        net: a student, such as :func:`shipped_student`; it is put into evaluation mode.
        images: uint8 (H, W, 3) RGB, of any sizes; floats are refused.

    Yields:
        The saliency map of each photo, float32 (H, W) in [0, 1], in order.

    Raises:
        ShapeError: an image is not uint8 (H, W, 3).

    Examples:
        >>> import numpy as np
        >>> from tagseg.priors import shipped_student, student_saliencies
        >>> photos = [np.zeros((30, 40, 3), np.uint8), np.zeros((50, 20, 3), np.uint8)]
        >>> for saliency in student_saliencies(shipped_student(), photos):
        ...     print(saliency.shape)
        (30, 40)
        (50, 20)
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
    """Write a student to a safetensors file, whole or not at all, its weights rounded to float16.

    Args:
        net: the student; it is not changed.
        path: the file, by custom ``.safetensors``.
        about: what it was trained on, for the record.

    Raises:
        WorkspaceError: the file cannot be written.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tagseg.priors import load_student, save_student, shipped_student
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "student.safetensors"
        ...     save_student(shipped_student(), path, {"trained_on": "generated clips"})
        ...     copy = load_student(path)
        >>> copy.configuration == shipped_student().configuration
        True
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
    """Read a student from a file of :func:`save_student`, to the CPU, in evaluation mode.

    Args:
        path: the file.

    Raises:
        WeightsError: there is no such file, it is damaged, or it holds no student.

    Examples:
        >>> from pathlib import Path
        >>> from tagseg.priors import load_student
        >>> load_student(Path("no_such.safetensors"))
        Traceback (most recent call last):
        tagseg.errors.WeightsError: no_such.safetensors: no such student file; train one: ...
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
    """Load the small student that comes with the package, trained on generated clips.

    All calls give the same network: do not train it.

    Raises:
        WeightsError: its file is missing.

    Examples:
        >>> from tagseg.priors import shipped_student
        >>> net = shipped_student()
        >>> sum(values.numel() for values in net.parameters())  # weights
        650404
    """
    if not SHIPPED.is_file():
        raise WeightsError(
            "the package's own student is missing", where=SHIPPED, do="install tagseg again"
        )
    return load_student(SHIPPED)


def _crops(lessons: Sequence[Lesson]) -> Sample:
    """Return a function that cuts the crop of a lesson that training asks for."""

    def sample(i: int, rng: np.random.Generator) -> Mapping[str, npt.NDArray[Any]]:
        top, left = rng.integers(0, _LESSON_SIDE - INPUT_SIDE + 1, 2)
        window = slice(top, top + INPUT_SIDE), slice(left, left + INPUT_SIDE)
        image, mask = (whole[window] for whole in lessons[i])
        if rng.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        exact = mask.astype(np.float32) / 255
        return {
            "image": np.ascontiguousarray(image.transpose(2, 0, 1)),
            "mask": cv2.resize(exact, (GRID, GRID), interpolation=cv2.INTER_AREA),
        }

    return sample


def _squeezed(image: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """Resize a photo or mask to ``side`` x ``side``; each axis averages where it shrinks."""
    height, width = image.shape[:2]
    shrunk = cv2.resize(image, (min(width, side), min(height, side)), interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (side, side), interpolation=cv2.INTER_LINEAR)


def _checked_mask(values: Any) -> SaliencyMap:
    """Return the mask as float32; ShapeError unless it is float (H, W) in [0, 1]."""
    mask = float_array(values, "a mask", "(H, W), the teacher's soft mask")
    if mask.ndim != 2:
        raise ShapeError(f"a mask has shape {mask.shape}", do="give a float array (H, W)")
    if not mask.size or not ((mask >= 0) & (mask <= 1)).all():
        raise ShapeError("a mask is empty or holds values outside 0..1", do="scale it to 0..1")
    return mask


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors of a file and the notes beside them."""
    if not path.is_file():
        raise WeightsError("no such student file", where=path, do="train one: tagseg train-student")
    try:
        tensors, metadata = read_tensors(path)
        notes = json.loads(metadata.get(_NOTES, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path) from error
    return tensors, notes if isinstance(notes, dict) else {}


def _damaged(path: Path) -> WeightsError:
    return WeightsError("is damaged or no student", where=path, do="train or copy it again")
