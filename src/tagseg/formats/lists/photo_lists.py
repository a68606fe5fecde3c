"""Lists of photos: text in, names out.

People write lists in many forms: names with or without suffix, paths, CSV, JSON, and the forms of
VOC 2012. A line is first looked up whole among the photos that are there. Only if it is none of
them is it taken apart, and then all such lines of the file in the same way.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from tagseg.data.finding import without_suffix
from tagseg.data.text import read_text
from tagseg.errors import TagError
from tagseg.formats.lists.list_forms import (
    CLASS_COLUMN,
    WHOLE,
    Form,
    Header,
    forms_of,
    header_of,
    is_file_name,
    name_in,
)
from tagseg.formats.lists.name_lookup import Found, NameLookup

__all__ = ["PhotoList", "no_list", "read_list", "read_names"]

_SUFFIXES = (".txt", ".csv", ".json", ".lst", ".list", "")  # of files that may be lists

_SHOWN = 200  # letters of a line in a message
_TRIED = 50  # lines, none of which names a photo in a form that is not that of the list

_WHAT_TO_DO = {
    "as it is": "write the file's whole name, or rename one",
    "without the first folders": "write the path from the photo folder on",
    "in other capitals": "write it with the capitals of its file",
    "by the file name": "write the folder too",
}


@dataclass(frozen=True)
class PhotoList:
    """The photos that a list names.

    Attributes:
        names: each once, in the list's order; of one that is not there, what is written, without
            suffix.
        where: file and line of each.
        absent: those of ``names`` that are no photos.
        notes: how the list was understood, a line each, where that is not plain.
    """

    names: tuple[str, ...]
    where: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def without(self, names: Collection[str]) -> PhotoList:
        """The list but for some names."""
        return replace(self, names=tuple(name for name in self.names if name not in names))

    def and_also(self, other: PhotoList) -> PhotoList:
        """Both lists as one."""
        return PhotoList(
            tuple(dict.fromkeys((*self.names, *other.names))),
            {**other.where, **self.where},
            tuple(dict.fromkeys((*self.absent, *other.absent))),
            tuple(dict.fromkeys((*self.notes, *other.notes))),
        )


class _Line(NamedTuple):
    where: str
    text: str


class _Read(NamedTuple):
    """A line, what of it is taken for the name, and the photos that this may mean."""

    line: _Line
    written: str
    found: Found


def read_names(path: Path) -> tuple[str, ...]:
    """Photo names from a list, one a line, each once, without suffix, whatever photos there are."""
    return read_list(path, NameLookup(())).names


def read_list(path: Path, photos: NameLookup) -> PhotoList:
    """The photos that a list names; blank lines and ``#`` comments are skipped.

    Raises TagError, with the line, for a list that names none, and for a line that may mean two
    photos. Names of photos that are not there are kept: who asks decides.
    """
    lines = _lines_of(path, photos)
    header = None
    if photos.names and lines and not _whole(lines[0], photos).found.names:
        header = header_of(lines[0].text)
    lines = lines[1:] if header is not None else lines
    if not lines:
        raise TagError("this list names no photos", where=path, do="write one name a line")
    whole = [_whole(line, photos) for line in lines]
    form, taken = _taken_apart(whole, header, photos)
    rest = iter(taken)
    reads = [read if read.found.names else next(rest) for read in whole]
    _check_clear(reads)
    return _list_of(reads, tuple(_notes(path, form, taken, reads, photos)))


def no_list(written: str | Path, folder: Path) -> TagError:
    """The error for a list that is not there, given as a path or by its name in ``folder``."""
    path, plain = Path(written), f"there is no list '{written}'"
    if path.is_dir() or (folder / path).is_dir():
        return TagError(
            f"'{written}' is a folder, no list", where=folder, do="give a file with one name a line"
        )
    places = dict.fromkeys((path.parent, folder, folder / "ImageSets" / "Segmentation"))
    files = [f for place in places if place.is_dir() for f in place.iterdir() if f.is_file()]
    stems = {name: str(f) for f in files for name in (f.name, f.stem)}
    near = get_close_matches(path.name, [f.name for f in files if f.suffix in _SUFFIXES], 1, 0.7)
    hint = f"; did you mean {stems[near[0]]}?" if near else ""
    return TagError(plain, where=folder, do=f"give a list file{hint}")


def _whole(line: _Line, photos: NameLookup) -> _Read:
    """The line as a photo's name or path, no more and no less; without photos if it is none."""
    return _Read(line, line.text, photos.find_plain(line.text))


