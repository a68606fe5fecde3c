"""The site of the documentation: its navigation, and what its Markdown asks of the pages.

mkdocs itself is not needed here; ``make docs`` runs it.
"""

from __future__ import annotations

import posixpath
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tool_modules import load_tool

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(page.relative_to(DOCS).as_posix() for page in DOCS.glob("**/*.md"))


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml without making the Python objects that it names."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Loader)


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    return load_tool("site_pages")


@pytest.fixture(scope="module")
def docstrings() -> ModuleType:
    return load_tool("site_docstrings")


def places(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [place for part in parts for place in places(part)]


def test_the_navigation_holds_every_page_once(config, pages):
    found = places(config["nav"])
    assert sorted(found) == sorted([*PAGES, *pages.ROOT_PAGES])
    assert found[0] == "index.md"
    assert all((ROOT / page).is_file() for page in pages.ROOT_PAGES)


def test_nothing_is_loaded_from_elsewhere(config):
    assert config["theme"]["font"] is False
    assert config["strict"] is True
    assert not {"extra_javascript", "extra_css"} & config.keys()
    assert "offline" not in config["plugins"], "it loads a script from a server"
    assert all((ROOT / hook).is_file() for hook in config["hooks"])


@pytest.mark.parametrize("page", PAGES)
def test_lists_are_read_as_on_github(page: str) -> None:
    """The site's Markdown wants a line between text and a list, and four spaces inside of one."""
    text = re.sub(r"^```.*?^```", "", (DOCS / page).read_text("utf-8"), flags=re.M | re.S)
    item = re.compile(r"(?:[-*]|\d{1,2}\.) ")
    inside, nested, before = False, False, ""  # in a list; in its second block; the line before
    for line in text.splitlines():
        if item.match(line):
            assert inside or not before or before.startswith("<!--"), f"no line before: {line}"
            assert not nested or not before, f"no line before: {line}"
            inside, nested = True, False
        elif not line:
            pass
        elif inside and line.startswith(" "):
            nested = nested or not before
            fresh = not before or item.match(line.strip())
            assert not fresh or line.startswith("    "), f"four spaces before: {line}"
        elif not before:
            inside = False
        before = line


def test_the_index_of_decisions_names_them_all():
    text = (DOCS / "decisions" / "README.md").read_text("utf-8")
    for path in DOCS.glob("decisions/0*.md"):
        number, title = path.read_text("utf-8").splitlines()[0].removeprefix("# ").split(": ", 1)
        assert f"[{number}]({path.name}): {title[0].upper()}{title[1:]}\n" in text


@pytest.mark.parametrize(
    ("name", "written", "brought"),
    [
        ("data.md", "[a](tagging.md#keys)", "[a](tagging.md#keys)"),
        ("api/index.md", "[`a`](../seeds.md)", "[`a`](../seeds.md)"),
        ("data.md", "[a](../README.md)", "[a](index.md)"),
        ("api/fuse.md", "[a](../../SECURITY.md#x)", "[a](../SECURITY.md#x)"),
        ("architecture.md", "[a](decisions)", "[a](decisions/README.md)"),
        ("CONTRIBUTING.md", "[a](docs/data.md)", "[a](data.md)"),
        ("CONTRIBUTING.md", "[`.ci/run`](.ci/run)", "`.ci/run`"),
        ("data.md", "[`a.py`](../src/tagseg/a.py)", "`a.py`"),
        ("data.md", "![a [b]](images/x.png)", "![a [b]](images/x.png)"),
        ("data.md", "[a](https://example.org/#b) [c](#d)", "[a](https://example.org/#b) [c](#d)"),
        ("data.md", "| `a` `<\\|` |", "| `a` <code>&lt;&#124;</code> |"),
        ("data.md", "```\n[a](../x.py)\n```\n[a](../x.py)", "```\n[a](../x.py)\n```\na"),
    ],
)
def test_links_are_brought_to_the_site(pages, name: str, written: str, brought: str) -> None:
    folder = "" if name in pages.ROOT_PAGES else posixpath.dirname(f"docs/{name}")
    assert pages.brought(written, folder, posixpath.dirname(name), None) == brought


def test_code_is_linked_where_the_repository_has_an_address(pages):
    found = pages.brought("[a](../src/a.py)", "docs", "", "https://example.org/tagseg/")
    assert found == "[a](https://example.org/tagseg/blob/main/src/a.py)"


def test_docstrings_become_markdown(docstrings):
    text = (
        "See :func:`~tagseg.x` and :class:`Y`.\n\n>>> 1 + 1\n2\n\n"
        "===  ===\na    :func:`b`\n===  ===\n\nExamples:\n    >>> 2\n    2"
    )
    assert docstrings.as_markdown(text) == (
        "See `tagseg.x` and `Y`.\n\n```pycon\n>>> 1 + 1\n2\n```\n\n"
        "```text\n===  ===\na    b\n===  ===\n```\n\nExamples:\n    >>> 2\n    2"
    )


ROOMS = ("localize", "priors", "fuse", "refine", "losses", "evaluate")


@pytest.mark.parametrize("room", ROOMS)
def test_the_page_of_a_library_asks_for_all_its_names(room: str) -> None:
    """Of a function that is called like its module griffe sees the module, so it is named."""
    text = (DOCS / "api" / f"{room}.md").read_text("utf-8")
    folder = ROOT / "src" / "tagseg" / room
    public = import_module(f"tagseg.{room}").__all__
    hidden = {n for n in public if (folder / n).is_dir() or (folder / f"{n}.py").is_file()}
    asked = re.findall(r"^::: (.+)$", text, re.M)
    assert asked[0] == f"tagseg.{room}"
    assert sorted(asked[1:]) == sorted(f"tagseg.{room}.{name}.{name}" for name in hidden)


def test_the_page_of_tagseg_is_asked_for():
    assert "\n::: tagseg\n" in (DOCS / "api" / "index.md").read_text("utf-8")
