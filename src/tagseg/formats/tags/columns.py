"""Which columns of a table name the photos and their tags, by header and content."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from tagseg.data.finding import PHOTO_SUFFIXES
from tagseg.errors import TagError
from tagseg.formats.tags.tables import Table
from tagseg.formats.tags.tag_rows import listed

__all__ = [
    "CONFIDENCES",
    "IMAGES",
    "OTHERS",
    "TAGS",
    "Columns",
    "find_columns",
    "folded",
    "looks_like_photo",
    "no_tags_column",
    "rate_header",
    "rate_headless",
]

# Names of columns and JSON keys, folded: small letters and digits alone.
_IMAGE_NAMES = """
    image images imagename imagefile imagefilename imagepath imagefilepath imageid imageuri
    imageurl img imgname imgfile imgpath imgid filename filenames file files filepath path paths
    fname photo photos photoname photoid photopath picture pictures picturename pic relpath
    relativepath url uri externalid
"""
_TAG_NAMES = """
    tags tag labels label class classes classname classnames category categories categoryname
    categorynames labelname labelnames taglist keyword keywords choice choices annotation
    annotations object objects objectname target targets groundtruth species breed imagelabels
    imagelabel imagetags displayname
"""
_OTHER_NAMES = """
    index idx unnamed0 split set subset fold partition usage dataset width height w h depth
    channels imagewidth imageheight imgwidth imgheight source license area difficult truncated
    occluded iscrowd isoccluded istruncated isgroupof isdepiction isinside xmin xmax ymin ymax x
    y x1 y1 x2 y2 bbox rotation originalurl originalsize author title annotator annotationid
    createdat updatedat leadtime istrain isvalid isval istest date time timestamp md5 sha256
    classid labelid categoryid targetid
"""
IMAGES = frozenset(_IMAGE_NAMES.split())
TAGS = frozenset(_TAG_NAMES.split())
OTHERS = frozenset(_OTHER_NAMES.split())  # of a photo, but no class, though of 0 and 1
CONFIDENCES = frozenset(("confidence", "score", "probability", "prob", "conf", "confidences"))
_WEAK_IMAGES = frozenset(("id", "name", "ids", "names", "key", "sample", "uuid"))
_MANY = re.compile(r"(tag|label|class|category|keyword)[ _-]?\d+", re.IGNORECASE)
_BEGIN = "begin with the line image,tags and put ; between tags"


@dataclass(frozen=True)
class Columns:
    """Where a table says what.

    Attributes:
        header: names of the columns, as written; empty if the table has none.
        image: the column of photos.
        tags: columns of tags; empty if each class may have a column of its own.
        notes: a line where the choice is not plain.
    """

    header: tuple[str, ...]
    image: int
    tags: tuple[int, ...]
    notes: tuple[str, ...] = ()


def folded(name: str) -> str:
    """A column's name for comparison: small letters and digits alone."""
    return re.sub(r"[\W_]+", "", name).lower()


def looks_like_photo(cell: str) -> bool:
    """Whether a text ends as the name of a photo does."""
    return PurePosixPath(cell).suffix.lower() in PHOTO_SUFFIXES


def rate_header(cells: Sequence[str]) -> int:
    """How sure a row is a header: 3 names photos and tags, 2 photos, 1 tags or weak names."""
    names = [folded(cell) for cell in cells]
    if len(names) < 2:
        return 0
    image, tags = (any(name in known for name in names) for known in (IMAGES, TAGS))
    weak = any(name in _WEAK_IMAGES for name in names)
    if image:
        return 3 if tags else 2
    return 2 if weak and tags else int(weak)


def rate_headless(table: Table, is_photo: Callable[[str], bool]) -> int:
    """How well rows fit without a header that is known: over 0, a column holds photos."""
    width = max((len(record.cells) for record in table.records), default=0)
    if width < 2 or len({len(record.cells) for record in table.records}) > 2:
        return 0
    return max((_photos_in(table, i, is_photo) for i in range(width)), default=0)


def find_columns(table: Table, is_photo: Callable[[str], bool]) -> Columns:
    """The columns of a table; TagError, naming those in question, where they cannot be told."""
    if not table.records:
        raise TagError("the first line has no column 'image'", where=table.path, do=_BEGIN)
    header = table.records[0].cells
    if _is_row(header, table, is_photo):
        return _headless(table, is_photo)
    _refuse_class_list_of_masks(header, table)
    image, image_notes = _image_column(header, table, is_photo)
    tags, tag_notes = _tag_columns(header, image, table)
    return Columns(header, image, tags, (*image_notes, *tag_notes))


def _is_row(cells: Sequence[str], table: Table, is_photo: Callable[[str], bool]) -> bool:
    """Whether the first row is a photo's already."""
    if rate_header(cells) >= 2:
        return False
    return any(
        (looks_like_photo(cell) or is_photo(cell)) and _photos_in(table, i, is_photo) > 0
        for i, cell in enumerate(cells)
        if cell
    )


