"""Generated clips with exact masks: objects that move before a background under a moving camera.

The stand-in for video collections, on which the unsupervised teacher of coarse_to_fine works. One
or two objects are drawn once each, on a layer of their own, and every frame warps the layers; so
an object keeps its look while it moves, turns and changes its size a little. Distractors belong to
the background. A clip is a function of (kind, seed, index) and of its length and size alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

from tagseg.data.drawing import (
    DRAW,
    NOBODY,
    Placed,
    draw_object,
    exposed,
    random_light,
    random_stream,
    random_surroundings,
)
from tagseg.data.masks import write_mask
from tagseg.data.scenes import OBJECTS, SceneKind, whole_folder
from tagseg.data.shapes import DISTRACTORS
from tagseg.data.textures import background
from tagseg.errors import DataError
from tagseg.maps import label_of_tag

__all__ = ["Clip", "draw_clip", "write_clips"]

_CLIPS = 1  # the random numbers of a clip are not those of the picture of the same number
_WIDE, _TALL = 1.7, 1.35  # the panorama over what the camera sees of it
_ROOM = 1.3  # half a layer's side over half its object's width: some parts stick out


@dataclass(frozen=True)
class Clip:
    """Frames (T, H, W, 3), RGB, and their exact labels (T, H, W), both uint8."""

    frames: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Actor:
    """An object on its own layer, RGBA with alpha in 0..1, and its path: (T, 2, 3) warps."""

    layer: npt.NDArray[np.float32]
    tag: int
    path: npt.NDArray[np.float64]


def draw_clip(
    kind: SceneKind,
    seed: int,
    index: int,
    *,
    frames: int = 30,
    height: int = 96,
    width: int = 128,
) -> Clip:
    """Clip ``index`` of the set ``seed``: the same arguments always give the same pixels.

    Every object moves by at least half its own width from the first frame to the last, some into
    the picture or out of it. Raises DataError if ``frames`` is below 2 or the size is too small.
    """
    if frames < 2:
        raise DataError(f"a clip of {frames} frames shows no motion", do="use 2 frames or more")
    for attempt in range(20):
        rng = random_stream(kind.name, seed, index, attempt, _CLIPS)
        clip = _try_clip(kind, rng, frames, height, width)
        if clip is not None:
            return clip
    raise DataError(f"no legible clip in 20 attempts at {width} x {height}", do="use a larger size")


def write_clips(
    folder: Path,
    *,
    count: int,
    frames: int = 30,
    seed: int = 200,
    kind: SceneKind = OBJECTS,
    height: int = 96,
    width: int = 128,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write clips as folders of frames: ``JPEGImages/clip_00000/frame_00000.jpg``, and so on.

    Exact masks in ``SegmentationClass/clip_00000/frame_00000.png`` and the classes in
    ``classes.txt``, for evaluation only. ``advance`` is called once a clip. Written as a whole, as
    :func:`tagseg.data.scenes.write_scenes` does. Raises DataError if ``folder`` is there already or
    cannot be written.
    """
    with whole_folder(folder) as partial:
        for index in range(count):
            clip = draw_clip(kind, seed, index, frames=frames, height=height, width=width)
            _write_clip(partial, f"clip_{index:05d}", clip)
            advance()
        (partial / "classes.txt").write_text(
            "\n".join(("background", *kind.classes)) + "\n", encoding="utf-8"
        )


def _write_clip(folder: Path, name: str, clip: Clip) -> None:
    photos, masks = folder / "JPEGImages" / name, folder / "SegmentationClass" / name
    photos.mkdir(parents=True)
    masks.mkdir(parents=True)
    for i, (frame, labels) in enumerate(zip(clip.frames, clip.labels, strict=True)):
        PilImage.fromarray(frame).save(photos / f"frame_{i:05d}.jpg", quality=95)
        write_mask(masks / f"frame_{i:05d}.png", labels)


