"""A few regression trees on pairs of features, evaluated for all neighbouring pixels.

scikit-learn fits the trees; a kernel walks them, because a photo has a million pairs of pixels and
their features are better read from the photo than written down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numba import njit

from tagseg.priors.row_blocks import RowBlocks

if TYPE_CHECKING:
    from sklearn.ensemble import ExtraTreesRegressor

__all__ = ["PairForest", "fit_forest", "kept_affinity"]

Float32: TypeAlias = npt.NDArray[np.float32]
Integers: TypeAlias = npt.NDArray[np.int32]

_N_FEATURES = 3
_SLOTS = 16  # of the features of a pair; a node's number and its feature share one integer
_LANES = 8


@dataclass(frozen=True)
class PairForest:
    """A forest on pairs of pixels, in flat arrays; its answer is the sum of what its trees say.

    Attributes:
        jump: int32 (n,): 16 times the node where x <= threshold, plus the feature x; the next node
            is the one for x > threshold. A leaf leads to itself.
        threshold: float32 (n,), infinity in a leaf.
        value: float32 (n,), of leaves, divided by the number of trees.
        roots: int32 (trees,).
    """

    jump: Integers
    threshold: Float32
    value: Float32
    roots: Integers

    @classmethod
    def of(cls, model: ExtraTreesRegressor, first_feature: int = 0) -> PairForest:
        """Take over a fitted model's trees, whose features stand from slot ``first_feature`` on."""
        n_trees = len(model.estimators_)
        parts = [_flat_tree(estimator.tree_, first_feature) for estimator in model.estimators_]
        forest = cls.joined(parts)
        return cls(forest.jump, forest.threshold, forest.value / np.float32(n_trees), forest.roots)

    @classmethod
    def joined(cls, forests: Sequence[PairForest]) -> PairForest:
        """Join ``forests`` to one that answers with their sum."""
        starts = np.cumsum([0] + [len(forest.jump) for forest in forests[:-1]])
        moved = zip(forests, starts, strict=True)
        return cls(
            np.concatenate([f.jump + np.int32(_SLOTS * s) for f, s in moved]),
            np.concatenate([f.threshold for f in forests]),
            np.concatenate([f.value for f in forests]),
            np.concatenate([f.roots + np.int32(s) for f, s in zip(forests, starts, strict=True)]),
        )


def fit_forest(
    pairs: Float32,
    information: Float32,
    *,
    n_trees: int,
    min_leaf: int,
    max_depth: int,
    seed: int,
    first_feature: int = 0,
) -> PairForest:
    """Fit trees that predict ``information`` (N,) from ``pairs`` (N, 6).

    Extremely randomised trees: their thresholds need no sorting, and on photos four of them come
    closer to the exact values than four trees of a random forest do.
    """
    from sklearn.ensemble import ExtraTreesRegressor  # half a second that most commands can spare

    model = ExtraTreesRegressor(
        n_trees, min_samples_leaf=min_leaf, max_depth=max_depth, random_state=seed, n_jobs=1
    )
    return PairForest.of(model.fit(pairs, information), first_feature)


