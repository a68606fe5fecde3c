from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from tagseg import memory
from tagseg.data import images
from tagseg.memory import Room, memory_at_hand


def test_the_machines_or_the_containers_whichever_is_less(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:   5000 kB\n")
    monkeypatch.setattr(memory, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CONTAINER", tmp_path)
    assert memory_at_hand() == 5000 * 1024
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert memory_at_hand() == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_at_hand() == 5000 * 1024
    monkeypatch.setattr(memory, "_MEMORY", Path("/nowhere"))
    assert memory_at_hand() == 4 << 30


def most_at_once(room: Room, amounts: list[int]) -> int:
    """The greatest sum of amounts that threads had at one time."""
    lock, now, most = threading.Lock(), 0, 0

    def work(amount: int) -> None:
        nonlocal now, most
        with room.taken(amount):
            with lock:
                now += amount
                most = max(most, now)
            time.sleep(0.01)
            with lock:
                now -= amount

    threads = [threading.Thread(target=work, args=(amount,)) for amount in amounts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    return most


def test_threads_wait_for_room():
    assert most_at_once(Room(lambda: 200), [30] * 12) <= 100
    assert most_at_once(Room(lambda: 10_000), [30] * 12) > 100


def test_what_is_larger_than_all_room_is_alone():
    assert most_at_once(Room(lambda: 20), [500, 700, 600]) == 700


def test_an_error_gives_the_room_back():
    room = Room(lambda: 100)
    with pytest.raises(KeyError), room.taken(50):
        raise KeyError
    assert most_at_once(room, [50]) == 50


def test_large_photos_are_decoded_one_after_the_other(tmp_path, monkeypatch):
    """Where there is room for one; the waiting ones have read no more than their file."""
    monkeypatch.setattr(images, "_LARGE", 100)
    monkeypatch.setattr(images, "_ROOM", Room(lambda: 1000))
    PilImage.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.png")
    running, most = 0, 0
    load = images.load_picture

    def slow(*args: object) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.02)
        load(*args)  # type: ignore[arg-type]
        running -= 1

    monkeypatch.setattr(images, "load_picture", slow)
    with ExitStack() as stack:
        for _ in range(5):
            thread = threading.Thread(target=images.decode_photo, args=(tmp_path / "a.png",))
            thread.start()
            stack.callback(thread.join)
    assert most == 1
