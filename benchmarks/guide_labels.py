"""Photos a second of guide labels (G2) of 500 x 375, part by part and beside a plain version.

    python benchmarks/guide_labels.py [--photos N] [--rounds N]

Score maps and saliency maps are floats on a grid of 47 x 63, as networks give them, brought to the
photo's size; seeds are where a class has 20 % of its maximum, salient is half of the maximum. In
the first set of photos each component has seeds of one class; in the second, two or three classes
share one. First table: milliseconds a part, one thread. Second: all parts through
:func:`tagseg.run.engine.map_photos` with one thread and with two, and the time for the 10,582
photos of VOC's trainaug. Third: fusion alone beside a plain version with scikit-image's labelling
and a mask of the photo for each component, and the CRF beside pydensecrf2, which is left out where
it cannot be imported. All are the best of interleaved rounds in one process; processor time in the
first and third table, where all is one thread, and wall time in the second.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from typing import NamedTuple

import cv2
import numpy as np
import skimage.data
from skimage.measure import label as skimage_label

from tagseg.data.masks import encode_mask
from tagseg.fuse.guide_labels import salient_components, seed_guide
from tagseg.fuse.seed_labels import cam_labels
from tagseg.refine.component_crf import DEEPLAB, ComponentCrf
from tagseg.run.engine import map_photos, set_threads

try:
    from pydensecrf.densecrf import DenseCRF2D
except Exception:
    DenseCRF2D = None

HEIGHT, WIDTH = 375, 500
GRID = (47, 63)
TRAINAUG = 10582
TARGET = 20  # photos a second on 2 cores, one class a component
DISTINCT = 12  # photos a set
CRF = ComponentCrf()


class Photo(NamedTuple):
    name: str
    image: np.ndarray
    scores: np.ndarray  # (classes in the photo, 47, 63)
    saliency: np.ndarray  # (47, 63)


def bump(rng, centre, size):
    """A blob on the grid with a ragged rim."""
    y, x = np.mgrid[: GRID[0], : GRID[1]]
    distance = ((y - centre[0]) / size) ** 2 + ((x - centre[1]) / size) ** 2
    ragged = cv2.GaussianBlur(rng.normal(0, 1, GRID), (0, 0), 2)
    return (np.exp(-distance / 2) * (1 + 0.7 * ragged)).clip(0)


BACKDROP = cv2.resize(skimage.data.coffee(), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


def photo(seed: int, shared: bool) -> Photo:
    """Objects far from each other, or in touch; a seed on a part of each."""
    rng = np.random.default_rng([seed, shared])
    count = int(rng.integers(2, 4)) if shared else int(rng.integers(1, 3))
    steps = np.arange(count) - (count - 1) / 2
    centres = np.stack([23 + rng.normal(0, 3, count), 31 + steps * (16 if shared else 36)], 1)
    saliency = sum(bump(rng, centre, 9 if count > 1 else 13) for centre in centres)
    scores = [bump(rng, centre + rng.normal(0, 1.5, 2), 4) for centre in centres]
    image = np.roll(BACKDROP, int(rng.integers(WIDTH)), axis=1).copy()
    return Photo(
        f"{seed:06}",
        image,
        np.stack([score / score.max() for score in scores]).astype(np.float32),
        (saliency + 0.03 * rng.random(GRID)).astype(np.float32),
    )


def enlarge(grid):
    return cv2.resize(grid, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)


def evidence(one: Photo):
    """Seeds and salient pixels from the maps."""
    scores = np.stack([enlarge(score) for score in one.scores])
    saliency = enlarge(one.saliency)
    seeds = cam_labels(scores, np.ones(len(scores), bool))
    return seeds, saliency >= 0.5 * saliency.max()


def first_class(component, seeds, classes, window):
    """Stands for the CRF where its time is not asked for."""
    return np.full(component.shape, classes[0], np.uint8)


def guide(one: Photo) -> bytes:
    """All of it: from maps to the bytes of a mask file."""
    seeds, salient = evidence(one)
    return encode_mask(seed_guide(seeds, salient, share=partial(CRF, one.image)))


def plain_guide(seeds, salient, share, least_seed_pixels=25, least_share=0.01):
    """Supplement E with a mask of the photo for each component of seeds and of saliency."""
    regions, ignored = skimage_label(salient, connectivity=2), np.uint8(255)
    regions = [regions == i for i in range(1, regions.max() + 1)]
    regions = [region for region in regions if region.mean() >= least_share]
    parts, counted = [], np.zeros_like(seeds)
    for c in range(1, 255):
        if (seeds == c).any():
            ids = skimage_label(seeds == c, connectivity=2)
            masks = [ids == j for j in range(1, ids.max() + 1)]
            parts += [(c, mask) for mask in masks if mask.sum() >= least_seed_pixels]
    labels = np.zeros_like(seeds)
    for c, mask in parts:
        counted[mask] = c
        labels[mask] = ignored if any((mask & region).any() for region in regions) else c
    for region in regions:
        classes = np.array(sorted({c for c, m in parts if (m & region).any()}), np.uint8)
        labels[region] = ignored if len(classes) == 0 else classes[0]
        if len(classes) > 1:
            rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
            window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            inside = region[window]
            labels[window][inside] = share(inside, counted, classes, window)[inside]
    return labels


def peer_crf(image, component, seeds, classes, window):
    """The same by pydensecrf2, which has no way to leave pixels out but by their energies."""
    beliefs = CRF._beliefs(seeds, classes, window)
    unary = np.where(component, -beliefs, np.float32(40))
    unary = np.concatenate((unary, np.where(component, np.float32(40), np.float32(0))[None]))
    height, width = component.shape
    field = DenseCRF2D(width, height, len(unary))
    field.setUnaryEnergy(np.ascontiguousarray(unary.reshape(len(unary), -1)))
    weight, pixels, levels = DEEPLAB.bilateral
    field.addPairwiseGaussian(sxy=DEEPLAB.smoothness[1], compat=DEEPLAB.smoothness[0])
    part = np.ascontiguousarray(image[window])
    field.addPairwiseBilateral(sxy=pixels, srgb=levels, rgbim=part, compat=weight)
    probs = np.array(field.inference(DEEPLAB.iterations)).reshape(unary.shape)
    return classes[probs[:-1].argmax(0)]


def best(
    rounds: int, clock: Callable[[], float] = time.process_time, **runs: Callable[[], object]
) -> dict[str, float]:
    """Seconds of each, the best of interleaved rounds; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    return {name: min(taken[1:]) for name, taken in times.items()}


