from __future__ import annotations

import gc
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

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
    assert run.heard == [
        "stage segmenter runs again: its manifest is damaged; what was there is kept in "
        f"{run.folder / 'damaged/04-segmenter-1'}"
    ]
    assert (run.folder / "damaged/04-segmenter-1/manifest.json").read_text() == "{"
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
        ([1], "is damaged, and there are no stages; give another folder"),
        ({"format": 1, "recipe": "mcof", "stages": []}, "is damaged, and there are no stages"),
        (
            {"format": 1, "recipe": "mcof", "settings": {}, "classes": [], "stages": []},
            "holds a run of recipe mcof, not toy",
        ),
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


# Stages that other runs lend


def work(folder: Path, *lenders: Path, lr: float = 0.1, count: int = 3) -> tuple[list[str], Any]:
    """Two stages with artefacts of every kind; those that had to run, and what is in them."""
    ran = []
    with Workspace.open(folder, recipe="toy", settings={}, lenders=lenders) as space:
        with space.stage("cam", config={"lr": lr}, inputs=["data-1"]) as cam:
            if cam.pending:
                ran.append("cam")
                for i in range(count):
                    cam.maps("scores").put(f"p{i}", scores=np.arange(i + 2))
                cam.log(loss=1.0)
        with space.stage("masks", config={}, inputs=[cam]) as masks:
            if masks.pending:
                ran.append("masks")
                for name in cam.maps("scores").names():
                    masks.save_bytes(f"masks/a b/{name}.png", name.encode())
                masks.save_tensors("net", {"w": torch.ones(2)})
        assert not cam.verify()
        assert not masks.verify()
        content = {
            n: cam.maps("scores").get(n)["scores"].tolist() for n in cam.maps("scores").names()
        }
    return ran, content


def test_a_stage_that_a_lender_has_finished_is_taken_over(tmp_path: Path) -> None:
    ran, content = work(tmp_path / "a")
    before = everything(tmp_path / "a")
    assert ran == ["cam", "masks"]
    assert work(tmp_path / "b", tmp_path / "a") == ([], content)
    assert work(tmp_path / "b") == ([], content)  # it is its own now
    assert work(tmp_path / "c", tmp_path / "nowhere", tmp_path / "b")[0] == []
    assert work(tmp_path / "d", tmp_path / "a", lr=0.2)[0] == ["cam", "masks"]
    assert everything(tmp_path / "a") == before
    one, other = (tmp_path / n / "stages/01-cam/scores.sqlite" for n in "ac")
    assert one.stat().st_ino == other.stat().st_ino


def test_only_what_is_the_same_is_taken_over(tmp_path: Path) -> None:
    work(tmp_path / "a")
    work(tmp_path / "b", lr=0.2)
    heard: list[str] = []
    with Workspace.open(
        tmp_path / "b", recipe="toy", settings={}, lenders=[tmp_path / "a"], announce=heard.append
    ) as space:
        assert not space.stage("cam", config={"lr": 0.1}, inputs=["data-1"]).pending
        assert space.stage("masks", config={"new": 1}, inputs=["data-1"]).pending
    assert heard[0] == "stage cam is taken from another run: lr 0.2 -> 0.1"
    assert heard[1].startswith("stage masks runs again: ")