def _taken_apart(
    whole: Sequence[_Read], header: Header | None, photos: NameLookup
) -> tuple[Form, list[_Read]]:
    """The form in which most of the lines that are no names name photos, and what they name."""
    lines = [read.line for read in whole if not read.found.names]
    names = [read for read in whole if read.found.names]
    candidates = {
        form: reads
        for form in (forms_of([line.text for line in lines], header) if lines else ())
        if (reads := _in_form(form, lines, photos)) is not None
        and (not form.in_all or not names or _all_have_it(form, names, photos))
    }
    most = max(map(_number_found, candidates.values()), default=0)
    if not most:
        return _as_written(lines, header, cut=not photos.names)
    best = {form: reads for form, reads in candidates.items() if _number_found(reads) == most}
    by_suffix = [f for f, reads in best.items() if all(is_file_name(r.written) for r in reads)]
    best = {form: best[form] for form in by_suffix} or best
    for at, line in enumerate(lines):
        _check_one_meaning(line, [reads[at] for reads in best.values()])
    form = next((form for form in best if form is not WHOLE), WHOLE)  # what says more of the line
    return form, best[form]


def _in_form(form: Form, lines: Sequence[_Line], photos: NameLookup) -> list[_Read] | None:
    """What the lines name in this form; None if not all of them have it."""
    reads = []
    for line in lines:
        written = form.name_in(line.text)
        if written is None:
            return None
        reads.append(_Read(line, written, photos.find(written)))
        if form is not WHOLE and len(reads) == _TRIED and not _number_found(reads):
            return None
    if form.in_all and len({read.written for read in reads}) < len(reads):
        return None  # "cat 1" and "cat 0" are two names
    if form is not WHOLE and 2 * _number_found(reads) < len(reads):
        return None
    return reads


def _number_found(reads: Iterable[_Read]) -> int:
    return sum(bool(read.found.names) for read in reads)


def _as_written(
    lines: Sequence[_Line], header: Header | None, *, cut: bool
) -> tuple[Form, list[_Read]]:
    """Lines of which none names a photo that is there; ``cut``: they may be a class list of VOC."""
    bare = [CLASS_COLUMN.name_in(line.text) for line in lines]
    is_class_list = cut and None not in bare and len(set(bare)) == len(bare)
    form = CLASS_COLUMN if is_class_list else WHOLE
    form = header.form() if header is not None else form
    return form, [_Read(li, form.name_in(li.text) or li.text, Found(())) for li in lines]


def _all_have_it(form: Form, names: Sequence[_Read], photos: NameLookup) -> bool:
    """Whether lines that are photos' names as they stand may have the form of the others, too.

    TagError if one may: then it has two meanings.
    """
    for read in names:
        cut = form.name_in(read.line.text)
        if cut is not None:
            _check_one_meaning(read.line, [read, _Read(read.line, cut, photos.find(cut))])
    return False


def _check_one_meaning(line: _Line, reads: Iterable[_Read]) -> None:
    meant = list(dict.fromkeys(name for read in reads for name in read.found.names[:1]))
    if len(meant) > 1:
        raise TagError(
            f"'{_short(line.text)}' may mean photo '{meant[0]}' or '{meant[1]}'",
            where=line.where,
            do="write one name a line, with its suffix",
        )


