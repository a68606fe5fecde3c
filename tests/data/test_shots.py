from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import deque
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage

from tagseg.data import shots
from tagseg.data.clips import draw_clip, write_clips
from tagseg.data.images import decode_photo
from tagseg.data.scenes import OBJECTS
from tagseg.data.shots import Shot, find_shots, natural_key
from tagseg.errors import DataError, ImageError, ShapeError

Frames = npt.NDArray[np.uint8]


def picture(path: Path, value: int = 0, size: tuple[int, int] = (12, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PilImage.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def video(path: Path, frames: Frames, code: str = "MJPG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = (frames.shape[2], frames.shape[1])
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*code), 25, size)
    if not writer.isOpened():
        pytest.skip(f"this OpenCV writes no {code}")
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


@pytest.fixture(scope="module")
def moving() -> Frames:
    return draw_clip(OBJECTS, 0, 1, frames=20, height=48, width=64).frames


@pytest.fixture(scope="module")
def encoded(moving: Frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return video(tmp_path_factory.mktemp("video") / "a_01.avi", moving)


def names(source: Path) -> list[str]:
    return [shot.name for shot in find_shots(source)]


def read_all(source: Path) -> None:
    for shot in find_shots(source):
        deque(shot.frames(), maxlen=0)


def refused(source: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_all(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Discovery


def test_a_folder_of_frames_is_one_shot_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1, 100):
        picture(tmp_path / "cat" / f"frame_{number}.png", number)
    (tmp_path / "cat" / "notes.txt").write_text("not a frame")
    (shot,) = find_shots(tmp_path / "cat")
    assert shot.name == "cat"
    assert shot.count() == 4
    assert [frame[0, 0, 0] for frame in shot.frames()] == [1, 2, 10, 100]


def test_folders_at_any_depth_are_shots_in_natural_order(tmp_path: Path) -> None:
    for name in ("b/shot_10", "b/shot_9", "a", "c/d/e"):
        picture(tmp_path / name / "0.png")
    (tmp_path / "empty").mkdir()
    assert names(tmp_path) == ["a", "b/shot_9", "b/shot_10", "c/d/e"]


def test_a_folder_with_frames_and_folders_of_frames(tmp_path: Path) -> None:
    picture(tmp_path / "0.png")
    picture(tmp_path / tmp_path.name / "0.png")
    assert names(tmp_path) == [".", tmp_path.name]


def test_videos_stand_among_folders(tmp_path: Path, encoded: Path) -> None:
    picture(tmp_path / "cars" / "a" / "0.png")
    (tmp_path / "cars" / "a.AVI").write_bytes(encoded.read_bytes())
    assert names(tmp_path) == ["cars/a", "cars/a.AVI"]
    assert [shot.count() for shot in find_shots(tmp_path)] == [1, 20]
    assert names(tmp_path / "cars" / "a.AVI") == ["a.AVI"]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    for name in ("a/0.png", "a/.1.png", ".thumbnails/0.png", "a/.cache/0.png"):
        picture(tmp_path / name)
    (shot,) = find_shots(tmp_path)
    assert (shot.name, shot.count()) == ("a", 1)


def test_links_are_followed_once(tmp_path: Path) -> None:
    picture(tmp_path / "far" / "cat" / "0.png")
    (tmp_path / "here").mkdir()
    try:
        (tmp_path / "here" / "link").symlink_to(tmp_path / "far", target_is_directory=True)
        (tmp_path / "far" / "back").symlink_to(tmp_path / "here", target_is_directory=True)
    except OSError:
        pytest.skip("no links here")
    assert names(tmp_path / "here") == ["link/cat"]


def test_masks_of_written_clips_are_no_shots(tmp_path: Path) -> None:
    write_clips(tmp_path / "set", count=2, frames=3, height=48, width=64)
    assert names(tmp_path / "set") == ["clip_00000", "clip_00001"]
    for index, shot in enumerate(find_shots(tmp_path / "set")):
        expected = draw_clip(OBJECTS, 200, index, frames=3, height=48, width=64).frames
        error = np.abs(np.stack(list(shot.frames())).astype(int) - expected)
        assert error.mean() < 6  # JPEG


def test_nothing_is_decoded_to_find_shots(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.jpg").write_bytes(b"no picture")
    (tmp_path / "b.mp4").write_bytes(b"no video")
    assert names(tmp_path) == ["a", "b.mp4"]


FOLDERS = st.lists(st.sampled_from(["a", "b", "s2", "s10"]), max_size=3).map("/".join)
FILES = st.sampled_from(["1.png", "02.jpg", "10.JPG", "x.txt", "y.mp4", "z2.webm", ".3.png"])


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.sets(st.tuples(FOLDERS, FILES), min_size=1, max_size=12))
def test_every_picture_and_every_video_is_in_one_shot(files: set[tuple[str, str]]) -> None:
    with TemporaryDirectory() as root:
        folder = Path(root) / "set"
        for place, name in files:
            (folder / place).mkdir(parents=True, exist_ok=True)
            (folder / place / name).touch()
        pictures: dict[str, int] = {}
        videos = set()
        for place, name in files:
            if name.endswith((".png", ".jpg", ".JPG")) and not name.startswith("."):
                pictures[place or "."] = pictures.get(place or ".", 0) + 1
            elif name.endswith((".mp4", ".webm")):
                videos.add(f"{place}/{name}" if place else name)
        if not pictures and not videos:
            assert "holds neither pictures nor video files" in refused(folder)
            return
        found = find_shots(folder)
        if list(pictures) == ["."] and not videos:
            pictures = {"set": pictures["."]}
        assert sorted(shot.name for shot in found) == sorted([*pictures, *videos])
        assert all(shot.count() == pictures[shot.name] for shot in found if shot.name in pictures)


# Natural order


@pytest.mark.parametrize(
    "ordered",
    [
        ("frame_2", "frame_10"),
        ("2", "10", "a"),
        ("s1_f10", "s2_f9", "s10_f1"),
        ("a", "a1", "b"),
        ("01", "1", "2"),
    ],
)
def test_numbers_sort_as_numbers(ordered: tuple[str, ...]) -> None:
    backwards = list(ordered)[::-1]
    assert sorted(backwards, key=natural_key) == list(ordered)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    st.lists(st.integers(0, 10**12), min_size=1, max_size=20, unique=True),
    st.text(max_size=4).filter(lambda text: not text[-1:].isdigit()),
    st.text(max_size=4).filter(lambda text: not text[:1].isdigit()),
)
def test_numbered_names_are_in_the_order_of_their_numbers(
    numbers: list[int], before: str, after: str
) -> None:
    found = sorted((f"{before}{n}{after}" for n in numbers), key=natural_key)
    assert found == [f"{before}{n}{after}" for n in sorted(numbers)]


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.text(max_size=8), max_size=8, unique=True), st.randoms(use_true_random=False))
def test_any_names_have_one_order(texts: list[str], chance: random.Random) -> None:
    shuffled = chance.sample(texts, len(texts))
    assert sorted(texts, key=natural_key) == sorted(shuffled, key=natural_key)


