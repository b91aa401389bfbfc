"""From a node of the configuration to an object of its class."""

import inspect
import re
import types
import typing
from collections.abc import Collection
from typing import Any, TypeVar

from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, ListConfig

from cifar10.errors import UserError, cause_of, one_line

Made = TypeVar("Made")


def make(key: str, node: DictConfig, kind: type[Made], **given: Any) -> Made:
    """Instantiate a configuration node as an object of a kind.

    Raises UserError for another class, and for a key or value that its class does not take.
    """
    target = find_class(key, node.get("_target_"), kind)
    check_values(key, target, node, given)
    try:
        return instantiate(node, **given, _convert_="all")
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(cause, UserError):
            raise cause from None
        is_lightnings = type(cause).__name__ == "MisconfigurationException"  # which is not imported here
        if is_lightnings or isinstance(cause, ValueError | RuntimeError | ImportError):
            raise UserError(named(key, node, cause)) from error
        raise cause from None  # a bug: its own traceback


def named(key: str, node: DictConfig, error: BaseException) -> str:
    """An error's message on one line, prefixed with the setting that it is about.

    A class whose argument is wrong raises a ValueError that begins with `argument=value: `; the prefix is that
    argument's setting, or the one that it is taken from, as in `image_size: ${data.image_size}`.
    """
    message = one_line(error)
    argument = re.match(r"(\w+)(?==|:|\.)", message)
    if argument is None or argument[1] not in node:
        return f"{key}: {message}"
    value = node._get_node(argument[1])
    source = re.fullmatch(r"\$\{([\w.]+)\}", str(value._value())) if value is not None else None
    return (source[1] if source else f"{key}.{argument[1]}") + message[argument.end() :]


def find_class(key: str, name: object, kind: type[Made]) -> type[Made]:
    """The class with this name; UserError if there is none, or it is of another kind."""
    wanted = f"{key}._target_={name}: must name {kind.__module__}.{kind.__name__} or a subclass of it"
    if not isinstance(name, str):
        raise UserError(wanted)
    try:
        target = get_class(name)
    except (ImportError, ValueError) as error:  # Hydra wraps whatever the module raises
        raise UserError(f"{wanted} ({cause_of(error)})") from error
    if not issubclass(target, kind):
        raise UserError(wanted)
    return target


def check_values(key: str, target: type, node: DictConfig, given: Collection[str] = ()) -> None:
    """UserError for a key or a value of a section that the constructor of `target` does not take.

    The signature is the schema. Hydra's structured configs would need a dataclass for each class, Lightning's trainer
    among them: a second list of the same arguments, to be kept in sync.
    """
    parameters = inspect.signature(target).parameters
    hints, free = hints_of(target), any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    for name, value in node.items():
        if str(name).startswith("_"):
            continue
        if (name not in parameters and not free) or name in given:
            known = ", ".join(parameter for parameter in parameters if parameter not in given)
            raise UserError(f"{key}.{name}: {target.__name__} has no such setting; it has: {known}")
        if not matches(value, hints.get(name, object)):
            raise UserError(f"{key}.{name}={value}: must be {describe(hints[name])}")
    for name, parameter in parameters.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.default is parameter.empty and name not in node and name not in given:
            raise UserError(f"{key}.{name}: must be given; {target.__name__} has no default for it")


def hints_of(target: type) -> dict[Any, Any]:
    """The types of the constructor's arguments; object for one that is imported for type checkers only."""
    unknown: dict[str, Any] = {}
    while True:
        try:
            return typing.get_type_hints(target.__init__, localns=unknown)
        except NameError as error:
            unknown[str(error.name)] = object


def check_hints(cfg: DictConfig, hints: dict[str, object]) -> None:
    """UserError for a setting that is not of its type."""
    for key, hint in hints.items():
        if not matches(value := cfg.get(key), hint):
            raise UserError(f"{key}={one_line(value)}: must be {describe(hint)}")


def matches(value: object, hint: object) -> bool:
    """Whether a configuration value is of a type; objects of other classes are nodes with a `_target_`."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(matches(value, option) for option in options)
    if origin is typing.Literal:
        return any(type(value) is type(option) and value == option for option in options)
    if origin in (list, tuple):
        return isinstance(value, ListConfig) and all(matches(item, options[0]) for item in value)
    if hint in (bool, str, type(None)):
        return value is None if hint is type(None) else isinstance(value, hint)
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    if hint in (object, typing.Any) or not isinstance(origin or hint, type):
        return True
    return isinstance(value, DictConfig) and (origin is dict or "_target_" in value)


def describe(hint: object) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(found for option in options if (found := describe(option))))
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, options))}"
    if origin in (list, tuple):
        return f"a list of {describe(options[0])}s".replace("a list of a ", "a list of ")
    return "a section" if origin is dict else words.get(hint, "")
