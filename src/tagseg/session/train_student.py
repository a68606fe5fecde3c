"""A student from unlabelled video: shots, their teacher, its best frames, the network.

Croitoru, Bogolin and Leordeanu, ICCV 2017, with VideoPCA for a teacher. Nothing here learns from
human annotation: masks, where there are any, only score shots that were not trained on.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch

from tagseg.data.finding import find_masks
from tagseg.data.masks import read_mask
from tagseg.data.shots import VIDEO_SUFFIXES, Shot, find_shots, natural_key
from tagseg.data.text import readable
from tagseg.errors import ConfigError, MaskError, TrainingError
from tagseg.evaluate.saliency import SaliencyScores
from tagseg.maps import Image, SaliencyMap
from tagseg.nets.student import StudentName, StudentNet, student_net
from tagseg.priors.student import (
    Lesson,
    fit_student,
    lesson,
    load_student,
    mask_quality,
    number_of_best,
    save_student,
    student_saliencies,
    student_schedule,
)
from tagseg.priors.videopca import VideoPcaSettings, videopca_masks
from tagseg.run.engine import choose_device, choose_precision
from tagseg.run.progress import Progress
from tagseg.training import Execution, Loop, Schedule

__all__ = ["StudentTraining", "TrainedStudent", "train_student"]

_HELD_OUT = 5  # every 5th shot is scored and not trained on


_SIDE = 320  # longest side of frames, pixels: twice that of a lesson


# The paper does not say how long it trained: assumed.
_ITERATIONS: dict[StudentName, int] = {"small": 1500, "published": 20_000}


@dataclass(frozen=True)
class StudentTraining:
    """The numbers of a training. Raises ConfigError at numbers out of range.

    Attributes:
        size: "small", or "published", which wants a GPU.
        fraction: share of all frames that is trained on; the paper's is 0.1 to 0.2.
        iterations: updates of 32 crops each; None for 1,500 of the small student and 20,000 of
            the published one.
        max_frames: most frames to train on.
        seed: of all draws.
    """

    size: StudentName = "small"
    fraction: float = 0.15
    iterations: int | None = None
    max_frames: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"fraction is {self.fraction}", do="give a share above 0, up to 1")
        if self.max_frames < 1:
            raise ConfigError(f"max_frames is {self.max_frames}", do="give 1 or more")

    def schedule(self) -> Schedule:
        """How long and how fast; ConfigError for less than one iteration."""
        usual = _ITERATIONS.get(self.size, 1)
        return student_schedule(usual if self.iterations is None else self.iterations)


@dataclass(frozen=True)
class TrainedStudent:
    """What :func:`train_student` did.

    Attributes:
        net: the student, as it is in the file.
        shots: how many it was trained on.
        too_short: shots that the teacher could not work on, left out.
        frames: how many it saw.
        lessons: how many of them were the best, and trained on.
        teacher, student: scores of shots held out by
            :class:`~tagseg.evaluate.saliency.SaliencyScores`; None if nothing was measured.
    """

    net: StudentNet
    shots: int
    too_short: int
    frames: int
    lessons: int
    teacher: dict[str, float] | None
    student: dict[str, float] | None

    def lines(self) -> list[str]:
        """What a person wants to know, one thing a line."""
        told = [
            f"trained on {self.lessons} of {self.frames} frames of {self.shots} shots, "
            "those whose masks the teacher was surest of"
        ]
        if self.too_short:
            told.append(f"note: {self.too_short} shots are too short for the teacher: left out")
        if self.teacher is None or self.student is None:
            told.append("quality was not measured: no masks of shots to hold out")
            return told
        told.append(
            f"on {self.student['photos_with_objects']} frames of shots held out, mean IoU: "
            f"teacher, which sees the whole shot, {self.teacher['mean_iou']:.3f}, "
            f"student, one frame at a time, {self.student['mean_iou']:.3f}"
        )
        return told


def train_student(
    videos: Path,
    out: Path,
    numbers: StudentTraining = StudentTraining(),
    *,
    masks: Path | None = None,
    settings: VideoPcaSettings | None = None,
    device: str = "auto",
    precision: str = "auto",
    progress: Progress | None = None,
) -> TrainedStudent:
    """Train a student (Croitoru et al. 2017) on what VideoPCA finds in shots; write it.

    The teacher goes through one shot after the other. Its best frames, by the mean of the mask
    pixels that are not zero, are kept at 160 x 160 (0.1 MB each) and trained on. With masks, and
    5 shots or more, every 5th shot is left out of training, and both teacher and student are
    scored on it: the mean intersection over union of the maps cut at half of their maximum.

    Args:
        videos: video file or folder, see :func:`tagseg.data.shots.find_shots`.
        out: file of the student, ``.safetensors``.
        masks: ground truth of frames, ``<shot>/<frame>.png``, one for each frame in order, for
            scores of shots held out alone; shots without masks are trained on.
        settings: of the teacher, by default the paper's.
        device: "auto", "cpu" or "cuda"; the teacher works on the CPU.
        precision: of the training: "auto", "fp32" or "bf16".

    Raises:
        DataError: shots or masks cannot be used; the line names the file.
        ConfigError: a number is out of range, or ``out`` is no place for a file.
        TrainingError: the teacher found nothing, or the loss is not finite.
        WorkspaceError: the file cannot be written.
    """
    progress = progress if progress is not None else Progress()
    settings = settings or VideoPcaSettings()
    schedule = numbers.schedule()
    _check_place(out)
    where = choose_device(device)
    execution = Execution(where, choose_precision(precision, where), numbers.seed)
    net = _untrained(numbers.size, numbers.seed)
    taught, held_out = _split(find_shots(Path(videos)), masks)
    best = _best_lessons(taught, numbers, settings, progress)
    if not best.lessons:
        raise TrainingError(
            f"the teacher found nothing that moves in {best.frames} frames",
            where=videos,
            do="give shots of moving things, of 10 frames or more",
        )
    with progress.task("training the student", schedule.iterations) as ticks:
        fit_student(net, best.lessons, schedule, loop=Loop(execution, ticks=ticks))
    trained_on = (
        f"{len(best.lessons)} of {best.frames} frames of {readable(Path(videos).absolute().name)}"
    )
    save_student(net, out, {"trained_on": trained_on, "teacher": "VideoPCA"})
    written = load_student(out).to(execution.device)
    scores = _scores(written, held_out, settings, progress)
    counts = len(taught) - best.too_short, best.too_short, best.frames, len(best.lessons)
    return TrainedStudent(written, *counts, *scores)


@dataclass(frozen=True)
class _HeldOut:
    """A shot and the files of its frames' masks, in order."""

    shot: Shot
    masks: tuple[Path, ...]


