from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tagseg.data import clips
from tagseg.data.clips import Clip, draw_clip, write_clips
from tagseg.data.images import decode_photo
from tagseg.data.masks import read_mask
from tagseg.data.scenes import OBJECTS, SCENES, SceneKind
from tagseg.data.shapes import Part
from tagseg.data.textures import Material
from tagseg.errors import DataError


def _box(first: tuple[int, int, int], second: tuple[int, int, int] | None = None) -> Any:
    """A box of one colour, or of patches of two."""
    colours = [np.array(colour, np.float32) for colour in (first, second or first)]
    outline = np.array([(-1, -0.7), (1, -0.7), (1, 0.7), (-1, 0.7)], float)
    pattern = "patches" if second else "plain"
    return lambda rng: [Part(outline, Material(*colours, pattern, period=14.0))]


LOUD = SceneKind(
    "loud",
    {"red": _box((255, 0, 0)), "green": _box((0, 255, 0)), "blue": _box((0, 0, 255))},
    (0.0, 1.0),
    0.0,
    (0.25, 0.4),
)


@pytest.fixture(scope="module")
def loud() -> list[Clip]:
    return [draw_clip(LOUD, 0, i, frames=10) for i in range(40)]


def digest(clip: Clip) -> str:
    return hashlib.sha256(clip.frames.tobytes() + clip.labels.tobytes()).hexdigest()


def one_object(many: list[Clip]) -> list[npt.NDArray[np.bool_]]:
    """Where the object is, of the clips that hold one."""
    masks = [clip.labels > 0 for clip in many if len(np.unique(clip.labels)) == 2]
    return [m for m in masks if all(_pieces(mask) < 2 for mask in m)]


def _pieces(mask: npt.NDArray[np.bool_]) -> int:
    return cv2.connectedComponents(mask.astype(np.uint8))[0] - 1


def inside_frame(mask: npt.NDArray[np.bool_]) -> bool:
    edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return bool(mask.any()) and not any(edge.any() for edge in edges)


