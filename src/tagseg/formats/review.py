"""``review.jsonl``: what a person said about the masks and the tags of a run, a line an act.

    {"tagseg_review": 1, "run": "pets", "classes": ["cat", "dog"]}
    {"photo": "a", "at": "2026-11-30T10:00:00Z", "act": "right",
     "mask": "review/a-1.png", "sha256": "..."}
    {"photo": "b", "at": "2026-11-30T10:00:03Z", "act": "wrong"}
    {"photo": "b", "at": "2026-11-30T10:00:05Z", "act": "tags", "add": ["cat"], "remove": []}

An act stands on one line. Of the acts on a photo the last one on its mask counts, and the last one
on its tags; ``clear`` makes all before it void. Keys that are not named here do no harm.

Masks lie beside the file or in folders there, as PNG with a palette or grey: 0 background, k + 1
the class k of the first line, 255 not sure, of the photo's own size as it is displayed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tagseg.data.masks import decode_mask
from tagseg.data.pictures import MAX_PIXELS, open_picture
from tagseg.errors import DataError, ImageError, MaskError, choose_from, printable
from tagseg.input_files import MOST_TEXT, check_plain
from tagseg.maps import IGNORE, MAX_CLASSES, Labels

__all__ = [
    "ACCEPTING",
    "FORMAT",
    "Accepted",
    "Act",
    "Cleared",
    "Rejected",
    "Retagged",
    "ReviewFile",
    "Standing",
    "act_line",
    "head_line",
    "read_review",
    "read_reviewed_mask",
    "standing_acts",
]

FORMAT = 1
"""Number of this form of the file."""

ACCEPTING = ("right", "pick", "corrected")
"""Acts that say what a photo's mask is: as it was shown, one of the candidates, one drawn over."""

_HEAD = "tagseg_review"
_MOST_LINE = 1 << 20  # bytes
_MOST_NAME = 4096  # characters of a photo's name, a path or an id
_MOST_PNG = 1 << 28  # bytes of a mask
_NO_NAMES: tuple[str, ...] = ()
_DIGEST = re.compile(r"[0-9a-f]{64}")
_START_AGAIN = "make a new review with tagseg review"


@dataclass(frozen=True, kw_only=True)
class Act:
    """What a person did to one photo.

    Attributes:
        photo: its name in the data set.
        at: when, in UTC.
        line: where it stands in its file, 0 for one that is from no file; no part of the act.
    """

    photo: str
    at: datetime
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, kw_only=True)
class Accepted(Act):
    """A mask that a person looked at and took for the photo's.

    Attributes:
        how: one of :data:`ACCEPTING`.
        mask: path of the mask, relative to the folder of the review, with slashes.
        sha256: of the mask's file, 64 hexadecimal digits.
        candidate: id of the prediction that was picked; None unless ``how`` is ``pick``.
    """

    how: str
    mask: str
    sha256: str
    candidate: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rejected(Act):
    """No mask that was shown is right."""


@dataclass(frozen=True, kw_only=True)
class Retagged(Act):
    """The whole difference between the photo's tags as they ought to be and the data set's.

    Attributes:
        add, remove: names of classes.
    """

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cleared(Act):
    """All earlier acts on the photo are void."""


class Standing(NamedTuple):
    """The acts on a photo that count."""

    mask: Accepted | Rejected | None = None
    tags: Retagged | None = None


@dataclass(frozen=True)
class ReviewFile:
    """A review as it stands in a file.

    Attributes:
        path: of the file; masks are looked for in its folder.
        run: which run's masks were looked at, as the page calls it.
        classes: what the masks' values 1, 2, ... mean.
        acts: all of them, in their order.
        notes: lines for the user, such as about a line that was cut by a kill.
    """

    path: Path
    run: str
    classes: tuple[str, ...]
    acts: tuple[Act, ...]
    notes: tuple[str, ...] = ()


# --- from acts to lines -------------------------------------------------------------------------


def head_line(run: str, classes: Sequence[str]) -> bytes:
    """The first line of a review, with its line feed."""
    return _line({_HEAD: FORMAT, "run": run, "classes": list(classes)})


def act_line(act: Act) -> bytes:
    """The line of an act, with its line feed; :func:`read_review` gives the same act back."""
    at = act.at.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
    common = {"photo": act.photo, "at": at}
    match act:
        case Accepted():
            picked = {} if act.candidate is None else {"candidate": act.candidate}
            return _line(
                common | {"act": act.how} | picked | {"mask": act.mask, "sha256": act.sha256}
            )
        case Retagged():
            return _line(common | {"act": "tags", "add": list(act.add), "remove": list(act.remove)})
        case Rejected():
            return _line(common | {"act": "wrong"})
        case Cleared():
            return _line(common | {"act": "clear"})
    raise TypeError(f"{type(act).__name__} is no act of a review")


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"  # ASCII: the rest is escaped


