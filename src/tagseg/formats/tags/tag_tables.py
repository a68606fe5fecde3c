"""Tables of tags: a column of tags, a column a class, or a row a tag with its confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tagseg.data.text import read_text_and_notes, tidy_name
from tagseg.errors import TagError
from tagseg.formats.tags.columns import (
    CONFIDENCES,
    OTHERS,
    Columns,
    find_columns,
    folded,
    no_tags_column,
    rate_header,
    rate_headless,
)
from tagseg.formats.tags.marks import UNSURE, with_marks
from tagseg.formats.tags.open_images import read_descriptions
from tagseg.formats.tags.tables import Record, Table, delimiter_name, read_table
from tagseg.formats.tags.tag_cells import MISSING, Cells, read_cells
from tagseg.formats.tags.tag_rows import Hints, TagFile, TagRow, listed, name_numbers, some_rows

__all__ = ["PRESENT_FROM", "read_tag_table"]

PRESENT_FROM = 0.5
"""Confidence from which a machine's tag counts as present."""

_YES = frozenset(("1", "1.0", "true", "yes", "y", "t", "x", "✓", "✔"))
_NO = frozenset(("0", "0.0", "false", "no", "n", "f", "-1", "-1.0"))
_UNLABELED = ("unlabeled", "unlabelled")


def read_tag_table(path: Path, hints: Hints) -> TagFile:
    """The tags of a table in text: CSV with any of the usual delimiters, with or without header.

    Raises TagError, with the line, for anything malformed, and for tables of which it cannot be
    told which columns mean what.
    """
    text, notes = read_text_and_notes(path, TagError, hints.known)
    table = read_table(text, path, rate_header, lambda t: rate_headless(t, hints.is_photo))
    columns = find_columns(table, hints.is_photo)
    records = table.records[1:] if columns.header else table.records
    some_rows([TagRow("", (), "")] * len(records), path)
    _check_widths(records, columns, table)
    if columns.tags:
        said = _from_tag_columns(table, records, columns, hints)
    else:
        said = _from_other_columns(table, records, columns, hints)
    as_read = _how_read(table, columns) if columns.tags else ()
    return replace(said, notes=(*notes, *as_read, *columns.notes, *said.notes))


def _how_read(table: Table, columns: Columns) -> tuple[str, ...]:
    """A line on columns and delimiter where they are not image and tags with a comma."""
    if not columns.header:
        return ()
    image, tags = columns.header[columns.image], columns.header[columns.tags[0]]
    if table.delimiter == "," and (image.lower(), tags.lower()) == ("image", "tags"):
        return ()
    by = f", separated by {delimiter_name(table.delimiter)}" if table.delimiter != "," else ""
    return (f"{table.path.name}: photos in column '{image}', tags in column '{tags}'{by}",)


def _check_widths(records: Sequence[Record], columns: Columns, table: Table) -> None:
    width = len(columns.header) or 2
    for record in records:
        if len(record.cells) > width and any(record.cells[width:]):
            raise TagError(
                f"{len(record.cells)} cells, but the first line has {width}",
                where=table.where(record),
                do="put ; between tags and quotes around names with a comma",
            )


def _cell(record: Record, column: int) -> str:
    return record.cells[column] if column < len(record.cells) else ""


def _image_of(record: Record, columns: Columns, table: Table) -> str:
    name = _cell(record, columns.image)
    if not name:
        raise TagError(
            "no image is named", where=table.where(record), do="name the photo or remove the line"
        )
    return name


# --- a column of tags ---------------------------------------------------------------------------


def _from_tag_columns(
    table: Table, records: Sequence[Record], columns: Columns, hints: Hints
) -> TagFile:
    images = [_image_of(record, columns, table) for record in records]
    places = [table.where(record) for record in records]
    parts = [
        read_cells([_cell(record, column) for record in records], places, hints, table.path)
        for column in columns.tags
    ]
    rows = tuple(
        TagRow(image, _joined(parts, i), where)
        for i, (image, where) in enumerate(zip(images, places, strict=True))
    )
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    single = all(len(row.tags) <= 1 for row in rows)
    said = with_marks(TagFile(rows, None, notes, merge=single), hints, table.path.name)
    said = read_descriptions(said, table.path)
    said = _with_confidences(said, table, records, columns) if single else said
    plain = not columns.header or columns.header[columns.tags[0]].lower() == "tags"
    return name_numbers(said, hints, table.path, may_stay=plain)


def _joined(parts: Sequence[Cells], i: int) -> tuple[str, ...]:
    if len(parts) == 1:
        return parts[0].tags[i]
    return tuple(dict.fromkeys(tag for part in parts for tag in part.tags[i]))


# --- confidences --------------------------------------------------------------------------------