def middle_of(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    return np.argwhere(mask).mean(0)


# What a clip is a function of


def test_the_same_arguments_give_the_same_pixels() -> None:
    first = [digest(draw_clip(OBJECTS, 3, i, frames=4)) for i in range(4)]
    assert [digest(draw_clip(OBJECTS, 3, i, frames=4)) for i in (3, 2, 1, 0)] == first[::-1]
    others = [digest(draw_clip(OBJECTS, 4, i, frames=4)) for i in range(4)]
    assert len({*first, *others}) == 8


def test_another_process_gives_the_same_pixels() -> None:
    code = (
        "import hashlib; from tagseg.data.clips import draw_clip;"
        "from tagseg.data.scenes import OBJECTS; c = draw_clip(OBJECTS, 3, 7, frames=3);"
        "print(hashlib.sha256(c.frames.tobytes() + c.labels.tobytes()).hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest(draw_clip(OBJECTS, 3, 7, frames=3))


@pytest.mark.parametrize("kind", [OBJECTS, SCENES], ids=lambda kind: kind.name)
@pytest.mark.parametrize("size", [(96, 128), (64, 64), (213, 320)])
def test_frames_and_labels_have_the_size_and_the_classes(
    kind: SceneKind, size: tuple[int, int]
) -> None:
    found = set()
    for i in range(4):
        clip = draw_clip(kind, 1, i, frames=5, height=size[0], width=size[1])
        assert clip.frames.shape == (5, *size, 3)
        assert clip.labels.shape == (5, *size)
        assert clip.frames.dtype == clip.labels.dtype == np.uint8
        assert clip.labels.max() <= len(kind.classes)
        found |= set(np.unique(clip.labels)[1:])
    assert len(found) > 1


# Masks


def test_masks_are_exact_in_every_frame(loud: list[Clip]) -> None:
    for clip in loud:
        for frame, labels in zip(clip.frames, clip.labels, strict=True):
            for label in np.unique(labels)[1:]:
                inside = cv2.erode((labels == label).astype(np.uint8), np.ones((5, 5))) > 0
                colours = frame[inside].astype(int)
                others = np.delete(colours, label - 1, axis=1)
                assert (colours[:, label - 1] > others.max(1) + 30).all()
            outside = cv2.erode((labels == 0).astype(np.uint8), np.ones((5, 5))) > 0
            colours = np.sort(frame[outside].astype(int), axis=1)
            assert (colours[:, 2] - colours[:, 1] > 150).mean() < 0.01


def test_a_clip_holds_one_or_two_objects_that_hide_one_another(loud: list[Clip]) -> None:
    kinds = [len(np.unique(clip.labels)) - 1 for clip in loud]
    assert set(kinds) == {1, 2}
    assert 0.15 < np.mean([count == 2 for count in kinds]) < 0.5
    touching = [
        bool((cv2.dilate((labels == k).astype(np.uint8), np.ones((3, 3))) * (labels > k)).any())
        for clip in loud
        for labels in clip.labels
        for k in (1, 2)
    ]
    assert sum(touching) > 5


def test_objects_are_of_varied_size(loud: list[Clip]) -> None:
    shares = [masks.mean((1, 2)).max() for masks in one_object(loud)]
    assert min(shares) < 0.1
    assert max(shares) > 1.8 * min(shares)
    assert max(shares) < 0.4


# Motion


def test_objects_move_by_more_than_half_their_width(loud: list[Clip]) -> None:
    whole = [m for m in one_object(loud) if inside_frame(m[0]) and inside_frame(m[-1])]
    assert len(whole) > 8
    for masks in whole:
        columns = np.flatnonzero(masks[0].any(0))
        moved = np.linalg.norm(middle_of(masks[-1]) - middle_of(masks[0]))
        assert moved > 0.5 * (columns[-1] + 1 - columns[0])


def test_objects_move_smoothly(loud: list[Clip]) -> None:
    for masks in one_object(loud):
        if not all(inside_frame(mask) for mask in masks):
            continue
        path = np.stack([middle_of(mask) for mask in masks])
        assert np.abs(np.diff(path, n=2, axis=0)).max() < 3.0  # pixels a frame a frame


def test_some_objects_come_in_and_some_go_out(loud: list[Clip]) -> None:
    seen = np.stack([masks.any((1, 2)) for masks in one_object(loud)])
    assert 0 < (~seen[:, 0]).sum() < len(seen) / 3
    assert 0 < (~seen[:, -1]).sum() < len(seen) / 3
    assert seen.mean() > 0.8


def test_an_object_keeps_its_look() -> None:
    """Its patches stay where they are on it; another drawing would have others."""
    patched = replace(LOUD, shapes={"patched": _box((250, 250, 250), (10, 10, 10))})
    compared = 0
    for i in range(8):
        clip = draw_clip(patched, 0, i, frames=30)
        if not one_object([clip]):
            continue
        for t in range(0, 29, 7):
            if not (inside_frame(clip.labels[t] > 0) and inside_frame(clip.labels[t + 1] > 0)):
                continue
            one, other = (_centred(clip.frames[s], clip.labels[s]) for s in (t, t + 1))
            assert np.corrcoef(one, other)[0, 1] > 0.6
            compared += 1
    assert compared > 10


def _centred(frame: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> Any:
    y, x = middle_of(labels > 0)
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return cv2.getRectSubPix(grey, (17, 13), (x, y)).ravel()


def test_some_cameras_stand_still_and_most_move() -> None:
    changes = np.array([_background_change(draw_clip(OBJECTS, 0, i, frames=6)) for i in range(24)])
    still = changes < 4.0
    assert 0.1 < still.mean() < 0.5
    assert np.median(changes[~still]) > 8.0


def _background_change(clip: Clip) -> float:
    """Grey levels between the ends of a clip where both show background, the exposure undone."""
    first, last = (cv2.GaussianBlur(clip.frames[t], (0, 0), 2).astype(float) for t in (0, -1))
    shown = (clip.labels[0] == 0) & (clip.labels[-1] == 0)
    shown = cv2.erode(shown.astype(np.uint8), np.ones((9, 9))) > 0
    gain = first[shown].mean() / last[shown].mean()
    return float(np.abs(first - gain * last)[shown].mean())


def test_distractors_have_no_label_and_move_with_the_background(monkeypatch: Any) -> None:
    """Several of them keep their pattern, up to one shift of it all and a little zoom."""
    monkeypatch.setattr(clips, "DISTRACTORS", (_box((255, 0, 0)),))
    kind = replace(LOUD, shapes={"green": _box((0, 255, 0))}, distractor_rate=1.0)
    moved = 0
    for i in range(8):
        clip = draw_clip(kind, 0, i, frames=10)
        first, last = (_is_red(clip.frames[t]) for t in (0, -1))
        inside = cv2.erode((clip.labels[3] > 0).astype(np.uint8), np.ones((7, 7))) > 0
        assert not (_is_red(clip.frames[3]) & inside).any()
        known = (clip.labels[0] == 0, clip.labels[-1] == 0)
        overlap, shift = _best_shift(first, last, *known)
        assert overlap > 0.6
        moved += shift > 4
    assert moved > 2


def _is_red(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    soft = cv2.GaussianBlur(frame, (0, 0), 1).astype(int)
    return soft[:, :, 0] > soft[:, :, 1:].max(2) + 90


def _best_shift(
    first: npt.NDArray[np.bool_],
    last: npt.NDArray[np.bool_],
    first_known: npt.NDArray[np.bool_],
    last_known: npt.NDArray[np.bool_],
) -> tuple[float, float]:
    """Overlap (intersection over union) at the best shift of ``last``, and that shift."""
    best = (0.0, 0.0)
    for dy in range(-8, 9, 2):
        for dx in range(-36, 37, 2):
            # Only the middle: what np.roll brings round from the other side is not compared.
            middle = np.s_[8:-8, 36:-36]
            rolled, known = (np.roll(a, (dy, dx), (0, 1))[middle] for a in (last, last_known))
            known &= first_known[middle]
            union = ((first[middle] | rolled) & known).sum()
            if union > 20:
                overlap = ((first[middle] & rolled) & known).sum() / union
                best = max(best, (float(overlap), float(np.hypot(dy, dx))))
    return best if best[0] else (1.0, 0.0)  # no distractor near the middle


def test_components_show_the_background_but_not_the_objects() -> None:
    """What VideoPCA needs: the error of the first five components is on what moves."""
    ratios = []
    for i in range(8):
        clip = draw_clip(OBJECTS, 200, i)
        pixels = clip.frames.reshape(30, -1).astype(np.float32)
        pixels -= pixels.mean(0)
        strongest = np.linalg.eigh(pixels @ pixels.T)[1][:, -5:]
        error = pixels - strongest @ (strongest.T @ pixels)
        lengths = np.linalg.norm(error.reshape(*clip.labels.shape, 3), axis=3)
        ratios.append(lengths[clip.labels > 0].mean() / lengths[clip.labels == 0].mean())
    assert min(ratios) > 1.3
    assert np.median(ratios) > 2.5


# Errors


def test_one_frame_shows_no_motion() -> None:
    with pytest.raises(DataError, match="a clip of 1 frames shows no motion; use 2 frames or more"):
        draw_clip(OBJECTS, 0, 0, frames=1)


def test_a_size_that_shows_nothing_is_refused() -> None:
    invisible = replace(LOUD, sizes=(0.001, 0.002))
    with pytest.raises(
        DataError, match="no legible clip in 20 attempts at 128 x 96; use a larger size"
    ):
        draw_clip(invisible, 0, 0, frames=3)


# Files


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips") / "new" / "set"
    write_clips(folder, count=3, frames=4, seed=5, height=48, width=64)
    return folder


def test_written_clips_are_the_drawn_ones(written: Path) -> None:
    for index in range(3):
        clip = draw_clip(OBJECTS, 5, index, frames=4, height=48, width=64)
        for t in range(4):
            name = f"clip_{index:05d}/frame_{t:05d}"
            mask = read_mask(written / "SegmentationClass" / f"{name}.png")
            np.testing.assert_array_equal(mask, clip.labels[t])
            photo = decode_photo(written / "JPEGImages" / f"{name}.jpg")
            assert np.abs(photo.astype(int) - clip.frames[t]).mean() < 6  # JPEG
    assert len(list(written.rglob("*.jpg"))) == len(list(written.rglob("*.png"))) == 12
    assert (written / "classes.txt").read_text().split() == ["background", *OBJECTS.classes]


def test_every_clip_is_announced(tmp_path: Path) -> None:
    calls: list[None] = []
    write_clips(tmp_path / "set", count=2, frames=2, advance=lambda: calls.append(None))
    assert len(calls) == 2


def test_a_set_of_clips_is_whole_or_not_there(tmp_path: Path) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        write_clips(tmp_path / "set", count=2, frames=2, advance=full)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="exists already"):
        write_clips(tmp_path, count=2)
