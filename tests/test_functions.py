"""Functions do one thing: how long they are and how much they are given."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import tagseg

PACKAGE = Path(tagseg.__file__).parent
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions() -> Iterator[tuple[str, Function]]:
    """Each function of the package, and where it stands."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, Function):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}: {node.name}", node


def lines_of(node: Function) -> int:
    """Lines without the docstring."""
    first = node.body[0]
    told = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    text = told and isinstance(first.value.value, str)  # type: ignore[union-attr]
    docstring = (first.end_lineno or 0) - first.lineno + 1 if text else 0
    return (node.end_lineno or 0) - node.lineno + 1 - docstring


def arguments_of(node: Function) -> int:
    """All but ``self`` and ``cls``."""
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return sum(each.arg not in ("self", "cls") for each in given)


def test_lengths_and_arguments() -> None:
    found = list(functions())
    assert len(found) > 3000
    assert median(lines_of(node) for _, node in found) <= 10
    assert [place for place, node in found if lines_of(node) > 60] == []
    assert [place for place, node in found if arguments_of(node) > 9] == []


def test_what_is_counted() -> None:
    tree = ast.parse(
        'def f(self, a, /, b, *c, d=1, **e):\n    """One.\n\n    Two.\n    """\n    return 1\n'
    )
    [function] = tree.body
    assert isinstance(function, ast.FunctionDef)
    assert (lines_of(function), arguments_of(function)) == (2, 3)