# --- from lines to acts -------------------------------------------------------------------------


def read_review(path: Path) -> ReviewFile:
    """Read a review; DataError, with file and line, for one that is damaged or of another kind.

    Whoever writes the file may be killed: a last line without its end, which nobody was told is
    saved, is ignored and told in ``notes``. No mask is opened here.
    """
    path = Path(path)
    content = _content(path)
    run, classes = "", _NO_NAMES
    acts: list[Act] = []
    notes: tuple[str, ...] = ()
    for number, line in _lines(content):
        where = f"{path}, line {number}"
        entry = _entry(line)
        if entry is None and number > 1 and _is_torn(line, content):
            notes = (f"{path.name}: the last line ({number}) was cut short and is ignored",)
        elif number == 1:
            run, classes = _head(entry, path)
        elif entry is None:
            raise DataError("not one JSON object", where=where, do=f"mend it, or {_START_AGAIN}")
        else:
            acts.append(_act(entry, classes, number, where))
    if not classes:
        raise _of_another(path)
    return ReviewFile(path, run, classes, tuple(acts), notes)


def standing_acts(acts: Iterable[Act]) -> dict[str, Standing]:
    """The acts that count, by photo, in the order in which photos are first named.

    A photo of which all acts were cleared is not in it.
    """
    standing: dict[str, Standing] = {}
    for act in acts:
        before = standing.get(act.photo, Standing())
        match act:
            case Accepted() | Rejected():
                standing[act.photo] = before._replace(mask=act)
            case Retagged():
                standing[act.photo] = before._replace(tags=act)
            case _:
                standing.pop(act.photo, None)
    return standing


def _content(path: Path) -> bytes:
    check_plain(path, DataError, MOST_TEXT)
    try:
        return path.read_bytes()
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or "reading failed"
        raise DataError(f"cannot be read: {reason}", where=path, do="check the path") from None


