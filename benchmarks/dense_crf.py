"""Time of our dense CRF beside pydensecrf2's, interleaved in one process.

    python benchmarks/dense_crf.py [PHOTO]

pydensecrf2 (it builds from source) is left out where it cannot be imported. PHOTO is brought to
each size; without one the picture is smooth noise. Times are medians of wall time on one thread;
the first call includes compilation, or reading the compiled kernels from numba's cache.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
from PIL import Image

from tagseg.refine.dense_crf import dense_crf, softmax_unary

try:
    from pydensecrf.densecrf import DenseCRF2D
except Exception:
    DenseCRF2D = None

ROUNDS = 9
CASES = [  # width, height, labels, bilateral
    (500, 375, 21, (10, 80, 13)),
    (500, 375, 21, (4, 121, 5)),
    (500, 375, 3, (10, 80, 13)),
    (128, 96, 3, (10, 80, 13)),
]
SMOOTHNESS = (3, 3)
ITERATIONS = 10


def make_case(photo: Image.Image, width: int, height: int, n_labels: int):
    """Photo at the size, and the unary of smooth random score maps."""
    image = np.array(
        photo.resize((width, height), Image.Resampling.BICUBIC)
    )  # writable: the peer asks
    coarse = np.random.default_rng(0).normal(0, 1.5, (n_labels, 24, 32)).astype(np.float32)
    size = (width, height)
    maps = [Image.fromarray(m).resize(size, Image.Resampling.BICUBIC) for m in coarse]
    return image, softmax_unary(np.stack([np.asarray(m) for m in maps]))


def peer(image, unary, bilateral):
    """The same CRF by pydensecrf2."""
    n_labels, height, width = unary.shape
    crf = DenseCRF2D(width, height, n_labels)
    crf.setUnaryEnergy(unary.reshape(n_labels, -1))
    crf.addPairwiseGaussian(sxy=SMOOTHNESS[1], compat=SMOOTHNESS[0])
    weight, sigma_pixels, sigma_levels = bilateral
    crf.addPairwiseBilateral(sxy=sigma_pixels, srgb=sigma_levels, rgbim=image, compat=weight)
    return np.array(crf.inference(ITERATIONS)).reshape(unary.shape)


def milliseconds(function: Callable) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    result = function()
    return 1e3 * (time.perf_counter() - start), result


def compare(photo: Image.Image, width: int, height: int, n_labels: int, bilateral) -> str:
    """One line: our time, the peer's, their ratio and how far the results differ."""
    image, unary = make_case(photo, width, height, n_labels)
    ours, theirs = [], []
    for _ in range(ROUNDS):
        elapsed, probs = milliseconds(
            lambda: dense_crf(
                image, unary, bilateral=bilateral, smoothness=SMOOTHNESS, iterations=ITERATIONS
            )
        )
        ours.append(elapsed)
        if DenseCRF2D is not None:
            elapsed, reference = milliseconds(lambda: peer(image, unary, bilateral))
            theirs.append(elapsed)
    line = f"{width}x{height} {n_labels:2} labels {bilateral!s:13} ours {median(ours):6.1f} ms"
    if not theirs:
        return line
    same = (probs.argmax(axis=0) == reference.argmax(axis=0)).mean()
    return (
        f"{line}  pydensecrf2 {median(theirs):6.1f} ms  ratio {median(theirs) / median(ours):.2f}"
        f"  same labels {same:.4f}  mean |dQ| {np.abs(probs - reference).mean():.1e}"
    )


def main() -> None:
    if len(sys.argv) > 1:
        photo = Image.open(sys.argv[1]).convert("RGB")
    else:
        noise = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        photo = Image.fromarray(noise)
    image, unary = make_case(photo, 8, 8, 2)
    print(f"first call {milliseconds(lambda: dense_crf(image, unary))[0]:.0f} ms")
    for case in CASES:
        print(compare(photo, *case))


if __name__ == "__main__":
    main()
