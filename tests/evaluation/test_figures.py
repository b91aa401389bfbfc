"""What a reader relies on in `cifar10.evaluation.figures`: the right numbers, in the right places, legible."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from cifar10.evaluation import figures
from cifar10.evaluation.figures import confusion_matrix_figure, learning_curves_figure, save_figure

LONG = "an articulated lorry with a trailer and a very long name"


def luminance(colour) -> float:
    """Relative luminance of WCAG 2, section 1.4.3."""
    channels = np.array(colour[:3], dtype=float)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def assert_within(figure: Figure) -> None:
    """Draw, and assert that no artist is cut off by the figure's border."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.get_tightbbox(canvas.get_renderer())
    width, height = figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def row(epoch: int, **changes) -> dict:
    loss = 1 / (epoch + 1)
    values = {"train/loss": loss, "val/loss": loss + 0.1, "train/acc": 1 - loss / 2, "val/acc": 0.9 - loss / 2}
    return {"epoch": epoch, **values, **{key.replace("_", "/"): value for key, value in changes.items()}}


def curve(axes, label: str):
    return next((line for line in axes.lines if line.get_label().startswith(label)), None)


def switches(axes) -> list[float]:
    return [float(line.get_xdata()[0]) for line in axes.lines if line.get_linestyle() == "--"]


def test_counts_stand_with_true_classes_as_rows_and_predicted_ones_as_columns():
    matrix = [[5, 1, 0], [2, 7, 3], [4, 6, 9]]
    axes = confusion_matrix_figure(matrix, ["a", "b", "c"], "a title").axes[0]
    cells = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    assert cells == {(i, j): str(matrix[i][j]) for i in range(3) for j in range(3)}
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true", "predicted")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert axes.get_ylim() == (2.5, -0.5)


@pytest.mark.filterwarnings("error")
def test_colour_is_the_fraction_of_the_row_and_a_row_without_images_is_white():
    image = confusion_matrix_figure([[1, 3], [0, 0]], ["a", "b"], "").axes[0].images[0]
    assert image.get_array().tolist() == [[0.25, 0.75], [0, 0]]
    assert image.get_clim() == (0, 1)
    assert image.cmap(0.0)[:3] == (1, 1, 1)


def test_equal_steps_of_fraction_are_equal_steps_of_lightness():
    lightness = [116 * np.cbrt(luminance(figures.FRACTIONS(fraction))) - 16 for fraction in np.linspace(0, 1, 21)]
    steps = -np.diff(lightness)
    assert steps.min() > 0.85 * steps.mean() and steps.max() < 1.15 * steps.mean()


@pytest.mark.parametrize("percent", range(0, 101, 3))
def test_counts_contrast_with_their_cell_at_every_fraction(percent):
    axes = confusion_matrix_figure([[percent, 100 - percent], [0, 1]], ["a", "b"], "").axes[0]
    ground = luminance(axes.images[0].cmap(percent / 100))
    ink = {"black": 0.0, "white": 1.0}[axes.texts[0].get_color()]
    assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) >= 4.5  # WCAG 2, level AA


@pytest.mark.parametrize("name", ["cat", "automobile", LONG])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 30, 31])
def test_nothing_overlaps_or_is_cut_off_in_a_matrix(n, name):
    figure = confusion_matrix_figure(np.full((n, n), 10_000), [name] * n, "EfficientNet-B0 fine-tuned, CIFAR-10 test")
    assert_within(figure)
    axes = figure.axes[0]
    cell = axes.bbox.width / n
    renderer = figure.canvas.get_renderer()
    for label in axes.get_xticklabels():
        height = 1.15 * label.get_fontsize() * figure.dpi / 72
        if label.get_rotation():
            assert height <= cell * np.sin(np.radians(label.get_rotation()))
        else:
            assert label.get_window_extent(renderer).width < cell
    for above, below in pairwise(axes.get_yticklabels()):
        assert above.get_window_extent(renderer).y0 >= below.get_window_extent(renderer).y1
    for text in axes.texts:
        assert text.get_window_extent(renderer).width < cell


def test_counts_are_left_out_past_thirty_classes():
    names = [str(i) for i in range(31)]
    assert len(confusion_matrix_figure(np.eye(30, dtype=int), names[:30], "").axes[0].texts) == 900
    assert not confusion_matrix_figure(np.eye(31, dtype=int), names, "").axes[0].texts


def test_names_and_titles_are_drawn_as_written_even_with_dollar_signs():
    figure = confusion_matrix_figure([[1, 0], [0, 1]], [r"$\nonsense{$", "a_b"], r"$\nonsense{$")
    assert_within(figure)
    assert_within(learning_curves_figure([row(0)], title=r"$\nonsense{$"))


def test_a_matrix_that_does_not_fit_its_names_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 2\), but there are 3 class names"):
        confusion_matrix_figure([[1, 0], [0, 1]], ["a", "b", "c"], "")


