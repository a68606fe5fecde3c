"""Line charts of training metrics, laid out here and drawn as inline SVG by ``chart.html``.

The SVG takes its colours from the page's style, so it follows light and dark mode, and its text can
be read and searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import MaxNLocator

__all__ = ["Chart", "training_charts"]

_WIDTH, _HEIGHT = 360, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 34
_BINS = 240  # points of a line; more cannot be told apart at this width
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


def _labelled(
    ticks: Points, data: tuple[float, float], pixels: tuple[float, float]
) -> tuple[tuple[float, str], ...]:
    inside = ticks[(ticks >= data[0] - 1e-12) & (ticks <= data[1] + 1e-12)]
    places = _to_pixels(inside, data, pixels)
    return tuple(
        (round(float(place), 1), f"{tick:.6g}") for place, tick in zip(places, inside, strict=True)
    )


def _to_pixels(values: Points, data: tuple[float, float], pixels: tuple[float, float]) -> Points:
    return pixels[0] + (values - data[0]) / (data[1] - data[0]) * (pixels[1] - pixels[0])


def _point_list(points: Points, x: tuple[float, float], y: tuple[float, float]) -> str:
    xs = _to_pixels(points[:, 0], x, (_LEFT, _WIDTH - _RIGHT))
    ys = _to_pixels(points[:, 1], y, (_HEIGHT - _BOTTOM, _TOP))
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(xs, ys, strict=True))
