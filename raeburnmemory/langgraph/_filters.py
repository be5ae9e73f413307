"""LangGraph's conditions, on values and on namespaces, as its own stores understand them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._optional import extra
from ..errors import InvalidInput

with extra("langgraph", module="langgraph"):
    from langgraph.store.base import MatchCondition

if TYPE_CHECKING:
    Test = Callable[[Mapping[str, Any]], bool]

__all__ = ["fitting", "matches"]


def fitting(conditions: Mapping[str, Any] | None) -> Test | None:
    """Return the test whether a value fulfils a `filter`, None if there is none.

    Where `InMemoryStore` has an answer this is the same; comparing what cannot be compared is no match, and no error.

    Raises:
        InvalidInput: There is an operator in it that nobody knows.
    """
    if not conditions:
        return None
    for condition in conditions.values():
        _check(condition)
    return lambda value: all(_like(_at(value, name), wanted) for name, wanted in conditions.items())


def _check(wanted: Any) -> None:
    if isinstance(wanted, Mapping):
        for name, operand in wanted.items():
            if _has_operators(wanted):
                if name not in _OPERATORS:
                    raise InvalidInput(f"Unsupported operator: {name}. Choose some of: {', '.join(_OPERATORS)}.")
            else:
                _check(operand)
    elif isinstance(wanted, (list, tuple)):
        for item in wanted:
            _check(item)


def _has_operators(wanted: Mapping[str, Any]) -> bool:
    return any(isinstance(name, str) and name.startswith("$") for name in wanted)


def _at(value: Mapping[str, Any], name: str) -> Any:
    """Return what is under *name*, or where its dots lead, as in `SqliteStore`; None if that is nowhere."""
    if name in value or "." not in name:
        return value.get(name)
    found: Any = value
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _like(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        if _has_operators(wanted):
            return all(_OPERATORS[name](value, operand) for name, operand in wanted.items())
        return isinstance(value, Mapping) and all(_like(value.get(name), inner) for name, inner in wanted.items())
    if isinstance(wanted, (list, tuple)):
        return isinstance(value, (list, tuple)) and len(value) == len(wanted) and all(map(_like, value, wanted))
    return bool(value == wanted)


def _compared(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def test(value: Any, operand: Any) -> bool:
        try:
            return compare(float(value), float(operand))
        except (TypeError, ValueError, OverflowError):
            pass
        try:  # texts, such as dates; numbers that are too large for a float
            alike = isinstance(value, str) == isinstance(operand, str)
            return alike and value is not None and operand is not None and bool(compare(value, operand))
        except TypeError:
            return False

    return test


def _plain(value: Any) -> Any:
    """Return what JSON makes of an operand: lists where there are tuples."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": lambda value, operand: bool(value == _plain(operand)),
    "$ne": lambda value, operand: bool(value != _plain(operand)),
    "$gt": _compared(operator.gt),
    "$gte": _compared(operator.ge),
    "$lt": _compared(operator.lt),
    "$lte": _compared(operator.le),
}


def matches(condition: MatchCondition, namespace: Sequence[str]) -> bool:
    """Tell whether a namespace begins or ends as a condition says, in which `*` stands for any one label."""
    path = list(condition.path)
    if len(namespace) < len(path):
        return False
    if condition.match_type == "prefix":
        part = namespace[: len(path)]
    elif condition.match_type == "suffix":
        part = namespace[len(namespace) - len(path) :]
    else:
        raise InvalidInput(f"Unsupported match type: {condition.match_type!r}. Choose one of: prefix, suffix.")
    return all(wanted in {"*", label} for wanted, label in zip(path, part, strict=True))