# Frames


def test_frames_are_decoded_anew_and_one_at_a_time(tmp_path: Path, monkeypatch: Any) -> None:
    for number in range(4):
        picture(tmp_path / f"{number}.png", number)
    decoded: list[Path] = []

    def watched(path: Path) -> Any:
        decoded.append(path)
        return decode_photo(path)

    monkeypatch.setattr(shots, "decode_photo", watched)
    (shot,) = find_shots(tmp_path)
    frames = shot.frames()
    assert decoded == []
    next(frames)
    assert len(decoded) == 1
    next(frames)
    assert len(decoded) == 2
    assert len(list(shot.frames())) == len(list(shot.frames())) == 4
    assert len(decoded) == 10


@pytest.mark.parametrize(("side", "size"), [(None, (60, 80)), (40, (30, 40)), (200, (60, 80))])
def test_the_longer_side_is_brought_down(tmp_path: Path, side: Any, size: tuple[int, int]) -> None:
    picture(tmp_path / "0.png", 7, (60, 80))
    (shot,) = find_shots(tmp_path)
    (frame,) = shot.frames(side)
    assert frame.shape == (*size, 3)
    assert (frame == 7).all()


def test_frames_in_memory(moving: Frames) -> None:
    shot = Shot.of_frames("mine", moving)
    assert (shot.name, shot.count()) == ("mine", 20)
    np.testing.assert_array_equal(np.stack(list(shot.frames())), moving)
    np.testing.assert_array_equal(np.stack(list(shot.frames(32))).shape, (20, 24, 32, 3))


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 5, 3), np.uint8),
        np.zeros((2, 4, 5, 4), np.uint8),
        np.zeros((2, 4, 5, 3), np.float32),
        np.zeros((0, 4, 5, 3), np.uint8),
    ],
    ids=["one picture", "alpha", "float", "none"],
)
def test_other_arrays_are_refused(wrong: Any) -> None:
    with pytest.raises(ShapeError, match=r"mine: frames of shape .* are not a shot; pass uint8"):
        Shot.of_frames("mine", wrong)


@pytest.mark.parametrize(
    ("suffix", "code"), [("avi", "MJPG"), ("mp4", "mp4v"), ("mkv", "MJPG"), ("webm", "VP80")]
)
def test_videos_are_decoded_whole_in_rgb(
    tmp_path: Path, moving: Frames, suffix: str, code: str
) -> None:
    (shot,) = find_shots(video(tmp_path / f"v_01.{suffix}", moving, code))
    decoded = np.stack(list(shot.frames()))
    assert decoded.dtype == np.uint8
    assert shot.count() == len(decoded) == len(moving)
    assert np.abs(decoded.astype(int) - moving).mean() < 8  # lossy
    assert np.abs(decoded[..., ::-1].astype(int) - moving).mean() > 12  # channels in their order
    assert len(list(shot.frames(32))) == len(moving)  # a second time


