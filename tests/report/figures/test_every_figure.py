"""What holds for every figure: nothing overlaps or is cut, names stand as written, colours stay, SVG fits a page."""

import functools
import re
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cifar10.report import figures

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
LONG = r"an articulated lorry, $\nonsense{$ & <trailer>"
# of a case: its groups' names, its classes' names, seeds a group, epochs
CASES = {
    "usual": (["CNN", "EfficientNet-B0"], CIFAR10, 3, 12),
    "one": (["_CNN"], ["a", "b"], 1, 1),
    "many": ([f"{LONG} {i}" for i in range(8)], [f"{i} {LONG}" for i in range(12)], 2, 30),
    "unknown": (["CNN", "ünknown"], ["a", "b", LONG], 2, 3),
}
BY_GROUP = {
    "accuracy": lambda groups, names, **w: figures.accuracy_figure(groups, **w),
    "corruption": lambda groups, names, **w: figures.corruption_figure(
        [{**g, "acc": g["corrupted"]} for g in groups], ["gaussian noise", "fog", LONG, "snow"], **w
    ),
    "cost": lambda groups, names, **w: figures.cost_figure(groups, **w),
    "coverage": lambda groups, names, **w: figures.coverage_figure([{**g, "acc": g["selective"]} for g in groups], **w),
    "curves": lambda groups, names, **w: figures.learning_curves_figure(groups, **w),
    "data": lambda groups, names, **w: figures.data_efficiency_figure(
        [{**g, "accs": g["by_size"]} for g in groups], **w
    ),
    "overview": lambda groups, names, **w: figures.overview_figure(groups, names, **w),
    "per_class": lambda groups, names, **w: figures.per_class_figure(names, groups, **w),
}
OTHERS = {
    "change": lambda groups, names, **w: figures.per_class_change_figure(names, *change(groups), *ends(groups), **w),
    "confusion": lambda groups, names, **w: figures.confusion_matrix_figure(matrix(names, 0), names, LONG, **w),
    "difference": lambda groups, names, **w: figures.confusion_difference_figure(
        matrix(names, 0), matrix(names, 1), names, LONG, **w
    ),
    "gallery": lambda groups, names, **w: figures.gallery_figure(*gallery(names), LONG, **w),
    "gallery of files": lambda groups, names, **w: figures.gallery_figure(*gallery(names), LONG, [LONG] * 11, **w),
    "clusters": lambda groups, names, **w: figures.clustered_confusion_figure(many(), THIRTY_ONE, LONG, **w),
    "two classes": lambda groups, names, **w: figures.two_classes_figure(
        [{**g, **thresholds(place)} for place, g in enumerate(groups)], names[-1], 0.03, **w
    ),
    "reliability": lambda groups, names, **w: figures.reliability_figure(bins(0.3), bins(0.02), LONG, **w),
}
KINDS = {**BY_GROUP, **OTHERS}


def case(name: str) -> tuple[list[dict], list[str]]:
    names, classes, seeds, epochs = CASES[name]
    rng = np.random.default_rng(0)
    unknown = np.nan if name == "unknown" else 1.0
    groups = []
    for place, group in enumerate(names):
        acc = 0.7 + 0.25 * place / len(names)
        recall = acc + rng.uniform(-0.1, 0.04, len(classes))
        recall[0] *= unknown
        groups.append(
            {
                "name": group,
                "accs": [acc + 0.002 * seed * unknown for seed in range(seeds)],
                "low": (acc - 0.01) * unknown,
                "high": (acc + 0.01) * unknown,
                "recall": recall,
                "values": recall,
                "train_seconds": None if unknown != 1 else {"mean": 400 * 3.0**place, "std": 50.0},
                "train_flops": {"mean": 1e14 * 7.0**place, "std": None if seeds == 1 else 0.0},
                "acc": {"mean": acc, "std": None if seeds == 1 else 0.004},
                "corrupted": acc - np.outer([0.1, 0.2, 0.3, 0.4], np.arange(1, 6) / 5) * unknown,
                "clean": acc,
                "coverage": np.arange(1, 501) / 500,
                "selective": 1 - (1 - acc) * np.arange(1, 501) / 500,
                "sizes": [500, 5000, 40_000, 45_000],
                "by_size": [[acc * share * unknown] * seeds for share in (0.6, 0.8, 0.98, 1)],
                "runs": [[row(epoch, acc * unknown) for epoch in range(epochs - seed)] for seed in range(seeds)],
                "switch_epoch": epochs // 2 if place else None,
            }
        )
    return groups, classes


def row(epoch: int, acc: float) -> dict:
    reached = acc * (epoch + 1) / (epoch + 2)
    return {"epoch": epoch, "val/acc": reached, "val/loss": 1 - reached, "train/acc": reached, "train/loss": 1.1}


