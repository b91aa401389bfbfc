"""How numbers are written, in tables, figures, captions and verdicts alike."""

import contextlib
import math
from collections.abc import Callable

MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"  # a unit never stands on a line of its own
UNKNOWN = "\N{EN DASH}"


def number(value: float | None, decimals: int = 4, sign: bool = False) -> str:
    """With commas between thousands and a true minus; a rounded 0 has no sign. None and NaN are unknown."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    # 13.05 must not come out as 13.0 here and 13.1 there because it was computed in two ways
    text = f"{round(value, 9):{'+' if sign else ''},.{decimals}f}"
    text = text.lstrip("+-") if not text.strip("+-0.,") else text
    return text.replace("-", MINUS)


def change(value: float | None) -> str:
    return number(value, sign=True)


def count(value: float | None) -> str:
    return number(value, 0)


def percent(value: float | None, decimals: int = 2) -> str:
    """A fraction as a percentage."""
    return _with_unit(_hundredfold(value), decimals, "%")


def points(value: float | None, decimals: int = 2) -> str:
    """A difference of two fractions in percentage points, with its sign."""
    return number(_hundredfold(value), decimals, sign=True)


def interval(low: float, high: float, form: Callable[[float], str] = percent) -> str:
    return f"{form(low).partition(SPACE)[0]} to {form(high)}"


def tick(value: float) -> str:
    """A fraction as a percentage with as many decimals as it has."""
    text = number(100 * value, 6)
    return f"{text.rstrip('0').rstrip('.')}{SPACE}%"


def spread_of(spread: dict | None, form: Callable[[float], str] = number) -> str:
    """A mean with its standard deviation over seeds, where there is one: `71.90 ± 0.31 %`."""
    if spread is None:
        return UNKNOWN
    mean, _, unit = form(spread["mean"]).partition(SPACE)
    if spread["std"] is None:
        return form(spread["mean"])
    std, _, other = form(spread["std"]).partition(SPACE)
    if unit != other:  # 1.2 min ± 40 s
        return form(spread["mean"]) + (f"{SPACE}±{SPACE}{form(spread['std'])}" if spread["std"] else "")
    return SPACE.join(filter(None, (mean, "±", std, unit)))


def duration(seconds: float | None) -> str:
    if seconds is None or seconds < 100:
        return _with_unit(seconds, 0 if seconds is None or seconds >= 10 else 1, "s")
    return _with_unit(seconds / 60, 1, "min") if seconds < 6000 else _with_unit(seconds / 3600, 1, "h")


def engineering(value: float | None, unit: str = "FLOP") -> str:
    """A large number with three digits and a prefix: 1.37 TFLOP."""
    if value is None:
        return UNKNOWN
    power = 0 if value < 1 else min(5, int(math.log10(value * 1.0005) // 3))
    return f"{value / 1000**power:.3g}{SPACE}{('', 'k', 'M', 'G', 'T', 'P')[power]}{unit}"


def p_value(p: float) -> str:
    return f"= {p:.3f}" if p >= 0.001 else f"= {p:.1e}".replace("-", MINUS) if p > 1e-300 else "< 1e\N{MINUS SIGN}300"


def plural(n: int, word: str) -> str:
    return f"{count(n)} {word}{'s' * (n != 1)}"


def rounded(text: str) -> str:
    """A number of many digits, as a search draws them, with four significant ones; any other text as it is."""
    with contextlib.suppress(ValueError):
        return f"{float(text):.4g}" if len(text) > 8 else text
    return text


def printable(text: str) -> str:
    """A name from a file or a folder on one line: what cannot be seen, or turns a line around, as its escape."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _hundredfold(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _with_unit(value: float | None, decimals: int, unit: str) -> str:
    text = number(value, decimals)
    return text if text == UNKNOWN else f"{text}{SPACE}{unit}"
