from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestRegressor

from tagseg.errors import ConfigError, ShapeError, WeightsError, WorkspaceError
from tagseg.priors.saliency.forest import RegionForest
from tagseg.priors.saliency.region_features import N_FEATURES

Float32 = npt.NDArray[np.float32]

ABOUT = {"trained_on": "ünï", "photos": "7"}


def rows(count: int, seed: int = 0) -> tuple[Float32, Float32]:
    """Features of which some are whole numbers, with ties, and targets that two of them decide."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 1, (count, N_FEATURES)).astype(np.float32)
    features[:, ::3] = np.rint(features[:, ::3] * 2)
    features[:, 5] = 0.25
    targets = (features[:, 0] + features[:, 1] + rng.normal(0, 0.3, count) > 0).astype(np.float32)
    return features, targets


@pytest.fixture(scope="module")
def forest() -> RegionForest:
    made = RegionForest.fit(*rows(400), trees=12, seed=3)
    return replace(made, about={"trained_on": "ünï", "photos": "7"})


def tree_by_tree(forest: RegionForest, features: Float32) -> npt.NDArray[np.float64]:
    """What the forest says, node by node, in float64."""
    answers = []
    for row in features:
        total = 0.0
        for root in forest.roots:
            node = int(root)
            while forest.feature[node] >= 0:
                goes_right = row[forest.feature[node]] > forest.number[node]
                node = int(forest.left[node]) + int(goes_right)
            total += float(forest.number[node])
        answers.append(total / len(forest.roots))
    return np.array(answers)


# Fitting and predicting


@pytest.mark.parametrize("limit", [{}, {"max_leaves": 9}, {"min_leaf": 1}, {"min_leaf": 30}])
def test_it_says_what_sklearn_says(limit: dict[str, int]) -> None:
    features, targets = rows(500)
    new = rows(300, seed=1)[0]
    forest = RegionForest.fit(features, targets, trees=15, features_per_split=15, seed=4, **limit)
    peer = RandomForestRegressor(
        15,
        max_features=15,
        min_samples_leaf=limit.get("min_leaf", 5),
        max_leaf_nodes=limit.get("max_leaves"),
        random_state=4,
    ).fit(features, targets)
    for asked in (new, features):
        found = forest.predict(asked)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, peer.predict(asked), atol=1e-6)
    leaves = [int((part < 0).sum()) for part in np.split(forest.feature, forest.roots[1:])]
    assert leaves == [estimator.get_n_leaves() for estimator in peer.estimators_]


def test_thresholds_split_where_sklearn_splits() -> None:
    """Two values whose middle is no float32: it must not be rounded up to the upper value."""
    low = np.float32(4)  # below 2, sklearn takes neighbours for equal
    high = np.nextafter(low, np.float32(5))
    features = np.zeros((40, N_FEATURES), np.float32)
    features[:, 7] = np.repeat([low, high], 20)
    targets = np.repeat(np.float32([0, 1]), 20)
    forest = RegionForest.fit(
        features, targets, trees=20, features_per_split=N_FEATURES, min_leaf=1
    )
    np.testing.assert_array_equal(forest.predict(features), targets)


def test_predictions_are_those_of_the_slow_walk(forest: RegionForest) -> None:
    new = rows(50, seed=2)[0]
    np.testing.assert_allclose(forest.predict(new), tree_by_tree(forest, new), atol=1e-7)


def test_children_stand_side_by_side_and_below_their_parents(forest: RegionForest) -> None:
    inner = np.flatnonzero(forest.feature >= 0)
    assert (forest.left[inner] > inner).all()
    leaves = np.flatnonzero(forest.feature < 0)
    np.testing.assert_array_equal(forest.left[leaves], leaves)
    children = np.concatenate([forest.left[inner], forest.left[inner] + 1, forest.roots])
    np.testing.assert_array_equal(np.sort(children), np.arange(len(forest.feature)))


def test_the_same_forest_for_any_number_of_jobs() -> None:
    one, two = (RegionForest.fit(*rows(200), trees=6, seed=1, jobs=jobs) for jobs in (1, 2))
    other = RegionForest.fit(*rows(200), trees=6, seed=2)
    for name in ("feature", "number", "left", "roots"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert one.number.tobytes() != other.number.tobytes()


def test_one_target_everywhere_gives_trees_of_one_leaf() -> None:
    features = rows(30)[0]
    forest = RegionForest.fit(features, np.ones(30, np.float32), trees=3)
    np.testing.assert_array_equal(forest.roots, [0, 1, 2])
    np.testing.assert_array_equal(forest.predict(features), np.ones(30))


def test_no_regions_and_other_memory_layouts(forest: RegionForest) -> None:
    features = rows(40)[0]
    assert forest.predict(features[:0]).shape == (0,)
    expected = forest.predict(features)
    np.testing.assert_array_equal(forest.predict(np.asfortranarray(features)), expected)
    np.testing.assert_array_equal(forest.predict(features[::2]), expected[::2])


def test_threads_may_share_a_forest(forest: RegionForest) -> None:
    parts = [rows(200, seed=seed)[0] for seed in range(6)]
    expected = [forest.predict(part) for part in parts]
    with ThreadPoolExecutor(3) as pool:
        for found, wanted in zip(pool.map(forest.predict, parts), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


def broken_features() -> dict[str, npt.NDArray]:
    good = rows(10)[0]
    with_nan = good.copy()
    with_nan[3, 4] = np.nan
    return {
        "a int64 array": good.astype(np.int64),
        "NaN or infinity": with_nan,
        "has shape (10, 92)": good[:, :-1],
        "has shape (93,)": good[0],
    }


@pytest.mark.parametrize("message", broken_features())
def test_features_of_another_form(forest: RegionForest, message: str) -> None:
    features = broken_features()[message]
    for use in (forest.predict, lambda f: RegionForest.fit(f, rows(10)[1])):
        with pytest.raises(ShapeError) as caught:
            use(features)
        assert message in str(caught.value)


def test_targets_of_another_form() -> None:
    features, targets = rows(10)
    for wrong in (
        targets[:9],
        np.where(targets > 0, np.nan, 0).astype(np.float32),
        targets[:, None],
    ):
        with pytest.raises(ShapeError, match="targets"):
            RegionForest.fit(features, wrong)
    with pytest.raises(ShapeError, match="a row or more"):
        RegionForest.fit(features[:0], targets[:0])


@pytest.mark.parametrize(
    "wrong", [{"trees": 0}, {"features_per_split": 0}, {"min_leaf": 0}, {"max_leaves": 1}]
)
def test_numbers_out_of_range(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RegionForest.fit(*rows(20), **wrong)


# Files


def test_a_file_gives_the_same_forest_back(forest: RegionForest, tmp_path: Path) -> None:
    path = tmp_path / "forest.safetensors"
    forest.save(path)
    again = RegionForest.load(path)
    for name in ("feature", "number", "left", "roots"):
        found, wanted = getattr(again, name), getattr(forest, name)
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
    assert again.about == ABOUT
    new = rows(50, seed=2)[0]
    np.testing.assert_array_equal(again.predict(new), forest.predict(new))
    assert path.stat().st_size < 6 * len(forest.feature) + 1500, "six bytes a node"
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]
    again.save(tmp_path / "twice")
    assert (tmp_path / "twice").read_bytes() == path.read_bytes()


def test_a_file_that_cannot_be_written(forest: RegionForest, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="cannot be used"):
        forest.save(tmp_path / "missing" / "forest.safetensors")


Tensors = dict[str, npt.NDArray]
Notes = dict[str, Any]


def other_type(tensors: Tensors, notes: Notes) -> None:
    tensors["number"] = tensors["number"].astype(np.float64)


def missing_tensor(tensors: Tensors, notes: Notes) -> None:
    del tensors["roots"]


def other_length(tensors: Tensors, notes: Notes) -> None:
    tensors["number"] = tensors["number"][:-1]


def nan(tensors: Tensors, notes: Notes) -> None:
    tensors["number"][4] = np.nan


def unknown_feature(tensors: Tensors, notes: Notes) -> None:
    tensors["feature"][0] = N_FEATURES


def negative_feature(tensors: Tensors, notes: Notes) -> None:
    tensors["feature"][0] = -2


def a_leaf_too_few(tensors: Tensors, notes: Notes) -> None:
    tensors["feature"][-1] = 0


def leaves_first(tensors: Tensors, notes: Notes) -> None:
    end = tensors["roots"][1]
    tensors["feature"][:end] = np.sort(tensors["feature"][:end])


def roots_that_fall(tensors: Tensors, notes: Notes) -> None:
    tensors["roots"] = tensors["roots"][::-1].copy()


def roots_outside(tensors: Tensors, notes: Notes) -> None:
    tensors["roots"][-1] = 10**6


def no_trees(tensors: Tensors, notes: Notes) -> None:
    for name in tensors:
        tensors[name] = tensors[name][:0]


def no_record(tensors: Tensors, notes: Notes) -> None:
    notes["about"] = 3


DAMAGES: list[Callable[[Tensors, Notes], None]] = [
    other_type,
    missing_tensor,
    other_length,
    nan,
    unknown_feature,
    negative_feature,
    a_leaf_too_few,
    leaves_first,
    roots_that_fall,
    roots_outside,
    no_trees,
    no_record,
]


def rewrite(path: Path, change: Callable[[Tensors, Notes], None]) -> None:
    with safetensors.safe_open(path, "np") as file:
        notes = json.loads(file.metadata()["tagseg"])
    tensors = {name: value.copy() for name, value in safetensors.numpy.load_file(path).items()}
    change(tensors, notes)
    safetensors.numpy.save_file(tensors, path, {"tagseg": json.dumps(notes)})


def message_of(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        RegionForest.load(path)
    told = str(caught.value)
    assert told.startswith(f"{path}: ")
    assert "\n" not in told
    return told


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_trees(
    forest: RegionForest, tmp_path: Path, damage: Callable[[Tensors, Notes], None]
) -> None:
    path = tmp_path / "forest.safetensors"
    forest.save(path)
    rewrite(path, lambda tensors, notes: None)
    RegionForest.load(path)
    rewrite(path, damage)
    assert "is damaged" in message_of(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("format", "another", "holds no saliency forest"),
        ("version", "2", "another version"),
        ("features", "0" * 64, "another version"),
    ],
)
def test_files_of_another_kind(
    forest: RegionForest, tmp_path: Path, name: str, value: str, message: str
) -> None:
    path = tmp_path / "forest.safetensors"
    forest.save(path)
    rewrite(path, lambda tensors, notes: notes.update({name: value}))
    assert message in message_of(path)


def test_files_that_are_no_forest(forest: RegionForest, tmp_path: Path) -> None:
    assert "no such forest file" in message_of(tmp_path / "none")
    assert "no such forest file" in message_of(tmp_path)
    path = tmp_path / "forest.safetensors"
    for content in (b"", b"no", b"\x80\x04pickle" * 9, b"<html>" * 50):
        path.write_bytes(content)
        assert "is damaged" in message_of(path)
    safetensors.numpy.save_file({"x": np.zeros(3)}, path)
    assert "holds no saliency forest" in message_of(path)
    header = json.dumps({"feature": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}})
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + b"\0\0")
    message_of(path)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_broken_bytes_give_one_line_or_a_forest_that_ends(
    forest: RegionForest, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    small = replace(RegionForest.fit(*rows(40), trees=2, seed=1), about={})
    small.save(folder / "whole")
    content = bytearray((folder / "whole").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 3))
    path = folder / "broken"
    path.write_bytes(bytes(content[: len(content) - cut]))
    with contextlib.suppress(WeightsError):
        assert np.isfinite(RegionForest.load(path).predict(rows(20)[0])).all()