def test_without_hard_links_stages_are_copied(tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("no links here")

    _, content = work(tmp_path / "a")
    monkeypatch.setattr(os, "link", refuse)
    assert work(tmp_path / "b", tmp_path / "a") == ([], content)
    one, other = (tmp_path / n / "stages/01-cam/scores.sqlite" for n in "ab")
    assert one.stat().st_ino != other.stat().st_ino


@pytest.mark.parametrize("first", ["a", "b"])
def test_neither_run_can_harm_the_other(tmp_path: Path, first: str) -> None:
    """Whatever becomes of one folder, its files are replaced or removed, never written to."""
    _, content = work(tmp_path / "a")
    work(tmp_path / "b", tmp_path / "a")
    other = "b" if first == "a" else "a"
    before = everything(tmp_path / other)
    harmed = tmp_path / first
    (harmed / "stages/02-masks/manifest.json").unlink()
    assert work(harmed) == (["masks"], content)
    (harmed / "stages/01-cam/manifest.json").unlink()
    assert work(harmed, count=7)[0] == ["cam"]
    (harmed / "stages/01-cam/manifest.json").write_text("{")
    assert work(harmed, count=5)[0] == ["cam"]
    work(harmed, lr=0.3)
    assert everything(tmp_path / other) == before
    assert work(tmp_path / other) == ([], content)


def test_reading_a_shared_store_leaves_no_lock(tmp_path: Path) -> None:
    work(tmp_path / "a")
    work(tmp_path / "b", tmp_path / "a")
    readers = [Workspace.read(tmp_path / n).finished("cam") for n in "ab"]
    assert [r.maps("scores").names() for r in readers] == [["p0", "p1", "p2"]] * 2
    with Workspace.open(tmp_path / "a", recipe="toy", settings={}) as space:
        stage = space.stage("cam", config={"lr": 0.9}, inputs=[])
        with stage:  # the first run goes on while both are being read
            stage.maps("scores").put("new", x=np.ones(3))
    assert [r.maps("scores").get("p1")["scores"].tolist() for r in readers] == [[0, 1, 2]] * 2
    assert not list(tmp_path.rglob("*-journal"))


def test_a_damaged_or_unfinished_stage_is_not_lent(tmp_path: Path) -> None:
    _, content = work(tmp_path / "a")
    store = tmp_path / "a/stages/01-cam/scores.sqlite"
    whole = store.read_bytes()
    store.write_bytes(whole[:-1])
    assert work(tmp_path / "b", tmp_path / "a") == (["cam"], content)
    store.write_bytes(whole)
    (tmp_path / "a/stages/02-masks/manifest.json").rename(tmp_path / "a/stages/02-masks/x")
    assert work(tmp_path / "c", tmp_path / "a")[0] == ["masks"]


def test_a_damaged_own_stage_is_taken_from_the_lender(tmp_path: Path) -> None:
    _, content = work(tmp_path / "a")
    work(tmp_path / "b", tmp_path / "a")
    mask = tmp_path / "b/stages/02-masks/masks/a b/p1.png"
    mask.unlink()
    assert work(tmp_path / "b", tmp_path / "a") == ([], content)
    assert mask.read_bytes() == b"p1"


def test_work_that_was_begun_gives_way_to_a_finished_stage(tmp_path: Path) -> None:
    _, content = work(tmp_path / "a")
    with Workspace.open(tmp_path / "b", recipe="toy", settings={}) as space:
        cam = space.stage("cam", config={"lr": 0.1}, inputs=["data-1"]).__enter__()
        cam.maps("scores").put("half", x=np.ones(1))
    assert (tmp_path / "b/stages/01-cam/started.json").exists()
    assert work(tmp_path / "b", tmp_path / "a") == ([], content)


def test_a_kill_while_taking_over_does_no_harm(tmp_path: Path, monkeypatch: Any) -> None:
    """Killed before each single link, the next start takes the rest over."""
    _, content = work(tmp_path / "a")
    before, link = everything(tmp_path / "a"), os.link
    for at in range(8):
        links = iter(range(100))

        def killed(source: Any, target: Any, at: int = at, links: Any = links) -> None:
            if next(links) == at:
                raise KeyboardInterrupt
            link(source, target)

        folder = tmp_path / f"b{at}"
        monkeypatch.setattr(os, "link", killed)
        with pytest.raises(KeyboardInterrupt):
            work(folder, tmp_path / "a")
        monkeypatch.setattr(os, "link", link)
        arrived = [p for p in folder.glob("stages/*") if not p.name.startswith(".tmp-")]
        assert all((p / "manifest.json").exists() for p in arrived)
        assert work(folder, tmp_path / "a") == ([], content)
        assert not list(folder.glob("stages/.tmp-*"))
    assert everything(tmp_path / "a") == before


def test_keys_of_what_a_run_was_made_from(run: Run) -> None:
    run(data="photos-1")
    assert Workspace.read(run.folder).outer_inputs() == {"photos-1"}


def everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.glob("stages/**/*")
        if path.is_file()
    }


# What rots on the disk


