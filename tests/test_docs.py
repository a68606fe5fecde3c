"""What the pages say of the code: tables are up to date, links and named places exist."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from tagseg.recipes.catalog import RECIPES
from tool_modules import load_tool

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "tagseg"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]


@pytest.fixture(scope="module")
def config_table() -> ModuleType:
    return load_tool("config_table")


def text_of(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_tables_of_fields_are_up_to_date(page: Path, config_table: ModuleType) -> None:
    text = page.read_text("utf-8")
    assert config_table.with_tables(text) == text, "run tools/config_table.py --write on the page"


def test_the_page_of_a_paper_lists_all_its_fields(config_table: ModuleType) -> None:
    page = (ROOT / "docs" / "builtin_priors.md").read_text("utf-8")
    assert config_table.config_table("builtin_priors") in page


def test_the_page_of_presets_shows_each_whole(config_table: ModuleType) -> None:
    page = (ROOT / "docs" / "presets.md").read_text("utf-8")
    for recipe in RECIPES.values():
        if recipe.paper_preset is not None:
            table = config_table.preset_table(recipe.name)
            assert table in page, "run tools/config_table.py --write docs/presets.md"
            assert table.count("\n| `") >= len(recipe.paper_preset.stated), recipe.name


def test_tables_are_written_in_place_and_as_typed(config_table: ModuleType) -> None:
    stale = "a\n<!-- config-table: cam_baseline -->\nstale\n<!-- /config-table -->\nb\n"
    fresh = config_table.with_tables(stale)
    assert "stale" not in fresh
    assert fresh.startswith("a\n")
    assert fresh.endswith("\nb\n")
    assert "| `crf_bilateral` | `10,80,13` |" in fresh
    assert "| `output_stride` | `none` |" in fresh
    assert config_table.with_tables(fresh) == fresh


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    text = text_of(page)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for target in targets:
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        other = page.parent / path if path else page
        assert other.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(other), f"{target}: there is no such heading"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_named_places_in_the_code_exist(page: Path) -> None:
    for path, name in re.findall(r"`([\w./-]+\.py)(?::(\w+)[\w.]*)?`", text_of(page)):
        if path.startswith("NAME") or "/NAME" in path:
            continue
        file = next((f / path for f in (ROOT, PACKAGE) if (f / path).is_file()), None)
        assert file is not None, f"{path} does not exist"
        if name:
            defined = re.search(rf"^(?:class|def) {name}\b", file.read_text("utf-8"), re.M)
            assert defined, f"{path} defines no {name}"
