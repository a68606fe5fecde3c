"""Line charts of training metrics and of methods side by side.

They are laid out here and drawn as inline SVG by ``chart.html``.

The SVG takes its colours from the page's style, so it follows light and dark mode, and its text can
be read and searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import MaxNLocator

__all__ = ["Chart", "Comparison", "Line", "compare", "training_charts"]

_WIDTH, _HEIGHT = 360, 200
_TALL = 270  # height of a comparison, whose lines need telling apart
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 34
_BINS = 240  # points of a line; more cannot be told apart at this width
_STYLES = 8  # kinds of lines that the page's style tells apart, by colour and dashes
_NOT_METRICS = frozenset({"iteration", "epoch", "seconds", "time"})

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Chart:
    """One metric over the iterations; ticks are (position, label), lines are SVG point lists."""

    metric: str
    summary: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    line: str
    trend: str
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    right: int = _WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = _HEIGHT - _BOTTOM


class Line(NamedTuple):
    """One method in a comparison: its name, and its points in drawing order, ``y`` in percent."""

    name: str
    x: Sequence[float | None]
    y: Sequence[float | None]


@dataclass(frozen=True)
class Comparison:
    """Several lines over the same axes; ``lines`` are (name, SVG point list, style).

    Attributes:
        guide: position of an upright line that marks one x, or None.
        dots: whether each point is marked.
    """

    title: str
    summary: str
    x_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    lines: tuple[tuple[str, str, int], ...]
    guide: float | None
    dots: bool = False
    width: int = _WIDTH
    height: int = _TALL
    left: int = _LEFT
    right: int = _WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = _TALL - _BOTTOM


def compare(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    summary: str,
    x_range: tuple[float, float] | None = None,
    guide: float | None = None,
    steps: bool = False,
) -> Comparison | None:
    """A chart of all lines, or None if no line has two points.

    Points that are None, NaN or infinite are left out. A line keeps its style if others are
    missing: it goes by its place in ``lines``.

    Args:
        summary: what the chart shows, in words, for those who do not see it.
        x_range: ends of the x axis; those of the points if not given.
        guide: an x to mark with an upright line.
        steps: ``x`` are few and whole: each point gets a dot, a lone one too, and ticks are whole.
    """
    drawn = [
        (line.name, points, place % _STYLES)
        for place, line in enumerate(lines)
        if len(points := _finite_points(line)) >= (1 if steps else 2)
    ]
    if all(len(points) < 2 for _, points, _ in drawn):
        return None
    together = np.concatenate([points for _, points, _ in drawn])
    low, high = together[:, 0].min(), together[:, 0].max()
    x_range = (low, max(high, low + 1)) if x_range is None else x_range
    y_ticks = _percent_ticks(together[:, 1])
    y_range = (y_ticks[0], y_ticks[-1])
    across = (_LEFT, _WIDTH - _RIGHT)
    up = (_TALL - _BOTTOM, _TOP)
    return Comparison(
        title=title,
        summary=summary,
        x_label=x_label,
        x_ticks=_labelled(
            _ticks(np.asarray(x_range), 10 if steps else 6, integer=steps), x_range, across
        ),
        y_ticks=_labelled(y_ticks, y_range, up),
        lines=tuple(
            (name, _thin_point_list(points, x_range, y_range), style)
            for name, points, style in drawn
        ),
        guide=None if guide is None else round(float(_to_pixels(guide, x_range, across)), 1),
        dots=steps,
    )


def training_charts(metrics: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """A chart for each numeric metric of a run's records (``iteration``, ``loss``, ``lr``, ...).

    Records without the metric, or with a value that is not finite, are left out of its line;
    a metric with fewer than two values has no chart.
    """
    names = dict.fromkeys(name for record in metrics for name in record if name not in _NOT_METRICS)
    series = ((name, _values(metrics, name)) for name in names)
    return [_chart(name, points) for name, points in series if len(points) >= 2]


def _values(metrics: Sequence[Mapping[str, Any]], name: str) -> Points:
    """(iteration, value) pairs, (N, 2)."""
    pairs = [
        (record["iteration"], record[name])
        for record in metrics
        if _is_number(record.get("iteration")) and _is_number(record.get(name))
    ]
    return np.asarray(pairs, np.float64).reshape(-1, 2)


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
    )


def _chart(name: str, points: Points) -> Chart:
    thin = _bin_means(points)
    x_ticks = _ticks(points[:, 0], 5, integer=True)
    y_ticks = _ticks(thin[:, 1], 5)
    first, last = points[0], points[-1]
    x_range = (points[:, 0].min(), max(points[:, 0].max(), points[:, 0].min() + 1))
    y_range = (y_ticks[0], y_ticks[-1])
    smooth = _moving_average(thin) if "loss" in name and len(points) > 40 else None
    return Chart(
        metric=name,
        summary=f"{name}: {first[1]:.3g} at iteration {first[0]:.0f}, "
        f"{last[1]:.3g} at iteration {last[0]:.0f}",
        x_ticks=_labelled(x_ticks, x_range, (_LEFT, _WIDTH - _RIGHT)),
        y_ticks=_labelled(y_ticks, y_range, (_HEIGHT - _BOTTOM, _TOP)),
        line=_point_list(thin, x_range, y_range),
        trend="" if smooth is None else _point_list(smooth, x_range, y_range),
    )


def _bin_means(points: Points) -> Points:
    if len(points) <= _BINS:
        return points
    return np.array([part.mean(axis=0) for part in np.array_split(points, _BINS)])


def _moving_average(points: Points) -> Points:
    """Mean over a window of a tenth of the line, shorter at both ends."""
    half = max(len(points) // 20, 1)
    return np.array(
        [points[max(i - half, 0) : i + half + 1].mean(axis=0) for i in range(len(points))]
    )


def _ticks(values: npt.NDArray[np.float64], count: int, *, integer: bool = False) -> Points:
    low, high = values.min(), values.max()
    if low == high:
        low, high = low - abs(low) / 2 - 1e-12, high + abs(high) / 2 + 1e-12
    return np.asarray(MaxNLocator(count, integer=integer).tick_values(low, high))


def _percent_ticks(values: Points) -> Points:
    """Ticks that enclose the values, and at least one percent; none below 0 or above 100."""
    low = min(values.min(), 99)
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, max(values.max(), low + 1))
    return np.unique(np.clip(ticks, 0, 100))


def _labelled(
    ticks: Points, data: tuple[float, float], pixels: tuple[float, float]
) -> tuple[tuple[float, str], ...]:
    inside = ticks[(ticks >= data[0] - 1e-12) & (ticks <= data[1] + 1e-12)]
    places = _to_pixels(inside, data, pixels)
    return tuple(
        (round(float(place), 1), f"{tick:.6g}") for place, tick in zip(places, inside, strict=True)
    )


def _to_pixels(
    values: Points | float, data: tuple[float, float], pixels: tuple[float, float]
) -> Points:
    return pixels[0] + (np.asarray(values) - data[0]) / (data[1] - data[0]) * (
        pixels[1] - pixels[0]
    )


def _point_list(points: Points, x: tuple[float, float], y: tuple[float, float]) -> str:
    return _join(_places(points, x, y, _HEIGHT))


def _thin_point_list(points: Points, x: tuple[float, float], y: tuple[float, float]) -> str:
    """The points at least a pixel from the last one that was kept, and both ends."""
    places = _places(points, x, y, _TALL)
    kept = [places[0]]
    for place in places[1:-1]:
        if np.abs(place - kept[-1]).max() >= 1:
            kept.append(place)
    return _join(np.array([*kept, *places[1:][-1:]]))


def _places(points: Points, x: tuple[float, float], y: tuple[float, float], height: int) -> Points:
    xs = _to_pixels(points[:, 0], x, (_LEFT, _WIDTH - _RIGHT))
    ys = _to_pixels(points[:, 1], y, (height - _BOTTOM, _TOP))
    return np.column_stack((xs, ys))


def _join(places: Points) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _finite_points(line: Line) -> Points:
    """(x, y) pairs where both are numbers, (N, 2)."""
    pairs = zip(line.x, line.y, strict=True)
    known = [pair for pair in pairs if all(value is not None for value in pair)]
    points = np.asarray(known, np.float64).reshape(-1, 2)
    return points[np.isfinite(points).all(axis=1)]
