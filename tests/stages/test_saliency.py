"""Saliency maps of a run's photos, from each of their sources."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from guided_runs import FEW, LINE, open_run, write_maps
from small_runs import fields_of, finished_stages
from tagseg.data.saliency_maps import SaliencyFolder
from tagseg.errors import ConfigError, DataError, WeightsError
from tagseg.nets.student import StudentNet
from tagseg.priors.saliency.drfi import drfi_saliency, shipped_forest, training_rows
from tagseg.priors.saliency.forest import RegionForest
from tagseg.priors.saliency.minimum_barrier import minimum_barrier_saliency
from tagseg.priors.student import load_student, save_student, student_saliency
from tagseg.recipes.coarse_to_fine.recipe import Config as RecursionConfig
from tagseg.recipes.guided.config import Config
from tagseg.recipes.mcof.config import Config as MiningConfig
from tagseg.session.train import make_config
from tagseg.stages import saliency as photo_saliency
from tagseg.stages.priors import activation_prior
from tagseg.stages.saliency import PhotoSaliency
from tagseg.stages.stage import BATCH

LEVEL = 0.5 / 255 + 1e-6  # what stored maps may be off by


def config_of(**changed: Any) -> Any:
    return make_config(Config, {**FEW, "saliency_iterations": 3, **changed})


def recursion_config(**changed: Any) -> Any:
    return make_config(RecursionConfig, {**fields_of("coarse_to_fine", FEW), **changed})


@pytest.fixture(scope="module")
def maps(few, photos, tmp_path_factory) -> Path:
    return write_maps(tmp_path_factory.mktemp("maps"), few, photos)


@pytest.fixture
def run(few, photos, tmp_path):
    with open_run(few, tmp_path / "run", val=photos.val[:2]) as run:
        yield run


# Which source


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ({}, "barrier"),
        ({"boxes": "b.csv"}, "boxes"),
        ({"boxes": "b.csv", "box_photos": "p"}, "boxes"),
        ({"saliency_maps": "m"}, "folder"),
        ({"saliency": "boxes", "boxes": "b.csv"}, "boxes"),
        ({"saliency": "folder", "saliency_maps": "m"}, "folder"),
        ({"saliency": "activations"}, "activations"),
        ({"saliency": "barrier"}, "barrier"),
        ({"saliency": "drfi"}, "drfi"),
        ({"saliency_forest": "f"}, "drfi"),
        ({"saliency": "drfi", "saliency_forest": "f"}, "drfi"),
        ({"saliency": "student"}, "student"),
        ({"student": "s"}, "student"),
        ({"saliency": "student", "student": "s"}, "student"),
    ],
)
def test_where_maps_come_from(given, source):
    """Each recipe's own paper decides where nothing is said."""
    assert Config(**given).saliency_source() == source
    assert MiningConfig(**given).saliency_source() == (source if given else "drfi")
    assert RecursionConfig(**given).saliency_source() == (source if given else "student")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"saliency": "boxes"}, "saliency=boxes has nothing to read; give --boxes FILE"),
        ({"saliency": "folder"}, "saliency=folder has nothing to read; give --saliency DIR"),
        (
            {"boxes": "b", "saliency_maps": "m"},
            "--saliency is given, but saliency comes from boxes; leave one of the two out",
        ),
        (
            {"saliency": "barrier", "boxes": "b"},
            "--boxes is given, but saliency comes from barrier; leave one of the two out",
        ),
        ({"saliency": "activations", "saliency_maps": "m"}, "--saliency is given, but saliency"),
        ({"saliency": "folder", "boxes": "b"}, "--boxes is given, but saliency comes from folder"),
        ({"box_photos": "p"}, "--box-photos is given without --boxes; give --boxes FILE"),
        ({"box_photos": "p", "saliency_maps": "m"}, "--box-photos is given without --boxes"),
        (
            {"saliency": "drfi", "saliency_maps": "m"},
            "--saliency is given, but saliency comes from drfi; leave one of the two out",
        ),
        (
            {"saliency": "barrier", "saliency_forest": "f"},
            "saliency_forest is given, but saliency comes from barrier; leave one of the two out",
        ),
        ({"boxes": "b", "saliency_forest": "f"}, "saliency_forest is given, but saliency comes"),
        (
            {"saliency": "barrier", "student": "s"},
            "student is given, but saliency comes from barrier; leave one of the two out",
        ),
        (
            {"saliency_maps": "m", "student": "s"},
            "student is given, but saliency comes from folder",
        ),
        (
            {"saliency_forest": "f", "student": "s"},
            "student is given, but saliency comes from drfi; leave one of the two out",
        ),
        (
            {"saliency": "student", "saliency_maps": "m"},
            "--saliency is given, but saliency comes from student; leave one of the two out",
        ),
        ({"saliency": "student", "boxes": "b"}, "--boxes is given, but saliency comes from stud"),
    ],
)
@pytest.mark.parametrize(
    "kind", [Config, MiningConfig, RecursionConfig], ids=lambda k: k.__module__
)
def test_files_that_are_missing_or_of_no_use(kind, given, line):
    flag = "--coarse-masks" if kind is RecursionConfig else "--saliency"  # the paper's own word
    with pytest.raises(ConfigError) as caught:
        kind(**given)
    assert str(caught.value).startswith(line.replace("--saliency", flag))


