from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.data.clips import draw_clip
from tagseg.data.scenes import OBJECTS
from tagseg.errors import ConfigError, ShapeError, WeightsError, WorkspaceError
from tagseg.evaluate.saliency import SaliencyScores
from tagseg.nets.student import StudentNet
from tagseg.priors import student
from tagseg.priors.student import (
    SHIPPED,
    Lesson,
    best_frames,
    fit_student,
    lesson,
    load_student,
    mask_quality,
    number_of_best,
    save_student,
    shipped_student,
    student_saliencies,
    student_saliency,
    student_schedule,
)
from tagseg.priors.videopca import videopca_masks
from tagseg.training import Execution, Loop

TINY: dict[str, Any] = {"width": 4, "last": 2, "branch": 3, "rank": 5}
Float32 = npt.NDArray[np.float32]


def tiny(seed: int = 0) -> StudentNet:
    torch.manual_seed(seed)
    return StudentNet(**TINY).eval()


def mask_of(*values: float) -> Float32:
    return np.array([values], np.float32)


def some_lessons(count: int, seed: int = 0) -> list[Lesson]:
    """A bright disk somewhere on a dark ground, and its mask."""
    rng = np.random.default_rng(seed)
    lessons = []
    for _ in range(count):
        centre = tuple(int(v) for v in rng.integers(50, 110, 2))
        mask = np.zeros((160, 160), np.uint8)
        cv2.circle(mask, centre, 30, 255, -1)
        image = rng.integers(0, 40, (160, 160, 3), np.uint8) + (mask[..., None] // 2)
        lessons.append(Lesson(image, mask))
    return lessons


# The best frames


def test_quality_is_the_mean_of_what_is_not_zero() -> None:
    assert mask_quality(mask_of(0, 0.5, 0, 1)) == 0.75
    assert mask_quality(mask_of(0.3)) == pytest.approx(0.3)
    assert mask_quality(mask_of(0, 0)) == 0


def test_the_best_part_in_order() -> None:
    masks = [mask_of(0, value) for value in (0.5, 0.9, 0.7, 0.8, 0.1, 0.2, 0.3, 0.4, 0.6, 0.05)]
    assert best_frames(masks, 0.3).tolist() == [1, 2, 3]
    assert best_frames(iter(masks), 0.1).tolist() == [1]
    assert best_frames(masks, 1).tolist() == list(range(10))
    assert best_frames(masks, 0.001).tolist() == [1], "at least one"
    assert len(best_frames(masks * 10)) == 15


def test_zeros_are_never_chosen() -> None:
    masks = [mask_of(0, 0), mask_of(0, 0.1), mask_of(0, 0)]
    assert best_frames(masks, 1).tolist() == [1]
    assert best_frames([mask_of(0)], 1).size == 0
    assert best_frames([]).size == 0


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 8), max_size=30), st.floats(0.01, 1))
def test_no_frame_left_out_is_better(levels: list[int], fraction: float) -> None:
    masks = [mask_of(0, level / 8) for level in levels]
    best = best_frames(masks, fraction).tolist()
    rest = [i for i in range(len(levels)) if i not in best]
    assert len(best) <= number_of_best(len(levels), fraction)
    for chosen in best:
        for other in rest:
            # Of equal ones the first is taken.
            assert (levels[chosen], -chosen) > (levels[other], -other)
    assert all(levels[i] > 0 for i in best)
    if len(best) < number_of_best(len(levels), fraction):
        assert all(levels[i] == 0 for i in rest)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
def test_what_is_no_fraction(fraction: float) -> None:
    with pytest.raises(ConfigError, match="fraction is"):
        best_frames([mask_of(1)], fraction)


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((2, 2), np.uint8),
        np.zeros(3, np.float32),
        mask_of(1.1),
        mask_of(-0.1),
        mask_of(np.nan),
        None,
    ],
    ids=["whole numbers", "one axis", "above", "below", "nan", "nothing"],
)
def test_what_is_no_mask(mask: Any) -> None:
    with pytest.raises(ShapeError, match="mask"):
        best_frames([mask])
    with pytest.raises(ShapeError, match="mask"):
        lesson(np.zeros((2, 2, 3), np.uint8), mask)


