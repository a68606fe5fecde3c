from __future__ import annotations

import numpy as np
import pytest

from tagseg.report.charts import Chart, training_charts


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
