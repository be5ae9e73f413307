"""The tools by name: what clients are told of them, and what is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..entities import COLLECTION, Entities
from ..errors import InvalidInput
from ._answers import MOST
from ._graph_tools import ENTITIES, OBSERVATIONS, RELATIONS, GraphTools
from ._memory_tools import MemoryTools

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..memory_graph import MemoryGraph
    from ._answers import Answer
    from ._shapes import Shape, Told

__all__ = ["LEAST", "Tool", "tools_of"]

LEAST = 1000  # characters of an answer: less would not hold one result

_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_CUT = {"type": "string", "description": "What is not shown, and how to see it; left out where everything is shown"}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def _list(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


def _shown(shape: Shape, field: str) -> dict[str, Any]:
    """Return the schema of what is shown of a field, without the names under which it may be given."""
    item = (shape.fields or {})[field].item
    assert item is not None
    return _object({name: _TEXTS if one.item else _TEXT for name, one in (item.fields or {}).items()})


_ENTITIES, _RELATIONS = _list(_shown(ENTITIES, "entities")), _list(_shown(RELATIONS, "relations"))
_GRAPH = _object({"entities": _ENTITIES, "relations": _RELATIONS}, cut=_CUT)
_DONE = _object({"success": {"type": "boolean"}, "message": _TEXT})
_FOUND = {"id": _TEXT, "text": _TEXT, "citation": _TEXT, "why": _TEXT}
_ADDED = _object(
    {"entityName": _shown(OBSERVATIONS, "observations")["properties"]["entityName"], "addedObservations": _TEXTS}
)


@dataclass(frozen=True)
class Tool:
    """One tool: what it says of itself, and the function that answers."""

    name: str
    told: Told
    answers: dict[str, Any]
    call: Callable[..., Answer]
    does: Literal["reads", "adds", "removes"]

    def __call__(self, arguments: Any) -> Answer:
        """Check the arguments and answer.

        Raises:
            MemoryGraphError: They are not as declared, or it cannot be done.
        """
        return self.call(**self.told.arguments.arguments(arguments))


def tools_of(memory: MemoryGraph, collection: str = COLLECTION, most: int = MOST) -> dict[str, Tool]:
    """Return the tools that serve *memory*; those that write are left out if it was opened for reading.

    Raises:
        InvalidInput: *collection* is no name, or *most* leaves no room.
    """
    if not isinstance(most, int) or most < LEAST:
        raise InvalidInput(f"An answer needs room for {LEAST} characters, not {most!r}.")
    graph, everything = GraphTools(Entities(memory, collection), most), MemoryTools(memory, most)
    found = _object({"results": _list(_object({**_FOUND, "title": _TEXT, "url": _TEXT}))}, cut=_CUT)
    hits = _object(
        {"results": _list(_object({**_FOUND, "kind": _TEXT, "score": {"type": "number"}})), "legs": _TEXTS}, cut=_CUT
    )
    fetched = _object(dict.fromkeys(("id", "title", "text", "url"), _TEXT) | {"metadata": {"type": "object"}}, cut=_CUT)
    told = _object(
        {
            "text": _TEXT,
            "tokens": {"type": "integer"},
            "sources": _list(_object({"id": _TEXT, "citation": _TEXT})),
            "left_out": _TEXTS,
        }
    )
    every = [
        Tool("create_entities", GraphTools.CREATE, _object({"entities": _ENTITIES}), graph.create_entities, "adds"),
        Tool("create_relations", GraphTools.RELATE, _object({"relations": _RELATIONS}), graph.create_relations, "adds"),
        Tool(
            "add_observations", GraphTools.OBSERVE, _object({"results": _list(_ADDED)}), graph.add_observations, "adds"
        ),
        Tool("delete_entities", GraphTools.REMOVE, _DONE, graph.delete_entities, "removes"),
        Tool("delete_observations", GraphTools.UNOBSERVE, _DONE, graph.delete_observations, "removes"),
        Tool("delete_relations", GraphTools.UNRELATE, _DONE, graph.delete_relations, "removes"),
        Tool("read_graph", GraphTools.READ, _GRAPH, graph.read_graph, "reads"),
        Tool("search_nodes", GraphTools.SEARCH, _GRAPH, graph.search_nodes, "reads"),
        Tool("open_nodes", GraphTools.OPEN, _GRAPH, graph.open_nodes, "reads"),
        Tool("search", MemoryTools.SEARCH, found, everything.search, "reads"),
        Tool("fetch", MemoryTools.FETCH, fetched, everything.fetch, "reads"),
        Tool("remember", MemoryTools.REMEMBER, _object({"id": _TEXT}, session=_TEXT), everything.remember, "adds"),
        Tool("recall", MemoryTools.RECALL, hits, everything.recall, "reads"),
        Tool("context", MemoryTools.CONTEXT, told, everything.context, "reads"),
        Tool(
            "forget", MemoryTools.FORGET, _object({**_DONE["properties"], "ids": _TEXTS}), everything.forget, "removes"
        ),
    ]
    return {tool.name: tool for tool in every if tool.does == "reads" or not memory.read_only}
