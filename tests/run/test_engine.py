from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import pytest
import torch

from tagseg.errors import ConfigError, ImageError, ShapeError
from tagseg.maps import check_image
from tagseg.run import engine
from tagseg.run.progress import Progress


class Photo(NamedTuple):
    name: str
    number: int


def slow_square(number: int) -> int:
    time.sleep(0.002 * (number % 3))
    return number * number


def fail(item: object) -> None:
    raise ValueError("broken")


def fail_on_purpose(item: object) -> None:
    raise ImageError("cannot be decoded", do="leave it out")


@pytest.mark.parametrize(("workers", "n"), [(1, 5), (3, 300)])
def test_results_come_in_order(workers: int, n: int) -> None:
    with Progress().task("squares", total=n) as task:
        results = engine.map_photos(slow_square, range(n), workers=workers, progress=task)
        assert list(results) == [i * i for i in range(n)]
    assert task.done == n


def test_loky_works_in_other_processes_and_in_order() -> None:
    def negative(number: int) -> tuple[int, int]:
        return -number, os.getpid()

    results = list(engine.map_photos(negative, range(9), workers=2, backend="loky"))
    assert [number for number, _ in results] == [-i for i in range(9)]
    assert os.getpid() not in {process for _, process in results}


def test_a_slow_consumer_does_not_let_results_pile_up() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10_000):
            taken.append(number)
            yield number

    results = engine.map_photos(slow_square, items(), workers=2)
    assert next(results) == 0
    time.sleep(0.2)
    assert len(taken) < 100
    results.close()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("item", [Path("a/b.jpg"), "a/b.jpg", ("a/b.jpg", 1), Photo("a/b.jpg", 1)])
def test_an_exception_carries_the_name_of_the_item(workers: int, item: object) -> None:
    with pytest.raises(ValueError, match="broken") as caught:
        list(engine.map_photos(fail, [item], workers=workers))
    assert caught.value.__notes__ == ["while working on a/b.jpg"]
    with pytest.raises(ImageError) as error:
        list(engine.map_photos(fail_on_purpose, [item], workers=workers))
    assert str(error.value) == "a/b.jpg: cannot be decoded; leave it out"


def test_an_exception_from_another_process_carries_the_name() -> None:
    with pytest.raises(ShapeError, match=r"^b\.jpg: image is a str"):
        list(engine.map_photos(check_image, ["b.jpg"], workers=2, backend="loky"))


def test_no_workers_is_an_error_at_once() -> None:
    with pytest.raises(ConfigError, match="0 workers"):
        engine.map_photos(slow_square, [1], workers=0)


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert engine.choose_device() == engine.choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="cuda is not available"):
        engine.choose_device("cuda")
    with pytest.raises(ConfigError, match="'tpu' does not exist"):
        engine.choose_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(engine, "_check_present", lambda device: None)
    assert engine.choose_device() == engine.choose_device("cuda") == torch.device("cuda")
    assert engine.choose_device("cpu") == torch.device("cpu")
    assert engine.choose_device("cuda:1") == torch.device("cuda", 1)
    assert engine.choose_device("mps") == torch.device("mps")


@pytest.mark.parametrize("name", ["meta", "mps", "cuda:7", "xpu"])
def test_a_device_that_computes_nothing_is_not_there(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device {name} is not available here"):
        engine.choose_device(name)


def test_processes_take_a_device_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_check_present", lambda device: None)
    assert engine.choose_device("cpu", 3) == torch.device("cpu")
    assert engine.choose_device("cuda", 3) == torch.device("cuda", 3)
    with pytest.raises(ConfigError, match="processes cannot share cuda:1; use --device cuda"):
        engine.choose_device("cuda:1", 0)


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ("fpu avx512f avx512_bf16 sse", torch.bfloat16),
        ("fpu amx_bf16 amx_tile", torch.bfloat16),
        ("fpu avx2 avx512f", torch.float32),
    ],
)
def test_precision_on_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, wanted: torch.dtype
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.setattr(engine, "_CPU_INFO", tmp_path / "cpuinfo")
    cpu = torch.device("cpu")
    assert engine.choose_precision("auto", cpu) == wanted
    assert engine.choose_precision("bf16", cpu) == torch.bfloat16
    assert engine.choose_precision("fp32", cpu) == torch.float32
    (tmp_path / "cpuinfo").unlink()
    assert engine.choose_precision("auto", cpu) == torch.float32
    with pytest.raises(ConfigError, match="'fp16' does not exist"):
        engine.choose_precision("fp16", cpu)


@pytest.mark.parametrize(("capability", "wanted"), [((7, 5), "float32"), ((8, 0), "bfloat16")])
def test_precision_on_cuda(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], wanted: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert engine.choose_precision("auto", torch.device("cuda")) == getattr(torch, wanted)


def test_cores_and_threads() -> None:
    assert 1 <= engine.usable_cores() <= (os.cpu_count() or 1)
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        engine.set_threads(2)
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, 2)
        with pytest.raises(ConfigError, match="threads is 0"):
            engine.set_threads(0)
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


@pytest.mark.parametrize(
    ("wanted", "device", "cores", "sharing", "found"),
    [
        (None, "cpu", 64, 1, 0),
        (None, "cuda", 64, 1, 16),
        (None, "cuda", 16, 1, 15),
        (None, "mps", 8, 1, 7),
        (None, "cuda", 64, 8, 7),
        (None, "cuda", 1, 1, 1),
        (3, "cpu", 64, 1, 3),
        (0, "cuda", 64, 1, 0),
    ],
)
def test_loaders_are_as_many_as_the_device_needs(
    monkeypatch: pytest.MonkeyPatch,
    wanted: int | None,
    device: str,
    cores: int,
    sharing: int,
    found: int,
) -> None:
    monkeypatch.setattr(engine, "usable_cores", lambda: cores)
    monkeypatch.setattr(engine.sys, "platform", "linux")
    assert engine.choose_workers(wanted, torch.device(device), sharing) == found
    monkeypatch.setattr(engine.sys, "platform", "darwin")
    assert engine.choose_workers(wanted, torch.device(device), sharing) == (wanted or 0)
