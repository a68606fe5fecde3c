"""The one training loop: schedule, precision, checkpoint, resume, progress.

Iteration t of a run is a function of (weights, optimizer state, seed, t) alone: which photos, how
they are cut and which units drop out are all drawn from (seed, t). So a run that is killed and
resumed from a checkpoint ends with the same weights, to the bit on a CPU with fixed threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol, cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from tagseg.compiling import CompiledNetwork
from tagseg.data.transforms import GREY, recoloured
from tagseg.errors import ConfigError, TagsegError, TrainingError
from tagseg.maps import IGNORE
from tagseg.ranks.alone import ALONE, Ranks
from tagseg.ranks.network import shared_network
from tagseg.stopping import ignore_in_worker, put_off

__all__ = [
    "Batch",
    "Checkpoint",
    "Execution",
    "Loop",
    "Sample",
    "Schedule",
    "freeze_batch_norm",
    "learning_rate_factor",
    "train",
]

Batch = dict[str, Tensor]
Sample = Callable[[int, np.random.Generator], Mapping[str, np.ndarray]]
_ADAMS: dict[str, type[torch.optim.Adam]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
_FUSED = ("cuda",)  # where kernels of optimizers are fused, in all versions of torch that are used
_LOG_EVERY = 20  # iterations
_CHECKPOINT_EVERY = 15.0  # seconds


class Checkpoint(Protocol):
    """Where a training state is kept between interruptions."""

    def load(self) -> dict[str, Any] | None:
        """The last state that was saved, or None."""

    def save(self, state: dict[str, Any]) -> None:
        """Keep ``state`` in place of the last one; it may be written later."""

    def wait(self) -> None:
        """Until the last state is written."""


class Ticks(Protocol):
    """A progress bar."""

    def advance(self, n: int = 1) -> None:
        """``n`` more iterations are done."""

    def skip(self, n: int) -> None:
        """``n`` more iterations had been done before."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn.

    Attributes:
        iterations: number of updates.
        batch_size: photos an update.
        learning_rate: at the start, before each group's multiplier.
        optimizer: "sgd" (with ``momentum``), "adam" (``weight_decay`` adds to the gradient, as a
            penalty in the loss does) or "adamw".
        policy: "step" multiplies by ``gamma`` at each fraction of the run in ``steps``; "poly"
            decays as (1 - t / iterations) ** ``power``.
        multipliers: factor on the learning rate by the name of a parameter group.
        warmup: iterations of linear rise from 0.
        clip: largest norm of the gradient; None for no limit.
        averaging: decay of an exponential moving average of the weights, which is what a training
            ends with (Polyak and Juditsky 1992; Tarvainen and Valpola, Mean Teachers, NeurIPS
            2017); 0 for the last weights. Over the first iterations it is (1 + t) / (10 + t).
    """

    iterations: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    policy: Literal["step", "poly"] = "poly"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    steps: tuple[float, ...] = (2 / 3,)
    gamma: float = 0.1
    power: float = 0.9
    warmup: int = 0
    clip: float | None = None
    averaging: float = 0.0
    multipliers: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", do="use 1 or more")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate is {self.learning_rate}", do="use a value over 0")
        if not 0 <= self.averaging < 1:
            raise ConfigError(f"averaging is {self.averaging}", do="use 0 to below 1")
        if self.optimizer not in ("sgd", *_ADAMS):
            raise ConfigError(f"optimizer is {self.optimizer!r}", do="use sgd, adam or adamw")
        if self.policy not in ("step", "poly"):
            raise ConfigError(f"policy is {self.policy!r}", do="use step or poly")


@dataclass(frozen=True)
class Execution:
    """Where and how exactly to compute.

    Attributes:
        precision: type of autocast; float32 for none.
        workers: processes that load photos.
        compiles: whether networks are compiled for training, by :mod:`tagseg.compiling`.
    """

    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable
    precision: torch.dtype = torch.float32
    seed: int = 0
    workers: int = 0
    compiles: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}", do="use a whole number from 0 to 2^63 - 1")
        if self.workers < 0:
            raise ConfigError(f"workers is {self.workers}", do="use 0 or more")

    @property
    def apart(self) -> bool:
        """Whether the device works apart from the CPU, which has its cores free meanwhile.

        Then colours of samples are changed on the device, and the loss stays there until it is
        asked for; stages let the CPU refine one batch while the device has the next.
        """
        return self.device.type != "cpu"


@dataclass(frozen=True)
class Loop:
    """What a training runs with, beside what it learns and how fast.

    Attributes:
        execution: device, precision, seed and loaders.
        frozen_batch_norm: see :func:`freeze_batch_norm`.
        checkpoint: resumed from if it holds a state; saved to while training.
        log: called with iteration, loss and learning_rate every 20 iterations.
        ticks: told of every iteration.
        ranks: the processes that share the training; see :mod:`tagseg.ranks.network`.
        say: is told in one line what a person should know.
    """

    execution: Execution = Execution()
    frozen_batch_norm: bool = False
    checkpoint: Checkpoint | None = None
    log: Callable[..., None] = lambda **_: None
    ticks: Ticks | None = None
    ranks: Ranks = ALONE
    say: Callable[[str], None] = lambda _: None


def learning_rate_factor(schedule: Schedule, iteration: int) -> float:
    """Factor on the learning rate at ``iteration`` (0-based)."""
    rise = min(1.0, (iteration + 1) / schedule.warmup) if schedule.warmup else 1.0
    done = iteration / schedule.iterations
    if schedule.policy == "poly":
        return float(rise * (1.0 - done) ** schedule.power)
    return float(rise * schedule.gamma ** sum(done >= step for step in schedule.steps))


def freeze_batch_norm(net: nn.Module) -> None:
    """Keep batch-norm statistics and parameters as loaded, also in training mode.

    Small batches estimate the statistics badly, and weights whose batch norm was folded into the
    convolutions hold the identity there. In our backbones a norm costs no pass over the maps then,
    see :mod:`tagseg.nets.folding`.
    """
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.requires_grad_(False)


def train(
    net: nn.Module,
    loss: Callable[[nn.Module, Batch], Tensor],
    sample: Sample,
    n_samples: int,
    schedule: Schedule,
    *,
    groups: Sequence[Mapping[str, Any]] | None = None,
    loop: Loop = Loop(),
) -> None:
    """Train ``net`` in place.

    A signal that ends the program lets the iteration end, and its state be saved. Several processes
    share out the samples of each batch, and end with the same weights; the first of them saves.

    Args:
        net: moved to the device and left there, in evaluation mode.
        loss: scalar of (net, batch); images arrive as uint8 (B, 3, H, W) under "image", and the
            number of the iteration, from 0, under "iteration". It calls ``net``, or a method of
            it, with tensors whose first dimension is the photos of the batch, and makes of the
            tensors that come back what it likes.
        sample: arrays of sample i, drawn with the given generator; stacked into a batch, those of
            several sizes with grey below and beside images, and 255 below and beside other maps.
            "colour" is a change of the image's colours that is left to the device, of
            :func:`tagseg.data.transforms.colour_change`.
        n_samples: how many samples there are; each epoch visits all in a new order.
        groups: parameter groups with "params" and "name", and with "weight_decay" where it is not
            the schedule's, and a "factor" on its learning rate; all parameters in one if None.
        loop: where to compute, what is told, and where the state is kept.

    Raises:
        TrainingError: the loss is not finite, which shows at once on a CPU and elsewhere every 20
            iterations or before a state is saved; no such state is saved.
        TagsegError: what ``sample`` raises, from worker processes too.
    """
    execution, ticks, ranks = loop.execution, loop.ticks, loop.ranks
    net.to(execution.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.train()
    if loop.frozen_batch_norm:
        freeze_batch_norm(net)
    attempt, called = _as_called(net, loop)
    optimizer = _optimizer(net, groups, schedule, fused=execution.device.type in _FUSED)
    averages = _Averages(net, schedule.averaging)
    start, total = _resume(net, optimizer, averages, loop)
    at_once = not execution.apart
    losses = _Losses(total, at_once=at_once)
    if ticks is not None:
        ticks.skip(start)
    saved = time.monotonic()
    devices = [execution.device] if execution.device.type == "cuda" else []
    with torch.random.fork_rng(devices), put_off() as stopped, _written(loop.checkpoint):
        for t, batch in _batches(sample, n_samples, schedule, loop, start):
            update = partial(_update, called, loss, optimizer, batch, t, schedule, loop)
            losses.add(t, attempt(update))
            averages.add(t)
            if (t + 1) % _LOG_EVERY == 0 or t + 1 == schedule.iterations:
                mean = losses.total() / ((t % _LOG_EVERY) + 1)
                rate = schedule.learning_rate * learning_rate_factor(schedule, t)
                loop.log(iteration=t + 1, loss=mean, learning_rate=rate)
                losses = _Losses(0.0, at_once=at_once)
            stops = ranks.any(stopped())
            due = time.monotonic() - saved > _CHECKPOINT_EVERY or stops
            if loop.checkpoint is not None and due and ranks.leads:
                loop.checkpoint.save(_state(net, optimizer, averages, t + 1, losses.total()))
                saved = time.monotonic()
            if ticks is not None:
                ticks.advance(1)
            if stops:
                raise KeyboardInterrupt
    averages.put()
    net.eval()


def _as_called(
    net: nn.Module, loop: Loop
) -> tuple[Callable[[Callable[[], Tensor]], Tensor], nn.Module]:
    """Who makes an update, and the network in it: compiled, if that is wanted."""
    if not loop.execution.compiles:
        return lambda update: update(), net
    compiled = CompiledNetwork(net, loop.say)
    return compiled.attempt, cast(nn.Module, compiled)


class _Losses:
    """The losses since the last line of the log.

    To read one makes the program wait for all that the device was given, so that they stay there
    until their sum is asked for, unless they are to be read ``at_once``.
    """

    def __init__(self, before: float, *, at_once: bool) -> None:
        self._sum, self._at_once = before, at_once
        self._unread: list[tuple[int, Tensor]] = []

    def add(self, iteration: int, value: Tensor) -> None:
        """Take in the loss of an iteration (0-based)."""
        self._unread.append((iteration, value.detach()))
        if self._at_once:
            self.total()

    def total(self) -> float:
        """Their sum; TrainingError if one of them is not finite."""
        unread, self._unread = self._unread, []
        values = torch.stack([value for _, value in unread]).tolist() if unread else []
        for (iteration, _), value in zip(unread, values, strict=True):
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss is {value} at iteration {iteration + 1}",
                    do="lower the learning rate or use --precision fp32",
                )
            self._sum += value
        return self._sum


@contextmanager
def _written(checkpoint: Checkpoint | None) -> Iterator[None]:
    """Waits for the last state, however the block ends."""
    try:
        yield
    finally:
        if checkpoint is not None:
            checkpoint.wait()


class _Averages:
    """Moving averages of the parameters that are trained; none with a decay of 0."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self._decay = decay
        self._params = [p for p in net.parameters() if p.requires_grad] if decay else []
        self.values = [p.detach().clone() for p in self._params]

    @torch.no_grad()
    def add(self, iteration: int) -> None:
        """Take in the weights after ``iteration`` (0-based)."""
        decay = min(self._decay, (1 + iteration) / (10 + iteration))
        for value, param in zip(self.values, self._params, strict=True):
            value.lerp_(param, 1 - decay)

    @torch.no_grad()
    def put(self) -> None:
        """Let the averages be the weights."""
        for value, param in zip(self.values, self._params, strict=True):
            param.copy_(value)

    @torch.no_grad()
    def load(self, values: list[Tensor]) -> None:
        """Go on from averages of before."""
        for value, kept in zip(self.values, values, strict=True):
            value.copy_(kept)


