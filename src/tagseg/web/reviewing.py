"""Looking through the masks of a run: acts come in, are on disk, and change what is known.

One process at a time, which may serve several pages. Whatever they ask goes through one lock, so
the review has one order, and it is the order that counts.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tagseg.console import user_cache
from tagseg.errors import DataError, TagError, WorkspaceError
from tagseg.formats.review import Accepted
from tagseg.maps import Labels
from tagseg.run.lock import FolderLock
from tagseg.session.run_to_review import RunToReview
from tagseg.web.background import PhotoNumbers
from tagseg.web.desk import MOST_SHOWN
from tagseg.web.pace import Pace
from tagseg.web.photo_folder import within
from tagseg.web.review_log import ReviewLog
from tagseg.web.review_masks import MaskFolder
from tagseg.web.review_states import STATES, States
from tagseg.web.review_wishes import Wishes
from tagseg.web.shown_masks import ShownMasks, page_colours

__all__ = ["ReviewedPhotos", "Reviewing"]

Bools = npt.NDArray[np.bool_]


class ReviewedPhotos:
    """The photos of a run, by number."""

    def __init__(self, run: RunToReview) -> None:
        self._run = run

    def __len__(self) -> int:
        return len(self._run.photos)

    def path(self, photo: int) -> Path:
        """Where the photo's file was found."""
        source = self._run.photos.sources[photo]
        if not isinstance(source, Path):
            raise DataError("is no file", where=self._run.photos.names[photo])
        return source

    def file(self, photo: int) -> Path:
        """The photo's file, links resolved; DataError if it is gone or lies elsewhere."""
        return within(self._run.home, self.path(photo), self._run.photos.names[photo])


