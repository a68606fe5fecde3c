"""How far a long task is: a bar on a terminal, a line every few seconds elsewhere, or silence.

One :class:`Progress` is made where the program starts and handed down; there is no global one.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import rich.progress
from rich.console import Console
from rich.markup import escape

from tagseg.errors import printable

__all__ = ["Progress", "Task"]

Info = float | int | str


class Task(ABC):
    """A task in work: ``done`` of ``total`` steps (None: unknown), and its latest figures."""

    def __init__(self, title: str, total: int | None, done: int) -> None:
        self.title, self.total, self.done = title, total, done
        self.info: dict[str, Info] = {}
        self._speed = _Speed(done)

    def advance(self, n: int = 1, **info: Info) -> None:
        """Count ``n`` more steps; ``info``, such as ``loss=0.5``, is shown beside them."""
        self.done += n
        self.info |= info
        self._show()

    def skip(self, n: int) -> None:
        """Count ``n`` more steps that had been done before: they say nothing about the speed."""
        self.done += n
        self._speed.leave_out(n)

    @abstractmethod
    def _show(self) -> None: ...


class Progress:
    """Shows tasks on ``console``; silent without one, which suits use as a library.

    Args:
        console: where to show them; a terminal gets bars, anything else plain lines.
        interval: seconds between two plain lines of a task.
    """

    def __init__(self, console: Console | None = None, *, interval: float = 10.0) -> None:
        self._console, self._interval = console, interval
        self._bars: rich.progress.Progress | None = None
        if console is not None and console.is_terminal:
            self._bars = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[rate]}"),
                rich.progress.TimeRemainingColumn(),
                rich.progress.TextColumn("{task.fields[info]}"),
                console=console,
            )

    def __reduce__(self) -> tuple[type[Progress], tuple[()]]:
        return Progress, ()  # another process is silent

    def say(self, text: str) -> None:
        """Show one line between the bars; fit for ``announce`` of a workspace."""
        if self._console is not None:
            self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def task(self, title: str, total: int | None = None, *, done: int = 0) -> Iterator[Task]:
        """Show a task of ``total`` steps while the block runs; ``done`` were done before."""
        if self._console is None:
            yield _SilentTask(title, total, done)
        elif self._bars is None:
            lines = _LineTask(title, total, done, self, self._interval)
            yield lines
            lines.finish()
        else:
            with self._live(self._bars):
                yield _BarTask(title, total, done, self._bars)

    @contextmanager
    def _live(self, bars: rich.progress.Progress) -> Iterator[None]:
        """Keep the display up from the outermost task's start to its end."""
        outer = set(bars.task_ids)
        if not outer:
            bars.start()
        try:
            yield
        finally:
            if not outer:
                bars.stop()  # first, so that the finished bars stay on the screen
            for task in set(bars.task_ids) - outer:
                bars.remove_task(task)


class _SilentTask(Task):
    def _show(self) -> None:
        pass


class _BarTask(Task):
    def __init__(
        self, title: str, total: int | None, done: int, bars: rich.progress.Progress
    ) -> None:
        super().__init__(title, total, done)
        self._bars = bars
        self._id = bars.add_task(escape(title), total=total, completed=done, rate="", info="")

    def skip(self, n: int) -> None:
        super().skip(n)
        self._bars.reset(self._id, completed=self.done)  # rich measures anew from here

    def _show(self) -> None:
        rate = f"{self._speed.at(self.done):.1f}/s"
        self._bars.update(self._id, completed=self.done, rate=rate, info=_told(self.info))


class _LineTask(Task):
    def __init__(
        self, title: str, total: int | None, done: int, progress: Progress, interval: float
    ) -> None:
        super().__init__(title, total, done)
        self._progress, self._interval, self._shown_at = progress, interval, time.monotonic()

    def finish(self) -> None:
        """Print the last line."""
        took = _clock(self._speed.seconds())
        self._print(f"{self.done} done in {took}", f"{self._speed.at(self.done):.1f}/s")

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._shown_at < self._interval:
            return
        self._shown_at = now
        rate = self._speed.at(self.done)
        if self.total is None:
            self._print(str(self.done), f"{rate:.1f}/s")
            return
        left = _clock((self.total - self.done) / rate) if rate > 0 else "?"
        self._print(f"{self.done}/{self.total}", f"{rate:.1f}/s", f"{left} left")

    def _print(self, *parts: str) -> None:
        told = [_told(self.info)] if self.info else []
        self._progress.say(f"{self.title}: {', '.join([*parts, *told])}")


class _Speed:
    """Mean steps per second since this process took the task up."""

    def __init__(self, done: int) -> None:
        self._done, self._began = done, time.monotonic()

    def leave_out(self, n: int) -> None:
        self._done += n

    def seconds(self) -> float:
        return time.monotonic() - self._began

    def at(self, done: int) -> float:
        return (done - self._done) / max(self.seconds(), 1e-9)


def _told(info: dict[str, Info]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in info.items()
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
