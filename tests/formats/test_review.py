"""``review.jsonl``: acts come back as they were written; damage is one clear line."""

from __future__ import annotations

import json
import os
import struct
import zlib
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage

from tagseg.data.masks import encode_mask
from tagseg.errors import DataError, MaskError
from tagseg.formats.review import (
    ACCEPTING,
    Accepted,
    Act,
    Cleared,
    Rejected,
    Retagged,
    ReviewFile,
    Standing,
    act_line,
    head_line,
    read_review,
    read_reviewed_mask,
    standing_acts,
)

CLASSES = ("cat", "dog", "Käfer", "traffic light")
AT = datetime(2026, 11, 30, 10, tzinfo=UTC)
DIGEST = "0" * 64
SHAPE = (4, 6)
CHECKED = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
TIMES = st.datetimes(timezones=st.just(UTC))
ACCEPTS = st.builds(
    lambda photo, at, how, name, digest: Accepted(
        photo=photo,
        at=at,
        how=how,
        mask=f"review/{name}.png",
        sha256=digest,
        candidate="crf-weak" if how == "pick" else None,
    ),
    NAMES,
    TIMES,
    st.sampled_from(ACCEPTING),
    st.text("abc0é-", min_size=1, max_size=9),
    st.text("0123456789abcdef", min_size=64, max_size=64),
)
TAGGED = st.builds(
    lambda photo, at, names, n: Retagged(
        photo=photo, at=at, add=tuple(names[:n]), remove=tuple(names[n:])
    ),
    NAMES,
    TIMES,
    st.lists(st.sampled_from(CLASSES), unique=True),
    st.integers(0, 4),
)
ACTS = st.one_of(
    ACCEPTS,
    TAGGED,
    st.builds(Rejected, photo=NAMES, at=TIMES),
    st.builds(Cleared, photo=NAMES, at=TIMES),
)


def written(folder: Path, acts: list[Act], end: bytes = b"") -> Path:
    path = folder / "review.jsonl"
    path.write_bytes(head_line("pets", CLASSES) + b"".join(map(act_line, acts)) + end)
    return path


def wrong(photo: str = "a") -> Rejected:
    return Rejected(photo=photo, at=AT)


def right(folder: Path, data: bytes, name: str = "review/a-1.png") -> tuple[ReviewFile, Accepted]:
    """A review that accepts a mask file of this content."""
    mask = folder / name
    mask.parent.mkdir(exist_ok=True)
    mask.write_bytes(data)
    act = Accepted(photo="a", at=AT, how="right", mask=name, sha256=sha256(data).hexdigest())
    return read_review(written(folder, [act])), act


@CHECKED
@given(acts=st.lists(ACTS, max_size=8))
def test_acts_come_back(tmp_path, acts):
    read = read_review(written(tmp_path, acts))
    assert read.acts == tuple(acts)
    assert (read.run, read.classes, read.notes) == ("pets", CLASSES, ())
    assert [act.line for act in read.acts] == list(range(2, len(acts) + 2))


@CHECKED
@given(acts=st.lists(ACTS, min_size=1, max_size=4), cut=st.integers(1, 1000))
def test_a_torn_last_line_is_told_and_ignored(tmp_path, acts, cut):
    """Cut anywhere behind the line before; without its line feed alone it is whole."""
    last = act_line(acts[-1])
    cut = 1 + cut % (len(last) - 1)
    read = read_review(written(tmp_path, acts[:-1], last[:cut]))
    whole = cut == len(last) - 1
    assert read.acts == tuple(acts if whole else acts[:-1])
    assert whole or read.notes == (
        f"review.jsonl: the last line ({len(acts) + 1}) was cut short and is ignored",
    )


@CHECKED
@given(
    acts=st.lists(ACTS, max_size=3),
    at=st.integers(0, 10_000),
    put=st.binary(max_size=6),
    skip=st.integers(0, 9),
)
def test_a_changed_file_is_read_or_refused(tmp_path, acts, at, put, skip):
    path = written(tmp_path, acts)
    content = path.read_bytes()
    at %= len(content)
    path.write_bytes(content[:at] + put + content[at + skip :])
    said = str(path)
    try:
        read_review(path)
    except DataError as problem:
        said = str(problem)
    assert str(path) in said


