"""What an answer may draw on: texts of the memory, or of a retriever, each with the place that it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ...hits import Hit
from ...nodes import FRAGMENT, PART_OF, PROMPT, Node
from .quoting import Clean, cleaned

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...index._words import Words
    from ...memory_graph import MemoryGraph

__all__ = ["Place", "Source", "from_documents", "from_hits"]

_TITLE = 120  # characters of a title in a prompt: more is no title


@dataclass(frozen=True)
class Place:
    """Where a text stands: in which document, on which lines and pages, from which character to which.

    `uri` and `title` are those of the document, `document` is its node's id. Lines and pages count from 1, each the
    first and the last; None where the document has none. `start` and `end` are characters of the document's text.
    """

    uri: str | None = None
    title: str | None = None
    document: str | None = None
    lines: tuple[int, int] | None = None
    pages: tuple[int, int] | None = None
    start: int | None = None
    end: int | None = None

    def within(self, text: str, start: int, end: int) -> Place:
        """Return the place of a part of *text*, which is what stands here, by its characters in that."""
        lines = None
        if self.lines is not None:
            first = self.lines[0] + text.count("\n", 0, start)
            lines = (first, first + text.count("\n", start, end))
        base = self.start
        return replace(
            self,
            lines=lines,
            start=None if base is None else base + start,
            end=None if base is None else base + end,
        )

    def __str__(self) -> str:
        name = self.title or ""
        if self.uri:
            parts = urlsplit(self.uri)
            name = unquote(parts.path) if parts.scheme in {"", "file"} else self.uri
        if self.lines is not None:
            return f"{name}:{_range(self.lines)}"
        return f"{name}, page {_range(self.pages)}" if self.pages is not None else name


def _range(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}-{pair[1]}"


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
    place: Place = Place()
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
        line = " ".join(cleaned(str(self.place) or self.said or self.kind).text.split())
        return line if len(line) <= _TITLE else line[: _TITLE - 1] + "…"

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object, without its text."""
        return {
            "number": self.number,
            "id": self.id,
            "kind": self.kind,
            "title": self.title,
            "uri": self.place.uri,
            "similarity": self.similarity,
            "coverage": self.coverage,
            "cut": self.cut,
        }


def _source(number: int, text: str, kind: str, **more: Any) -> Source:
    clean = cleaned(text)
    return Source(number, text, kind, clean, shown=len(clean.text), **more)


# --- of the memory ----------------------------------------------------------------------------------------------


def from_hits(memory: MemoryGraph, hits: Iterable[Hit]) -> list[Source]:
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
    places = _places(memory, [node for node, _ in told.values()])
    return [
        _source(
            number,
            node.text or "",
            node.kind,
            id=node.id,
            place=places.get(node.id, Place()),
            said="" if node.kind == FRAGMENT else hit.citation,
            similarity=hit.similarity,
            coverage=hit.coverage,
        )
        for number, (node, hit) in enumerate(told.values(), 1)
    ]


def _places(memory: MemoryGraph, nodes: Sequence[Node]) -> dict[str, Place]:
    """Return where fragments stand: their link to the document says it, or else what they carry with them."""
    fragments = [node for node in nodes if node.kind == FRAGMENT]
    if not fragments:
        return {}
    links = {link.source: link for link in memory.links([node.id for node in fragments], PART_OF, "out")}
    documents = {node.id: node for node in memory.get_many({link.target for link in links.values()})}
    found = {}
    for node in fragments:
        link = links.get(node.id)
        about = documents.get(link.target) if link is not None else None
        if link is None or about is None:
            found[node.id] = _carried(node.attributes)
        else:
            told = {**about.attributes, **link.data}
            found[node.id] = replace(_carried(told), document=about.id)
    return found


_URI = ("uri", "source", "url", "file_path", "path")


def _carried(about: Mapping[str, Any]) -> Place:
    """Return the place that attributes tell, or metadata of LangChain, whose loaders count pages from 0."""
    inner = about.get("metadata")
    told = {**inner, **about} if isinstance(inner, Mapping) else about
    uri = next((str(told[name]) for name in _URI if isinstance(told.get(name), str) and told[name]), None)
    title = told.get("title")
    pages = _pair(told.get("pages"))
    if pages is None and type(told.get("page")) is int:
        pages = (told["page"] + 1, told["page"] + 1)
    start = told.get("start", told.get("start_index"))
    end = told.get("end")
    return Place(
        uri,
        title if isinstance(title, str) and title else None,
        None,
        _pair(told.get("lines")),
        pages,
        start if type(start) is int else None,
        end if type(end) is int else None,
    )


def _pair(value: Any) -> tuple[int, int] | None:
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(type(number) is int for number in value):
        return value[0], value[1]
    return None


# --- of a retriever ---------------------------------------------------------------------------------------------


def from_documents(memory: MemoryGraph, documents: Iterable[Any], question: str, words: Words) -> list[Source]:
    """Return what a retriever of LangChain found; those that the memory knows by their ids are its own."""
    documents = list(documents)
    ids = [str(one.metadata.get("id") or one.id or "") for one in documents]
    known = {node.id: node for node in memory.get_many(filter(None, ids))}
    places = _places(memory, list(known.values()))
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
                place=places.get(node_id) if node is not None and node_id in places else _carried(about),
                said=str(about.get("citation") or ""),
                similarity=_number(about.get("similarity")),
                coverage=_number(coverage),
            )
        )
    return found


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
