"""Write a generated copy of YouTube-Objects' layout: moving objects, as in the data set's folders.

python tools/youtube_copy.py OUT
python tools/youtube_copy.py OUT --videos 6 --masked 2 --frames 24 --classes boat,cat

Frames lie in OUT/v1/CLASS/data/VIDEO/shots/SHOT/frame0001.jpg. The last --masked videos of a class
have masks of every --every-th frame of their first shot in OUT/youtube_masks, black and white JPEG
of half the frames' size, as the published ones may be. Nothing of it is from YouTube.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from tagseg.data.clips import Clip, draw_clip
from tagseg.data.scenes import SINGLE, SceneKind
from tagseg.errors import ConfigError


class Plan(NamedTuple):
    """How much is written of each class.

    Attributes:
        videos, masked: how many, and how many of these, the last ones, have masks.
        shots, frames: of a video, of a shot.
        every: of so many frames of a masked shot one has a mask.
        height, width: of a frame, pixels.
    """

    videos: int = 4
    masked: int = 1
    shots: int = 2
    frames: int = 20
    every: int = 5
    height: int = 96
    width: int = 128


def write_copy(folder: Path, classes: Sequence[str], plan: Plan, seed: int = 0) -> None:
    """Write the copy into a folder that is not there.

    Raises:
        ConfigError: it is there, or a class is none that can be drawn.
    """
    strange = [name for name in classes if name not in SINGLE.shapes]
    if strange or folder.exists():
        what = f"no class '{strange[0]}' can be drawn" if strange else "this folder exists"
        do = f"choose of {', '.join(SINGLE.shapes)}" if strange else "give another"
        raise ConfigError(what, where=folder, do=do)
    for name in classes:
        kind = kind_of(name)
        for video in range(1, plan.videos + 1):
            for shot in range(1, plan.shots + 1):
                index = video * plan.shots + shot
                clip = draw_clip(
                    kind,
                    seed,
                    index,
                    frames=plan.frames,
                    height=plan.height,
                    width=plan.width,
                )
                inner = Path(name, "data", f"{video:04d}", "shots", f"{shot:03d}")
                _write_frames(folder / "v1" / inner, clip)
                if shot == 1 and video > plan.videos - plan.masked:
                    _write_labels(folder / "youtube_masks" / inner / "labels", clip, plan.every)


def kind_of(name: str) -> SceneKind:
    """Scenes of one class alone."""
    return replace(SINGLE, name=f"video {name}", shapes={name: SINGLE.shapes[name]})


def _write_frames(folder: Path, clip: Clip) -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(clip.frames, 1):
        Image.fromarray(frame).save(folder / f"frame{number:04d}.jpg", quality=92)


def _write_labels(folder: Path, clip: Clip, every: int) -> None:
    folder.mkdir(parents=True)
    for number in range(1, len(clip.labels) + 1, every):
        mask = (clip.labels[number - 1] > 0).astype(np.uint8) * 255
        half = cv2.resize(
            mask, (mask.shape[1] // 2, mask.shape[0] // 2), None, 0, 0, cv2.INTER_AREA
        )
        Image.fromarray(half).save(folder / f"{number:05d}.jpg", quality=95)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--classes", default=",".join(SINGLE.shapes))
    parser.add_argument("--seed", type=int, default=0)
    for name, value in Plan()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=value)
    given = vars(parser.parse_args())
    plan = Plan(**{name: given[name] for name in Plan._fields})
    write_copy(given["out"], given["classes"].split(","), plan, given["seed"])


if __name__ == "__main__":
    main()
