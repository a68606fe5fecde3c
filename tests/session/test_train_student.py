from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PilImage
from rich.console import Console

from small_runs import contents
from small_runs import tagseg as command
from tagseg.data.masks import read_mask, write_mask
from tagseg.data.shots import find_shots
from tagseg.errors import ConfigError, DataError, MaskError, TagsegError, TrainingError
from tagseg.evaluate.saliency import SaliencyScores
from tagseg.nets import student as nets
from tagseg.priors.student import best_frames, lesson, load_student, student_saliency
from tagseg.priors.videopca import videopca_masks
from tagseg.run.progress import Progress
from tagseg.session import train_student as training_student
from tagseg.session.train_student import StudentTraining, train_student

FRAMES, SHOTS = 8, 6
QUICK: dict[str, Any] = {"iterations": 2, "fraction": 0.25, "device": "cpu"}
HELD_OUT = "shot_10"  # the fifth, in natural order


def trained(videos: Path, out: Path, **values: Any) -> Any:
    """Train; the numbers among ``values`` are those of the training."""
    names = {item.name for item in fields(StudentTraining)}
    numbers = {name: values.pop(name) for name in names & values.keys()}
    return train_student(videos, out, StudentTraining(**numbers), **values)


@pytest.fixture(autouse=True)
def tiny_students(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"small": {"width": 4, "last": 2, "branch": 2, "rank": 4}, "published": {}}
    monkeypatch.setattr(nets, "STUDENTS", sizes)
    schedule = training_student.student_schedule
    monkeypatch.setattr(training_student, "student_schedule", lambda n: schedule(n, batch_size=4))


def frames_and_masks(seed: int) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    """A coloured disk that passes over a textured ground."""
    rng = np.random.default_rng(seed)
    ground = cv2.GaussianBlur(rng.integers(0, 256, (48, 64, 3), np.uint8), (0, 0), 4)
    colour = [int(v) for v in rng.permutation([230, 40, 90])]
    for t in range(FRAMES):
        frame, mask = ground.copy(), np.zeros((48, 64), np.uint8)
        place = (22 + 3 * t, 24)
        cv2.circle(frame, place, 8, colour, -1)
        cv2.circle(mask, place, 8, 1, -1)
        yield frame, mask


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shots as folders of frames, and masks of their frames."""
    folder = tmp_path_factory.mktemp("shots")
    for number in (1, 2, 3, 4, 10, 11):
        for part in ("JPEGImages", "SegmentationClass"):
            (folder / part / f"shot_{number}").mkdir(parents=True)
        for t, (frame, mask) in enumerate(frames_and_masks(number)):
            name = f"shot_{number}/{t}.png"
            PilImage.fromarray(frame).save(folder / "JPEGImages" / name)
            write_mask(folder / "SegmentationClass" / name, mask)
    return folder


@pytest.fixture
def place(drawn: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(drawn, tmp_path / "clips"))


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The lessons of each training."""
    seen: list[Any] = []
    fit = training_student.fit_student

    def spy(net: Any, lessons: Any, schedule: Any, **more: Any) -> Any:
        seen.append((list(lessons), schedule, more))
        return fit(net, lessons, schedule, **more)

    monkeypatch.setattr(training_student, "fit_student", spy)
    return seen


def taught(folder: Path, names: set[str]) -> list[tuple[Any, Any]]:
    """Frames and the teacher's masks, of all shots of these names."""
    return [
        pair
        for shot in find_shots(folder)
        if shot.name in names
        for pair in zip(shot.frames(), videopca_masks(shot.frames), strict=True)
    ]


ALL = {f"shot_{number}" for number in (1, 2, 3, 4, 10, 11)}


def test_the_file_holds_the_student(drawn: Path, tmp_path: Path) -> None:
    out = tmp_path / "student.safetensors"
    done = trained(drawn, out, **QUICK)
    assert load_student(out).digest == done.net.digest
    assert (done.shots, done.too_short, done.frames, done.lessons) == (6, 0, 48, 12)
    assert done.teacher is done.student is None
    assert done.lines() == [
        "trained on 12 of 48 frames of 6 shots, those whose masks the teacher was surest of",
        "quality was not measured: no masks of shots to hold out",
    ]
    assert list(tmp_path.iterdir()) == [out]


