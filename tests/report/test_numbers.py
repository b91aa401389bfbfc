"""One way to write a number."""

import math
import re

import pytest

from cifar10.report.numbers import count, duration, engineering, interval, number, percent, points, spread_of, tick


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (number(1.25), "1.2500"),
        (number(-1234567.891, 1), "~1,234,567.9"),
        (number(-0.00001, 2), "0.00"),
        (number(0.00001, 2, sign=True), "0.00"),
        (number(None), "\N{EN DASH}"),
        (number(math.nan), "\N{EN DASH}"),
        (count(45_000), "45,000"),
        (percent(0.9561), "95.61 %"),
        (percent(None), "\N{EN DASH}"),
        (points(-0.049), "~4.90"),
        (points(0.13, 1), "+13.0"),
        (tick(0.925), "92.5 %"),
        (tick(1), "100 %"),
        (tick(0.00001), "0.001 %"),
        (interval(0.1, 0.2), "10.00 to 20.00 %"),
        (interval(-0.01, 0.02, points), "~1.00 to +2.00"),
        (spread_of({"mean": 0.9, "std": 0.0123, "n": 2}, percent), "90.00 ± 1.23 %"),
        (spread_of({"mean": 0.9, "std": None, "n": 1}, percent), "90.00 %"),
        (spread_of({"mean": 0.9, "std": 0.0123, "n": 2}), "0.9000 ± 0.0123"),
        (spread_of({"mean": 150, "std": 20, "n": 2}, duration), "2.5 min ± 20 s"),
        (spread_of({"mean": 2.5e11, "std": 0, "n": 2}, engineering), "250 GFLOP"),
        (spread_of(None), "\N{EN DASH}"),
        (duration(3.7), "3.7 s"),
        (duration(38), "38 s"),
        (duration(5999), "100.0 min"),
        (duration(7200), "2.0 h"),
        (engineering(None), "\N{EN DASH}"),
    ],
)
def test_a_number_has_commas_a_true_minus_and_a_unit_that_stays_with_it(written, expected):
    # "to" may begin a line, a unit may not
    assert written == re.sub(r" (?!to)(?<!to )", "\N{NO-BREAK SPACE}", expected).replace("~", "\N{MINUS SIGN}")


def test_a_number_computed_in_two_ways_is_rounded_in_one():
    assert 0.1305 != 0.7405 - 0.61
    assert points(0.1305, 1) == points(0.7405 - 0.61, 1) == points(1.1305 - 1, 1)
    assert points(-0.0495, 1) == points(0.8505 - 0.9, 1)
