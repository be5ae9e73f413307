"""Conditions on attributes: `{"stars": {"gte": 4}, "or": [{"topic": "billing"}, {"topic": {"exists": False}}]}`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import InvalidInput
from .records import checked_data, shown

__all__ = ["condition", "divided"]

Condition = Callable[[Mapping[str, Any]], bool]

_MISSING = object()
_DEPTH = 20
# How other libraries combine conditions, and what that is here.
_FOREIGN = {
    "$and": "'and': [{…}, {…}]",
    "$or": "'or': [{…}, {…}]",
    "$nor": "'not': {'or': [{…}, {…}]}",
    "$not": "'not': {…}",
}


def condition(where: Mapping[str, Any]) -> Condition:
    """Return the test that says whether a node's attributes fulfil *where*; all of its entries must hold.

    An entry is a name with a value (equal to it) or with operators: `eq`, `ne`, `in` (one of a list), `gt`, `gte`,
    `lt`, `lte` (of two numbers or two strings), `contains` (a string that holds that text, a list that holds that
    item), `icontains` (the same whatever the case of letters) and `exists` (true or false). `and` and `or` take a list
    of such dicts, `not` takes one. A node without the attribute fulfils `ne` and `exists: false` only. A name that no
    attribute has leads into nested objects at its dots: `metadata.author` is `author` in `metadata`. An object is a
    value as any other, but for one whose names all begin with `$`, as operators of other libraries do: to ask for
    that, write `eq`.

    Raises:
        InvalidInput: It cannot be understood; the message names the entry.
    """
    return _all(checked_data(where, "where"), 0)


def divided(where: Mapping[str, Any]) -> tuple[dict[str, Any], Condition | None]:
    """Return the values that a store can look for itself, and the test for what else is asked, None if that is all.

    Raises:
        InvalidInput: As `condition`.
    """
    where = checked_data(where, "where")
    plain = {name: value for name, value in where.items() if _is_plain(name, value)}
    rest = {name: value for name, value in where.items() if name not in plain}
    return plain, _all(rest, 0) if rest else None


def _is_plain(name: str, value: Any) -> bool:
    """Tell whether an entry of a condition asks for no more than that an attribute has a value: a store knows that."""
    asks = isinstance(value, Mapping) and any(operator in _OPERATORS or operator[:1] == "$" for operator in value)
    return not asks and name not in {"and", "or", "not", *_FOREIGN} and "." not in name


def _all(where: Mapping[str, Any], depth: int) -> Condition:
    if depth > _DEPTH:
        raise InvalidInput(f"where is nested more than {_DEPTH} deep. Flatten it.")
    tests = [_entry(name, value, depth) for name, value in where.items()]
    return lambda attributes: all(test(attributes) for test in tests)


def _entry(name: str, value: Any, depth: int) -> Condition:
    if name in {"and", "or"}:
        if not isinstance(value, list) or not value or not all(isinstance(item, Mapping) for item in value):
            raise InvalidInput(f"{name!r} in where takes a list of conditions, such as [{{'topic': 'billing'}}].")
        tests = [_all(item, depth + 1) for item in value]
        together = all if name == "and" else any
        return lambda attributes: together(test(attributes) for test in tests)
    if name == "not":
        if not isinstance(value, Mapping):
            raise InvalidInput("'not' in where takes one condition, such as {'topic': 'billing'}.")
        inner = _all(value, depth + 1)
        return lambda attributes: not inner(attributes)
    if name in _FOREIGN and isinstance(value, (list, Mapping)) and not (isinstance(value, Mapping) and "eq" in value):
        raise InvalidInput(f"{name!r} is no word of where. Write {_FOREIGN[name]}.")
    if isinstance(value, Mapping) and value:
        known = [operator for operator in value if operator in _OPERATORS]
        if len(known) == len(value):
            tests = [_operator(name, operator, operand) for operator, operand in value.items()]
            return lambda attributes: all(test(attributes) for test in tests)
        if known:
            other = next(operator for operator in value if operator not in _OPERATORS)
            raise InvalidInput(
                f"{other!r} for {name!r} in where is no operator. Choose one of: {', '.join(_OPERATORS)}."
            )
        if all(operator.startswith("$") for operator in value):
            raise InvalidInput(_for_foreign(name, value))
    return _operator(name, "eq", value)


def _operator(name: str, operator: str, operand: Any) -> Condition:
    if operator == "in" and not isinstance(operand, list):
        raise InvalidInput(f"'in' for {name!r} in where takes a list, not {shown(operand)}.")
    if operator == "exists" and not isinstance(operand, bool):
        raise InvalidInput(f"'exists' for {name!r} in where is true or false, not {shown(operand)}.")
    if operator in {"gt", "gte", "lt", "lte"} and not (_number(operand) or isinstance(operand, str)):
        raise InvalidInput(f"{operator!r} for {name!r} in where takes a number or a string, not {shown(operand)}.")
    test = _OPERATORS[operator]
    return lambda attributes: test(_found(attributes, name), operand)


def _for_foreign(name: str, value: Mapping[str, Any]) -> str:
    """Return what to write for an object whose names all begin with `$`: elsewhere those are operators."""
    first = next(iter(value))
    if first == "$nin":
        write = f"Write {{'not': {{{name!r}: {{'in': {shown(value[first])}}}}}}}"
    elif first[1:] in _OPERATORS:
        write = f"Write {{{name!r}: {{{first[1:]!r}: {shown(value[first])}}}}}"
    else:
        write = f"Choose one of: {', '.join(_OPERATORS)}"
    return f"{first!r} for {name!r} in where is no operator. {write}; to ask for this very object, {{'eq': {{…}}}}."


def _found(attributes: Any, name: str) -> Any:
    """Return what is under *name*, or where its dots lead; `_MISSING` if that is nowhere."""
    if name in attributes:
        return attributes[name]
    at = name.find(".")
    while at >= 0:
        inner = attributes.get(name[:at])
        if isinstance(inner, Mapping) and (value := _found(inner, name[at + 1 :])) is not _MISSING:
            return value
        at = name.find(".", at + 1)
    return _MISSING


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _compared(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def test(value: Any, operand: Any) -> bool:
        alike = (_number(value) and _number(operand)) or (isinstance(value, str) and isinstance(operand, str))
        return alike and compare(value, operand)

    return test


def _contains(value: Any, operand: Any) -> bool:
    if isinstance(value, str):
        return isinstance(operand, str) and operand in value
    return isinstance(value, Sequence) and operand in value


def _folded(value: Any) -> Any:
    if isinstance(value, str):
        return value.casefold()
    return [_folded(item) for item in value] if isinstance(value, (list, tuple)) else value


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda value, operand: bool(value == operand),
    "ne": lambda value, operand: bool(value != operand),
    "in": lambda value, operand: any(value == item for item in operand),
    "gt": _compared(lambda value, operand: value > operand),
    "gte": _compared(lambda value, operand: value >= operand),
    "lt": _compared(lambda value, operand: value < operand),
    "lte": _compared(lambda value, operand: value <= operand),
    "contains": _contains,
    "icontains": lambda value, operand: _contains(_folded(value), _folded(operand)),
    "exists": lambda value, operand: (value is not _MISSING) == operand,
}
