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


def test_skipped_steps_say_nothing_about_the_speed(clock: Clock) -> None:
    out, progress = plain()
    with progress.task("training", total=1000) as task:
        task.skip(900)
        for _ in range(100):
            clock.now += 0.5
            task.advance()
    lines = out.getvalue().splitlines()
    assert lines[0] == "training: 920/1000, 2.0/s, 0:40 left"
    assert lines[-1] == "training: 1000 done in 0:50, 2.0/s"


def test_a_bar_measures_anew_after_skipped_steps(clock: Clock) -> None:
    out = io.StringIO()
    progress = Progress(Console(file=out, force_terminal=True, width=120))
    assert progress._bars is not None
    progress._bars.get_time = clock
    with progress.task("training", total=1000) as task:
        task.skip(900)
        bar = progress._bars.tasks[0]
        assert bar.completed == 900
        for _ in range(50):
            clock.now += 0.5
            task.advance()
        assert bar.completed == 950
        assert bar.fields["rate"] == "2.0/s"
        assert bar.time_remaining == pytest.approx(25, abs=1)


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
