"""Regions' labels and Eq. 2 of MCOF at 500 x 375, each part beside a plain version.

`python benchmarks/region_fusion.py [--rounds 9]`: what makes seeds of heat maps, region labels of
masks, and refined object maps of saliency and colours takes, in ms a photo on one thread, beside
the same with a loop over regions and scipy.ndimage, scikit-image's regionprops or numpy over all
bins. Both give the same result, which is checked. Painting without the checks is one indexing. All
are the best of interleaved rounds in one process, in processor time. Superpixels, saliency and the
CRF are left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import skimage.data
from scipy import ndimage
from skimage.measure import regionprops
from skimage.segmentation import felzenszwalb

from tagseg.fuse.bayes import colour_histograms, object_probability
from tagseg.fuse.region_seeds import (
    object_regions,
    paint,
    region_areas,
    region_labels,
    region_means,
    region_seeds,
)
from tagseg.run.engine import set_threads

HEIGHT, WIDTH = 375, 500
CLASSES = 20
PRESENT = (3, 7)
SMALLEST = 50  # pixels of a superpixel: about 450 in the photo
BANDWIDTH = 0.15


def touching(superpixels):
    pairs = [
        np.stack((superpixels[:, :-1].ravel(), superpixels[:, 1:].ravel()), 1),
        np.stack((superpixels[:-1].ravel(), superpixels[1:].ravel()), 1),
    ]
    pairs = np.unique(np.sort(np.concatenate(pairs), 1), axis=0)
    return pairs[pairs[:, 0] < pairs[:, 1]]


def smooth_maps(rng, count):
    grids = rng.random((count, 12, 16)).astype(np.float32)
    return np.stack([cv2.resize(grid, (WIDTH, HEIGHT)) for grid in grids])


def plain_seeds(score_map, superpixels, neighbours, tags, threshold=0.7, background_threshold=0.2):
    """Section 4.1 with a loop over classes and regions; no plateaus, no ties."""
    ids = np.arange(superpixels.max() + 1)
    around = [neighbours[(neighbours == i).any(1)].ravel() for i in ids]
    labels, best = np.zeros(len(ids), np.uint8), np.zeros(len(ids))
    for c in np.flatnonzero(tags):
        heat = ndimage.mean(score_map[c], superpixels, ids)
        heat = heat / heat.max()
        labels[(labels == 0) & (heat >= background_threshold)] = 255
        for i in ids:
            peak = heat[i] >= background_threshold and heat[i] >= heat[around[i]].max()
            if (peak or heat[i] >= threshold) and heat[i] > best[i]:
                labels[i], best[i] = c + 1, heat[i]
    return labels


def plain_labels(labels, superpixels, least_share=0.5):
    found = []
    for region in regionprops(superpixels + 1, intensity_image=labels):
        values, counts = np.unique(region.image_intensity[region.image], return_counts=True)
        counts = np.where(values == 255, 0, counts)
        enough = counts.max() >= least_share * region.area
        found.append(values[counts.argmax()] if enough else 255)
    return np.array(found, np.uint8)


def plain_objects(probs, tags):
    labels = [int(row.argmax()) for row in probs]
    return np.array([k if k and tags[k - 1] else 0 for k in labels], np.uint8)


def plain_histograms(image, superpixels):
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    found = []
    for region in regionprops(superpixels + 1):
        pixels = lab[tuple(region.coords.T)]
        counts, _ = np.histogramdd(pixels, bins=(8, 8, 8), range=[(0, 256)] * 3)
        found.append(counts.ravel() / region.area)
    return np.array(found, np.float32)


def plain_probability(prior, features, is_object, areas):
    def distances(row):
        both = features + row
        return 0.5 * ((features - row) ** 2 / np.maximum(both, 1e-12)).sum(1)

    kernel = np.exp(-np.stack([distances(row) for row in features]) / BANDWIDTH)
    prior = prior.astype(np.float64).clip(0.01, 0.99)
    of = [
        share * (kernel[:, inside] * areas[inside]).sum(1) / areas[inside].sum()
        for share, inside in ((prior, is_object), (1 - prior, ~is_object))
    ]
    return of[0] / (of[0] + of[1])


def best(rounds: int, *runs: Callable[[], object]) -> list[float]:
    """Milliseconds of each, the best of interleaved rounds; the first round does not count."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds + 1):
        for taken, run in zip(times, runs, strict=True):
            start = time.process_time()
            run()
            taken.append(1e3 * (time.process_time() - start))
    return [min(taken[1:]) for taken in times]


def cases() -> dict[str, tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]]:
    """Ours and the plain version of each part."""
    rng = np.random.default_rng(0)
    image = cv2.resize(skimage.data.coffee(), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    superpixels = felzenszwalb(image, scale=40, sigma=0.8, min_size=SMALLEST).astype(np.int32)
    neighbours, areas = touching(superpixels), region_areas(superpixels)
    tags = np.isin(np.arange(CLASSES), PRESENT)
    scores, saliency = smooth_maps(rng, CLASSES), smooth_maps(rng, 1)[0]
    masks = (smooth_maps(rng, 1)[0] > 0.6).astype(np.uint8) * np.uint8(4)
    masks[rng.random(masks.shape) < 0.3] = 255
    probs = rng.dirichlet(np.ones(CLASSES + 1), len(areas)).astype(np.float32)
    histograms = colour_histograms(image, superpixels)
    eq2 = region_means(saliency, superpixels), histograms, rng.random(len(areas)) < 0.2, areas
    labels = region_labels(masks, superpixels)
    print(
        f"{WIDTH} x {HEIGHT}, {len(areas)} regions, {len(neighbours)} pairs of neighbours, "
        f"{len(PRESENT)} of {CLASSES} classes present"
    )
    ids = np.arange(len(areas))
    seeds = scores, superpixels, neighbours, tags
    return {
        "seeds": (partial(region_seeds, *seeds), partial(plain_seeds, *seeds)),
        "labels of masks": (
            partial(region_labels, masks, superpixels),
            partial(plain_labels, masks, superpixels),
        ),
        "object regions": (
            partial(object_regions, probs, tags),
            partial(plain_objects, probs, tags),
        ),
        "painting": (
            partial(paint, labels, superpixels),
            lambda: labels[superpixels],
        ),
        "means of saliency": (
            partial(region_means, saliency, superpixels),
            partial(ndimage.mean, saliency, superpixels, ids),
        ),
        "colour histograms": (
            partial(colour_histograms, image, superpixels),
            partial(plain_histograms, image, superpixels),
        ),
        "Eq. 2": (
            partial(object_probability, *eq2, bandwidth=BANDWIDTH),
            partial(plain_probability, *eq2),
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    set_threads(1)
    parts = cases()
    print(f"{'ms a photo':>18} {'plain':>9} {'tagseg':>9} {'ratio':>7}")
    for name, (ours, plain) in parts.items():
        np.testing.assert_allclose(ours(), plain(), rtol=1e-4, atol=1e-6)
        mine, theirs = best(options.rounds, ours, plain)
        print(f"{name:>18} {theirs:9.2f} {mine:9.2f} {theirs / mine:7.1f}")


if __name__ == "__main__":
    main()
