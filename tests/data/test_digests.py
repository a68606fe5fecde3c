from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tagseg.data.digests import (
    DIGEST_SIZE,
    Digests,
    digest_of_bytes,
    file_key,
    groups_of_equal,
    small_key,
)


def column(contents: list[bytes]) -> np.ndarray:
    parts = [bytes.fromhex(digest_of_bytes(content)) for content in contents]
    return np.frombuffer(b"".join(parts), np.uint8).reshape(-1, DIGEST_SIZE)


def test_are_found_by_the_state_of_a_file(tmp_path):
    paths = [tmp_path / f"{i}" for i in range(50)]
    for i, path in enumerate(paths):
        path.write_bytes(b"%d" % i)
    keys = np.array([small_key(file_key(path)) for path in paths], np.uint64)
    known = Digests(keys, column([path.read_bytes() for path in paths]))
    assert len(known) == 50
    assert all(known.get(file_key(p)) == digest_of_bytes(p.read_bytes()) for p in paths)
    paths[7].write_bytes(b"longer")
    assert known.get(file_key(paths[7])) is None
    assert known.get(("nowhere", 1, 2)) is None


def test_none_are_known():
    empty = Digests(np.zeros(0, np.uint64), np.zeros((0, DIGEST_SIZE), np.uint8))
    assert empty.get(("a", 1, 2)) is None
    assert groups_of_equal(np.zeros((0, DIGEST_SIZE), np.uint8)) == []


def test_names_that_are_not_utf8_have_a_key():
    assert small_key(("/caf\udce9.jpg", 1, 2)) != small_key(("/cafe.jpg", 1, 2))


@given(st.lists(st.integers(0, 6)))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_groups(numbers):
    found = groups_of_equal(column([b"%d" % n for n in numbers]))
    expected: dict[int, list[int]] = {}
    for place, number in enumerate(numbers):
        expected.setdefault(number, []).append(place)
    assert [part.tolist() for part in found] == [g for g in expected.values() if len(g) > 1]
