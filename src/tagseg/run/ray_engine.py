"""Photos shared out among the workers of a Ray cluster, in shards.

A shard is the unit of work, of storage and of repair: a task reads its photos, does the stage's
work and writes a file of its own into each store (:mod:`tagseg.run.shard_store`). What a lost
worker had in hand is done again by another. This process gives out numbers of photos and counts;
photos and rows never pass through it. A task's work is what :class:`tagseg.run.work.Local` does,
with as many threads, so that the rows are the same.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import torch

from tagseg.errors import ConfigError, TagsegError, WorkspaceError, one_line
from tagseg.run.engine import set_threads
from tagseg.run.manifest import note_written
from tagseg.run.progress import Task
from tagseg.run.shard_store import SHARDS, NewShard, ShardStore, drop_parts
from tagseg.run.stage import Stage, record_in
from tagseg.run.work import (
    Groups,
    Local,
    PhotoWork,
    Sink,
    fill,
    is_folder,
    pack,
    pending,
    photos_in,
    sink_of,
)

__all__ = ["RayEngine"]

ADDRESS = "RAY_ADDRESS"

_MOST_PHOTOS = 4000  # a shard
_SHARDS_A_WORKER = 8  # of a stage, so that none waits long for the last one
_MOST_LOSSES = 20  # of workers over one shard
_WAIT = 10.0  # seconds until it is asked whether anyone is left to work
_PATIENCE = 6  # times that nobody is


@dataclass(frozen=True)
class _Job:
    """What every worker is told once a stage.

    Attributes:
        stage: to whose folder shards go.
        threads: of each worker.
        tagseg: version of whoever gives the work.
    """

    stage: Stage
    stores: Sequence[str]
    work: PhotoWork
    threads: int
    tagseg: str


class _Done(NamedTuple):
    """A shard is written: photos, and the digests of its files."""

    photos: int
    digests: dict[str, str]


class _Refused(NamedTuple):
    """A shard cannot be made, for a reason that was raised on purpose."""

    kind: type[TagsegError]
    what: str
    where: str | None
    do: str

    def raise_it(self) -> None:
        raise self.kind(self.what, where=self.where, do=self.do)


class RayEngine:
    """The workers of the cluster at ``RAY_ADDRESS``, or of one that is started on this machine.

    Args:
        threads: of a worker, for which it takes as many CPUs; those of this process, so that
            networks come to the same.
        device: of networks; a worker that has one takes a GPU if it is not the CPU.

    Raises:
        ConfigError: Ray is not installed, the cluster cannot be reached or has no node with as many
            CPUs, or the device is one of several: each worker has a GPU of its own, its first.
    """

    def __init__(self, threads: int, device: torch.device) -> None:
        self._ray, self._threads, self._device = _imported(), threads, device
        self._started = False
        if device.index:
            raise ConfigError(f"--engine ray gives each worker a GPU, not {device}", do="use cuda")
        if os.environ.get(ADDRESS):
            self._connect()  # what cannot be reached must show before long work

    def __reduce__(self) -> tuple[type[Local], tuple[()]]:
        return Local, ()  # in a worker

    def fill(self, stage: Stage, stores: Sequence[str], work: PhotoWork, progress: Task) -> None:
        """Fill the stores of the stage with shards; what cannot be pickled is done by this process.

        Raises:
            TagsegError: as the work does; or no worker is left, or a shard ends all its workers.
        """
        job = _Job(stage, stores, work, self._threads, version("tagseg"))
        packed = self._packed(job)
        if packed is None:
            Local().fill(stage, stores, work, progress)
            return
        folders = [stage.shards(store) for store in stores if not is_folder(store)]
        drop_parts(folders)
        files = [sink_of(stage, store, work.names) for store in stores if is_folder(store)]
        todo = pending(work, [*map(ShardStore, folders), *files])
        progress.skip(len(work.names) - photos_in(todo))
        if not len(todo):
            pack(files, every=True)
            return
        self._connect()
        shards = list(_shards(todo, self._workers(work.network)))
        for done in self._worked(self._ray.put(packed), shards, work, stage.announce):
            for path, digest in done.digests.items():
                note_written(Path(path), digest)
            pack(files)
            progress.advance(done.photos)
        pack(files, every=True)

    def close(self) -> None:
        """Leave the cluster, and end it if it was started for this engine."""
        if self._started:
            self._ray.shutdown()
            self._started = False

    def _packed(self, job: _Job) -> bytes | None:
        try:
            return self._ray.cloudpickle.dumps(job)
        except Exception as error:  # whatever a closure holds
            job.stage.announce(
                f"stage {job.stage.name} is worked by this process alone: {one_line(error, 100)}"
            )
            return None

    def _connect(self) -> None:
        if self._started or self._ray.is_initialized():  # the caller's own
            return
        given = os.environ.get(ADDRESS)
        try:
            _knock(given or "")
            self._ray.init(
                address=given or "local",
                log_to_driver=False,
                logging_level="ERROR",
                **({} if given else {"include_dashboard": False}),
            )
        except Exception as error:
            what = f"no Ray cluster can be used at {given or 'this machine'}"
            do = f"check {ADDRESS} and `ray status`, or use --engine local"
            raise ConfigError(f"{what}: {one_line(error, 200)}", do=do) from error
        self._started = True
        if not self._can_work(network=False):
            self.close()
            what = f"no node of the Ray cluster has {self._threads} CPUs"
            raise ConfigError(what, do="give --threads as many as its nodes have, or fewer")

    def _resources(self, network: bool) -> dict[str, float]:
        gpu = network and self._device.type != "cpu"
        return {"CPU": self._threads, **({"GPU": 1} if gpu else {})}

    def _workers(self, network: bool) -> int:
        """How many can work at once."""
        wanted = self._resources(network)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        fits = (min(int(has.get(name, 0) // n) for name, n in wanted.items()) for has in nodes)
        return max(1, sum(fits))

    def _can_work(self, *, network: bool) -> bool:
        wanted = self._resources(network)
        return any(
            node["Alive"] and all(node["Resources"].get(name, 0) >= n for name, n in wanted.items())
            for node in self._ray.nodes()
        )

    def _worked(
        self, job: Any, shards: Sequence[Groups], work: PhotoWork, announce: Callable[[str], None]
    ) -> Iterator[_Done]:
        """The shards' results as they come; a lost worker's shard goes to the next."""
        ray, wanted = self._ray, self._resources(work.network)
        told = uuid4().hex
        # max_calls: else a worker with a GPU ends after each shard, and its network with it.
        give = ray.remote(
            num_cpus=wanted["CPU"], num_gpus=wanted.get("GPU", 0), max_retries=0, max_calls=0
        )(_make_shard)
        start = partial(give.remote, told, [job])
        waiting, losses = deque(range(len(shards))), [0] * len(shards)
        running: dict[Any, int] = {}
        most, idle = 2 * self._workers(work.network), 0
        try:
            while waiting or running:
                while waiting and len(running) < most:
                    number = waiting.popleft()
                    running[start(shards[number])] = number
                ready, _ = ray.wait(list(running), timeout=_WAIT)
                idle = self._still_idle(idle, bool(ready), work.network)
                for ref in ready:
                    number = running.pop(ref)
                    found = self._result(ref)
                    if isinstance(found, _Done):
                        yield found
                        continue
                    losses[number] += 1
                    _tell_loss(announce, work, shards[number], losses[number], found)
                    waiting.append(number)
        finally:
            for ref in running:
                ray.cancel(ref, force=True)

    def _result(self, ref: Any) -> _Done | str:
        """What a task gave, or how its worker was lost; errors of the work itself are raised."""
        lost = self._ray.exceptions
        try:
            found = self._ray.get(ref)
        except lost.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except (lost.ObjectStoreFullError, lost.OutOfDiskError) as error:
            raise WorkspaceError(one_line(error, 200), do="free some space on the hosts") from error
        except lost.RayError as error:
            return one_line(error).partition(". ")[0][:100]
        if isinstance(found, _Refused):
            found.raise_it()
        return found

    def _still_idle(self, idle: int, ready: bool, network: bool) -> int:
        """How often in a row nobody could work; WorkspaceError after too long."""
        if ready or self._can_work(network=network):
            return 0
        if idle + 1 >= _PATIENCE:
            wanted = " and ".join(f"{n:g} {name}" for name, n in self._resources(network).items())
            raise WorkspaceError(
                f"no node of the Ray cluster has {wanted}",
                do="add nodes, or give fewer --threads, and run the same command again",
            )
        return idle + 1


def _imported() -> ModuleType:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    try:
        import ray
        import ray.cloudpickle
        import ray.exceptions
    except ImportError as error:
        raise ConfigError("--engine ray needs Ray", do="pip install 'tagseg[ray]'") from error
    return ray


def _knock(address: str) -> None:
    """OSError if nobody listens at ``host:port``; Ray would take minutes to say so."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_WAIT):
            pass


