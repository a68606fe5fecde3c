"""Stages as they are declared: keys, work photo by photo and batch by batch, and going on."""

from __future__ import annotations

import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from torch import nn

from paired_ranks import Paired, together
from small_runs import OPTIONS
from tagseg.data.dataset import Dataset
from tagseg.data.masks import decode_mask, encode_mask
from tagseg.data.working import WorkingPhotos
from tagseg.errors import ConfigError, DataError, WorkspaceError
from tagseg.run.company import Followed, Led
from tagseg.run.plan import Plan
from tagseg.run.progress import Progress
from tagseg.run.together import Together
from tagseg.run.work import Local
from tagseg.run.workspace import Stage, Workspace
from tagseg.session.train import make_setup
from tagseg.stages import stage as stages
from tagseg.stages.context import Run
from tagseg.stages.settings import Settings, number
from tagseg.stages.stage import (
    BATCH,
    Declared,
    Drawn,
    InTwo,
    LabelMaps,
    Once,
    PhotoMaps,
    Plain,
    found,
    label_maps,
    levels,
    opened,
    per_batch,
    per_photo,
    saliency_maps,
    trained,
)
from tagseg.training import Execution, Schedule

COUNT, SIZE = 40, 4  # photos, and photos a batch
TOY = Declared("toy")


def toy_photos(count: int = COUNT) -> WorkingPhotos:
    """Photos of one size each of which is full of its own index; every third is in a folder."""
    pictures = [np.full((6, 8, 3), index, np.uint8) for index in range(count)]
    made = Dataset.from_arrays(pictures, np.ones((count, 1), bool), ("thing",))
    names = tuple(f"a/b {i}" if i % 3 == 0 else f"photo {i}" for i in range(count))
    return WorkingPhotos(replace(made, names=names), 8)


@contextmanager
def toy_run(folder: Path, said: list[str] | None = None, *, threads: int = 1) -> Iterator[Run]:
    photos = toy_photos()
    setup = SimpleNamespace(threads=threads, engine=Local())
    announce: Callable[[str], None] = (said if said is not None else []).append
    with Workspace.open(folder, recipe="toy", settings={}, announce=announce) as work:
        yield Run(photos, "photos", photos, "val", setup, work, Progress())  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path) -> Iterator[Run]:
    with toy_run(tmp_path / "run") as run:
        yield run


def kept_of(index: int) -> dict[str, Any]:
    """What is kept of a photo: arrays in a store, a PNG in another, and one in a folder."""
    labels = np.full((6, 8), index, np.uint8)
    png = encode_mask(labels)
    return {"arrays": {"value": np.array([index, index + 1])}, "pngs": png, "files/": png}


STORES = ["arrays", "pngs", "files/"]


def assert_is_whole(run: Run, stage: Stage) -> None:
    assert not stage.pending
    for index, name in enumerate(run.photos.names):
        assert stage.maps("arrays").get(name)["value"].tolist() == [index, index + 1]
        file = stage.path(f"files/{name}.png").read_bytes()
        for content in (stage.maps("pngs").get_bytes(name), file):
            assert (decode_mask(content) == index).all()


def files_of(folder: Path) -> dict[str, int]:
    """Time of change of every PNG."""
    masks = folder / "stages" / "01-toy" / "files"
    return {
        path.relative_to(masks).as_posix(): path.stat().st_mtime_ns for path in masks.rglob("*.png")
    }


# Batches


class Batches:
    """Makes rows of batches, and notes which; batch number ``cut`` is interrupted after a row.

    Once it is, ``before`` is called: what is on disk then is what a kill would leave.
    """

    def __init__(self, cut: int | None = None, before: Callable[[], object] = lambda: None) -> None:
        self.cut, self.before = cut, before
        self.made: list[list[int]] = []

    def __call__(self, images: Any, indices: list[int]) -> Iterator[dict[str, Any]]:
        assert [int(image[0, 0, 0]) for image in images] == indices
        number = indices[0] // SIZE
        self.made.append(indices)
        for place, index in enumerate(indices):
            if number == self.cut and place == 1:
                self.before()
                raise KeyboardInterrupt
            yield kept_of(index)

    def stage(self, run: Run) -> Stage:
        return per_batch(run, TOY, STORES, self, batch=SIZE)


ALL_BATCHES = [list(range(first, first + SIZE)) for first in range(0, COUNT, SIZE)]
NINTH_TENTH = 9  # the batch in which 90 % are done


