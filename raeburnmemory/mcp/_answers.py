"""What tools answer, and how much of it: an answer that fills a model's window is worth less than a page of it."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..entities import Entities, Entity, Relation
    from ..nodes import Node

__all__ = ["MOST", "Answer", "Page", "as_json", "cut_text", "graph_page"]

MOST = 60_000  # characters of one answer, which is about 15,000 tokens

_AT_ONCE = 100  # entities that are read at once, some of them perhaps for nothing
_INDENT = 4  # of the items of a list
_ROOM = 3, 4  # of the characters of a graph: the share that entities may take, so that relations are seen, too


@dataclass(frozen=True)
class Answer:
    """What a tool answers: `content` for programs, `text` for models (JSON of the content if left out).

    `notes` say what was cut and how to see it, and what was asked for in vain; they stand in a text of their own, so
    that the first one is what the reference server says. What was cut is in the content, too, under `cut`; without
    `text` there is one text alone, as ChatGPT's connectors want it.
    """

    content: dict[str, Any]
    text: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def texts(self) -> list[str]:
        """The texts, in order."""
        if self.text is None:
            return [as_json(self.content)]
        return [self.text, " ".join(self.notes)] if self.notes else [self.text]


@dataclass(frozen=True)
class Page:
    """Which part of a graph is asked for: `limit` entities from `offset` on, and from where on what belongs to them."""

    offset: int = 0
    limit: int | None = None
    observations_offset: int = 0
    relations_offset: int = 0


@dataclass
class _Cut:
    entities: list[Entity] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    used: int = 60  # what is around them


def as_json(value: Any) -> str:
    """Return *value* as the reference server writes it."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def graph_page(graph: Entities, found: Iterable[Node], page: Page, tool: str, *, most: int, touching: bool) -> Answer:
    """Return the entities *found*, as much of them as *page* asks for and *most* characters hold, and their relations.

    With *touching* these are all that lead to or from them, else those that lead from them, so that each relation of
    the graph is on one page. *tool* is what the notes tell to call for more.
    """
    nodes = iter(found)
    for _ in itertools.islice(nodes, page.offset):
        pass
    cut = _entities(graph, nodes, page, tool, most * _ROOM[0] // _ROOM[1])
    names = [entity["name"] for entity in cut.entities]
    relations = graph.relations(names, "both" if touching else "out")
    shown = _relations(relations, page, most - cut.used, cut.notes)
    content: dict[str, Any] = {"entities": cut.entities, "relations": shown}
    text = as_json(content)
    if cut.notes:
        content["cut"] = " ".join(cut.notes)
    return Answer(content, text, tuple(cut.notes))


def _entities(graph: Entities, nodes: Iterable[Node], page: Page, tool: str, room: int) -> _Cut:
    """Return as many entities as there is room for, and at least one."""
    cut, more = _Cut(), False
    for entity in _read(graph, nodes):
        if page.limit is not None and len(cut.entities) >= page.limit:
            more = True
            break
        entity["observations"] = entity["observations"][page.observations_offset :]
        size = _size(entity)
        if cut.used + size > room:
            if cut.entities:
                more = True
                break
            size = _shorten(entity, page, room, cut.notes)
        cut.used += size
        cut.entities.append(entity)
    if more:
        last = page.offset + len(cut.entities)
        cut.notes.append(
            f"Entities {page.offset + 1} to {last} are shown; there are more. For those call {tool} with offset={last}."
        )
    return cut


def _read(graph: Entities, nodes: Iterable[Node]) -> Iterator[Entity]:
    rest = iter(nodes)
    while some := list(itertools.islice(rest, _AT_ONCE)):
        yield from graph.read(some)


def _shorten(entity: Entity, page: Page, room: int, notes: list[str]) -> int:
    """Leave out the last observations of an entity that is too large for any page; return the size of what is left."""
    every = entity["observations"]
    kept: list[str] = []
    size = _size({**entity, "observations": []})
    for content in every:
        more = _size(content) + _INDENT
        if kept and size + more > room:
            break
        kept.append(content)
        size += more
    if len(kept) == 1 and size > room:
        kept = [cut_text(kept[0], room)]
        notes.append(f"Of {entity['name']!r} an observation ends in '…' after {room} characters; search finds its id.")
    entity["observations"] = kept
    if len(kept) < len(every):
        first = page.observations_offset
        notes.append(
            f"Of {entity['name']!r} observations {first + 1} to {first + len(kept)} of {first + len(every)} are shown. "
            f"For the next ones call open_nodes with this name and observations_offset={first + len(kept)}."
        )
    return size


def _relations(relations: list[Relation], page: Page, room: int, notes: list[str]) -> list[Relation]:
    """Return as many relations as there is room for, and at least one."""
    shown: list[Relation] = []
    for one in relations[page.relations_offset :]:
        room -= _size(one)
        if room < 0 and shown:
            last = page.relations_offset + len(shown)
            notes.append(
                f"Relations {page.relations_offset + 1} to {last} of {len(relations)} are shown. For the next ones "
                f"pass relations_offset={last} besides."
            )
            break
        shown.append(one)
    return shown


def _size(value: Any) -> int:
    """Return how many characters an item of a list takes in the text of a graph."""
    text = as_json(value)
    return len(text) + _INDENT * (text.count("\n") + 1) + 2


def cut_text(value: str, most: int) -> str:
    """Return *value*, or its beginning and "…"."""
    return value if len(value) <= most else value[: most - 1] + "…"
