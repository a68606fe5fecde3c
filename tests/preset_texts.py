"""What a paper's text states, typed from it, beside the preset that is to have it from there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tagseg.stages.preset import Preset

Typed = Sequence[tuple[str, str, str, Any]]
"""Section, what it says, the field that says it, and its value."""


def check_against_text(preset: Preset, paper: Typed) -> None:
    """Values and sections are those of the text."""
    for section, words, name, value in paper:
        assert preset.stated[name].value == value, words
        assert section in preset.stated[name].section, words


def fields_of_text(paper: Typed) -> set[str]:
    """The fields that the text states."""
    return {name for _, _, name, _ in paper}


def check_network(preset: Preset, name: str) -> None:
    """The backbone is stated, and it is that one."""
    assert preset.backbone is not None
    assert preset.backbone.value == name
