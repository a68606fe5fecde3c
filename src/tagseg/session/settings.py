"""Values of Config fields as text: ``field=value`` from the command line."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tagseg.errors import ConfigError, choose_from
from tagseg.recipes.catalog import RECIPES
from tagseg.stages.preset import PRESETS, Preset
from tagseg.stages.recipe import Recipe
from tagseg.stages.settings import Settings

__all__ = ["check_settings", "find_preset", "laid_under", "parse_settings", "preset_line"]

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def parse_settings(kind: type[Settings], assignments: Sequence[str]) -> dict[str, Any]:
    """Fields and typed values of a Config from texts such as ``alpha=0.3``.

    Tuples are written with commas; ``none`` stands for None where the field allows it.

    Raises:
        ConfigError: no ``=``, a field that does not exist, or a value of the wrong type.
    """
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip()
        if not equals:
            raise ConfigError(f"--set {assignment!r} has no '='", do="write --set field=value")
        _check_name(kind, name)
        try:
            values[name] = _parse(hints[name], text.strip())
        except ValueError as error:
            expected = str(error) or _describe(hints[name])
            raise ConfigError(
                f"--set {name}: {text!r} does not fit", do=f"give {expected}"
            ) from None
    return values


def check_settings(kind: type[Settings], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values for fields of a Config, with whole numbers as floats and lists as tuples where due.

    Raises:
        ConfigError: a field does not exist, or a value has the wrong type.
    """
    hints = get_type_hints(kind)
    values = {}
    for name, value in given.items():
        _check_name(kind, name)
        try:
            values[name] = _fitting(hints[name], value)
        except ValueError:
            expected = _describe(hints[name])
            raise ConfigError(f"{name} is {value!r}", do=f"give {expected}") from None
    return values


def laid_under(
    kind: type[Settings], usual: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Those of the ``usual`` values that are not given, and that do something beside the given.

    Raises:
        ConfigError: the given values do not fit together.
    """
    left = {name: value for name, value in usual.items() if name not in given}
    if not left:
        return {}
    idle = kind(**{**left, **given}).idle()
    return {name: value for name, value in left.items() if name not in idle}


def find_preset(recipe: Recipe, name: str) -> Preset:
    """The recipe's preset of this name.

    Raises:
        ConfigError: there is none of that name, or none of that recipe's paper.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}", do=choose_from(PRESETS, name))
    if recipe.paper_preset is None:
        *others, last = (other.name for other in RECIPES.values() if other.paper_preset)
        known = f"{', '.join(others)} or {last}" if others else last
        raise ConfigError(f"recipe {recipe.name} has no preset of a paper", do=f"use {known}")
    return recipe.paper_preset


def preset_line(recipe: Recipe, name: str, given: Mapping[str, Any]) -> str:
    """What is to be said of a preset that lies under the ``given`` values."""
    preset = find_preset(recipe, name)
    line = (
        f"preset {name} of {recipe.name}: {len(preset.stated)} fields from the paper, "
        f"{len(preset.open)} open"
    )
    others = sorted(
        field
        for field, said in preset.stated.items()
        if field in given and given[field] != said.value
    )
    return f"{line}; set otherwise: {', '.join(others)}" if others else line


def _check_name(kind: type[Settings], name: str) -> None:
    known = [item.name for item in fields(kind)]
    if name not in known:
        raise ConfigError(f"the recipe has no field {name!r}", do=choose_from(known, name))


def _fitting(hint: Any, value: Any) -> Any:
    """``value`` as the type ``hint``; ValueError if it has another."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        (inner,) = [arg for arg in args if arg is not type(None)]
        return _fitting(inner, value)
    if origin is Literal:
        if value not in args:
            raise ValueError
        return value
    if origin is tuple:
        if not isinstance(value, tuple | list):
            raise ValueError
        return tuple(_fitting(k, v) for k, v in zip(_kinds(args, len(value)), value, strict=True))
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(float(value))
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ValueError
    return value


def _parse(hint: Any, text: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if text.lower() == "none" and type(None) in args:
            return None
        (inner,) = [arg for arg in args if arg is not type(None)]
        return _parse(inner, text)
    if origin is Literal:
        if text not in args:
            raise ValueError
        return text
    if origin is tuple:
        parts = [part for part in text.strip("()[] ").split(",") if part.strip()]
        kinds = _kinds(args, len(parts))
        return tuple(_parse(k, part.strip()) for k, part in zip(kinds, parts, strict=True))
    if hint is bool:
        if text.lower() not in _TRUE + _FALSE:
            raise ValueError
        return text.lower() in _TRUE
    try:
        return _finite(float(text)) if hint is float else hint(text)
    except ValueError:
        raise ValueError from None


def _kinds(args: tuple[Any, ...], length: int) -> Sequence[Any]:
    """Types of the ``length`` items of a tuple with the type arguments ``args``."""
    kinds = [args[0]] * length if args[-1] is Ellipsis else list(args)
    if len(kinds) != length:
        raise ValueError
    return kinds


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError
    return value


def _describe(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join("none" if a is type(None) else _describe(a) for a in args)
    if origin is Literal:
        return " or ".join(map(str, args))
    if origin is tuple:
        if args[-1] is Ellipsis:
            return "values with commas between"
        return f"{len(args)} values with commas between"
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(hint, "a text")
