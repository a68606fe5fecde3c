from __future__ import annotations

import pytest

from tagseg.data.legends import MaskContent
from tagseg.data.mask_cache import MaskCache

CONTENT = MaskContent((3, 4), {0: 11, 2: 1}, {0: (0, 0, 0), 2: (1, 2, 3)}, False, True, 6)
KEY = ("/masks/a.png", 120, 1_700_000_000_123_456_789)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tagseg" / "masks"


def test_round_trip(home, tmp_path):
    cache = MaskCache(tmp_path / "masks")
    assert cache.load() == {}
    cache.save({KEY: CONTENT})
    assert MaskCache(tmp_path / "masks").load() == {KEY: CONTENT}
    assert MaskCache(tmp_path / "others").load() == {}
    assert len(list(home.iterdir())) == 1


@pytest.mark.parametrize(
    "junk", ["[" * 100_000, "", "{}", "[1]", '{"version": 0, "masks": []}', '{"version"']
)
def test_what_cannot_be_read_does_no_harm(home, tmp_path, junk):
    cache = MaskCache(tmp_path)
    cache.save({KEY: CONTENT})
    next(home.iterdir()).write_text(junk)
    assert cache.load() == {}


def test_where_nothing_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    MaskCache(tmp_path).save({KEY: CONTENT})
    assert MaskCache(tmp_path).load() == {}
