"""What tests in a browser share: Debian's chromium, driven by playwright; by keys alone.

They are skipped where there is no chromium. What they need: ``apt-get install chromium`` and the
extra ``dev``.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
_NO_DRIVER = importlib.util.find_spec("playwright") is None

IN_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(_NO_DRIVER, reason="playwright is not installed"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]


def saved(page: Any, text: str) -> None:
    """Wait until the page says so."""
    page.wait_for_function("text => document.getElementById('said').textContent === text", arg=text)


def keys(page: Any, *wanted: str) -> None:
    for key in wanted:
        page.keyboard.press(key)


def faults(page: Any) -> list[tuple[str, str]]:
    """Faults of accessibility that axe-core finds; skips the test where there is none."""
    axe = next((place for place in _axe_places() if place.is_file()), None)
    if axe is None:
        pytest.skip("no axe-core: npm install axe-core, and name its folder in AXE_CORE")
    page.evaluate(axe.read_text())
    found = page.evaluate("axe.run()")["violations"]
    return [(fault["id"], fault["impact"]) for fault in found]


def _axe_places() -> list[Path]:
    named = os.environ.get("AXE_CORE")
    folders = [Path(named)] if named else []
    folders.append(Path(__file__).parents[1] / "node_modules" / "axe-core")
    return [folder / "axe.min.js" for folder in folders]