def _shards(todo: Groups, workers: int) -> Iterator[Groups]:
    """Whole groups put together, each shard of about as many photos."""
    wanted = photos_in(todo) / (_SHARDS_A_WORKER * workers)
    behind = np.cumsum(todo[:, 1] - todo[:, 0])
    of_shard = (behind - 1) // int(np.clip(np.ceil(wanted), 1, _MOST_PHOTOS))
    starts = 1 + np.flatnonzero(of_shard[1:] != of_shard[:-1])
    yield from np.split(todo, starts)


def _tell_loss(
    announce: Callable[[str], None], work: PhotoWork, shard: Groups, losses: int, how: str
) -> None:
    photos = f"{photos_in(shard)} photos from {work.names[int(shard[0, 0])]} on"
    if losses >= _MOST_LOSSES:
        raise WorkspaceError(
            f"{losses} workers were lost over {photos}: {how}", do="look at the hosts' memory"
        )
    announce(f"a worker was lost ({how}); {photos} are done again")


# From here on in a worker.

_KNOWN: dict[str, _Job] = {}  # the stage that this process works for


def _make_shard(told: str, job: list[Any], groups: Groups) -> _Done | _Refused:
    """Make a shard of photos. The job is read once a process and stage, so it is kept by name."""
    try:
        if told not in _KNOWN:
            import ray

            _KNOWN.clear()
            _KNOWN[told] = _checked(ray.cloudpickle.loads(ray.get(job[0])))
        return _written(_KNOWN[told], groups)
    except TagsegError as error:
        where = None if error.where is None else str(error.where)
        return _Refused(type(error), error.what, where, error.do)


