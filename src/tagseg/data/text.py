"""Text files, decoded or refused; names of files as text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from unicodedata import normalize

from tagseg.errors import TagError, TagsegError
from tagseg.input_files import MOST_TEXT, check_plain

__all__ = [
    "lines_of",
    "read_text",
    "read_text_and_notes",
    "readable",
    "split_lines",
    "tidy_name",
    "without_folders",
]

_BOMS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_CODE_PAGES = ("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "mac_roman", "gb18030", "cp932")
_SAVE_AS_CSV = "save the table as CSV (UTF-8) and give that file"
_NOT_TEXT = {
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook (.xls)", _SAVE_AS_CSV),
    b"PAR1": ("a Parquet file", _SAVE_AS_CSV),
    b"SQLite format 3": ("an SQLite database", _SAVE_AS_CSV),
    b"\x93NUMPY": ("a NumPy array", "write the names into a CSV file"),
    b"\x1f\x8b": ("a gzip archive", "unpack it and give the file in it"),
    b"%PDF": ("a PDF file", "give a text file, such as CSV"),
    b"\x89PNG": ("a PNG picture", "give a text file, such as CSV"),
    b"\xff\xd8\xff": ("a JPEG picture", "give a text file, such as CSV"),
    b"GIF8": ("a GIF picture", "give a text file, such as CSV"),
}
_WORD = re.compile(r"(?:[^\W_]|[^\x00-\x7f])+")
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad"))  # not the joiners, which matter
_NO_LETTER = re.compile("[\ud800-\udfff]")
_ESCAPED_BYTES = 0xDC00  # where Python keeps bytes of file names that are not UTF-8


def read_text(path: Path, error: type[TagsegError]) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Raises ``error`` if it cannot be read, and for files that are not text at all, such as a
    workbook of Excel, with what to do about it.
    """
    return read_text_and_notes(path, error)[0]


def read_text_and_notes(
    path: Path, error: type[TagsegError], known: Collection[str] = ()
) -> tuple[str, tuple[str, ...]]:
    """The text of a file, and a line for the user where its encoding is not plain.

    ``known`` are names that may occur in the text (of photos, of classes). A file that is not
    UTF-8 is read in another code page only where they prove it: where all its words with other
    than ASCII letters are words of theirs.
    """
    check_plain(path, error, MOST_TEXT)
    try:
        data = path.read_bytes()
    except OSError as problem:
        reason = problem.strerror or "reading failed"
        raise error(f"cannot be read: {reason}", where=path, do="check the path") from None
    _refuse_other_files(data, path, error)
    notes: tuple[str, ...] = ()
    encoding = next((e for bom, e in _BOMS.items() if data.startswith(bom)), None)
    if encoding is None:
        encoding = _utf16_without_mark(data) or "utf-8-sig"
        notes = () if encoding == "utf-8-sig" else (f"{path.name}: read as {encoding.upper()}",)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as problem:
        line = data[: problem.start].count(b"\n") + 1
        proven = _in_code_page(data, known) if encoding == "utf-8-sig" else None
        if proven is None:
            raise _undecoded(data, encoding, f"{path}, line {line}", error, problem) from None
        text, notes = proven[0], (f"{path.name}: not UTF-8; read as {proven[1]}",)
    if "\0" in text:
        line = len(split_lines(text[: text.index("\0")]))
        raise error("holds NUL bytes", where=f"{path}, line {line}", do="save as UTF-8 text")
    return text, notes


def split_lines(text: str) -> list[str]:
    """Lines of a text: as editors count them, ended by LF, CR LF or CR alone."""
    return re.split(r"\r\n|\r|\n", text)


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """(place, text) of every line that is not blank and not a ``#`` comment."""
    for number, line in enumerate(split_lines(read_text(path, TagError)), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"{path}, line {number}", line.strip()


@lru_cache(maxsize=65_536)
def tidy_name(name: str) -> str:
    """A class's name as it is compared: composed (NFC), without what one cannot see.

    Zero-width characters are dropped, runs of white space, also non-breaking, become one space.

    >>> tidy_name(" traffic\\u00a0 light\\u200b")
    'traffic light'
    """
    return " ".join(normalize("NFC", name).translate(_INVISIBLE).split())


def _utf16_without_mark(data: bytes) -> str | None:
    """UTF-16 if zeros are in most places for high bytes, and in no others."""
    high, low = data[1::2].count(0), data[::2].count(0)
    if len(data) % 2 or min(high, low) or 4 * max(high, low) < len(data):
        return None
    return "utf-16-le" if high else "utf-16-be"


def _refuse_other_files(data: bytes, path: Path, error: type[TagsegError]) -> None:
    if data.startswith(b"PK\x03\x04"):
        excel = path.suffix.lower() in (".xlsx", ".xlsm") or b"xl/workbook" in data
        kind, advice = (
            ("an Excel workbook", _SAVE_AS_CSV)
            if excel
            else ("a ZIP archive", "unpack it and give the file in it")
        )
        raise error(f"this is {kind}, not text", where=path, do=advice)
    for start, (kind, advice) in _NOT_TEXT.items():
        if data.startswith(start):
            raise error(f"this is {kind}, not text", where=path, do=advice)


def _in_code_page(data: bytes, known: Collection[str]) -> tuple[str, str] | None:
    """The text and the code page in which all words that are not ASCII are ``known``."""
    words = {word for name in known for word in _WORD.findall(normalize("NFC", name))}
    for encoding in _CODE_PAGES if words else ():
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if all(word.isascii() or word in words for word in _WORD.findall(text)):
            return text, encoding
    return None


def _undecoded(
    data: bytes, encoding: str, where: str, error: type[TagsegError], problem: UnicodeDecodeError
) -> TagsegError:
    if encoding != "utf-8-sig":
        return error(f"cut or damaged {encoding.upper()} text", where=where, do="save as UTF-8")
    if b"\0" in data:
        return error("not text (it holds NUL bytes)", where=where, do="save as UTF-8 text")
    start = max(data.rfind(b"\n", 0, problem.start), data.rfind(b"\r", 0, problem.start)) + 1
    line = re.split(rb"[\r\n]", data[start : start + 60])[0].decode("cp1252", "replace")
    shown = "".join(c if c.isprintable() else "?" for c in line)
    return error(
        "not UTF-8 text",
        where=where,
        do=f"save as UTF-8 (in Excel: CSV UTF-8); as Windows-1252 the line would be '{shown}'",
    )


def readable(name: str) -> str:
    """A file's name as text: ``%E9`` for a byte that is not UTF-8, as after a Windows zip.

    So photos keep a name that can be written into any file; their path stays what it is.
    """
    return name if name.isascii() else _NO_LETTER.sub(_as_percent, name)


def _as_percent(found: re.Match[str]) -> str:
    byte = ord(found[0]) - _ESCAPED_BYTES
    return f"%{byte:02X}" if 0x80 <= byte <= 0xFF else f"%u{ord(found[0]):04X}"


def without_folders(word: str) -> str:
    """A word of a command or a setting for reports, which others read: of an absolute path the end.

    ``--out=/home/me/runs/a`` becomes ``--out=a``; all else stays.
    """
    head, mark, tail = word.rpartition("=")
    for path in (PurePosixPath(tail), PureWindowsPath(tail)):
        if path.is_absolute():
            return f"{head}{mark}{path.name or tail}"
    return word
