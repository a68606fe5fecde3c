"""VideoPCA: memory and time of a long shot, its components beside NumPy's, masks beside the truth.

    python benchmarks/videopca.py [--frames N] [--clips N] [--parts cost components masks]

NumPy's threads are those of OMP_NUM_THREADS.

First table: peak memory of a process that masks one shot of N frames of 854 x 480 drawn as they
are asked for, and seconds, those of drawing aside; a process for each working size. Second: the
subspace iteration beside the full decomposition in float64. Third: intersection over union of the
masks with the exact ones of generated clips, by settings, the default first; frames without an
object are left out. Settings are compared, not chosen, by it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from tagseg.data.clips import Clip, draw_clip
from tagseg.data.scenes import OBJECTS
from tagseg.priors.videopca import (
    SmallShot,
    VideoPcaSettings,
    evidence_maps,
    principal_components,
    videopca_masks,
)
from tagseg.run.engine import set_threads

SIZE = (480, 854)
MEMORY_TARGET_GB = 2.0
SIDES = (160, 240, 320)
SETTINGS = {
    "default": {},
    "foreground 0.5 absolute": {"relative": False},
    "components 3": {"components": 3},
    "components 8": {"components": 8},
    "blur 0.03": {"blur": 0.03},
    "blur 0.08": {"blur": 0.08},
    "bins 9": {"bins": 9},
    "bins 31": {"bins": 31},
    "no centre": {"centre": 1e3},
}


def long_shot(count: int) -> Callable[[], Iterator[np.ndarray]]:
    """A camera passes over a noisy texture, and a red box the other way."""
    height, width = SIZE
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.normal(128, 900, (height, width + 400, 3)), (0, 0), 9)
    texture = np.clip(texture, 0, 255).astype(np.uint8)
    noise = rng.integers(0, 8, (height, width, 3)).astype(np.uint8)

    def frames() -> Iterator[np.ndarray]:
        for t in range(count):
            x, left = 400 * t // count, (width - 300) * t // count + 100
            frame = texture[:, x : x + width] // 2
            frame[180:300, left : left + 120] = 220, 30, 30
            yield frame + np.roll(noise, 7 * t, 1)

    return frames


def cost(side: int, count: int) -> dict[str, float]:
    frames, settings = long_shot(count), VideoPcaSettings(side=side)
    start = time.perf_counter()
    for _ in frames():
        pass
    drawn, cpu = time.perf_counter(), time.process_time()
    masked = sum(float((mask > 0).mean()) for mask in videopca_masks(frames, settings))
    drawing = drawn - start
    return {
        "gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "wall": time.perf_counter() - drawn - drawing,
        "cpu": time.process_time() - cpu - drawing,
        "masked": masked / count,
    }


def describe_cost(count: int) -> None:
    print(f"{'side':>6} {'frames':>7} {'peak GB':>8} {'seconds':>8} {'cpu s':>8} {'masked':>7}")
    for side in SIDES:
        command = [sys.executable, __file__, "--child", str(side), "--frames", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        print(
            f"{side:6} {count:7} {found['gb']:8.2f} {found['wall']:8.1f} {found['cpu']:8.1f}"
            f" {found['masked']:7.1%}"
        )
    print(f"target: below {MEMORY_TARGET_GB} GB\n")


def describe_components(count: int = 200) -> None:
    """Share of the best possible variance that is captured, and times."""
    frames = [cv2.resize(one, (160, 90)) for one in long_shot(count)()]
    settings = VideoPcaSettings()
    start = time.process_time()
    with SmallShot(iter(frames), None) as shot:
        kept = time.process_time()
        components = principal_components(shot, settings)
    ours = time.process_time() - kept
    start = time.process_time()
    data = np.asarray(frames, np.float64).reshape(count, -1)
    singular = np.linalg.svd(data - data.mean(0), full_matrices=False)[1]
    theirs = time.process_time() - start
    best = np.square(singular[: settings.components]).sum()
    captured = np.square(components.weights.astype(np.float64)).sum() / best
    print(f"components of {count} frames of 160 x 90: {captured:.6f} of the best variance,")
    print(f"{ours:.2f} s beside {theirs:.2f} s of numpy.linalg.svd: {theirs / ours:.0f} times\n")


def overlaps(clip: Clip, settings: VideoPcaSettings) -> np.ndarray:
    """Of the mask and of its part over 0.8: means over the clip's frames that hold an object."""
    masks = videopca_masks(lambda: iter(clip.frames), settings)
    found = [
        [iou(mask > least, labels > 0) for least in (0, 0.8)]
        for mask, labels in zip(masks, clip.labels, strict=True)
        if labels.any()
    ]
    return np.mean(found, axis=0)


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def describe_masks(count: int) -> None:
    clips = [draw_clip(OBJECTS, 200, index) for index in range(count)]
    chance = np.mean([(clip.labels > 0).mean() for clip in clips])
    print(f"{count} clips of {len(clips[0].frames)} frames; all of a frame: {chance:.3f}")
    print(f"{'settings':>24} {'IoU':>6} {'of > 0.8':>9} {'spread':>7} {'quartiles':>12}")
    for name, fields in SETTINGS.items():
        settings = VideoPcaSettings(**fields)
        loose, strict = np.array([overlaps(clip, settings) for clip in clips]).T
        low, high = np.percentile(loose, (25, 75))
        print(
            f"{name:>24} {np.mean(loose):6.3f} {np.mean(strict):9.3f} {np.std(loose):7.3f}"
            f" {low:6.2f}{high:6.2f}"
        )
    strongest = [strongest_evidence(clip) for clip in clips]
    print(f"strongest evidence of a clip: {min(strongest):.2f} to {max(strongest):.2f}, ", end="")
    print(f"over 0.5 in {np.mean(np.array(strongest) > 0.5):.0%} of the clips")


def strongest_evidence(clip: Clip) -> float:
    settings = VideoPcaSettings()
    with SmallShot(iter(clip.frames), settings.side) as shot:
        components = principal_components(shot, settings)
        return max(float(one.max()) for one in evidence_maps(shot, components, settings)())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--clips", type=int, default=30)
    parser.add_argument("--parts", nargs="+", default=["cost", "components", "masks"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    set_threads(options.threads)
    if options.child is not None:
        print(json.dumps(cost(options.child, options.frames)))
        return
    if "cost" in options.parts:
        describe_cost(options.frames)
    if "components" in options.parts:
        describe_components()
    if "masks" in options.parts:
        describe_masks(options.clips)


if __name__ == "__main__":
    main()
