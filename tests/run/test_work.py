from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tagseg.run.manifest import make_record
from tagseg.run.mask_files import MaskFiles
from tagseg.run.progress import Progress
from tagseg.run.stage import Stage
from tagseg.run.work import (
    Local,
    PhotoWork,
    Row,
    fill,
    folder_of_pngs,
    pending,
    photos_in,
    sink_of,
)
from tagseg.tar_members import read_file

RECORD = make_record("toy", {}, [])
NAMES = ["a", "b/c", "d", "e", "f"]


class Toy(PhotoWork):
    """Groups of two photos; a number and a file of each."""

    network, costly = True, True

    def __init__(self, fails_at: int | None = None, files: str = "files/") -> None:
        self.names: Sequence[str] = NAMES
        self.files = files
        self.fails_at, self.asked = fails_at, list[range]()

    def bounds(self):
        return np.array([0, 2, 4, 5])

    def rows(self, groups: Iterable[Sequence[int]]) -> Iterator[tuple[range, Iterable[Row]]]:
        for first, behind in groups:
            self.asked.append(range(first, behind))
            yield range(first, behind), map(self.row, range(first, behind))

    def row(self, index: int) -> Row:
        if index == self.fails_at:
            raise RuntimeError
        return {"numbers": {"number": np.array(index)}, self.files: b"%d" % index}


STORES = ["numbers", "files/"]


def local(stage: Stage, work: Toy, stores: Sequence[str] = STORES) -> int:
    """How many photos were counted."""
    with Progress().task("toy", len(NAMES)) as task:
        Local().fill(stage, stores, work, task)
    return task.done


def open_stage(folder: Path) -> Stage:
    return Stage(folder, RECORD, print)


def test_files_are_kept_in_tars_and_work_that_was_begun_so_goes_on_so(tmp_path: Path) -> None:
    tars = folder_of_pngs("files", tars=True)
    with pytest.raises(RuntimeError), open_stage(tmp_path / "toy") as stage:
        local(stage, Toy(4, tars), ["numbers", tars])
    assert (tmp_path / "toy" / "files" / "b" / "c.png").is_file()  # no tar is whole yet
    with open_stage(tmp_path / "toy") as stage:
        again = Toy(files=tars)
        assert local(stage, again, ["numbers", tars]) == 5
        assert again.asked == [range(4, 5)]
        assert not list((tmp_path / "toy" / "files").rglob("*.png"))
        files = MaskFiles(stage.path("files"))
        assert [read_file(files.path(name)) for name in NAMES] == [b"%d" % i for i in range(5)]
        other = Toy()
        assert local(stage, other) == 5  # asked for as files
        assert other.asked == []


def test_rows_are_kept_and_nothing_is_done_twice(tmp_path: Path) -> None:
    with open_stage(tmp_path / "toy") as stage:
        assert local(stage, Toy()) == 5
        again = Toy()
        assert local(stage, again) == 5
        assert again.asked == []
    assert [int(stage.maps("numbers").get(name)["number"]) for name in NAMES] == list(range(5))
    assert stage.read_path("files/b/c.png").read_bytes() == b"1"


def test_a_group_of_which_one_is_missing_is_done_anew(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_stage(tmp_path / "toy") as stage:
        local(stage, Toy(fails_at=3))
    again = Toy()
    with open_stage(tmp_path / "toy") as stage:
        assert local(stage, again) == 5
    assert again.asked == [range(2, 4), range(4, 5)]


def test_costly_groups_are_safe_before_the_next(tmp_path: Path) -> None:
    with open_stage(tmp_path / "toy") as stage:
        seen: list[int] = []

        def tick() -> None:
            other = open_stage(tmp_path / "toy").maps("numbers")  # sees what is committed
            seen.append(len(other))

        sinks = {store: sink_of(stage, store) for store in STORES}
        fill(Toy(), np.array([[0, 2], [2, 4]]), sinks, tick)
    assert seen == [0, 0, 2, 2]


def test_pending_groups(tmp_path: Path) -> None:
    one, other = dict.fromkeys("adef"), dict.fromkeys(["a", "b/c", "d", "e"])
    assert pending(Toy(), [one]).tolist() == [[0, 2]]  # type: ignore[list-item]
    found = pending(Toy(), [one, other])  # type: ignore[list-item]
    assert found.tolist() == [[0, 2], [4, 5]]
    assert photos_in(found) == 3
    empty = Toy()
    empty.names = []
    assert len(pending(empty, [])) == 0