def _update(
    net: nn.Module,
    loss: Callable[[nn.Module, Batch], Tensor],
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    iteration: int,
    schedule: Schedule,
    loop: Loop,
) -> Tensor:
    execution, ranks = loop.execution, loop.ranks
    torch.manual_seed(hash((execution.seed, iteration)) % 2**63)  # dropout
    batch = _moved(batch, execution.device)
    batch["iteration"] = torch.tensor(iteration)  # on the CPU, to be read without waiting
    factor = learning_rate_factor(schedule, iteration)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    low = execution.precision != torch.float32
    with torch.autocast(execution.device.type, execution.precision, enabled=low):
        value = loss(shared_network(net, ranks), batch)
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    ranks.sum_in_place(p.grad for p in net.parameters() if p.grad is not None)
    if schedule.clip is not None:
        nn.utils.clip_grad_norm_(net.parameters(), schedule.clip)
    optimizer.step()
    return value


def _moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on the device, which changes the colours that samples have left to it."""
    moved = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
    if "colour" in moved:
        moved["image"] = recoloured(moved["image"], moved.pop("colour"))
    return moved


def _optimizer(
    net: nn.Module,
    groups: Sequence[Mapping[str, Any]] | None,
    schedule: Schedule,
    *,
    fused: bool,
) -> torch.optim.Optimizer:
    """The schedule's optimizer, in fused kernels where they are wanted and there are such."""
    everything = {"name": "all", "params": net.parameters()}
    named: Sequence[Mapping[str, Any]] = [everything] if groups is None else groups
    prepared = []
    for group in named:
        rate = schedule.learning_rate * schedule.multipliers.get(str(group["name"]), 1.0)
        rate *= group.get("factor", 1.0)
        params = [parameter for parameter in group["params"] if parameter.requires_grad]
        if params:
            decay = group.get("weight_decay", schedule.weight_decay)
            prepared.append({"params": params, "lr": rate, "base_lr": rate, "weight_decay": decay})
    kind: Callable[..., torch.optim.Optimizer] = _ADAMS.get(
        schedule.optimizer, partial(torch.optim.SGD, momentum=schedule.momentum, lr=1.0)
    )
    if fused:
        with suppress(RuntimeError, TypeError):  # of parameters, or of an older torch
            return kind([dict(group) for group in prepared], fused=True)
    return kind(prepared)