def test_a_video_needs_not_fit_into_memory(encoded: Path, monkeypatch: Any) -> None:
    """Frames are read as they are asked for, and the file is closed when asking stops."""
    reads: list[str] = []

    class Watched:
        def __init__(self, *args: Any) -> None:
            self.inner = capture(*args)

        def read(self) -> Any:
            reads.append("read")
            return self.inner.read()

        def release(self) -> None:
            reads.append("release")
            self.inner.release()

        def isOpened(self) -> bool:
            return self.inner.isOpened()

    capture = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Watched)
    frames = find_shots(encoded)[0].frames()
    next(frames)
    next(frames)
    assert reads == ["read", "read"]
    frames.close()  # type: ignore[attr-defined]
    assert reads[-1] == "release"


# Errors


def test_no_such_path(tmp_path: Path) -> None:
    said = refused(tmp_path / "nowhere")
    assert said == f"{tmp_path / 'nowhere'}: there is no such file or folder; check the path"


def test_no_shots(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert refused(tmp_path).startswith(f"{tmp_path}: holds neither pictures nor video files; use")


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    picture(tmp_path / "0.png")
    said = refused(tmp_path / "0.png")
    assert said.startswith(f"{tmp_path / '0.png'}: this is neither a folder nor a video file; use")
    assert ".mp4" in said


def test_a_mask_beside_its_frame_is_no_frame(tmp_path: Path) -> None:
    for name in ("0.png", "0.jpg", "1.jpg"):
        picture(tmp_path / name)
    assert refused(tmp_path) == f"{tmp_path}: 0.jpg and 0.png have the same name; remove one"


def test_frames_of_different_sizes(tmp_path: Path) -> None:
    for number, width in enumerate((16, 16, 20)):
        picture(tmp_path / f"{number}.png", 0, (12, width))
    (shot,) = find_shots(tmp_path)
    with pytest.raises(DataError, match="frame 2 is 20 x 12, the first is 16 x 12; keep"):
        list(shot.frames())
    with pytest.raises(DataError, match="frame 2 is 20 x 12"):
        list(shot.frames(4))


def test_a_damaged_frame_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "0.png")
    data = (tmp_path / "0.png").read_bytes()
    (tmp_path / "1.png").write_bytes(data[:-20])
    (shot,) = find_shots(tmp_path)
    with pytest.raises(ImageError, match=r"1\.png: the PNG file is cut short or damaged"):
        list(shot.frames())


@pytest.mark.parametrize("content", [b"", b"no video at all", bytes(4000)])
@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv", "mpg"])
def test_a_file_that_only_looks_like_a_video(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"clip_01.{suffix}"  # digits would be a pattern of pictures to OpenCV
    path.write_bytes(content)
    for ask in (lambda shot: list(shot.frames()), lambda shot: shot.count()):
        with pytest.raises(DataError, match="cannot be decoded as a video: damaged, cut short"):
            ask(find_shots(path)[0])


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.85])
def test_a_video_cut_short(tmp_path: Path, encoded: Path, kept: float) -> None:
    path = tmp_path / "cut.avi"
    data = encoded.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    (shot,) = find_shots(path)
    said = r"cut\.avi: the video is cut short: \d+ of 20 frames can be decoded; replace or remove"
    with pytest.raises(DataError, match=said) as caught:
        list(shot.frames())
    decoded = int(str(caught.value).split(" of 20 ")[0].split()[-1])
    assert abs(decoded - kept * 20) < 5
    with pytest.raises(DataError, match=f"{decoded} of 20"):
        shot.count()


def test_an_mp4_cut_short(tmp_path: Path, moving: Frames) -> None:
    """Its index stands at the end."""
    path = video(tmp_path / "cut.mp4", moving, "mp4v")
    path.write_bytes(path.read_bytes()[: os.path.getsize(path) // 2])
    assert refused(path).startswith(f"{path}: cannot be decoded as a video")


def test_libraries_print_nothing_beside_an_error(
    tmp_path: Path, encoded: Path, moving: Frames
) -> None:
    whole = video(tmp_path / "whole.mp4", moving, "mp4v").read_bytes()
    (tmp_path / "cut_01.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut_02.avi").write_bytes(encoded.read_bytes()[:9000])
    (tmp_path / "junk_03.mkv").write_bytes(b"no video at all")
    code = """
import sys
from pathlib import Path
from tagseg.data.shots import find_shots
from tagseg.errors import DataError
for path in map(Path, sys.argv[1:]):
    try:
        list(find_shots(path)[0].frames())
    except DataError as error:
        print(error)
"""
    files = [str(tmp_path / name) for name in ("cut_01.mp4", "cut_02.avi", "junk_03.mkv")]
    run = subprocess.run(
        [sys.executable, "-c", code, *files], capture_output=True, text=True, check=True
    )
    assert run.stderr == ""
    assert [line.split(": ")[0] for line in run.stdout.splitlines()] == files