@CHECKED
@given(acts=st.lists(ACTS.map(lambda act: act), max_size=12))
def test_standing_acts_are_the_last_ones_since_a_clear(acts):
    """Against the obvious: for each photo, what lies behind its last clear."""
    standing = standing_acts(acts)
    expected = {}
    for photo in {act.photo for act in acts}:
        mine = [act for act in acts if act.photo == photo]
        cleared = max((i for i, act in enumerate(mine) if isinstance(act, Cleared)), default=-1)
        left = mine[cleared + 1 :]
        masks = [act for act in left if isinstance(act, Accepted | Rejected)]
        tags = [act for act in left if isinstance(act, Retagged)]
        if left:
            expected[photo] = Standing(masks[-1] if masks else None, tags[-1] if tags else None)
    assert standing == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "not one JSON object"),
        (b"[1]", "not one JSON object"),
        (b"[" * 100_000, "not one JSON object"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not one JSON object"),
        (b'{"x": "' + b"a" * (1 << 20) + b'"}', "not one JSON object"),
        (b'{"act": "rihgt"}', "did you mean right"),
        (b'{"act": ["right"]}', "act is"),
        (b'{"act": "wrong", "at": "2026-11-30T10:00:00Z"}', "'photo' is not a text"),
        (b'{"act": "wrong", "photo": "a", "at": "yesterday"}', "'at' is not a time in UTC"),
        (b'{"act": "wrong", "photo": "a", "at": "2026-11-30T10:00:00"}', "'at' is not"),
        (b'{"act": "wrong", "photo": "a", "at": "2026-11-30T10:00:00+02:00"}', "'at' is not"),
    ],
)
def test_a_malformed_line_is_one_clear_error(tmp_path, line, said):
    path = written(tmp_path, [], line + b"\n" + act_line(wrong()))
    with pytest.raises(DataError, match="line 2") as caught:
        read_review(path)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mask": "/etc/passwd"}, "inside the folder"),
        ({"mask": "../a.png"}, "inside the folder"),
        ({"mask": "review/../../a.png"}, "inside the folder"),
        ({"mask": "..\\a.png"}, "inside the folder"),
        ({"mask": "c:a.png"}, "inside the folder"),
        ({"mask": "."}, "inside the folder"),
        ({"mask": "a\0.png"}, "'mask' is not a text"),
        ({"sha256": "0" * 63}, "64 hexadecimal digits"),
        ({"act": "pick"}, "'candidate' is not a text"),
        ({"act": "tags", "add": ["cow"]}, "'cow' is no class of the first line"),
        ({"act": "tags", "add": "cat"}, "'add' is not a list of names"),
        ({"act": "tags", "add": ["cat", "cat"]}, "each name once"),
        ({"act": "tags", "add": ["cat"], "remove": ["cat"]}, "added and removed"),
    ],
)
def test_values_of_an_act_are_checked(tmp_path, change, said):
    entry = {"photo": "a", "at": "2026-11-30T10:00:00Z", "act": "right"}
    entry |= {"mask": "a.png", "sha256": DIGEST} | change
    path = written(tmp_path, [], json.dumps(entry).encode() + b"\n")
    with pytest.raises(DataError, match=said):
        read_review(path)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b'{"tagseg_review": 1, "run"',
        b'{"tagseg_review": 2, "run": "a", "classes": ["cat"]}\n',
        b'{"tagseg_review": true, "run": "a", "classes": ["cat"]}\n',
        b'{"n":0,"format":1,"of":"tagseg tag"}\n',
        b'{"tagseg_review": 1, "run": "a", "classes": []}\n',
        b'{"tagseg_review": 1, "run": "a", "classes": ["background"]}\n',
        b'{"tagseg_review": 1, "run": 5, "classes": ["cat"]}\n',
        b"\x89PNG\r\n",
    ],
)
def test_another_file_is_refused(tmp_path, head):
    path = tmp_path / "review.jsonl"
    path.write_bytes(head)
    with pytest.raises(DataError, match="review"):
        read_review(path)


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("nowhere", ".", "pipe"):
        with pytest.raises(DataError):
            read_review(tmp_path / name)


