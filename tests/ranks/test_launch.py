from __future__ import annotations

import signal

import pytest

from tagseg.errors import ConfigError
from tagseg.ranks.launch import Place, launch, place_in_environment

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@pytest.fixture
def told(monkeypatch):
    """Sets what the environment says of the process."""

    def tell(*values: str) -> None:
        for name, value in zip(NAMES, values, strict=False):
            monkeypatch.setenv(name, value)

    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return tell


@pytest.mark.parametrize("values", [(), ("0", "1"), ("", "")])
def test_a_process_alone(told, values):
    told(*values)
    assert place_in_environment() is None


def test_the_place_that_torchrun_gives(told):
    told("5", "8", "1", "4")
    assert place_in_environment() == Place(5, 8, 1, 4)


def test_all_on_one_machine_where_it_is_not_said(told):
    told("2", "3")
    assert place_in_environment() == Place(2, 3, 2, 3)


@pytest.mark.parametrize("values", [("3", "3"), ("-1", "2"), ("0", "2", "1", "1"), ("0", "two")])
def test_what_cannot_be_meant(told, values):
    told(*values)
    with pytest.raises(ConfigError, match="WORLD_SIZE"):
        place_in_environment()


def test_every_process_runs_the_command(told, capfd):
    assert launch(2, ["--version"]) == 0
    first, second = capfd.readouterr().out.splitlines()
    assert first == second
    assert first.startswith("tagseg ")


def test_the_status_is_that_of_who_failed(told, capfd):
    assert launch(2, ["no-such-verb"]) == 2
    assert "No such command" in capfd.readouterr().err


def test_processes_in_a_process(told):
    told("0", "2")
    with pytest.raises(ConfigError, match="that torchrun has started"):
        launch(2, ["--version"])


def test_who_is_killed_before_they_meet_is_told(told, capfd, monkeypatch, tmp_path):
    """The others, which wait for it, are ended a while later."""
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\n[ "$RANK" = 1 ] && kill -9 $$\nexec sleep 60\n')
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    monkeypatch.setattr("tagseg.ranks.launch._PATIENCE", 0.2)
    assert launch(3, []) == 2
    line = "tagseg: error: process 1 of 3 was ended by signal 9; give the same command again\n"
    assert capfd.readouterr().err == line


def test_a_signal_goes_to_all(told, monkeypatch, tmp_path):
    program = tmp_path / "python"
    trap = f"trap 'touch {tmp_path}/$RANK; exit 143' TERM"
    ready = f"touch {tmp_path}/ready$RANK"  # for a signal that comes before is the end
    both = f"until [ -e {tmp_path}/ready0 -a -e {tmp_path}/ready1 ]; do sleep 0.02; done"
    send = "kill -TERM $PPID\nwhile :; do sleep 0.05; done"
    program.write_text("\n".join(["#!/bin/sh", trap, ready, both, send, ""]))
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    assert launch(2, []) == 128 + signal.SIGTERM
    assert (tmp_path / "0").exists()
    assert (tmp_path / "1").exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