def _headless(table: Table, is_photo: Callable[[str], bool]) -> Columns:
    width = max(len(_trimmed(record.cells)) for record in table.records)
    photos = [i for i in range(width) if _photos_in(table, i, is_photo)]
    if width != 2 or not photos:
        raise TagError(
            "the first line has no column 'image'",
            where=table.path,
            do=f"{_BEGIN} (without names of columns there may be two: photo and tags)",
        )
    image = photos[0]
    note = "no line with names of columns: "
    note += "photos, then tags" if image == 0 else "tags, then photos"
    return Columns((), image, (1 - image,), (f"{table.path.name}: {note}",))


def _refuse_class_list_of_masks(header: Sequence[str], table: Table) -> None:
    names = {folded(cell) for cell in header}
    if "pixelvalue" in names and not names & IMAGES:
        raise TagError(
            "this says which pixel value is which class in masks, and nothing of photos",
            where=table.path,
            do="give tags with --tags; write the classes, in the order of the values, into "
            "classes.txt",
        )


def _image_column(
    header: Sequence[str], table: Table, is_photo: Callable[[str], bool]
) -> tuple[int, tuple[str, ...]]:
    names = [folded(cell) for cell in header]
    found = [i for i, name in enumerate(names) if name in IMAGES]
    found = found or [i for i, name in enumerate(names) if name in _WEAK_IMAGES]
    if len(found) == 1:
        return found[0], ()
    if found:
        return _best_image_column(found, names, header, table, is_photo)
    found = [i for i in range(len(header)) if _photos_in(table, i, is_photo)]
    if len(found) == 1:
        shown = header[found[0]] or f"number {found[0] + 1}"
        return found[0], (f"{table.path.name}: photos are named in column '{shown}'",)
    raise _no_column("image", header, table)


def _best_image_column(
    found: Sequence[int],
    names: Sequence[str],
    header: Sequence[str],
    table: Table,
    is_photo: Callable[[str], bool],
) -> tuple[int, tuple[str, ...]]:
    """The one of several that names photos which are there."""
    rated = {i: _photos_in(table, i, is_photo) for i in found}
    best = [i for i in found if rated[i] == max(rated.values())]
    exact = [i for i in best if names[i] == "image"]
    if len(exact) == 1 or len(best) == 1:
        return (*exact, *best)[0], ()
    stems = [
        {PurePosixPath(r.cells[i]).stem for r in table.records[1:] if i < len(r.cells)}
        for i in best
    ]
    if all(stem == stems[0] for stem in stems) and any(rated.values()):
        return best[0], ()
    both = " and ".join(f"'{header[i]}'" for i in best)
    what = f"columns {both} may name the photos"
    raise TagError(what, where=table.path, do="call the right one 'image'")


def _tag_columns(
    header: Sequence[str], image: int, table: Table
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    found = [i for i, cell in enumerate(header) if folded(cell) in TAGS and i != image]
    exact = [i for i in found if header[i].lower() == "tags"]
    if len(exact) == 1 or len(found) == 1:
        return tuple(exact or found), ()
    if not found:
        many = tuple(i for i, cell in enumerate(header) if _MANY.fullmatch(cell))
        note = f"{table.path.name}: each of {listed(header[i] for i in many)} holds tags"
        return many, (note,) if many else ()
    return _best_tag_column(found, header, table)


def _best_tag_column(
    found: Sequence[int], header: Sequence[str], table: Table
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The one of several that holds names, not numbers."""
    cells = {i: [r.cells[i] for r in table.records[1:] if i < len(r.cells)] for i in found}
    words = [i for i in found if any(c and not _is_number(c) for c in cells[i])]
    if len(words) == 1 or (words and all(cells[i] == cells[words[0]] for i in words)):
        note = f"{table.path.name}: tags are read in column '{header[words[0]]}'"
        return (words[0],), (note,)
    both = " and ".join(f"'{header[i]}'" for i in words or found)
    what = f"columns {both} may hold the tags"
    raise TagError(what, where=table.path, do="call the right one 'tags'")


def no_tags_column(header: Sequence[str], table: Table) -> TagError:
    """The error for a table of which no column can be tags."""
    return _no_column("tags", header, table)


def _no_column(wanted: str, header: Sequence[str], table: Table) -> TagError:
    shown = listed((f"'{cell}'" for cell in header if cell), 8)
    return TagError(
        f"the first line has no column '{wanted}'",
        where=table.path,
        do=_BEGIN + (f"; it has {shown}" if shown else ""),
    )


def _photos_in(table: Table, column: int, is_photo: Callable[[str], bool]) -> int:
    """How many cells of a column name photos; 0 if a tenth or more do not."""
    cells = [r.cells[column] for r in table.records[1:] if len(r.cells) > column] or [
        r.cells[column] for r in table.records if len(r.cells) > column
    ]
    filled = [cell for cell in cells if cell]
    there = sum(map(is_photo, filled))
    if there < 0.9 * len(filled):
        there = sum(looks_like_photo(cell) for cell in filled)
    return there if there > 0.9 * len(filled) else 0


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _trimmed(cells: Sequence[str]) -> list[str]:
    kept = list(cells)
    while kept and not kept[-1]:
        kept.pop()
    return kept
