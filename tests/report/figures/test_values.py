"""Figures that set models beside each other: the right values at the right places."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cifar10.report.figures import (
    accuracy_figure,
    corruption_figure,
    cost_figure,
    coverage_figure,
    data_efficiency_figure,
    gallery_figure,
    group_colour,
    has_cost,
    overview_figure,
    per_class_change_figure,
    per_class_figure,
    reliability_figure,
)
from cifar10.report.figures.style import GREY, PALETTE
from cifar10.report.statistics import wilson_interval

MINUS, SPACE = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"
NAN = float("nan")


def points(axes, index: int, marker: str) -> list[tuple[float, float]]:
    """What is drawn in a group's colour with that marker."""
    lines = [line for line in axes.lines if (line.get_color(), line.get_marker()) == (group_colour(index), marker)]
    return [(float(x), float(y)) for line in lines for x, y in zip(*line.get_data(), strict=True)]


def written(axes) -> list[str]:
    return [text.get_text().replace(SPACE, " ") for text in axes.texts if text.get_text()]


def row_names(axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def test_accuracies_are_drawn_with_their_seeds_and_interval_and_written():
    groups = [
        {"name": "a", "accs": [0.70, 0.72, NAN], "low": 0.69, "high": 0.73},
        {"name": "b", "accs": [0.9561], "low": NAN, "high": NAN},
    ]
    axes = accuracy_figure(groups).axes[0]
    assert row_names(axes) == ["a", "b"] and axes.yaxis_inverted()
    assert points(axes, 0, "o") == [pytest.approx((0.71, 0))] and points(axes, 1, "s") == [(0.9561, 1)]
    assert [x for x, _ in points(axes, 0, ".") if np.isfinite(x)] == [0.70, 0.72]
    assert [x for x, _ in points(axes, 0, "None")] == [0.69, 0.73]
    assert written(axes) == ["71.00 %", "69.00 to 73.00 %", "95.61 %"]


def test_classes_are_sorted_by_their_gain_and_it_is_written():
    groups = [{"name": "a", "values": [0.5, 0.9, NAN, 0.8]}, {"name": "b", "values": [0.6, 0.85, 0.7, 0.99]}]
    figure = per_class_figure(["p", "q", "r", "s"], groups, "F1")
    axes = figure.axes[0]
    assert row_names(axes) == ["s", "p", "q", "r"]
    assert written(axes) == ["+19.0", "+10.0", f"{MINUS}5.0"]
    assert [x for x, _ in points(axes, 0, "o")][:3] == [0.8, 0.5, 0.9]
    assert [x for x, _ in points(axes, 1, "s")] == [0.99, 0.6, 0.85, 0.7]
    assert 0.4 < axes.get_xlim()[0] < 0.5 and axes.get_xlabel() == "F1 of a class\nright: b minus a, in points"


def test_changes_are_in_points_sorted_and_say_whose_they_are():
    figure = per_class_change_figure(["p", "q"], [-0.02, 0.1], [-0.05, 0.08], [0.01, 0.13], "old", "new")
    axes = figure.axes[0]
    assert row_names(axes) == ["q", "p"] and axes.get_xlabel().split("\n") == [
        "new minus old",
        "in points, with its 95 % interval",
    ]
    assert written(axes) == ["+10.0 [+8.0, +13.0]", f"{MINUS}2.0 [{MINUS}5.0, +1.0]"]
    circles = [line for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose([line.get_xdata()[0] for line in circles], [10, -2])
    bars = [line.get_xdata() for line in axes.lines if line.get_marker() != "o"][1:]  # the first one stands at zero
    np.testing.assert_allclose(bars, [[8, 13], [-5, 1]])


def test_a_change_is_coloured_by_its_sign_and_grey_where_its_interval_holds_zero():
    axes = per_class_change_figure("pqr", [0.1, -0.1, 0.1], [0.05, -0.2, -0.1], [0.2, -0.05, 0.3], "a", "b").axes[0]
    circles = [line for line in axes.lines if line.get_marker() == "o"]
    colours = dict(zip(row_names(axes), (line.get_color() for line in circles), strict=True))
    assert colours == {"p": PALETTE["blue"], "q": PALETTE["vermilion"], "r": GREY}


def model(name: str, seconds: float | None, flops: float | None) -> dict:
    costs = {"train_seconds": seconds, "train_flops": flops}
    costs = {key: None if value is None else {"mean": value, "std": None} for key, value in costs.items()}
    return {"name": name, "acc": {"mean": 0.9, "std": None}, **costs}


def test_cost_leaves_out_the_models_whose_cost_is_unknown():
    figure = cost_figure([model("a", 420, None), model("b", 1035, 2e16), model("c", None, None)])
    time, flops = figure.axes
    assert points(time, 0, "o") == [(420, 0.9)] and points(time, 1, "s") == [(1035, 0.9)]
    assert not points(flops, 0, "o") and points(flops, 1, "s") == [(2e16, 0.9)]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    assert [label.get_text() for label in time.get_xticklabels()] == ["1 min", "10 min", "1 h"]
    assert [label.get_text() for label in flops.get_xticklabels()] == ["10¹⁶", "10¹⁷"]


def test_cost_shows_means_with_the_spread_of_time_and_of_accuracy_over_seeds():
    spread = {"name": "a", "acc": {"mean": 0.9, "std": 0.01}, "train_flops": None}
    axes = cost_figure([{**spread, "train_seconds": {"mean": 420, "std": 30}}]).axes[0]
    (wide,), (tall,) = (bar.get_segments() for bar in axes.collections)
    np.testing.assert_allclose(wide, [[390, 0.9], [450, 0.9]])
    np.testing.assert_allclose(tall, [[420, 0.89], [420, 0.91]])


def test_a_cost_that_no_model_knows_has_no_panel():
    assert [axes.get_xlabel() for axes in cost_figure([model("a", 5, None)]).axes] == ["training time"]
    assert [axes.get_xlabel() for axes in cost_figure([model("a", NAN, 1e9)]).axes] == ["training FLOP"]
    assert not has_cost([model("a", None, 0)]) and not has_cost([])


@pytest.mark.parametrize("seconds", [0.02, 1, 60, 61, 3600, 5e6])
def test_every_cost_lies_between_two_named_ticks(seconds):
    axes = cost_figure([model("a", seconds, None)]).axes[0]
    named = [place for place, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True) if label.get_text()]
    assert len(named) >= 2 and min(named) <= seconds <= max(named)


def test_data_efficiency_shows_means_seeds_and_spread_at_the_actual_sizes():
    groups = [{"name": "a", "sizes": [45_000, 500], "accs": [[0.9], [0.4, 0.6, NAN]]}]
    axes = data_efficiency_figure(groups).axes[0]
    assert points(axes, 0, "o") == [(500, 0.5), (45_000, 0.9)]
    assert points(axes, 0, ".") == [(500, 0.4), (500, 0.6), (45_000, 0.9)]
    spread = axes.collections[0].get_segments()
    np.testing.assert_allclose(spread[0][:, 1], [0.5 - 0.02**0.5, 0.5 + 0.02**0.5])
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["500", "45,000"]


def test_coverage_begins_at_a_hundred_images_and_ends_at_all_with_an_interval():
    coverage = np.arange(1, 10_001) / 10_000
    acc = 1 - coverage / 4
    acc[:99] = 0  # what a few images say is noise
    axes = coverage_figure([{"name": "a", "coverage": coverage, "acc": acc}]).axes[0]
    line = axes.lines[0]
    assert (line.get_xdata()[0], line.get_xdata()[-1]) == (0.01, 1) and len(line.get_xdata()) == 200
    np.testing.assert_allclose(line.get_ydata(), 1 - line.get_xdata() / 4)
    (band,) = axes.collections
    low, high = wilson_interval(7500, 10_000)
    assert {round(low, 9), round(high, 9)} <= {round(y, 9) for x, y in band.get_paths()[0].vertices if x == 1}
    assert axes.get_ylim()[0] > 0.7


def test_every_corruption_has_a_panel_with_the_clean_accuracy_dashed():
    acc = np.linspace(0.9, 0.2, 70).reshape(14, 5)
    names = [f"corruption {i}" for i in range(14)]
    figure = corruption_figure([{"name": "a", "clean": 0.95, "acc": acc}], names)
    assert [axes.get_title() for axes in figure.axes] == names
    for axes, values in zip(figure.axes, acc, strict=True):
        assert points(axes, 0, "o") == list(zip(range(1, 6), values, strict=True))
        assert [line.get_ydata() for line in axes.lines if line.get_linestyle() == "--"] == [[0.95, 0.95]]


def calibration(**changes) -> dict:
    bins = {"edges": [0, 0.5, 1], "count": [10, 90], "confidence": [0.4, 0.9], "acc": [0.1, 0.8]}
    return {**bins, "ece": 0.123, "temperature": 1.0, **changes}


def test_reliability_shows_accuracy_with_its_interval_counts_and_error_before_and_after():
    after = calibration(acc=[NAN, 0.9], confidence=[NAN, 0.88], count=[0, 100], ece=0.02, temperature=1.53)
    figure = reliability_figure(calibration(), after, "a title")
    left, right, counts, _ = figure.axes
    assert (left.get_title(), right.get_title()) == ("as trained: ECE 0.1230", "scaled by temperature 1.53: ECE 0.0200")
    line = next(line for line in left.lines if line.get_marker() == "o")
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([0.4, 0.9], [0.1, 0.8])
    few, many = left.collections[0].get_segments()
    np.testing.assert_allclose(few, [[0.4, end] for end in wilson_interval(1, 10)])
    assert np.ptp(many[:, 1]) < np.ptp(few[:, 1]) / 2, "ninety images say more than ten"
    assert [bar.get_height() for bar in counts.patches] == [10, 90]


def test_a_gallery_says_what_each_image_is_and_was_taken_for():
    images = np.arange(3 * 3 * 4 * 6, dtype=np.uint8).reshape(3, 3, 4, 6)
    captions = [("automobile", "truck", 0.984), ("cat", "dog", 0.5), ("ship", "airplane", 0.1)]
    axes = gallery_figure(images, captions, "a title").axes[0]
    assert written(axes) == [
        *("automobile", "→ truck", "98 %"),
        *("cat", "→ dog", "50 %"),
        *("ship", "→ airplane", "10 %"),
    ]
    for drawn, image in zip(axes.images, images, strict=True):
        assert np.array_equal(drawn.get_array(), image.transpose(1, 2, 0))
        left, right, bottom, top = drawn.get_extent()
        assert (right - left) / (bottom - top) == pytest.approx(1.5)


def test_a_gallery_without_images_or_captions_for_them_is_refused():
    for count, captions in ((0, []), (2, [("a", "b", 0.5)])):
        with pytest.raises(ValueError, match="images and"):
            gallery_figure(np.zeros((count, 3, 4, 4), np.uint8), captions, "")


def overview(*seconds: float | None, classes: int = 3) -> Figure:
    groups = [
        {**model(f"m{i}", cost, None), "accs": [0.7 + i / 10, 0.71 + i / 10],
         "acc": {"mean": 0.705 + i / 10, "std": 0.007}, "recall": np.linspace(0.5, 0.5 + i / 4, classes)}
        for i, cost in enumerate(seconds)
    ]  # fmt: skip
    return overview_figure(groups, [f"c{label}" for label in range(classes)])


def test_an_overview_writes_the_accuracies_and_shows_recall_and_time():
    accuracy, recall, time = overview(60, 1200).axes
    assert written(accuracy) == ["m0", "70.50 %", "± 0.70", "m1", "80.50 %", "± 0.70"]
    assert points(accuracy, 1, ".") == [pytest.approx((0.8, 1.3)), pytest.approx((0.81, 1.3))]
    assert row_names(recall) == ["c2", "c1", "c0"] and written(recall)[0] == "+25.0"
    assert points(time, 1, "s") == [pytest.approx((1200, 0.805))]


def test_an_overview_has_one_scale_of_accuracy_that_holds_every_seed_and_spread():
    accuracy, _, time = overview(60, 1200).axes
    assert accuracy.get_xlim() == time.get_ylim()
    low, high = accuracy.get_xlim()
    assert 0.6 < low < 0.698 and 0.812 < high < 0.9


@pytest.mark.parametrize("seconds", [None, NAN])
def test_an_overview_without_times_has_two_panels(seconds):
    assert len(overview(seconds, seconds).axes) == 2


def test_an_overview_of_many_classes_shows_those_that_gain_most_and_least():
    recall = overview(None, None, classes=50).axes[1]
    assert row_names(recall) == [f"c{label}" for label in [*range(49, 39, -1), *range(9, -1, -1)]]
    assert "20 of 50 classes" in recall.get_xlabel()


def test_markers_in_legends_are_those_of_the_curves():
    figure = per_class_figure(["p"], [{"name": "a", "values": [0.5]}, {"name": "b", "values": [0.6]}])
    handles = figure.legends[0].findobj(Line2D)
    assert [(line.get_color(), line.get_marker()) for line in handles] == [
        (group_colour(0), "o"),
        (group_colour(1), "s"),
    ]
