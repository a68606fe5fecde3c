from __future__ import annotations

import io

import pytest
from rich.console import Console

from tagseg.run.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("tagseg.run.progress.time.monotonic", clock)
    return clock


def plain() -> tuple[io.StringIO, Progress]:
    out = io.StringIO()
    return out, Progress(Console(file=out, width=60))


def test_elsewhere_than_on_a_terminal_it_prints_a_line_now_and_then(clock: Clock) -> None:
    out, progress = plain()
    with progress.task("training [1/2]", total=100, done=20) as task:
        for _ in range(80):
            clock.now += 0.5
            task.advance(loss=0.123456, lr="low")
    assert out.getvalue().splitlines() == [
        "training [1/2]: 40/100, 2.0/s, 0:30 left, loss 0.1235, lr low",
        "training [1/2]: 60/100, 2.0/s, 0:20 left, loss 0.1235, lr low",
        "training [1/2]: 80/100, 2.0/s, 0:10 left, loss 0.1235, lr low",
        "training [1/2]: 100/100, 2.0/s, 0:00 left, loss 0.1235, lr low",
        "training [1/2]: 100 done in 0:40, 2.0/s, loss 0.1235, lr low",
    ]


def test_a_task_without_an_end_has_no_remaining_time(clock: Clock) -> None:
    out, progress = plain()
    with progress.task("reading") as task:
        clock.now = 7200.0
        task.advance(3600)
    lines = ["reading: 3600, 0.5/s", "reading: 3600 done in 2:00:00, 0.5/s"]
    assert out.getvalue().splitlines() == lines


def test_a_task_that_fails_is_not_called_done() -> None:
    out, progress = plain()
    with pytest.raises(RuntimeError), progress.task("training", total=2):
        raise RuntimeError
    assert out.getvalue() == ""


def test_it_is_silent_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    with progress.task("training", total=2) as task:
        task.advance(2, loss=0.5)
    progress.say("hello")
    assert capsys.readouterr() == ("", "")
    assert (task.done, task.info) == (2, {"loss": 0.5})


def test_a_terminal_gets_bars_nested_and_one_after_another() -> None:
    out = io.StringIO()
    progress = Progress(Console(file=out, force_terminal=True, width=120))
    for round_ in ("one", "two"):
        with progress.task(f"[{round_}]", total=2) as outer:
            with progress.task("inner", total=5) as inner:
                inner.advance(5)
            progress.say("said [between]")
            outer.advance(2, loss=0.5)
    text = out.getvalue()
    for shown in ("[one]", "[two]", "inner", "2/2", "loss 0.5", "said [between]"):
        assert shown in text


def test_a_failure_takes_the_bars_down() -> None:
    progress = Progress(Console(file=io.StringIO(), force_terminal=True))
    with pytest.raises(RuntimeError), progress.task("one"), progress.task("two"):
        raise RuntimeError
    assert progress._bars is not None
    assert not progress._bars.live.is_started
    assert progress._bars.task_ids == []
