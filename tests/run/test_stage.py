from __future__ import annotations

import json
import os
import pickle
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from tagseg.errors import ConfigError, WorkspaceError
from tagseg.run.manifest import make_record, note_written
from tagseg.run.shard_store import NewShard
from tagseg.run.stage import Stage

RECORD = make_record("cam", {"lr": 0.1}, [])


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "stages/01-cam"


def open_stage(folder: Path, heard: list[str], *, read_only: bool = False) -> Stage:
    return Stage(folder, RECORD, heard.append, read_only=read_only)


def fill(stage: Stage) -> None:
    stage.maps("scores").put("a.jpg", scores=np.arange(6, dtype=np.float16).reshape(2, 3))
    tied = torch.rand(2, 3)
    stage.save_tensors("weights", {"w": tied, "same": tied, "t": tied.T}, {"mean": "[1, 2]"})
    stage.save_json("classes", {"names": ("cat", "dog")})
    stage.save_bytes("masks/sub/a.png", b"png")
    stage.log(iteration=1, loss=0.5)
    stage.log(iteration=2, loss=0.25)


def test_artefacts_come_back(folder: Path, heard: list[str]) -> None:
    with open_stage(folder, heard) as stage:
        assert stage.pending
        fill(stage)
    assert not stage.pending
    with open_stage(folder, heard) as again:
        assert not again.pending
        assert again.maps("scores").get("a.jpg")["scores"].tolist() == [[0, 1, 2], [3, 4, 5]]
        tensors, metadata = again.load_tensors("weights")
        assert torch.equal(tensors["w"].T, tensors["t"])
        assert metadata == {"mean": "[1, 2]"}
        assert again.load_json("classes") == {"names": ["cat", "dog"]}
        assert again.path("masks/sub/a.png").read_bytes() == b"png"
        assert [line["loss"] for line in again.read_log()] == [0.5, 0.25]
        assert again.finished_at == stage.finished_at
        assert again.verify() == []
    assert heard == []


def test_the_manifest_says_what_there_is(folder: Path, heard: list[str]) -> None:
    with open_stage(folder, heard) as stage:
        fill(stage)
        stage.checkpoint.save({"iteration": 2})
        assert not (folder / "manifest.json").exists()
    manifest = json.loads((folder / "manifest.json").read_text())
    names = {"classes.json", "masks", "metrics.jsonl", "scores.sqlite", "weights.safetensors"}
    assert manifest["artefacts"].keys() == names
    assert manifest["record"] == RECORD
    assert {path.name for path in folder.iterdir()} == {*names, "manifest.json"}