def _try_clip(
    kind: SceneKind, rng: np.random.Generator, frames: int, height: int, width: int
) -> Clip | None:
    h, w = height * DRAW, width * DRAW
    actors = _cast(kind, rng, frames, h, w)
    scenery = _scenery(kind, rng, actors, h, w)
    camera = _camera(rng, frames, h, w)
    owners = np.empty((frames, height, width), np.int16)
    pictures = np.empty((frames, height, width, 3), np.uint8)
    light, softness = random_light(rng, h, w), float(rng.uniform(0.3, 0.7))
    gains, grain = 1.0 + _wave(rng, frames, 0.08), rng.uniform(2, 7)
    for t in range(frames):
        view = cv2.warpAffine(scenery, camera[t], (w, h), borderMode=cv2.BORDER_REFLECT)
        canvas = np.asarray(view, np.float32)
        owner = np.full((h, w), NOBODY, np.int16)
        for number, actor in enumerate(actors):
            _stand(canvas, owner, number, actor.layer, actor.path[t])
        noise = grain * rng.standard_normal((height, width, 3), dtype=np.float32)
        pictures[t] = np.clip(exposed(canvas, light, softness) * gains[t] + noise, 0, 255)
        owners[t] = owner[::DRAW, ::DRAW]
    seen = [(owners == number).mean((1, 2)) for number in range(len(actors))]
    # Each object is there, and not just a sliver of it, in most of the frames.
    if any(np.mean(share > 0.012) < 0.6 for share in seen):
        return None
    label_of_owner = np.array([label_of_tag(a.tag) for a in actors] + [0], np.uint8)
    return Clip(pictures, label_of_owner[owners])  # NOBODY, -1, is the last


def _cast(kind: SceneKind, rng: np.random.Generator, frames: int, h: int, w: int) -> list[_Actor]:
    """One or two objects with their paths; the last is in front."""
    count = 1 + int(rng.random() < 0.35)
    shapes = list(kind.shapes.values())
    actors = []
    for tag in rng.choice(len(shapes), size=count):
        # Smaller than in pictures: they need room to move.
        half = h * rng.uniform(*kind.sizes) * (0.75 if count == 1 else 0.6)
        path = _path(rng, frames, half, h, w)
        leftward = bool(path[-1, 0] < path[0, 0])  # what has a face goes where it looks
        side = 2 * math.ceil(_ROOM * half)
        item = Placed(shapes[tag](rng), int(tag), side / 2, side / 2, half, leftward, 0.0)
        colours = np.zeros((side, side, 3), np.float32)
        owner = np.full((side, side), NOBODY, np.int16)
        draw_object(rng, colours, owner, 0, item)
        layer = np.dstack([colours, (owner == 0).astype(np.float32)])
        turns = rng.normal(0, 0.1) + _wave(rng, frames, 0.15)
        scales = 1.0 + np.linspace(0, rng.uniform(-0.2, 0.2), frames) + _wave(rng, frames, 0.03)
        actors.append(_Actor(layer, int(tag), _warps(side, path, turns, scales)))
    return actors


def _path(
    rng: np.random.Generator, frames: int, half: float, h: int, w: int
) -> npt.NDArray[np.float64]:
    """Centres (T, 2), x and y: a straight line past the middle, and a slow wave about it."""
    middle = np.array([w, h]) * (0.5 + rng.normal(0, 0.08, 2))
    length = max(w * rng.uniform(0.25, 0.65), 1.5 * half)  # far enough to be seen to move
    slope = rng.normal(0, 0.25)
    line = middle + np.linspace(-0.5, 0.5, frames)[:, None] * length * np.array([1.0, slope])
    if rng.random() < 0.25:  # the last steps lead out of the picture
        line[:, 0] += np.linspace(0, 1, frames) * max(0.0, w + 1.1 * half - line[-1, 0])
    line[:, 0] = line[:, 0] if rng.random() < 0.5 else w - line[:, 0]
    if rng.random() < 0.5:  # the same way back: some come in
        line = line[::-1]
    return line + np.stack([_wave(rng, frames, 0.1 * half), _wave(rng, frames, 0.15 * half)], 1)