def test_curves_show_each_metric_over_epochs_counted_from_one():
    rows = [row(epoch) for epoch in (2, 0, 1)]
    figure = learning_curves_figure(rows, title="a title")
    for axes, metric in zip(figure.axes, ("loss", "acc"), strict=True):
        for label, stage in (("train", "train"), ("validation", "val")):
            line = curve(axes, label)
            assert line.get_xdata().tolist() == [1, 2, 3]
            assert line.get_ydata().tolist() == [row(epoch)[f"{stage}/{metric}"] for epoch in range(3)]
            assert line.get_marker() not in ("", "None", None)
    assert figure.get_suptitle() == "a title"
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == ["train", "validation"]


def test_missing_values_are_gaps():
    rows = [row(0), row(1, train_loss=None), row(2, train_loss=float("nan")), row(3)]
    del rows[3]["train/loss"]
    values = curve(learning_curves_figure(rows).axes[0], "train").get_ydata()
    assert np.isnan(values).tolist() == [False, True, True, True]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12, 13, 20, 60, 61, 500])
def test_epoch_ticks_are_whole_start_at_one_and_are_few(count):
    axes = learning_curves_figure([row(epoch) for epoch in range(count)]).axes[0]
    ticks = axes.get_xticks().tolist()
    assert ticks[0] == 1
    assert ticks == sorted({int(tick) for tick in ticks}) and ticks[-1] <= count
    assert len(ticks) <= 13 and len(ticks) >= min(count, 3)
    assert axes.get_xlim() == (0.5, count + 0.5)


def test_the_epoch_of_lowest_validation_loss_is_ringed_in_both_panels():
    rows = [row(0), row(1, val_loss=0.05, val_acc=0.5), row(2, val_loss=None), row(3, val_acc=0.99)]
    panels = learning_curves_figure(rows).axes
    for axes, value in zip(panels, (0.05, 0.5), strict=True):
        ring = curve(axes, "lowest validation loss: epoch 2")
        assert (ring.get_xdata().tolist(), ring.get_ydata().tolist()) == ([2], [value])


def test_without_a_validation_loss_no_epoch_is_ringed():
    rows = [{"epoch": 0, "train/loss": 1.0}, {"epoch": 1, "train/loss": 0.5, "val/loss": None}]
    figure = learning_curves_figure(rows)
    assert_within(figure)
    assert all(curve(axes, "lowest") is None for axes in figure.axes)


@pytest.mark.parametrize(("count", "switch"), [(2, 1), (10, 5), (20, 1), (20, 19), (21, 15)])
def test_the_switch_stands_between_the_last_epoch_of_phase_1_and_the_first_of_phase_2(count, switch):
    figure = learning_curves_figure([row(epoch) for epoch in range(count)], switch_epoch=switch)
    assert_within(figure)
    for axes in figure.axes:
        assert switches(axes) == [switch + 0.5]
        before, after = sorted(axes.texts, key=lambda text: text.get_text())
        assert before.get_text().split() == ["phase", "1:", "head"]
        assert after.get_text().split() == ["phase", "2:", "fine-tuning"]
        line = axes.transData.transform((switch + 0.5, 0))[0]
        renderer = figure.canvas.get_renderer()
        assert before.get_window_extent(renderer).x1 < line < after.get_window_extent(renderer).x0


@pytest.mark.parametrize("switch", [None, 0, 3, 9])
def test_no_switch_is_drawn_where_only_one_phase_ran(switch):
    for axes in learning_curves_figure([row(epoch) for epoch in range(3)], switch_epoch=switch).axes:
        assert switches(axes) == [] and not axes.texts


@pytest.mark.parametrize("count", [1, 2, 20])
def test_nothing_is_cut_off_in_learning_curves(count):
    assert_within(learning_curves_figure([row(epoch) for epoch in range(count)], title="EfficientNet-B0"))


def test_no_epochs_are_refused():
    with pytest.raises(ValueError, match="no epoch"):
        learning_curves_figure([])


def test_figures_need_no_pyplot(tmp_path):
    code = (
        "import sys; from cifar10.evaluation.figures import *;"
        "save_figure(confusion_matrix_figure([[1, 0], [0, 1]], ['a', 'b'], ''), sys.argv[1]);"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], check=True)


def test_a_figure_is_saved_as_a_png_of_150_dots_an_inch(tmp_path):
    figure = Figure(figsize=(4, 2))
    save_figure(figure, tmp_path / "figure.anything")
    with Image.open(tmp_path / "figure.anything") as image:
        assert (image.format, image.size) == ("PNG", (600, 300))
    assert [path.name for path in tmp_path.iterdir()] == ["figure.anything"]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "figure.png").write_bytes(b"old")

    def fail(self, path, **options):
        path.write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk is full"):
        save_figure(Figure(), tmp_path / "figure.png")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
    assert (tmp_path / "figure.png").read_bytes() == b"old"


def test_a_missing_folder_is_not_made(tmp_path):
    with pytest.raises(FileNotFoundError):
        save_figure(Figure(), tmp_path / "absent" / "figure.png")
    assert not (tmp_path / "absent").exists()
