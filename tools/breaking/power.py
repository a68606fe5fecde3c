"""What a power cut leaves: the disk as it may be where only what was synced is sure to be there.

strace writes down what an undisturbed run writes, truncates, syncs, renames and removes in its
folder, SQLite's calls with it. Replayed up to a random call, what was not synced by then is kept in
part: of each file's writes a prefix, or any of them, one torn at a sector, lost ones as zeros; of
names a prefix of all (as journaling file systems keep them, where any fsync keeps all names before)
or a prefix of each folder's (as POSIX has it, where only an fsync of the folder does).
"""

from __future__ import annotations

import os
import random
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from breaking.subjects import Subject, Verdict
from breaking.traced import let_others_trace, new_file, why_not

_SECTOR = 512
_CALLS = (
    *("openat", "close", "write", "writev", "pwrite64", "lseek", "ftruncate"),
    *("fsync", "fdatasync", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir"),
    *("mkdir", "mkdirat", "link", "linkat", "sendfile", "copy_file_range", "fallocate", "dup"),
)
_LINE = re.compile(rb"(\d+) +(.*)")
_DONE = re.compile(rb"(\w+)\((.*)\) += (-?\d+)")
_STRING = re.compile(rb'"((?:\\x[0-9a-f]{2})*)"')
_AT = re.compile(rb"^(?:AT_FDCWD|-?\d+)(?:<([^>]*)>)?$")


class Op(NamedTuple):
    """One thing that was done to the disk.

    Attributes:
        kind: "write", "cut", "sync" of a file or a folder; "create", "rename", "link", "remove",
            "folder" of names.
        path: what it is done to, for rename and link the new name.
        other: for rename and link the old name.
        at: offset of a write, length after a cut.
        content: of a write.
    """

    kind: str
    path: str
    other: str = ""
    at: int = 0
    content: bytes = b""


@dataclass
class _Inode:
    """A file: what was done to it, and how much of that is sure."""

    done: list[Op] = field(default_factory=list)
    sure: int = 0


@dataclass
class _Name:
    """A change of a name, with the inode that it is about."""

    op: Op
    inode: _Inode | None
    sure: bool = False


def power(subject: Subject, rng: random.Random, number: int) -> Verdict:
    """The folder as a power cut may leave it; the same command goes on with it."""
    ops = recorded(subject)
    at = rng.randrange(1, len(ops) + 1)
    posix = rng.random() < 0.5
    leave_after_cut(ops[:at], str(subject.whole), subject.new(), rng, posix=posix)
    kind = "names by folder" if posix else "names in order"
    verdict = subject.checked(subject.broken, kind)
    return verdict._replace(more=f"{at} of {len(ops)} calls; {verdict.more}")


def recorded(subject: Subject) -> list[Op]:
    """What an undisturbed run does to its folder; its name is that of ``subject.whole`` here."""
    if "ops" not in subject.notes:
        if why_not():
            raise SystemExit(f"power: {why_not()}")
        file = new_file()
        run = subject.new()
        longest = str(1 << 26)
        options = ["-e", f"trace={','.join(_CALLS)}", "-y", "-xx", "-s", longest, "-o", str(file)]
        subject.run(run, let_others_trace, strace=options)
        subject.notes["ops"] = list(read_log(file, str(run), str(subject.whole)))
        file.unlink()
        check_recording(subject.notes["ops"], subject.whole, run)
    return subject.notes["ops"]


def check_recording(ops: list[Op], name: Path, run: Path) -> None:
    """Raise unless all of ``ops`` together give the folder ``run``: none was missed."""
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "run"
        leave_after_cut([*ops], str(name), again, None, posix=False)
        for one, other in ((again, run), (run, again)):
            for path in one.rglob("*"):
                twin = other / path.relative_to(one)
                if path.is_file() and (not twin.exists() or path.read_bytes() != twin.read_bytes()):
                    raise SystemExit(f"power: the recording is not what was done to {path}")


def leave_after_cut(
    ops: list[Op], run: str, target: Path, rng: random.Random | None, *, posix: bool
) -> None:
    """Write into ``target`` what a cut after ``ops`` on the folder ``run`` may leave.

    Without ``rng`` all of it is left. Of names that are not sure a prefix is kept: of all, or with
    ``posix`` of each folder's.
    """
    names, inodes = _followed(ops, posix=posix)
    kept = {id(name) for name in names if name.sure or rng is None}
    groups: dict[str, list[_Name]] = {}
    for name in names:
        groups.setdefault(os.path.dirname(name.op.path) if posix else "", []).append(name)
    if rng is not None:
        for group in groups.values():
            least = max((i + 1 for i, name in enumerate(group) if name.sure), default=0)
            kept |= {id(name) for name in group[: rng.randrange(least, len(group) + 1)]}
    there = _named([name for name in names if id(name) in kept], run)
    contents = {id(inode): _content(inode, rng) for inode in inodes}
    target.mkdir(parents=True, exist_ok=True)
    for path, inode in sorted(there.items()):
        place = target / os.path.relpath(path, run)
        if inode is None:
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(contents[id(inode)])


def _followed(ops: list[Op], *, posix: bool) -> tuple[list[_Name], list[_Inode]]:
    """Changes of names and of files, each with what syncs have made sure."""
    names: list[_Name] = []
    inodes: list[_Inode] = []
    now: dict[str, _Inode | None] = {}
    for op in ops:
        if op.kind in ("write", "cut"):
            inode = now[op.path]
            assert inode is not None
            inode.done.append(op)
        elif op.kind == "sync":
            inode = now.get(op.path)
            if inode is not None:
                inode.sure = len(inode.done)
            for name in names:
                # A journal is written in order; in POSIX a folder's sync is for its own names.
                of_it = os.path.dirname(name.op.path) == op.path and inode is None
                name.sure |= of_it or not posix
        else:
            inode = _Inode() if op.kind == "create" else now.get(op.other or op.path)
            if op.kind == "create":
                inodes.append(inode)
            names.append(_Name(op, inode))
            _apply(names[-1], now)
    return names, inodes


def _apply(name: _Name, now: dict[str, _Inode | None]) -> None:
    """Do a change of a name, if what it begins with is there."""
    op = name.op
    if op.kind in ("create", "folder"):
        now[op.path] = name.inode if op.kind == "create" else None
    elif op.kind == "remove":
        now.pop(op.path, None)
    elif op.other in now:
        inside = f"{op.other}/"
        for old in [path for path in now if path == op.other or path.startswith(inside)]:
            inode = now[old] if op.kind == "link" else now.pop(old)
            now[op.path + old[len(op.other) :]] = inode


def _named(names: list[_Name], run: str) -> dict[str, _Inode | None]:
    """Files and folders by the changes that were kept; of names whose folder is lost none."""
    now: dict[str, _Inode | None] = {run: None}
    for name in names:
        if os.path.dirname(name.op.path) in now or name.op.path == run:
            _apply(name, now)
    return {path: inode for path, inode in now.items() if path != run}


def _content(inode: _Inode, rng: random.Random | None) -> bytes:
    """A file after a cut: what is sure, and a prefix or any part of what came after."""
    sure, after = inode.done[: inode.sure], inode.done[inode.sure :]
    lost: list[Op] = []
    if rng is not None and after:
        if rng.random() < 0.5:
            kept = rng.randrange(len(after) + 1)
            after, lost = after[:kept], after[kept:]
        else:
            chosen = [rng.random() < 0.5 for _ in after]
            lost = [op for op, keep in zip(after, chosen, strict=True) if not keep]
            after = [op for op, keep in zip(after, chosen, strict=True) if keep]
        if lost and lost[0].kind == "write":
            torn = rng.randrange(0, len(lost[0].content) + 1, _SECTOR)
            after.append(lost[0]._replace(content=lost[0].content[:torn]))
    content = bytearray()
    for op in (*sure, *after):
        if op.kind == "cut":
            content = content[: op.at] + bytes(max(0, op.at - len(content)))
        elif op.content:
            content += bytes(max(0, op.at - len(content)))
            content[op.at : op.at + len(op.content)] = op.content
    if lost and rng is not None and rng.random() < 0.3:  # its length was kept, its blocks were not
        longest = max((op.at + len(op.content) for op in lost if op.kind == "write"), default=0)
        content += bytes(max(0, longest - len(content)))
    return bytes(content)


def read_log(file: Path, run: str, name: str) -> Iterator[Op]:
    """What strace's log says of the folder ``run``, as if it were called ``name``."""
    calls = _Calls(run, name)
    begun: dict[bytes, bytes] = {}
    with file.open("rb") as lines:
        for line in lines:
            found = _LINE.match(line)
            if found is None:
                continue
            process, text = found[1], found[2]
            if text.endswith(b"<unfinished ...>"):
                begun[process] = text[: -len(b"<unfinished ...>")].rstrip()
                continue
            if text.startswith(b"<... "):
                text = begun.pop(process, b"") + text.partition(b" resumed>")[2]
            done = _DONE.match(text)
            if done is not None and int(done[3]) >= 0:
                yield from calls.understood(done[1].decode(), done[2], int(done[3]))


class _Calls:
    """Calls of one process, whose open files have an offset each."""

    def __init__(self, run: str, name: str) -> None:
        self._run, self._name = run, name
        self._open: dict[int, tuple[str, int, bool]] = {}  # path, offset, whether it appends
        self._sizes: dict[str, int] = {}

    def understood(self, call: str, text: bytes, result: int) -> Iterator[Op]:
        """What a call has done to the folder."""
        words = _split(text)
        if call == "openat":
            yield from self._opened(words, result)
        elif call in ("rename", "renameat", "renameat2", "link", "linkat"):
            old, new = self._paths(words)
            if self._is_ours(old) or self._is_ours(new):
                if not (self._is_ours(old) and self._is_ours(new)):
                    raise SystemExit(f"power: {call} out of the run: {old} {new}")
                kind = "link" if call.startswith("link") else "rename"
                self._moved(old, new, kind)
                yield Op(kind, self._told(new), self._told(old))
        elif call in ("unlink", "unlinkat", "rmdir", "mkdir", "mkdirat"):
            path = self._paths(words)[0]
            if self._is_ours(path):
                self._sizes.pop(path, None)
                yield Op("folder" if call.startswith("mkdir") else "remove", self._told(path))
        else:
            yield from self._of_a_file(call, words, result)

    def _opened(self, words: list[bytes], result: int) -> Iterator[Op]:
        path, flags = self._paths(words)[0], words[2]
        self._open.pop(result, None)
        if not self._is_ours(path):
            return
        self._open[result] = (path, 0, b"O_APPEND" in flags)
        if b"O_CREAT" in flags and path not in self._sizes:
            self._sizes[path] = 0
            yield Op("create", self._told(path))
        elif b"O_TRUNC" in flags:
            self._sizes[path] = 0
            yield Op("cut", self._told(path))

    def _of_a_file(self, call: str, words: list[bytes], result: int) -> Iterator[Op]:
        number = int(re.match(rb"-?\d+", words[0])[0])  # type: ignore[index]
        if number not in self._open:
            return
        path, offset, appends = self._open[number]
        if call == "close":
            del self._open[number]
        elif call in ("fsync", "fdatasync"):
            yield Op("sync", self._told(path))
        elif call == "lseek":
            self._open[number] = (path, result, appends)
        elif call == "ftruncate":
            self._sizes[path] = int(words[1])
            yield Op("cut", self._told(path), at=int(words[1]))
        elif call in ("write", "pwrite64"):
            at = int(words[3]) if call == "pwrite64" else self._sizes[path] if appends else offset
            if call == "write":
                self._open[number] = (path, at + result, appends)
            self._sizes[path] = max(self._sizes[path], at + result)
            yield Op("write", self._told(path), at=at, content=_decoded(words[1])[:result])
        else:
            raise SystemExit(f"power: no replay of {call}")

    def _moved(self, old: str, new: str, kind: str) -> None:
        inside = f"{old}/"
        for path in [p for p in self._sizes if p == old or p.startswith(inside)]:
            size = self._sizes[path] if kind == "link" else self._sizes.pop(path)
            self._sizes[new + path[len(old) :]] = size

    def _paths(self, words: list[bytes]) -> list[str]:
        """Absolute paths, each with the open folder that is named before it, if one is."""
        found: list[str] = []
        folder = ""
        for word in words:
            if word.startswith(b'"'):
                found.append(os.path.join(folder, os.fsdecode(_decoded(word))))
            elif (at := _AT.match(word)) is not None and at[1] is not None:
                folder = os.fsdecode(_unescaped(at[1]))
        return found

    def _is_ours(self, path: str) -> bool:
        return path == self._run or path.startswith(f"{self._run}/")

    def _told(self, path: str) -> str:
        return self._name + path[len(self._run) :]


def _split(text: bytes) -> list[bytes]:
    """Arguments; strings have no comma in them, as every byte of theirs is escaped."""
    return [word.strip() for word in text.split(b", ")]


def _decoded(word: bytes) -> bytes:
    found = _STRING.match(word)
    if found is None:
        raise SystemExit(f"power: strace has cut a string short: {word[:80]!r}")
    return _unescaped(found[1])


def _unescaped(text: bytes) -> bytes:
    return bytes.fromhex(text.replace(b"\\x", b"").decode()) if text.startswith(b"\\x") else text