def change(groups: list[dict]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    difference = groups[-1]["recall"] - groups[0]["recall"]
    return difference, difference - 0.02, difference + 0.03


def ends(groups: list[dict]) -> tuple[str, str]:
    return groups[0]["name"], groups[-1]["name"]


def matrix(names: list[str], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).multinomial(1000, np.ones(len(names)) / len(names), len(names))


def gallery(names: list[str]) -> tuple[np.ndarray, list[tuple[str, str, float]]]:
    images = np.random.default_rng(0).integers(0, 256, (11, 3, 8, 8), dtype=np.uint8)
    return images, [(names[i % len(names)], names[-1], i / 11) for i in range(11)]


THIRTY_ONE = [f"{LONG} {i}" for i in range(31)]


def many() -> np.ndarray:
    return matrix(THIRTY_ONE, 2)


def thresholds(seed: int) -> dict:
    x = np.linspace(0, 1, 50)
    curves = [(x, x ** (0.1 + 0.1 * seed)), (x, x**0.3)]
    points = [[0.1, 0.2], [0.8, 0.9]]
    return {"roc": curves, "precision_recall": curves, "roc_points": points, "precision_recall_points": points}


def bins(gap: float) -> dict:
    edges = np.linspace(0, 1, 16)
    confidence = (edges[1:] + edges[:-1]) / 2
    confidence[:4] = np.nan
    count = np.where(np.isnan(confidence), 0, 4.0 ** np.arange(-4, 11) // 1).astype(int)
    acc = confidence - gap * confidence
    return {"edges": edges, "count": count, "confidence": confidence, "acc": acc, "ece": gap, "temperature": 1 + gap}


@functools.cache
def figure_of(kind: str, name: str = "usual", width: float = figures.DOUBLE) -> Figure:
    return KINDS[kind](*case(name), width=width)


@functools.cache
def svg_of(kind: str) -> str:
    return figures.svg(KINDS[kind](*case("usual")), "figure-a", "a “label” & <more>")


def markers(figure: Figure) -> set[tuple[str, str]]:
    """Colour and marker of everything that is drawn with a group's marker."""
    lines = [line for line in figure.findobj(Line2D) if line.get_marker() in set("os^DvPX*")]
    return {(to_hex(line.get_color()).upper(), line.get_marker()) for line in lines}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("width", [figures.DOUBLE, figures.SINGLE])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_no_text_runs_into_another_or_over_the_border(kind, name, width, drawn_texts):
    figure = figure_of(kind, name, width)
    texts = drawn_texts(figure)
    assert texts
    for text, box in texts.items():
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, text
    upright = [(text, box) for text, box in texts.items() if text.get_rotation() % 90 == 0]
    for (one, box), (other, place) in combinations(upright, 2):
        apart = min(box.x1, place.x1) - max(box.x0, place.x0) < 1 or min(box.y1, place.y1) - max(box.y0, place.y0) < 1
        assert apart, (one.get_text(), other.get_text())


@pytest.mark.parametrize("kind", BY_GROUP)
def test_every_group_is_named_as_it_is_called(kind, drawn_texts):
    for name in ("usual", "one"):
        drawn = {text.get_text() for text in drawn_texts(figure_of(kind, name))}
        assert drawn >= set(CASES[name][0])


@pytest.mark.parametrize("kind", ["overview", "per_class", "change", "confusion", "difference"])
def test_every_class_is_named(kind, drawn_texts):
    assert {text.get_text() for text in drawn_texts(figure_of(kind))} >= set(CIFAR10)


@pytest.mark.parametrize("kind", BY_GROUP)
def test_a_group_has_the_same_colour_and_marker_in_every_figure(kind):
    groups, names = case("many")
    wanted = [(figures.group_colour(i), figures.group_marker(i)) for i in range(8)]
    assert markers(KINDS[kind](groups, names)) == set(wanted)
    alone = [{**groups[0], "index": 5}]  # what a list leaves out does not move the others
    assert markers(KINDS[kind](alone, names)) == {wanted[5]}


@pytest.mark.parametrize("kind", KINDS)
def test_an_svg_is_well_formed_and_says_what_it_shows(kind):
    root = ElementTree.fromstring(svg_of(kind))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert (root.get("role"), root.get("aria-label")) == ("img", "a “label” & <more>")
    assert root.get("width") is None and root.get("height") is None
    for prolog in ("<?xml", "<!DOCTYPE", "<metadata", "<style"):
        assert prolog not in svg_of(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_ids_of_an_svg_are_its_own_and_everything_it_refers_to_is_there(kind):
    ids = re.findall(r'\bid="([^"]*)"', svg_of(kind))
    assert len(set(ids)) == len(ids) and all(name.startswith("figure-a-") for name in ids)
    references = re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', svg_of(kind))
    assert references and {one or other for one, other in references} <= set(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_an_svg_takes_the_colours_of_its_text_and_axes_and_its_ground_from_the_page(kind):
    colours = re.findall(r"#[0-9a-f]{6}\b", svg_of(kind).lower().replace("var(--muted, #595959)", ""))
    assert "currentColor" in svg_of(kind) and "#1b1b1d" not in colours and "#595959" not in colours
    if kind not in ("clusters", "confusion", "difference"):  # their cells are opaque, and some are white
        assert "#ffffff" not in colours


@pytest.mark.parametrize("kind", KINDS)
def test_equal_figures_give_equal_svgs(kind):
    assert figures.svg(KINDS[kind](*case("usual")), "figure-a", "a “label” & <more>") == svg_of(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_is_as_wide_as_a_page_or_as_a_phone(kind):
    width = figure_of(kind).get_figwidth()
    assert width == figures.DOUBLE or (kind in ("confusion", "difference") and 6 < width < 7.1)
    assert figure_of(kind, width=figures.SINGLE).get_figwidth() == figures.SINGLE < 375 / 96  # CSS pixels an inch


@pytest.mark.parametrize("name", ["usual", "many"])
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_have_a_true_minus_and_commas_between_thousands(kind, name, drawn_texts):
    for text in (text.get_text() for text in drawn_texts(figure_of(kind, name))):
        assert not re.search(r"(?<![\w,])-\d|(?<![.\d])\d{4}|\d \d{3}", text), text


def test_figures_leave_the_global_settings_as_they_were():
    before = dict(rcParams)
    KINDS["cost"](*case("usual"))
    svg_of("cost")
    assert dict(rcParams) == before
