"""The entry ``names`` of a YAML file, as YOLO's ``data.yaml`` has it; no other YAML is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tagseg.data.text import split_lines, tidy_name
from tagseg.errors import TagError

__all__ = ["names_of_yaml"]

_MOST_DIGITS = 9  # far more than there are classes; Python refuses numbers of thousands
_KEY = re.compile(r"names\s*:(.*)")
_QUOTED = r"""'(?:[^']|'')*'|"(?:[^"\\]|\\.)*\""""
_ITEM = re.compile(rf"\s*(?:(-?\d+)\s*:\s*)?({_QUOTED}|[^,'\"\[\]{{}}]+)\s*(?:,|$)")


def names_of_yaml(text: str, path: object) -> tuple[str, list[tuple[int | None, str]]]:
    """Where the entry begins, and (number, name) of each name.

    It is a list or a mapping of numbers, in one line or several; numbers are None in a list. No
    names if there is no such entry; TagError if it cannot be read.
    """
    lines = split_lines(text)
    start = next((i for i, line in enumerate(lines) if _KEY.match(line)), None)
    if start is None:
        return str(path), []
    first = _without_comment(_KEY.match(lines[start])[1])  # type: ignore[index]
    where = f"{path}, line {start + 1}"
    if first[:1] in ("[", "{"):
        return where, list(_flow(_until_closed([first, *lines[start + 1 :]], where), where))
    if first:
        raise TagError("'names' is neither a list nor a mapping", where=where, do="write [a, b]")
    return where, list(_block(lines[start + 1 :], where))


def _block(lines: Iterable[str], where: str) -> Iterator[tuple[int | None, str]]:
    for line in lines:
        text = _without_comment(line)
        match = re.fullmatch(r"(?:-|(-?\d+)\s*:)\s+(.+)", text)
        if text and match is None:
            return
        if match is not None:
            yield _number(match[1], where), _plain(match[2])


def _until_closed(lines: Iterable[str], where: str) -> str:
    text = ""
    for line in lines:
        text += " " + _without_comment(line)
        if text.strip()[-1] == {"[": "]", "{": "}"}[text.strip()[0]]:
            return text.strip()[1:-1]
    raise TagError("the list of names is not closed", where=where, do="write names: [a, b]")


def _flow(inner: str, where: str) -> Iterator[tuple[int | None, str]]:
    at = 0
    inner = inner.strip().rstrip(",").rstrip()
    while at < len(inner):
        match = _ITEM.match(inner, at)
        if match is None or not match[2].strip():
            raise TagError("the list of names cannot be read", where=where, do="write [a, b]")
        yield _number(match[1], where), _plain(match[2])
        at = match.end()


def _number(text: str | None, where: str) -> int | None:
    if text is not None and len(text) > _MOST_DIGITS:
        raise TagError(f"a number has {len(text)} digits", where=where, do="number from 0 or 1")
    return int(text) if text else None


def _plain(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == "'":
        text = text[1:-1].replace("''", "'")
    elif len(text) > 1 and text[0] == text[-1] == '"':
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    return tidy_name(text)


def _without_comment(line: str) -> str:
    return re.sub(r"(^|\s)#.*", "", line).strip()