def _scenery(
    kind: SceneKind, rng: np.random.Generator, actors: list[_Actor], h: int, w: int
) -> npt.NDArray[np.float32]:
    """The panorama that the camera passes over, with the distractors that stand in it."""
    present = {kind.classes[actor.tag] for actor in actors}
    height, width = round(_TALL * h), round(_WIDE * w)
    canvas = background(rng, height, width, random_surroundings(rng, present))
    focus = float(rng.uniform(0.5, 2.5))
    canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), focus), np.float32)
    owner = np.full((height, width), NOBODY, np.int16)
    for number in range(int(rng.binomial(4, kind.distractor_rate))):
        shape = DISTRACTORS[int(rng.integers(len(DISTRACTORS)))]
        half = h * rng.uniform(*kind.sizes) * 0.45
        x, y = rng.uniform(0, width), rng.uniform(0.35, 0.8) * height
        item = Placed(shape(rng), -1, x, y, half, rng.random() < 0.5, float(rng.normal(0, 0.12)))
        draw_object(rng, canvas, owner, number, item)
    return canvas


def _camera(rng: np.random.Generator, frames: int, h: int, w: int) -> npt.NDArray[np.float64]:
    """Warps (T, 2, 3) from the panorama to the picture; about a third of the cameras stand still.

    The others pan by up to a quarter of the picture, zoom by up to 8 % and shake a little.
    """
    moves = rng.random() < 0.7
    pan = np.array([rng.uniform(-0.25, 0.25) * w, rng.uniform(-0.06, 0.06) * h]) * moves
    middle = np.array([_WIDE * w, _TALL * h]) / 2
    steps = np.linspace(-0.5, 0.5, frames)[:, None]
    shake = np.stack([_wave(rng, frames, 0.006 * w), _wave(rng, frames, 0.006 * h)], 1) * moves
    centres = middle + steps * pan + shake
    zooms = 1.0 + steps[:, 0] * rng.uniform(-0.08, 0.08) * moves
    warps = np.zeros((frames, 2, 3))
    warps[:, [0, 1], [0, 1]] = zooms[:, None]
    warps[:, :, 2] = np.array([w, h]) / 2 - zooms[:, None] * centres
    return warps


def _warps(
    side: int,
    path: npt.NDArray[np.float64],
    turns: npt.NDArray[np.float64],
    scales: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Warps (T, 2, 3) that bring a layer's middle to ``path``, turned by radians and scaled."""
    c, s = scales * np.cos(turns), scales * np.sin(turns)
    linear = np.stack([np.stack([c, -s], 1), np.stack([s, c], 1)], 1)
    middle = np.full(2, side / 2)
    return np.concatenate([linear, (path - linear @ middle)[:, :, None]], 2)


def _wave(rng: np.random.Generator, frames: int, size: float) -> npt.NDArray[np.float64]:
    """A slow wave (T,) of up to ``size``: half a period to one and a half over the clip."""
    phase = rng.uniform(0, 2 * np.pi) + np.linspace(0, np.pi * rng.uniform(1, 3), frames)
    return rng.uniform(0, size) * np.sin(phase)


def _stand(
    canvas: npt.NDArray[np.float32],
    owner: npt.NDArray[np.int16],
    number: int,
    layer: npt.NDArray[np.float32],
    warp: npt.NDArray[np.float64],
) -> None:
    """Put an object's layer on the canvas, and claim its pixels."""
    side = len(layer)
    corners = np.array([(0, 0, 1), (side, 0, 1), (0, side, 1), (side, side, 1)]) @ warp.T
    left, top = np.maximum(np.floor(corners.min(0)), 0).astype(int)
    right, bottom = np.minimum(np.ceil(corners.max(0)), owner.shape[::-1]).astype(int)
    if right <= left or bottom <= top:
        return
    window = (slice(top, bottom), slice(left, right))
    shifted = warp - np.array([[0, 0, left], [0, 0, top]])
    warped = cv2.warpAffine(layer, shifted, (right - left, bottom - top))
    alpha = warped[:, :, 3:]
    canvas[window] = warped[:, :, :3] + canvas[window] * (1.0 - alpha)  # nothing has colour 0
    owner[window][alpha[:, :, 0] > 0.5] = number