def test_seeds_alone_need_no_saliency_whatever_is_given():
    """Rows of the tables change the guide of a run that had boxes."""
    Config(guide="seeds", boxes="b.csv")


# Without training


@pytest.mark.parametrize("split", ["train", "val"])
def test_minimum_barrier(run, split):
    read = PhotoSaliency(run, config_of()).maps(split)
    photos, _, prefix = run.split(split)
    assert read.stage.name == f"{prefix}saliency"
    for index in range(len(photos)):
        expected = minimum_barrier_saliency(photos.image(index))
        found = read(index)
        assert (found.dtype, found.shape) == (np.float32, expected.shape)
        np.testing.assert_allclose(found, expected, atol=LEVEL)


def test_activations(run):
    read = PhotoSaliency(run, config_of(saliency="activations")).maps()
    expected = activation_prior(run, config_of())
    assert read.stage is expected.stage
    for index in range(len(run.photos)):
        np.testing.assert_array_equal(read(index), expected(index))


# A forest


@pytest.fixture(scope="module")
def forest(few, photos, tmp_path_factory) -> Path:
    """The file of a small forest that was taught by two photos."""
    rows = [
        training_rows(few.image(index), (photos.labels[few.names[index]] > 0).astype(np.uint8))
        for index in (2, 3)
    ]
    features, targets = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    path = tmp_path_factory.mktemp("forest") / "forest.safetensors"
    RegionForest.fit(features, targets, trees=3).save(path)
    return path


@pytest.mark.parametrize("split", ["train", "val"])
def test_maps_of_a_forest(run, forest, split):
    """DRFI (Jiang et al. 2013) at working size, of odd photos, too."""
    saliency = PhotoSaliency(run, config_of(saliency_forest=str(forest)))
    read = saliency.maps(split)
    photos, _, prefix = run.split(split)
    assert read.stage.name == f"{prefix}saliency"
    loaded, spread = RegionForest.load(forest), 0.0
    for index in range(len(photos)):
        expected = drfi_saliency(photos.image(index), loaded)
        found = read(index)
        assert (found.dtype, found.shape) == (np.float32, expected.shape)
        np.testing.assert_allclose(found, expected, atol=LEVEL)
        spread = max(spread, float(np.ptp(found)))
    assert spread > 0.9
    assert saliency.curves == []


def test_what_the_maps_of_a_forest_depend_on(few, forest, tmp_path, monkeypatch):
    """On the trees, not on where their file lies or what it tells about them."""
    made: list[str] = []

    def flat(image: Any, forest: Any, settings: Any) -> Any:
        made.append(forest.digest)
        return np.zeros(image.shape[:2], np.float32)

    monkeypatch.setattr(photo_saliency, "drfi_saliency", flat)
    out = tmp_path / "run"

    def remade(path: Path, kind: Any = Config) -> bool:
        made.clear()
        config = make_config(kind, {**FEW, "saliency_forest": str(path)})
        with open_run(few, out) as run:
            PhotoSaliency(run, config).maps()
        assert set(made) <= {RegionForest.load(path).digest}
        return bool(made)

    assert remade(forest)
    assert not remade(forest)
    moved = Path(shutil.copy(forest, tmp_path / "f.safetensors"))
    assert not remade(moved)
    assert not remade(moved, MiningConfig)
    loaded = RegionForest.load(forest)
    replace(loaded, about={"told": "anew"}).save(moved)
    assert not remade(moved)
    replace(loaded, number=loaded.number / 2).save(moved)
    assert remade(moved)


