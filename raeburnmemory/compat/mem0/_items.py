"""Memories of mem0 as nodes, and nodes as what mem0 answers with.

A memory is a node of the kind `memory`. Changing it writes the node again, and the store keeps the version before;
deleting it writes it again without its text. So the history of a memory is that of its node: every change is one
transaction, and forgetting the node forgets all of it.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timezone
from typing import Any

from ...errors import InvalidInput
from ...nodes import MEMORY, Node, collected_id
from ._scope import IDS

__all__ = ["changed", "deleted", "events_of", "expiry", "is_deleted", "item_of", "new_memory", "now"]

_log = logging.getLogger("raeburnmemory")

_PROMOTED = (*IDS, "app_id", "actor_id", "role", "attributed_to", "expiration_date", "categories")
_IDENTITY = {*IDS, "actor_id"}
_KEPT_DELETED = (*IDS, "actor_id", "role", "collection", "key", "timestamp")


def now() -> str:
    """Return the time in UTC, as it is stored."""
    return datetime.now(timezone.utc).isoformat()


def new_memory(
    collection: str, key: str, text: str, scope: Mapping[str, str], metadata: Mapping[str, Any], said: Mapping[str, Any]
) -> Node:
    """Return the node of a new memory; *said* is what mem0 shows beside the metadata, and when it was said."""
    attributes = {
        **scope,
        **{name: value for name, value in said.items() if value is not None},
        "collection": collection,
        "key": key,
        **({"metadata": dict(metadata)} if metadata else {}),
    }
    if said.get("actor_id"):
        attributes["name"] = said["actor_id"]
    return Node(collected_id(MEMORY, collection, key), MEMORY, text, attributes)


def changed(node: Node, text: str | None, metadata: Mapping[str, Any] | None, expiration: Any = None) -> Node:
    """Return the node of a memory with another text, metadata added, and another day on which it expires.

    *expiration* is None for what it was, else a day, or `""` for none.
    """
    metadata = {**_metadata_of(node), **without_identity(metadata or {}, node.attributes, "update()")}
    attributes = {**node.attributes, "updated_at": now(), **({"metadata": metadata} if metadata else {})}
    attributes.pop("hash", None)  # of the text before, where an import brought it along
    if expiration:
        attributes["expiration_date"] = expiration
    elif expiration is not None:
        attributes.pop("expiration_date", None)
    return replace(node, text=node.text if text is None else text, attributes=attributes)


def deleted(node: Node) -> Node:
    """Return what is left of a memory that was deleted: whose it was, and when that was."""
    kept = {name: node.attributes[name] for name in _KEPT_DELETED if name in node.attributes}
    return replace(node, text=None, attributes={**kept, "updated_at": now(), "deleted": True})


def is_deleted(node: Node) -> bool:
    """Tell whether nothing but the history of a memory is left."""
    return node.text is None


def without_identity(metadata: Mapping[str, Any], known: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return *metadata* without ids of users, agents, runs and actors: these cannot be set that way, as in mem0."""
    for name in _IDENTITY & set(metadata):
        if metadata[name] != known.get(name):
            _log.warning("%s: ignoring metadata[%r]: identity fields cannot be set through metadata", where, name)
    return {name: value for name, value in metadata.items() if name not in _IDENTITY}


def _metadata_of(node: Node) -> dict[str, Any]:
    found = _plain(node.attributes.get("metadata"))
    return found if isinstance(found, dict) else {}


def _plain(value: Any) -> Any:
    """Return a copy of JSON values, so that changing it changes nothing of the memory's."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def item_of(node: Node, key: str, score: float | None = None, *, scored: bool = True) -> dict[str, Any]:
    """Return a memory as mem0 answers with it."""
    text, created = node.text or "", node.timestamp
    found = {
        "id": key,
        "memory": text,
        "hash": hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(),
        "metadata": _metadata_of(node) or None,
        "score": score,
        "created_at": created,
        "updated_at": node.attributes.get("updated_at") or created,
    }
    if not scored:
        del found["score"]
    found.update({name: node.attributes[name] for name in _PROMOTED if name in node.attributes})
    return found


def events_of(key: str, versions: Sequence[Node]) -> list[dict[str, Any]]:
    """Return the history of a memory as mem0 tells it, from the versions of its node, oldest first."""
    found: list[dict[str, Any]] = []
    before: str | None = None
    for number, node in enumerate(versions):
        text = None if is_deleted(node) else node.text
        if text is None and before is None:
            continue
        created = node.timestamp
        found.append(
            {
                "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{node.id}#{number}")),
                "memory_id": key,
                "old_memory": before,
                "new_memory": text,
                "event": "DELETE" if text is None else "ADD" if before is None else "UPDATE",
                "created_at": created,
                "updated_at": node.attributes.get("updated_at") or created,
                "is_deleted": text is None,
                "actor_id": node.attributes.get("actor_id"),
                "role": node.attributes.get("role"),
            }
        )
        before = text
    return found


def expiry(value: Any) -> str | None:
    """Return the day on which something expires, in ISO 8601.

    Raises:
        InvalidInput: It is no day.
    """
    if value is None:
        return None
    if isinstance(value, datetime):
        value = value.date()
    if isinstance(value, date):
        return value.isoformat()
    try:
        if not isinstance(value, str):
            raise TypeError(value)
        return datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=timezone.utc).date().isoformat()
    except (TypeError, ValueError) as exc:
        raise InvalidInput(f"expiration_date must be a valid date in YYYY-MM-DD format, not {value!r}.") from exc