# Lessons


def test_a_lesson_is_squeezed_to_160() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    image[:, 160:] = 200
    mask = np.zeros((240, 320), np.float32)
    mask[:120] = 0.5
    made = lesson(image, mask)
    assert made.image.shape == (160, 160, 3)
    assert made.mask.shape == (160, 160)
    assert made.image.dtype == made.mask.dtype == np.uint8
    assert (made.image[:, :80] == 0).all()
    assert (made.image[:, 80:] == 200).all()
    assert (made.mask[:80] == 128).all()
    assert (made.mask[80:] == 0).all()


def test_shrinking_averages_and_growing_interpolates() -> None:
    checks = np.indices((320, 100)).sum(0) % 2 * np.uint8(200)
    image = np.repeat(checks[..., None], 3, 2).astype(np.uint8)
    made = lesson(image, np.ones((320, 100), np.float32))
    assert (made.image == 100).all(), "two rows of a checkerboard average to grey"
    ramp = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (40, 1))
    grown = lesson(np.zeros((40, 40, 3), np.uint8), ramp).mask[0].astype(int)
    steps = [b - a for a, b in pairwise(grown)]
    assert 0 <= min(steps) <= max(steps) <= 2, "no blocks"


def test_frame_and_mask_must_fit() -> None:
    with pytest.raises(ShapeError, match=r"mask has shape \(2, 3\), the frame \(3, 2, 3\)"):
        lesson(np.zeros((3, 2, 3), np.uint8), np.zeros((2, 3), np.float32))


def test_samples_are_crops_of_image_and_mask_alike() -> None:
    """Each is a window of the lesson, or its mirror image, with the mask's 4 x 4 means."""
    rng = np.random.default_rng(4)
    one = Lesson(
        rng.integers(0, 256, (160, 160, 3), np.uint8), rng.integers(0, 256, (160, 160), np.uint8)
    )
    sample = student._crops([one])
    windows = np.lib.stride_tricks.sliding_window_view(one.image[..., 0], (128, 128))
    places, mirrored = set(), 0
    for seed in range(25):
        got = sample(0, np.random.default_rng(seed))
        image, target = np.asarray(got["image"]), np.asarray(got["mask"])
        assert image.shape == (3, 128, 128)
        assert (target.shape, target.dtype) == ((32, 32), np.float32)
        found = np.argwhere((windows == image[0]).all((2, 3)))
        flipped = not len(found)
        if flipped:
            found = np.argwhere((windows == image[0, :, ::-1]).all((2, 3)))
        (top, left), *_ = found
        mask = one.mask[top : top + 128, left : left + 128] / 255
        mask = mask[:, ::-1] if flipped else mask
        np.testing.assert_allclose(target, mask.reshape(32, 4, 32, 4).mean((1, 3)), atol=1e-6)
        places.add((int(top), int(left)))
        mirrored += flipped
    assert len(places) > 20
    assert 5 < mirrored < 20


# Learning


def test_it_learns_what_it_is_shown() -> None:
    torch.manual_seed(0)
    net = StudentNet(6, 2, branch=3, rank=16)
    losses: list[float] = []
    fit_student(
        net, some_lessons(24), replace(student_schedule(80, 4), learning_rate=5e-3),
        loop=Loop(Execution(), log=lambda **values: losses.append(values["loss"])),
    )  # fmt: skip
    assert losses[-1] < 0.75 * losses[0]
    image, mask = some_lessons(1, seed=9)[0]
    found = student_saliency(net, image)
    assert found[mask > 0].mean() > found[mask == 0].mean() + 0.15


