"""Entities with observations, and relations between them: a knowledge graph as assistants keep it, in a collection.

An entity is a node of the kind `entity` with the id `entity/COLLECTION/NAME`; its text is its name and type, its
attributes are `collection`, `key` (the name) and `entity_type`. Each observation is a node of the kind `observation`
with the text as it was given; its attribute `name` is that of its entity, so that it is found by it, and a link
`part_of` leads to the entity. A relation is a link between two entities. The shapes taken and given are those of the
Model Context Protocol's reference memory server: `{name, entityType, observations}` and `{from, to, relationType}`.

What is there counts, and not who wrote it: an observation is a sentence that an entity has or has not, never twice.
"""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from .errors import InvalidInput, NodeNotFound
from .nodes import ENTITY, OBSERVATION, PART_OF, Change, Link, Node, collected_id
from .records import checked_id, checked_text, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from .memory_graph import MemoryGraph

__all__ = ["COLLECTION", "Entities", "Entity", "Observed", "Relation"]

COLLECTION = "mcp"  # where a knowledge graph is kept when nobody says where

_MANY = 500  # entities whose observations are read at once

T = TypeVar("T")


class Entity(TypedDict):
    """A thing with a name, and what is known about it: `name`, `entityType`, and `observations`, which are texts."""

    name: str
    entityType: str
    observations: list[str]


# A class cannot have a field called `from`.
Relation = TypedDict("Relation", {"from": str, "to": str, "relationType": str})
"""A named connection between two entities."""


class Observed(TypedDict):
    """What was new of the observations given for one entity: `entityName`, and `addedObservations`."""

    entityName: str
    addedObservations: list[str]


