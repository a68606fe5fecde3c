from __future__ import annotations

import io
import re
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PilImage
from rich.console import Console

from small_runs import contents
from small_runs import tagseg as command
from tagseg.data.images import decode_photo
from tagseg.data.masks import read_mask, write_mask
from tagseg.data.scenes import OBJECTS, draw_scene
from tagseg.errors import ConfigError, DataError, ImageError, MaskError, TagsegError, TrainingError
from tagseg.evaluate.saliency import SaliencyScores
from tagseg.priors.saliency.drfi import DRFI_LEVELS, DrfiSettings, drfi_saliency, training_rows
from tagseg.priors.saliency.forest import RegionForest
from tagseg.run.progress import Progress
from tagseg.session import train_saliency as training_saliency
from tagseg.session.train_saliency import MaskMeaning, SaliencyTraining, train_saliency

FEW = DrfiSettings(levels=DRFI_LEVELS[:2])
QUICK: dict[str, Any] = {"trees": 4, "settings": FEW}
COUNT = 12


def trained(photos: Path, masks: Path, out: Path, **values: Any) -> Any:
    """Train; the numbers among ``values`` are those of the training."""
    names = {item.name for item in fields(SaliencyTraining)}
    numbers = {name: values.pop(name) for name in names & values.keys()}
    return train_saliency(photos, masks, out, SaliencyTraining(**numbers), **values)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos and saliency masks of 0 and 1, in two folders."""
    folder = tmp_path_factory.mktemp("saliency")
    for part in ("photos", "masks"):
        (folder / part / "sub").mkdir(parents=True)
    for i in range(COUNT):
        scene = draw_scene(OBJECTS, 8, i, height=48, width=64)
        name = f"sub/{i:02d}" if i % 4 == 0 else f"{i:02d}"
        PilImage.fromarray(scene.image).save(folder / "photos" / f"{name}.png")
        write_mask(folder / "masks" / f"{name}.png", (scene.labels > 0).astype(np.uint8))
    return folder


@pytest.fixture
def place(drawn: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    for part in ("photos", "masks"):
        shutil.copytree(drawn / part, tmp_path / part)
    return tmp_path


def save(path: Path, values: Any, mode: str | None = None) -> Path:
    PilImage.fromarray(np.asarray(values, np.uint8), mode).save(path)
    return path


# What masks mean


def test_whatever_is_not_zero_is_salient(tmp_path: Path) -> None:
    for value in (1, 20, 254, 255):
        path = save(tmp_path / "m.png", [[0, value], [value, 0]])
        labels = MaskMeaning().labels(path)
        assert labels.dtype == np.uint8
        assert labels.tolist() == [[0, 1], [1, 0]]
    path = save(tmp_path / "m.png", [[0, 1, 20, 254]])
    assert MaskMeaning().labels(path).tolist() == [[0, 1, 1, 1]]


def test_255_beside_others_must_be_told(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", [[0, 100, 130, 255]])
    with pytest.raises(MaskError, match=r"m\.png: holds 255 beside other values") as caught:
        MaskMeaning().labels(path)
    assert "--void 255" in str(caught.value)
    assert "--salient-from 128" in str(caught.value)
    assert MaskMeaning(void=255).labels(path).tolist() == [[0, 1, 1, 255]]
    assert MaskMeaning(salient_from=128).labels(path).tolist() == [[0, 0, 1, 1]]
    assert MaskMeaning(void=100, salient_from=131).labels(path).tolist() == [[0, 255, 0, 1]]


def test_values_that_masks_cannot_have() -> None:
    for wrong in ({"void": 0}, {"void": 256}, {"salient_from": 0}, {"salient_from": 256}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            MaskMeaning(**wrong)


# Training


def test_the_file_holds_the_forest_that_was_measured(drawn: Path, tmp_path: Path) -> None:
    out = tmp_path / "forest.safetensors"
    done = trained(drawn / "photos", drawn / "masks", out, **QUICK)
    again = RegionForest.load(out)
    np.testing.assert_array_equal(again.number, done.forest.number)
    assert again.about == {"trained_on": "masks", "photos": "11"}
    assert len(again.roots) == 4
    assert (done.photos, done.unpaired, done.scores["photos"]) == (11, 0, 1)
    names = sorted(p.relative_to(drawn / "photos") for p in (drawn / "photos").rglob("*.png"))
    held_out = names[9]
    scores = SaliencyScores()
    image = decode_photo(drawn / "photos" / held_out)
    scores.update(drfi_saliency(image, again, FEW), read_mask(drawn / "masks" / held_out))
    assert done.scores == scores.summary()
    assert list(tmp_path.iterdir()) == [out]


def test_what_it_is_fitted_to(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all regions of the photos trained on, the salient ones and as many others."""
    fitted: list[Any] = []
    fit = RegionForest.fit

    def spy(features: Any, targets: Any, **more: Any) -> RegionForest:
        fitted.append((features, targets, more))
        return fit(features, targets, **more)

    monkeypatch.setattr(training_saliency.RegionForest, "fit", spy)
    done = trained(drawn / "photos", drawn / "masks", tmp_path / "f", seed=5, max_leaves=7, **QUICK)
    ((features, targets, more),) = fitted
    assert (more["trees"], more["seed"], more["max_leaves"]) == (4, 5, 7)
    names = sorted(
        p.relative_to(drawn / "photos").with_suffix("").as_posix()
        for p in (drawn / "photos").rglob("*.png")
    )
    parts = [
        training_rows(
            decode_photo(drawn / "photos" / f"{name}.png"),
            read_mask(drawn / "masks" / f"{name}.png"),
            FEW,
        )
        for name in names
        if name != names[9]
    ]
    every, truth = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert len(features) == len(targets) == done.rows == 2 * int(truth.sum())
    assert targets.mean() == 0.5
    known = {row.tobytes(): target for row, target in zip(every, truth, strict=True)}
    assert [known[row.tobytes()] for row in features] == targets.tolist()
    salient = [row.tobytes() for row in features[targets == 1]]
    assert salient == [row.tobytes() for row in every[truth == 1]]