def test_the_loss_is_the_squared_distance_of_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    given_to: dict[str, Any] = {}

    def spy(net: Any, loss: Any, sample: Any, n: int, schedule: Any, **more: Any) -> None:
        given_to.update(loss=loss, n=n, schedule=schedule, **more)

    monkeypatch.setattr(student, "train", spy)
    net, schedule = tiny(), student_schedule(7)
    fit_student(net, some_lessons(3), schedule, loop=Loop(Execution(seed=3)))
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (2, 3, 128, 128), np.uint8))
    target = torch.from_numpy(rng.random((2, 32, 32), np.float32))
    with torch.no_grad():
        out = net(image / 255).numpy().astype(np.float64)
        got = float(given_to["loss"](net, {"image": image, "mask": target}))
    expected = [((a - b) ** 2).sum() for a, b in zip(out, target.numpy(), strict=True)]
    assert got == pytest.approx(float(np.mean(expected)), rel=1e-5)
    assert given_to["n"] == 3
    assert given_to["loop"].execution.seed == 3
    decays = {group["name"]: group["weight_decay"] for group in given_to["groups"]}
    assert decays == {"convolutions": 0.0, "mask": 0.004, "bias": 0.0}


def test_the_papers_schedule() -> None:
    schedule = student_schedule(100)
    assert (schedule.optimizer, schedule.learning_rate, schedule.batch_size) == ("adam", 1e-3, 32)


def test_the_same_student_again() -> None:
    digests = []
    for seed in (1, 1, 2):
        net = fit_student(
            tiny(), some_lessons(5), student_schedule(3, 4), loop=Loop(Execution(seed=seed))
        )
        digests.append(net.digest)
    assert digests[0] == digests[1] != digests[2]


def test_nothing_to_learn_from() -> None:
    with pytest.raises(ConfigError, match="no lessons"):
        fit_student(tiny(), [], student_schedule(1), loop=Loop(Execution()))


# Answers


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (128, 128), (213, 320), (90, 40)])
def test_a_map_of_the_photos_size(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    found = student_saliency(tiny(), image)
    assert found.shape == shape
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1


def test_the_map_is_the_clipped_mask_resized() -> None:
    net = tiny(3)
    with torch.no_grad():
        net.mask[-1].bias.copy_(torch.linspace(-1, 2, 1024))  # type: ignore[index,union-attr]
    image = np.random.default_rng(2).integers(0, 256, (128, 128, 3), np.uint8)
    with torch.no_grad():
        mask = net(torch.from_numpy(image.transpose(2, 0, 1)[None]) / 255)[0].clamp(0, 1).numpy()
    assert mask.min() == 0
    assert mask.max() == 1
    found = student_saliency(net, image)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(mask)[None, None], (128, 128), mode="bilinear", align_corners=False
    )[0, 0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_many_photos_come_out_as_one_by_one() -> None:
    net, rng = tiny(), np.random.default_rng(0)
    sizes = [(20 + i, 60 - i) for i in range(19)]  # more than a batch
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    together = list(student_saliencies(net, iter(images)))
    assert [found.shape for found in together] == sizes
    for image, found in zip(images, together, strict=True):
        np.testing.assert_allclose(found, student_saliency(net, image), atol=1e-5)
    assert list(student_saliencies(net, [])) == []


def test_photos_are_taken_as_they_are_needed() -> None:
    taken = []

    def photos() -> Any:
        for i in range(100):
            taken.append(i)
            yield np.zeros((8, 8, 3), np.uint8)

    next(student_saliencies(tiny(), photos()))
    assert len(taken) == 16


def test_what_is_no_photo() -> None:
    with pytest.raises(ShapeError, match="image is"):
        student_saliency(tiny(), np.zeros((4, 4, 3)))  # type: ignore[arg-type]


# Files


def test_a_file_holds_the_student(tmp_path: Path) -> None:
    net, path = tiny(), tmp_path / "student.safetensors"
    save_student(net, path, {"trained_on": "clips"})
    again = load_student(path)
    assert again.configuration == net.configuration
    for name, value in net.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value.half().float())
    assert not again.training
    assert again.digest == load_student(path).digest != net.digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["student.safetensors"]
    save_student(again, tmp_path / "b", {"trained_on": "clips"})
    assert (tmp_path / "b").read_bytes() == path.read_bytes()
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    np.testing.assert_allclose(
        student_saliency(again, image), student_saliency(net, image), atol=0.01
    )
    fit_student(again, some_lessons(2), student_schedule(1, 2), loop=Loop(Execution()))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="cannot be used"):
        save_student(tiny(), tmp_path / "no" / "f")


