"""XML files, parsed without document types."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from tagseg.errors import TagError

__all__ = ["read_xml"]


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses document types, and with them entities that expand to gigabytes."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("a document type is declared")


def read_xml(path: Path) -> ElementTree.Element:
    """The root of a file; TagError for one that cannot be read or is not plain XML."""
    try:
        parser = ElementTree.XMLParser(target=_NoDoctype())
        root = ElementTree.parse(path, parser=parser).getroot()
    except OSError as problem:
        reason = problem.strerror or "reading failed"
        raise TagError(f"cannot be read: {reason}", where=path, do="check the file") from None
    except (ElementTree.ParseError, ValueError, LookupError) as problem:
        raise TagError(f"not plain XML: {problem}", where=path, do="mend or remove it") from None
    return root
