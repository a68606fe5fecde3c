"""A random forest over the features of DRFI's regions (superpixels), kept as plain arrays.

scikit-learn fits the trees; a kernel walks them, so that a forest's file holds numbers only and no
Python objects, and photos can be mapped over threads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from numba import njit
from safetensors import SafetensorError, safe_open

from tagseg.errors import ConfigError, ShapeError, WeightsError
from tagseg.priors.float_arrays import float_array
from tagseg.priors.saliency.region_features import FEATURE_NAMES, N_FEATURES
from tagseg.run.files import atomic_write
from tagseg.tensor_files import check_header

__all__ = ["RegionForest"]

Float32: TypeAlias = npt.NDArray[np.float32]
Floats: TypeAlias = npt.NDArray[np.floating]
Integers: TypeAlias = npt.NDArray[np.int32]

_NOTES = "tagseg"
_FORMAT = "region-forest"
_VERSION = "1"
_LEAF = -1
_TENSORS = {"feature": np.int16, "number": np.float32, "roots": np.int32}


@dataclass(frozen=True)
class RegionForest:
    """DRFI's random forest: how salient a region (a superpixel) with given features is.

    :meth:`fit` makes one, :meth:`load` and :meth:`save` use a file, :meth:`predict` asks it; see
    also :func:`shipped_forest` and :func:`drfi_training_rows`. Features are the 93 of Jiang et al.
    2013, named in :data:`tagseg.priors.saliency.region_features.FEATURE_NAMES`.

    Trees are kept in flat arrays; the mean of what they say is the forest's answer. A tree's nodes
    stand level by level, both children of a node side by side. So the children's places follow from
    the order, and no file can describe a tree that never ends.

    Attributes:
        feature: int16 (n,), the feature that a node asks for; -1 in a leaf.
        number: float32 (n,), the threshold of a node, the answer of a leaf. Rows with
            x <= threshold go left.
        left: int32 (n,), the node for x <= threshold; the one after it is for x > threshold.
        roots: int32 (trees,), rising, from 0.
        about: what it was trained on, for the record.

    Examples:
        Regions are salient, in this example, where their first feature is large:

        >>> import numpy as np
        >>> from tagseg.priors import RegionForest
        >>> features = np.random.default_rng(0).random((60, 93))
        >>> targets = (features[:, 0] > 0.5).astype(np.float64)
        >>> forest = RegionForest.fit(features, targets, trees=20, features_per_split=93)
        >>> (forest.predict(np.array([[0.1] * 93, [0.9] * 93])) > 0.5).tolist()
        [False, True]
    """

    feature: npt.NDArray[np.int16]
    number: Float32
    left: Integers
    roots: Integers
    about: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """A hash of the trees, which tells one forest from another."""
        total = hashlib.blake2b(digest_size=16)
        for array in (self.feature, self.number, self.roots):
            total.update(array.tobytes())
        return total.hexdigest()

    @classmethod
    def fit(
        cls,
        features: Floats,
        targets: Floats,
        *,
        trees: int = 200,
        features_per_split: int = 15,
        min_leaf: int = 5,
        max_leaves: int | None = None,
        seed: int = 0,
        jobs: int = 1,
    ) -> Self:
        """Fit a forest by random-forest regression (Breiman 2001) with the numbers of DRFI.

        Args:
            features: float (N, 93) of regions, such as :func:`drfi_training_rows` gives.
            targets: float (N,), what the forest shall say of each.
            trees: how many; 200 by Jiang et al. 2013.
            features_per_split: features drawn for each node, 15 by Jiang et al. 2013.
            min_leaf: smallest number of rows in a leaf.
            max_leaves: largest number of leaves in a tree, the best first; None for no limit.
            seed: where the draws start.
            jobs: threads to fit with; the forest does not depend on it.

        Raises:
            ShapeError: features or targets are no such arrays, or not finite.
            ConfigError: a number is out of range.
        """
        features, targets = _checked_features(features), float_array(targets, "targets", "(n,)")
        if targets.shape != features.shape[:1] or not len(targets):
            raise ShapeError(
                f"targets has shape {targets.shape}, features {features.shape}",
                do="give one target for each row, and a row or more",
            )
        if not np.isfinite(targets).all():
            raise ShapeError("targets holds NaN or infinity", do="give finite numbers")
        _check_numbers(trees=trees, features_per_split=features_per_split, min_leaf=min_leaf)
        if max_leaves is not None and max_leaves < 2:
            raise ConfigError(f"max_leaves is {max_leaves}", do="give 2 or more, or None")
        from sklearn.ensemble import RandomForestRegressor  # half a second: not for every command

        model = RandomForestRegressor(
            trees,
            max_features=min(features_per_split, N_FEATURES),
            min_samples_leaf=min_leaf,
            max_leaf_nodes=max_leaves,
            random_state=seed,
            n_jobs=jobs,
        ).fit(features, targets)
        return cls._of([estimator.tree_ for estimator in model.estimators_], {})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the forest in a file of :meth:`save`.

        Raises:
            WeightsError: there is none, it is damaged, or it is no forest on these features.
        """
        path = Path(path)
        tensors, notes = _read(path)
        _check_notes(notes, path)
        try:
            parts = {name: tensors[name] for name in _TENSORS}
            left = _checked_left(**parts)
            about = {name: str(value) for name, value in notes["about"].items()}
        except (AttributeError, KeyError, ValueError) as error:
            raise _damaged(path) from error
        return cls(parts["feature"], parts["number"], left, parts["roots"], about)

    def save(self, path: Path) -> None:
        """Write the forest to a safetensors file, whole or not at all.

        Raises:
            WorkspaceError: the file cannot be written.
        """
        notes = {
            "format": _FORMAT,
            "version": _VERSION,
            "features": _digest_of_features(),
            "about": dict(self.about),
        }
        # One entry: safetensors writes several in any order, and equal forests in unequal files.
        metadata = {_NOTES: json.dumps(notes, ensure_ascii=False, sort_keys=True)}
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in _TENSORS}
        with atomic_write(Path(path)) as file:
            file.write(safetensors.numpy.save(tensors, metadata))

    def predict(self, features: Floats) -> Float32:
        """Ask the trees about regions, and return the mean of their answers.

        Args:
            features: float (n, 93) of regions.

        Returns:
            float32 (n,), in the range of the targets that the forest was fitted to.

        Raises:
            ShapeError: features is no such array, or holds NaN or infinity.
        """
        rows = np.ascontiguousarray(_checked_features(features))
        answers = np.zeros(len(rows))
        _add_answers(rows, self.feature, self.number, self.left, self.roots, answers)
        return (answers / len(self.roots)).astype(np.float32)

    @classmethod
    def _of(cls, trees: list[Any], about: Mapping[str, str]) -> Self:
        parts = [_level_order(tree) for tree in trees]
        roots = np.cumsum([0, *(len(feature) for feature, _ in parts[:-1])]).astype(np.int32)
        feature = np.concatenate([feature for feature, _ in parts])
        number = np.concatenate([number for _, number in parts])
        return cls(feature, number, _checked_left(feature, number, roots), roots, dict(about))


