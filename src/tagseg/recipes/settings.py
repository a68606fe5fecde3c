"""Values of Config fields as text: ``field=value`` from the command line."""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tagseg.errors import ConfigError
from tagseg.recipes.base import TrainingConfig
from tagseg.recipes.session import unknown_field

__all__ = ["parse_settings"]

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def parse_settings(kind: type[TrainingConfig], assignments: Sequence[str]) -> dict[str, Any]:
    """Fields and typed values of a Config from texts such as ``alpha=0.3``.

    Tuples are written with commas; ``none`` stands for None where the field allows it.

    Raises:
        ConfigError: no ``=``, a field that does not exist, or a value of the wrong type.
    """
    hints = get_type_hints(kind)
    known = [item.name for item in fields(kind)]
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip()
        if not equals:
            raise ConfigError(f"--set {assignment!r} has no '='", do="write --set field=value")
        if name not in known:
            raise unknown_field(name, known)
        try:
            values[name] = _parse(hints[name], text.strip())
        except ValueError as error:
            expected = str(error) or _describe(hints[name])
            raise ConfigError(
                f"--set {name}: {text!r} does not fit", do=f"give {expected}"
            ) from None
    return values


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
        kinds = [args[0]] * len(parts) if args[-1] is Ellipsis else list(args)
        if len(parts) != len(kinds):
            raise ValueError
        return tuple(_parse(k, part.strip()) for k, part in zip(kinds, parts, strict=True))
    if hint is bool:
        if text.lower() not in _TRUE + _FALSE:
            raise ValueError
        return text.lower() in _TRUE
    try:
        return hint(text)
    except ValueError:
        raise ValueError from None


def _describe(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join("none" if a is type(None) else _describe(a) for a in args)
    if origin is Literal:
        return " or ".join(map(str, args))
    if origin is tuple:
        if args[-1] is Ellipsis:
            return f"{_describe(args[0])}s with commas between"
        return f"{len(args)} values with commas between"
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(hint, "a text")