def test_at_most_so_many_rows(drawn: Path, tmp_path: Path) -> None:
    done = trained(drawn / "photos", drawn / "masks", tmp_path / "f", max_rows=88, **QUICK)
    assert 22 < done.rows <= 88
    assert done.rows % 2 == 0


def test_the_same_file_for_any_number_of_threads(drawn: Path, tmp_path: Path) -> None:
    files = []
    for name, more in (("a", {}), ("b", {"threads": 3}), ("c", {"seed": 1})):
        out = tmp_path / name
        trained(drawn / "photos", drawn / "masks", out, max_rows=100, **QUICK, **more)
        files.append(out.read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_some_of_the_photos(drawn: Path, tmp_path: Path) -> None:
    done = trained(drawn / "photos", drawn / "masks", tmp_path / "f", max_photos=5, **QUICK)
    assert (done.photos, done.scores["photos"]) == (5, 0)
    assert done.lines()[-1] == "quality was not measured: too few photos to hold any out"


def test_void_pixels_and_vocs_layout(place: Path, tmp_path: Path) -> None:
    """Class ids with void borders, and photos that have no mask."""
    (place / "photos").rename(place / "JPEGImages")
    for path in (place / "masks").rglob("*.png"):
        labels = read_mask(path) * np.uint8(7)
        labels[:, :3] = 255
        write_mask(path, labels)
    (place / "masks" / "01.png").unlink()
    with pytest.raises(MaskError, match="--void 255"):
        trained(place, place / "masks", tmp_path / "f", **QUICK)
    meaning = MaskMeaning(void=255)
    done = trained(place, place / "masks", tmp_path / "f", meaning=meaning, **QUICK)
    assert (done.photos, done.unpaired) == (10, 1)
    assert "note: 1 photos or masks have no partner of the same name" in done.lines()


def test_large_photos_are_brought_down(place: Path, tmp_path: Path) -> None:
    settings = DrfiSettings(levels=FEW.levels, side=40)
    done = trained(place / "photos", place / "masks", tmp_path / "f", trees=3, settings=settings)
    assert done.rows > 20
    assert done.scores["photos"] == 1


def test_it_tells_how_far_it_is(drawn: Path, tmp_path: Path) -> None:
    said = io.StringIO()
    progress = Progress(Console(file=said, width=200))
    trained(drawn / "photos", drawn / "masks", tmp_path / "f", progress=progress, **QUICK)
    for line in ("features of regions: 11 done", "fitting 4 trees to ", "held out: 1 done"):
        assert line in said.getvalue()


# What cannot be used


def refused(kind: type[TagsegError], place: Path, **more: Any) -> str:
    before = contents(place)
    with pytest.raises(kind) as caught:
        trained(place / "photos", place / "masks", place / "out", **QUICK | more)
    assert contents(place) == before, "nothing is written"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_mask_of_another_size(place: Path) -> None:
    save(place / "masks" / "05.png", np.zeros((48, 63)))
    told = refused(MaskError, place)
    assert "masks/05.png: the mask is 48 x 63, the photo 48 x 64" in told


def test_files_that_are_broken(place: Path) -> None:
    (place / "masks" / "05.png").write_bytes(b"no picture")
    assert "masks/05.png: not a picture" in refused(MaskError, place)
    (place / "photos" / "03.png").write_bytes(b"")
    assert "photos/03.png: the file is empty" in refused(ImageError, place)


def test_folders_without_pairs(place: Path) -> None:
    for path in sorted((place / "masks").rglob("*.png")):
        path.rename(path.with_name(f"mask_{path.name}"))
    told = refused(DataError, place)
    assert f"none of its {COUNT} masks has the name of one of {COUNT} photos" in told
    shutil.rmtree(place / "masks")
    assert "masks: this folder does not exist" in refused(DataError, place)


@pytest.mark.parametrize(("value", "missing"), [(0, "salient"), (1, "background")])
def test_masks_of_one_kind(place: Path, value: int, missing: str) -> None:
    for path in (place / "masks").rglob("*.png"):
        save(path, np.full((48, 64), value))
    assert f"no region of the photos is {missing} by its mask" in refused(TrainingError, place)


@pytest.mark.parametrize(
    "wrong", [{"trees": 0}, {"max_photos": 0}, {"max_rows": 1}, {"max_leaves": 1}], ids=str
)
def test_numbers_out_of_range(place: Path, wrong: dict[str, int]) -> None:
    assert f"{next(iter(wrong))} is {next(iter(wrong.values()))}" in refused(
        ConfigError, place, **wrong
    )


def test_places_that_cannot_be_written_are_told_before_work(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> npt.NDArray[Any]:
        raise AssertionError("work before the check")

    monkeypatch.setattr(training_saliency, "training_rows", never)
    for out, message in ((place, "is a folder"), (place / "no" / "f", "its folder does not exist")):
        with pytest.raises(ConfigError, match=message):
            trained(place / "photos", place / "masks", out, **QUICK)


# The command


def test_the_command(drawn: Path, tmp_path: Path) -> None:
    out = tmp_path / "forest.safetensors"
    words = ("train-saliency", drawn / "photos", drawn / "masks", "--out", out)
    said = command(*words, "--trees", 3, "--max-leaves", 20, "--threads", 1)
    assert said.status == 0
    lines = said.out.splitlines()
    assert re.fullmatch(r"trained on \d+ regions of 11 photos", lines[0])
    score = r"MAE 0\.\d{3}, max F 0\.\d{3}, mean IoU 0\.\d{3}"
    assert re.fullmatch(rf"on 1 photos held out: {score}", lines[1])
    assert lines[2:] == [f"written: {out}"]
    forest = RegionForest.load(out)
    assert len(forest.roots) == 3
    assert (forest.feature < 0).sum() <= 60


def test_the_command_in_one_line_where_it_cannot_work(place: Path) -> None:
    out = place / "forest.safetensors"
    words = ("train-saliency", place / "photos", place / "masks", "--out", out, "--threads", 1)
    save(place / "masks" / "05.png", np.full((48, 64), 255))
    save(place / "masks" / "06.png", np.tile(np.uint8([7, 255]), (48, 32)))
    before = contents(place)
    for more, message in (
        ((), "06.png: holds 255 beside other values"),
        (("--void", 0), "void is 0; give a value from 1 to 255"),
        (("--trees", 0), "trees is 0; give 1 or more"),
        (("--threads", 0), "thread"),
    ):
        said = command(*words, *more)
        assert (said.status, said.out) == (2, "")
        assert message in said.err.splitlines()[-1]
        assert "Traceback" not in said.err
        assert contents(place) == before