def _with_confidences(
    said: TagFile, table: Table, records: Sequence[Record], columns: Columns
) -> TagFile:
    """One row a tag: what is not in the photo goes from ``tags`` to ``absent``, or away."""
    found = [i for i, cell in enumerate(columns.header) if folded(cell) in CONFIDENCES]
    if not found:
        return said
    values = [_confidence(_cell(record, found[0])) for record in records]
    named = f"{table.path.name}: column '{columns.header[found[0]]}'"
    if any(value is not None and not 0 <= value <= 1 for value in values) or None in values:
        note = f"{named} is not used: not all of it is a number from 0 to 1"
        return replace(said, notes=(*said.notes, note))
    verified = all(value in (0, 1) for value in values)
    rows = tuple(
        _judged(row, value or 0.0, verified) for row, value in zip(said.rows, values, strict=True)
    )
    below = sum(value is not None and value < PRESENT_FROM for value in values)
    if verified:
        note = f"{named}: 1 is present, 0 verified absent ({below} rows)"
    else:
        note = f"{named}: tags under {PRESENT_FROM} are left out ({below} rows)"
    return replace(said, rows=rows, notes=(*said.notes, note))


def _judged(row: TagRow, value: float, verified: bool) -> TagRow:
    if value >= PRESENT_FROM:
        return row
    return replace(row, tags=(), absent=row.tags if verified else ())


def _confidence(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


# --- a column a class, or one column of another name --------------------------------------------


def _from_other_columns(
    table: Table, records: Sequence[Record], columns: Columns, hints: Hints
) -> TagFile:
    others = [
        i
        for i, cell in enumerate(columns.header)
        if i != columns.image and cell and folded(cell) not in OTHERS
    ]
    flags = [i for i in others if _is_flags(records, i)]
    if flags and (len(flags) > 1 or flags == others):
        return _from_flags(table, records, columns, flags, [i for i in others if i not in flags])
    if len(others) == 1 and _holds_names(records, others[0]):
        shown = columns.header[others[0]]
        note = f"{table.path.name}: the tags are taken from the only other column, '{shown}'"
        said = _from_tag_columns(table, records, replace(columns, tags=(others[0],)), hints)
        return replace(said, notes=(note, *said.notes))
    numbers = [i for i in others if all(map(_is_number_or_blank, _column(records, i)))]
    if len(numbers) > 1:
        raise TagError(
            f"columns {listed(columns.header[i] for i in numbers)} hold other numbers than 0 and 1",
            where=table.path,
            do="write 1 where a class is in the photo and 0 elsewhere, or a column 'tags'",
        )
    raise no_tags_column(columns.header, table)


def _column(records: Sequence[Record], column: int) -> list[str]:
    return [_cell(record, column) for record in records]


def _is_number_or_blank(cell: str) -> bool:
    return not cell or _confidence(cell) is not None


def _is_flags(records: Sequence[Record], column: int) -> bool:
    values = {_cell(record, column).lower() for record in records} - MISSING
    return bool(values - {UNSURE}) and values <= _YES | _NO | {UNSURE}


def _holds_names(records: Sequence[Record], column: int) -> bool:
    """Whether cells repeat, as classes do and captions do not; numbers are no names."""
    cells = [_cell(record, column) for record in records]
    words = [cell for cell in cells if cell and _confidence(cell) is None]
    return len(words) > 0.5 * len(cells) and len(set(words)) <= max(2, 0.5 * len(words))


def _from_flags(
    table: Table,
    records: Sequence[Record],
    columns: Columns,
    flags: Sequence[int],
    left_out: Sequence[int],
) -> TagFile:
    """One column a class. A row without any yes is known to hold none of the classes."""
    values = {_cell(record, i).lower() for record in records for i in flags}
    names = {i: tidy_name(columns.header[i]) for i in flags}
    unlabeled = [i for i in flags if names[i].lower() in _UNLABELED]
    classes = {i: name for i, name in names.items() if i not in unlabeled}
    rows = []
    for record in records:
        image, where = _image_of(record, columns, table), table.where(record)
        tags = tuple(name for i, name in classes.items() if _cell(record, i).lower() in _YES)
        nobody = not tags and any(_cell(record, i).lower() in _YES for i in unlabeled)
        unsure = tuple(name for i, name in classes.items() if _cell(record, i) == UNSURE)
        rows.append(TagRow(image, tags, where, complete=not nobody, unsure=unsure))
    shown = f"{len(classes)} classes, {listed(classes.values())}"
    note = f"{table.path.name}: one column a class: {shown}; {_meaning(values)}"
    notes = [note]
    if left_out:
        notes.append(
            f"{table.path.name}: columns left out: {listed(columns.header[i] for i in left_out)}"
        )
    return TagFile(tuple(rows), tuple(dict.fromkeys(classes.values())), tuple(notes))


def _meaning(values: set[str]) -> str:
    yes, no = sorted(values & _YES), sorted(values & _NO)
    no += ["blank"] if values & MISSING else []
    said = f"{' and '.join(yes) or 'nothing'} is present, {' and '.join(no) or 'nothing'} is not"
    return f"{said}, of {UNSURE} nobody knows" if UNSURE in values else said
