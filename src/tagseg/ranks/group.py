"""Several processes that share one run, by ``torch.distributed``: gloo on CPUs, NCCL on CUDA."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function

from tagseg.errors import ConfigError, RankError
from tagseg.ranks.alone import ALONE, Ranks
from tagseg.ranks.launch import LIFELINE, Place, place_in_environment
from tagseg.ranks.watch import DONE, TOLD, Ending, Watch, keep_alive

__all__ = ["Group", "together"]

T = TypeVar("T")

_EVER = timedelta(days=30)  # who is gone is found by the watch, and who works may take long
_JOINING = timedelta(minutes=5)
_POLL = 0.02  # seconds between two looks for a word of the process that leads
_ERROR_PATIENCE, _STOP_PATIENCE = 5.0, 20.0  # seconds for the one that leads to say it first
_WORD = "tagseg/word/{}"
_DOOR = "tagseg/door"
_BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}


@contextmanager
def together(device: torch.device) -> Iterator[Ranks]:
    """The processes that share the run that is made in the block: this one, or several.

    They are several where the environment says so, as ``torchrun`` and
    :func:`tagseg.ranks.launch.launch` have it. Then the first alone prints, unless another has
    something to say that it does not know; and when one ends, all do.

    Raises:
        ConfigError: the environment or the device does not fit several processes.
        RankError: another process has ended before the run was finished.
    """
    place = place_in_environment()
    if place is None:
        yield ALONE
        return
    loud = sys.stdout, sys.stderr
    if place.rank > 0:
        _be_silent()
    try:
        group = Group(place, device)
    except BaseException:
        sys.stdout, sys.stderr = loud
        raise
    try:
        yield group
        group.finish()
    except BaseException as error:
        raised = group.leave(error)
        if group.speaks:
            sys.stdout, sys.stderr = loud
        else:
            _be_silent()
        if raised is error:
            raise
        raise raised from error
    sys.stdout, sys.stderr = loud


def _be_silent() -> None:
    sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


class Group(Ranks):
    """One of several processes; see :class:`Ranks`."""

    def __init__(self, place: Place, device: torch.device) -> None:
        if device.type not in _BACKENDS:
            raise ConfigError(
                f"several processes cannot share a run on {device.type}", do="use cpu or cuda"
            )
        self.rank, self.size = place.rank, place.size
        self.here, self.on_this_machine = place.here, place.on_this_machine
        self.speaks = self.leads
        self._words, self._alone = 0, False
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            dist.init_process_group(_BACKENDS[device.type], timeout=_JOINING)
            self._store: Any = dist.distributed_c10d._get_default_store()
            self._watch = Watch(self._connected(), _lifeline(), self._last)
        except (RuntimeError, OSError) as error:
            raise RankError(
                f"process {place.rank} of {place.size} could not join the others: "
                f"{str(error).splitlines()[0]}",
                do="see that all are started, and that MASTER_ADDR and MASTER_PORT can be reached",
            ) from error
        self._everyone = dist.new_group(timeout=_EVER)

    # --- values -----------------------------------------------------------------------------

    def first(self, make: Callable[[], T]) -> T:
        """See :class:`Ranks`."""
        if self._alone:
            return make()
        number = self.next_word()
        if self.leads:
            with self.apart():
                value: list[Any] = [make()]
            self.tell(number, True)
        else:
            self.hear(number)
            value = [None]
        with self._talking():
            dist.broadcast_object_list(value, 0, group=self._everyone, device=torch.device("cpu"))
        return value[0]  # type: ignore[no-any-return]

    def gathered(self, value: T) -> list[T]:
        """See :class:`Ranks`."""
        values: list[Any] = [None] * self.size
        with self._talking():
            dist.all_gather_object(values, value, group=self._everyone)
        return values

    def brought(self, value: T) -> list[T]:
        """See :class:`Ranks`."""
        values: list[Any] | None = [None] * self.size if self.leads else None
        with self._talking():
            dist.gather_object(value, values, 0, group=self._everyone)
        return values or []

    def any(self, value: bool) -> bool:
        """See :class:`Ranks`."""
        return any(self.lengths(int(value)))

    def lengths(self, own: int) -> Sequence[int]:
        """See :class:`Ranks`."""
        found = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with self._talking():
            dist.all_gather(found, torch.tensor([own]), group=self._everyone)
        return [int(one) for one in found]

    # --- tensors ----------------------------------------------------------------------------

    def joined(self, rows: Tensor) -> Tensor:
        """See :class:`Ranks`."""
        return _Joined.apply(rows, self)  # type: ignore[no-any-return, no-untyped-call]

    def total(self, tensor: Tensor) -> Tensor:
        """See :class:`Ranks`."""
        return _Total.apply(tensor, self)  # type: ignore[no-any-return, no-untyped-call]

    def sum_in_place(self, tensors: Iterable[Tensor]) -> None:
        """See :class:`Ranks`."""
        for same in _by_kind(tensors):
            flat = torch.cat([tensor.flatten() for tensor in same])
            self.add_up(flat)
            _spread(flat, same)

    def as_in_first(self, tensors: Iterable[Tensor]) -> None:
        """See :class:`Ranks`."""
        for same in _by_kind(tensors):
            flat = torch.cat([tensor.flatten() for tensor in same])
            with self._talking():
                dist.broadcast(flat, 0, group=self._everyone)
            _spread(flat, same)

    def add_up(self, tensor: Tensor) -> None:
        """Put the sum over the processes in place of ``tensor``; no gradient knows of it."""
        with self._talking():
            dist.all_reduce(tensor, group=self._everyone)

    def all_bytes(self, rows: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        """The rows of each process, whatever their type."""
        most = max(lengths)
        padded = rows.new_zeros((most, *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in lengths]
        if padded.numel():
            with self._talking():
                dist.all_gather(
                    [part.view(-1).view(torch.uint8) for part in parts],
                    padded.view(-1).view(torch.uint8),
                    group=self._everyone,
                )
        return [part[:length] for part, length in zip(parts, lengths, strict=True)]

    # --- words ------------------------------------------------------------------------------

    @contextmanager
    def apart(self) -> Iterator[None]:
        """See :class:`Ranks`."""
        outer, self._alone = self._alone, True
        try:
            yield
        finally:
            self._alone = outer

    @property
    def is_apart(self) -> bool:
        """See :class:`Ranks`."""
        return self._alone

    def next_word(self) -> int:
        """See :class:`Ranks`."""
        self._words += 1
        return self._words

    def tell(self, number: int, value: Any) -> None:
        """See :class:`Ranks`."""
        with self._talking():
            self._store.set(_WORD.format(number), json.dumps(value))

    def hear(self, number: int) -> Any:
        """See :class:`Ranks`."""
        key = _WORD.format(number)
        while True:
            if self._watch.ending is not None:
                raise self._lost()
            with self._talking():
                if self._store.check([key]):
                    return json.loads(self._store.get(key))
            time.sleep(_POLL)

    # --- the end ----------------------------------------------------------------------------

    def finish(self) -> None:
        """The run is finished; nobody leaves before all are."""
        self._watch.say(DONE)
        if not self._watch.wait_for_all():
            raise self._lost()
        dist.destroy_process_group()

    def leave(self, error: BaseException) -> BaseException:
        """The run ends in this process before it is finished; the error that is to be raised.

        Where all fail alike the process that leads is the one to say so.
        """
        self._watch.notice()
        if not isinstance(error, RankError):
            ending = self._watch.ending
            if ending is None and not self.leads:
                stopped = isinstance(error, KeyboardInterrupt)
                ending = self._watch.wait(_STOP_PATIENCE if stopped else _ERROR_PATIENCE)
                self.speaks = ending is None or not ending.told
            elif ending is not None:
                error = self._error(ending)
        self._watch.say(TOLD)
        return error

    @contextmanager
    def _talking(self) -> Iterator[None]:
        if self._alone:
            raise RuntimeError("the others take no part in what one process does alone")
        try:
            yield
        except RuntimeError as error:  # of torch.distributed: who is gone has closed connections
            raise self._lost(error) from error

    def _lost(self, error: Exception | None = None) -> RankError:
        self._watch.notice()
        ending = self._watch.wait(_ERROR_PATIENCE)
        if ending is None:
            why = "" if error is None else f": {str(error).splitlines()[0]}"
            return RankError(f"process {self.rank} has lost the others{why}", do=_AGAIN)
        return self._error(ending)

    def _error(self, ending: Ending) -> RankError:
        # One of those that are left says it: the first, or the second where the first is gone.
        self.speaks = not ending.told and self.rank == (1 if ending.rank <= 0 else 0)
        if ending.rank < 0:
            self.speaks = self.leads
            return RankError("the command that started the processes has ended", do=_AGAIN)
        return RankError(f"process {ending.rank} of {self.size} has ended", do=_AGAIN)

    def _last(self, ending: Ending) -> None:
        """What the watch does with a process that does not end by itself."""
        error = self._error(ending)
        if self.speaks:
            os.write(2, f"tagseg: error: {error}\n".encode())
        self._watch.say(TOLD)
        os._exit(2)

    def _connected(self) -> dict[int, socket.socket]:
        """A connection to each process in the one that leads, and to that one in the others."""
        if self.leads:
            return self._let_in()
        host, port, key = json.loads(self._store.get(_DOOR))
        connection = socket.create_connection((host, port), _JOINING.total_seconds())
        connection.sendall(f"{key} {self.rank:08d}".encode())
        connection.settimeout(None)
        keep_alive(connection)
        return {0: connection}

    def _let_in(self) -> dict[int, socket.socket]:
        host, key = os.environ.get("MASTER_ADDR", "127.0.0.1"), secrets.token_hex(16)
        local = host in ("127.0.0.1", "localhost")
        found: dict[int, socket.socket] = {}
        with socket.create_server(("127.0.0.1" if local else "", 0), backlog=self.size) as door:
            door.settimeout(_JOINING.total_seconds())
            self._store.set(_DOOR, json.dumps([host, door.getsockname()[1], key]))
            while len(found) < self.size - 1:
                connection, _ = door.accept()
                connection.settimeout(_JOINING.total_seconds())
                said = connection.recv(len(key) + 9, socket.MSG_WAITALL).decode(errors="replace")
                if said[: len(key)] != key:  # somebody else's
                    connection.close()
                    continue
                connection.settimeout(None)
                keep_alive(connection)
                found[int(said[len(key) :])] = connection
        return found


_AGAIN = "give the same command again, which goes on, also with another number of processes"


def _lifeline() -> int | None:
    number = os.environ.get(LIFELINE)
    if number is None:
        return None
    with suppress(OSError, ValueError):
        os.fstat(int(number))
        return int(number)
    return None


def _by_kind(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Tensors of one type and device together, in their order."""
    kinds: dict[Any, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    return list(kinds.values())


@torch.no_grad()
def _spread(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view(tensor.shape))


class _Joined(Function):
    """Rows of all processes in order; each takes the gradient of its own."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Group) -> Tensor:
        lengths = group.lengths(len(rows))
        start = sum(lengths[: group.rank])
        ctx.own = slice(start, start + len(rows))
        return torch.cat(group.all_bytes(rows, lengths))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][ctx.own], None


class _Total(Function):
    """The sum over the processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Group) -> Tensor:
        ctx.group = group
        total = tensor.clone()
        group.add_up(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone()
        ctx.group.add_up(total)
        return total, None