class Entities:
    """The entities of one collection of a memory.

    Each call that changes something is one transaction that sees what every other process wrote before: all of it is
    done, or nothing. What several reading calls tell is of one moment within `memory.snapshot()`.
    """

    def __init__(self, memory: MemoryGraph, collection: str = COLLECTION) -> None:
        self.memory = memory
        self.collection = checked_id(collection, "a collection")

    # --- ids --------------------------------------------------------------------------------------------------------

    def id_of(self, name: str) -> str:
        """Return the id of the node of the entity called *name*."""
        return collected_id(ENTITY, self.collection, checked_id(name, "the name of an entity"))

    def name_of(self, node_id: str) -> str | None:
        """Return the name of the entity that a node of this collection is, or None if it is none."""
        prefix = self._prefix
        return node_id[len(prefix) :] or None if node_id.startswith(prefix) else None

    @property
    def _prefix(self) -> str:
        return self.id_of("x")[:-1]

    def _observation_id(self, name: str, content: str) -> str:
        # The same for whoever observes the same, so that twice is once; of a length of its own, whatever the content.
        digest = hashlib.blake2b(content.encode(), digest_size=10).hexdigest()
        return collected_id(OBSERVATION, self.collection, f"{name}/{digest}")

    # --- writing ----------------------------------------------------------------------------------------------------

    def create(self, entities: Iterable[Mapping[str, Any]]) -> list[Entity]:
        """Add entities, and return those that are new; one whose name is there already stays as it is.

        Raises:
            InvalidInput: Something cannot be stored.
        """
        given: dict[str, Entity] = {}
        for one in entities:
            entity = _entity(one)
            given.setdefault(entity["name"], entity)

        def plan(made: list[Entity]) -> Change:
            there = {node.id for node in self.memory.get_many(map(self.id_of, given))}
            made += [entity for name, entity in given.items() if self.id_of(name) not in there]
            nodes: list[Node] = []
            links: list[Link] = []
            for entity in made:
                name, kind = entity["name"], entity["entityType"]
                attributes = {"collection": self.collection, "key": name, "entity_type": kind}
                nodes.append(Node(self.id_of(name), ENTITY, f"{name} ({kind})" if kind else name, attributes))
                self._observe(name, entity["observations"], nodes, links)
            return Change(nodes, links)

        return self._change(plan)

    def observe(self, observations: Iterable[tuple[str, Iterable[str]]]) -> list[Observed]:
        """Add observations to entities, given as pairs of name and contents; return those that are new.

        Raises:
            InvalidInput: Something cannot be stored.
            NodeNotFound: An entity does not exist.
        """
        given = [(checked_id(name, "the name of an entity"), _contents(texts)) for name, texts in observations]

        def plan(made: list[Observed]) -> Change:
            known = self._known([name for name, _ in given])
            nodes: list[Node] = []
            links: list[Link] = []
            for name, contents in given:
                new = [content for content in contents if content not in known[name]]
                known[name] |= dict.fromkeys(new)
                self._observe(name, new, nodes, links)
                made.append({"entityName": name, "addedObservations": new})
            return Change(nodes, links)

        return self._change(plan)

    def relate(self, relations: Iterable[Mapping[str, Any]]) -> list[Relation]:
        """Add relations between entities, and return those that are new.

        Raises:
            InvalidInput: Something cannot be stored.
            NodeNotFound: An entity does not exist.
        """
        given = {_key(one): one for one in map(_relation, relations)}

        def plan(made: list[Relation]) -> Change:
            self._known(itertools.chain.from_iterable(key[:2] for key in given), observations=False)
            there = {_key(one) for one in self._relations_from({key[0] for key in given})}
            made += [one for key, one in given.items() if key not in there]
            return Change(links=[self._link(one) for one in made])

        return self._change(plan)

    # --- removing ---------------------------------------------------------------------------------------------------

    def remove(self, names: Iterable[str]) -> list[str]:
        """Remove entities with their observations and relations; return the names of those that were there.

        Raises:
            InvalidInput: A name is none.
        """
        wanted = {self.id_of(name): name for name in names}

        def plan(gone: list[str]) -> Change:
            there = [node.id for node in self.memory.get_many(list(wanted))]
            gone += [wanted[node_id] for node_id in there]
            parts = [link.source for link in self._parts(there)]
            return Change(removed_nodes=[*there, *dict.fromkeys(parts)])

        return self._change(plan)

    def unobserve(self, observations: Iterable[tuple[str, Iterable[str]]]) -> list[Observed]:
        """Remove observations from entities, given as pairs of name and contents; return those that were there.

        Raises:
            InvalidInput: A name or content is none.
        """
        given = [(self.id_of(name), name, _contents(texts)) for name, texts in observations]

        def plan(gone: list[Observed]) -> Change:
            removed: dict[str, str] = {}
            for node_id, name, contents in given:
                had = {content: part for part, content in self._texts([node_id])[node_id].items()}
                found = [content for content in contents if content in had]
                removed |= {had[content]: content for content in found}
                gone.append({"entityName": name, "addedObservations": found})
            return Change(removed_nodes=list(removed))

        return self._change(plan)

    def unrelate(self, relations: Iterable[Mapping[str, Any]]) -> list[Relation]:
        """Remove relations, and return those that were there.

        Raises:
            InvalidInput: A relation is none.
        """
        given = {_key(one): one for one in map(_relation, relations)}

        def plan(gone: list[Relation]) -> Change:
            there = {_key(one) for one in self._relations_from({key[0] for key in given})}
            gone += [one for key, one in given.items() if key in there]
            return Change(removed_links=[(*map(self.id_of, key[:2]), key[2]) for key in given if key in there])

        return self._change(plan)

    # --- reading ----------------------------------------------------------------------------------------------------

    def all(self) -> Iterator[Node]:
        """Yield the nodes of the entities, the oldest first."""
        yield from (
            node
            for node in self.memory.nodes(ENTITY, where={"collection": self.collection})
            if self.name_of(node.id) is not None
        )

    def named(self, names: Iterable[str]) -> list[Node]:
        """Return the nodes of those of the entities called *names* that there are, the oldest first, each once."""
        found = self.memory.get_many(list(dict.fromkeys(self.id_of(name) for name in names if name)))
        return sorted(found, key=lambda node: node.row)

    def matching(self, text: str) -> list[Node]:
        """Return the nodes of the entities with *text*, in any case, in their name, type or an observation."""
        sought, found = text.lower(), []
        entities = list(self.all())
        for start in range(0, len(entities), _MANY):
            some = entities[start : start + _MANY]
            texts = self._texts([node.id for node in some])
            for node in some:
                about = (self.name_of(node.id) or "", _type_of(node), *texts[node.id].values())
                if any(sought in one.lower() for one in about):
                    found.append(node)
        return found

    def read(self, nodes: Sequence[Node]) -> list[Entity]:
        """Return the entities that *nodes* are, each with its observations in the order in which they were added."""
        texts = self._texts([node.id for node in nodes])
        return [
            {
                "name": self.name_of(node.id) or "",
                "entityType": _type_of(node),
                "observations": list(texts[node.id].values()),
            }
            for node in nodes
        ]

    def relations(self, names: Iterable[str], direction: str = "both") -> list[Relation]:
        """Return the relations that leave (`"out"`) or touch (`"both"`) the entities called *names*, oldest first."""
        links = self.memory.links([self.id_of(name) for name in names], direction=direction)
        return [one for link in links if (one := self._as_relation(link)) is not None]

    # --- inside -----------------------------------------------------------------------------------------------------

    def _change(self, plan: Callable[[list[T]], Change]) -> list[T]:
        """Make the change that *plan* finds, and return what it put into the list given, the last time it was asked."""
        said: list[T] = []

        def fresh() -> Change:
            said.clear()
            return plan(said)

        self.memory.change(fresh)
        return said

    def _observe(self, name: str, contents: Iterable[str], nodes: list[Node], links: list[Link]) -> None:
        for content in contents:
            node_id = self._observation_id(name, content)
            nodes.append(Node(node_id, OBSERVATION, content, {"collection": self.collection, "name": name}))
            links.append(Link(node_id, self.id_of(name), PART_OF))

    def _known(self, names: Iterable[str], *, observations: bool = True) -> dict[str, dict[str, None]]:
        """Return what is observed of entities that must exist."""
        wanted = list(dict.fromkeys(names))
        there = {node.id for node in self.memory.get_many(map(self.id_of, wanted))}
        if lost := [name for name in wanted if self.id_of(name) not in there]:
            others = f", nor {', '.join(map(repr, lost[1:4]))}" if lost[1:] else ""
            raise NodeNotFound(f"Entity with name {lost[0]} not found{others}. Create it first; nothing was changed.")
        texts = self._texts([self.id_of(name) for name in wanted]) if observations else {}
        return {name: dict.fromkeys(texts.get(self.id_of(name), {}).values()) for name in wanted}

    def _parts(self, ids: Sequence[str]) -> list[Link]:
        """Return the links of the observations of entities."""
        prefix = collected_id(OBSERVATION, self.collection, "")
        return [link for link in self.memory.links(ids, PART_OF, "in") if link.source.startswith(prefix)]

    def _texts(self, ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the observations of each of the entities *ids*: the ids of their nodes, and their texts."""
        found: dict[str, dict[str, str]] = {node_id: {} for node_id in ids}
        links = self._parts(ids)
        texts = {node.id: node.text or "" for node in self.memory.get_many(link.source for link in links)}
        for link in links:
            if link.source in texts:  # it has not expired
                found[link.target][link.source] = texts[link.source]
        return found

    def _relations_from(self, names: Iterable[str]) -> list[Relation]:
        return self.relations(names, "out")

    def _as_relation(self, link: Link) -> Relation | None:
        source, target = self.name_of(link.source), self.name_of(link.target)
        return (
            None if source is None or target is None else {"from": source, "to": target, "relationType": link.relation}
        )

    def _link(self, one: Relation) -> Link:
        return Link(self.id_of(one["from"]), self.id_of(one["to"]), one["relationType"])


def _type_of(node: Node) -> str:
    value = node.attributes.get("entity_type")
    return value if isinstance(value, str) else ""


def _entity(given: Mapping[str, Any]) -> Entity:
    name = checked_id(given.get("name"), "the name of an entity")
    kind = checked_text(given.get("entityType", ""), f"the type of {name!r}")
    return {"name": name, "entityType": kind, "observations": _contents(given.get("observations", ()))}


def _contents(given: Any) -> list[str]:
    """Return observations, each once."""
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise InvalidInput(f"The observations must be a list of texts, not {shown(given)}.")
    return list(dict.fromkeys(checked_text(one, "an observation") for one in given))


def _relation(given: Mapping[str, Any]) -> Relation:
    source = checked_id(given.get("from"), "the from of a relation")
    target = checked_id(given.get("to"), "the to of a relation")
    relation = checked_id(given.get("relationType"), "the relationType of a relation")
    return {"from": source, "to": target, "relationType": relation}


def _key(relation: Relation) -> tuple[str, str, str]:
    return relation["from"], relation["to"], relation["relationType"]
