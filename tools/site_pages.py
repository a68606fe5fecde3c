"""What mkdocs does to pages beside rendering them: root pages join, links that leave docs/ hold.

The pages stay as they are read in the repository. On the way into the site

- CHANGELOG.md, CONTRIBUTING.md and SECURITY.md become pages beside those of docs/;
- a link to one of these, to README.md or to a folder leads to the page that stands for it;
- a link to any other file outside of docs/, source code for example, leads to ``repo_url`` if
  mkdocs.yml names one; otherwise its text stays, which is the file's name, without a link;
- a bar in code in a table, which GitHub wants as ``\\|``, is a bar.
"""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = "docs"
ROOT_PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_BAR = re.compile(r"`([^`\n]*\\\|[^`\n]*)`")
_FENCE = re.compile(r"(^ *```.*?^ *```)", re.M | re.S)


def on_files(files: Any, config: Any) -> Any:
    """Put the root's pages beside those of docs/."""
    from mkdocs.structure.files import File

    for name in ROOT_PAGES:
        files.append(File.generated(config, name, content=(ROOT / name).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Bring the links of a page to the site."""
    name = page.file.src_uri
    folder = "" if name in ROOT_PAGES else posixpath.dirname(f"{DOCS}/{name}")
    here = posixpath.dirname(name)
    return brought(markdown, folder, here, config.repo_url)


def brought(markdown: str, folder: str, here: str, repo_url: str | None) -> str:
    """Links of a page in ``folder`` of the repository, as they are from ``here`` in the site."""

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        if re.match(r"[a-z]+:|/", target):
            return found[0]
        place = posixpath.normpath(posixpath.join(folder, target))
        page = _page(place)
        if page is not None:
            return f"[{text}]({posixpath.relpath(page, here or '.')}{anchor})"
        return f"[{text}]({repo_url.rstrip('/')}/blob/main/{place})" if repo_url else text

    parts = _FENCE.split(markdown)
    return "".join(
        part if _FENCE.match(part) else _with_bars(_LINK.sub(link, part)) for part in parts
    )


def _with_bars(text: str) -> str:
    """Code of table rows with its bars, as HTML: the site's Markdown has no other way to say it."""

    def code(found: re.Match[str]) -> str:
        inside = html.escape(found[1].replace("\\|", "|")).replace("|", "&#124;")
        return f"<code>{inside}</code>"

    lines = text.split("\n")
    return "\n".join(_BAR.sub(code, line) if line.startswith("|") else line for line in lines)


def _page(place: str) -> str | None:
    """The page or file of the site, from its top, that stands for a place in the repository."""
    if place in ROOT_PAGES:
        return place
    if place == "README.md":
        return "index.md"
    if not place.startswith(f"{DOCS}/"):
        return None
    inside = place.removeprefix(f"{DOCS}/")
    return f"{inside}/README.md" if (ROOT / place).is_dir() else inside