@pytest.mark.parametrize("killed", [False, True], ids=["exception", "kill"])
def test_a_batch_at_most_is_made_again(tmp_path, killed):
    """Interrupted in the middle of the last of ten batches, by an exception or for good."""
    folder, copy = tmp_path / "run", tmp_path / "copy"
    first = Batches(NINTH_TENTH, lambda: shutil.copytree(folder, copy))
    with toy_run(folder) as run, pytest.raises(KeyboardInterrupt):
        first.stage(run)
    assert first.made == ALL_BATCHES
    rest = Batches()
    with toy_run(copy if killed else folder) as run:
        stage = rest.stage(run)
        assert rest.made == ALL_BATCHES[NINTH_TENTH:]
        assert_is_whole(run, stage)


@pytest.mark.parametrize("cut", [0, 1, 5])
def test_a_batch_is_on_disk_before_the_next_begins(tmp_path, cut):
    """As another process reads it, while the stage is at work."""
    folder = tmp_path / "run"
    kept: list[str] = []

    def look() -> None:
        copy = shutil.copytree(folder, tmp_path / "copy")
        with toy_run(copy) as other:
            stage = opened(other, TOY)
            with stage:
                kept.extend(stage.maps("arrays").names())
                assert len(list(stage.folder.glob("files/**/*.png"))) >= len(kept)
                raise SystemExit  # so that it is not finished

    with toy_run(folder) as run:
        names = run.photos.names
        with pytest.raises(SystemExit):
            Batches(cut, look).stage(run)
    assert set(kept) == set(names[: SIZE * cut])


def test_an_interrupted_batch_keeps_its_company(tmp_path):
    """It is done anew as a whole, though a row of it is there."""
    folder = tmp_path / "run"
    with toy_run(folder) as run, pytest.raises(KeyboardInterrupt):
        Batches(2).stage(run)
    rest = Batches()
    with toy_run(folder) as run:
        rest.stage(run)
    assert rest.made == ALL_BATCHES[2:]


def test_a_batch_that_lacks_a_row_in_one_store_is_made_again(tmp_path):
    folder = tmp_path / "run"
    with toy_run(folder) as run, pytest.raises(KeyboardInterrupt):
        Batches(NINTH_TENTH).stage(run)
    next(folder.glob("stages/??-toy/files/photo 5.png")).unlink()
    rest = Batches()
    with toy_run(folder) as run:
        assert_is_whole(run, rest.stage(run))
    assert rest.made == [ALL_BATCHES[1], ALL_BATCHES[NINTH_TENTH]]


def test_a_finished_stage_is_read_alone(tmp_path):
    folder, again = tmp_path / "run", Batches()
    with toy_run(folder) as run:
        assert_is_whole(run, Batches().stage(run))
        assert run.worked == ["toy"]
    with toy_run(folder) as run:
        assert_is_whole(run, again.stage(run))
        assert run.worked == []
    assert again.made == []


@pytest.mark.parametrize("rows", [SIZE - 1, SIZE + 1])
def test_rows_that_do_not_fit_the_batch_are_no_result(run, rows):
    with pytest.raises(ValueError, match="zip"):
        per_batch(run, TOY, STORES, lambda i, n: [kept_of(0)] * rows, batch=SIZE)
    with opened(run, TOY) as stage:
        assert stage.pending


def test_batches_are_of_16_photos_unless_they_are_said_to_be_others(run):
    seen: list[int] = []

    def make(images: Any, indices: list[int]) -> list[dict[str, Any]]:
        seen.append(len(indices))
        return [kept_of(index) for index in indices]

    per_batch(run, TOY, STORES, make)
    assert seen == [BATCH, BATCH, COUNT - 2 * BATCH]
    assert BATCH == 16


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_device_has_one_batch_while_the_cpu_makes_rows_of_that_before(tmp_path, device):
    began: dict[int, threading.Event] = {first: threading.Event() for first in range(COUNT + 1)}
    apart = device != "cpu"

    def network(images: Any, indices: list[int]) -> list[int]:
        assert [int(image[0, 0, 0]) for image in images] == indices
        began[indices[0]].set()
        return indices

    def behind(images: Any, indices: list[int], found: list[int]) -> Iterator[dict[str, Any]]:
        following = indices[-1] + 1
        if apart and following < COUNT:
            assert began[following].wait(10)
        assert apart or not began[following].is_set()
        return map(kept_of, found)

    with toy_run(tmp_path / "run") as run:
        execution = Execution(torch.device(device))
        run = replace(run, setup=replace(make_setup(OPTIONS), execution=execution))
        stage = per_batch(run, TOY, STORES, InTwo(network, behind), batch=SIZE)
        assert_is_whole(run, stage)