def _resume(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    averages: _Averages,
    loop: Loop,
) -> tuple[int, float]:
    """The iteration to go on from, and the sum of the losses since the last line of the log."""
    state = loop.ranks.first(lambda: loop.checkpoint.load() if loop.checkpoint else None)
    if state is None:
        loop.ranks.as_in_first(net.state_dict().values())
        return 0, 0.0
    net.load_state_dict(state["net"])
    for saved, own in zip(state["optimizer"]["param_groups"], optimizer.param_groups, strict=True):
        saved["fused"] = own.get("fused")  # another device may go on
    optimizer.load_state_dict(state["optimizer"])
    averages.load(state["averages"])
    return int(state["iteration"]), float(state["total"])


def _state(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    averages: _Averages,
    iteration: int,
    total: float,
) -> dict[str, Any]:
    return {
        "net": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "averages": averages.values,
        "iteration": iteration,
        "total": total,
    }


class _Samples(Dataset[Mapping[str, np.ndarray] | TagsegError]):
    """Samples, or what went wrong: DataLoader would put a worker's traceback into the message."""

    def __init__(self, sample: Sample, seed: int) -> None:
        self.sample, self.seed = sample, seed

    def __getitem__(self, item: tuple[int, int]) -> Mapping[str, np.ndarray] | TagsegError:
        position, index = item
        try:
            return self.sample(index, np.random.default_rng([self.seed, 1, position]))
        except TagsegError as error:
            return error


