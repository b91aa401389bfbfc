"""Settings as they were typed, laid out along an axis: numbers by their value or its logarithm, others side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

FEW = 7  # values of a setting, each of which has its tick
ORDERS = 30  # times the least is the greatest of numbers whose logarithm is drawn, if most of them are small


@dataclass
class Scale:
    """values: in the axis's unit, one for each text. ticks: (value, what is written there), rising."""

    kind: str  # "numbers", "logarithm" or "categories"
    values: np.ndarray
    ticks: Sequence[tuple[Any, str]]

    @property
    def places(self) -> np.ndarray:
        return self.place(self.values)

    def place(self, values: ArrayLike) -> np.ndarray:
        """From 0 to 1 along the axis."""
        low, high = self.values.min(), self.values.max()
        return (np.asarray(values) - low) / (high - low) if high > low else np.full(np.shape(values), 0.5)


def scale_of(texts: Sequence[str], few: int = FEW) -> Scale:
    """The axis on which these settings lie; an empty text is one that was not given. few: values with a tick each."""
    numbers = [number_of(text) for text in texts]
    if None in numbers:
        return categories(texts)
    values = np.array(numbers)
    wide = values.min() > 0 and values.max() >= ORDERS * values.min()
    log = wide and bool(np.median(values) < values.max() / 4)
    places = np.log10(values) if log else values
    distinct = dict(sorted(zip(places.tolist(), texts, strict=True)))
    if len(distinct) <= few:
        ticks = list(distinct.items())
    elif log:
        powers = range(math.ceil(places.min()), math.floor(places.max()) + 1)
        powers = list(powers) if len(powers) > 1 else [places.min(), places.max()]
        ticks = [(power, f"{10**power:.3g}") for power in powers]
    else:
        ticks = [(at, f"{at:g}") for at in MaxNLocator(5).tick_values(values.min(), values.max())
                 if values.min() <= at <= values.max()]  # fmt: skip
    return Scale("logarithm" if log else "numbers", places, ticks)


def categories(texts: Sequence[str]) -> Scale:
    def rank(text: str) -> tuple:
        value = number_of(text)
        return (value is None, value or 0, text)

    names = sorted(set(texts), key=rank)
    places = {name: place for place, name in enumerate(names)}
    ticks = [(place, name or "not set") for name, place in places.items()]
    return Scale("categories", np.array([places[text] for text in texts], dtype=float), ticks)


def number_of(text: str) -> float | None:
    """None for what is not a finite number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
