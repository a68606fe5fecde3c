from __future__ import annotations

import numpy as np
import pytest

from tagseg.report.charts import Chart, Line, compare, training_charts


def numbers(point_list: str) -> np.ndarray:
    return np.array([[float(v) for v in pair.split(",")] for pair in point_list.split()])


def records(values, name: str = "loss") -> list[dict]:
    return [{"iteration": i, name: value} for i, value in enumerate(values)]


def test_one_chart_per_metric_in_order() -> None:
    metrics = [
        {"iteration": i, "loss": 1 / i, "learning_rate": 0.1, "seconds": i, "note": "x"}
        for i in (1, 2)
    ]
    assert [chart.metric for chart in training_charts(metrics)] == ["loss", "learning_rate"]


def test_a_line_runs_over_the_plot_and_falls_as_the_loss_falls() -> None:
    (chart,) = training_charts(records([4.0, 3.0, 2.0, 1.0]))
    points = numbers(chart.line)
    assert points[0, 0] == chart.left
    assert points[-1, 0] == chart.right
    assert (np.diff(points[:, 1]) > 0).all(), "SVG's y axis points down"
    assert (points[:, 1] >= chart.top).all()
    assert (points[:, 1] <= chart.bottom).all()
    assert chart.summary == "loss: 4 at iteration 0, 1 at iteration 3"


def test_ticks_stand_where_their_values_are() -> None:
    (chart,) = training_charts(records([0.0, 10.0, 20.0]))
    low, _, high = numbers(chart.line)[:, 1]
    assert len(chart.y_ticks) > 3
    for y, label in chart.y_ticks:
        assert y == pytest.approx(low + float(label) / 20 * (high - low), abs=0.11)
    assert [label for _, label in chart.x_ticks] == ["0", "1", "2"]


def test_long_noisy_losses_are_thinned_and_get_a_trend() -> None:
    rng = np.random.default_rng(0)
    (chart,) = training_charts(records(rng.random(5000)))
    assert len(numbers(chart.line)) == 240
    assert numbers(chart.trend)[:, 1].std() < numbers(chart.line)[:, 1].std() / 2
    (rate,) = training_charts(records(rng.random(5000), "learning_rate"))
    assert rate.trend == ""


def test_values_that_are_no_numbers_leave_a_gap() -> None:
    (chart,) = training_charts(records([1.0, float("nan"), float("inf"), None, True, 2.0]))
    assert len(numbers(chart.line)) == 2


@pytest.mark.parametrize("values", [[0.0, 0.0], [5.0, 5.0], [-3e-9, -3e-9], [1e30, 1e30]])
def test_a_constant_has_a_chart(values) -> None:
    (chart,) = training_charts(records(values))
    assert isinstance(chart, Chart)
    assert np.isfinite(numbers(chart.line)).all()
    assert chart.y_ticks


@pytest.mark.parametrize("metrics", [[], [{"iteration": 1, "loss": 2.0}], [{"loss": 1.0}] * 3])
def test_too_little_for_a_line_is_no_chart(metrics) -> None:
    assert training_charts(metrics) == []


def compared(*lines: Line, **kwargs):
    return compare("t", lines, x_label="x", summary="s", **kwargs)


def test_a_comparison_draws_all_lines_over_the_same_axes() -> None:
    chart = compared(Line("a", [0, 50, 100], [10, 20, 30]), Line("b", [0, 100], [20, 20]))
    (_, first, _), (_, second, _) = chart.lines
    np.testing.assert_array_equal(
        numbers(first)[:, 0], [chart.left, (chart.left + chart.right) / 2, chart.right]
    )
    assert (numbers(second)[:, 1] == numbers(first)[1, 1]).all()
    low, _, high = numbers(first)[:, 1]
    for y, label in chart.y_ticks:
        assert y == pytest.approx(low + (float(label) - 10) / 20 * (high - low), abs=0.11)
    assert [name for name, _, _ in chart.lines] == ["a", "b"]


def test_the_guide_and_a_given_range() -> None:
    chart = compared(Line("a", [40, 60], [1, 2]), x_range=(0, 100), guide=20)
    assert chart.guide == pytest.approx(chart.left + 0.2 * (chart.right - chart.left), abs=0.06)
    assert [label for _, label in chart.x_ticks] == ["0", "20", "40", "60", "80", "100"]
    assert compared(Line("a", [40, 60], [1, 2])).guide is None


def test_lines_that_cannot_be_drawn_leave_the_others_their_styles() -> None:
    lines = [Line(str(i), [0, 1, 2], [1, None, float("nan") if i == 1 else 2]) for i in range(10)]
    chart = compared(*lines)
    assert [style for _, _, style in chart.lines] == [0, 2, 3, 4, 5, 6, 7, 0, 1]
    assert compared(lines[1]) is None
    assert compared() is None


@pytest.mark.parametrize("count", range(2, 11))
def test_steps_have_a_tick_and_a_dot_each(count: int) -> None:
    steps = range(1, count + 1)
    lone = Line("lone", steps, [50, *[None] * (count - 1)])
    chart = compared(Line("a", steps, [10 * i for i in steps]), lone, steps=True)
    assert [label for _, label in chart.x_ticks] == [str(i) for i in steps]
    (_, line, _), (_, dot, style) = chart.lines
    np.testing.assert_array_equal(numbers(line)[:, 0], [place for place, _ in chart.x_ticks])
    assert numbers(dot)[:, 0].tolist() == [chart.left]
    assert style == 1
    assert chart.dots
    assert compared(lone, steps=True) is None
    without = compared(Line("a", steps, [10 * i for i in steps]), lone)
    assert [name for name, _, _ in without.lines] == ["a"]
    assert not without.dots


def test_points_closer_than_a_pixel_are_thinned_and_the_ends_stay() -> None:
    x = np.linspace(0, 1, 5000)
    ((_, points, _),) = compared(Line("a", x.tolist(), np.square(x).tolist())).lines
    places = numbers(points)
    assert 250 < len(places) < 500
    assert np.abs(np.diff(places[:-1], axis=0)).max(axis=1).min() > 0.85
    whole = compared(Line("a", [0, 1], [0, 1]))
    np.testing.assert_array_equal(places[[0, -1]], numbers(whole.lines[0][1]))


@pytest.mark.parametrize("y", [0, 5, 99.5, 100])
def test_one_x_and_one_y_have_a_chart_within_0_and_100(y: float) -> None:
    chart = compared(Line("a", [3, 3], [y, y]))
    points = numbers(chart.lines[0][1])
    assert (points >= [chart.left, chart.top]).all()
    assert (points <= [chart.right, chart.bottom]).all()
    ticks = [float(label) for _, label in chart.y_ticks]
    assert min(ticks) <= y <= max(ticks)
    assert min(ticks) >= 0
    assert max(ticks) <= 100
