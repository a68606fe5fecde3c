"""Time of the seed curves beside a loop over thresholds in numpy, on one thread.

    python benchmarks/seeds.py

Twenty classes on photos of 500 x 375, three of them present: smooth maps with one peak each, and
random scores in all twenty. The first peer is what people write: for each threshold, the seeds'
labels, and the pixels predicted, true and both of each class. It runs on 20 thresholds, the fewest
that draw a curve, and its time for 1000 is 50 times as long. The second counts the same table as
ours with numpy's argmax, searchsorted and bincount. All are interleaved in one process; times are
medians of wall time for one photo.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import numpy.typing as npt

from tagseg.evaluate.seeds import SeedCurves

ROUNDS = 11
HEIGHT, WIDTH, CLASSES = 375, 500, 20
FEW = np.arange(50, 1001, 50)  # of the thresholds in thousandths

Maps = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]


def smooth_maps(rng: np.random.Generator) -> tuple[Maps, Mask]:
    """Three classes with a peak each, true where it is high, behind a border of 255."""
    score_map, truth = np.zeros((CLASSES, HEIGHT, WIDTH), np.float32), np.zeros((HEIGHT, WIDTH))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for tag in rng.choice(CLASSES, 3, replace=False):
        distance = np.hypot(y - rng.integers(0, HEIGHT), x - rng.integers(0, WIDTH))
        score_map[tag] = np.exp(-np.square(distance / rng.integers(40, 120)))
        truth[distance < 75] = 255
        truth[distance < 70] = tag + 1
    return score_map, truth.astype(np.uint8)


def random_maps(rng: np.random.Generator) -> tuple[Maps, Mask]:
    score_map = rng.random((CLASSES, HEIGHT, WIDTH), np.float32)
    return score_map, rng.integers(0, CLASSES + 1, (HEIGHT, WIDTH)).astype(np.uint8)


def with_tagseg(score_map: Maps, truth: Mask) -> SeedCurves:
    curves = SeedCurves(CLASSES)
    curves.update(score_map, truth)
    return curves


def with_a_loop(score_map: Maps, truth: Mask) -> tuple[Counts, Counts]:
    """Predicted pixels and hits of each label at the few thresholds, (C + 1, 20) each."""
    winner, best, known = score_map.argmax(0) + 1, score_map.max(0), truth != 255
    predicted, hits = np.zeros((2, CLASSES + 1, len(FEW)), np.int64)
    for t, threshold in enumerate(FEW):
        labels = np.where(best >= np.float32(threshold / 1000), winner, 0)
        for label in range(CLASSES + 1):
            chosen = known & (labels == label)
            predicted[label, t] = chosen.sum()
            hits[label, t] = (chosen & (truth == label)).sum()
    return predicted, hits


def with_bincount(score_map: Maps, truth: Mask) -> Counts:
    known = truth != 255
    winner, best = score_map.argmax(0)[known], score_map.max(0)[known]
    thresholds = (np.arange(1, 1001) / 1000).astype(np.float32)
    level = np.searchsorted(thresholds, best, side="right")
    kind = np.where(truth[known] == winner + 1, 0, np.where(truth[known] == 0, 1, 2))
    index = (kind * CLASSES + winner) * 1001 + level
    return np.bincount(index, minlength=3 * CLASSES * 1001).reshape(3, CLASSES, 1001)


def check_equal(score_map: Maps, truth: Mask) -> None:
    curves = with_tagseg(score_map, truth)
    np.testing.assert_array_equal(curves.counts, with_bincount(score_map, truth))
    predicted, hits = with_a_loop(score_map, truth)
    precision, recall = (values[:, FEW - 1] for values in curves.per_label())
    known = predicted > 0
    np.testing.assert_allclose(precision[known], (hits / np.maximum(predicted, 1))[known])
    counts = curves.truth_pixels[:, None]
    np.testing.assert_allclose(np.nan_to_num(recall), hits / np.maximum(counts, 1))


def milliseconds(count: Callable[[Maps, Mask], object], photo: tuple[Maps, Mask]) -> float:
    start = time.perf_counter()
    count(*photo)
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    ways = (with_a_loop, with_bincount, with_tagseg)
    print(f"{'maps':>12} {'loop, 20 thresholds ms':>23} {'bincount ms':>12} {'tagseg ms':>10}")
    for make in (smooth_maps, random_maps):
        photo = make(np.random.default_rng(0))
        check_equal(*photo)
        rounds = [[milliseconds(way, photo) for way in ways] for _ in range(ROUNDS)]
        loop, bincount, ours = (median(column) for column in zip(*rounds, strict=True))
        print(f"{make.__name__:>12} {loop:23.1f} {bincount:12.1f} {ours:10.2f}")


if __name__ == "__main__":
    main()
