"""What the work runs on: device, precision, threads, and one function over many photos."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import cv2
import joblib
import torch

from tagseg.errors import ConfigError, TagsegError
from tagseg.run.progress import Task

__all__ = [
    "check_threads",
    "choose_device",
    "choose_precision",
    "choose_workers",
    "map_photos",
    "set_threads",
    "usable_cores",
]

Item = TypeVar("Item")
Result = TypeVar("Result")

_CPU_INFO = Path("/proc/cpuinfo")
_BF16_CPU_FLAGS = {"amx_bf16", "avx512_bf16"}
_BF16_CUDA_CAPABILITY = 8  # Ampere
_BLOCK_PER_WORKER = 32
_MOST_THREADS = 1024
_MOST_LOADERS = 16


def choose_device(name: str = "auto", here: int | None = None) -> torch.device:
    """The device of that name, the one place that decides on it.

    Args:
        name: as torch knows it, such as ``cpu``, ``cuda``, ``cuda:1`` or ``mps``; ``auto`` is
            CUDA's first device, or the CPU where there is none.
        here: number of this process among those on this machine that share the work, each of which
            takes a device of its own; None for one alone.

    Raises:
        ConfigError: torch knows no such device, it is not there, or processes would share it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            f"device {name!r} does not exist", do="use auto, cpu, cuda, cuda:1, mps or the like"
        ) from None
    if here is not None and device.type != "cpu":
        if device.index is not None:
            raise ConfigError(
                f"several processes cannot share {name}", do=f"use --device {device.type}"
            )
        device = torch.device(device.type, here)
    _check_present(device)
    return device


def _check_present(device: torch.device) -> None:
    """Raise ConfigError unless the device computes."""
    try:
        there = float(torch.ones(1, device=device).sum()) == 1.0
    except (RuntimeError, AssertionError, NotImplementedError):  # torch has no one way to say it
        there = False
    if not there:
        raise ConfigError(f"device {device} is not available here", do="use auto or cpu")


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Type for autocast on ``device``, from ``auto``, ``fp32`` or ``bf16``; else ConfigError.

    ``auto`` is bf16 where the hardware multiplies in it: CUDA from Ampere on, and CPUs with AMX
    or AVX512-BF16. ``float32`` means: no autocast.
    """
    if name == "auto":
        return torch.bfloat16 if _multiplies_bf16(device) else torch.float32
    if name not in {"fp32", "bf16"}:
        raise ConfigError(f"precision {name!r} does not exist", do="use auto, fp32 or bf16")
    return torch.bfloat16 if name == "bf16" else torch.float32


def choose_workers(wanted: int | None, device: torch.device, sharing: int = 1) -> int:
    """Processes that load the photos of a training; None asks for as many as are good.

    None on the CPU, whose cores the network has. For another device as many as there are cores,
    less one for this process, up to 16; where processes cannot be forked (macOS, Windows), none.

    Args:
        wanted: what was asked for.
        sharing: processes on this machine that train together, each with loaders of its own.
    """
    if wanted is not None:
        return wanted
    if device.type == "cpu" or sys.platform != "linux":
        return 0
    return max(1, min(_MOST_LOADERS, usable_cores() // sharing - 1))


def usable_cores() -> int:
    """Cores that this process may use, by its affinity and its container's limit."""
    return joblib.cpu_count()


def set_threads(n: int) -> None:
    """Let PyTorch and OpenCV use ``n`` threads each; ConfigError if that cannot be meant."""
    check_threads(n)
    torch.set_num_threads(n)
    cv2.setNumThreads(n)


def check_threads(n: int) -> None:
    """Raise ConfigError unless a machine may have ``n`` threads; far too many end the process."""
    if not 1 <= n <= _MOST_THREADS:
        raise ConfigError(f"threads is {n}", do=f"use 1 to {_MOST_THREADS}")


def map_photos(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    backend: Literal["threading", "loky"] = "threading",
    progress: Task | None = None,
) -> Iterator[Result]:
    """Results of ``function`` for each item, in the items' order; the one joblib call site.

    Items are taken and results held in blocks, so that 100,000 photos need the memory of a few.

    Args:
        function: must be importable by name for ``loky``, whose workers are processes.
        items: strings, paths, tuples that begin with a name, or objects with a ``name``.
        workers: how many at a time; 1 runs in this thread.
        backend: threads, for work that lets go of the interpreter lock, or processes.
        progress: advanced by 1 for each result.

    An exception names the item: as its place if it is a TagsegError without one, else as a note.
    Raises ConfigError if workers < 1.
    """
    if workers < 1:
        raise ConfigError(f"{workers} workers are too few", do="give 1 or more")
    return _mapped(_Naming(function), iter(items), workers, backend, progress)


def _mapped(
    function: Callable[[Item], Result],
    items: Iterator[Item],
    workers: int,
    backend: str,
    progress: Task | None,
) -> Iterator[Result]:
    with joblib.Parallel(workers, backend=backend, return_as="generator") as parallel:
        # joblib computes ahead of a slow consumer without bound; a block at a time bounds it.
        while block := list(islice(items, _BLOCK_PER_WORKER * workers)):
            results = parallel(joblib.delayed(function)(item) for item in block)
            try:
                for result in results:
                    if progress is not None:
                        progress.advance()
                    yield result
            finally:
                _stop(results)


def _stop(results: Generator[Any, None, None]) -> None:
    """End a joblib generator, spent or not, without its advice on results that nobody took."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results.close()


class _Naming(Generic[Item, Result]):
    """A function whose exceptions say for which item they were raised."""

    def __init__(self, function: Callable[[Item], Result]) -> None:
        self._function = function

    def __call__(self, item: Item) -> Result:
        try:
            return self._function(item)
        except TagsegError as error:
            if error.where is not None:
                raise
            raise type(error)(error.what, where=_name_of(item), do=error.do) from error
        except Exception as error:
            error.add_note(f"while working on {_name_of(item)}")
            raise


def _name_of(item: Any) -> str:
    if isinstance(item, tuple) and item:
        return _name_of(item[0])
    named = not isinstance(item, Path) and hasattr(item, "name")
    return str(item.name if named else item)


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= _BF16_CUDA_CAPABILITY
    if device.type != "cpu" or not _CPU_INFO.exists():
        return False
    return not _BF16_CPU_FLAGS.isdisjoint(_CPU_INFO.read_text().split())
