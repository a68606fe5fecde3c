from __future__ import annotations

import io
import tarfile

import pytest

from tagseg.data.digests import file_key
from tagseg.data.finding import advice_without_photos, find_masks, find_photos, list_pictures
from tagseg.data.images import decode_photo
from tagseg.data.orientation import read_geometries
from tagseg.data.pictures import read_bytes
from tagseg.data.tar_pictures import compressed_tars, key_and_ending, masks_in, tars_of
from tagseg.errors import DataError, ImageError
from tars import jpeg, write_tar


def test_keys_end_at_the_first_dot_of_the_file_name():
    assert key_and_ending("a.b/0001.mask.png") == ("a.b/0001", "mask.png")
    assert key_and_ending("0001") == ("0001", "")


def test_photos_are_named_by_folders_and_keys(tmp_path):
    write_tar(tmp_path / "shard-000000.tar", {"0.jpg": jpeg(1), "0.json": b"{}", "in/1.PNG": b""})
    write_tar(tmp_path / "more" / "shard-000000.tar", {"0.jpg": jpeg(2)})
    photos = find_photos(tmp_path)
    assert list(photos) == ["0", "in/1", "more/0"]
    assert photos["more/0"] == tmp_path / "more/shard-000000.tar/0.jpg"
    assert decode_photo(photos["0"]).shape == (12, 16, 3)
    assert read_geometries([photos["0"], photos["in/1"]]) == [((12, 16), 1), None]
    assert file_key(photos["0"])[0] == str(photos["0"])
    assert tars_of(photos.values()) == [str(p.parent) for p in (photos["0"], photos["more/0"])]


def test_tars_beside_photos_are_no_photos(tmp_path):
    write_tar(tmp_path / "all.tar", {"0.jpg": jpeg(1)})
    (tmp_path / "1.jpg").write_bytes(jpeg(2))
    assert list(find_photos(tmp_path)) == ["1"]
    assert tars_of([tmp_path / "1.jpg"]) == []


def test_what_lies_beside_the_photo_of_a_sample_is_counted(tmp_path):
    members = {
        "0.jpg": jpeg(1),
        "0.mask.png": b"",
        "0.depth.png": b"",
        "0.nef": b"",
        "._0.jpg": b"",
    }
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in members:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
        link = tarfile.TarInfo("1.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "0.jpg"
        tar.addfile(link)
    found = list_pictures(tmp_path)
    assert list(found.files) == ["0.jpg"]
    assert {reason.split()[0]: n for reason, n in found.left_out.items()} == {
        "as": 2,  # masks or others, by their ending
        "in": 1,  # tars, camera raw
        "hidden": 1,
        "that": 1,  # are links
    }


def test_masks_of_samples_and_tars_of_masks_alone(tmp_path):
    members = {
        "0.jpg": b"",
        "0.png": b"",
        "0.mask.png": b"",
        "in/1.seg.tif": b"",
        "1.depth.png": b"",
    }
    write_tar(tmp_path / "a" / "shard.tar", members)
    found = find_masks(tmp_path / "a")
    tar = tmp_path / "a" / "shard.tar"
    assert found == {"0": tar / "0.mask.png", "in/1": tar / "in/1.seg.tif"}
    tar = write_tar(tmp_path / "b" / "masks.tar", {"0.a.png": b"", "1.png": b""})
    assert masks_in([tar], tar.parent) == {"0.a.png": tar / "0.a.png", "1.png": tar / "1.png"}


def test_a_name_in_two_tars(tmp_path):
    for number in (0, 1):
        write_tar(tmp_path / f"{number}.tar", {"7.jpg": jpeg(1)})
    with pytest.raises(DataError, match=r"'7.jpg' is in two tars, .*/0\.tar and .*/1\.tar; give e"):
        list_pictures(tmp_path)


def test_members_that_cannot_be_read_are_told_as_files_are(tmp_path):
    tar = write_tar(tmp_path / "a.tar", {"0.jpg": jpeg(1)[:100], "1.jpg": b""})
    with pytest.raises(ImageError, match=r"a\.tar/0\.jpg: the JPEG file is cut short"):
        decode_photo(tar / "0.jpg")
    with pytest.raises(ImageError, match=r"a\.tar/1\.jpg: the file is empty"):
        decode_photo(tar / "1.jpg")
    with pytest.raises(ImageError, match=r"a\.tar/2\.jpg: the file does not exist"):
        read_bytes(tar / "2.jpg")


def test_compressed_tars_are_known_by_name():
    names = ["b.tar.gz", "a.TGZ", "c.tar", "d.zst"]
    assert compressed_tars(names) == ["a.TGZ", "b.tar.gz"]


def test_folders_of_compressed_tars_say_what_to_do(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"")
    assert advice_without_photos(tmp_path).startswith("decompress a.tar.gz and the like")