# Shared out among processes


@contextmanager
def shared_run(folder: Path, ranks: Paired) -> Iterator[Run]:
    photos, setup = toy_photos(), SimpleNamespace(threads=1, engine=Together())

    def lead() -> None:
        led.append(Led.open(folder, recipe="toy", settings={}))
        led[0].ranks = ranks

    led: list[Led] = []
    ranks.first(lead)
    with led[0] if led else Followed(folder, ranks) as work:
        yield Run(photos, "photos", photos, "val", setup, work, Progress())  # type: ignore[arg-type]


@pytest.mark.parametrize("by", ["photo", "batch"])
@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_out_photos_and_keep_what_one_would(tmp_path, monkeypatch, by, size):
    monkeypatch.setattr("tagseg.run.together._A_ROUND", 2)
    made: dict[int, list[Any]] = {rank: [] for rank in range(size)}

    def stage_of(run: Run, rank: int, stops: int | None = None) -> Stage:
        def make(index: int) -> dict[str, Any]:
            if index == stops:
                raise KeyboardInterrupt
            made[rank].append(index)
            return kept_of(index)

        def make_batch(images: Any, indices: list[int]) -> Iterator[dict[str, Any]]:
            assert [int(image[0, 0, 0]) for image in images] == indices
            assert indices in ALL_BATCHES
            return map(make, indices)

        if by == "photo":
            return per_photo(run, TOY, STORES, make)
        return per_batch(run, TOY, STORES, make_batch, batch=SIZE)

    with toy_run(tmp_path / "run") as run, pytest.raises(KeyboardInterrupt):
        stage_of(run, 0, stops=9)
    before = sorted(made[0])
    made[0].clear()

    def work(ranks: Paired) -> str:
        with shared_run(tmp_path / "run", ranks) as run:
            stage = stage_of(run, ranks.rank)
            assert_is_whole(run, stage)
            return stage.maps("arrays").digest()

    digests = together(size, work)
    with toy_run(tmp_path / "alone") as run:
        expected = stage_of(run, 0).maps("arrays").digest()
    del made[0][-COUNT:]
    assert digests == [expected] * size
    whole = before if by == "photo" else before[: len(before) // SIZE * SIZE]
    assert sorted([*whole, *(i for own in made.values() for i in own)]) == list(range(COUNT)), (
        "each once"
    )
    assert all(made.values())


def test_a_photo_that_fails_in_any_process_is_told_by_the_one_that_leads(tmp_path):
    def make(index: int) -> dict[str, Any]:
        if index == 3:
            raise DataError("cannot be used", do="replace it")
        return kept_of(index)

    def work(ranks: Paired) -> None:
        with shared_run(tmp_path / "run", ranks) as run:
            per_photo(run, TOY, STORES, make)

    for error in together(2, work):
        assert isinstance(error, DataError)
        assert str(error) == "a/b 3: cannot be used; replace it"


# Photo by photo


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("cut", [0, 1, 36])
def test_it_goes_on_at_the_photo(tmp_path, cut, threads):
    """What other threads were at when one failed may be lost; nothing that was kept is."""
    folder, made = tmp_path / "run", list[int]()

    def stops(index: int) -> dict[str, Any]:
        if index == cut:
            raise KeyboardInterrupt
        return kept_of(index)

    def goes_on(index: int) -> dict[str, Any]:
        made.append(index)
        return kept_of(index)

    with toy_run(folder, threads=threads) as run, pytest.raises(KeyboardInterrupt):
        per_photo(run, TOY, STORES, stops)
    before = set(files_of(folder))
    with toy_run(folder, threads=threads) as run:
        stage = per_photo(run, TOY, STORES, goes_on)
        assert_is_whole(run, stage)
        names = run.photos.names
    assert sorted(made) == [i for i, name in enumerate(names) if f"{name}.png" not in before]
    if threads == 1:
        assert sorted(made) == list(range(cut, COUNT))


def test_a_photo_that_lacks_one_store_is_made_again(tmp_path):
    folder, made = tmp_path / "run", list[int]()

    def make(index: int) -> dict[str, Any]:
        made.append(index)
        if len(made) == COUNT:
            raise KeyboardInterrupt
        return kept_of(index)

    with toy_run(folder) as run, pytest.raises(KeyboardInterrupt):
        per_photo(run, TOY, STORES, make)
    next(folder.glob("stages/??-toy/files/photo 5.png")).unlink()
    made.clear()
    with toy_run(folder) as run:
        assert_is_whole(run, per_photo(run, TOY, STORES, make))
    assert made == [5, COUNT - 1]


def test_errors_name_the_photo(run):
    def make(index: int) -> dict[str, Any]:
        if index == 3:
            raise DataError("cannot be used", do="replace it")
        return kept_of(index)

    with pytest.raises(DataError, match=f"^{run.photos.names[3]}: cannot be used; replace it"):
        per_photo(run, TOY, STORES, make)


def test_photos_one_at_a_time(tmp_path):
    """Although the run has threads, where the work must not share them."""
    busy = 0

    def make(index: int) -> dict[str, Any]:
        nonlocal busy
        busy += 1
        assert busy == 1
        kept = kept_of(index)
        busy -= 1
        return kept

    with toy_run(tmp_path / "run", threads=4) as run:
        assert_is_whole(run, per_photo(run, TOY, STORES, make, threads=1))


@pytest.mark.parametrize("split", ["train", "val"])
def test_stages_of_validation_photos_have_names_of_their_own(run, split):
    def make(images: Any, indices: list[int]) -> list[dict[str, Any]]:
        return [kept_of(index) for index in indices]

    prefix = {"train": "", "val": "val-"}[split]
    assert per_photo(run, TOY, STORES, kept_of, split=split).name == f"{prefix}toy"
    other = Declared("other", val_alone=split == "val")
    assert per_batch(run, other, STORES, make, split=split).name == "other"


# Folders of PNG


def test_a_folder_of_png_resumes(tmp_path):
    """Its finished files are left alone; names with folders are folders."""
    folder = tmp_path / "run"
    with toy_run(folder) as run, pytest.raises(KeyboardInterrupt):
        Batches(NINTH_TENTH).stage(run)
    before = files_of(folder)
    done = toy_photos().names[: SIZE * NINTH_TENTH + 1]
    assert set(before) == {f"{name}.png" for name in done}
    with toy_run(folder) as run:
        assert_is_whole(run, Batches().stage(run))
    after = files_of(folder)
    assert set(after) == {f"{name}.png" for name in toy_photos().names}
    of_batches = [f"{name}.png" for name in done[: SIZE * NINTH_TENTH]]
    assert [after[name] for name in of_batches] == [before[name] for name in of_batches]


def test_a_folder_holds_png_alone(run):
    with pytest.raises(TypeError, match="files hold PNG alone"):
        per_photo(run, TOY, ["files/"], lambda index: {"files/": {"value": np.zeros(2)}})


def test_half_a_png_is_none(tmp_path, monkeypatch):
    """A file that was being written when the run was killed is made again."""
    folder = tmp_path / "run"
    with toy_run(folder) as run, pytest.raises(KeyboardInterrupt):
        Batches(1).stage(run)
    masks = next(folder.glob("stages/??-toy/files"))
    (masks / ".tmp-photo 8.png").write_bytes(b"half")
    with toy_run(folder) as run:
        assert_is_whole(run, Batches().stage(run))
    assert set(files_of(folder)) == {f"{name}.png" for name in toy_photos().names}


# Keys


@dataclass(frozen=True)
class ToySettings(Settings):
    kind: str = number("plain", "assumed", "what is done")
    weight: float = number(0.5, "assumed", "of it", only_with={"kind": ("heavy",)})


@dataclass(frozen=True)
class Form(Plain):
    width: int


@dataclass(frozen=True)
class OddNumbers:
    width: int


def some_loss() -> None: ...


def other_loss() -> None: ...


def record_of(run: Run, *args: Any, **named: Any) -> Any:
    plan = Plan()
    opened(replace(run, workspace=plan), *args, **named)
    (record,) = plan.records.values()
    return record


def key_of(run: Run, *args: Any, **named: Any) -> str:
    return record_of(run, *args, **named)["key"]


def test_what_stands_in_a_record(run):
    """Fields of settings by their own names, of other dataclasses under theirs."""
    items = [ToySettings("heavy"), Form(3), OddNumbers(4), Drawn(7), some_loss]
    config = record_of(run, TOY, items)["config"]
    assert config == {
        "version": 1,
        "kind": "heavy",
        "weight": 0.5,
        "width": 3,
        "odd_numbers": {"width": 4},
        "seed": 7,
        "function": "some_loss",
        "photo_side": 8,
    }
    assert "photo_side" not in record_of(run, TOY, items, split=None)["config"]


def test_photos_at_reduced_scale_stand_in_a_record(run):
    """Not in those of photos that are decoded whole, whose keys are as before."""
    reduced = copy(run.photos)
    reduced.__dict__["reduces"] = True
    large = replace(run, photos=reduced)
    assert record_of(large, TOY)["config"]["decoding"] == "reduced"
    assert key_of(large, TOY) != key_of(run, TOY)
    assert key_of(large, TOY, split=None) == key_of(run, TOY, split=None)


def test_a_network_at_work_brings_its_means(run):
    setup = make_setup(OPTIONS)
    with_it = record_of(run, TOY, [setup.means()])["config"]
    assert with_it == {"version": 1, "photo_side": 8, **setup.settings()}


def test_whatever_decides_on_a_result_changes_its_key(run):
    stage = opened(replace(run, workspace=Plan()), Declared("before"))
    other = opened(replace(run, workspace=Plan()), Declared("before", version=2))
    keys = [
        key_of(run, TOY),
        key_of(run, Declared("toy", version=2)),
        key_of(run, Declared("other")),
        key_of(run, TOY.round(1)),
        key_of(run, TOY.round(2)),
        key_of(run, TOY, [ToySettings()]),
        key_of(run, TOY, [ToySettings("heavy")]),
        key_of(run, TOY, [ToySettings("heavy", 0.6)]),
        key_of(run, TOY, [Form(3)]),
        key_of(run, TOY, [OddNumbers(3)]),
        key_of(run, TOY, [some_loss]),
        key_of(run, TOY, [other_loss]),
        key_of(run, TOY, inputs=[stage]),
        key_of(run, TOY, inputs=[other]),
        key_of(run, TOY, inputs=["stage"]),
        key_of(run, TOY, split="val"),
        key_of(run, TOY, split=None),
        key_of(run, TOY, [make_setup(OPTIONS).means()]),
        key_of(replace(run, photos_key="other"), TOY),
        key_of(replace(run, photos=WorkingPhotos(run.photos.dataset, 7)), TOY),
    ]
    assert len(set(keys)) == len(keys)


def test_what_does_nothing_is_not_in_the_key(run):
    one, other = (key_of(run, TOY, [ToySettings(weight=weight)]) for weight in (0.5, 0.6))
    assert one == other


def test_a_result_stands_for_its_stage(run):
    maps = label_maps(run, Declared("maps"), lambda index: np.zeros((6, 8), np.uint8))
    by_maps, by_stage = (key_of(run, TOY, inputs=[item]) for item in (maps, maps.stage))
    assert by_maps == by_stage
    assert key_of(run, TOY, inputs=[maps.map(lambda index, labels: labels)]) == by_stage


def test_a_raised_version_runs_again_and_says_so(tmp_path):
    folder, said, made = tmp_path / "run", list[str](), list[int]()

    def make(index: int) -> dict[str, Any]:
        made.append(index)
        return kept_of(index)

    def go(version: int) -> list[int]:
        made.clear()
        said.clear()
        with toy_run(folder, said) as run:
            per_photo(run, Declared("toy", version), STORES, make)
        return made

    assert go(1) == list(range(COUNT))
    assert (go(1), said) == ([], [])
    assert go(2) == list(range(COUNT))
    assert said == ["stage toy runs again: version 1 -> 2"]
    assert (go(2), said) == ([], [])


@pytest.mark.parametrize(
    ("layer", "precision", "told"),
    [
        (nn.Conv2d(4, 4, 3, dilation=2, groups=4), torch.bfloat16, {"dilated_gradients": 2}),
        (nn.Conv2d(4, 4, 3, dilation=2, groups=4), torch.float32, {}),
        (nn.Conv2d(4, 4, 3, groups=4), torch.bfloat16, {}),
    ],
)
def test_a_training_tells_which_gradients_it_had_where_they_were_wrong(run, layer, precision, told):
    execution = Execution(precision=precision)
    means = stages.Drawn(0)  # stands for those of a run
    setup = SimpleNamespace(execution=execution, weights=None, means=lambda: means)
    plan = Plan()
    trained(
        replace(run, workspace=plan),
        Declared("toy-training"),
        nn.Sequential(layer),
        lambda loop: None,
        Schedule(1, 1, 0.1),
        setup=setup,  # type: ignore[arg-type]
        title="a toy",
    )
    (record,) = plan.records.values()
    found = {name: value for name, value in record["config"].items() if "gradients" in name}
    assert found == told


def test_a_stage_is_asked_for_twice(run):
    opened(run, TOY, [Form(3)])
    assert opened(run, TOY, [Form(3)]) is opened(run, TOY, [Form(3)])
    with pytest.raises(WorkspaceError, match="asked for twice, made from different things"):
        opened(run, TOY, [Form(4)])


def test_there_may_be_no_validation_photos(run):
    with pytest.raises(ConfigError, match="there are no validation photos; give --val"):
        opened(replace(run, val=None), TOY, split="val")


# Findings


def test_what_is_found_is_kept_as_json(tmp_path):
    value = {"names": ["a", "größe"], "share": 0.25, "none": None}
    counted = []

    def compute() -> Any:
        counted.append(1)
        return value

    folder = tmp_path / "run"
    for _ in range(2):
        with toy_run(folder) as run:
            result = found(run, TOY, compute, planned={}, settings=[Form(3)], inputs=["x"])
            assert result.value == value
            assert result.stage.load_json("found") == value
    assert len(counted) == 1
    with toy_run(folder) as run:
        found(run, TOY, compute, planned={}, settings=[Form(4)], inputs=["x"])
    assert len(counted) == 2


def test_what_is_found_is_as_it_will_be_read_again(run):
    """A tuple is a list from the first time on."""
    assert found(run, TOY, lambda: (1, 2), planned=()).value == [1, 2]


def test_a_planned_run_finds_nothing(run):
    planned = replace(run, workspace=Plan())
    result = found(planned, TOY, lambda: pytest.fail("computed"), planned=7)
    assert result.value == 7
    assert result.stage.planned


# Maps


@pytest.mark.parametrize("room", [0, 25, 10_000])
def test_labels_are_kept_while_there_is_room(tmp_path, monkeypatch, room):
    monkeypatch.setattr(stages, "_MOST_LABELS_AT_ONCE", room)
    labels = [np.full((4, 5), i, np.uint8) for i in range(3)]
    with Workspace.open(tmp_path / "run", recipe="toy", settings={}) as work:
        with work.stage("labels", config={}, inputs=[]) as stage:
            for i, one in enumerate(labels):
                stage.maps("labels").put_bytes(str(i), encode_mask(one))
        maps = LabelMaps(stage, "labels", ["0", "1", "2"])
        for _ in range(2):
            for i, one in enumerate(labels):
                assert np.array_equal(maps(i), one)
        assert sum(one.nbytes for one in maps._decoded.values()) <= room


def test_labels_of_photos(run):
    maps = label_maps(run, TOY, lambda index: np.full((6, 8), index, np.uint8))
    assert maps.stage.name == "toy"
    for index in (0, 7, COUNT - 1):
        assert (maps(index) == index).all()


def test_maps_that_are_changed_when_they_are_read(run):
    read: list[int] = []

    def value(index: int) -> int:
        read.append(index)
        return 10 * index

    with opened(run, TOY) as stage:
        pass
    maps = PhotoMaps(stage, value)
    changed = maps.map(lambda index, value: value + index)
    assert read == []
    assert (changed(3), maps(3)) == (33, 30)
    assert changed.stage is stage


def test_saliency_is_kept_in_255_levels(run):
    rng = np.random.default_rng(0)
    maps = [2 * rng.random((6, 8), np.float32) - 0.5 for _ in run.photos.names]
    stage = label_maps(run, TOY, lambda index: levels(maps[index])).stage
    read = saliency_maps(run, stage, "train")
    assert read.stage is stage
    for index, saliency in enumerate(maps):
        assert read(index).dtype == np.float32
        np.testing.assert_allclose(read(index), saliency.clip(0, 1), atol=0.5 / 255 + 1e-6)


MADE: list[int] = []


def made() -> int:
    MADE.append(1)
    return len(MADE)


def test_what_is_made_once_is_made_anew_in_another_process() -> None:
    once = Once(made)
    assert MADE == []
    assert [once(), once()] == [1, 1]
    copy = pickle.loads(pickle.dumps(once))
    assert [copy(), copy(), once()] == [2, 2, 1]


def test_labels_that_are_copied_are_decoded_anew(tmp_path: Path) -> None:
    with toy_run(tmp_path) as run:
        labels = label_maps(run, Declared("toy"), lambda index: np.full((3, 4), index, np.uint8))
    assert (labels(1) == 1).all()
    copy = cloudpickle.loads(cloudpickle.dumps(labels))
    assert copy._decoded == {}
    assert (copy(1) == 1).all()
    assert copy.stage.key == labels.stage.key
