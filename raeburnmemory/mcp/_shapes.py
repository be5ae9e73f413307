"""What tools take: one declaration gives the JSON schema that clients see and the check of what they send.

Models misname arguments. What they are known to say instead is declared, as aliases; anything else is an error that
names what there is, and is never left unheard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..errors import InvalidInput

__all__ = ["Shape", "Told", "flag", "fraction", "many", "mapping", "one_or_many", "record", "text", "whole"]

_NAMES = {"string": "a string", "integer": "a whole number", "number": "a number", "boolean": "true or false"}
_TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


@dataclass(frozen=True)
class Shape:
    """A kind of value: a string, a number, a list of such, or an object with declared fields."""

    type: str
    about: str = ""
    aliases: tuple[str, ...] = ()
    optional: bool = False
    item: Shape | None = None
    lone: bool = False  # one item stands for a list of it
    fields: Mapping[str, Shape] | None = None
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    given_as: Mapping[str, str] = field(init=False, default_factory=dict)  # each name and alias of a field: the name

    def __post_init__(self) -> None:
        names = {alias: name for name, shape in (self.fields or {}).items() for alias in (name, *shape.aliases)}
        object.__setattr__(self, "given_as", names)

    def schema(self) -> dict[str, Any]:
        """Return it as a JSON schema."""
        made: dict[str, Any] = {"type": ["string", "array"] if self.lone else self.type}
        also = f" (also accepted as: {', '.join(self.aliases)})" if self.aliases else ""
        if self.about or also:
            made["description"] = f"{self.about}{also}"
        if self.choices:
            made["enum"] = list(self.choices)
        if self.least is not None:
            made["minimum"] = self.least
        if self.most is not None:
            made["maximum"] = self.most
        if self.item is not None:
            made["items"] = self.item.schema()
        if self.fields is not None:
            made["properties"] = {name: shape.schema() for name, shape in self.fields.items()}
            made["required"] = [name for name, shape in self.fields.items() if not shape.optional]
            # Aliases are for those that do not look here; who does is told the names.
            made["additionalProperties"] = False
        return made

    def check(self, value: Any, what: str) -> Any:
        """Return *value* with the declared names; *what* says in messages which one it is.

        Raises:
            InvalidInput: It has another shape; the message says where and what is wanted.
        """
        if self.type == "array":
            return self._list(value, what)
        if self.type == "object":
            return self._object(value, what)
        wanted = _TYPES[self.type]
        if self.type == "integer" and isinstance(value, float) and value.is_integer():
            value = int(value)  # to JSON it is the same number
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):  # type: ignore[arg-type]
            raise InvalidInput(f"{what} must be {_NAMES[self.type]}, not {_shown(value)}.")
        if self.choices and value not in self.choices:
            raise InvalidInput(f"{what} must be one of {', '.join(self.choices)}, not {_shown(value)}.")
        if (self.least is not None and value < self.least) or (self.most is not None and value > self.most):
            limits = f"from {self.least} to {self.most}" if self.most is not None else f"{self.least} or more"
            raise InvalidInput(f"{what} must be {limits}, not {_shown(value)}.")
        return value

    def _list(self, value: Any, what: str) -> list[Any]:
        assert self.item is not None
        if self.lone and isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            raise InvalidInput(f"{what} must be a list, not {_shown(value)}.")
        return [self.item.check(one, f"{what}[{number}]") for number, one in enumerate(value)]

    def _object(self, value: Any, what: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise InvalidInput(f"{what} must be an object, not {_shown(value)}.")
        if self.fields is None:
            return dict(value)
        found: dict[str, Any] = {}
        for key, one in value.items():
            name = self.given_as.get(key)
            if name is None:
                there = ", ".join(self.fields) or "none"
                raise InvalidInput(f"{what} has nothing called {key!r}. What there is: {there}.")
            if name in found:
                raise InvalidInput(f"{what} says {name!r} twice, once as {key!r}. Leave out one of them.")
            if one is None and self.fields[name].optional:
                continue  # models write null for what they leave out
            found[name] = self.fields[name].check(one, repr(name) if what == _TOP else f"{what}.{name}")
        if lost := [name for name, shape in self.fields.items() if not shape.optional and name not in found]:
            raise InvalidInput(f"{what} lacks {lost[0]!r}: {self.fields[lost[0]].about or 'it is needed'}.")
        return found

    def arguments(self, given: Any) -> dict[str, Any]:
        """Return the arguments of a call, checked."""
        return self._object({} if given is None else given, _TOP)


class Told(NamedTuple):
    """What clients are told of a tool, besides its name."""

    title: str
    description: str
    arguments: Shape


_TOP = "The call"  # what is checked, for messages


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:59]}…"


def text(about: str, *aliases: str, optional: bool = False, choices: tuple[str, ...] = ()) -> Shape:
    """Return the shape of a string."""
    return Shape("string", about, aliases, optional, choices=choices)


def whole(about: str, *aliases: str, least: int = 0, most: int | None = None) -> Shape:
    """Return the shape of an optional whole number."""
    return Shape("integer", about, aliases, optional=True, least=least, most=most)


def fraction(about: str) -> Shape:
    """Return the shape of an optional number from 0 to 1."""
    return Shape("number", about, optional=True, least=0, most=1)


def flag(about: str) -> Shape:
    """Return the shape of an optional truth value."""
    return Shape("boolean", about, optional=True)


def many(item: Shape, about: str, *aliases: str) -> Shape:
    """Return the shape of a list."""
    return Shape("array", about, aliases, item=item)


def one_or_many(about: str, *aliases: str) -> Shape:
    """Return the shape of an optional string or list of strings."""
    return Shape("array", about, aliases, optional=True, item=Shape("string"), lone=True)


def mapping(about: str, *aliases: str) -> Shape:
    """Return the shape of an optional object with any fields."""
    return Shape("object", about, aliases, optional=True)


def record(**fields: Shape) -> Shape:
    """Return the shape of an object; a trailing underscore, for names that Python keeps to itself, is left out."""
    return Shape("object", fields={name.rstrip("_"): shape for name, shape in fields.items()})
