"""Settings: bounds, choices, and which of their fields act."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import pytest

from tagseg.errors import ConfigError
from tagseg.recipes.catalog import RECIPES
from tagseg.stages.settings import (
    CrfSettings,
    MaskSettings,
    RefinementSettings,
    SegmenterSettings,
    Settings,
    WorkSettings,
    number,
    where_from,
)

NAN, INF = float("nan"), float("inf")


def field_of(**bounds: Any) -> Any:
    return number(0.5, "assumed", "a number", **bounds)


@dataclass(frozen=True)
class Bounded(Settings):
    """A field of every kind of bounds."""

    above: float = field_of(above=0)
    at_least: float = field_of(at_least=0)
    at_most: float = field_of(at_most=1)
    below: float = field_of(below=1)
    from_to: float = field_of(at_least=0, at_most=1)
    over_to: float = field_of(above=0, at_most=1)
    from_below: float = field_of(at_least=0, below=1)
    over_below: float = field_of(above=0, below=1)
    maybe: float | None = number(None, "assumed", "a number or none", above=0)
    free: float = number(0.5, "assumed", "any number")


@pytest.mark.parametrize(
    ("name", "good", "bad", "advice"),
    [
        ("above", [1e-9, 1e9], [0.0, -1.0], "use a value over 0"),
        ("at_least", [0.0, 1e9], [-1e-9], "use 0 or more"),
        ("at_most", [-1e9, 1.0], [1.0 + 1e-9], "use a value up to 1"),
        ("below", [-1e9, 0.999], [1.0, 2.0], "use a value below 1"),
        ("from_to", [0.0, 1.0], [-1e-9, 1.5], "use 0 to 1"),
        ("over_to", [1e-9, 1.0], [0.0, 1.5], "use over 0, up to 1"),
        ("from_below", [0.0, 0.999], [-0.1, 1.0], "use 0 to below 1"),
        ("over_below", [1e-9, 0.999], [0.0, 1.0], "use over 0, below 1"),
        ("maybe", [None, 1e-9], [0.0], "use a value over 0, or none"),
    ],
)
def test_bounds(name, good, bad, advice):
    """The message names the field, its value, and the values that make sense."""
    for value in good:
        assert getattr(Bounded(**{name: value}), name) == value
    for value in [*bad, NAN, INF, -INF]:
        with pytest.raises(ConfigError) as caught:
            Bounded(**{name: value})
        assert str(caught.value) == f"{name} is {value}; {advice}"


def test_without_bounds_any_number_will_do():
    assert Bounded(free=-1e30).free == -1e30


@dataclass(frozen=True)
class Several(Settings):
    """Tuples with a bound for all values, and for each."""

    kernel: tuple[float, float, float] = number(
        (1.0, 2.0, 3.0),
        "assumed",
        "weight and sigmas",
        at_least=(0, None, None),
        above=(None, 0, 0),
    )
    factors: tuple[float, ...] = number((1.0,), "assumed", "of something", above=0, at_most=4)
    spread: tuple[float, ...] | None = number(None, "assumed", "as many as there are", at_least=0)
    ends: tuple[int, int] | None = number(None, "assumed", "first and last", at_least=(0, 1))


@pytest.mark.parametrize(
    "values",
    [
        {"kernel": (0.0, 1e-3, 1e-3)},
        {"factors": (4.0, 0.1, 1.0)},
        {"spread": (0.0,)},
        {"spread": (0.0, 1.0)},
        {"spread": (0.0, 1.0, 2.0)},
        {"ends": (0, 1)},
        {"ends": None},
    ],
    ids=str,
)
def test_tuples_within_their_bounds(values):
    ((name, value),) = values.items()
    assert getattr(Several(**values), name) == value


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"kernel": (-1.0, 2.0, 3.0)}, "kernel is -1,2,3; use 0 or more"),
        ({"kernel": (0.0, 0.0, 3.0)}, "kernel is 0,0,3; use values over 0"),
        ({"kernel": (0.0, 2.0, -3.0)}, "kernel is 0,2,-3; use values over 0"),
        ({"kernel": (NAN, 2.0, 3.0)}, "kernel is nan,2,3; use 0 or more"),
        ({"kernel": (1.0, 2.0, INF)}, "kernel is 1,2,inf; use values over 0"),
        ({"kernel": (1.0, 2.0)}, "kernel is (1.0, 2.0); give 3 numbers"),
        ({"kernel": ()}, "kernel is (); give 3 numbers"),
        ({"factors": (1.0, 0.0)}, "factors is 1,0; use over 0, up to 4"),
        ({"factors": (5.0,)}, "factors is 5; use over 0, up to 4"),
        ({"factors": (1.0, NAN)}, "factors is 1,nan; use over 0, up to 4"),
        ({"spread": (1.0, -1.0)}, "spread is 1,-1; use 0 or more, or none"),
        ({"spread": (1.0, 2.0, -1.0)}, "spread is 1,2,-1; use 0 or more, or none"),
        ({"ends": (0, 0)}, "ends is 0,0; use 1 or more, or none"),
        ({"ends": (-1, 1)}, "ends is -1,1; use 0 or more, or none"),
        ({"ends": (1, 2, 3)}, "ends is (1, 2, 3); give 2 numbers"),
    ],
    ids=str,
)
def test_tuples_out_of_their_bounds(values, line):
    with pytest.raises(ConfigError) as caught:
        Several(**values)
    assert str(caught.value) == line


@dataclass(frozen=True)
class Chosen(Settings):
    """Words and numbers of which there are few."""

    word: Literal["one", "two", "three"] = number("one", "assumed", "a word")
    stride: int | None = number(None, "assumed", "a stride", among=(8, 16))
    size: int = number(8, "assumed", "a size", among=(8, 16, 32))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"word": "four"}, "word is 'four'; use one, two or three"),
        ({"word": None}, "word is None; use one, two or three"),
        ({"stride": 4}, "stride is 4; use 8, 16 or none"),
        ({"size": 9}, "size is 9; use 8, 16 or 32"),
    ],
)
def test_choices(values, line):
    assert Chosen(word="three", stride=16, size=32).stride == 16
    with pytest.raises(ConfigError) as caught:
        Chosen(**values)
    assert str(caught.value) == line


# Several fields


@dataclass(frozen=True)
class Low(Settings):
    low: float = number(0.2, "assumed", "the lower", at_least=0)

    def check(self) -> None:
        if self.low == 7:
            raise ConfigError("low is 7", do="use another")


@dataclass(frozen=True)
class Both(Low):
    high: float = number(0.8, "assumed", "the higher", at_least=0)

    def check(self) -> None:
        if self.low > self.high:
            raise ConfigError(f"low is {self.low}, high {self.high}", do="use low <= high")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"low": 0.9}, "low is 0.9, high 0.8; use low <= high"),
        ({"low": 7.0, "high": 8.0}, "low is 7; use another"),
        ({"low": -1.0, "high": -2.0}, "low is -1.0; use 0 or more"),
    ],
)
def test_each_classs_own_check_is_made(values, line):
    """After the bounds, and those of the parts, too, without a word of the whole."""
    with pytest.raises(ConfigError) as caught:
        Both(**values)
    assert str(caught.value) == line


@dataclass(frozen=True)
class OfClasses(WorkSettings, MaskSettings):
    """Of a recipe that knows classes."""


def test_final_masks_hold_any_label_where_no_classes_are_known():
    assert OfClasses().of_masks() == MaskSettings()
    assert OfClasses(masks_by_tags=False).of_masks() == MaskSettings(masks_by_tags=False)
    assert WorkSettings().of_masks() == MaskSettings(masks_by_tags=False)


def test_a_share_of_the_settings():
    config = WorkSettings(crf_iterations=3, segmenter_crop=64)
    assert config.only(CrfSettings) == CrfSettings(crf_iterations=3)
    assert config.only(SegmenterSettings) == SegmenterSettings(segmenter_crop=64)
    assert WorkSettings.named("segmenter_crop")
    assert not CrfSettings.named("segmenter_crop")
    assert not WorkSettings.named("only")


# Fields that do nothing beside others


@dataclass(frozen=True)
class Idle(Settings):
    crf: bool = number(True, "assumed", "whether there is one")
    kind: Literal["a", "b", "c"] = number("a", "assumed", "of it")
    always: int = number(1, "assumed", "what always acts")
    with_it: int = number(2, "assumed", "with the CRF", only_with={"crf": (True,)})
    of_two: int = number(3, "assumed", "of kinds", only_with={"kind": ("a", "b")})
    of_both: int = number(4, "assumed", "of both", only_with={"crf": (True,), "kind": ("b",)})


@pytest.mark.parametrize(
    ("values", "idle"),
    [
        ({}, {"of_both"}),
        ({"kind": "b"}, set()),
        ({"kind": "c"}, {"of_two", "of_both"}),
        ({"crf": False}, {"with_it", "of_both"}),
        ({"crf": False, "kind": "b"}, {"with_it", "of_both"}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else " ".join(sorted(value)),
)
def test_fields_that_act(values, idle):
    config = Idle(**values)
    names = {item.name for item in fields(Idle)}
    assert config.acting() == {name: getattr(config, name) for name in names - idle}


def test_idle_fields_are_still_checked():
    with pytest.raises(ConfigError, match="segmenter_unary is 'x'; use softmax or log"):
        RefinementSettings(refiner="none", segmenter_unary="x")  # type: ignore[arg-type]


# Where they come from


def test_a_number_keeps_its_source():
    @dataclass(frozen=True)
    class One(Settings):
        count: int = number(3, "Eq. 1", "what", above=0, only_with={"other": (1,)})
        other: int = number(1, "assumed", "which")

    assert where_from(One) == [("count", 3, "Eq. 1", "what"), ("other", 1, "assumed", "which")]
    assert where_from(One(4, 2))[0] == ("count", 4, "Eq. 1", "what")
    metadata = fields(One)[0].metadata
    assert (metadata["where"], metadata["meaning"]) == ("Eq. 1", "what")
    assert metadata["bounds"] == {"above": 0, "at_least": None, "at_most": None, "below": None}
    assert dict(metadata["only_with"]) == {"other": (1,)}


# Those of the recipes


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_no_field_with_bounds_takes_what_is_no_number(recipe):
    kind = recipe.config
    for item in fields(kind):
        if all(bound is None for bound in item.metadata["bounds"].values()):
            continue
        default = getattr(kind(), item.name)
        for wrong in (NAN, INF, -INF):
            value = (*default[:-1], wrong) if isinstance(default, tuple) else wrong
            with pytest.raises(ConfigError, match=f"^{item.name} is .*{wrong}; use "):
                kind(**{item.name: value})


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_fields_act_beside_fields_that_there_are(recipe):
    """In every share of a Config, whatever else it holds."""
    shares = [kind for kind in recipe.config.__mro__ if issubclass(kind, Settings)]
    for kind in shares:
        recipe.config().only(kind).acting()
        for item in fields(kind):
            for name, values in item.metadata["only_with"].items():
                assert kind.named(name), (kind, item.name)
                assert isinstance(values, tuple), (kind, item.name)
                for value in values:
                    assert getattr(kind(**{name: value}), name) == value
