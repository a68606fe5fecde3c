"""Train the small saliency forest that we ship, on generated pictures; writes its file.

    python tools/make_forest.py [--pictures 400] [--trees 80] [--max-leaves 400] [--out FILE]

The pictures show objects of 16 classes, none of which is a class of the scenes, one to three in a
picture, at several sizes. Every second one is a close-up in poor light: generated colours are
louder than those of photos, and a forest that sees them alone finds too little in photos. The
masks are drawn with the pictures: no person's annotation is read. Prints the scores on the tenth
of the pictures that is held out.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PilImage

from tagseg.data.masks import write_mask
from tagseg.data.scenes import OBJECTS, draw_scene
from tagseg.data.textures import smooth_noise
from tagseg.data.working import labels_at
from tagseg.run.engine import set_threads
from tagseg.session.train_saliency import SaliencyTraining, train_saliency

PACKAGE = Path(__file__).parents[1] / "src" / "tagseg"
OUT = PACKAGE / "priors" / "saliency" / "drfi_scenes.safetensors"
SIZES = ((96, 128), (150, 200), (240, 320), (300, 400))
KIND = replace(OBJECTS, object_counts=(0.0, 0.6, 0.3, 0.1))
SEED = 300
ROWS = 60_000

Bytes = npt.NDArray[np.uint8]


def picture(index: int) -> tuple[Bytes, Bytes]:
    """Picture (H, W, 3) and its objects' mask (H, W), 0 or 1."""
    height, width = SIZES[index // 2 % len(SIZES)]
    if index % 2 == 0:
        scene = draw_scene(KIND, SEED, index, height=height, width=width)
        return scene.image, (scene.labels > 0).astype(np.uint8)
    rng = np.random.default_rng([SEED, index])
    scene = draw_scene(KIND, SEED, index, height=int(1.4 * height), width=int(1.4 * width))
    window = close_up((scene.labels > 0).astype(np.uint8), rng)
    image = cv2.resize(scene.image[window], (width, height), interpolation=cv2.INTER_AREA)
    mask = labels_at((scene.labels[window] > 0).astype(np.uint8), (height, width))
    return in_poor_light(image, rng), mask


def close_up(mask: Bytes, rng: np.random.Generator) -> tuple[slice, slice]:
    """A window of half a side or more that may cut objects, but shows them and background."""
    height, width = mask.shape
    share = rng.uniform(0.5, 1)
    h, w = int(share * height), int(share * width)
    for _ in range(20):
        top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        window = slice(top, top + h), slice(left, left + w)
        if 0.05 < mask[window].mean() < 0.8:
            return window
    return slice(0, height), slice(0, width)


def in_poor_light(image: Bytes, rng: np.random.Generator) -> Bytes:
    """Paler, flatter, softer, with shadows and noise."""
    height, width = image.shape[:2]
    values = image.astype(np.float32)
    grey = values.mean(2, keepdims=True)
    values = grey + (values - grey) * rng.uniform(0.3, 1.0)
    values = (values - 128) * rng.uniform(0.6, 1.1) + 128 + rng.uniform(-25, 25)
    values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.3, 1.0))
    shadows = np.clip(smooth_noise(rng, height, width, width / 2), -2, 2)[..., None]
    noise = rng.standard_normal(values.shape) * rng.uniform(1, 5)
    return np.clip(values * (1 + 0.2 * shadows) + noise, 0, 255).astype(np.uint8)


def write_pictures(folder: Path, count: int) -> None:
    """``count`` pictures as JPEG files and their masks, by turns of each size."""
    for part in ("photos", "masks"):
        (folder / part).mkdir(parents=True)
    for i in range(count):
        image, mask = picture(i)
        PilImage.fromarray(image).save(folder / "photos" / f"{i:05d}.jpg", quality=90)
        write_mask(folder / "masks" / f"{i:05d}.png", mask)


def main() -> None:
    """Draw, train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--trees", type=int, default=80)
    parser.add_argument("--max-leaves", type=int, default=400)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    set_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), args.pictures)
        done = train_saliency(
            Path(folder) / "photos",
            Path(folder) / "masks",
            args.out,
            SaliencyTraining(args.trees, args.max_leaves, max_rows=ROWS),
            threads=args.threads,
        )
    about = {**done.forest.about, "trained_on": "generated pictures (tools/make_forest.py)"}
    replace(done.forest, about=about).save(args.out)
    print("\n".join(done.lines()))
    print(args.out, args.out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
