"""What the pages tell people to type: Python lines run, commands and flags exist."""

from __future__ import annotations

import builtins
import re
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import tagseg
from small_runs import WEIGHED
from tagseg.cli import app
from tagseg.data import scenes
from tagseg.recipes import cam_baseline
from tagseg.recipes.catalog import find_recipe
from tagseg.session import train as session
from tagseg.session.settings import parse_settings
from tagseg.stages.context import Run
from tagseg.stages.localizers import Localized
from tagseg.stages.outcome import Prediction
from tagseg.stages.stage import Trained

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            lines = (line.split("#")[0].strip() for line in block.splitlines())
            found += [(page.relative_to(ROOT).as_posix(), line) for line in lines if line]
    return found


def test_the_readme_names_the_two_commands_and_the_three_for_own_photos() -> None:
    lines = [line for page, line in commands() if page == "README.md"]
    assert lines[:2] == ["make demo", "make test"]
    assert [shlex.split(line)[1] for line in lines[2:5]] == ["check", "train", "predict"]


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_of_the_pages_can_be_typed(page: str, line: str) -> None:
    program, *words = shlex.split(line)
    if program == "make":
        assert f"\n{words[0]}:" in (ROOT / "Makefile").read_text()
    elif program == "python":
        assert (ROOT / words[0]).is_file()
    else:
        assert program == "tagseg"
        parse(words)


def parse(words: list[str]) -> None:
    """Read a command line as ``tagseg`` would, without doing anything."""
    group: Any = typer.main.get_command(app)
    given = group.commands[words[0]].make_context(words[0], words[1:]).params
    recipe = find_recipe(given.get("recipe", "union"))
    recipe.config(**parse_settings(recipe.config, given.get("settings") or []))


@pytest.mark.parametrize("words", [["train", "x", "--out", "y", "--speed", "3"], ["learn"]])
def test_a_wrong_flag_or_command_would_be_noticed(words: list[str]) -> None:
    with pytest.raises((Exception, SystemExit)):
        parse(words)


@pytest.mark.slow
def test_the_readmes_python_lines_run(monkeypatch: pytest.MonkeyPatch) -> None:
    # As they stand, but with fewer scenes and iterations.
    whole = scenes.scene_dataset
    few = {**WEIGHED, "classifier_iterations": 2}
    monkeypatch.setattr(scenes, "scene_dataset", lambda kind, count: whole(kind, 64))
    monkeypatch.setattr(tagseg, "train", partial(session.train, config=few))
    monkeypatch.setattr(session, "usable_cores", lambda: 1)
    block, _ = blocks(ROOT / "README.md", "python")  # the other: test_export_model.py
    assert len([line for line in block.splitlines() if line]) <= 10
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["labels"].dtype == np.uint8
    assert names["labels"].shape == names["photos"].image(0).shape[:2]
    stages = {(score.split, score.stage) for score in names["result"].scores}
    assert ("train", "labels, round 2") in stages
    assert "val" in {split for split, _ in stages}


def test_the_other_python_lines_run() -> None:
    for page in PAGES:
        if page.name not in ("README.md", "add-a-method.md", "model-export.md"):
            for block in blocks(page, "python"):
                exec(block, {})


def test_the_example_of_a_recipe_uses_names_that_exist() -> None:
    block = blocks(ROOT / "docs" / "add-a-method.md", "python")[-1]
    names = dict(vars(cam_baseline))
    exec(block, names)
    assert names["Config"]().cam_threshold == cam_baseline.Config().cam_threshold
    used = set(names["run"].__code__.co_names) - set(vars(builtins)) - set(names)
    attributes = {  # of what there is in it
        "photos": Run,
        "cam_threshold": names["Config"],
        "only": names["Config"],
        "maps_of": Localized,
        "curves": Localized,
        "model": Trained,
        "stage": Trained,
        "of": Prediction,
    }
    assert used <= attributes.keys()
    for name, kind in attributes.items():
        assert hasattr(kind, name) or name in kind.__dataclass_fields__
