"""Whose memories are meant: ids of users, agents and runs, and filters as mem0 writes them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ...errors import InvalidInput

__all__ = ["IDS", "attribute_of", "checked_scope", "living", "scoped", "to_where"]

IDS = ("user_id", "agent_id", "run_id")
# What a memory's node says of itself beside its metadata, which has an attribute of its own.
_OWN = {*IDS, "actor_id", "role", "attributed_to", "expiration_date", "updated_at"}
_RENAMED = {"created_at": "timestamp"}
_COMBINING = {"AND": "and", "OR": "or", "NOT": "not"}
_OPERATORS = {"eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "contains", "icontains"}
_ANY = "*"


def checked_id(value: Any, name: str) -> str | None:
    """Return the id of a user, agent or run as mem0 has it: as a string, without white space around it.

    Raises:
        InvalidInput: It is empty, holds white space, or is a condition.
    """
    if value is None:
        return None
    if isinstance(value, (Mapping, list, tuple, set)):
        raise InvalidInput(f"Invalid {name}: it must be one identifier, not {value!r}. Put conditions under AND or OR.")
    trimmed = str(value).strip()
    if not trimmed:
        raise InvalidInput(f"Invalid {name}: cannot be empty or whitespace-only. Provide a valid identifier.")
    if any(character.isspace() for character in trimmed):
        raise InvalidInput(f"Invalid {name}: {trimmed!r} cannot contain whitespace. Provide one without spaces.")
    return trimmed


def checked_scope(user_id: Any, agent_id: Any, run_id: Any) -> dict[str, str]:
    """Return those of the ids that were given."""
    ids = zip(IDS, (user_id, agent_id, run_id), strict=True)
    return {name: found for name, value in ids if (found := checked_id(value, name)) is not None}


def scoped(filters: Any, user_id: Any, agent_id: Any, run_id: Any) -> dict[str, Any]:
    """Return *filters*, with ids that were given beside them as in mem0 1.x.

    Raises:
        InvalidInput: They name no user, agent or run, so that everybody's memories would be meant.
    """
    if filters is not None and not isinstance(filters, Mapping):
        raise InvalidInput(f"filters must be a dict such as {{'user_id': 'u1'}}, not {filters!r}.")
    found = {name: value for name, value in (filters or {}).items() if name not in IDS}
    given = filters or {}
    ids = checked_scope(given.get("user_id"), given.get("agent_id"), given.get("run_id"))
    ids.update(checked_scope(user_id, agent_id, run_id))
    if not ids and not _names_somebody(found.get("AND")):
        raise InvalidInput(
            "filters must contain at least one of: user_id, agent_id, run_id. Example: filters={'user_id': 'u1'}"
        )
    return {**found, **ids}


def _names_somebody(conditions: Any) -> bool:
    """Tell whether one of conditions that must all hold names a user, agent or run."""
    if not isinstance(conditions, list):
        return False
    some = [one for one in conditions if isinstance(one, Mapping)]
    return any(one.get(name) is not None or _names_somebody(one.get("AND")) for one in some for name in IDS)


def attribute_of(name: str) -> str:
    """Return under which name a node has what mem0 calls *name*."""
    return _RENAMED.get(name) or (name if name in _OWN else f"metadata.{name}")


def to_where(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return mem0's filters as a condition on attributes, see `raeburnmemory.filters.condition`.

    Raises:
        InvalidInput: An operator is unknown, or AND, OR or NOT has no list of conditions or is written otherwise.
    """
    found: dict[str, Any] = {}
    parts: list[dict[str, Any]] = []
    for name, value in filters.items():
        if name in _COMBINING:
            parts += _combined(name, value)
        elif (word := str(name).lstrip("$").upper()) in _COMBINING and _conditions(value):
            raise InvalidInput(f"{name!r} is no operator of filters. Write {word!r}.")
        elif name in IDS and isinstance(value, str) and value != _ANY:
            found[name] = value  # as an entry of its own: a store that knows it reads fewer nodes
        else:
            parts += _entry(attribute_of(str(name)), value)
    return {**found, "and": parts} if parts else found


def _conditions(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(one, Mapping) for one in value)


def _combined(name: str, conditions: Any) -> list[dict[str, Any]]:
    if not isinstance(conditions, list) or not all(isinstance(one, Mapping) for one in conditions):
        raise InvalidInput(f"{name} operator requires a list of conditions, not {conditions!r}.")
    if not conditions and name != "AND":
        raise InvalidInput(f"{name} operator requires a non-empty list of conditions")
    inner = [to_where(one) for one in conditions]
    if name == "NOT":
        return [{"not": {"or": inner}}]
    return [{_COMBINING[name]: inner}] if inner else []


def _entry(name: str, value: Any) -> list[dict[str, Any]]:
    if isinstance(value, str) and value == _ANY:
        return [{name: {"exists": True}}]
    if isinstance(value, (list, tuple)):
        return [{name: {"in": list(value)}}]
    if not isinstance(value, Mapping):
        return [{name: {"eq": value}}]
    found: list[dict[str, Any]] = []
    for operator, operand in value.items():
        if operator not in _OPERATORS:
            raise InvalidInput(f"Unsupported metadata filter operator: {operator}. Choose one of: {_choice()}.")
        if operator in {"ne", "nin"}:  # as in mem0's own stores: of those that have one
            found += [{name: {"exists": True}}, {"not": {name: {"eq" if operator == "ne" else "in": operand}}}]
        else:
            found.append({name: {operator: operand}})
    if not found:
        raise InvalidInput(f"The filter for {name!r} has no operator. Choose one of: {_choice()}.")
    return found


def _choice() -> str:
    return ", ".join(sorted(_OPERATORS))


def living(where: Mapping[str, Any], *, show_expired: bool) -> dict[str, Any]:
    """Return *where* without what was deleted and, unless they are asked for, memories that have expired."""
    parts: list[dict[str, Any]] = [*where.get("and", []), {"deleted": {"exists": False}}]
    if not show_expired:
        today = datetime.now(timezone.utc).date().isoformat()
        parts.append({"or": [{"expiration_date": {"exists": False}}, {"expiration_date": {"gte": today}}]})
    return {**where, "and": parts}
