"""``tagseg review``: the page for looking through a run's masks, from its start to its end."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tagseg.errors import DataError
from tagseg.session.recorded import ParseTrain, remember
from tagseg.web.serve import Address, Opening, check_installed, listen, serve_page, serving

if TYPE_CHECKING:
    from tagseg.web.reviewing import Reviewing

__all__ = ["ToReview", "review_run"]

_REVIEW = "review.jsonl"


class ToReview(NamedTuple):
    """What is to be reviewed, as the command line has it.

    Attributes:
        run: folder of a finished run.
        out: the review's file; None for ``review.jsonl`` in the run.
        photos: folder of the run's photos; None for that of its command.
    """

    run: Path
    out: Path | None = None
    photos: Path | None = None


def review_run(
    what: ToReview,
    at: Address,
    *,
    browser: bool = True,
    parse: ParseTrain,
    say: Callable[[str], None],
) -> None:
    """Serve the page until a KeyboardInterrupt, which is the usual end; then say what was done.

    Raises ConfigError if the server's packages are not installed or it cannot listen there, and
    TagsegError if the run cannot be reviewed.
    """
    check_installed()
    from tagseg.session.run_to_review import open_run
    from tagseg.web.review_app import review_app
    from tagseg.web.reviewing import Reviewing
    from tagseg.web.thumbnails import Thumbnails

    review = what.out if what.out is not None else what.run / _REVIEW
    with listen(at) as sock:
        run = open_run(what.run, what.photos, parse)
        _check_place(review, run.home)
        if what.photos is not None:
            remember(what.run, what.photos)
        reviewing = Reviewing(run, review)
        begun = reviewing.states.n
        lines = [
            *reviewing.notes,
            f"{len(reviewing.photos)} photos of {what.run}; which come first is told by "
            f"{run.measure.about}",
        ]
        try:
            with serving(review_app(reviewing, Thumbnails()), sock, at.host) as url:
                serve_page(url, Opening(lines, "look through their masks", browser), say)
        finally:
            reviewing.close()
            for line in _end(reviewing, review, reviewing.states.n - begun):
                say(line)


def _check_place(review: Path, home: Path) -> None:
    """Raise DataError unless the review may lie there: a file among photos is taken for tags."""
    if not review.parent.is_dir():
        raise DataError("there is no such folder", where=review.parent, do="check --out")
    if review.parent.resolve() in (home.resolve(), (home / "JPEGImages").resolve()):
        raise DataError(
            "lies among the photos, where it would be taken for their tags",
            where=review,
            do="give another folder with --out",
        )


def _end(reviewing: Reviewing, review: Path, acts: int) -> Iterator[str]:
    """What was done, and how to go on."""
    counts = reviewing.counts()
    kinds = [f"{counts[state]} {word}" for state, word in _WORDS.items() if counts[state]]
    looked = counts["all"] - counts["todo"]
    yield f"{acts} acts now; {looked} of {counts['all']} photos looked at in all"
    if not kinds:
        return
    yield f"in {review}: {', '.join(kinds)}"
    again = reviewing.run.command.again(review)
    if again:
        yield f"learn from it: {again}"
    else:
        yield f"learn from it: train as before, with --review {shlex.quote(str(review))}"


_WORDS = {
    "right": "right",
    "pick": "picked",
    "corrected": "corrected",
    "wrong": "wrong",
    "unsure": "not sure",
    "tags": "with other tags",
}
