"""Interactions that are recorded once, however often they are sent with one Idempotency-Key.

Nothing is kept of the key: ids that were left out follow from it, and what lies under these tells what was sent with
it before.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from typing import Any

from ..memory_graph import MemoryGraph
from ..nodes import BELONGS_TO, GENERATED_BY, PROMPT, RESPONDED_WITH, RESPONSE, Node, Recorded
from ..records import Record, several, utc
from ..web import Problem

__all__ = ["record_once", "say_once"]

_PARTS = (PROMPT, RESPONSE)
_SAID = frozenset({RESPONDED_WITH, GENERATED_BY, BELONGS_TO})


def record_once(memory: MemoryGraph, interactions: Sequence[dict[str, Any]], key: str) -> tuple[list[Recorded], bool]:
    """Record interactions unless they lie there already; return their ids, and whether they are new.

    Raises:
        Problem: Something else was sent with the key.
    """
    named, derived, timed = [], set(), set()
    for number, one in enumerate(interactions):
        full = dict(one)
        for part in _PARTS:
            if (said := full.get(part)) is not None:
                said = {"text": said} if isinstance(said, str) else dict(said)
                if "id" not in said:
                    said["id"] = _id_of(part, f"{key}\n{number}")
                    derived.add(said["id"])
                if "timestamp" in said or "timestamp" in full:
                    timed.add(said["id"])
                full[part] = said
        named.append(full)
    records = several(named, memory.namespace)
    with memory.exclusive():  # whoever sends the same at the same time
        there = {node.id: node for node in memory.get_many(list({node.id for one in records for node in one.nodes}))}
        if all(_lies(record, there, timed) for record in records) and _linked(memory, records):
            return [record.ids for record in records], False
        if not derived.isdisjoint(there):
            raise Problem(422, "That Idempotency-Key was used for something else. Use a new one.", code="KeyReused")
        return memory.add_many(named), True


def say_once(memory: MemoryGraph, messages: Sequence[dict[str, Any]], key: str) -> tuple[list[Recorded], bool]:
    """Record messages of chats unless they lie there already; return their ids, and whether they are new.

    Raises:
        Problem: Something else was sent with the key.
    """
    named = [
        one if "id" in one else {**one, "id": _id_of("message", f"{key}\n{number}")}
        for number, one in enumerate(messages)
    ]
    derived = {new["id"] for new, one in zip(named, messages, strict=True) if "id" not in one}
    with memory.exclusive():  # whoever sends the same at the same time
        there = {node.id: node for node in memory.get_many([one["id"] for one in named])}
        if len(there) == len(named):
            recorded = [_said_before(memory, there[one["id"]]) for one in named]
            if all(_is_said(one, there[one["id"]], ids) for one, ids in zip(named, recorded, strict=True)):
                return recorded, False
        if not derived.isdisjoint(there):
            raise Problem(422, "That Idempotency-Key was used for something else. Use a new one.", code="KeyReused")
        return memory.add_messages(named), True


def _is_said(message: dict[str, Any], node: Node, ids: Recorded) -> bool:
    """Tell whether a message lies there as it was said."""
    said = {"role": message["role"], **message.get("metadata", {})}
    said |= {"name": message["name"]} if "name" in message else {}
    said["timestamp"] = utc(message["timestamp"]) if "timestamp" in message else node.timestamp
    return (node.text, ids.session, node.attributes) == (message["text"], message.get("session_id"), said)


def _said_before(memory: MemoryGraph, node: Node) -> Recorded:
    """Return the ids of a message that lies there."""
    prompt, response = (None, node.id) if node.kind == RESPONSE else (node.id, None)
    if response is not None:
        asked = memory.links(node.id, RESPONDED_WITH, "in")
        prompt = asked[0].source if asked else None
    speaker = memory.links(node.id, GENERATED_BY, "out")
    session = memory.links([one for one in (node.id, prompt) if one], BELONGS_TO, "out")
    return Recorded(
        prompt,
        response,
        speaker[0].target if speaker else None,
        session[0].target if session else None,
        node.id,
    )


def _id_of(part: str, key: str) -> str:
    digest = hashlib.sha256(f"{part}\n{key}".encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))


def _lies(record: Record, there: dict[str, Node], timed: set[str]) -> bool:
    """Tell whether the nodes of an interaction are there as they were said."""
    for said in record.nodes:
        found = there.get(said.id)
        if found is None or (found.kind, found.text) != (said.kind, said.text):
            return False
        was, is_ = dict(said.attributes), dict(found.attributes)
        if said.kind not in _PARTS:  # of agents and sessions others may have said more
            if not was.items() <= is_.items():
                return False
            continue
        if said.id not in timed:
            was["timestamp"] = is_.get("timestamp")
        if was != is_:
            return False
    return True


def _linked(memory: MemoryGraph, records: Sequence[Record]) -> bool:
    """Tell whether exactly the edges that interactions say leave their texts."""
    said = {(link.source, link.target, link.relation) for record in records for link in record.links}
    sources = {node.id for record in records for node in record.nodes if node.kind in _PARTS}
    found = {(link.source, link.target, link.relation) for link in memory.links(list(sources), None, "out")}
    return said == {link for link in found if link[2] in _SAID}