def _checked(job: _Job) -> _Job:
    """The job, after this host has been found fit for it."""
    set_threads(job.threads)
    if version("tagseg") != job.tagseg:
        raise ConfigError(
            f"tagseg {version('tagseg')} on host {socket.gethostname()}, {job.tagseg} elsewhere",
            do="install the same on all",
        )
    _check_folder(job.stage)
    return job


def _check_folder(stage: Stage) -> None:
    """The stage's folder must be the one that this process sees, and still be the same stage's."""
    record = record_in(stage.folder)
    if record is None or record["key"] != stage.key:
        raise WorkspaceError(
            f"the run's folder is not seen from host {socket.gethostname()}",
            where=stage.folder,
            do="put the run and the photos on storage that all hosts see, under the same path",
        )


def _written(job: _Job, groups: Groups) -> _Done:
    first = int(groups[0, 0])
    with ExitStack() as stack:
        made: list[NewShard] = []
        sinks: dict[str, Sink] = {}
        for store in job.stores:
            if is_folder(store):
                sinks[store] = sink_of(job.stage, store)
                continue
            folder = job.stage.folder / f"{store}{SHARDS}"
            made.append(stack.enter_context(NewShard(folder, first)))
            sinks[store] = made[-1].store
        fill(job.work, groups, sinks, lambda: None)
        _check_folder(job.stage)
        return _Done(photos_in(groups), {str(shard.path): shard.publish() for shard in made})
