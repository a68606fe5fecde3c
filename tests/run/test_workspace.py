from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest

from tagseg.errors import WorkspaceError
from tagseg.run.workspace import Workspace


class Run:
    """A toy recipe: classifier -> cam -> segmenter, and saliency beside, on one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heard: list[str] = []

    def __call__(
        self,
        *,
        data: str = "data-1",
        lr: float = 0.1,
        scales: tuple[float, ...] = (1.0,),
        skip: str = "",
        die_in: str = "",
    ) -> list[str]:
        """Go through the stages; return those that had to run."""
        self.heard.clear()
        ran = []
        with Workspace.open(
            self.folder, recipe="toy", settings={"lr": lr}, announce=self.heard.append
        ) as work:

            def stage(name: str, config: dict[str, Any], inputs: list[Any]) -> Any:
                with work.stage(name, config=config, inputs=inputs) as s:
                    if s.pending:
                        ran.append(name)
                        s.save_json("result", [name, config, [str(i) for i in inputs[:1]]])
                        if name == die_in:
                            raise RuntimeError(name)
                return s

            classifier = stage("classifier", {"lr": lr}, [data])
            if skip != "saliency":
                stage("saliency", {}, [data])
            cam = stage("cam", {"scales": scales}, [data, classifier])
            if skip != "segmenter":
                stage("segmenter", {}, [data, cam])
            assert [s.name for s in work.summary()] == [s.name for s in work._stages.values()]
        return ran


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")


def stages(run: Run) -> list[str]:
    return sorted(path.name for path in (run.folder / "stages").iterdir())


ALL = ["classifier", "saliency", "cam", "segmenter"]
FOLDERS = ["01-classifier", "02-saliency", "03-cam", "04-segmenter"]


def test_what_is_finished_does_not_run_again(run: Run) -> None:
    assert run() == ALL
    assert stages(run) == FOLDERS
    before = {p: p.stat().st_mtime_ns for p in (run.folder / "stages").rglob("*.json")}
    assert run() == []
    assert run.heard == []
    assert {p: p.stat().st_mtime_ns for p in (run.folder / "stages").rglob("*.json")} == before


def test_a_changed_field_runs_exactly_its_dependents_again(run: Run) -> None:
    run()
    assert run(scales=(1.0, 0.5)) == ["cam", "segmenter"]
    assert run.heard[0] == "stage cam runs again: scales [1.0] -> [1.0, 0.5]"
    assert run.heard[1].startswith("stage segmenter runs again: input cam ")
    assert len(run.heard) == 2
    assert run(scales=(1.0, 0.5), lr=0.2) == ["classifier", "cam", "segmenter"]
    assert run.heard[0] == "stage classifier runs again: lr 0.1 -> 0.2"
    assert run(scales=(1.0, 0.5), lr=0.2) == []
    assert stages(run) == FOLDERS


def test_other_data_runs_everything_again(run: Run) -> None:
    run()
    assert run(data="data-2") == ALL
    assert run.heard[0] == "stage classifier runs again: input 1 data-1 -> data-2"


def test_work_that_was_cut_short_goes_on(run: Run) -> None:
    with pytest.raises(RuntimeError):
        run(die_in="cam")
    assert (run.folder / "stages/03-cam/result.json").exists()
    assert run() == ["cam", "segmenter"]


def test_nothing_is_lost_by_a_change_that_is_taken_back(run: Run) -> None:
    run()
    with pytest.raises(RuntimeError):
        run(lr=0.5, die_in="classifier")
    assert ".before-classifier" in stages(run)
    with pytest.raises(RuntimeError):  # another change: the finished one is still kept
        run(lr=0.7, die_in="classifier")
    assert run() == []
    assert run.heard == ["stage classifier is taken up again as it was before the last change"]
    assert stages(run) == FOLDERS
    assert run(lr=0.5) == ["classifier", "cam", "segmenter"]
    assert stages(run) == FOLDERS


def test_a_kill_while_changing_over_does_no_harm(run: Run) -> None:
    run()
    (run.folder / "stages/01-classifier").rename(run.folder / "stages/.before-classifier")
    (run.folder / "stages/03-cam").rename(run.folder / "stages/.tmp-03-cam")
    (run.folder / "stages/04-segmenter/manifest.json").write_text("{")
    assert run() == ["cam", "segmenter"]
    assert run.heard == ["stage segmenter runs again: its manifest is damaged"]
    assert stages(run) == FOLDERS


def test_numbers_follow_the_order_and_strangers_stay(run: Run) -> None:
    run()
    assert run(skip="saliency") == []
    assert stages(run) == ["01-classifier", "02-cam", "02-saliency", "03-segmenter"]
    with Workspace.read(run.folder) as reader:
        assert [s.name for s in reader.summary()] == ["classifier", "cam", "segmenter"]
    assert run() == []
    assert stages(run) == FOLDERS
    assert run(skip="segmenter") == []
    with Workspace.read(run.folder) as reader:
        assert [s.name for s in reader.summary()] == ["classifier", "saliency", "cam"]


def test_a_finished_run_is_read_without_a_lock(run: Run) -> None:
    with pytest.raises(RuntimeError):
        run(die_in="segmenter")
    with Workspace.open(run.folder, recipe="toy", settings={"a": (1, 2)}, classes=["cat"]):
        reader = Workspace.read(run.folder)
        assert [s.name for s in reader.summary()] == ["classifier", "saliency", "cam"]
        assert reader.finished("cam").load_json("result")[0] == "cam"
        assert (reader.recipe, reader.settings, reader.classes) == ("toy", {"a": [1, 2]}, ["cat"])
        for name in ("segmenter", "nothing"):
            with pytest.raises(WorkspaceError, match=f"stage {name} is not finished"):
                reader.finished(name)
        with pytest.raises(WorkspaceError, match="for reading only"):
            reader.stage("cam", config={}, inputs=[])
        reader.close()


def test_a_stage_asked_for_twice_is_the_same(tmp_path: Path) -> None:
    with Workspace.open(tmp_path, recipe="toy", settings={}) as work:
        first = work.stage("a", config={"x": 1}, inputs=[])
        assert work.stage("a", config={"x": 1}, inputs=[]) is first
        with first:
            pass
        assert work.finished("a") is first
        with pytest.raises(WorkspaceError, match="asked for twice"):
            work.stage("a", config={"x": 2}, inputs=[])
        for name in ("", "../a", "A b"):
            with pytest.raises(WorkspaceError, match="is no stage name"):
                work.stage(name, config={}, inputs=[])


def test_a_folder_in_use_is_refused(run: Run) -> None:
    with (
        Workspace.open(run.folder, recipe="toy", settings={}),
        pytest.raises(WorkspaceError, match="in use by process"),
    ):
        run()
    assert run() == ALL


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    for attempt in (
        lambda: Workspace.open(tmp_path, recipe="toy", settings={}),
        lambda: Workspace.read(tmp_path),
    ):
        with pytest.raises(WorkspaceError, match="neither empty nor a run"):
            attempt()
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]
    with pytest.raises(WorkspaceError, match="Not a directory"):
        Workspace.open(tmp_path / "photo.jpg", recipe="toy", settings={})
    with pytest.raises(WorkspaceError, match="holds no run"):
        Workspace.read(tmp_path / "nothing")


def test_a_run_killed_in_its_first_moment_is_a_new_run(run: Run) -> None:
    run.folder.mkdir()
    for name in (".lock", ".lock-owner.json", ".tmp-workspace.json"):
        (run.folder / name).touch()
    assert run() == ALL


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": 99, "recipe": "toy"}, "another version of tagseg"),
        ([1], "another version of tagseg"),
        ({"format": 1, "recipe": "mcof", "stages": []}, "holds a run of recipe mcof, not toy"),
        ("{", "is damaged"),
    ],
)
def test_a_run_of_another_kind_is_refused(run: Run, content: Any, message: str) -> None:
    run.folder.mkdir()
    text = content if isinstance(content, str) else json.dumps(content)
    (run.folder / "workspace.json").write_text(text)
    with pytest.raises(WorkspaceError, match=message):
        run()
    assert [path.name for path in run.folder.iterdir()] == ["workspace.json"]


def test_without_a_folder_it_lives_as_long_as_the_object() -> None:
    work = Workspace.open(None, recipe="toy", settings={})
    with work, work.stage("a", config={}, inputs=[]) as stage:
        stage.save_json("x", 1)
    folder = work.folder
    assert stage.load_json("x") == 1
    del work
    gc.collect()
    assert not folder.exists()
