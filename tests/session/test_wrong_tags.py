"""The list of probably wrong tags: its file, its line, and its section of the report."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from small_runs import OPTIONS, QUICK, fields_of
from tagseg.data.dataset import Dataset
from tagseg.errors import ConfigError
from tagseg.run.progress import Progress
from tagseg.session.report import render_report
from tagseg.session.train import Caller, Result, train


class Listening(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def squares(n: int = 60) -> Dataset:
    """Red and blue squares; the first photo's red one is not tagged, the second is no blue one."""
    rng = np.random.default_rng(3)
    images, tags = [], np.zeros((n, 2), bool)
    for i in range(n):
        image = rng.integers(100, 120, (48, 64, 3), np.uint8)
        tags[i] = (i % 2 == 0, i % 3 == 0)
        if tags[i, 0]:
            image[8:40, 4:28] = (230, 20, 20)
        if tags[i, 1]:
            image[8:40, 36:60] = (20, 20, 230)
        images.append(image)
    tags[0, 0], tags[1, 1] = False, True
    return Dataset.from_arrays(images, tags, ("red", "blue"))


DATASET = squares()


def run(out: Path, said: Listening | None = None, **values: object) -> Result:
    config = {**fields_of("cam_baseline", QUICK), **values}
    caller = Caller(said if said is not None else Progress())
    return train(
        DATASET, "cam_baseline", config, out=out, options=OPTIONS, caller=caller,
        val=DATASET.names[-3:],
    )  # fmt: skip


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "wrong_tags.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_of_incomplete_tags_lists_what_is_missing(tmp_path: Path) -> None:
    said = Listening()
    result = run(tmp_path / "run", said, tags_are="incomplete")
    rows = rows_of(result.folder)
    assert rows[0] == {**rows[0], "image": "000000", "class": "red", "probably": "missing"}
    assert {row["probably"] for row in rows} == {"missing"}
    confidence = [float(row["confidence"]) for row in rows]
    assert confidence == sorted(confidence, reverse=True)
    assert 0.5 <= min(confidence) <= max(confidence) < 1
    told = [line for line in said.said if line.startswith("tags: ")]
    completed = [row for row in rows if float(row["confidence"]) >= 0.8]
    assert told == [
        f"tags: {len(completed)} that are probably missing from "
        f"{len({row['image'] for row in completed})} photos are taken as given "
        "(confidence 0.8 or more); completed_confidence=none leaves them",
        f"tags: {len(rows)} are probably missing and 0 wrong, in "
        f"{len({row['image'] for row in rows})} photos: {result.folder / 'wrong_tags.csv'}",
    ]
    page = result.report.read_text(encoding="utf-8")
    assert 'id="tags"' in page
    assert "<td>red</td><td>missing</td>" in page
    before = page
    assert render_report(result.folder).read_text(encoding="utf-8") == before


def test_noisy_tags_may_be_too_many(tmp_path: Path) -> None:
    rows = rows_of(run(tmp_path / "run", tags_are="noisy").folder)
    assert {("000001", "blue", "wrong"), ("000000", "red", "missing")} <= {
        (row["image"], row["class"], row["probably"]) for row in rows
    }


def test_complete_tags_have_no_list_and_one_of_before_goes(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(out, tags_are="incomplete")
    result = run(out)
    assert not (out / "wrong_tags.csv").exists()
    assert 'id="tags"' not in result.report.read_text(encoding="utf-8")


def test_the_same_call_again_changes_nothing(tmp_path: Path) -> None:
    out, said = tmp_path / "run", Listening()
    run(out, tags_are="incomplete")
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    run(out, said, tags_are="incomplete")
    assert "the run was finished before; nothing had to be done" in said.said
    again = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    named = {path.name for path in again if again[path] != times.get(path)}
    assert "wrong_tags.csv" not in named
    assert "run.json" not in named


def test_marks_go_through_a_run(tmp_path: Path) -> None:
    unsure = np.zeros_like(DATASET.tags)
    unsure[0, 0] = True
    config = fields_of("cam_baseline", QUICK)
    marked = replace(DATASET, unsure=unsure)
    result = train(marked, "cam_baseline", config, out=tmp_path / "run", options=OPTIONS)
    names = {path.name.partition("-")[2] for path in (result.folder / "stages").iterdir()}
    assert "sure-seeds" in names
    assert not (result.folder / "wrong_tags.csv").exists()


@pytest.mark.parametrize("recipe", ["full_supervision", "coarse_to_fine_foreground"])
def test_recipes_without_tags_say_so(recipe: str) -> None:
    with pytest.raises(ConfigError, match="tags_are"):
        train(DATASET, recipe, {"tags_are": "noisy"}, options=OPTIONS)
