"""The nine tools of the reference memory server, with its names, shapes and answers.

What it is silent about is said in a second text: entities that were there already, names that are not there. Two things
differ. Relations between entities that do not exist are errors, and an observation is there once, even if it is given
twice in one call.
"""

from __future__ import annotations

from collections import Counter
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from ._answers import Answer, Page, as_json, graph_page
from ._shapes import Shape, Told, many, record, text, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..entities import Entities
    from ..nodes import Node

__all__ = ["ENTITIES", "OBSERVATIONS", "RELATIONS", "GraphTools"]

_connection = itemgetter("from", "to", "relationType")

_NAME = text("The name of the entity", "entityName", "entity_name", "entity")
_ENTITY = record(
    name=_NAME,
    entityType=text("The type of the entity", "entity_type", "type"),
    observations=many(
        Shape("string"), "An array of observation contents associated with the entity", "contents", "facts"
    ),
)
_RELATION = record(
    from_=text("The name of the entity where the relation starts", "source", "from_entity"),
    to=text("The name of the entity where the relation ends", "target", "to_entity"),
    relationType=text("The type of the relation", "relation_type", "relation", "type"),
)
_ABOUT = text("The name of the entity to add the observations to", "name", "entity_name", "entity")
_PAGING = {
    "limit": whole("How many entities to show at most", "top_k", "page_size", "max_results", least=1),
    "offset": whole("How many entities to pass over", "start"),
    "observations_offset": whole("How many observations of each entity to pass over"),
    "relations_offset": whole("How many relations to pass over"),
}

ENTITIES = record(entities=many(_ENTITY, "The entities to create", "nodes"))
RELATIONS = record(relations=many(_RELATION, "The relations", "edges"))
OBSERVATIONS = record(
    observations=many(
        record(
            entityName=_ABOUT,
            contents=many(Shape("string"), "An array of observation contents to add", "observations", "facts"),
        ),
        "The observations to add",
        "additions",
    )
)
_DELETIONS = record(
    deletions=many(
        record(
            entityName=text("The name of the entity containing the observations", "name", "entity_name", "entity"),
            observations=many(Shape("string"), "An array of observations to delete", "contents", "facts"),
        ),
        "The observations to delete",
        "observations",
    )
)
_NAMES = many(Shape("string"), "An array of entity names to delete", "names", "entity_names", "entities")


class GraphTools:
    """What the nine tools do; each method takes checked arguments and returns an answer."""

    def __init__(self, graph: Entities, most: int) -> None:
        self.graph = graph
        self.most = most

    # Name, title, description, arguments: those of the reference server, and paging.
    CREATE = Told("Create Entities", "Create multiple new entities in the knowledge graph", ENTITIES)
    RELATE = Told(
        "Create Relations",
        "Create multiple new relations between entities in the knowledge graph. Relations should be in active voice",
        RELATIONS,
    )
    OBSERVE = Told("Add Observations", "Add new observations to existing entities in the knowledge graph", OBSERVATIONS)
    REMOVE = Told(
        "Delete Entities",
        "Delete multiple entities and their associated relations from the knowledge graph",
        record(entityNames=_NAMES),
    )
    UNOBSERVE = Told(
        "Delete Observations", "Delete specific observations from entities in the knowledge graph", _DELETIONS
    )
    UNRELATE = Told("Delete Relations", "Delete multiple relations from the knowledge graph", RELATIONS)
    READ = Told("Read Graph", "Read the entire knowledge graph, or a page of a large one", record(**_PAGING))
    SEARCH = Told(
        "Search Nodes",
        "Search for nodes in the knowledge graph based on a query: entities that hold it as it is written, in any "
        "case, in their name, type or an observation. To search by meaning use recall",
        record(
            query=text(
                "The search query to match against entity names, types, and observation content", "q", "search", "text"
            ),
            **_PAGING,
        ),
    )
    OPEN = Told(
        "Open Nodes",
        "Open specific nodes in the knowledge graph by their names",
        record(
            names=many(Shape("string"), "An array of entity names to retrieve", "entityNames", "entity_names", "nodes"),
            **_PAGING,
        ),
    )

    # --- writing ------------------------------------------------------------------------------------------------

    def create_entities(self, entities: list[dict[str, Any]]) -> Answer:
        """Add entities; the answer is of those that are new."""
        made = self.graph.create(entities)
        new = {entity["name"] for entity in made}
        given = [one["name"] for one in entities]
        notes = []
        if old := [name for name in given if name not in new]:
            notes.append(f"There already, and left as they were: {_listed(old)}. To add to them call add_observations.")
        counted = Counter(given)
        if twice := [name for name in new if counted[name] > 1]:
            notes.append(f"Given more than once, and taken the first time: {_listed(twice)}.")
        return Answer({"entities": made}, as_json(made), tuple(notes))

    def create_relations(self, relations: list[dict[str, Any]]) -> Answer:
        """Add relations; the answer is of those that are new."""
        made = self.graph.relate(relations)
        return Answer({"relations": made}, as_json(made))

    def add_observations(self, observations: list[dict[str, Any]]) -> Answer:
        """Add observations; the answer is of those that are new."""
        added = self.graph.observe((one["entityName"], one["contents"]) for one in observations)
        return Answer({"results": added}, as_json(added))

    def delete_entities(self, entityNames: list[str]) -> Answer:  # noqa: N803 - the reference's name
        """Remove entities."""
        gone = set(self.graph.remove(entityNames))
        return _deleted("Entities", [repr(name) for name in entityNames if name not in gone])

    def delete_observations(self, deletions: list[dict[str, Any]]) -> Answer:
        """Remove observations."""
        given = [(one["entityName"], one["observations"]) for one in deletions]
        gone = [set(one["addedObservations"]) for one in self.graph.unobserve(given)]
        lost = [
            f"{content!r} of {name!r}"
            for (name, contents), had in zip(given, gone, strict=True)
            for content in contents
            if content not in had
        ]
        return _deleted("Observations", lost)

    def delete_relations(self, relations: list[dict[str, Any]]) -> Answer:
        """Remove relations."""
        gone = set(map(_connection, self.graph.unrelate(relations)))
        lost = [one for one in relations if _connection(one) not in gone]
        return _deleted("Relations", [f"{one['from']!r} {one['relationType']} {one['to']!r}" for one in lost])

    # --- reading ------------------------------------------------------------------------------------------------

    def read_graph(self, **page: int) -> Answer:
        """Return the graph."""
        return self._page("read_graph", self.graph.all, page, touching=False)

    def search_nodes(self, query: str, **page: int) -> Answer:
        """Return the entities that hold a text, and their relations."""
        return self._page("search_nodes", lambda: self.graph.matching(query), page)

    def open_nodes(self, names: list[str], **page: int) -> Answer:
        """Return the entities that are called so, and their relations."""
        return self._page("open_nodes", lambda: self.graph.named(names), page)

    def _page(
        self, tool: str, found: Callable[[], Iterable[Node]], page: dict[str, int], *, touching: bool = True
    ) -> Answer:
        with self.graph.memory.snapshot():
            return graph_page(self.graph, found(), Page(**page), tool, most=self.most, touching=touching)


def _deleted(what: str, lost: list[str]) -> Answer:
    message = f"{what} deleted successfully"
    note = f"Not there: {', '.join(lost[:10])}{', …' if lost[10:] else ''}."
    return Answer({"success": True, "message": message}, message, (note,) if lost else ())


def _listed(names: list[str]) -> str:
    known = list(dict.fromkeys(names))
    return ", ".join(map(repr, known[:10])) + (", …" if known[10:] else "")