@pytest.mark.parametrize("kind", [Config, MiningConfig], ids=["guided", "mcof"])
@pytest.mark.parametrize("content", [None, b"", b"oh no, this is no forest", "half"])
def test_a_forest_that_cannot_be_read_shows_at_once(run, forest, tmp_path, kind, content):
    path = tmp_path / "forest.safetensors"
    if content == "half":
        content = forest.read_bytes()[: forest.stat().st_size // 2]
    if content is not None:
        path.write_bytes(content)
    config = make_config(kind, {**FEW, "saliency_forest": str(path)})
    with pytest.raises(WeightsError) as caught:
        PhotoSaliency(run, config)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert finished_stages(run.workspace.folder) == {}


def test_the_forest_that_comes_with_tagseg(run, monkeypatch):
    """Where none is given; a package that is not whole shows at once."""
    mining = make_config(MiningConfig, FEW)
    for config in (mining, config_of(saliency="drfi")):
        saliency = PhotoSaliency(run, config)
        assert saliency.source == "drfi"
        assert saliency.forest is not None
        assert saliency.forest.digest == shipped_forest().digest
    monkeypatch.setattr("tagseg.priors.saliency.drfi._SHIPPED", "no_such.safetensors")
    monkeypatch.setattr(photo_saliency, "shipped_forest", shipped_forest.__wrapped__)
    with pytest.raises(WeightsError, match=r"no_such\.safetensors"):
        PhotoSaliency(run, mining)


# A student


def save_small(path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    net = StudentNet(width=4, last=1, branch=2, rank=4)
    torch.nn.init.uniform_(net.mask[1].bias, -0.5, 1.5)
    save_student(net, path)
    return path


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    """The file of a tiny student that was taught nothing."""
    return save_small(tmp_path_factory.mktemp("student") / "student.safetensors")


@pytest.mark.parametrize("split", ["train", "val"])
def test_maps_of_a_student(run, student, split):
    """Jing et al. 2018, III-B, at working size, of odd photos, too."""
    saliency = PhotoSaliency(run, config_of(student=str(student)))
    read = saliency.maps(split)
    photos, _, prefix = run.split(split)
    assert read.stage.name == f"{prefix}saliency"
    net, spread = load_student(student), 0.0
    for index in range(len(photos)):
        expected = student_saliency(net, photos.image(index))
        found = read(index)
        assert (found.dtype, found.shape) == (np.float32, expected.shape)
        np.testing.assert_allclose(found, expected, atol=LEVEL + 1e-3)
        spread = max(spread, float(np.ptp(found)))
    assert spread > 0.9
    assert saliency.curves == []


def test_what_the_maps_of_a_student_depend_on(few, student, tmp_path):
    """On its weights, and not on where their file lies."""
    out = tmp_path / "run"

    def remade(path: Path, make: Any = recursion_config) -> bool:
        before = finished_stages(out).get("saliency")
        with open_run(few, out) as run:
            PhotoSaliency(run, make(student=str(path))).maps()
        return finished_stages(out)["saliency"] != before

    assert remade(student)
    assert not remade(student)
    moved = Path(shutil.copy(student, tmp_path / "s.safetensors"))
    assert not remade(moved)
    assert not remade(moved, config_of)
    assert remade(save_small(moved, seed=1))


def test_students_maps_are_made_in_batches(run, student, monkeypatch):
    """Every photo has its own map, also where a run was cut short."""
    real, seen = photo_saliency.student_saliencies, []

    def cut(net: Any, images: Any) -> Any:
        if len(seen) == 2:
            raise KeyboardInterrupt
        return whole(net, images)

    def whole(net: Any, images: Any) -> Any:
        seen.append(len(images))
        return real(net, images)

    config = config_of(student=str(student))
    monkeypatch.setattr(photo_saliency, "student_saliencies", cut)
    with pytest.raises(KeyboardInterrupt):
        PhotoSaliency(run, config).maps("train")
    monkeypatch.setattr(photo_saliency, "student_saliencies", whole)
    read = PhotoSaliency(run, config).maps("train")
    assert seen == [len(indices) for indices, _ in run.photos.batches(BATCH)]
    assert max(seen) > 1
    net = load_student(student)
    for index in range(len(run.photos)):
        expected = student_saliency(net, run.photos.image(index))
        np.testing.assert_allclose(read(index), expected, atol=LEVEL + 1e-3)


@pytest.mark.parametrize("content", [None, b"", b"oh no, this is no student", "half"])
def test_a_student_that_cannot_be_read_shows_at_once(run, student, tmp_path, content):
    path = tmp_path / "student.safetensors"
    if content == "half":
        content = student.read_bytes()[: student.stat().st_size // 2]
    if content is not None:
        path.write_bytes(content)
    config = recursion_config(student=str(path))
    with pytest.raises(WeightsError) as caught:
        PhotoSaliency(run, config)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert finished_stages(run.workspace.folder) == {}


def test_a_forest_is_no_student_and_the_other_way_round(run, student, forest):
    with pytest.raises(WeightsError, match=str(forest)):
        PhotoSaliency(run, config_of(student=str(forest)))
    with pytest.raises(WeightsError, match=str(student)):
        PhotoSaliency(run, config_of(saliency_forest=str(student)))


def test_the_student_that_comes_with_tagseg(run, student, monkeypatch):
    """Where none is given."""
    monkeypatch.setattr(photo_saliency, "shipped_student", lambda: load_student(student))
    for config in (recursion_config(), config_of(saliency="student")):
        saliency = PhotoSaliency(run, config)
        assert saliency.source == "student"
        assert saliency.student is not None
        assert saliency.student.digest == load_student(student).digest


# A folder


def test_maps_of_a_folder_at_working_size(run, maps):
    saliency = PhotoSaliency(run, config_of(saliency_maps=str(maps)))
    read = saliency.maps()
    folder, seen = SaliencyFolder(maps), 0.0
    for index, name in enumerate(run.photos.names):
        shape = run.photos.image(index).shape[:2]
        found = read(index)
        assert (found.dtype, found.shape) == (np.float32, shape)
        np.testing.assert_allclose(found, folder.map(name, shape), atol=LEVEL)
        seen = max(seen, float(np.ptp(found)))
    assert seen > 0.3
    assert saliency.curves == []
    assert "saliency" in read.stage.name


def remade(few: Any, out: Path, folder: Path, **changed: Any) -> bool:
    """Whether the maps were stored anew."""
    before = finished_stages(out).get("saliency")
    with open_run(few, out) as run:
        PhotoSaliency(run, config_of(saliency_maps=str(folder), **changed)).maps()
    return finished_stages(out)["saliency"] != before


def test_what_the_stored_maps_of_a_folder_depend_on(few, maps, tmp_path):
    folder, out = Path(shutil.copytree(maps, tmp_path / "maps")), tmp_path / "run"
    assert remade(few, out, folder)
    assert not remade(few, out, folder)
    moved = Path(shutil.move(folder, tmp_path / "elsewhere"))
    assert not remade(few, out, moved), "where they lie does not matter"
    (moved / "other.png").write_bytes((moved / f"{LINE}.png").read_bytes())
    assert not remade(few, out, moved), "maps of other photos do not matter"
    assert not remade(few, out, moved, saliency_threshold=0.3)
    changed = np.asarray(PilImage.open(moved / f"{LINE}.png")) // 2
    PilImage.fromarray(changed.astype(np.uint8)).save(moved / f"{LINE}.png")
    assert remade(few, out, moved)


def test_a_map_that_is_missing_shows_at_once(run, maps, tmp_path):
    folder = Path(shutil.copytree(maps, tmp_path / "maps"))
    (folder / f"{LINE}.png").unlink()
    with pytest.raises(DataError) as caught:
        PhotoSaliency(run, config_of(saliency_maps=str(folder)))
    line = f"{folder}: 1 of 8 photos have no saliency map, the first is '{LINE}'; add one file"
    assert str(caught.value).startswith(line)
    assert finished_stages(run.workspace.folder) == {}
