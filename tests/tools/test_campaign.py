"""The reliability campaign: a fast sample of it, and that what it is made of does what it says."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from breaking import fuzz, kills, power, rot, traced
from breaking.fuzz_targets import Target, texts
from breaking.subjects import GOOD, Subject
from tagseg.data.scenes import write_scenes
from tagseg.errors import DataError

RUN = "/run"


# A power cut


def hexed(text: str | bytes) -> str:
    content = text.encode() if isinstance(text, str) else text
    return "".join(f"\\x{byte:02x}" for byte in content)


def opened(number: int, path: str, flags: str = "O_WRONLY|O_CREAT|O_TRUNC") -> str:
    at, name = hexed("/somewhere"), hexed(path)
    return f'7 openat(AT_FDCWD<{at}>, "{name}", {flags}, 0666) = {number}<{name}>'


def written(number: int, path: str, content: bytes) -> str:
    fd = f"{number}<{hexed(path)}>"
    return f'7 write({fd}, "{hexed(content)}", {len(content)}) = {len(content)}'


def synced(number: int, path: str) -> str:
    return f"7 fsync({number}<{hexed(path)}>) = 0"


def closed(number: int, path: str) -> str:
    return f"7 close({number}<{hexed(path)}>) = 0"


ATOMIC = (
    f'7 mkdir("{hexed(RUN)}", 0777) = 0',
    opened(3, f"{RUN}/.tmp-a"),
    written(3, f"{RUN}/.tmp-a", b"old"),
    synced(3, f"{RUN}/.tmp-a"),
    closed(3, f"{RUN}/.tmp-a"),
    f'7 rename("{hexed(f"{RUN}/.tmp-a")}", "{hexed(f"{RUN}/a")}") = 0',
    opened(3, "/elsewhere/x"),
    written(3, "/elsewhere/x", b"not ours"),
    closed(3, "/elsewhere/x"),
    opened(4, f"{RUN}/log", "O_WRONLY|O_CREAT|O_APPEND"),
    f'8 write(4<{hexed(f"{RUN}/log")}>, "{hexed("one ")}", 4 <unfinished ...>',
    f"7 fsync(9<{hexed('/x')}>) = -1 EIO (Input/output error)",
    "8 <... write resumed>) = 4",
    written(4, f"{RUN}/log", b"two"),
    f'7 pwrite64(4<{hexed(f"{RUN}/log")}>, "{hexed("O")}", 1, 0) = 1',
    closed(4, f"{RUN}/log"),
    f'7 mkdir("{hexed(f"{RUN}/d")}", 0777) = 0',
    opened(5, f"{RUN}/d/gone"),
    closed(5, f"{RUN}/d/gone"),
    f'7 unlinkat(6<{hexed(f"{RUN}/d")}>, "{hexed("gone")}", 0) = 0',
)


@pytest.fixture(scope="module")
def ops(tmp_path_factory) -> list[power.Op]:
    log = tmp_path_factory.mktemp("log") / "strace"
    log.write_text("\n".join(ATOMIC) + "\n")
    return list(power.read_log(log, RUN, RUN))


def left(ops: list[power.Op], place: Path, seed: int | None, *, posix: bool) -> dict[str, bytes]:
    rng = None if seed is None else random.Random(seed)
    power.leave_after_cut(ops, RUN, place, rng, posix=posix)
    files = [path for path in place.rglob("*") if path.is_file()]
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in files}


def test_the_recording_is_what_was_done(ops, tmp_path):
    assert left(ops, tmp_path / "all", None, posix=False) == {"a": b"old", "log": b"One two"}
    assert (tmp_path / "all/d").is_dir()
    assert [op.kind for op in ops].count("sync") == 1
    (tmp_path / "all/log").write_bytes(b"one two")
    with pytest.raises(SystemExit, match="is not what was done to"):
        power.check_recording(ops, Path(RUN), tmp_path / "all")


@pytest.mark.parametrize("posix", [False, True])
def test_a_cut_loses_what_was_not_synced_and_nothing_else(ops, tmp_path, posix):
    seen = [left(ops, tmp_path / str(seed), seed, posix=posix) for seed in range(60)]
    # Synced before its name was given: whole wherever it is; its first name is sure in a journal.
    assert {one[name] for one in seen for name in ("a", ".tmp-a") if name in one} == {b"old"}
    nowhere = [one for one in seen if not one.keys() & {"a", ".tmp-a"}]
    assert bool(nowhere) is posix
    logs = {one["log"] for one in seen if "log" in one}
    assert {b"", b"one ", b"One two", b"one two"} <= logs
    assert any("log" not in one for one in seen)
    assert any("a" in one and "log" not in one for one in seen)


# System calls that are counted and made to fail


@pytest.mark.skipif(bool(traced.why_not()), reason="strace is not there or may not trace")
def test_points_come_once_each_and_in_turns():
    subject = Subject.__new__(Subject)
    subject.notes = {"calls": {"fsync": 2, "rename": 3, "write": 0}}
    calls, rng = ("fsync", "rename", "write", "mkdir"), random.Random(0)
    points = [kills.next_point(subject, rng, calls, "some") for _ in range(6)]
    assert [call for call, _ in points] == ["fsync", "rename"] * 3
    assert {at for call, at in points[:4] if call == "fsync"} == {1, 2}
    assert {at for call, at in points if call == "rename"} == {1, 2, 3}


# Readers


def test_every_reader_of_texts_gives_a_result_or_one_line(tmp_path):
    """Some inputs of each; the campaign gives them millions."""
    rng = random.Random(7)
    for target in texts():
        place = tmp_path / f"input{target.suffix}"
        for seed in target.seeds:
            place.write_bytes(seed)
            target.read(place)
        for _ in range(25):
            content = fuzz.mutated(target.seeds, rng)
            place.write_bytes(content)
            assert not fuzz.tried_once(target, place), (target.name, content)


def test_what_a_reader_must_not_do_is_seen(tmp_path, monkeypatch):
    def endless(path: Path) -> None:
        until = time.process_time() + 5
        while time.process_time() < until:
            pass

    def refuses(path: Path) -> None:
        raise DataError("no")

    monkeypatch.setattr(fuzz, "_SECONDS", 0.05)
    fuzz.watch_time()
    (tmp_path / "a").touch()
    assert fuzz.tried_once(Target("x", "", (), refuses), tmp_path / "a") == ""
    assert "ZeroDivisionError" in fuzz.tried_once(Target("x", "", (), lambda p: 1 / 0), tmp_path)
    assert fuzz.tried_once(Target("x", "", (), endless), tmp_path / "a").startswith("over 0.05 s")


# Runs


@pytest.mark.slow
def test_a_sample_of_the_campaign(tmp_path):
    """One of each kind on the quickest recipe."""
    write_scenes(tmp_path / "scenes", train=6, val=2)
    subject, rng = Subject("cam_baseline", tmp_path), random.Random(1)
    assert rot.rot(subject, rng, 0).what == GOOD
    if traced.why_not():
        assert kills.kills(subject, rng, 2).what == GOOD
        return
    subject.notes["calls"] = {"fsync": 20}  # there are more; counting them takes a run
    assert kills.kills(subject, rng, 1) == ("fsync", GOOD, "")
    assert power.power(subject, rng, 0).what == GOOD