def test_editors_leave_marks_and_blank_lines(tmp_path):
    path = written(tmp_path, [wrong()])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert read_review(path).acts == (wrong(),)


class TestMasks:
    """Masks are what was accepted, of the photo's size, from the review's folder."""

    LABELS = np.array([[0, 1, 4, 255, 0, 0]] * 4, np.uint8)

    def test_read(self, tmp_path):
        review, act = right(tmp_path, encode_mask(self.LABELS))
        assert np.array_equal(read_reviewed_mask(review, act, SHAPE), self.LABELS)

    def test_changed_since(self, tmp_path):
        review, act = right(tmp_path, encode_mask(self.LABELS))
        (tmp_path / act.mask).write_bytes(encode_mask(self.LABELS[::-1, ::-1].copy()))
        with pytest.raises(MaskError, match="not the mask that was accepted"):
            read_reviewed_mask(review, act, SHAPE)

    def test_wrong_size_and_class(self, tmp_path):
        review, act = right(tmp_path, encode_mask(self.LABELS))
        with pytest.raises(MaskError, match="has 6 x 4 pixels, its photo 4 x 6"):
            read_reviewed_mask(review, act, (6, 4))
        review, act = right(tmp_path, encode_mask(np.full(SHAPE, 5, np.uint8)))
        with pytest.raises(MaskError, match="holds class 5, but the review has 4"):
            read_reviewed_mask(review, act, SHAPE)

    def test_missing(self, tmp_path):
        review, act = right(tmp_path, encode_mask(self.LABELS))
        (tmp_path / act.mask).unlink()
        with pytest.raises(MaskError, match="missing"):
            read_reviewed_mask(review, act, SHAPE)

    def test_a_link_out_of_the_folder(self, tmp_path):
        home = tmp_path / "home"
        home.mkdir()
        review, act = right(home, encode_mask(self.LABELS))
        outside = tmp_path / "outside.png"
        (home / act.mask).rename(outside)
        (home / act.mask).symlink_to(outside)
        with pytest.raises(MaskError, match="outside the folder"):
            read_reviewed_mask(review, act, SHAPE)

    def test_a_pipe(self, tmp_path):
        review, act = right(tmp_path, b"")
        (tmp_path / act.mask).unlink()
        os.mkfifo(tmp_path / act.mask)
        with pytest.raises(MaskError, match="a pipe"):
            read_reviewed_mask(review, act, SHAPE)

    @pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"text"])
    def test_no_picture(self, tmp_path, data):
        review, act = right(tmp_path, data)
        with pytest.raises(MaskError, match=r"a-1\.png"):
            read_reviewed_mask(review, act, SHAPE)

    def test_colours(self, tmp_path):
        PilImage.new("RGB", SHAPE[::-1]).save(tmp_path / "rgb.png")
        review, act = right(tmp_path, (tmp_path / "rgb.png").read_bytes())
        with pytest.raises(MaskError, match="no PNG with a palette"):
            read_reviewed_mask(review, act, SHAPE)

    @pytest.mark.parametrize("side", [60_000, 9_000])
    def test_a_bomb_is_refused_by_its_header(self, tmp_path, side):
        """A few bytes that say they are thousands of pixels wide."""
        header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
        data = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )
        review, act = right(tmp_path, data)
        with pytest.raises(MaskError, match="pixels"):
            read_reviewed_mask(review, act, SHAPE)

    @CHECKED
    @given(at=st.integers(0, 10_000), put=st.binary(max_size=4), skip=st.integers(0, 6))
    def test_a_changed_file_is_read_or_refused(self, tmp_path, at, put, skip):
        data = encode_mask(self.LABELS)
        at %= len(data)
        review, act = right(tmp_path, data[:at] + put + data[at + skip :])
        try:
            labels = read_reviewed_mask(review, act, SHAPE)
        except MaskError:
            return
        assert labels.shape == SHAPE
        assert set(np.unique(labels)) <= {0, 1, 2, 3, 4, 255}
