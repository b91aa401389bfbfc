"""Colours that everyone sees, on paper and on a dark page; text that fits."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from cifar10.report.figures import group_colour, group_marker
from cifar10.report.figures.style import cut, fraction_limits, spaced, text_inches

GROUNDS = ("#ffffff", "#15181c")
# what protanopes and deuteranopes see, in linear RGB: Machado, Oliveira & Fernandes 2009, severity 1
DEFICIENCIES = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def linear(colour: str) -> np.ndarray:
    channels = np.array(to_rgb(colour))
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2, section 1.4.3."""
    low, high = sorted(linear(colour) @ [0.2126, 0.7152, 0.0722] for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Björn Ottosson 2020, "A perceptual color space for image processing"."""
    cone = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
    cone.append([0.0883024619, 0.2817188376, 0.6299787005])
    lab = [[0.2104542553, 0.793617785, -0.0040720468], [1.9779984951, -2.428592205, 0.4505937099]]
    lab.append([0.0259040371, 0.7827717662, -0.808675766])
    return np.array(lab) @ np.cbrt(np.clip(np.array(cone) @ rgb, 0, None))


@pytest.mark.parametrize("ground", GROUNDS)
def test_groups_stand_out_from_white_and_from_a_dark_page(ground):
    assert all(contrast(group_colour(i), ground) >= 3 for i in range(4))  # WCAG 2.1, section 1.4.11
    assert all(contrast(group_colour(i), ground) >= 2 for i in range(6))


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colours_differ_for_colour_blind_readers_too(deficiency):
    seen = [oklab(np.array(DEFICIENCIES[deficiency]) @ linear(group_colour(i))) for i in range(6)]
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 0.07


def test_twenty_four_groups_differ_in_colour_or_marker():
    assert len({(group_colour(i), group_marker(i)) for i in range(24)}) == 24


@pytest.mark.parametrize("text", ["WWWWWWWWWWWW", "iiiiiiiiiiiiiiiiiiiiiiiiiiiii", "$a_b$ ünïcode → ✓", ""])
@pytest.mark.parametrize("inches", [0.2, 0.7, 5])
def test_a_cut_text_fits_and_keeps_as_much_of_its_beginning_as_it_can(text, inches):
    short = cut(text, inches)
    assert text_inches(short, 8) <= inches
    assert short == text or (short.endswith("…") and text.startswith(short[:-1]))
    if short != text:
        assert text_inches(text[: len(short)] + "…", 8) > inches


def test_an_axis_of_fractions_holds_its_values_with_room_and_ends_at_0_and_1():
    low, high = fraction_limits([0.28, 0.32, float("nan")])
    assert 0.27 < low < 0.28 and 0.32 < high < 0.33, "seeds are not squashed into a corner"
    assert fraction_limits([0.0, 1.0]) == (0, 1) == fraction_limits([])


def test_of_crowded_tick_names_the_last_stays():
    assert spaced(["100", "40,000", "45,000"], np.array([0, 0.95, 1]), 3) == ["100", "", "45,000"]