def _lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and text of every line that is not blank; only the last may have no end."""
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            yield number, line


def _is_torn(line: bytes, content: bytes) -> bool:
    return not content.endswith(b"\n") and content.endswith(line)


def _entry(line: bytes) -> dict[str, Any] | None:
    if len(line) > _MOST_LINE:
        return None
    try:
        value = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _of_another(path: Path) -> DataError:
    return DataError(
        "is no review that this tagseg can read",
        where=path,
        do="give the review.jsonl of tagseg review",
    )


def _head(entry: dict[str, Any] | None, path: Path) -> tuple[str, tuple[str, ...]]:
    form = None if entry is None else entry.get(_HEAD)
    if entry is None or isinstance(form, bool) or form != FORMAT:
        raise _of_another(path)
    where = f"{path}, line 1"
    classes = _names(entry, "classes", where)
    if not 0 < len(classes) <= MAX_CLASSES or "background" in classes:
        raise _wrong("classes", "the names of 1 to 254 classes, without background", where)
    run = entry.get("run")
    if not isinstance(run, str):
        raise _wrong("run", "a text", where)
    return run, classes


def _act(entry: dict[str, Any], classes: Sequence[str], number: int, where: str) -> Act:
    kind = entry.get("act")
    read = _ACTS.get(kind) if isinstance(kind, str) else None
    if read is None:
        shown = repr(kind)[:40]
        raise DataError(f"act is {shown}", where=where, do=choose_from(_ACTS, str(kind)[:40]))
    act = read(entry, classes, where)
    return replace(act, line=number)


def _accepted(entry: dict[str, Any], _classes: Sequence[str], where: str) -> Accepted:
    how = str(entry["act"])
    digest = _text(entry, "sha256", where)
    if not _DIGEST.fullmatch(digest):
        raise _wrong("sha256", "64 hexadecimal digits", where)
    return Accepted(
        photo=_text(entry, "photo", where),
        at=_time(entry, where),
        how=how,
        mask=_inner_path(entry, where),
        sha256=digest,
        candidate=_text(entry, "candidate", where) if how == "pick" else None,
    )


def _rejected(entry: dict[str, Any], _classes: Sequence[str], where: str) -> Rejected:
    return Rejected(photo=_text(entry, "photo", where), at=_time(entry, where))


def _cleared(entry: dict[str, Any], _classes: Sequence[str], where: str) -> Cleared:
    return Cleared(photo=_text(entry, "photo", where), at=_time(entry, where))


def _retagged(entry: dict[str, Any], classes: Sequence[str], where: str) -> Retagged:
    add, remove = _names(entry, "add", where), _names(entry, "remove", where)
    for name in (*add, *remove):
        if name not in classes:
            shown = printable(name[:80])
            raise DataError(
                f"'{shown}' is no class of the first line",
                where=where,
                do=choose_from(classes, name[:80]),
            )
    both = sorted({*add} & {*remove})
    if both:
        raise DataError(
            f"'{printable(both[0])}' is added and removed", where=where, do="do one of both"
        )
    return Retagged(
        photo=_text(entry, "photo", where), at=_time(entry, where), add=add, remove=remove
    )


_ACTS: dict[str, Callable[[dict[str, Any], Sequence[str], str], Act]] = {
    **dict.fromkeys(ACCEPTING, _accepted),
    "wrong": _rejected,
    "tags": _retagged,
    "clear": _cleared,
}


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_NAME or "\0" in value:
        raise _wrong(key, "a text", where)
    return value


def _names(entry: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    """Names of classes, each once."""
    names = entry.get(key, [])
    if not isinstance(names, list) or not all(isinstance(n, str) and n for n in names):
        raise _wrong(key, "a list of names", where)
    if len(set(names)) < len(names):
        raise _wrong(key, "a list with each name once", where)
    return tuple(names)


def _time(entry: Mapping[str, Any], where: str) -> datetime:
    try:
        at = datetime.fromisoformat(_text(entry, "at", where))
        if at.utcoffset() == timedelta():
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise _wrong("at", "a time in UTC, such as 2026-11-30T10:00:00Z", where)


def _inner_path(entry: Mapping[str, Any], where: str) -> str:
    """A path that its words keep inside the folder; links are followed when it is opened."""
    text = _text(entry, "mask", where)
    parts = PurePosixPath(text).parts
    if text.startswith("/") or ".." in parts or "\\" in text or ":" in text or not parts:
        raise _wrong("mask", "a path inside the folder of the review", where)
    return text


def _wrong(key: str, wanted: str, where: str) -> DataError:
    return DataError(f"'{key}' is not {wanted}", where=where, do=f"mend it, or {_START_AGAIN}")


# --- masks --------------------------------------------------------------------------------------


def read_reviewed_mask(review: ReviewFile, act: Accepted, shape: tuple[int, int]) -> Labels:
    """The mask of an act, uint8 (H, W), in the order of the review's own classes.

    Args:
        review: where the act is from.
        act: what a person accepted.
        shape: height and width of the photo as it is displayed.

    Raises MaskError if the file is outside the review's folder, has changed since, has another
    size, or does not hold numbers of its classes. The size is compared before pixels are decoded.
    """
    path = _mask_path(review, act)
    check_plain(path, MaskError, _MOST_PNG)
    try:
        data = path.read_bytes()
    except OSError as problem:
        reason = problem.strerror or "reading failed"
        raise MaskError(
            f"cannot be read: {reason}", where=path, do="keep masks beside the review"
        ) from None
    if sha256(data).hexdigest() != act.sha256:
        raise MaskError("is not the mask that was accepted", where=path, do=_look_again(act))
    return _checked(data, shape, len(review.classes), path)


def _mask_path(review: ReviewFile, act: Accepted) -> Path:
    """The mask's file, links resolved; MaskError if it is elsewhere or missing."""
    home = review.path.parent
    path = home / act.mask
    try:
        real, folder = path.resolve(strict=True), home.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        raise MaskError(
            "this mask of the review is missing", where=path, do="keep masks beside the review"
        ) from None
    if not real.is_relative_to(folder):
        raise MaskError(
            "lies outside the folder of the review", where=path, do="copy the mask into it"
        )
    return real


def _checked(data: bytes, shape: tuple[int, int], n_classes: int, path: Path) -> Labels:
    try:
        kind, picture = open_picture(data, path, MAX_PIXELS)
    except ImageError as problem:
        raise MaskError(problem.what, where=path, do=problem.do) from None
    if kind != "PNG" or picture.mode not in ("P", "L"):
        raise MaskError(
            "is no PNG with a palette", where=path, do="save numbers of classes, not colours"
        )
    if (picture.height, picture.width) != shape:
        raise MaskError(
            f"has {picture.width} x {picture.height} pixels, its photo {shape[1]} x {shape[0]}",
            where=path,
            do="give masks of the photo's own size",
        )
    try:
        labels = decode_mask(data)
    except MaskError as problem:
        raise MaskError(problem.what, where=path, do=problem.do) from None
    strange = labels[(labels > n_classes) & (labels != IGNORE)]
    if strange.size:
        raise MaskError(
            f"holds class {strange[0]}, but the review has {n_classes} classes",
            where=path,
            do="mark such pixels 255",
        )
    return labels


def _look_again(act: Accepted) -> str:
    return f"look at photo '{printable(act.photo)}' again in tagseg review"