def test_it_is_trained_on_the_best_frames(drawn: Path, tmp_path: Path, fitted: list[Any]) -> None:
    trained(drawn, tmp_path / "f", seed=3, **QUICK)
    pairs = taught(drawn, ALL)
    best = best_frames([mask for _, mask in pairs], 0.25)
    assert len(best) == 12
    ((lessons, schedule, more),) = fitted
    assert len(lessons) == 12
    for got, index in zip(lessons, best, strict=True):
        expected = lesson(*pairs[index])
        np.testing.assert_array_equal(got.image, expected.image)
        np.testing.assert_array_equal(got.mask, expected.mask)
    assert schedule.iterations == 2
    assert more["loop"].execution.seed == 3


def test_masks_only_score_the_shots_held_out(
    drawn: Path, tmp_path: Path, fitted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def spy(path: Path) -> Any:
        assert len(fitted) == 1, "masks are read when the training is over"
        read.append(path)
        return read_mask(path)

    monkeypatch.setattr(training_student, "read_mask", spy)
    masks = drawn / "SegmentationClass"
    done = trained(drawn, tmp_path / "f", masks=masks, **QUICK)
    assert read == [masks / HELD_OUT / f"{t}.png" for t in range(FRAMES)]
    pairs = taught(drawn, ALL - {HELD_OUT})
    best = best_frames([mask for _, mask in pairs], 0.25)
    lessons = fitted[0][0]
    assert (done.shots, done.frames, done.lessons, len(lessons)) == (5, 40, 10, 10)
    for got, index in zip(lessons, best, strict=True):
        np.testing.assert_array_equal(got.image, lesson(*pairs[index]).image)
    teacher, student = SaliencyScores(), SaliencyScores()
    for t, (frame, mask) in enumerate(taught(drawn, {HELD_OUT})):
        truth = read_mask(masks / HELD_OUT / f"{t}.png")
        teacher.update(mask, truth)
        student.update(student_saliency(done.net, frame), truth)
    assert done.teacher == teacher.summary()
    assert done.student is not None
    assert done.student == pytest.approx(student.summary(), abs=1e-4)
    assert done.lines()[-1] == (
        f"on 8 frames of shots held out, mean IoU: teacher, which sees the whole shot, "
        f"{teacher.summary()['mean_iou']:.3f}, student, one frame at a time, "
        f"{done.student['mean_iou']:.3f}"
    )


def test_the_teacher_finds_the_disk(drawn: Path) -> None:
    """Else the figures above would be those of nothing."""
    scores = SaliencyScores()
    for t, (_, mask) in enumerate(taught(drawn, {HELD_OUT})):
        scores.update(mask, read_mask(drawn / "SegmentationClass" / HELD_OUT / f"{t}.png"))
    assert scores.summary()["mean_iou"] > 0.2


def test_too_few_shots_to_hold_any_out(place: Path, tmp_path: Path) -> None:
    for name in ("shot_1", "shot_2"):
        shutil.rmtree(place / "JPEGImages" / name)
    done = trained(place, tmp_path / "f", masks=place / "SegmentationClass", **QUICK)
    assert (done.shots, done.student) == (4, None)
    assert "quality was not measured" in done.lines()[-1]


def test_masks_are_of_the_frames_at_full_size(place: Path, tmp_path: Path) -> None:
    """Frames that are worked on at a smaller size are scored at their own."""
    for path in sorted((place / "JPEGImages" / HELD_OUT).iterdir()):
        image = PilImage.open(path).resize((640, 480))
        image.save(path)
    for path in sorted((place / "SegmentationClass" / HELD_OUT).iterdir()):
        write_mask(path, np.kron(read_mask(path), np.ones((10, 10), np.uint8)))
    done = trained(place, tmp_path / "f", masks=place / "SegmentationClass", **QUICK)
    assert done.teacher is not None
    assert done.teacher["photos"] == FRAMES
    assert done.teacher["mean_iou"] > 0.2


def test_at_most_so_many_frames(drawn: Path, tmp_path: Path, fitted: list[Any]) -> None:
    done = trained(drawn, tmp_path / "f", max_frames=3, **QUICK)
    pairs = taught(drawn, ALL)
    best = best_frames([mask for _, mask in pairs], 3 / 48)
    assert done.lessons == 3
    for got, index in zip(fitted[0][0], best, strict=True):
        np.testing.assert_array_equal(got.image, lesson(*pairs[index]).image)


def test_short_shots_are_left_out(place: Path, tmp_path: Path) -> None:
    for t in range(2, FRAMES):
        (place / "JPEGImages" / "shot_3" / f"{t}.png").unlink()
    done = trained(place, tmp_path / "f", **QUICK)
    assert (done.shots, done.too_short, done.frames) == (5, 1, 40)
    assert "note: 1 shots are too short for the teacher: left out" in done.lines()


def test_the_same_file_again_and_another_for_another_seed(drawn: Path, tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trained(drawn, tmp_path / name, seed=seed, **QUICK)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1] != files[2]


def test_it_tells_how_far_it_is(drawn: Path, tmp_path: Path) -> None:
    said = io.StringIO()
    progress = Progress(Console(file=said, width=200))
    masks = drawn / "SegmentationClass"
    trained(drawn, tmp_path / "f", masks=masks, progress=progress, **QUICK)
    for line in ("through the teacher: 40 done", "the student: 2 done", "held out: 1 done"):
        assert line in said.getvalue()


# What cannot be used


def refused(kind: type[TagsegError], place: Path, **more: Any) -> str:
    before = contents(place)
    with pytest.raises(kind) as caught:
        trained(place, place / "out", **QUICK | more)
    assert contents(place) == before, "nothing is written"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_shots_that_stand_still(place: Path) -> None:
    for path in (place / "JPEGImages").rglob("*.png"):
        PilImage.new("RGB", (64, 48), (90, 120, 40)).save(path)
    told = refused(TrainingError, place)
    assert "clips: the teacher found nothing that moves in 48 frames" in told


def test_no_shots_at_all(place: Path) -> None:
    shutil.rmtree(place / "JPEGImages")
    shutil.rmtree(place / "SegmentationClass")
    assert "holds neither pictures nor video files" in refused(DataError, place)


def test_masks_that_do_not_fit(place: Path) -> None:
    masks = place / "SegmentationClass"
    (masks / HELD_OUT / "7.png").unlink()
    told = refused(MaskError, place, masks=masks)
    assert f"{HELD_OUT}: has 7 masks for the 8 frames of the shot {HELD_OUT}" in told
    shutil.rmtree(masks / HELD_OUT)
    assert f"has no masks of {HELD_OUT}" in refused(MaskError, place, masks=masks)
    shutil.rmtree(masks)
    assert "this folder does not exist" in refused(DataError, place, masks=masks)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"fraction": 0}, "fraction is 0"),
        ({"fraction": 1.5}, "fraction is 1.5"),
        ({"iterations": 0}, "iterations is 0"),
        ({"max_frames": 0}, "max_frames is 0"),
        ({"size": "big"}, "there is no student 'big'"),
        ({"device": "tpu"}, "device 'tpu' does not exist"),
        ({"seed": -1}, "seed is -1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_meant(place: Path, wrong: dict[str, Any], message: str) -> None:
    assert message in refused(ConfigError, place, **wrong)


def test_places_that_cannot_be_written_are_told_before_work(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("work before the check")

    monkeypatch.setattr(training_student, "find_shots", never)
    for out, message in ((place, "is a folder"), (place / "no" / "f", "its folder does not exist")):
        with pytest.raises(ConfigError, match=message):
            trained(place, out, **QUICK)


def test_the_command(drawn: Path, tmp_path: Path) -> None:
    out = tmp_path / "student.safetensors"
    done = command(
        "train-student", drawn, "--out", out, "--iterations", 2, "--fraction", 0.25,
        "--masks", drawn / "SegmentationClass", "--device", "cpu", "--threads", 1,
    )  # fmt: skip
    assert done.status == 0, done
    assert "trained on 10 of 40 frames of 5 shots" in done.out
    assert f"written: {out}" in done.out
    assert load_student(out).configuration["width"] == 4


def test_the_command_says_what_is_wrong_in_a_line(tmp_path: Path) -> None:
    done = command("train-student", tmp_path / "gone", "--out", tmp_path / "f")
    assert done.status == 2
    assert "gone: there is no such file or folder" in done.err
    assert "Traceback" not in done.err