def _level_order(tree: Any) -> tuple[npt.NDArray[np.int16], Float32]:
    """List feature and number of one of scikit-learn's trees, level by level."""
    levels = [np.zeros(1, np.intp)]
    while levels[-1].size:
        inner = levels[-1][tree.children_left[levels[-1]] >= 0]
        levels.append(np.stack([tree.children_left[inner], tree.children_right[inner]], 1).ravel())
    order = np.concatenate(levels)
    leaf = tree.children_left[order] < 0
    threshold = tree.threshold[order]
    rounded = threshold.astype(np.float32)
    # Rounded down: then x <= threshold holds for the same float32 x as with the double.
    down = np.where(rounded > threshold, np.nextafter(rounded, np.float32(-np.inf)), rounded)
    number = np.where(leaf, tree.value[order, 0, 0], down)
    feature = np.where(leaf, _LEAF, tree.feature[order])
    return feature.astype(np.int16), number.astype(np.float32)


def _checked_left(feature: npt.NDArray[np.int16], number: Float32, roots: Integers) -> Integers:
    """Find each node's left child (for a leaf itself); ValueError if these are no trees."""
    arrays: tuple[npt.NDArray[Any], ...] = (feature, number, roots)
    for values, kind in zip(arrays, _TENSORS.values(), strict=True):
        if values.dtype != kind or values.ndim != 1:
            raise ValueError("types")
    n = len(feature)
    ends = np.append(roots[1:], n)
    if len(number) != n or not len(roots) or roots[0] != 0 or (ends <= roots).any() or ends[-1] > n:
        raise ValueError("lengths")
    if feature.min() < _LEAF or feature.max() >= N_FEATURES or not np.isfinite(number).all():
        raise ValueError("values")
    inner = feature != _LEAF
    before = np.cumsum(inner) - inner  # inner nodes before each one
    tree = np.repeat(np.arange(len(roots)), ends - roots)
    left = roots[tree] + 1 + 2 * (before - before[roots][tree])
    splits = np.add.reduceat(inner.astype(np.int64), roots)
    if (2 * splits + 1 != ends - roots).any() or (left[inner] <= np.flatnonzero(inner)).any():
        raise ValueError("order")
    return np.where(inner, left, np.arange(n)).astype(np.int32)


