from __future__ import annotations

import subprocess
import sys

import pytest

import tagseg

PUBLIC = [
    "Dataset",
    "GroundTruth",
    "HigherOrder",
    "Options",
    "Result",
    "Segmenter",
    "TagsegError",
    "dense_crf",
    "evaluate_masks",
    "load_dataset",
    "load_segmenter",
    "train",
    "with_target",
]


def test_the_public_names_are_these() -> None:
    """A change here is a change for users: it belongs into CHANGELOG.md."""
    assert tagseg.__all__ == PUBLIC
    assert sorted(tagseg.__all__) == tagseg.__all__


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_is_there_and_documented(name: str) -> None:
    value = getattr(tagseg, name)
    assert value.__name__ == name
    assert value.__module__.startswith("tagseg.")
    assert value.__doc__


def test_a_star_import_brings_them_all() -> None:
    names: dict[str, object] = {}
    exec("from tagseg import *", names)
    assert set(PUBLIC) <= names.keys()


def test_other_names_are_missing_as_in_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'tagseg' has no attribute 'segment_all'"):
        tagseg.segment_all  # type: ignore[attr-defined]


def test_importing_is_quick_because_nothing_heavy_comes_along() -> None:
    code = (
        "import sys, tagseg; tagseg.TagsegError, tagseg.__version__;"
        "print(*(m for m in ('torch', 'numpy', 'cv2', 'PIL', 'matplotlib') if m in sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
