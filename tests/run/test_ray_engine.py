"""The engine on a Ray that works in this process, and loses workers when it is told to."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch

from tagseg.errors import ConfigError, ImageError, WorkspaceError
from tagseg.run import ray_engine
from tagseg.run.manifest import make_record
from tagseg.run.progress import Progress
from tagseg.run.ray_engine import RayEngine
from tagseg.run.stage import Stage
from tagseg.run.work import Local, PhotoWork, Row

RECORD = make_record("toy", {}, [])
CPU = torch.device("cpu")
NAMES = [f"photo-{i:03d}" for i in range(40)]
STORES = ["numbers", "more", "files/"]


class Toy(PhotoWork):
    """Groups of two photos; a number and a file of each."""

    network, costly = True, True

    def __init__(self, row: Callable[[int], None] = lambda index: None) -> None:
        self.names: Sequence[str] = NAMES
        self.hook = row

    def bounds(self):
        return np.arange(0, 41, 2)

    def rows(self, groups: Iterable[Sequence[int]]) -> Iterator[tuple[range, Iterable[Row]]]:
        for first, behind in groups:
            yield range(first, behind), map(self.row, range(first, behind))

    def row(self, index: int) -> Row:
        self.hook(index)
        number = np.array(index)
        return {"numbers": {"number": number}, "more": {"n": number}, "files/": b"%d" % index}


class FakeRay(types.ModuleType):
    """As much of Ray as the engine calls; ``lose`` says of how many tasks the worker is lost."""

    def __init__(self, cpus: int = 4, gpus: int = 0) -> None:
        super().__init__("ray")
        self.cloudpickle = cloudpickle
        self.exceptions = types.SimpleNamespace(
            RayTaskError=type("RayTaskError", (Exception,), {}),
            ObjectStoreFullError=type("ObjectStoreFullError", (Exception,), {}),
            OutOfDiskError=type("OutOfDiskError", (Exception,), {}),
            RayError=type("RayError", (Exception,), {}),
        )
        self.resources = {"CPU": float(cpus), "GPU": float(gpus)}
        self.lose = self.tasks = self.started = self.ended = 0
        self.asked: list[dict[str, Any]] = []

    def is_initialized(self) -> bool:
        return False

    def init(self, **how: Any) -> None:
        self.started += 1
        self.how = how

    def shutdown(self) -> None:
        self.ended += 1

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": self.resources}]

    def put(self, value: bytes) -> bytes:
        return value

    def get(self, ref: Any) -> Any:
        return ref() if callable(ref) else ref

    def wait(self, refs: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return refs[:1], refs[1:]

    def cancel(self, ref: Any, force: bool) -> None: ...

    def remote(self, **wanted: Any) -> Callable[[Callable[..., Any]], Any]:
        self.asked.append(wanted)
        return lambda function: types.SimpleNamespace(
            remote=lambda *args: lambda: self.run(function, *args)
        )

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        self.tasks += 1
        if self.lose:
            self.lose -= 1
            raise self.exceptions.RayError("the worker died. Check\nits log.")
        return pickle.loads(pickle.dumps(function(*args)))


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(ray_engine, "_imported", lambda: fake)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_engine, "_KNOWN", {})
    return fake


@pytest.fixture
def heard() -> list[str]:
    return []


def open_stage(folder: Path, heard: list[str]) -> Stage:
    return Stage(folder, RECORD, heard.append)


def filled(engine: Any, stage: Stage, work: PhotoWork) -> int:
    """How many photos were counted."""
    with Progress().task("toy", len(NAMES)) as task:
        engine.fill(stage, STORES, work, task)
    return task.done


def digests(stage: Stage) -> list[str]:
    files = "".join(stage.read_path(f"files/{name}.png").read_text() for name in NAMES)
    return [stage.maps("numbers").digest(), stage.maps("more").digest(), files]


@pytest.fixture
def wanted(tmp_path: Path, heard: list[str]) -> list[str]:
    with open_stage(tmp_path / "local", heard) as stage:
        filled(Local(), stage, Toy())
    return digests(stage)


def test_shards_hold_what_one_process_makes(
    ray: FakeRay, tmp_path: Path, heard: list[str], wanted: list[str]
) -> None:
    engine = RayEngine(2, CPU)
    assert ray.started == 0, "not before there is work"
    with open_stage(tmp_path / "ray", heard) as stage:
        assert filled(engine, stage, Toy()) == 40
        assert filled(engine, stage, Toy()) == 40
    assert digests(stage) == wanted
    assert digests(open_stage(tmp_path / "ray", heard)) == wanted
    assert ray.tasks == 14  # of 2 or 4 photos: 40 for 8 shards a worker, 2 workers, groups of two
    assert len(list((tmp_path / "ray" / "more.shards").iterdir())) == 14
    assert ray.asked[0]["num_cpus"] == 2
    engine.close()
    engine.close()
    assert (ray.started, ray.ended) == (1, 1)
    assert heard == []


def test_lost_workers_shards_are_done_again(
    ray: FakeRay, tmp_path: Path, heard: list[str], wanted: list[str]
) -> None:
    ray.lose = 7
    with open_stage(tmp_path / "ray", heard) as stage:
        assert filled(RayEngine(1, CPU), stage, Toy()) == 40
    assert digests(stage) == wanted
    assert len(heard) == 7
    assert heard[0] == (
        "a worker was lost (the worker died); 2 photos from photo-000 on are done again"
    )


def test_a_shard_that_ends_all_its_workers_ends_the_run(
    ray: FakeRay, tmp_path: Path, heard: list[str]
) -> None:
    ray.lose = 10_000
    with (
        pytest.raises(WorkspaceError, match="20 workers were lost over 2 photos from photo-"),
        open_stage(tmp_path / "ray", heard) as stage,
    ):
        filled(RayEngine(1, CPU), stage, Toy())


@pytest.mark.parametrize("first", ["local", "ray"])
def test_the_other_engine_goes_on(
    ray: FakeRay, tmp_path: Path, heard: list[str], wanted: list[str], first: str
) -> None:
    def fail(index: int) -> None:
        if index == 21:
            raise ImageError("cannot be read")

    engines: list[Any] = [Local(), RayEngine(1, CPU)]
    one, other = engines if first == "local" else engines[::-1]
    with pytest.raises(ImageError), open_stage(tmp_path / "both", heard) as stage:
        filled(one, stage, Toy(fail))
    with open_stage(tmp_path / "both", heard) as stage:
        done = len(stage.maps("numbers"))
        assert 0 < done < 40
        stage.close()
        made: list[int] = []
        monkey = Toy(made.append) if first == "ray" else Toy()
        assert filled(other, stage, monkey) == 40
        assert first == "local" or len(made) == 40 - done
    assert digests(stage) == wanted


def test_a_damaged_photo_is_told_as_ever(ray: FakeRay, tmp_path: Path, heard: list[str]) -> None:
    def fail(index: int) -> None:
        raise ImageError("cannot be read", where=f"photo-{index}", do="mend it")

    with (
        pytest.raises(ImageError, match=r"^photo-0: cannot be read; mend it$"),
        open_stage(tmp_path / "ray", heard) as stage,
    ):
        filled(RayEngine(1, CPU), stage, Toy(fail))


def test_what_cannot_be_pickled_is_done_here(
    ray: FakeRay, tmp_path: Path, heard: list[str], wanted: list[str]
) -> None:
    locked = Toy()
    locked.generator = (i for i in range(3))  # type: ignore[attr-defined]
    with open_stage(tmp_path / "ray", heard) as stage:
        assert filled(RayEngine(1, CPU), stage, locked) == 40
    assert digests(stage) == wanted
    assert (tmp_path / "ray" / "numbers.sqlite").exists()
    assert heard == ["stage toy is worked by this process alone: cannot pickle 'generator' object"]


def test_a_host_that_does_not_see_the_folder_says_so(
    ray: FakeRay, tmp_path: Path, heard: list[str]
) -> None:
    other = Stage(tmp_path / "ray", make_record("toy", {"other": 1}, []), heard.append)
    with open_stage(tmp_path / "ray", heard) as stage:
        with other:
            pass
        with pytest.raises(WorkspaceError, match="folder is not seen from host"):
            filled(RayEngine(1, CPU), stage, Toy())


def test_another_version_of_tagseg_is_refused(
    ray: FakeRay, tmp_path: Path, heard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = iter(["1.0"])
    monkeypatch.setattr(ray_engine, "version", lambda name: next(versions, "0.9"))
    with (
        pytest.raises(ConfigError, match=r"tagseg 0.9 on host .*, 1.0 elsewhere"),
        open_stage(tmp_path / "ray", heard) as stage,
    ):
        filled(RayEngine(1, CPU), stage, Toy())


def test_bad_clusters_are_told_in_one_line(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, heard: list[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"can be used at 127.0.0.1:1: .*; check RAY_ADDRESS"):
        RayEngine(5, CPU)
    assert ray.started == 0
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(ConfigError, match="no node of the Ray cluster has 5 CPUs"):
        RayEngine(5, CPU)
    assert ray.ended == 1
    assert ray.how["address"] == "auto"

    def fail(**how: Any) -> None:
        raise ConnectionError("nobody\nthere")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(ConfigError, match="can be used at auto: nobody there; check RAY_ADDRESS"):
        RayEngine(1, CPU)


def test_networks_take_a_gpu_where_that_is_the_device(
    ray: FakeRay, tmp_path: Path, heard: list[str]
) -> None:
    engine = RayEngine(1, torch.device("cuda"))
    ray.resources["GPU"] = 2.0
    with open_stage(tmp_path / "ray", heard) as stage:
        filled(engine, stage, Toy())
    assert ray.asked[0]["num_gpus"] == 1
    assert engine._workers(network=True) == 2
    assert engine._workers(network=False) == 4


def test_one_of_several_gpus_is_refused(ray: FakeRay) -> None:
    RayEngine(1, torch.device("cuda:0"))
    with pytest.raises(ConfigError, match="gives each worker a GPU, not cuda:1; use cuda"):
        RayEngine(1, torch.device("cuda:1"))


def test_it_is_said_when_nobody_is_left(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, heard: list[str]
) -> None:
    engine = RayEngine(1, CPU)

    def wait(refs: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        ray.resources["CPU"] = 0.0
        return [], refs

    monkeypatch.setattr(ray, "wait", wait)
    with (
        pytest.raises(WorkspaceError, match="no node of the Ray cluster has 1 CPU; add nodes"),
        open_stage(tmp_path / "ray", heard) as stage,
    ):
        filled(engine, stage, Toy())


def test_in_a_worker_it_is_the_local_engine() -> None:
    engine = object.__new__(RayEngine)
    assert pickle.loads(pickle.dumps(engine)) == Local()


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"needs Ray; pip install 'tagseg\[ray\]'"):
        RayEngine(1, CPU)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_a_cluster_on_this_machine(tmp_path: Path, wanted: list[str], heard: list[str]) -> None:
    """In a process of its own: Ray leaves threads, and warns of things that are its own."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from test_ray_engine import Toy, filled, open_stage\n"
        "from tagseg.run.ray_engine import RayEngine\n"
        "engine = RayEngine(1, torch.device('cpu'))\n"
        "with open_stage(Path(sys.argv[1]), []) as stage:\n"
        "    filled(engine, stage, Toy())\n"
        "engine.close()\n"
    )
    here = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    subprocess.run(
        [sys.executable, str(script), str(tmp_path / "ray")],
        check=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": here, "RAY_ADDRESS": ""},
    )
    assert digests(open_stage(tmp_path / "ray", heard)) == wanted