def refused(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        load_student(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def rewritten(path: Path, tensors: Any = None, **notes: Any) -> Path:
    """A student's file with other tensors or notes."""
    save_student(tiny(), path)
    own = safetensors.torch.load_file(path) if tensors is None else tensors
    base = {"format": "student", "version": "1", "configuration": TINY, "about": {}}
    safetensors.torch.save_file(own, path, {"tagseg": json.dumps(base | notes)})
    return path


def test_files_that_are_no_students(tmp_path: Path) -> None:
    path = tmp_path / "f"
    assert "no such student file" in refused(path)
    assert "no such student file" in refused(tmp_path)
    for content in (b"", b"no weights", b"\xff" * 300):
        path.write_bytes(content)
        assert "is damaged" in refused(path)
    safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    assert "holds no student" in refused(path)
    safetensors.torch.save_file({"a": torch.zeros(2)}, path, {"tagseg": "[1"})
    assert "is damaged" in refused(path)
    safetensors.torch.save_file({"a": torch.zeros(2)}, path, {"tagseg": "[1]"})
    assert "holds no student" in refused(path)
    save_student(tiny(), path)
    path.write_bytes(path.read_bytes()[:-10])
    assert "is damaged" in refused(path)


def test_students_that_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "f"
    load_student(rewritten(path))
    assert "another version" in refused(rewritten(path, version="2"))
    assert "holds no student" in refused(rewritten(path, format="forest"))
    for wrong in (
        None, [], 3, {"width": 5}, {**TINY, "width": 0}, {**TINY, "width": 10**12},
        {**TINY, "width": 10**30}, {**TINY, "width": "4"}, {**TINY, "depth": 1},
    ):  # fmt: skip
        assert "is damaged or no student" in refused(rewritten(path, configuration=wrong)), wrong
    state = {k: v.half() for k, v in tiny().state_dict().items()}
    for value in (np.nan, np.inf):
        bad = state | {"hue.0.bias": torch.full((3,), value)}
        assert "is damaged or no student" in refused(rewritten(path, bad))
    assert "is damaged or no student" in refused(
        rewritten(path, {k: v for k, v in state.items() if k != "hue.0.bias"})
    )
    assert "is damaged or no student" in refused(rewritten(path, state | {"more": torch.ones(1)}))


# The student that comes with the package


def test_the_shipped_student_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(student, "SHIPPED", tmp_path / "gone")
    shipped_student.cache_clear()
    with pytest.raises(WeightsError, match="the package's own student is missing; install"):
        shipped_student()


def test_the_shipped_student_is_small_and_one_for_all() -> None:
    assert SHIPPED.stat().st_size < 1.5e6
    shipped_student.cache_clear()
    assert shipped_student() is shipped_student()


def test_the_shipped_student_beats_its_teacher_on_single_frames() -> None:
    """On clips that it was not trained on; the teacher sees the whole shot."""
    teacher, alone = SaliencyScores(), SaliencyScores()
    for index in range(8):
        clip = draw_clip(OBJECTS, 31, index)
        masks = list(videopca_masks(lambda clip=clip: iter(clip.frames)))
        found = student_saliencies(shipped_student(), clip.frames[::6])
        for mask, own, truth in zip(masks[::6], found, clip.labels[::6], strict=True):
            teacher.update(mask, truth)
            alone.update(own, truth)
    assert alone.summary()["mean_iou"] > teacher.summary()["mean_iou"] > 0.3