class Reading:
    """A toy recipe with an artefact of each kind, all of which are read whenever it is called."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.heard, self.ran = folder, list[str](), list[str]()

    def __call__(self) -> dict[str, Any]:
        self.heard.clear()
        self.ran.clear()
        with Workspace.open(
            self.folder, recipe="toy", settings={"lr": 1}, announce=self.heard.append
        ) as work:
            return work.mended(lambda: self._through(work))

    def _through(self, work: Workspace) -> dict[str, Any]:
        with work.stage("net", config={"lr": 1}, inputs=["photos"]) as net:
            if net.pending:
                self.ran.append("net")
                net.log(iteration=1, loss=0.5)
                net.save_tensors("weights", {"w": torch.arange(40.0)}, {"of": "toy"})
                net.save_json("found", {"classes": ["cat", "dog"], "side": 500})
        with work.stage("maps", config={}, inputs=[net]) as maps:
            if maps.pending:
                self.ran.append("maps")
                for i in range(30):
                    maps.maps("maps").put(f"photo {i}", scores=np.arange(i, i + 50.0))
                    maps.save_bytes(f"masks/{i}.png", bytes([i]) * 40)
        store = maps.maps("maps")
        return {
            "weights": net.load_tensors("weights")[0]["w"].tolist(),
            "found": net.load_json("found"),
            "maps": [store.get(f"photo {i}")["scores"].tolist() for i in range(30)],
            "masks": [maps.read_path(f"masks/{i}.png").read_bytes() for i in range(30)],
        }


def flipped(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def damages(content: bytes, rng: np.random.Generator) -> list[bytes]:
    size = len(content)
    flips = [flipped(content, int(place)) for place in rng.integers(8 * size, size=12)]
    return [*flips, content[: size // 2], content[:-1], b"", content + b"x", bytes(size)]


@pytest.mark.parametrize(
    "name",
    [
        "stages/01-net/weights.safetensors",
        "stages/01-net/found.json",
        "stages/01-net/metrics.jsonl",
        "stages/01-net/manifest.json",
        "stages/02-maps/maps.sqlite",
        "stages/02-maps/masks/7.png",
        "stages/02-maps/manifest.json",
        "workspace.json",
    ],
)
def test_damage_is_found_and_mended(tmp_path: Path, name: str) -> None:
    """Bits flipped, cut short, made longer, emptied, removed: the results are those of before."""
    run = Reading(tmp_path / "run")
    whole = run()
    assert run() == whole
    assert run.ran == run.heard == []
    file = run.folder / name
    content = file.read_bytes()
    for damaged in [*damages(content, np.random.default_rng(len(name))), None]:
        file.unlink()
        if damaged is not None:
            file.write_bytes(damaged)
        assert run() == whole
        assert {"net", "maps"} >= set(run.ran)
        assert bool(run.heard) >= bool(run.ran)  # never without a word
        assert run() == whole
        assert run.ran == []
        content = file.read_bytes() if file.exists() else content


def test_only_the_damaged_stage_runs_again(tmp_path: Path) -> None:
    run = Reading(tmp_path / "run")
    whole = run()
    for name, stage in (("01-net/found.json", "net"), ("02-maps/masks/7.png", "maps")):
        file = run.folder / "stages" / name
        file.write_bytes(flipped(file.read_bytes(), 33))
        assert run() == whole
        assert run.ran == [stage]
        what = f"stage {stage} runs again: damaged or missing: {Path(name).parts[1]}; "
        assert any(line.startswith(what) for line in run.heard)


def test_the_last_damaged_stages_are_kept(tmp_path: Path) -> None:
    run = Reading(tmp_path / "run")
    whole, kept = run(), run.folder / "damaged"
    file = run.folder / "stages/01-net/found.json"
    for place in range(0, 50, 10):
        damaged = flipped(file.read_bytes(), place)
        file.write_bytes(damaged)
        assert run() == whole
        newest = kept / f"01-net-{place // 10 + 1}"
        assert (newest / "found.json").read_bytes() == damaged
        assert any(str(newest) in line for line in run.heard)
    assert sorted(path.name for path in kept.iterdir()) == ["01-net-3", "01-net-4", "01-net-5"]
    assert run() == whole
    assert run.ran == []


def test_a_damaged_store_of_a_stage_that_is_not_finished_is_kept(tmp_path: Path) -> None:
    """Rows of before the damage are made again, and what is there can be looked at."""
    heard: list[str] = []
    run = tmp_path / "run"
    with Workspace.open(run, recipe="toy", settings={}) as work:
        stage = work.stage("cam", config={}, inputs=[])
        with suppress(RuntimeError), stage:
            stage.maps("scores").put("a", scores=np.random.default_rng(0).random(50))
            raise RuntimeError
    file = run / "stages/01-cam/scores.sqlite"
    content = file.read_bytes()
    damaged = flipped(content, 8 * (content.rindex(b"scores") + 60))
    file.write_bytes(damaged)
    with Workspace.open(run, recipe="toy", settings={}, announce=heard.append) as work:
        assert work.mend()
        assert not file.exists()
    kept = run / "damaged/01-cam-scores.sqlite-1"
    assert kept.read_bytes() == damaged
    assert str(kept) in heard[-1]


def test_what_is_left_before_the_first_stage_is_no_dead_end(run: Run) -> None:
    """A run killed early whose workspace.json is then damaged, or lost: it is made anew."""
    run.folder.mkdir()
    for damaged in ("{", None):
        for name in (".lock", "index.arrow"):
            (run.folder / name).touch()
        (run.folder / "stages/.tmp-01-a").mkdir(parents=True)
        if damaged is not None:
            (run.folder / "workspace.json").write_text(damaged)
        assert run() == ALL
        shutil.rmtree(run.folder)
        run.folder.mkdir()
    (run.folder / "stages/mine").mkdir(parents=True)
    with pytest.raises(WorkspaceError, match="neither empty nor a run"):
        run()


def test_damage_that_keeps_size_and_time_is_found_in_rows(tmp_path: Path) -> None:
    """As a disk rots: nothing of the file tells, and this process has read it before."""
    run = Reading(tmp_path / "run")
    whole = run()
    file = run.folder / "stages/02-maps/maps.sqlite"
    content, state = file.read_bytes(), file.stat()
    place = content.index(b"photo 11") + 100  # in that row's values
    file.write_bytes(flipped(content, 8 * place))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert run() == whole
    assert run.ran == ["maps"]


def test_a_run_without_workspace_json_is_found_by_its_stages(tmp_path: Path) -> None:
    run = Reading(tmp_path / "run")
    whole = run()
    (run.folder / "workspace.json").unlink()
    with pytest.raises(WorkspaceError, match=r"workspace\.json: is damaged or missing; run"):
        Workspace.read(run.folder)
    assert run() == whole
    assert run.ran == []
    assert run.heard == [
        f"{run.folder / 'workspace.json'}: is damaged or missing; it is made anew, the stages stay"
    ]
    (run.folder / "workspace.json").unlink()
    (run.folder / "run.json").write_text('{"recipe": "mcof"}')
    with pytest.raises(WorkspaceError, match="holds a run of recipe mcof, not toy"):
        run()


def test_a_link_in_place_of_the_stages_is_refused(tmp_path: Path) -> None:
    """What it leads to would be cleared."""
    run, other = Reading(tmp_path / "run"), tmp_path / "other"
    run()
    other.mkdir()
    (other / ".tmp-mine").mkdir()
    (other / "01-net").mkdir()
    stages = run.folder / "stages"
    stages.rename(tmp_path / "kept")
    stages.symlink_to(other)
    with pytest.raises(WorkspaceError, match="stages: is a link; what it leads to is not touched"):
        run()
    assert sorted(path.name for path in other.iterdir()) == [".tmp-mine", "01-net"]
    stages.unlink()
    (tmp_path / "kept").rename(stages)
    (stages / "03-more").symlink_to(other)
    assert run()
    assert sorted(path.name for path in other.iterdir()) == [".tmp-mine", "01-net"]


def test_a_manifest_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    """A stage that another run lends is taken over by the names in its manifest."""
    lender, secret = Reading(tmp_path / "lender"), tmp_path / "secret.json"
    lender()
    secret.write_text("[1]")
    path = lender.folder / "stages/01-net/manifest.json"
    manifest = json.loads(path.read_text())
    manifest.pop("check")
    manifest["artefacts"]["../../../secret.json"] = {"bytes": 3, "hash": "0"}
    path.write_text(json.dumps(manifest))
    with Workspace.open(
        tmp_path / "run", recipe="toy", settings={}, lenders=[lender.folder]
    ) as work:
        assert work.stage("net", config={"lr": 1}, inputs=["photos"]).pending
        assert not list((tmp_path / "run").rglob("secret*"))