def each(function, items):
    return lambda: [function(*item) for item in items]


def parts_of(photos: list[Photo], rounds: int) -> dict[str, float]:
    """Milliseconds a photo, of each part and of the CRF as what it adds."""
    found = [evidence(one) for one in photos]
    crf = [partial(CRF, one.image) for one in photos]
    masks = [seed_guide(*both, share=share) for both, share in zip(found, crf, strict=True)]
    taken = best(
        rounds,
        maps=each(evidence, [(one,) for one in photos]),
        components=each(salient_components, [(salient,) for _, salient in found]),
        fusion=each(partial(seed_guide, share=first_class), found),
        with_crf=lambda: [
            seed_guide(*both, share=share) for both, share in zip(found, crf, strict=True)
        ],
        png=each(encode_mask, [(mask,) for mask in masks]),
    )
    ms = {name: 1e3 * seconds / len(photos) for name, seconds in taken.items()}
    return {
        "maps": ms["maps"],
        "components": ms["components"],
        "fusion": ms["fusion"] - ms["components"],
        "crf": max(0.0, ms["with_crf"] - ms["fusion"]),
        "png": ms["png"],
    }


def rates(photos: list[Photo], count: int, rounds: int) -> dict[int, float]:
    """Photos a second of all parts, with one thread and with two."""
    items = list(islice(cycle(photos), count))

    def run(workers: int) -> None:
        for _ in map_photos(guide, items, workers=workers):
            pass

    taken = best(rounds, time.perf_counter, one=partial(run, 1), two=partial(run, 2))
    return {1: count / taken["one"], 2: count / taken["two"]}


