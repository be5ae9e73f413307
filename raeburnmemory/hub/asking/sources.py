"""What an answer may draw on: texts of the memory, or of a retriever, each with the place that it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...hits import Hit, Place
from ...nodes import FRAGMENT, PROMPT, Node
from ...places import places_of
from .quoting import Clean, cleaned

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...index._words import Words
    from ...memory_graph import MemoryGraph

__all__ = ["Source", "from_documents", "from_hits", "within"]

_TITLE = 120  # characters of a title in a prompt: more is no title


def within(place: Place, text: str, start: int, end: int) -> Place:
    """Return the place of a part of *text*, which is what stands at *place*, by its characters in that."""
    lines = None
    if place.lines is not None:
        first = place.lines[0] + text.count("\n", 0, start)
        lines = (first, first + text.count("\n", start, end))
    known = place.start >= 0
    return replace(
        place,
        lines=lines,
        start=place.start + start if known else -1,
        end=place.start + end if known else -1,
        quote=text[start:end],
    )


@dataclass(frozen=True)
class Source:
    """A text that was found, with the number under which the model sees it.

    `id` is that of its node, None for a text that is not in the memory. `text` is what is stored, `clean` what is
    quoted, up to its character `shown`. `similarity` and `coverage` are as in `Hit`. `said` tells who said it and when,
    of what is part of a conversation.
    """

    number: int
    text: str
    kind: str
    clean: Clean
    id: str | None = None
    place: Place | None = None
    said: str = ""
    similarity: float | None = None
    coverage: float | None = None
    shown: int = 0

    @property
    def cut(self) -> bool:
        """Whether the model sees only the beginning."""
        return self.shown < len(self.clean.text)

    @property
    def title(self) -> str:
        """Where it comes from, in one line."""
        line = " ".join(cleaned(str(self.place or self.said or self.kind)).text.split())
        return line if len(line) <= _TITLE else line[: _TITLE - 1] + "…"

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object, without its text."""
        return {
            "number": self.number,
            "id": self.id,
            "kind": self.kind,
            "title": self.title,
            "uri": None if self.place is None else self.place.uri,
            "similarity": self.similarity,
            "coverage": self.coverage,
            "cut": self.cut,
        }


def _source(number: int, text: str, kind: str, **more: Any) -> Source:
    clean = cleaned(text)
    return Source(number, text, kind, clean, shown=len(clean.text), **more)


# --- of the memory ----------------------------------------------------------------------------------------------


def from_hits(hits: Iterable[Hit]) -> list[Source]:
    """Return what *hits* say, the best first, equal texts once.

    A question says nothing: instead of a prompt that is one, what was answered stands.
    """
    told: dict[str, tuple[Node, Hit]] = {}
    seen: set[str] = set()
    for hit in hits:
        nodes = [hit.node]
        if hit.node.kind == PROMPT and hit.text.rstrip().endswith(("?", "\uff1f", "\u061f")):
            nodes = list(hit.exchange.responses) if hit.exchange else []
        for node in nodes:
            key = " ".join((node.text or "").split()).casefold()
            if key and key not in seen and node.id not in told:
                seen.add(key)
                told[node.id] = (node, hit)
    return [
        _source(
            number,
            node.text or "",
            node.kind,
            id=node.id,
            place=hit.place or (_carried(node.attributes, node.text or "") if node.kind == FRAGMENT else None),
            said=hit.citation,
            similarity=hit.similarity,
            coverage=hit.coverage,
        )
        for number, (node, hit) in enumerate(told.values(), 1)
    ]


_URI = ("uri", "source", "url", "file_path", "path")


def _carried(about: Mapping[str, Any], text: str) -> Place | None:
    """Return the place that attributes tell, or metadata of LangChain, whose loaders count pages from 0."""
    inner = about.get("metadata")
    told = {**inner, **about} if isinstance(inner, Mapping) else about
    uri = next((str(told[name]) for name in _URI if isinstance(told.get(name), str) and told[name]), None)
    title = told.get("title")
    title = title if isinstance(title, str) else ""
    if uri is None and not title:
        return None
    page, start = told.get("page"), told.get("start_index")
    start = start if isinstance(start, int) else -1
    name = title or str(uri)
    return Place(
        "",
        uri or "",
        name,
        title,
        start,
        -1 if start < 0 else start + len(text),
        pages=(page + 1, page + 1) if type(page) is int else None,
        quote=text,
    )


# --- of a retriever ---------------------------------------------------------------------------------------------


def from_documents(memory: MemoryGraph, documents: Iterable[Any], question: str, words: Words) -> list[Source]:
    """Return what a retriever of LangChain found; those that the memory knows by their ids are its own."""
    documents = list(documents)
    ids = [str(one.metadata.get("id") or one.id or "") for one in documents]
    known = {node.id: node for node in memory.get_many(filter(None, ids))}
    places = places_of(memory._store, memory.namespace, list(known.values()))  # noqa: SLF001 - as recall does
    asked = set(words.of(question))
    found: list[Source] = []
    seen: set[str] = set()
    for one, node_id in zip(documents, ids, strict=True):
        node, text = known.get(node_id), one.page_content
        if node is not None and node.text != text:
            node = None  # another text under the same id: it cannot be cited by that
        key = " ".join(text.split()).casefold()
        if not key or key in seen:
            continue
        seen.add(key)
        about = one.metadata
        coverage = about.get("coverage")
        if coverage is None and asked:  # how many of the question's words are there, each counting the same
            coverage = len(asked & set(words.of(text))) / len(asked)
        found.append(
            _source(
                len(found) + 1,
                text,
                str(about.get("kind") or (FRAGMENT if node is None else node.kind)),
                id=None if node is None else node.id,
                place=(places.get(node_id) if node is not None else None) or _carried(about, text),
                said=str(about.get("citation") or ""),
                similarity=_number(about.get("similarity")),
                coverage=_number(coverage),
            )
        )
    return found


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