def test_names_are_on_the_disk_before_what_counts_on_them(
    folder: Path, heard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Artefacts before the manifest, the manifest before the checkpoint goes."""
    seen: list[tuple[str, bool, bool]] = []

    def note(place: Path) -> None:
        seen.append((place.name, (folder / "manifest.json").exists(), checkpoint.exists()))

    checkpoint = folder / "checkpoint.pt"
    monkeypatch.setattr("tagseg.run.stage.sync_folder", note)
    with open_stage(folder, heard) as stage:
        fill(stage)
        stage.checkpoint.save({"iteration": 1})
    before = [name for name, finished, _ in seen if not finished]
    assert sorted(before) == ["01-cam", "masks", "sub"]
    assert seen[3:] == [("01-cam", True, True)]
    assert not checkpoint.exists()


def test_an_exception_leaves_the_stage_unfinished_and_its_work(
    folder: Path, heard: list[str]
) -> None:
    with suppress(KeyboardInterrupt), open_stage(folder, heard) as stage:
        fill(stage)
        raise KeyboardInterrupt
    assert stage.pending
    with open_stage(folder, heard) as again:
        assert again.pending
        assert again.maps("scores").names() == ["a.jpg"]
        assert again.read_log() == []  # without a checkpoint, all of it will be logged again


def test_seconds_are_summed_over_interruptions(folder: Path, heard: list[str]) -> None:
    with suppress(RuntimeError), open_stage(folder, heard) as stage:
        fill(stage)
        raise RuntimeError
    # As if it had been killed 100 s after the start, at its last write.
    late = time.time() + 100
    os.utime(folder / "classes.json", (late, late))
    with open_stage(folder, heard) as again:
        pass
    assert heard == ["stage cam continues (100 s done before)"]
    assert 99 < again.seconds < 110
    assert open_stage(folder, heard).seconds == pytest.approx(again.seconds, abs=1e-3)


@pytest.mark.parametrize("name", ["scores.sqlite", "weights.safetensors", "classes.json", "masks"])
def test_a_missing_or_shorter_artefact_makes_it_pending(
    folder: Path, heard: list[str], name: str
) -> None:
    with open_stage(folder, heard) as stage:
        fill(stage)
    damaged = folder / "masks/sub/a.png" if name == "masks" else folder / name
    if name == "classes.json":
        damaged.unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[:-1])
    with open_stage(folder, heard) as again:
        assert again.pending
        kept = folder.parents[1] / "damaged/01-cam-1"
        assert heard == [
            f"stage cam runs again: damaged or missing: {name}; what was there is kept in {kept}"
        ]
        assert (kept / "manifest.json").exists()
        assert [path.name for path in folder.iterdir()] == ["started.json"]
        fill(again)
    assert not open_stage(folder, heard).pending


@pytest.mark.parametrize(
    "name", ["scores.sqlite", "weights.safetensors", "classes.json", "masks/sub/a.png"]
)
def test_verify_finds_flipped_bytes(folder: Path, heard: list[str], name: str) -> None:
    with open_stage(folder, heard) as stage:
        fill(stage)
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 0xFF
    (folder / name).write_bytes(content)

    reader = open_stage(folder, heard, read_only=True)
    with pytest.raises(WorkspaceError, match="damaged or missing"):
        reader.verify()
    assert not open_stage(folder, heard).pending  # the size is right
    again = open_stage(folder, heard)
    assert again.verify() == [name.split("/")[0]]
    assert again.pending
    assert not folder.exists()


def test_reading_changes_nothing(folder: Path, heard: list[str]) -> None:
    with open_stage(folder, heard) as stage:
        fill(stage)
    (folder / "checkpoint.pt").touch()
    with open_stage(folder, heard, read_only=True) as reader:
        assert not reader.pending
        assert (folder / "checkpoint.pt").exists()
        (folder / "classes.json").unlink()
    with pytest.raises(WorkspaceError, match=r"damaged or missing: classes\.json"):
        open_stage(folder, heard, read_only=True)
    assert (folder / "manifest.json").exists()


def test_a_stage_that_does_not_run_cannot_be_written(folder: Path, heard: list[str]) -> None:
    with open_stage(folder, heard) as stage:
        maps = stage.maps("scores")
        maps.put("a.jpg", a=np.zeros(1))
    for write in (
        lambda: stage.save_json("a", 1),
        lambda: stage.save_bytes("a", b""),
        lambda: stage.save_tensors("a", {}),
        lambda: stage.log(a=1),
        lambda: maps.put("b.jpg", a=np.zeros(1)),
    ):
        with pytest.raises(WorkspaceError, match=r"is not running|closed to writing"):
            write()
    assert maps.names() == ["a.jpg"]
    maps.close()


def test_bad_names_and_values_are_refused(folder: Path, heard: list[str]) -> None:
    with open_stage(folder, heard) as stage:
        for name in ("../a", "/etc/a", "masks/../../a"):
            with pytest.raises(WorkspaceError, match="leads out of the folder"):
                stage.save_bytes(name, b"")
        with pytest.raises(ConfigError, match="cannot be recorded"):
            stage.save_json("a", {"a": object()})
        with pytest.raises(WorkspaceError, match=r"no\.json"):
            stage.load_json("no")
        with pytest.raises(WorkspaceError, match=r"no\.safetensors"):
            stage.load_tensors("no")
        stage.save_bytes("bad.safetensors", b"12345678901")
        with pytest.raises(WorkspaceError, match="is damaged"):
            stage.load_tensors("bad")
        stage.path("bad.safetensors").unlink()


def test_a_store_of_shards_reads_as_any(folder: Path, heard: list[str]) -> None:
    stage = open_stage(folder, heard)
    with pytest.raises(WorkspaceError, match="not running"):
        stage.shards("scores")
    with stage:
        stage.maps("scores").put("a.jpg", scores=np.arange(3))
        shards = stage.shards("scores")
        with NewShard(shards, 1) as shard:
            shard.store.put("b.jpg", scores=np.arange(4))
            digest = shard.publish()
        note_written(shard.path, digest)
        assert "a.jpg" in stage.maps("scores")
    assert not (folder / "scores.sqlite").exists()
    again = open_stage(folder, heard)
    assert again.holds("scores.shards")
    assert again.maps("scores").names() == ["a.jpg", "b.jpg"]
    assert again.verify() == []
    (shards / "000000001.sqlite").write_bytes(b"not what was written")
    assert open_stage(folder, heard).pending, "its size has changed"
    assert heard[0].startswith("stage cam runs again: damaged or missing: scores.shards; what was")


def test_another_process_reads_what_is_finished(folder: Path, heard: list[str]) -> None:
    with open_stage(folder, heard) as stage:
        fill(stage)
        unfinished = pickle.loads(pickle.dumps(stage))
    copy = pickle.loads(pickle.dumps(stage))
    assert copy.key == stage.key
    assert copy.maps("scores").names() == ["a.jpg"]
    assert copy.load_json("classes") == {"names": ["cat", "dog"]}
    with pytest.raises(WorkspaceError, match="not running"):
        copy.save_bytes("new", b"")
    assert unfinished.pending
    assert heard == []