@njit(nogil=True, cache=True, error_model="numpy")
def _add_answers(rows, feature, number, left, roots, answers):  # type: ignore[no-untyped-def]
    """Add each tree's answer to each row (n, features) to ``answers`` (n,)."""
    for root in roots:  # a tree at a time: it fits into the fastest cache
        for row in range(len(rows)):
            node = root
            while feature[node] >= 0:
                over = rows[row, feature[node]] > number[node]
                node = left[node] + np.int32(over)
            answers[row] += number[node]


def _checked_features(features: Any) -> Float32:
    """Return features as float32; ShapeError unless they are finite and (n, 93)."""
    rows = float_array(features, "features", f"(n, {N_FEATURES})")
    if rows.ndim != 2 or rows.shape[1] != N_FEATURES:
        raise ShapeError(f"features has shape {rows.shape}", do=f"give (n, {N_FEATURES})")
    if not np.isfinite(rows).all():
        raise ShapeError("features holds NaN or infinity", do="check what produced it")
    return rows


def _check_numbers(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}", do="give 1 or more")


def _digest_of_features() -> str:
    return hashlib.sha256("\n".join(FEATURE_NAMES).encode()).hexdigest()


def _read(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Read the tensors of a forest, as far as they are there, and the notes beside them."""
    if not path.is_file():
        raise WeightsError("no such forest file", where=path, do="train one: tagseg train-saliency")
    try:
        check_header(path)
        with safe_open(path, "np") as file:
            notes = json.loads((file.metadata() or {}).get(_NOTES, "{}"))
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in _TENSORS if name in names}
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        # The last two: safetensors knows types, such as bfloat16, that numpy does not.
        raise _damaged(path) from error
    return tensors, notes if isinstance(notes, dict) else {}


def _check_notes(notes: Mapping[str, Any], path: Path) -> None:
    if notes.get("format") != _FORMAT:
        raise WeightsError(
            "holds no saliency forest", where=path, do="give a file of tagseg train-saliency"
        )
    same = notes.get("version") == _VERSION
    if not same or notes.get("features") != _digest_of_features():
        raise WeightsError(
            "is a forest on the features of another version of tagseg",
            where=path,
            do="train it again: tagseg train-saliency",
        )


def _damaged(path: Path) -> WeightsError:
    return WeightsError("is damaged or no forest", where=path, do="train or copy it again")