class Reviewing:
    """What a person says of a run's masks, kept in a review's file.

    Attributes:
        run: that is looked through.
        photos: its training photos.
        shown: their masks.
        notes: what should be said at the start, a line each.
    """

    def __init__(self, run: RunToReview, review: Path) -> None:
        """Take the review up; TagsegError if it is in use, or cannot be read or kept."""
        self.run, self.photos = run, ReviewedPhotos(run)
        self.notes = list(run.notes)
        self._room = threading.RLock()
        self._pace = Pace()
        self._granted: deque[object] = deque(maxlen=MOST_SHOWN)  # wishes of pages
        self._folded = [name.casefold() for name in run.photos.names]
        self._colours = page_colours(len(run.classes))
        name = run.folder.absolute().name
        with ExitStack() as held:
            masks = MaskFolder(review, name, run.classes)
            lock = FolderLock(masks.folder)
            held.callback(lock.release)
            self._log = ReviewLog(review, name, run.classes)
            held.callback(self._log.close)
            self.states = States(run.photos.names, run.classes, run.photos.tags)
            for deed in self._log.deeds:
                self.states.apply(deed)
            self._held = held.pop_all()
        if self._log.dropped:
            self.notes.append(
                f"{review.name}: the last act was only half written when tagseg ended, and is left "
                "out"
            )
        self.shown = ShownMasks(run, masks)
        self._wishes = Wishes(run, self.states, self.shown, masks)
        self._trust = self._trust_of_photos()

    def _trust_of_photos(self) -> PhotoNumbers | None:
        """What computes the trust of photos, begun; None if the run says it."""
        measure = self.run.measure
        if measure.known is not None:
            return None
        made = PhotoNumbers(
            len(self.photos),
            1,
            measure.of_photo,
            file_of=self.photos.path,
            name="trust",
            keep=user_cache("review") / f"{measure.key}.npz",
        )
        made.start()
        return made

    # --- acts -----------------------------------------------------------------------------------

    def act(self, wanted: Mapping[str, Any]) -> str:
        """Do what a page asks for, and say what was done, once it is on disk.

        A wish with the same ``wish``, which the page makes up, is granted once.

        Raises DataError for what cannot be done, WorkspaceError if it cannot be written.
        """
        with self._room:
            wish = wanted.get("wish")
            if wish is not None and wish in self._granted:
                return ""  # the page did not hear that it was done, and asks again
            self._check_run()
            before = self._decided()
            deed = self._wishes.deed(wanted)
            self._log.append(deed)
            self.states.apply(deed)
            self._pace.add(self._decided() - before)
            self._granted.append(wish)
            if deed.undo:
                return "undone"
            last = self.states.undoable[-1]
            return f"{last.what} ({self.run.photos.names[last.photo]})"

    def _check_run(self) -> None:
        """Raise WorkspaceError if the run's masks are others than those that pages show."""
        if not all(maps.are_there() for maps in self.run.maps):
            raise WorkspaceError(
                "was trained again meanwhile, so other masks are there than were shown",
                where=self.run.folder,
                do="start tagseg review again",
            )

    def _decided(self) -> int:
        return int(np.count_nonzero(self.states.state))

    # --- questions ------------------------------------------------------------------------------

    def started(self) -> dict[str, Any]:
        """What does not change while the server runs, for the page."""
        return {
            "run": self.run.folder.absolute().name,
            "order": self.run.measure.about,
            "candidates": [maps.title for maps in self.run.maps],
            "crisp": self.run.crisp is not None,
            "byClass": self.run.by_class,
            "notes": self.notes,
        }

    def view(self, show: str, search: str = "", order: str = "name") -> npt.NDArray[np.int32]:
        """The photos to be shown.

        Args:
            show: ``all``, ``done``, ``tags`` (other ones than the data set's), a state, or
                ``class-3`` for the photos of class number 3.
            search: a part of the name.
            order: ``name``, or ``trust`` for the least trusted first.

        Raises TagError if there is no such thing to show.
        """
        with self._room:
            wanted = np.flatnonzero(self._filtered(show))
            if search:
                part = search.casefold()
                wanted = np.array([i for i in wanted.tolist() if part in self._folded[i]], np.intp)
            if order == "trust":
                wanted = wanted[np.argsort(self.trust()[wanted], kind="stable")]
            return wanted.astype(np.int32)

    def _filtered(self, show: str) -> Bools:
        states = self.states
        kind, _, number = show.partition("-")
        if show == "all":
            return np.ones(len(self.photos), bool)
        if show == "done":
            return states.state > 0
        if show == "tags":
            return states.has_other_tags()
        if show in STATES:
            return states.state == STATES.index(show)
        if kind == "class" and number in map(str, range(len(self.run.classes))):
            return states.tags[:, int(number)]
        raise TagError("there is no such filter", do="load the page again")

    def trust(self) -> npt.NDArray[np.float32]:
        """How far the mask of each photo is trusted, (N,); NaN where that is not known yet."""
        known = self.run.measure.known
        if known is not None:
            return known
        assert self._trust is not None
        return self._trust.rows()[:, 0]

    def described(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        """What a page shows of photos; up to ``MOST_SHOWN`` of them."""
        with self._room:
            trust = self.trust()
            good = [i for i in ids[:MOST_SHOWN] if 0 <= i < len(self.photos)]
            return [self._described(i, float(trust[i])) for i in good]

    def _described(self, photo: int, trust: float) -> dict[str, Any]:
        states, given = self.states, self.run.photos.tags[photo]
        tags = states.tags[photo]
        return {
            "id": photo,
            "name": states.names[photo],
            "state": STATES[states.state[photo]],
            "tags": np.flatnonzero(tags).tolist(),
            "added": np.flatnonzero(tags & ~given).tolist(),
            "removed": np.flatnonzero(given & ~tags).tolist(),
            "trust": round(min(1.0, max(0.0, trust)), 2) if np.isfinite(trust) else None,
            "v": int(states.touched[photo]),
        }

    def news(self, since: int) -> dict[str, Any]:
        """What has changed after deed ``since``, and how things stand."""
        with self._room:
            states = self.states
            touched = np.flatnonzero(states.touched > since).tolist()
            many = len(touched) > MOST_SHOWN
            last = states.undoable[-1] if states.undoable else None
            return {
                "n": states.n,
                "photos": [] if many else self.described(touched),
                "many": many,
                "undo": None if last is None else {"n": last.n, "what": last.what},
                "anHour": self._pace.an_hour(),
                "scored": 0 if self._trust is None else self._trust.version,
                "problem": "",
                "classes": self._classes(),
                "counts": self.counts(),
            }

    def _classes(self) -> list[dict[str, Any]]:
        photos = np.count_nonzero(self.states.tags, axis=0).tolist()
        return [
            {"id": c, "name": name, "photos": photos[c], "colour": self._colours[c + 1].tolist()}
            for c, name in enumerate(self.run.classes)
        ]

    def counts(self) -> dict[str, int]:
        """How many photos there are, by what was said of them."""
        of_state = np.bincount(self.states.state, minlength=len(STATES)).tolist()
        counts = dict(zip(STATES, of_state, strict=True))
        tags = int(np.count_nonzero(self.states.has_other_tags()))
        return {**counts, "all": len(self.photos), "tags": tags}

    def mask(self, photo: int, which: str) -> Labels:
        """Labels of a photo at its size: ``now``, as they count, or a candidate's number.

        Raises MaskError if there are none.
        """
        with self._room:
            said, removed = self.states.said(photo).mask, self._wishes.removed(photo)
        if which == "now" and isinstance(said, Accepted):
            return self.shown.accepted(photo, said)
        return self.shown.candidate(photo, 0 if which == "now" else int(which), removed)

    def close(self) -> None:
        """Let the review go; a second call does nothing."""
        if self._trust is not None:
            self._trust.close()
        self._held.close()
