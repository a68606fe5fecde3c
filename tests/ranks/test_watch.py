from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tagseg.ranks import watch
from tagseg.ranks.watch import DONE, TOLD, Ending, Watch


class Watched:
    """A watch of two others, whose ends of the connections a test holds."""

    def __init__(self, stack: ExitStack, lifeline: int | None = None) -> None:
        pairs = {rank: socket.socketpair() for rank in (1, 2)}
        for pair in pairs.values():
            for end in pair:
                stack.enter_context(end)
        self.others = {rank: theirs for rank, (_, theirs) in pairs.items()}
        self.last: list[Ending] = []
        ours = {rank: own for rank, (own, _) in pairs.items()}
        self.watch = Watch(ours, lifeline, self.last.append)
        stack.callback(self.end)

    def end(self) -> None:
        """No thread outlives its test."""
        self.watch.notice()
        for other in self.others.values():
            other.close()
        self.watch.thread.join(10)
        assert not self.watch.thread.is_alive()


@pytest.fixture
def interrupts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    heard: list[str] = []
    monkeypatch.setattr(watch._thread, "interrupt_main", lambda: heard.append("main"))
    monkeypatch.setattr(watch, "_GRACE", 0.05)
    return heard


@pytest.fixture
def stack(interrupts) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_who_is_done_may_go(interrupts, stack):
    watched = Watched(stack)
    for other in watched.others.values():
        assert not watched.watch.wait_for_all(0.01)
        other.sendall(DONE)
        other.close()
    assert watched.watch.wait_for_all(10)
    assert watched.watch.ending is None
    assert interrupts == []


@pytest.mark.parametrize(("word", "told"), [(b"", False), (TOLD, True)])
def test_who_ends_before_ends_all(interrupts, stack, word, told):
    watched = Watched(stack)
    watched.others[1].sendall(DONE)
    watched.others[2].sendall(word)
    watched.others[2].close()
    assert watched.watch.wait(10) == Ending(2, told)
    assert not watched.watch.wait_for_all(10)
    watched.watch.thread.join(10)
    assert watched.last == [Ending(2, told)], "what is still there after a while is ended"
    assert interrupts == ["main"]


def test_who_has_noticed_is_not_interrupted(interrupts, stack):
    watched = Watched(stack)
    watched.watch.notice()
    watched.others[1].close()
    assert watched.watch.wait(10) == Ending(1, False)
    watched.watch.thread.join(10)
    assert interrupts == []


def test_the_end_of_the_command_that_started_them_is_seen(interrupts, stack):
    reading, writing = os.pipe()
    watched = Watched(stack, reading)
    assert watched.watch.wait(0.05) is None
    os.close(writing)
    assert watched.watch.wait(10) == Ending(-1, False)
    watched.watch.thread.join(10)
    os.close(reading)


def test_words_reach_the_others(interrupts, stack):
    watched = Watched(stack)
    watched.watch.say(DONE)
    assert [other.recv(1) for other in watched.others.values()] == [DONE, DONE]