def describe(name: str, photos: list[Photo]) -> None:
    """What the photos are like; raises where they are not what their set says."""
    found = [evidence(one) for one in photos]
    classes: list[int] = []

    def share(component, seeds, touching, window):
        classes.append(len(touching))
        return first_class(component, seeds, touching, window)

    for seeds, salient in found:
        seed_guide(seeds, salient, share=share)
    if bool(classes) != (name != "one class"):
        raise RuntimeError(f"{name}: {classes}")
    print(
        f"{name}: seeds on {np.mean([seeds > 0 for seeds, _ in found]):.0%} of the pixels, salient"
        f" {np.mean([salient for _, salient in found]):.0%}, shared components a photo"
        f" {len(classes) / len(photos):.1f}, classes in one {np.mean(classes or [1]):.1f}"
    )


def fusion_beside_plain(photos: list[Photo], rounds: int) -> tuple[float, float]:
    found = [evidence(one) for one in photos]
    for both in found:
        ours, plain = seed_guide(*both, share=first_class), plain_guide(*both, first_class)
        np.testing.assert_array_equal(ours, plain)
    taken = best(
        rounds,
        ours=each(partial(seed_guide, share=first_class), found),
        plain=each(partial(plain_guide, share=first_class), found),
    )
    return 1e3 * taken["plain"] / len(photos), 1e3 * taken["ours"] / len(photos)


def crf_beside_peer(photos: list[Photo], rounds: int) -> None:
    calls = []
    for one in photos:

        def share(component, seeds, classes, window, one=one):
            calls.append((one.image, component, seeds, classes, window))
            return first_class(component, seeds, classes, window)

        seed_guide(*evidence(one), share=share)
    agree = [(CRF(*call) == peer_crf(*call))[call[1]].mean() for call in calls]
    taken = best(rounds, ours=each(CRF, calls), peer=each(peer_crf, calls))
    ours, peer = (1e3 * taken[name] / len(calls) for name in ("ours", "peer"))
    print(f"{'CRF: pydensecrf2':>24} {peer:9.1f} {ours:9.1f} {peer / ours:6.1f}")
    print(f"labels that agree with pydensecrf2's: {np.mean(agree):.1%} of pixels")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=96, help="through the threads, per round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    set_threads(1)
    photo_sets = {
        "one class": [photo(seed, shared=False) for seed in range(DISTINCT)],
        "2 to 3 classes": [photo(seed, shared=True) for seed in range(DISTINCT)],
    }
    names = ("maps", "components", "fusion", "CRF", "PNG")
    for name, photos in photo_sets.items():
        describe(name, photos)
    print(f"\n{'ms a photo':>14}", *(f"{name:>11}" for name in names))
    for name, photos in photo_sets.items():
        parts = parts_of(photos, options.rounds)
        print(f"{name:>14}", *(f"{ms:11.2f}" for ms in parts.values()))
    print(
        f"\n{'photos a second':>16} {'1 thread':>9} {'2 threads':>10} {'trainaug, 2 threads':>20}"
    )
    for name, photos in photo_sets.items():
        count = options.photos if name == "one class" else options.photos // 4  # the CRF takes long
        rate = rates(photos, count, options.rounds)
        minutes = TRAINAUG / rate[2] / 60
        print(f"{name:>16} {rate[1]:9.0f} {rate[2]:10.0f} {minutes:13.1f} min")
    print(f"target: {TARGET} a second with one class a component, 2 cores")
    print(f"\n{'beside':>24} {'peer ms':>9} {'tagseg ms':>9} {'ratio':>6}")
    for name, photos in photo_sets.items():
        plain, ours = fusion_beside_plain(photos, options.rounds)
        print(f"{'plain fusion, ' + name:>24} {plain:9.2f} {ours:9.2f} {plain / ours:6.1f}")
    if DenseCRF2D is not None:
        crf_beside_peer(photo_sets["2 to 3 classes"], options.rounds)


if __name__ == "__main__":
    main()
