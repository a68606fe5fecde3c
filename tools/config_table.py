"""Print the fields of a recipe as a Markdown table, or bring the tables in pages up to date.

    python tools/config_table.py RECIPE
    python tools/config_table.py --write PAGE [PAGE ...]

A page holds a table between the lines ``<!-- config-table: RECIPE -->`` and
``<!-- /config-table -->``, or ``preset-table`` for what the recipe's paper says of its fields.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from tagseg.recipes.catalog import find_recipe
from tagseg.session.settings import find_preset

TABLE = re.compile(r"<!-- (config|preset)-table: (\w+) -->\n(.*?)<!-- /\1-table -->", re.DOTALL)


def config_table(recipe: str) -> str:
    """The Markdown table of ``recipe``'s fields: default, where it comes from, meaning."""
    lines = ["| field | default | where from | meaning |", "|---|---|---|---|"]
    for name, value, where, meaning in find_recipe(recipe).sources():
        lines.append(_row(f"`{name}`", f"`{as_typed(value)}`", where, meaning))
    return "\n".join(lines) + "\n"


def preset_table(recipe: str) -> str:
    """The Markdown table of what the paper says of ``recipe``'s fields, the stated ones first."""
    chosen = find_recipe(recipe)
    preset, config = find_preset(chosen, "paper"), chosen.config()
    lines = ["| field | paper | section | default |", "|---|---|---|---|"]
    if preset.backbone is not None:
        network, section = preset.backbone
        lines.append(_row("`--backbone`", f"`{network}`", section, "`efficientnet_lite0`"))
    for name, (value, section) in preset.stated.items():
        ours = as_typed(getattr(config, name))
        lines.append(_row(f"`{name}`", f"`{as_typed(value)}`", section, f"`{ours}`"))
    for name, reason in preset.open.items():
        lines.append(_row(f"`{name}`", "open", reason, f"`{as_typed(getattr(config, name))}`"))
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def as_typed(value: object) -> str:
    """A value as ``--set`` takes it."""
    if isinstance(value, tuple):
        return ",".join(as_typed(part) for part in value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower()


def with_tables(page: str) -> str:
    """``page`` with every table in it up to date."""
    tables = {"config": config_table, "preset": preset_table}

    def fresh(match: re.Match[str]) -> str:
        kind, recipe = match[1], match[2]
        return f"<!-- {kind}-table: {recipe} -->\n{tables[kind](recipe)}<!-- /{kind}-table -->"

    return TABLE.sub(fresh, page)


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
