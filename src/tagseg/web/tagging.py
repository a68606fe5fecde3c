"""Tagging a folder of photos: acts come in, are on disk, and change what is known.

One process at a time, which may serve several pages. Whatever they ask goes through one lock, so
the journal has one order, and it is the order that counts.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tagseg.errors import ConfigError, TagError, TagsegError, first_few
from tagseg.formats.lists.class_lists import read_classes
from tagseg.run.files import atomic_write, check_folder, one_line_errors
from tagseg.run.lock import FolderLock
from tagseg.web.columns import Columns, Ids, State
from tagseg.web.desk import MOST_SHOWN
from tagseg.web.journal import Entry, Journal
from tagseg.web.pace import Pace
from tagseg.web.photo_folder import JOURNAL, TAGS, PhotoFolder
from tagseg.web.tag_files import (
    ClassFile,
    FileTags,
    digest_of,
    other_source,
    read_tags,
    tags_csv,
)
from tagseg.web.views import classes, counts, described, doubt, shown
from tagseg.web.wishes import entry_of

__all__ = ["Begin", "Suggested", "Tagging"]

_WAIT = 0.5  # seconds between an act and the tag file, at least
_SHARE = 20  # of the time, one part in which is spent on writing the tag file


class Suggested(Protocol):
    """What a classifier says of the photos.

    Attributes:
        classes: that it knows.
        about: what it is, for the page.
        version: grows with what is known.
    """

    classes: Sequence[str]
    about: str
    version: int

    def scores(self) -> npt.NDArray[np.float32]:
        """Probability of each of its classes in each photo, (N, C); NaN where it is not known."""

    def close(self) -> None:
        """Stop working."""


class Begin(NamedTuple):
    """What tagging begins with, apart from the folder.

    Attributes:
        tags: a tag file of any form, to begin with.
        classes: a class list.
        suggested: what a classifier says.
    """

    tags: Path | None = None
    classes: Path | None = None
    suggested: Suggested | None = None


_PLAIN = Begin()


class Tagging:
    """The tags of a folder's photos, kept in ``tags.csv``, ``classes.txt`` and a journal.

    Attributes:
        photos: the folder.
        notes: what should be said at the start, a line each.
        problem: why the tag file could not be written last, or "".
    """

    def __init__(self, photos: PhotoFolder, begin: Begin = _PLAIN) -> None:
        """Take the folder up; TagsegError if it is in use or its tags cannot be read or kept."""
        self.photos, self.suggested = photos, begin.suggested
        self.notes: list[str] = list(photos.notes)
        self.problem = ""
        self._pace = Pace()
        self._granted: deque[object] = deque(maxlen=MOST_SHOWN)  # wishes of pages
        self._stand: tuple[int, dict[str, Any]] | None = None  # how things are after an act
        self._room = threading.RLock()
        self._changed, self._closing = threading.Event(), threading.Event()
        check_folder(photos.home)
        self._file = photos.home / TAGS
        self._written = ""  # digest of the tag file
        self.columns = Columns(photos.names)
        with ExitStack() as held:
            lock = FolderLock(photos.home)
            held.callback(lock.release)
            self._class_file = ClassFile(photos)
            self._journal = Journal(photos.home / JOURNAL)
            held.callback(self._journal.close)
            self._take_up(begin)
            self._write_files()
            self._held = held.pop_all()
        self._folded = [name.casefold() for name in photos.names]
        self._writer = threading.Thread(target=self._keep_writing, name="tags.csv", daemon=True)
        self._writer.start()

    # --- the start ------------------------------------------------------------------------------

    def _take_up(self, begin: Begin) -> None:
        if self._journal.dropped:
            self.notes.append(
                f"{JOURNAL}: the last act was only half written when tagseg ended, and is left out"
            )
        writes: dict[str, int] = {}
        for entry in self._journal.entries():
            self.columns.apply(entry)
            if entry["act"] == "write":
                writes.pop(entry["digest"], None)  # the last one comes last
                writes[entry["digest"]] = entry["upto"]
        if begin.tags is not None and self.columns.n:
            raise ConfigError(
                f"tagging of this folder has begun, so --tags {begin.tags} comes too late",
                do=f"leave it out, or move {TAGS} and {JOURNAL} away to begin anew",
            )
        classes = self._class_file.names
        if begin.classes is not None:
            classes = tuple(dict.fromkeys((*classes, *read_classes(begin.classes))))
        self._read_files(begin.tags, classes, writes)
        more = begin.suggested.classes if begin.suggested is not None else ()
        self._add_classes((*classes, *more))
        self._say_lost()

    def _read_files(
        self, tags: Path | None, classes: Sequence[str], writes: Mapping[str, int]
    ) -> None:
        """Take over what tag files say that the journal does not.

        ``writes``: hash of each tag file that was written -> the last act that is in it.
        """
        if self._file.is_file():
            if tags is not None:
                raise ConfigError(
                    f"the folder has a {TAGS}, so --tags {tags} would be a second one",
                    do="leave it out, or move one of them away",
                )
            with one_line_errors(self._file):
                digest = digest_of(self._file.read_bytes())
            if digest in writes:
                self._written = digest
                return
            found = read_tags(self.photos, self._file, classes, ours=True)
            self._merge(found, self._file, writes)
        elif tags is not None:
            self._merge(read_tags(self.photos, tags, classes, ours=False), tags, {})
        elif writes:
            self.notes.append(f"{TAGS} was gone, and is written again")
        elif not self.columns.n:
            self._refuse_other_source()

    def _refuse_other_source(self) -> None:
        source = other_source(self.photos)
        if source is not None:
            raise TagError(
                f"the tags of these photos are in {source.name}, and would not count beside a "
                f"{TAGS}",
                where=self.photos.home,
                do=f"begin with what it says: --tags {source}",
            )

    def _merge(self, found: FileTags, file: Path, writes: Mapping[str, int]) -> None:
        """Journal what a file says other than it did when it was written last."""
        base = self._as_written(list(writes.values())[-1]) if writes else {}
        tags = {name: names for name, names in found.tags.items() if base.get(name) != names}
        gone = [name for name in base if name not in found.tags]
        entry: Entry = {"act": "read", "classes": list(found.classes)}
        entry |= {"tags": {name: list(names) for name, names in tags.items()}, "gone": gone}
        entry |= self._new_marks(found)
        self._do(entry)
        self.notes += found.notes
        if writes:
            number = len(tags) + len(gone)
            self.notes.append(f"{TAGS} was changed by others: {number} photos are as it says now")
        else:
            self.notes.append(f"{file.name}: {len(tags)} photos have tags already")

    def _new_marks(self, found: FileTags) -> Entry:
        """What a file says of classes that are not tags, other than it is known already."""
        known = {self.columns.names[i]: words for i, words in self.columns.marks.items()}
        names = [n for n in known | found.marks if found.marks.get(n, ()) != known.get(n, ())]
        return {"marks": {n: list(found.marks.get(n, ())) for n in names}} if names else {}

    def _as_written(self, upto: int) -> dict[str, tuple[str, ...]]:
        """What the tag file said that was written after act ``upto``."""
        then = Columns(self.photos.names)
        for entry in self._journal.entries(upto):
            then.apply(entry)
        return {
            then.names[i]: tuple(then.classes[c] for c in then.tags_of(i))
            for i in _listed(then).tolist()
        }

    def _add_classes(self, names: Sequence[str]) -> None:
        known = self.columns.class_names()
        new = [name for name in dict.fromkeys(names) if name not in known]
        if new:  # no act of a person, so nothing to be undone
            self._do({"act": "read", "classes": new, "tags": {}, "gone": []})
        self._class_file.check_takes(self.columns.class_names())

    def _say_lost(self) -> None:
        """Say which photos acts are about, and are not here any more."""
        columns = self.columns
        lost = [
            columns.names[i]
            for i in range(columns.here, len(columns.names))
            if columns.state[i] == State.decided and not columns.from_file[i]
        ]
        if lost:
            self.notes.append(
                f"{len(lost)} tagged photos are not here any more: {first_few(lost)}; they are left"
                f" out of {TAGS}, and {JOURNAL} keeps their tags"
            )

    # --- acts -----------------------------------------------------------------------------------

    def act(self, wanted: Mapping[str, Any]) -> str:
        """Do what a page asks for, and say what was done, once it is on disk.

        A wish with the same ``wish``, which the page makes up, is granted once.

        Raises TagError for what cannot be done, WorkspaceError if it cannot be written.
        """
        with self._room:
            wish = wanted.get("wish")
            if wish is not None and wish in self._granted:
                return ""  # the page did not hear that it was done, and asks again
            before = int(np.count_nonzero(self.columns.state[: self.columns.here]))
            self._do(entry_of(wanted, self.columns, self._class_file, self._scores))
            after = int(np.count_nonzero(self.columns.state[: self.columns.here]))
            self._pace.add(after - before)
            self._changed.set()
            self._granted.append(wish)
            return self._said(wanted)

    def _said(self, wanted: Mapping[str, Any]) -> str:
        columns = self.columns
        if wanted["act"] == "undo":
            return "undone"
        return columns.undoable[-1].what if columns.undoable else ""

    def _do(self, entry: Entry) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.columns.apply(self._journal.append({"at": now, **entry}))

    # --- questions ------------------------------------------------------------------------------

    def started(self) -> dict[str, Any]:
        """What does not change while the server runs, for the page."""
        about = self.suggested.about if self.suggested is not None else ""
        home = self.photos.home.absolute().name
        return {"folder": home, "suggestedBy": about, "notes": self.notes}

    def view(self, show: str, search: str = "", order: str = "name") -> Ids:
        """The photos to be shown, as :func:`tagseg.web.views.shown` knows them.

        Args:
            show: a filter.
            search: a part of the name.
            order: ``name``, or ``unsure`` for those first of which a classifier is least sure.

        Raises TagError if there is no such thing to show.
        """
        with self._room:
            wanted = np.flatnonzero(shown(self.columns, show)[: self.columns.here])
            if search:
                part = search.casefold()
                folded = self._folded
                wanted = np.array([i for i in wanted.tolist() if part in folded[i]], np.intp)
            if order == "unsure" and self.suggested is not None:
                wanted = wanted[np.argsort(-doubt(self.suggested.scores()[wanted]), kind="stable")]
            return wanted.astype(np.int32)

    def described(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        """What a page shows of photos; up to ``MOST_SHOWN`` of them."""
        with self._room:
            good = [i for i in ids[:MOST_SHOWN] if 0 <= i < self.columns.here]
            return described(self.columns, good, self._scores())

    def news(self, since: int) -> dict[str, Any]:
        """What has changed after act ``since``, and how things stand."""
        with self._room:
            columns = self.columns
            touched = np.flatnonzero(columns.touched[: columns.here] > since).tolist()
            many = len(touched) > MOST_SHOWN
            undoable = columns.undoable[-1] if columns.undoable else None
            if self._stand is None or self._stand[0] != columns.n:
                self._stand = columns.n, {"classes": classes(columns), "counts": counts(columns)}
            return {
                "n": columns.n,
                "photos": [] if many else self.described(touched),
                "many": many,
                "undo": None if undoable is None else {"n": undoable.n, "what": undoable.what},
                "anHour": self._pace.an_hour(),
                "scored": 0 if self.suggested is None else self.suggested.version,
                "problem": self.problem,
                **self._stand[1],
            }

    def _scores(self) -> npt.NDArray[np.float32] | None:
        """Scores of the photos that are here, by class number; NaN where they are not known."""
        if self.suggested is None:
            return None
        of_class = self.suggested.scores()
        found = np.full((self.columns.here, len(self.columns.classes)), np.nan, np.float32)
        for place, name in enumerate(self.suggested.classes):
            number = self.columns.class_number(name)
            if number is not None:
                found[:, number] = of_class[:, place]
        return found

    # --- the files ------------------------------------------------------------------------------

    def _keep_writing(self) -> None:
        """Bring the tag file up to date after acts, but do little else."""
        while not self._closing.is_set():
            self._changed.wait()
            if self._closing.wait(_WAIT):
                return
            self._changed.clear()
            began = time.monotonic()
            try:
                self._write_files()
                self.problem = ""
            except TagsegError as problem:
                self.problem = f"{TAGS} is not up to date: {problem}; no act is lost"
            self._closing.wait(_SHARE * (time.monotonic() - began))

    def _write_files(self) -> None:
        """Write ``tags.csv`` and ``classes.txt`` unless they hold what is known already."""
        with self._room:
            columns = self.columns
            upto, names = columns.n, columns.class_names()
            ids = _listed(columns).tolist()
            tags = [
                [*(columns.classes[c] for c in columns.tags_of(i)), *columns.marks_of(i)]
                for i in ids
            ]
        self._class_file.write(names)
        if not ids and not self._file.is_file():
            return  # a table without rows says nothing
        content = tags_csv(zip(map(self._called, ids), tags, strict=True))
        digest = digest_of(content)
        if digest == self._written and self._file.is_file():
            return
        with self._room:
            self._do({"act": "write", "digest": digest, "upto": upto})
        with atomic_write(self._file) as file:
            file.write(content)
        self._written = digest

    def _called(self, photo: int) -> str:
        """What the tag file calls a photo; one that is not here has no file, so no suffix."""
        here = photo < self.columns.here
        return self.photos.written[photo] if here else self.columns.names[photo]

    def close(self) -> None:
        """Bring the files up to date and let the folder go; a second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._changed.set()
        self._writer.join()
        try:
            self._write_files()
        finally:
            if self.suggested is not None:
                self.suggested.close()
            self._held.close()


def _listed(columns: Columns) -> Ids:
    """The photos that a tag file names: decided ones that are here, or that it named before."""
    there = columns.from_file.copy()
    there[: columns.here] = True
    return np.flatnonzero((columns.state == State.decided) & there).astype(np.int32)
