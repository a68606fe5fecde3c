from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tagseg import training
from tagseg.data.transforms import GREY, colour_change
from tagseg.errors import ConfigError, ImageError, TrainingError
from tagseg.maps import IGNORE
from tagseg.run.checkpoint import Checkpoint, Log
from tagseg.training import Batch, Execution, Loop, Schedule, learning_rate_factor, train


class Net(nn.Module):
    """Convolution, batch norm, dropout and two parameter groups."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))

    def groups(self) -> list[dict[str, Any]]:
        return [
            {"name": "body", "params": list(self.body.parameters())},
            {"name": "head", "params": list(self.head.parameters())},
        ]


class Weights(nn.Module):
    """Numbers whose gradient the loss sets."""

    def __init__(self, values: dict[str, float]) -> None:
        super().__init__()
        for name, value in values.items():
            setattr(self, name, nn.Parameter(torch.tensor([value], dtype=torch.float64)))

    def groups(self) -> list[dict[str, Any]]:
        return [{"name": name, "params": [p]} for name, p in self.named_parameters()]


class Ticks:
    """Counts, and stops the run at iteration ``stop`` as Ctrl-C would."""

    def __init__(self, stop: int | None = None) -> None:
        self.done, self.skipped, self.stop = 0, 0, stop

    def advance(self, n: int = 1) -> None:
        self.done += n
        if self.done + self.skipped == self.stop:
            raise KeyboardInterrupt

    def skip(self, n: int) -> None:
        self.skipped += n


class SavesAt(Checkpoint):
    """A checkpoint that is due at one iteration only."""

    at = 0

    def save(self, state: dict[str, Any]) -> None:
        if state["iteration"] == self.at:
            super().save(state)


def picture(index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A photo that depends on the sample and on the draw, and its class."""
    image = rng.integers(0, 128, (3, 6, 6), np.uint8) + np.uint8(20 * (index % 2))
    return {"image": image, "class": np.int64(index % 2)}  # type: ignore[dict-item]


def cross_entropy(net: nn.Module, batch: Batch) -> Tensor:
    return functional.cross_entropy(net(batch["image"].float() / 255), batch["class"])


def nothing(index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"image": np.zeros((3, 1, 1), np.uint8)}


def new_net() -> Net:
    torch.manual_seed(5)
    return Net()


def run(
    folder: Path | None,
    schedule: Schedule,
    *,
    save: int = 0,
    stop: int | None = None,
    workers: int = 0,
    seed: int = 3,
) -> tuple[dict[str, Tensor], list[dict[str, Any]], Ticks]:
    """One training of the same fresh network; what a killed and restarted program would do."""
    net, ticks = new_net(), Ticks(stop)
    lines: list[dict[str, Any]] = []
    hooks: dict[str, Any] = {"log": lambda **values: lines.append(values)}
    if folder is not None:
        log = Log(folder / "metrics.jsonl")
        checkpoint = SavesAt(folder / "checkpoint.pt", log, pytest.fail)
        checkpoint.at = save
        hooks = {"log": lambda **values: log.append(values), "checkpoint": checkpoint}
    execution = Execution(seed=seed, workers=workers)
    groups = net.groups()
    try:
        train(
            net, cross_entropy, picture, 10, schedule,
            groups=groups, loop=Loop(execution, ticks=ticks, **hooks),
        )  # fmt: skip
    except KeyboardInterrupt:
        assert stop is not None
    return net.state_dict(), lines if folder is None else log.read(), ticks


