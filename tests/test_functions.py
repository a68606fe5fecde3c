"""Functions do one thing: how long they are and how much they are given."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

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


# Files of recipes/ and stages/ in which the steps that a recipe's run names are carried out, with
# the defaults of its fields. How stages are declared, settings, and what is only shown are not.
READ = {
    "mcof": [
        *("recipes/mcof/recipe", "recipes/mcof/regions", "stages/seeder", "stages/saliency"),
        *("stages/large_fov", "stages/rounds"),
    ],
    "guided": [
        *("recipes/guided/recipe", "recipes/guided/guides", "stages/seeder", "stages/saliency"),
        "stages/large_fov",
    ],
}


@pytest.mark.parametrize("recipe", READ)
def test_how_much_there_is_to_read_of_a_method(recipe: str) -> None:
    texts = {name: (PACKAGE / f"{name}.py").read_text("utf-8") for name in READ[recipe]}
    imported = {f"tagseg.{name.replace('/', '.')}" for name in READ[recipe][1:]}
    own = [text for name, text in texts.items() if name.startswith("recipes/")]
    assert {m for m in imported if any(f"from {m} import" in text for text in own)} == imported
    assert sum(len(text.splitlines()) for text in texts.values()) <= 1000


def test_recipes_are_short() -> None:
    for path in PACKAGE.glob("recipes/*/recipe.py"):
        assert len(path.read_text("utf-8").splitlines()) <= 150, path


def test_what_is_counted() -> None:
    tree = ast.parse(
        'def f(self, a, /, b, *c, d=1, **e):\n    """One.\n\n    Two.\n    """\n    return 1\n'
    )
    [function] = tree.body
    assert isinstance(function, ast.FunctionDef)
    assert (lines_of(function), arguments_of(function)) == (2, 3)