@dataclass
class _Best:
    """The best lessons, in the order of the frames, and how many frames they are the best of."""

    lessons: list[Lesson]
    frames: int = 0
    too_short: int = 0


def _check_place(out: Path) -> None:
    if out.is_dir():
        raise ConfigError("is a folder", where=out, do="name a file, such as student.safetensors")
    folder = out.absolute().parent
    if not folder.is_dir():
        raise ConfigError("its folder does not exist", where=out, do="make the folder first")
    if not os.access(folder, os.W_OK):
        raise ConfigError("its folder cannot be written to", where=out, do="choose another place")


def _untrained(size: StudentName, seed: int) -> StudentNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return student_net(size)


def _split(shots: Sequence[Shot], masks: Path | None) -> tuple[list[Shot], list[_HeldOut]]:
    """Shots to train on, and every 5th, if there are masks of it, to score."""
    if masks is None or len(shots) < _HELD_OUT:
        return list(shots), []
    files = sorted(find_masks(Path(masks)).items(), key=lambda item: natural_key(item[0]))
    held_out = []
    for shot in shots[_HELD_OUT - 1 :: _HELD_OUT]:
        name = Path(shot.name)
        folder = (name.with_suffix("") if name.suffix in VIDEO_SUFFIXES else name).as_posix()
        own = tuple(path for mask, path in files if mask.rpartition("/")[0] == folder)
        if own and len(own) != shot.count():
            raise MaskError(
                f"has {len(own)} masks for the {shot.count()} frames of the shot {shot.name}",
                where=Path(masks) / folder,
                do="give one for each frame, or none",
            )
        if own:
            held_out.append(_HeldOut(shot, own))
    if not held_out:
        raise MaskError(
            f"has no masks of {shots[_HELD_OUT - 1].name}, nor of the other shots to score",
            where=masks,
            do="name the folders of masks as the shots: <shot>/<frame>.png",
        )
    scored = {one.shot.name for one in held_out}
    return [shot for shot in shots if shot.name not in scored], held_out


def _best_lessons(
    shots: Sequence[Shot], numbers: StudentTraining, settings: VideoPcaSettings, progress: Progress
) -> _Best:
    """What :func:`tagseg.priors.student.best_frames` chooses of all frames, as they come by.

    Shots are counted beforehand, so that no more lessons are kept than there will be.
    """
    counts = [shot.count() for shot in shots]
    enough = [shot for shot, n in zip(shots, counts, strict=True) if n > settings.components]
    total = sum(n for n in counts if n > settings.components)
    room = min(numbers.max_frames, number_of_best(total, numbers.fraction))
    kept: list[tuple[float, int, Lesson]] = []  # a heap, the worst first
    number = 0
    with progress.task("frames through the teacher", total) as ticks:
        for shot in enough:
            for image, mask in _taught(shot, settings):
                number += 1
                ticks.advance()
                quality = mask_quality(mask)
                rank = (quality, -number)  # of equally good ones the first stay
                if quality > 0 and (len(kept) < room or rank > kept[0][:2]):
                    push = heapq.heappush if len(kept) < room else heapq.heapreplace
                    push(kept, (*rank, lesson(image, mask)))
    lessons = [one for _, _, one in sorted(kept, key=lambda item: -item[1])]
    return _Best(lessons, number, len(shots) - len(enough))


def _taught(shot: Shot, settings: VideoPcaSettings) -> Iterator[tuple[Image, SaliencyMap]]:
    """Each frame and the teacher's soft mask of it."""
    masks = videopca_masks(lambda: shot.frames(_SIDE), settings)
    return zip(shot.frames(_SIDE), masks, strict=True)


def _scores(
    net: StudentNet, held_out: Sequence[_HeldOut], settings: VideoPcaSettings, progress: Progress
) -> tuple[dict[str, float], dict[str, float]] | tuple[None, None]:
    if not held_out:
        return None, None
    teacher, student = SaliencyScores(), SaliencyScores()
    with progress.task("scoring shots held out", len(held_out)) as ticks:
        for shot, paths in ((one.shot, one.masks) for one in held_out):
            alone = student_saliencies(net, shot.frames(_SIDE))
            for path, (_, taught), found in zip(paths, _taught(shot, settings), alone, strict=True):
                truth = read_mask(path)
                for scores, answer in ((teacher, taught), (student, found)):
                    scores.update(_resized(answer, truth.shape), truth)
            ticks.advance()
    return teacher.summary(), student.summary()


def _resized(saliency: SaliencyMap, shape: tuple[int, ...]) -> SaliencyMap:
    size = (shape[1], shape[0])
    return cv2.resize(saliency, size, interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]