def assert_same_bits(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(ours[name], tensor), name


@pytest.mark.parametrize("averaging", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize(
    ("save", "stop", "workers"), [(33, 47, 0), (33, 47, 1), (1, 2, 0), (20, 20, 0), (40, 49, 0)]
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    optimizer: Any,
    averaging: float,
    save: int,
    stop: int,
    workers: int,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY", -1.0)
    schedule = Schedule(
        50, 4, 0.02, optimizer, warmup=5, clip=1.0, averaging=averaging, multipliers={"body": 0.3}
    )
    straight, log, _ = run(None, schedule)
    halfway, _, _ = run(tmp_path, schedule, save=save, stop=stop, workers=workers)
    ended, resumed_log, ticks = run(tmp_path, schedule, workers=workers)
    assert_same_bits(ended, straight)
    assert resumed_log == log
    assert [line["iteration"] for line in log] == [20, 40, 50]
    assert (ticks.skipped, ticks.done) == (save, 50 - save)
    with pytest.raises(AssertionError):
        assert_same_bits(halfway, straight)


def test_a_run_that_is_stopped_twice_before_its_first_checkpoint_starts_again(
    tmp_path: Path,
) -> None:
    schedule = Schedule(25, 2, 0.01)
    straight, log, _ = run(None, schedule)
    for stop in (22, 21):
        run(tmp_path, schedule, stop=stop)
    ended, resumed_log, ticks = run(tmp_path, schedule)
    assert_same_bits(ended, straight)
    assert resumed_log == log
    assert ticks.skipped == 0


def test_a_finished_state_trains_no_further(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY", -1.0)
    schedule = Schedule(6, 2, 0.01)
    first, _, _ = run(tmp_path, schedule, save=6)
    again, _, ticks = run(tmp_path, schedule)
    assert_same_bits(again, first)
    assert (ticks.skipped, ticks.done) == (6, 0)


def test_checkpoints_are_saved_when_due_only(tmp_path: Path, monkeypatch: Any) -> None:
    clock = [0.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: clock[0])
    saved = []

    class Keeps:
        def load(self) -> None:
            return None

        def save(self, state: dict[str, Any]) -> None:
            saved.append(state["iteration"])

        def wait(self) -> None:
            saved.append("written")

    class Slow(Ticks):
        def advance(self, n: int = 1) -> None:
            clock[0] += 4.0  # seconds an iteration; due after more than 15

    train(
        new_net(),
        cross_entropy,
        picture,
        4,
        Schedule(12, 2, 0.1),
        loop=Loop(checkpoint=Keeps(), ticks=Slow()),
    )
    assert saved == [5, 9, "written"]


def test_the_result_depends_on_the_seed_and_on_nothing_outside() -> None:
    schedule = Schedule(8, 4, 0.05)
    torch.manual_seed(0)
    first, _, _ = run(None, schedule)
    with torch.random.fork_rng(devices=[]):
        torch.rand(100)
        np.random.default_rng().random()
        second, _, _ = run(None, schedule, workers=1)
    assert_same_bits(second, first)
    other, _, _ = run(None, schedule, seed=4)
    assert not torch.equal(other["head.weight"], first["head.weight"])


def test_dropout_is_drawn_anew_in_each_iteration() -> None:
    masks = []

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        masks.append(functional.dropout(torch.ones(200)) > 0)
        return module.w.sum()

    for seed in (0, 1):
        execution = Execution(seed=seed)
        train(Weights({"w": 1.0}), loss, nothing, 1, Schedule(3, 1, 0.1), loop=Loop(execution))
    assert len({tuple(mask.tolist()) for mask in masks}) == 6


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_random_state_stays(workers: int) -> None:
    net = new_net()
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    train(
        net, cross_entropy, picture, 4, Schedule(3, 2, 0.1), loop=Loop(Execution(workers=workers))
    )
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], before_numpy)  # noqa: NPY002


# Schedules


def slow_poly(iterations: int, power: float, warmup: int) -> list[float]:
    factors = []
    for t in range(iterations):
        rise = 1.0
        if warmup and t + 1 < warmup:
            rise = (t + 1) / warmup
        factors.append(rise * math.exp(power * math.log((iterations - t) / iterations)))
    return factors


def slow_steps(iterations: int, steps: tuple[Fraction, ...], gamma: float) -> list[float]:
    factors, factor = [], 1.0
    waiting = sorted(steps)
    for t in range(iterations):
        while waiting and Fraction(t, iterations) >= waiting[0]:
            factor *= gamma
            waiting.pop(0)
        factors.append(factor)
    return factors


@pytest.mark.parametrize(
    ("iterations", "power", "warmup"), [(7, 0.9, 0), (50, 0.9, 20), (9, 2, 30)]
)
def test_poly_equals_the_loop(iterations: int, power: float, warmup: int) -> None:
    schedule = Schedule(iterations, 1, 0.1, policy="poly", power=power, warmup=warmup)
    ours = [learning_rate_factor(schedule, t) for t in range(iterations)]
    np.testing.assert_allclose(ours, slow_poly(iterations, power, warmup), rtol=1e-12)


@pytest.mark.parametrize("iterations", [1, 3, 7, 60, 300, 60_000])
@pytest.mark.parametrize("steps", [("2/3",), ("1/3", "4/5"), ()])
def test_step_equals_the_loop(iterations: int, steps: tuple[str, ...]) -> None:
    exact = tuple(map(Fraction, steps))
    schedule = Schedule(
        iterations, 1, 0.1, policy="step", steps=tuple(map(float, exact)), gamma=0.1
    )
    ours = [learning_rate_factor(schedule, t) for t in range(iterations)]
    np.testing.assert_allclose(ours, slow_steps(iterations, exact, 0.1), rtol=1e-12)


def test_the_papers_rate_falls_for_the_last_third() -> None:
    schedule = Schedule(60_000, 1, 1e-4, policy="step")
    rates = [1e-4 * learning_rate_factor(schedule, t) for t in (0, 39_999, 40_000, 59_999)]
    np.testing.assert_allclose(rates, [1e-4, 1e-4, 1e-5, 1e-5])


@pytest.mark.parametrize("policy", ["poly", "step"])
def test_sgd_with_groups_equals_the_loop(policy: Any) -> None:
    """v = momentum v + g + decay p; p -= rate * multiplier * factor(t) v, with g = 2."""
    schedule = Schedule(
        30, 1, 0.01, policy=policy, momentum=0.8, weight_decay=0.1, warmup=4,
        multipliers={"slow": 0.1, "fast": 10.0},
    )  # fmt: skip
    start = {"slow": 1.0, "plain": -2.0, "fast": 0.5}
    net = Weights(start)
    lines: list[dict[str, Any]] = []
    train(
        net, lambda module, _: 2 * sum(p.sum() for p in module.parameters()), nothing, 1, schedule,
        groups=net.groups(), loop=Loop(log=lambda **values: lines.append(values)),
    )  # fmt: skip
    factors = [learning_rate_factor(schedule, t) for t in range(30)]
    for name, value in start.items():
        velocity, weight = 0.0, value
        for factor in factors:
            velocity = 0.8 * velocity + 2.0 + 0.1 * weight
            weight -= 0.01 * schedule.multipliers.get(name, 1.0) * factor * velocity
        assert getattr(net, name).item() == pytest.approx(weight, rel=1e-9)
    assert [line["iteration"] for line in lines] == [20, 30]
    np.testing.assert_allclose(
        [line["learning_rate"] for line in lines], [0.01 * factors[19], 0.01 * factors[29]]
    )


def test_adamw_moves_by_the_rate_of_its_group() -> None:
    """AdamW's first step is the rate itself, whatever the gradient; decay comes on top."""
    net = Weights({"slow": 1.0, "plain": 1.0})
    schedule = Schedule(1, 1, 0.01, optimizer="adamw", weight_decay=0.5, multipliers={"slow": 0.1})
    train(
        net, lambda module, _: 7 * sum(p.sum() for p in module.parameters()), nothing, 1, schedule,
        groups=net.groups(),
    )  # fmt: skip
    for name, rate in (("slow", 0.001), ("plain", 0.01)):
        assert getattr(net, name).item() == pytest.approx(1 - rate * 0.5 - rate, rel=1e-5)


def test_a_groups_factor_comes_on_top_of_its_multiplier() -> None:
    net = Weights({"slow": 1.0, "plain": 1.0})
    schedule = Schedule(1, 1, 0.01, optimizer="adamw", weight_decay=0, multipliers={"slow": 0.1})
    groups = [group | {"factor": 0.5} for group in net.groups()]
    train(
        net, lambda module, _: 7 * sum(p.sum() for p in module.parameters()), nothing, 1, schedule,
        groups=groups,
    )  # fmt: skip
    for name, rate in (("slow", 0.0005), ("plain", 0.005)):
        assert getattr(net, name).item() == pytest.approx(1 - rate, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_groups_own_weight_decay_takes_the_place_of_the_schedules(optimizer: Any) -> None:
    """Without a gradient from the loss only the decay moves a weight."""
    net = Weights({"own": 1.0, "none": 1.0, "schedules": 1.0})
    groups = net.groups()
    groups[0]["weight_decay"], groups[1]["weight_decay"] = 0.25, 0.0
    schedule = Schedule(1, 1, 0.01, optimizer, weight_decay=0.5)
    train(
        net, lambda module, _: 0 * sum(p.sum() for p in module.parameters()), nothing, 1, schedule,
        groups=groups,
    )  # fmt: skip
    # Adam's first step is the rate itself, whatever the gradient that the penalty makes.
    moves = {"sgd": (0.0025, 0.005), "adam": (0.01, 0.01), "adamw": (0.0025, 0.005)}[optimizer]
    assert 1 - net.own.item() == pytest.approx(moves[0], rel=1e-5)  # type: ignore[operator]
    assert net.none.item() == 1  # type: ignore[operator]
    assert 1 - net.schedules.item() == pytest.approx(moves[1], rel=1e-5)  # type: ignore[operator]


def test_adam_with_decay_equals_the_loop() -> None:
    """Kingma & Ba 2015 on the loss's gradient and the penalty's, decay * weight."""
    net, gradient = Weights({"w": 2.0}), 0.3
    schedule = Schedule(
        20, 1, 0.05, optimizer="adam", policy="step", steps=(0.5,), weight_decay=0.4
    )
    train(net, lambda module, _: gradient * module.w.sum(), nothing, 1, schedule)
    weight, first, second = 2.0, 0.0, 0.0
    for t in range(20):
        g = gradient + 0.4 * weight
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
        rate = 0.05 * (1.0 if t < 10 else 0.1)
        mean, square = first / (1 - 0.9 ** (t + 1)), second / (1 - 0.999 ** (t + 1))
        weight -= rate * mean / (math.sqrt(square) + 1e-8)
    assert net.w.item() == pytest.approx(weight, rel=1e-6)  # type: ignore[operator]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_fused_optimizers_take_the_same_steps(optimizer: Any) -> None:
    """Also where one goes on with the state of the other, as on another device."""
    schedule = Schedule(1, 1, 0.01, optimizer)
    found = []
    for ways in ((True, True), (False, False), (True, False), (False, True)):
        net, state = new_net(), None
        for fused in ways:
            made = training._optimizer(net, net.groups(), schedule, fused=fused)
            averages = training._Averages(net, 0.0)
            if state is not None:
                training._resume(net, made, averages, Loop(checkpoint=Given(state)))
            for step in range(3):
                for param in net.parameters():
                    param.grad = torch.sin(step + torch.arange(param.numel())).view_as(param)
                made.step()
            assert all(bool(group["fused"]) is fused for group in made.param_groups)
            state = copy.deepcopy(training._state(net, made, averages, 3, 0.0))
        found.append(net.state_dict())
    for other in found[1:]:
        for name, tensor in found[0].items():
            torch.testing.assert_close(other[name], tensor)


@dataclass
class Given:
    """A checkpoint that holds a state."""

    state: dict[str, Any]

    def load(self) -> dict[str, Any]:
        return self.state

    def save(self, state: dict[str, Any]) -> None:
        pytest.fail("saved")

    def wait(self) -> None:
        pass


def test_where_nothing_is_fused_optimizers_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(params: Any, fused: bool = False) -> torch.optim.Optimizer:
        if fused:
            raise RuntimeError("`fused=True` requires all the params to be ...")
        return torch.optim.AdamW(params)

    monkeypatch.setitem(training._ADAMS, "adamw", plain)  # type: ignore[arg-type]
    net = new_net()
    schedule = Schedule(1, 1, 0.01, "adamw")
    made = training._optimizer(net, net.groups(), schedule, fused=True)
    assert len(made.param_groups) == len(net.groups())
    assert not any(group["fused"] for group in made.param_groups)


def test_colours_that_a_sample_leaves_to_the_device_are_changed_there() -> None:
    half = colour_change(0.5 * np.eye(3), np.zeros((3, 3)), 1.0)
    seen = []

    def bright(index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"image": np.full((3, 2, 2), 100, np.uint8), **half}

    def loss(net: nn.Module, batch: Batch) -> Tensor:
        seen.append((set(batch), batch["image"].unique().tolist()))
        return sum(p.sum() for p in net.parameters())  # type: ignore[return-value]

    train(new_net(), loss, bright, 1, Schedule(1, 2, 0.1))
    assert seen == [({"image", "iteration"}, [51])]


def test_averaged_weights_equal_the_loop() -> None:
    """a = d a + (1 - d) w after each iteration t, d the lesser of decay and (1 + t) / (10 + t)."""
    net, gradient = Weights({"w": 2.0}), 0.3
    schedule = Schedule(
        60, 1, 0.05, policy="step", steps=(), momentum=0.0, weight_decay=0.0, averaging=0.8
    )
    train(net, lambda module, _: gradient * module.w.sum(), nothing, 1, schedule)
    weight = average = 2.0
    for t in range(60):
        weight -= 0.05 * gradient
        decay = min(0.8, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * weight
    assert net.w.item() == pytest.approx(average, rel=1e-12)  # type: ignore[operator]


def test_the_logged_loss_is_the_mean_since_the_last_line() -> None:
    net = Weights({"w": 0.0})
    losses = iter(range(1, 46))
    lines: list[dict[str, Any]] = []
    train(
        net, lambda module, _: module.w.sum() * 0 + next(losses), nothing, 1, Schedule(45, 1, 0.1),
        loop=Loop(log=lambda **values: lines.append(values)),
    )  # fmt: skip
    assert [(line["iteration"], line["loss"]) for line in lines] == [
        (20, sum(range(1, 21)) / 20),
        (40, sum(range(21, 41)) / 20),
        (45, sum(range(41, 46)) / 5),
    ]


@pytest.mark.parametrize(("clip", "moved"), [(None, 30.0), (5.0, 5.0), (100.0, 30.0)])
def test_clip_limits_the_gradients_norm(clip: float | None, moved: float) -> None:
    net = Weights({"a": 0.0, "b": 0.0})
    schedule = Schedule(1, 1, 1.0, momentum=0.0, weight_decay=0.0, clip=clip)
    train(net, lambda module, _: 18 * module.a.sum() + 24 * module.b.sum(), nothing, 1, schedule)
    assert math.hypot(net.a.item(), net.b.item()) == pytest.approx(moved, rel=1e-5)  # type: ignore[operator]
    assert net.a.item() / net.b.item() == pytest.approx(18 / 24)  # type: ignore[operator]


# Batch norm, precision, errors


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_frozen_batch_norm_is_frozen(optimizer: Any) -> None:
    net = new_net()
    norm = net.body[1]
    norm.weight.data.uniform_(0.5, 1.5)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    train(
        net, cross_entropy, picture, 4, Schedule(5, 2, 0.1, optimizer),
        groups=net.groups(), loop=Loop(frozen_batch_norm=True),
    )  # fmt: skip
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("body.1"), name


def test_batch_norm_learns_unless_it_is_frozen() -> None:
    net = new_net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    train(net, cross_entropy, picture, 4, Schedule(5, 2, 0.1), groups=net.groups())
    for name, tensor in net.state_dict().items():
        assert not torch.equal(tensor, before[name]), name


def test_the_net_trains_in_training_mode_and_ends_in_evaluation_mode() -> None:
    net, modes = new_net(), []

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        modes.append(module.training)
        return cross_entropy(module, batch)

    train(net, loss, picture, 4, Schedule(2, 2, 0.1))
    assert modes == [True, True]
    assert not net.training


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_precision_is_that_of_the_layers(precision: torch.dtype) -> None:
    net, seen = new_net(), set()

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        scores = module(batch["image"].float() / 255)
        seen.add(scores.dtype)
        return functional.cross_entropy(scores.float(), batch["class"])

    train(net, loss, picture, 4, Schedule(2, 2, 0.1), loop=Loop(Execution(precision=precision)))
    assert seen == {precision}
    assert all(p.dtype == torch.float32 for p in net.parameters())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(
    bad: float, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY", -1.0)
    log = Log(tmp_path / "metrics.jsonl")
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", log, pytest.fail)
    losses = iter([1.0] * 22 + [bad] + [1.0] * 20)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at iteration 23; lower the"):
        train(
            Weights({"w": 1.0}), lambda module, _: module.w.sum() * 0 + next(losses), nothing, 1,
            Schedule(40, 1, 0.1),
            loop=Loop(checkpoint=checkpoint, log=lambda **values: log.append(values)),
        )  # fmt: skip
    state = checkpoint.load()
    assert state is not None
    assert state["iteration"] == 22
    assert torch.isfinite(state["net"]["w"]).all()
    assert [line["iteration"] for line in log.read()] == [20]


def test_losses_stay_on_the_device_until_their_sum_is_asked_for() -> None:
    losses = training._Losses(2.0, at_once=False)
    for t, value in enumerate([1.0, math.inf, math.nan]):
        losses.add(t, torch.tensor(value, requires_grad=True))  # nothing is looked at
    with pytest.raises(TrainingError, match="the loss is inf at iteration 2;"):
        losses.total()
    losses = training._Losses(2.0, at_once=False)
    losses.add(0, torch.tensor(0.5))
    assert losses.total() == 2.5
    losses.add(1, torch.tensor(0.25))
    assert losses.total() == losses.total() == 2.75


def test_on_a_cpu_a_loss_that_is_not_finite_shows_at_once() -> None:
    losses = training._Losses(0.0, at_once=True)
    with pytest.raises(TrainingError, match="the loss is nan at iteration 7;"):
        losses.add(6, torch.tensor(math.nan))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_sample_stays_one_line(workers: int) -> None:
    def sample(index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        if index == 3:
            raise ImageError("is cut off", where="a.jpg", do="replace it")
        return nothing(index, rng)

    with pytest.raises(ImageError) as caught:
        train(
            Weights({"w": 1.0}), lambda module, _: module.w.sum(), sample, 4, Schedule(4, 2, 0.1),
            loop=Loop(Execution(workers=workers)),
        )  # fmt: skip
    assert str(caught.value) == "a.jpg: is cut off; replace it"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iterations": 0}, "iterations is 0; use 1 or more"),
        ({"batch_size": 0}, "batch_size is 0; use 1 or more"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; use a value over 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"optimizer": "rmsprop"}, "optimizer is 'rmsprop'; use sgd, adam or adamw"),
        ({"policy": "cosine"}, "policy is 'cosine'; use step or poly"),
        ({"averaging": 1.0}, "averaging is 1.0; use 0 to below 1"),
    ],
)
def test_impossible_schedules_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schedule(**{"iterations": 1, "batch_size": 1, "learning_rate": 0.1, **change})


@pytest.mark.parametrize("change", [{"seed": -1}, {"seed": 2**63}, {"workers": -1}])
def test_impossible_executions_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(change))} is "):
        Execution(**change)  # type: ignore[arg-type]


# Order of the samples


@pytest.mark.parametrize(("n", "size"), [(7, 3), (3, 7), (1, 2), (8, 4)])
def test_each_epoch_visits_every_sample_once_in_an_order_of_its_own(n: int, size: int) -> None:
    epochs = 6
    visited: list[int] = []
    draws: list[float] = []

    def sample(index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        visited.append(index)
        draws.append(rng.random())
        return nothing(index, rng)

    iterations = epochs * n // math.gcd(epochs * n, size)
    sizes: list[int] = []

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        sizes.append(len(batch["image"]))
        return module.w.sum()

    train(Weights({"w": 1.0}), loss, sample, n, Schedule(iterations, size, 0.1))
    assert sizes == [size] * iterations
    whole = [tuple(visited[i : i + n]) for i in range(0, len(visited) - n + 1, n)]
    assert all(sorted(epoch) == list(range(n)) for epoch in whole)
    if n > 1:
        assert len(set(whole)) > 1
    assert len(set(draws)) == len(draws)  # no two samples are cut alike, nor a photo twice


def test_batches_keep_their_samples_together() -> None:
    """What one sample returns stays in one row, of every array."""
    seen = []

    def sample(index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"image": np.full((3, 2, 2), index, np.uint8), "tags": np.arange(4) == index}

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        assert batch["image"].dtype == torch.uint8
        assert batch["tags"].dtype == torch.bool
        seen.extend(zip(batch["image"][:, 0, 0, 0].tolist(), batch["tags"].tolist(), strict=True))
        return module.w.sum()

    train(Weights({"w": 1.0}), loss, sample, 4, Schedule(3, 4, 0.1))
    assert len(seen) == 12
    assert all(tags.index(True) == index for index, tags in seen)


def test_samples_of_several_sizes_are_padded_below_and_beside() -> None:
    shapes = [(2, 5), (4, 3), (1, 1)]
    seen: list[Batch] = []

    def sample(index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        shape = shapes[index]
        image, labels = np.full((3, *shape), index, np.uint8), np.full(shape, index, np.uint8)
        return {"image": image, "labels": labels, "tags": np.arange(3) == index}

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        seen.append(batch)
        return module.w.sum()

    train(Weights({"w": 1.0}), loss, sample, 3, Schedule(1, 3, 0.1))
    (batch,) = seen
    assert batch["image"].shape == (3, 3, 4, 5)
    for image, labels, tags in zip(batch["image"], batch["labels"], batch["tags"], strict=True):
        index = tags.tolist().index(True)
        inside = torch.zeros(4, 5, dtype=torch.bool)
        inside[: shapes[index][0], : shapes[index][1]] = True
        assert (image[:, inside] == index).all()
        assert (labels[inside] == index).all()
        assert (image[:, ~inside] == GREY).all()
        assert (labels[~inside] == IGNORE).all()
