from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from tagseg.data.audit import audit
from tagseg.data.paths import Paths
from tagseg.errors import ConfigError, DataError, TagError
from tagseg.formats.folders.webdataset import has_sample_tags, splits_of_tars
from tagseg.formats.loading import Dataset, load_dataset
from tagseg.session.inputs import Source, load_photos
from tars import jpeg, samples, write_tar


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_tar(tmp_path / "shard-000000.tar", samples("cat", "dog", "cat"))
    write_tar(tmp_path / "shard-000001.tar", samples("dog", "cow", first=3))
    return tmp_path


def tags_of(dataset: Dataset) -> dict[str, list[str]]:
    return {
        name: [dataset.classes[c] for c in np.flatnonzero(row)]
        for name, row in zip(dataset.names, dataset.tags, strict=True)
    }


@pytest.mark.parametrize("layout", ["auto", "webdataset"])
def test_photos_and_tags_of_shards(shards, layout):
    dataset = load_dataset(shards, layout=layout)
    assert dataset.classes == ("cat", "cow", "dog")
    assert list(tags_of(dataset).values()) == [["cat"], ["dog"], ["cat"], ["dog"], ["cow"]]
    assert dataset.notes[0] == "read as webdataset: 5 photos, tags from the samples in tars"
    assert dataset.notes[1] == "tags are read from KEY.json of 5 samples"
    assert dataset.image(3).shape == (12, 16, 3)
    assert isinstance(dataset.sources, Paths)
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy.image(4), dataset.image(4))


def test_photos_in_tars_are_the_photos_they_were_as_files(shards, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    (files / "tags.csv").write_text("image,tags\n0.jpg,cat\n1.jpg,dog\n")
    for i in (0, 1):
        (files / f"{i}.jpg").write_bytes(jpeg(i))
    tars = tmp_path / "tars"
    write_tar(
        tars / "a.tar", {"0.jpg": jpeg(0), "0.cls": b"cat", "1.jpg": jpeg(1), "1.cls": b"dog"}
    )
    one, other = load_dataset(files), load_dataset(tars)
    assert one.fingerprint() == other.fingerprint()
    found = audit(other)
    assert other.fingerprint(found.digests) == one.fingerprint()
    again = audit(other, known=found.index)
    assert again.index.check() == found.index.check()


def test_other_files_beside_tars_are_left_alone_where_the_layout_is_named(shards):
    (shards / "x.jpg").write_bytes(jpeg(1))
    assert len(load_dataset(shards, layout="webdataset")) == 5
    with pytest.raises(TagError, match="no tags"):
        load_dataset(shards)


def test_tag_files_beside_tars_and_class_folders_in_them(tmp_path):
    plain = {"cat/0.jpg": jpeg(0), "dog/1.jpg": jpeg(1)}
    write_tar(tmp_path / "a" / "0.tar", plain)
    assert tags_of(load_dataset(tmp_path / "a")) == {"cat/0": ["cat"], "dog/1": ["dog"]}
    write_tar(tmp_path / "b" / "0.tar", plain)
    (tmp_path / "b" / "tags.csv").write_text("image,tags\ncat/0.jpg,sheep\ndog/1,cow;sheep\n")
    assert tags_of(load_dataset(tmp_path / "b")) == {"cat/0": ["sheep"], "dog/1": ["cow", "sheep"]}


def test_shards_that_are_called_as_splits_are_splits(tmp_path):
    write_tar(tmp_path / "my-train-000000.tar", samples("cat", "dog"))
    write_tar(tmp_path / "my-train-000001.tar", samples("cat", first=2))
    write_tar(tmp_path / "my-val-000000-of-000001.tar", samples("dog", first=3))
    loaded = load_photos(Source(tmp_path))
    assert loaded.val == ("0003",)
    assert len(loaded.photos) == 4
    assert loaded.photos.notes[-1].startswith("splits: train 3 (training), val 1 (validation)")


def test_folders_of_shards_are_splits(tmp_path):
    write_tar(tmp_path / "train" / "0.tar", samples("cat", "dog"))
    write_tar(tmp_path / "test" / "0.tar", samples("cat", "dog"))
    assert load_photos(Source(tmp_path)).photos.names == ("train/0000", "train/0001")


def test_shards_of_other_names_are_no_splits(shards):
    photos = {"a": shards / "shard-000000.tar" / "0000.jpg"}
    assert splits_of_tars(photos) == {}
    assert has_sample_tags(photos)
    (shards / "x.jpg").write_bytes(b"")
    assert splits_of_tars({"x": shards / "x.jpg"}) == {}
    assert not has_sample_tags({"x": shards / "x.jpg"})


def test_a_shard_that_is_cut_short_ends_the_command(shards):
    tar = shards / "shard-000001.tar"
    tar.write_bytes(tar.read_bytes()[:1500])
    with pytest.raises(DataError, match=r"shard-000001\.tar: the tar is cut short or damaged"):
        load_dataset(shards)


def test_photos_that_are_damaged_in_whole_tars_are_skipped(shards):
    broken = {**samples("cat", first=5), "0006.jpg": jpeg(6)[:200], "0006.json": b'{"tags": "dog"}'}
    write_tar(shards / "shard-000002.tar", broken)
    found = audit(load_dataset(shards), allow_skipped=0.5)
    assert [name for name, _ in found.skipped] == ["0006"]


def test_folders_without_tars_and_compressed_ones(shards, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no tars in this folder"):
        load_dataset(tmp_path / "none", layout="webdataset")
    (shards / "shard-000002.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"000002\.tar\.gz: is a compressed tar; decompress"):
        load_dataset(shards, layout="webdataset")
    with pytest.raises(ConfigError, match="tags and the layout 'webdataset' exclude each other"):
        load_dataset(shards, layout="webdataset", tags=shards / "t.csv")


def test_a_folder_of_ground_truth_in_tars_is_not_read_as_photos(tmp_path):
    members = samples("cat") | {"0000.mask.png": b"png"}
    write_tar(tmp_path / "a.tar", members)
    dataset = load_dataset(tmp_path)
    assert dataset.names == ("0000",)
    assert dict(dataset.left_out) == {
        "as masks, or as others beside the photo, by their ending in tars": 1
    }
    assert json.loads(members["0000.json"]) == {"tags": ["cat"]}
