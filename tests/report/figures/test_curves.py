"""Learning curves: every epoch in its place."""

import numpy as np
import pytest

from cifar10.report.figures import group_colour, learning_curves_figure


def row(epoch: int, **changes) -> dict:
    loss = 1 / (epoch + 1)
    values = {"train/loss": loss, "val/loss": loss + 0.1, "train/acc": 1 - loss / 2, "val/acc": 0.9 - loss / 2}
    return {"epoch": epoch, **values, **{key.replace("_", "/"): value for key, value in changes.items()}}


def one(rows: list[dict], **more) -> list[dict]:
    return [{"name": "a", "runs": [rows], **more}]


def ring(axes):
    return next((line for line in axes.lines if line.get_markersize() == 9), None)


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_curves_show_each_metric_over_epochs_counted_from_one():
    figure = learning_curves_figure(one([row(epoch) for epoch in (2, 0, 1)]))
    for axes, metric in zip(figure.axes, ("acc", "loss"), strict=True):
        for linestyle, stage in (("--", "train"), ("-", "val")):
            line = of_group(axes, 0, linestyle)
            assert line.get_xdata().tolist() == [1, 2, 3]
            assert line.get_ydata().tolist() == [row(epoch)[f"{stage}/{metric}"] for epoch in range(3)]
    assert legend(figure) == ["a", "training", "lowest validation loss"]


def test_missing_values_are_gaps():
    rows = [row(0), row(1, train_loss=None), row(2, train_loss=float("nan")), row(3)]
    del rows[3]["train/loss"]
    values = of_group(learning_curves_figure(one(rows)).axes[1], 0, "--").get_ydata()
    assert np.isnan(values).tolist() == [False, True, True, True]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12, 13, 20, 60, 61, 500])
def test_epoch_ticks_are_whole_start_at_one_and_are_few(count):
    axes = learning_curves_figure(one([row(epoch) for epoch in range(count)])).axes[0]
    ticks = axes.get_xticks().tolist()
    assert ticks[0] == 1
    assert ticks == sorted({int(tick) for tick in ticks}) and ticks[-1] <= count
    assert len(ticks) <= 13 and len(ticks) >= min(count, 3)
    assert axes.get_xlim() == (0.5, count + 0.5)


def test_the_epoch_of_lowest_validation_loss_of_an_only_run_is_ringed_in_both_panels():
    rows = [row(0), row(1, val_loss=0.05, val_acc=0.5), row(2, val_loss=None), row(3, val_acc=0.99)]
    for axes, value in zip(learning_curves_figure(one(rows)).axes, (0.5, 0.05), strict=True):
        found = ring(axes)
        assert (list(found.get_xdata()), list(found.get_ydata())) == ([2], [value])
    assert ring(learning_curves_figure([{"name": "a", "runs": [rows, rows]}]).axes[0]) is None


def test_without_a_validation_loss_no_epoch_is_ringed(assert_within):
    rows = [{"epoch": 0, "train/loss": 1.0}, {"epoch": 1, "train/loss": 0.5, "val/loss": None}]
    figure = learning_curves_figure(one(rows))
    assert_within(figure)
    assert all(ring(axes) is None for axes in figure.axes) and "lowest validation loss" not in legend(figure)


@pytest.mark.parametrize("switch", [None, 0, 3, 9])
def test_no_switch_is_drawn_where_only_one_phase_ran(switch):
    figure = learning_curves_figure(one([row(epoch) for epoch in range(3)], switch_epoch=switch))
    for axes in figure.axes:
        assert not [line for line in axes.lines if line.get_linestyle() == ":"]
    assert "phase 2: fine-tuning starts" not in legend(figure)


@pytest.mark.parametrize("count", [1, 2, 20])
def test_nothing_is_cut_off_in_learning_curves(count, assert_within):
    assert_within(learning_curves_figure(one([row(epoch) for epoch in range(count)])))


def model(name: str, *lengths: int, switch_epoch: int | None = None) -> dict:
    runs = [[row(epoch, val_acc=(seed + 1) / 10) for epoch in range(n)] for seed, n in enumerate(lengths)]
    return {"name": name, "runs": runs, "switch_epoch": switch_epoch}


def of_group(axes, index: int, linestyle: str):
    return next(x for x in axes.lines if x.get_color() == group_colour(index) and x.get_linestyle() == linestyle)


def test_a_comparison_shows_mean_and_range_over_the_seeds_that_have_the_epoch():
    groups = [model("a", 3, 3), model("b", 2, 4, 1)]
    axes = learning_curves_figure(groups).axes[0]
    np.testing.assert_allclose(of_group(axes, 0, "-").get_data(), [[1, 2, 3], [0.15] * 3])
    np.testing.assert_allclose(of_group(axes, 1, "-").get_data(), [[1, 2, 3, 4], [0.2, 0.15, 0.2, 0.2]])
    low, high = axes.collections[1].get_datalim(axes.transData).intervaly
    assert (low, high) == pytest.approx((0.1, 0.3))


def test_a_comparison_shows_training_and_loss_too():
    accuracy, loss = learning_curves_figure([model("a", 3)]).axes
    for axes, line, key in ((accuracy, "--", "train/acc"), (loss, "-", "val/loss"), (loss, "--", "train/loss")):
        assert of_group(axes, 0, line).get_ydata().tolist() == [row(epoch)[key] for epoch in range(3)]


def test_a_comparison_marks_where_each_model_starts_its_second_phase():
    figure = learning_curves_figure([model("a", 9), model("b", 9, switch_epoch=4)])
    for axes in figure.axes:
        dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
        assert [(line.get_xdata()[0], line.get_color()) for line in dotted] == [(4.5, group_colour(1))]
    assert figure.legends[0].get_texts()[-1].get_text() == "phase 2: fine-tuning starts"
    without = learning_curves_figure([model("a", 9)]).legends[0]
    assert not any("phase" in text.get_text() for text in without.get_texts())


def test_a_model_without_epochs_is_no_hindrance_but_no_epochs_at_all_are_refused():
    learning_curves_figure([{"name": "a", "runs": []}, model("b", 2)])
    with pytest.raises(ValueError, match="no epoch"):
        learning_curves_figure([{"name": "a", "runs": [[]]}])
