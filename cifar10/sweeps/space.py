"""What a search looks through: Hydra's overrides as Optuna's distributions, and a trial's values as overrides.

Imports Optuna, so only a search imports it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Sweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from cifar10.errors import UserError

LOG = "log"  # the tag of what is drawn on a logarithmic scale


@dataclass
class Parameter:
    """A setting that a search varies.

    conditions: by key, the values of other settings with which this one counts; otherwise it keeps its default.
    """

    key: str
    distribution: BaseDistribution
    conditions: dict[str, set[str]] = field(default_factory=dict)


class Space:
    """The parameters of a search, and the overrides that all its trials share.

    Intervals are floats, `int(interval(1,8))` whole numbers, `tag(log,interval(1e-4,1e-2))` is logarithmic,
    `range(...)` has steps, and `a,b` or `choice(a,b)` categories. `tag("model.optimizer=sgd",interval(0.5,0.99))` is
    varied only where the optimizer is sgd; two such tags with one key mean either, with two keys both.
    """

    def __init__(self, overrides: Iterable[str]):
        self.fixed: list[str] = []
        self.parameters: list[Parameter] = []
        values: dict[str, str] = {}
        for override in OverridesParser.create().parse_overrides(list(overrides)):
            if override.is_sweep_override():
                self.parameters.append(read(override))
            else:
                self.fixed.append(str(override.input_line))
                values[plain(override.key_or_group)] = override.get_value_element_as_str()
        self.values = values
        known = {plain(parameter.key) for parameter in self.parameters} | set(values)
        for parameter in self.parameters:
            if unknown := set(parameter.conditions) - known:
                raise UserError(
                    f"{parameter.key}: depends on {unknown.pop()}, which has no value here; set it, or search it too"
                )
        self.parameters.sort(key=lambda parameter: len(parameter.conditions))  # a condition is decided first

    def suggest(self, trial: Trial) -> list[str]:
        """The trial's overrides; its parameters are drawn, or those that it already has."""
        values, chosen = dict(self.values), []
        for parameter in self.parameters:
            if all(values.get(key) in wanted for key, wanted in parameter.conditions.items()):
                value = str(suggest(trial, plain(parameter.key), parameter.distribution))
                values[plain(parameter.key)] = value
                chosen.append(f"{parameter.key}={value}")
        return [*self.fixed, *chosen]


def read(override: Override) -> Parameter:
    """A swept override as a parameter; UserError if it cannot be searched."""
    key, value = override.get_key_element(), cast(Sweep, override.value())
    tags = {str(tag) for tag in value.tags}
    conditions: dict[str, set[str]] = {}
    for tag in tags - {LOG}:
        if "=" not in tag:
            raise UserError(f"{override.input_line}: {tag} is no tag of a search; log and KEY=VALUE are")
        condition = OverridesParser.create().parse_override(tag)
        conditions.setdefault(plain(condition.key_or_group), set()).add(condition.get_value_element_as_str())
    try:
        return Parameter(key, distribution(override, value, LOG in tags), conditions)
    except ValueError as error:
        raise UserError(f"{override.input_line}: cannot be searched ({error})") from error


def distribution(override: Override, value: Any, log: bool) -> BaseDistribution:
    """Optuna's distribution of a sweep; ValueError for an empty one, or a scale that does not go with it."""
    if isinstance(value, IntervalSweep):
        start, end = cast(float, value.start), cast(float, value.end)
        if not start < end:
            raise ValueError("the first number must be below the second")
        kind: Any = IntDistribution if isinstance(start, int) and isinstance(end, int) else FloatDistribution
        return kind(start, end, log=log)
    options = list(override.sweep_string_iterator())
    if not isinstance(value, RangeSweep):
        if log:
            raise ValueError("choices have no scale, so no tag log")
        return CategoricalDistribution(options)
    if not options:
        raise ValueError("the range is empty")
    if len(options) == 1:
        raise ValueError(f"the range holds {options[0]} alone; for all numbers in between write interval(FROM,TO)")
    numbers = sorted(map(float, options))
    if all(isinstance(number, int) for number in (value.start, value.stop, value.step)):
        return IntDistribution(int(numbers[0]), int(numbers[-1]), log=log, step=abs(int(value.step)))
    return FloatDistribution(numbers[0], numbers[-1], log=log, step=abs(value.step))


def suggest(trial: Trial, name: str, of: Any) -> Any:
    if isinstance(of, CategoricalDistribution):
        return trial.suggest_categorical(name, of.choices)
    if isinstance(of, IntDistribution):
        return trial.suggest_int(name, of.low, of.high, step=of.step, log=of.log)
    return trial.suggest_float(name, of.low, of.high, step=of.step, log=of.log)


def plain(key: str) -> str:
    """A setting's name without the sign that adds it."""
    return key.lstrip("+~")
