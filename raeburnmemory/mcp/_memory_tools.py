"""The tools for everything else in the memory: search and fetch as ChatGPT's connectors want them, and ours."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from ..entities import Entities
from ..errors import InvalidInput
from ..hits import Hit
from ..nodes import ENTITY, SESSION, collection_of
from ._answers import Answer, as_json, cut_text
from ._shapes import Told, flag, fraction, mapping, one_or_many, record, text, whole

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..memory_graph import MemoryGraph
    from ..nodes import Node

__all__ = ["NODE_URI", "MemoryTools", "id_in", "uri_of"]

NODE_URI = "memory://node/"

_SNIPPET = 300  # characters of a text in a list of results
_RELATED = 50  # ids that are named besides a node
_LISTED = 200  # ids of what was forgotten
_LETTERS = 4  # of a token, about

_QUERY = ("q", "search", "search_query", "question", "text")
_FILTERS = {
    "kinds": one_or_many(
        "Only nodes of these kinds, such as prompt, response, fact, fragment, entity, observation", "kind", "types"
    ),
    "session": one_or_many("Only what was said in these sessions", "session_id", "session_ids"),
    "speaker": one_or_many("Only what these said: names, ids of agents, user or assistant", "role", "agent"),
    "collection": one_or_many("Only what is in these collections", "collections"),
    "since": text("Only from this time on, in ISO 8601", "after", "start", optional=True),
    "until": text("Only before this time, in ISO 8601", "before", "end", optional=True),
    "where": mapping('Only with these attributes, such as {"stars": {"gte": 4}}', "filter", "filters", "metadata"),
    "min_coverage": fraction("Leave out what holds a smaller share of the words of the query, from 0 to 1"),
}


def uri_of(node_id: str, offset: int = 0) -> str:
    """Return the URI under which the server has a node as a resource, its text from the character *offset* on."""
    return NODE_URI + quote(node_id, safe="") + (f"?offset={offset}" if offset else "")


def id_in(uri: str) -> tuple[str, int] | None:
    """Return the id and the offset in a URI that `uri_of` made, None for any other."""
    quoted, _, rest = uri.removeprefix(NODE_URI).partition("?")
    offset = rest.removeprefix("offset=") if rest else "0"
    if not uri.startswith(NODE_URI) or not quoted or not offset.isascii() or not offset.isdigit():
        return None
    return unquote(quoted), int(offset)


class MemoryTools:
    """What the six tools do; each method takes checked arguments and returns an answer."""

    def __init__(self, memory: MemoryGraph, most: int) -> None:
        self.memory = memory
        self.most = most

    SEARCH = Told(
        "Search",
        "Search everything in the memory, by meaning and by words: conversations, facts, documents, entities. Returns "
        "ids for fetch, the best first",
        record(query=text("What to look for", *_QUERY)),
    )
    FETCH = Told(
        "Fetch",
        "Return the whole of one node of the memory by its id, with where it comes from and what it is linked to",
        record(id=text("The id, as search and recall give it, or its URL", "node_id", "document_id", "uri", "url")),
    )
    REMEMBER = Told(
        "Remember",
        "Keep a text in the memory, such as something said, decided or learnt. It is on disk when this returns",
        record(
            text=text("What to remember, in words that will be understood later", "content", "memory", "message"),
            role=text(
                "Who said it: user (if left out), assistant, system or tool",
                optional=True,
                choices=("user", "assistant", "system", "tool"),
            ),
            speaker=text("The name of who said it", "name", optional=True),
            session=text("The conversation it belongs to", "session_id", "thread_id", optional=True),
            timestamp=text("When it was said, in ISO 8601; now if left out", "time", "date", optional=True),
            metadata=mapping("Anything else to keep with it, as JSON", "attributes"),
        ),
    )
    RECALL = Told(
        "Recall",
        "Return what matters for a question from everything in the memory, the best first, each with its citation and "
        "why it was found",
        record(
            query=text("The question", *_QUERY),
            limit=whole("How many to return at most; 10", "k", "top_k", "max_results", "page_size", least=1),
            **_FILTERS,
        ),
    )
    CONTEXT = Told(
        "Context",
        "Return what matters for a question as one cited text of a limited length, ready to be read before answering",
        record(
            query=text("The question", *_QUERY),
            budget=whole("How many tokens the text may have; 1000", "max_tokens", "tokens", least=1),
            **_FILTERS,
        ),
    )
    FORGET = Told(
        "Forget",
        "Remove nodes from the memory for good, by their ids, or a whole session. An entity goes with its observations "
        "and relations",
        record(
            ids=one_or_many("The ids of the nodes to remove", "id", "node_ids", "node_id"),
            session=text("The session to remove, with all that was said in it", "session_id", optional=True),
            secure=flag("Leave no trace in any file, and take along what was derived from it"),
        ),
    )

    # The connectors want search and fetch to take one string each, and to answer with one text.

    # --- finding ------------------------------------------------------------------------------------------------

    def search(self, query: str) -> Answer:
        """Return what is found as the connectors of ChatGPT want it."""
        hits = self.memory.recall(query)
        results = [
            {
                "id": hit.id,
                "title": _title(hit),
                "url": uri_of(hit.id),
                "text": cut_text(hit.text, _SNIPPET),
                "citation": hit.citation,
                "why": str(hit.why),
            }
            for hit in hits
        ]
        return Answer(self._fitting({"results": results}, _skipped(hits.skipped)))

    def recall(self, query: str, limit: int = 10, **filters: Any) -> Answer:
        """Return what is found, with its text."""
        hits = self.memory.recall(query, limit, **filters)
        results = []
        for hit in hits:
            one = {
                "id": hit.id,
                "kind": hit.node.kind,
                "text": hit.text,
                "score": round(hit.score, 4),
                "similarity": None if hit.similarity is None else round(hit.similarity, 4),
                "speaker": hit.speaker,
                "session": hit.session,
                "timestamp": hit.node.timestamp,
                "citation": hit.citation,
                "why": str(hit.why),
            }
            results.append({key: value for key, value in one.items() if value is not None})
        content = self._fitting({"results": results, "legs": list(hits.legs)}, _skipped(hits.skipped))
        cut = content.get("cut")
        return Answer(content, as_json({key: content[key] for key in ("results", "legs")}), (cut,) if cut else ())

    def context(self, query: str, budget: int = 1000, **filters: Any) -> Answer:
        """Return a cited text."""
        most = self.most // _LETTERS
        found = self.memory.context(query, min(budget, most), **filters)
        content = {
            "text": found.text,
            "tokens": found.tokens,
            "sources": [{"id": piece.id, "citation": piece.citation} for piece in found.pieces],
            "left_out": [left.id for left in found.left_out],
        }
        said = found.text or "Nothing that was found fits."
        notes = _skipped(found.skipped)
        if found.left_out:
            notes.insert(0, f"{len(found.left_out)} more were found and did not fit.")
        if budget > most:
            notes.insert(0, f"The budget is {most} tokens at most.")
        return Answer(content, said, tuple(notes))

    def fetch(self, id: str) -> Answer:  # noqa: A002 - the connectors' name
        """Return one node."""
        node_id, offset = id_in(id) or (id, 0)
        with self.memory.snapshot():
            node = self.memory.get(node_id)
            explained = self.memory.why(node_id)
            links = self.memory.links(node_id)
            whole_text = self._text_of(node)
        speaker = explained.speakers[0] if explained.speakers else None
        session = explained.sessions[0] if explained.sessions else None
        hit = Hit(node, 0.0, speaker=speaker, session=session)
        part = whole_text[offset : offset + self.most]
        related = dict.fromkeys(link.target if link.source == node_id else link.source for link in links)
        about: dict[str, Any] = {
            "kind": node.kind,
            "citation": hit.citation,
            "why": str(explained),
            **({"timestamp": node.timestamp} if node.timestamp else {}),
            "attributes": dict(node.attributes),
            "related": list(itertools.islice(related, _RELATED)),
        }
        notes = []
        if len(as_json(about["attributes"])) > self.most:
            about["attributes"] = {}
            notes.append("The attributes are too long to be shown.")
        if offset + len(part) < len(whole_text):
            end = offset + len(part)
            notes.append(
                f"Characters {offset + 1} to {end} of {len(whole_text)} are shown. For the next call fetch with the id "
                f"{uri_of(node_id, end)}"
            )
        if len(related) > _RELATED:
            notes.insert(0, f"{_RELATED} of {len(related)} related ids are shown.")
        content = {"id": node_id, "title": _title(hit), "text": part, "url": uri_of(node_id), "metadata": about}
        return Answer({**content, "cut": " ".join(notes)} if notes else content)

    def _graph_of(self, node: Node) -> Entities | None:
        """Return the graph that a node is an entity of, if it is one."""
        collection = collection_of(node.id)
        if node.kind != ENTITY or collection is None:
            return None
        graph = Entities(self.memory, collection)
        return None if graph.name_of(node.id) is None else graph

    def _text_of(self, node: Node) -> str:
        """Return what there is to read about a node."""
        graph = self._graph_of(node)
        if graph is not None:
            (entity,) = graph.read([node])
            relations = graph.relations([entity["name"]])
            lines = [f"{one['from']} {one['relationType']} {one['to']}" for one in relations]
            return "\n".join([node.text or entity["name"], *entity["observations"], *lines])
        if node.kind == SESSION:
            said = self.memory.thread(node.id)
            return "\n".join(f"{one.attributes.get('name') or one.kind}: {one.text or ''}" for one in said)
        return node.text if node.text is not None else as_json(dict(node.attributes))

    def _fitting(self, content: dict[str, Any], notes: list[str]) -> dict[str, Any]:
        """Return content of which no text is so long that it leaves the others no room, and no more than fits."""
        results = content["results"]
        most = max(self.most // max(len(results), 1), _SNIPPET)
        kept: list[dict[str, Any]] = []
        long, room = 0, self.most
        for one in results:
            if len(one["text"]) > most:
                long += 1
                one["text"] = cut_text(one["text"], most)
            room -= len(as_json(one))
            if room < 0 and kept:
                break
            kept.append(one)
        if long:
            notes = [f"{long} texts end in '…' after {most} characters; fetch shows the whole.", *notes]
        if len(kept) < len(results):
            notes = [f"{len(kept)} of {len(results)} results are shown; narrow the question for the others.", *notes]
        return {**content, "results": kept, **({"cut": " ".join(notes)} if notes else {})}

    # --- writing ------------------------------------------------------------------------------------------------

    def remember(
        self,
        text: str,
        role: str = "user",
        speaker: str | None = None,
        session: str | None = None,
        timestamp: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Answer:
        """Record a message."""
        recorded = self.memory.add_message(
            text, role, session, name=speaker, timestamp=timestamp, metadata=metadata or {}
        )
        content = {"id": recorded.message, "session": session}
        return Answer(
            {key: value for key, value in content.items() if value is not None}, f"Remembered as {recorded.message}"
        )

    def forget(self, ids: list[str] | None = None, session: str | None = None, *, secure: bool = False) -> Answer:
        """Remove nodes, and entities whole."""
        if (ids is None) == (session is None):
            raise InvalidInput("Say what to forget: 'ids' or 'session', one of them.")
        gone: dict[str, None] = {}
        if session is not None:
            gone |= dict.fromkeys(self.memory.forget(session=session, secure=secure).ids)
        else:
            wanted = [(id_in(one) or (one, 0))[0] for one in ids or ()]
            if not secure:  # which takes what is part of an entity along
                for node in self.memory.get_many(wanted):
                    if (graph := self._graph_of(node)) is not None:
                        gone |= {graph.id_of(name): None for name in graph.remove([graph.name_of(node.id) or ""])}
            rest = [one for one in wanted if one not in gone]
            gone |= dict.fromkeys(self.memory.forget(rest, secure=secure).ids) if rest else {}
        message = f"Forgot {len(gone)}: {_named(gone, 20)}." if gone else "Nothing fits; nothing was forgotten."
        content = {"success": bool(gone), "message": message, "ids": list(gone)[:_LISTED]}
        cut = f"{_LISTED} of {len(gone)} ids are shown."
        return Answer(content, message, (cut,) if len(gone) > _LISTED else ())


def _named(ids: Iterable[str], most: int) -> str:
    known = list(ids)
    return ", ".join(known[:most]) + (", …" if known[most:] else "")


def _title(hit: Hit) -> str:
    """Return a line to know a node by."""
    words = " ".join((hit.text or hit.id).split())
    name = hit.node.attributes.get("name") if hit.node.text else None
    return cut_text(f"{name}: {words}" if isinstance(name, str) and name else words, 80)


def _skipped(skipped: Any) -> list[str]:
    return [f"Searched without {leg}: {reason}" for leg, reason in skipped.items()]
