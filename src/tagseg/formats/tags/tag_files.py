"""Tag files: text in, checked rows out; which reader reads a file is told by suffix and content.

Every reader keeps the line or entry of each row, so that an error can point to it.
"""

from __future__ import annotations

from pathlib import Path

from tagseg.data.text import read_text_and_notes
from tagseg.errors import TagError
from tagseg.formats.tags.cvat import read_xml_tags
from tagseg.formats.tags.json_tags import read_json_tags, read_jsonl_tags
from tagseg.formats.tags.tag_rows import NO_HINTS, Hints, TagFile, TagRow, check_tags
from tagseg.formats.tags.tag_tables import read_tag_table

__all__ = [
    "Hints",
    "TagFile",
    "TagRow",
    "check_tags",
    "read_tag_file",
    "read_tags_csv",
    "read_tags_jsonl",
]

_TABLES = (".csv", ".tsv", ".tab")


def read_tag_file(path: Path, hints: Hints = NO_HINTS) -> TagFile:
    """The rows of a tag file of any known form; TagError, with the line, for anything else."""
    suffix = path.suffix.lower()
    if suffix not in (*_TABLES, ".json", ".jsonl", ".ndjson", ".xml"):
        text, _ = read_text_and_notes(path, TagError, hints.known)
        start = text.lstrip()[:1]
        suffix = {"{": ".json", "[": ".json", "<": ".xml"}.get(start, ".csv")
    if suffix in (".jsonl", ".ndjson"):
        return read_jsonl_tags(path, hints)
    if suffix == ".json":
        return read_json_tags(path, hints)
    return read_xml_tags(path) if suffix == ".xml" else read_tag_table(path, hints)


def read_tags_csv(path: Path, hints: Hints = NO_HINTS) -> tuple[TagRow, ...]:
    """Rows of a CSV file with the columns ``image`` and ``tags`` (``;`` between tags), or others.

    Other columns do no harm. Raises TagError, with the line, for anything malformed.
    """
    return read_tag_table(path, hints).rows


def read_tags_jsonl(path: Path, hints: Hints = NO_HINTS) -> tuple[TagRow, ...]:
    """Rows of a file with one JSON object per line: ``file_name`` and ``tags``, a list of names."""
    return read_jsonl_tags(path, hints).rows