def _collate(samples: list[Mapping[str, np.ndarray] | TagsegError]) -> Batch | TagsegError:
    failed = next((item for item in samples if isinstance(item, TagsegError)), None)
    if failed is not None:
        return failed
    return default_collate(_of_one_size(samples)) if samples else {}


def _of_one_size(samples: Sequence[Any]) -> list[dict[str, np.ndarray]]:
    """The samples with photos and maps as large as the largest of them."""
    padded: list[dict[str, np.ndarray]] = [dict(sample) for sample in samples]
    for name, first in padded[0].items():
        if np.ndim(first) >= 2:
            for sample, array in zip(padded, _padded(name, [s[name] for s in padded]), strict=True):
                sample[name] = array
    return padded


def _padded(name: str, maps: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """Maps (..., h, w) as large as the largest, with grey around images and 255 around others."""
    shapes = np.array([one.shape[-2:] for one in maps])
    if (shapes == shapes[0]).all():
        return maps
    height, width = shapes.max(0)
    fill = GREY if name == "image" else IGNORE
    padded = []
    for one in maps:
        room = [(0, 0)] * (one.ndim - 2)
        room += [(0, height - one.shape[-2]), (0, width - one.shape[-1])]
        padded.append(np.pad(one, room, constant_values=fill))
    return padded


def _batches(
    sample: Sample, n: int, schedule: Schedule, loop: Loop, start: int
) -> Iterator[tuple[int, Batch]]:
    """Whole batches from iteration ``start`` on, of which each process loads its part."""
    execution, part = loop.execution, loop.ranks.part(schedule.batch_size)
    order = _order(n, schedule, execution.seed, start)
    loader = DataLoader(
        _Samples(sample, execution.seed),
        batch_sampler=[pairs[part] for pairs in order],
        num_workers=execution.workers,
        collate_fn=_collate,
        worker_init_fn=_begin_to_load,
        pin_memory=execution.device.type == "cuda",
    )
    for t, batch in enumerate(loader, start):
        whole = _whole(loop.ranks, batch)
        if isinstance(whole, TagsegError):
            raise whole
        yield t, whole


def _begin_to_load(number: int) -> None:
    """In a process that loads photos: one thread, as there are several such processes."""
    ignore_in_worker(number)
    cv2.setNumThreads(1)


def _whole(ranks: Ranks, own: Batch | TagsegError) -> Batch | TagsegError:
    """The batch of which each process has loaded a part, maybe an empty one."""
    if ranks.size == 1:
        return own
    given = own if isinstance(own, TagsegError) else {k: v.numpy() for k, v in own.items()}
    parts = ranks.gathered(given)
    failed = next((part for part in parts if isinstance(part, TagsegError)), None)
    if failed is not None:
        return failed
    loaded = [part for part in parts if not isinstance(part, TagsegError) and part]
    whole = {}
    for name, first in loaded[0].items():
        arrays: Sequence[np.ndarray] = [part[name] for part in loaded]
        if first.ndim > 2:  # maps, of which those of another process may be larger
            arrays = _padded(name, arrays)
        whole[name] = torch.from_numpy(np.concatenate(arrays))
    return whole


def _order(n: int, schedule: Schedule, seed: int, start: int) -> Sequence[list[tuple[int, int]]]:
    """For each iteration from ``start`` the (position, sample) pairs of its batch.

    Positions count samples from the start of the run; epoch e visits all in the order of its own
    permutation.
    """
    size = schedule.batch_size
    positions = range(start * size, schedule.iterations * size)
    orders: dict[int, np.ndarray] = {}
    pairs = []
    for position in positions:
        epoch, place = divmod(position, n)
        if epoch not in orders:
            orders = {epoch: np.random.default_rng([seed, 0, epoch]).permutation(n)}
        pairs.append((position, int(orders[epoch][place])))
    return [pairs[i : i + size] for i in range(0, len(pairs), size)]