def kept_affinity(
    features: Float32, forest: PairForest, offsets: Integers, blocks: RowBlocks
) -> Float32:
    """Compute exp(forest) for kept pixels and neighbours: (H // 2, W // 2, len(offsets)).

    Kept pixels are every second one of every second row, from the second on; 0 stands for
    neighbours outside.

    Args:
        features: float32 (H, W, 6), two sets of three; each set's pairs are ordered by themselves
            and fill the slots 0 to 5 and 6 to 11.
        forest: trees on these slots.
        offsets: int32 (N, 2), rows and columns from a pixel to its neighbours.
        blocks: what runs the kernel.
    """
    height, width, _ = features.shape
    information = np.full((height // 2, width // 2, len(offsets)), -np.inf, np.float32)
    blocks.run(
        _predict,
        height // 2,
        features,
        offsets,
        forest.jump,
        forest.threshold,
        forest.value,
        forest.roots,
        information,
    )
    return np.exp(information, out=information)


def _flat_tree(tree: Any, first_feature: int) -> PairForest:
    """Bring the nodes of scikit-learn's tree in an order where siblings are neighbours."""
    order = _breadth_first(tree.children_left, tree.children_right)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    leaf = tree.children_left[order] < 0
    left = np.where(leaf, np.arange(len(order)), place[tree.children_left[order]])
    feature = np.where(leaf, 0, tree.feature[order] + first_feature)
    threshold = np.where(leaf, np.inf, tree.threshold[order])
    rounded = threshold.astype(np.float32)
    # Rounded down: then x <= threshold holds for the same float32 x as with the double.
    down = np.where(rounded > threshold, np.nextafter(rounded, np.float32(-np.inf)), rounded)
    return PairForest(
        (_SLOTS * left + feature).astype(np.int32),
        down.astype(np.float32),
        tree.value[order, 0, 0].astype(np.float32),
        np.zeros(1, np.int32),
    )


def _breadth_first(left: npt.NDArray[np.intp], right: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    levels = [np.zeros(1, np.intp)]
    while levels[-1].size:
        inner = levels[-1][left[levels[-1]] >= 0]
        levels.append(np.stack([left[inner], right[inner]], 1).ravel())
    return np.concatenate(levels)


@njit(nogil=True, cache=True, inline="always")
def _precedes(features, y, x, y2, x2, first):  # type: ignore[no-untyped-def]
    """Tell whether a pixel's three features from ``first`` on come first in the pair's order."""
    for channel in range(first, first + _N_FEATURES):
        one, two = features[y, x, channel], features[y2, x2, channel]
        if one != two:
            return one < two
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def _fill_slots(features, y, x, y2, x2, slots):  # type: ignore[no-untyped-def]
    for first in (0, _N_FEATURES):
        one = 2 * first
        two = one + _N_FEATURES
        if not _precedes(features, y, x, y2, x2, first):
            one, two = two, one
        for channel in range(_N_FEATURES):
            slots[one + channel] = features[y, x, first + channel]
            slots[two + channel] = features[y2, x2, first + channel]


@njit(nogil=True, cache=True, inline="always")
def _next(node, slots, jump, threshold):  # type: ignore[no-untyped-def]
    code = jump[node]
    over = slots[code & np.int32(_SLOTS - 1)] > threshold[node]
    return (code >> np.int32(4)) + np.int32(over)


@njit(nogil=True, cache=True, error_model="numpy")
def _add_tree(root, slots, start, jump, threshold, value, sums):  # type: ignore[no-untyped-def]
    """Add a tree's answers to eight pairs at once: eight walks hide each other's waiting."""
    s0, s1, s2, s3 = slots[start], slots[start + 1], slots[start + 2], slots[start + 3]
    s4, s5, s6, s7 = slots[start + 4], slots[start + 5], slots[start + 6], slots[start + 7]
    a = b = c = d = e = f = g = h = root
    moving = True
    while moving:
        a2, b2 = _next(a, s0, jump, threshold), _next(b, s1, jump, threshold)
        c2, d2 = _next(c, s2, jump, threshold), _next(d, s3, jump, threshold)
        e2, f2 = _next(e, s4, jump, threshold), _next(f, s5, jump, threshold)
        g2, h2 = _next(g, s6, jump, threshold), _next(h, s7, jump, threshold)
        change = (a ^ a2) | (b ^ b2) | (c ^ c2) | (d ^ d2)
        moving = (change | (e ^ e2) | (f ^ f2) | (g ^ g2) | (h ^ h2)) != 0
        a, b, c, d, e, f, g, h = a2, b2, c2, d2, e2, f2, g2, h2
    sums[start] += value[a]
    sums[start + 1] += value[b]
    sums[start + 2] += value[c]
    sums[start + 3] += value[d]
    sums[start + 4] += value[e]
    sums[start + 5] += value[f]
    sums[start + 6] += value[g]
    sums[start + 7] += value[h]


@njit(nogil=True, cache=True, error_model="numpy")
def _predict(first_row, last_row, features, offsets, jump, threshold, value, roots, out):  # type: ignore[no-untyped-def]
    height, width, _ = features.shape
    room = (len(offsets) + _LANES - 1) // _LANES * _LANES
    slots = np.zeros((room, _SLOTS), np.float32)
    sums = np.empty(room, np.float32)
    target = np.empty(room, np.int32)
    for row in range(first_row, last_row):
        for column in range(width // 2):
            y, x = 2 * row + 1, 2 * column + 1
            count = 0
            for o in range(len(offsets)):
                y2, x2 = y + offsets[o, 0], x + offsets[o, 1]
                if 0 <= y2 < height and 0 <= x2 < width:
                    _fill_slots(features, y, x, y2, x2, slots[count])
                    target[count] = o
                    count += 1
            sums[:] = 0
            for tree in range(len(roots)):
                for start in range(0, count, _LANES):
                    _add_tree(roots[tree], slots, start, jump, threshold, value, sums)
            for k in range(count):
                out[row, column, target[k]] = sums[k]
