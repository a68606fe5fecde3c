"""Photos an hour, without breaks."""

from __future__ import annotations

from tagseg.web.pace import Pace


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_photo_every_four_seconds_is_900_an_hour():
    clock = Clock()
    pace = Pace(clock)
    assert pace.an_hour() is None
    pace.add(0)
    for _ in range(20):
        clock.now += 4
        pace.add(1)
    assert pace.an_hour() == 900


def test_breaks_do_not_count_and_old_work_neither():
    clock = Clock()
    pace = Pace(clock)
    pace.add(0)
    for _ in range(10):
        clock.now += 2
        pace.add(1)
    clock.now += 300
    pace.add(0)
    assert pace.an_hour() == 1800
    clock.now += 700
    assert pace.an_hour() is None


def test_what_is_taken_back_does_not_count():
    clock = Clock()
    pace = Pace(clock)
    for photos in (5, -5):
        clock.now += 20
        pace.add(photos)
    assert pace.an_hour() == 0