def _check_clear(reads: Iterable[_Read]) -> None:
    """Raise TagError for a name of several photos, and for two names of one that may be others."""
    taken: dict[str, str] = {}
    for read in reads:
        names, how = read.found
        if len(names) > 1:
            raise TagError(
                f"'{read.written}' may mean photo '{names[0]}' or '{names[1]}'",
                where=read.line.where,
                do=_WHAT_TO_DO[how],
            )
        if names and how == "without the first folders":
            first = taken.setdefault(names[0], read.written)
            if without_suffix(first) != without_suffix(read.written):
                raise TagError(
                    f"'{first}' and '{read.written}' would both be photo '{names[0]}'",
                    where=read.line.where,
                    do=_WHAT_TO_DO[how],
                )


def _notes(
    path: Path, form: Form, taken: Sequence[_Read], reads: Sequence[_Read], photos: NameLookup
) -> Iterator[str]:
    example = next((read for read in taken if read.found.names), None)
    if form.note and example is not None:
        line, name = example.line.text, example.found.names[0]
        yield f"{path.name}: {form.note}: '{_short(line)}' is photo '{name}'"
    for how in _WHAT_TO_DO:
        so = [read for read in reads if read.found.names and read.found.how == how]
        if so and how != "as it is":
            first = so[0]
            names = f"{len(so)} name{'s are' if len(so) > 1 else ' is'}"
            yield (
                f"{path.name}: {names} found {how}: '{first.written}' is photo "
                f"'{first.found.names[0]}'"
            )
    for read in reads:
        cut = CLASS_COLUMN.name_in(read.written) if read.found.names else None
        if cut is not None and photos.find_plain(cut).names:
            yield (
                f"{path.name}: '{read.written}' is the photo of that whole name, not '{cut}' with "
                "a class column"
            )
            return


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _list_of(reads: Sequence[_Read], notes: tuple[str, ...]) -> PhotoList:
    where: dict[str, str] = {}
    absent = []
    for read in reads:
        name = read.found.names[0] if read.found.names else _plain(read.written)
        if name not in where and not read.found.names:
            absent.append(name)
        where.setdefault(name, read.line.where)
    return PhotoList(tuple(where), where, tuple(absent), notes)


def _plain(written: str) -> str:
    """The name of a photo that is not there; of VOC's pairs of paths the first."""
    path = written.replace("\\", "/")
    if path.startswith("/"):
        path = re.split(r"\s+(?=/)", path)[0].removeprefix("/").removeprefix("JPEGImages/")
    return without_suffix(path.removeprefix("./"))


def _lines_of(path: Path, photos: NameLookup) -> list[_Line]:
    text = read_text(path, TagError)
    alone = _whole(_Line(str(path), text.strip()), photos).found.names  # a photo "[1]", no JSON
    entries = None if alone else _entries_of(path, text)
    if entries is not None:
        return entries
    found = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        where = f"{path}, line {number}"
        # Spaces around and # belong to a name if there is such a photo.
        if line != line.strip() and _whole(_Line(where, line), photos).found.names:
            found.append(_Line(where, line))
        elif (tidy := line.strip()) and (
            not tidy.startswith("#") or _whole(_Line(where, tidy), photos).found.names
        ):
            found.append(_Line(where, tidy))
    return found


def _entries_of(path: Path, text: str) -> list[_Line] | None:
    """The entries of a list that is JSON, or Python; None for another."""
    whole = _parsed(text)
    if isinstance(whole, dict) and isinstance(whole.get("images"), list):
        whole = whole["images"]  # COCO
    if isinstance(whole, dict) and name_in(whole) is None:
        lists = [str(key) for key, value in whole.items() if isinstance(value, list)]
        if len(lists) == 1:
            whole = whole[lists[0]]
        elif lists:
            raise TagError(
                f"holds several lists: {', '.join(lists[:5])}", where=path, do="give a file of one"
            )
    if not isinstance(whole, list | tuple):
        return None
    entries = []
    for number, entry in enumerate(whole, start=1):
        where, name = f"{path}, entry {number}", name_in(entry)
        if name is None:
            raise TagError("names no photo", where=where, do='write a name, such as "a.jpg"')
        entries.append(_Line(where, name))
    return entries


def _parsed(text: str) -> Any:
    """What JSON or a Python list says; None for other text."""
    if not text.lstrip().startswith(("[", "{", "(")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python, on backslashes
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None
