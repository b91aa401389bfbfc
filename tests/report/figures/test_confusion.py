"""Confusion matrices: the right numbers in the right cells, legible."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure

from cifar10.report.figures import SINGLE, confusion_difference_figure, confusion_image, confusion_matrix_figure
from cifar10.report.figures.confusion import FRACTIONS

LONG = "an articulated lorry with a trailer and a very long name"
MINUS = "\N{MINUS SIGN}"


def luminance(colour) -> float:
    """Relative luminance of WCAG 2, section 1.4.3."""
    channels = np.array(colour[:3], dtype=float)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def cells(figure: Figure) -> dict[tuple[int, int], str]:
    """The text of each cell, by row and column."""
    positions = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    return {(row, column): text for (column, row), text in positions.items()}


def test_counts_and_percentages_stand_with_true_classes_as_rows_and_predicted_ones_as_columns():
    figure = confusion_matrix_figure([[4845, 155, 0], [4, 0, 996], [0, 0, 0]], ["a", "b", "c"], "a title")
    axes = figure.axes[0]
    assert cells(figure) == {(0, 0): "4,845\n96.9", (0, 1): "155\n3.1", (1, 0): "4\n0.4", (1, 2): "996\n99.6"}
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true", "predicted")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert axes.get_ylim() == (2.5, -0.5)


def test_the_colourbar_is_in_the_cells_percentages(drawn_texts):
    figure = confusion_matrix_figure([[1, 3], [2, 2]], ["a", "b"], "")
    (bar,) = figure.axes[0].child_axes
    assert bar.get_ylabel() == "% of the true class"
    drawn_texts(figure)
    assert {"0", "100"} <= {label.get_text() for label in bar.get_yticklabels()}


def test_a_single_column_has_room_for_percentages_alone_and_long_matrices_stay_as_they_are():
    names = [f"class {i}" for i in range(11)]
    narrow = confusion_matrix_figure(np.eye(10, dtype=int), names[:10], "", width=SINGLE)
    assert narrow.get_figwidth() == SINGLE and set(cells(narrow).values()) == {"100.0"}
    assert set(cells(confusion_matrix_figure(np.eye(11, dtype=int), names, "", width=SINGLE)).values()) == {"1\n100.0"}


def test_a_difference_is_b_minus_a_in_points_of_the_true_class():
    figure = confusion_difference_figure([[50, 50], [1, 3]], [[180, 20], [3, 1]], ["a", "b"], "")
    assert cells(figure) == {(0, 0): "+40.0", (0, 1): f"{MINUS}40.0", (1, 0): "+50.0", (1, 1): f"{MINUS}50.0"}
    assert not cells(confusion_difference_figure([[5, 5], [0, 1]], [[1, 1], [0, 7]], ["a", "b"], ""))


def test_a_difference_is_blue_where_b_is_better_and_orange_where_it_is_worse():
    mesh = confusion_difference_figure([[50, 50], [1, 3]], [[180, 20], [3, 1]], ["a", "b"], "").axes[0].collections[0]
    better, worse = mesh.get_array()
    assert better.tolist() == [40, 40] and worse.tolist() == [-50, -50]
    assert mesh.get_clim() == (-50, 50)
    assert mesh.cmap(0.5)[:3] == pytest.approx((1, 1, 1), abs=0.01)
    red, _, blue, _ = mesh.cmap(1.0)
    assert blue > red
    red, _, blue, _ = mesh.cmap(0.0)
    assert red > blue


@pytest.mark.filterwarnings("error")
def test_colour_is_the_fraction_of_the_row_and_a_row_without_images_is_white():
    mesh = confusion_matrix_figure([[1, 3], [0, 0]], ["a", "b"], "").axes[0].collections[0]
    assert mesh.get_array().tolist() == [[0.25, 0.75], [0, 0]]
    assert mesh.get_clim() == (0, 1)
    assert mesh.cmap(0.0)[:3] == (1, 1, 1)


def test_equal_steps_of_fraction_are_equal_steps_of_lightness():
    lightness = [116 * np.cbrt(luminance(FRACTIONS(fraction))) - 16 for fraction in np.linspace(0, 1, 21)]
    steps = -np.diff(lightness)
    assert steps.min() > 0.85 * steps.mean() and steps.max() < 1.15 * steps.mean()


@pytest.mark.parametrize("percent", range(0, 101, 10))
def test_numbers_contrast_with_their_cell_at_every_fraction(percent):
    matrix = [[percent, 100 - percent], [0, 1]]
    empty = [[0, 0], [0, 0]]
    for figure in (confusion_matrix_figure(matrix, "ab", ""), confusion_difference_figure(empty, matrix, "ab", "")):
        axes = figure.axes[0]
        for text in axes.texts:
            column, row = text.get_position()
            mesh = axes.collections[0]
            ground = luminance(mesh.cmap(mesh.norm(mesh.get_array()[row, column])))
            ink = {"black": 0.0, "white": 1.0}[text.get_color()]
            assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) >= 4.5  # WCAG 2, level AA


@pytest.mark.parametrize(("n", "name"), [(1, "cat"), (2, LONG), (3, "cat"), (10, "automobile"), (30, LONG), (31, LONG)])
def test_nothing_overlaps_or_is_cut_off_in_a_matrix(n, name, assert_within):
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


def test_numbers_are_left_out_past_thirty_classes():
    names = [str(i) for i in range(31)]
    assert len(confusion_matrix_figure(np.ones((30, 30), dtype=int), names[:30], "").axes[0].texts) == 900
    assert not confusion_matrix_figure(np.ones((31, 31), dtype=int), names, "").axes[0].texts
    assert not confusion_difference_figure(np.eye(31), np.ones((31, 31)), names, "").axes[0].texts


def test_small_shares_can_be_left_unwritten():
    figure = confusion_matrix_figure([[96, 4], [5, 95]], ["a", "b"], "", SINGLE, 0.05)
    assert cells(figure) == {(0, 0): "96.0", (1, 0): "5.0", (1, 1): "95.0"}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [2, 31, 700])
def test_an_image_of_a_matrix_has_its_colours_and_nothing_else(n):
    matrix = np.eye(n, dtype=int) * 3
    matrix[0, 0], size = 0, max(1, 600 // n)
    image = confusion_image(matrix)
    assert image.shape == (n * size, n * size, 3) and image.dtype == np.uint8
    assert (image[0, 0] == 255).all() and (image[-1, -1] == FRACTIONS(1.0, bytes=True)[:3]).all()


def test_a_matrix_that_does_not_fit_its_names_is_refused():
    for draw in (confusion_matrix_figure, lambda *rest: confusion_difference_figure(np.eye(3), *rest)):
        with pytest.raises(ValueError, match=r"\(2, 2\), but there are 3 class names"):
            draw([[1, 0], [0, 1]], ["a", "b", "c"], "")
