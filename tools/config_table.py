"""Print the fields of a recipe as a Markdown table, or bring the tables in pages up to date.

    python tools/config_table.py RECIPE
    python tools/config_table.py --write PAGE [PAGE ...]

A page holds a table between the lines ``<!-- config-table: RECIPE -->`` and
``<!-- /config-table -->``.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from tagseg.recipes.catalog import find_recipe
from tagseg.stages.settings import where_from

TABLE = re.compile(r"<!-- config-table: (\w+) -->\n(.*?)<!-- /config-table -->", re.DOTALL)


def config_table(recipe: str) -> str:
    """The Markdown table of ``recipe``'s fields: default, where it comes from, meaning."""
    lines = ["| field | default | where from | meaning |", "|---|---|---|---|"]
    for name, value, where, meaning in where_from(find_recipe(recipe).config):
        cells = (f"`{name}`", f"`{as_typed(value)}`", where, meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def as_typed(value: object) -> str:
    """A value as ``--set`` takes it."""
    if isinstance(value, tuple):
        return ",".join(as_typed(part) for part in value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower()


def with_tables(page: str) -> str:
    """``page`` with every table in it up to date."""
    return TABLE.sub(
        lambda match: (
            f"<!-- config-table: {match[1]} -->\n{config_table(match[1])}<!-- /config-table -->"
        ),
        page,
    )


def main() -> None:
    """Print a table, or write tables into pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", help="recipe whose table is printed")
    parser.add_argument("--write", nargs="+", type=Path, default=[], metavar="PAGE")
    args = parser.parse_args()
    if bool(args.recipe) == bool(args.write):
        parser.error("give a recipe or --write PAGE")
    if args.recipe:
        print(config_table(args.recipe), end="")
    for page in args.write:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
