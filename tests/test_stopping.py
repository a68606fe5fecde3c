"""Signals that end the program, and what is safe by then.

Run as a script (ERRORS, then words of the command line), this is a command in a session of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time

import pytest

from tagseg import stopping

if __name__ != "__main__":
    import forked
    from tagseg.data.scenes import write_scenes

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def nothing_is_ignored():
    """As when tests are run under nohup, or in the background of a shell."""
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    signal.alarm(0)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_they_end_the_block(number):
    before = signal.getsignal(number)
    seen: list[list[int]] = []
    with pytest.raises(KeyboardInterrupt), stopping.ended_by_signals() as came:  # noqa: PT012
        seen.append(came)
        send(number)
        signal.pause()
    assert seen == [[number]]
    assert signal.getsignal(number) is before


def test_what_is_ignored_stays_ignored():
    """As under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stopping.ended_by_signals() as came:
        send(signal.SIGHUP)
    assert came == []


def test_in_another_thread_nothing_is_changed():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with stopping.ended_by_signals() as came:
            seen.append((came, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [([], before)]


@pytest.mark.parametrize("number", SIGNALS)
def test_put_off_until_the_block_has_ended(number):
    steps = []
    with pytest.raises(KeyboardInterrupt), stopping.ended_by_signals():  # noqa: PT012
        with stopping.put_off() as stopped:
            for step in range(5):
                if step == 2:
                    send(number)
                steps.append((step, stopped()))
        steps.append("behind")
    assert steps == [(0, False), (1, False), (2, True), (3, True), (4, True)]
    with stopping.put_off() as stopped:
        assert not stopped()


def test_the_second_signal_does_not_wait():
    reached = []
    put_off = stopping.put_off
    with pytest.raises(KeyboardInterrupt), stopping.ended_by_signals(), put_off():  # noqa: PT012
        send(signal.SIGINT)
        reached.append(1)
        send(signal.SIGINT)
        signal.pause()
    assert reached == [1]


def test_patience_has_an_end(monkeypatch):
    monkeypatch.setattr(stopping, "_PATIENCE", 1)
    put_off = stopping.put_off
    with pytest.raises(KeyboardInterrupt), stopping.ended_by_signals(), put_off():  # noqa: PT012
        send(signal.SIGTERM)
        time.sleep(30)
        pytest.fail("slept to the end")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_training_that_is_stopped_says_that_it_can_go_on(tmp_path, number, request):
    """To the process and its loader at once, as a terminal does; what was learned is kept."""
    write_scenes(tmp_path / "scenes", train=8, val=0)
    words = ("--backbone", "tiny", "--weights", "none", "--recipe", "cam_baseline", "--workers", 1)
    words = (*words, "--untagged", "negative", "--set", "classifier_iterations=100000")
    words = (*words, "--set", "classifier_batch_size=2", "--threads", 1)
    errors, out = tmp_path / "errors.txt", tmp_path / "run"
    run = forked.start(__file__, errors, "train", tmp_path / "scenes", "--out", out, *words)
    request.addfinalizer(lambda: run.is_alive() and os.killpg(run.pid, signal.SIGKILL))
    stage = tmp_path / "run/stages/01-classifier"
    while not (stage / "metrics.jsonl").exists():
        assert run.is_alive()
        time.sleep(0.05)
    began, sent = time.monotonic(), time.time()
    os.killpg(run.pid, number)
    assert forked.ended(run, 60) == 128 + number
    assert time.monotonic() - began < 10
    err = errors.read_text()
    assert err.splitlines()[-1] == "stopped; the same command continues"
    assert "Traceback" not in err
    assert (stage / "checkpoint.pt").stat().st_mtime >= sent - 0.1


if __name__ == "__main__":
    for heard in SIGNALS:  # whatever the process that this is a copy of does
        signal.signal(heard, signal.SIG_DFL)
    multiprocessing.set_start_method("fork", force=True)  # as in a process of its own
    os.setsid()
    sys.stderr = open(sys.argv[1], "w", buffering=1)  # noqa: SIM115
    os.dup2(sys.stderr.fileno(), 2)
    sys.argv = ["tagseg", *sys.argv[2:]]
    import tagseg.cli

    tagseg.cli.main()
