"""What Sphinx would read in docstrings, as Markdown; an extension of griffe, for mkdocstrings."""

from __future__ import annotations

import re
from typing import Any

try:
    from griffe import Extension
except ImportError:  # as in tests, which need the function alone
    Extension = object  # type: ignore[assignment,misc]

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`~?([^`]+)`")
_TABLE = re.compile(r"^=+(?: +=+)+\n.*?^=+(?: +=+)+$", re.M | re.S)
_EXAMPLE = re.compile(r"^>>> .*?(?=\n\n|\Z)", re.M | re.S)


def as_markdown(text: str) -> str:
    """A docstring's roles as code, its tables and bare examples as blocks.

    Examples in a section of that name, which are indented, are left to griffe.
    """
    text = _TABLE.sub(lambda table: "```text\n" + _ROLE.sub(r"\1", table[0]) + "\n```", text)
    text = _EXAMPLE.sub(lambda example: f"```pycon\n{example[0]}\n```", text)
    return _ROLE.sub(r"`\1`", text)


class Roles(Extension):
    """Turn every docstring into Markdown before it is parsed."""

    def on_instance(self, *, obj: Any, **kwargs: Any) -> None:
        """Of each module, class, function and attribute."""
        if not obj.is_alias and obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
