"""Time of the confusion matrix beside numpy's bincount, on one thread.

    python benchmarks/confusion.py

The peer is what people write: np.bincount(n * truth + prediction) over the pixels with a true
label. Both count 100 masks of 500 x 375 with 21 classes, interleaved in one process; times are
medians of wall time. Three kinds of masks: objects that the prediction misses by some pixels,
the same with a tenth of the predicted pixels at random, and random labels everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import numpy.typing as npt

from tagseg.evaluate.confusion import ConfusionMatrix

ROUNDS = 11
MASKS, HEIGHT, WIDTH, LABELS = 100, 375, 500, 21

Mask = npt.NDArray[np.uint8]
Pair = tuple[Mask, Mask]


def object_masks(rng: np.random.Generator) -> Pair:
    """Three discs with a border of ignored pixels, and the same some pixels away."""
    prediction, truth = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for label in rng.integers(1, LABELS, 3):
        centre_y, centre_x = rng.integers(0, HEIGHT), rng.integers(0, WIDTH)
        radius, off = rng.integers(30, 120), rng.integers(-10, 11, 2)
        distance = np.hypot(y - centre_y, x - centre_x)
        truth[distance < radius + 3] = 255
        truth[distance < radius] = label
        prediction[np.hypot(y - centre_y - off[0], x - centre_x - off[1]) < radius] = label
    return prediction, truth


def speckled_masks(rng: np.random.Generator) -> Pair:
    prediction, truth = object_masks(rng)
    wrong = rng.random(prediction.shape) < 0.1
    prediction[wrong] = rng.integers(0, LABELS, wrong.sum())
    return prediction, truth


def random_masks(rng: np.random.Generator) -> Pair:
    prediction, truth = rng.integers(0, LABELS, (2, HEIGHT, WIDTH)).astype(np.uint8)
    return prediction, truth


def with_tagseg(pairs: list[Pair]) -> npt.NDArray[np.int64]:
    confusion = ConfusionMatrix(LABELS)
    for prediction, truth in pairs:
        confusion.update(prediction, truth)
    return confusion.matrix


def with_bincount(pairs: list[Pair]) -> npt.NDArray[np.int64]:
    matrix = np.zeros((LABELS, LABELS), np.int64)
    for prediction, truth in pairs:
        valid = (truth >= 0) & (truth < LABELS)
        index = LABELS * truth[valid].astype(int) + prediction[valid]
        matrix += np.bincount(index, minlength=LABELS**2).reshape(LABELS, LABELS)
    return matrix


def milliseconds(count: Callable[[list[Pair]], object], pairs: list[Pair]) -> float:
    start = time.perf_counter()
    count(pairs)
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    print(f"{'masks':>16} {'bincount ms':>11} {'tagseg ms':>9} {'ratio':>6}")
    for make in (object_masks, speckled_masks, random_masks):
        rng = np.random.default_rng(0)
        pairs = [make(rng) for _ in range(MASKS)]
        np.testing.assert_array_equal(with_tagseg(pairs), with_bincount(pairs))
        rounds = [
            (milliseconds(with_bincount, pairs), milliseconds(with_tagseg, pairs))
            for _ in range(ROUNDS)
        ]
        peer, ours = (median(column) for column in zip(*rounds, strict=True))
        print(f"{make.__name__:>16} {peer:11.1f} {ours:9.1f} {peer / ours:6.1f}")


if __name__ == "__main__":
    main()
