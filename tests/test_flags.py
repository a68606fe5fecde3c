"""Groups of flags: what Typer sees of them, and what reaches a command."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from tagseg.errors import ConfigError
from tagseg.flags import (
    ComputingFlags,
    DataFlags,
    EngineName,
    EvidenceFlags,
    ExportTo,
    LayoutName,
    LearningFlags,
    MachineFlags,
    MaskFlags,
    MaskMarks,
    MasksAs,
    MasksBy,
    PhotosBy,
    Precision,
    PresetName,
    Shapes,
    TagsAre,
    TargetFlags,
    UntaggedPhotos,
    grouped,
)
from tagseg.recipes.catalog import find_recipe
from tagseg.session.train import Options


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, typer.Option("--how-large", help="Pixels.")] = 3


@dataclass(frozen=True)
class Outer:
    place: Annotated[Path, typer.Argument(help="Where.")]
    inner: Inner = Inner()
    names: Annotated[list[str] | None, typer.Option(help="Of whom.")] = None


def told(command: Any, *words: str) -> tuple[int, str]:
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command()(grouped(command))
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, done.output


def test_a_group_reaches_the_command_as_one_value() -> None:
    given = []

    def command(*, first: bool = False, group: Outer, last: int = 7) -> None:
        """Says it."""
        given.append((first, group, last))

    assert told(command, "here", "--how-large", "5", "--names", "a", "--names", "b")[0] == 0
    assert told(command, "there", "--first", "--last", "1")[0] == 0
    assert given == [
        (False, Outer(Path("here"), Inner(5), ["a", "b"]), 7),
        (True, Outer(Path("there"), Inner(), None), 1),
    ]
    assert told(command)[0] == 2  # the place is required
    assert len(given) == 2


def test_flags_stand_in_the_place_of_their_group() -> None:
    def command(*, first: bool = False, group: Outer, last: int = 7) -> None:
        """Says it."""

    assert [*inspect.signature(grouped(command)).parameters] == [
        *("first", "place", "size", "names", "last")
    ]
    page = told(command, "--help")[1]
    assert "Says it." in page
    places = [page.index(flag) for flag in ("--first", "--how-large", "--names", "--last")]
    assert places == sorted(places)
    assert "Pixels." in page


def test_what_is_said_of_photos_reaches_their_reader() -> None:
    data = DataFlags(
        Path("photos"),
        tags=Path("t.csv"),
        untagged=UntaggedPhotos.negative,
        layout=LayoutName.csv,
        exclude=["*_mask.png"],
        ground_truth=Path("truth"),
        val="val",
    )
    source = data.source(0.25)
    assert (source.folder, source.tags, source.masks) == (
        *(Path("photos"), Path("t.csv"), Path("truth")),
    )
    assert (source.untagged, source.layout, source.val) == ("negative", "csv", "val")
    assert (source.how.exclude, source.how.allow_missing) == (("*_mask.png",), 0.25)
    assert DataFlags(Path("photos")).source(0.0).untagged is None


def test_targets() -> None:
    assert TargetFlags().opened(0.5) is None
    target = TargetFlags(Path("a"), None, LayoutName.voc, Path("m")).opened(0.5)
    assert target == (Path("a"), None, "voc", Path("m"), 0.5)
    for flag, flags in {
        "--target-tags": TargetFlags(target_tags=Path("t")),
        "--target-layout": TargetFlags(target_layout=LayoutName.voc),
        "--target-ground-truth": TargetFlags(target_ground_truth=Path("m")),
    }.items():
        with pytest.raises(ConfigError, match=f"{flag} is given without --target"):
            flags.opened(0.5)


def test_marks_of_masks() -> None:
    assert MaskMarks().rules() == (None, "auto", None)
    marks = MaskMarks(Path("c.csv"), MasksBy.colour, MasksAs.stored)
    assert marks.rules() == (Path("c.csv"), "colour", "stored")


def test_files_of_evidence_are_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    guided, upper = find_recipe("guided"), find_recipe("full_supervision")
    assert EvidenceFlags().values(guided) == {}
    flags = EvidenceFlags(saliency=Path("maps"), boxes=Path("b.csv"), box_photos=Path("b"))
    assert flags.values(guided) == {
        "saliency_maps": str(tmp_path / "maps"),
        "boxes": str(tmp_path / "b.csv"),
        "box_photos": str(tmp_path / "b"),
    }
    assert EvidenceFlags(saliency_model=Path("u2netp")).values(guided) == {
        "saliency_model": "u2netp"
    }
    with pytest.raises(ConfigError, match="recipe full_supervision takes no --box-photos; use "):
        EvidenceFlags(box_photos=Path("b")).values(upper)


def test_what_a_recipe_learns_by(tmp_path: Path) -> None:
    union, upper = find_recipe("union"), find_recipe("full_supervision")
    nothing = LearningFlags()
    assert (nothing.belief(upper), nothing.quick(upper, {}), nothing.reviewed()) == ({}, {}, None)
    assert nothing.named_preset(union) is None
    assert LearningFlags(tags_are=TagsAre.noisy).belief(union) == {"tags_are": "noisy"}
    with pytest.raises(ConfigError, match="--tags-are says nothing to recipe full_supervision"):
        LearningFlags(tags_are=TagsAre.noisy).belief(upper)
    quick = LearningFlags(fast=True).quick(union, {"rounds": 3})
    assert quick
    assert "rounds" not in quick
    with pytest.raises(ConfigError, match="recipe full_supervision has no fast form"):
        LearningFlags(fast=True).quick(upper, {})
    paper = LearningFlags(preset=PresetName.paper)
    assert paper.named_preset(find_recipe("guided")) == "paper"
    with pytest.raises(ConfigError, match="recipe union has no preset"):
        paper.named_preset(union)
    weighed = LearningFlags(review=tmp_path / "review.jsonl", review_weight=4).reviewed()
    assert weighed is not None
    assert (weighed.file, weighed.settings.review_weight) == (tmp_path / "review.jsonl", 4)


def test_how_to_compute() -> None:
    flags = ComputingFlags("vgg16", "none", "cpu", Precision.fp32, 3, 2, 1, EngineName.ray)
    wanted = Options("vgg16", "none", "cpu", "fp32", 3, 2, 1, 0.5, "ray", "paper")
    assert flags.options(0.5, "paper") == wanted
    small = Options(device="cpu", precision="bf16", seed=2, threads=1)
    assert MachineFlags("cpu", Precision.bf16, 2, 1).options() == small


def test_masks_for_another_tool() -> None:
    assert MaskFlags().given() == []
    flags = MaskFlags(photos=Path("p"), photos_by=PhotosBy.link, shapes=Shapes.polygons)
    assert flags.given() == ["--photos", "--photos-by", "--shapes"]
    wishes = flags.wishes(ExportTo.coco)
    assert (wishes.to, wishes.photos_by, wishes.shapes, wishes.per) == (
        *("coco", "link", "polygons", None),
    )
