"""What a search gives back: hits, each with its reasons, and word of the legs that did not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from ._optional import extra

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .nodes import Node

__all__ = ["Exchange", "Hit", "Hits", "Place", "Step", "Why"]


class Step(NamedTuple):
    """How another node supported a hit: *amount* of its score came over *relation* from the node with that *id*.

    Relations are those of the graph, and `previous`, `before previous`, `next` and `session`: what stood before and
    after it, and the whole conversation.
    """

    relation: str
    id: str
    amount: float


@dataclass(frozen=True)
class Why:
    """Why a node was found.

    `legs` says how much of the score came from each leg; together they are the score. `words` are the question's
    words that its text holds, `path` the support from the graph, most first.
    """

    legs: Mapping[str, float] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    path: tuple[Step, ...] = ()

    def __str__(self) -> str:
        parts = [f"{leg} {amount:.2f}" for leg, amount in self.legs.items() if abs(amount) >= 0.005]
        if self.words:
            parts.append(f"words: {', '.join(self.words)}")
        parts += [f"{step.relation} {step.id} {step.amount:+.2f}" for step in self.path]
        return "; ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the reasons as a JSON object."""
        return {
            "legs": dict(self.legs),
            "words": list(self.words),
            "path": [{"relation": step.relation, "id": step.id, "amount": step.amount} for step in self.path],
        }


@dataclass(frozen=True)
class Exchange:
    """A prompt and its responses: what was said together with a hit. The prompt of a lone response is None."""

    prompt: Node | None = None
    responses: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a fragment stands: characters `start` to `end` of the text of a document.

    `document` is the id of its node, `uri` where it came from, `name` what it goes by, such as `docs/guide.md`. `lines`
    and `pages` are the first and the last, counted from 1; None where the lines of the text are not those of the
    source, or there are no pages. `headings` are those above it, the outermost first. `content_hash` is the SHA-256 of
    the text of the fragment, `quote` that text.
    """

    document: str
    uri: str
    name: str
    title: str
    start: int
    end: int
    lines: tuple[int, int] | None = None
    pages: tuple[int, int] | None = None
    headings: tuple[str, ...] = ()
    content_hash: str = ""
    quote: str = ""

    def __str__(self) -> str:
        if self.lines is not None:
            first, last = self.lines
            return f"{self.name}:{first}" if first == last else f"{self.name}:{first}-{last}"
        if self.pages is not None:
            first, last = self.pages
            return f"{self.name} p. {first}" if first == last else f"{self.name} pp. {first}-{last}"
        return " > ".join([self.name, *self.headings[-1:]])

    def to_dict(self) -> dict[str, Any]:
        """Return the place as a JSON object, without the quote, which is the text of the fragment."""
        given = asdict(self)
        del given["quote"]
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in given.items() if value is not None
        }


@dataclass(frozen=True, init=False)
class Hit:
    """One node found. `score`, from 0 to 1, orders the hits of one search and says nothing across searches.

    To tell whether a hit has anything to do with the question, look at `similarity` (the cosine between the question
    and the nearest part of the text; None where there is no vector to compare) and at `coverage` (the share of the
    question's words that the text holds, rare words counting more; None where no words were looked for). `speaker` and
    `session` are who said it and where, `exchange` the prompt and responses that it belongs to, `duplicates` the ids
    of near-copies that were folded into it. `place` is where a fragment of a document stands.
    """

    node: Node
    score: float
    similarity: float | None
    coverage: float | None
    why: Why
    speaker: str | None
    session: str | None
    exchange: Exchange | None
    duplicates: tuple[str, ...]
    place: Place | None

    def __init__(
        self,
        node: Node,
        score: float,
        similarity: float | None = None,
        coverage: float | None = None,
        why: Why | None = None,
        speaker: str | None = None,
        session: str | None = None,
        exchange: Exchange | None = None,
        duplicates: tuple[str, ...] = (),
        place: Place | None = None,
    ) -> None:
        # The `__init__` that is generated for a frozen dataclass calls a function for each of them, for twice the time.
        self.__dict__.update(
            node=node,
            score=score,
            similarity=similarity,
            coverage=coverage,
            why=Why() if why is None else why,
            speaker=speaker,
            session=session,
            exchange=exchange,
            duplicates=duplicates,
            place=place,
        )

    @property
    def id(self) -> str:
        """The id of the node."""
        return self.node.id

    @property
    def text(self) -> str:
        """The text of the node, empty if it has none."""
        return self.node.text or ""

    @property
    def citation(self) -> str:
        """Where it comes from, in one line.

        Who, when, in which session, under which id; of a fragment of a document the document and the lines or pages.
        """
        if self.place is not None:
            return str(self.place)
        when = (self.node.timestamp or "")[:16].replace("T", " ")
        where = f"session {self.session}" if self.session else ""
        return ", ".join(part for part in (self.speaker or self.node.kind, when, where, f"id {self.id}") if part)

    def to_dict(self) -> dict[str, Any]:
        """Return the hit as a JSON object."""
        given = {
            "score": self.score,
            "similarity": self.similarity,
            "coverage": self.coverage,
            "speaker": self.speaker,
            "session": self.session,
            "why": self.why.to_dict() if self.why.legs else None,
            "duplicates": list(self.duplicates) or None,
            "place": None if self.place is None else self.place.to_dict(),
        }
        return {**{key: value for key, value in given.items() if value is not None}, **self.node.to_dict()}


class Hits(Sequence[Hit]):
    """The hits of one search, best first.

    `legs` names the legs of the search that ran, `skipped` those that did not, each with the reason.
    """

    def __init__(
        self, hits: Sequence[Hit] = (), skipped: Mapping[str, str] | None = None, legs: Sequence[str] = ()
    ) -> None:
        self._hits = tuple(hits) if isinstance(hits, list) else hits  # others may make them when they are looked at
        self.skipped = dict(skipped or {})
        self.legs = tuple(legs)

    @property
    def ids(self) -> list[str]:
        """The ids of the nodes found, best first."""
        known: list[str] | None = getattr(self._hits, "ids", None)  # without making the hits
        return [hit.id for hit in self._hits] if known is None else known

    @property
    def texts(self) -> list[str]:
        """The texts of the nodes found, best first."""
        return [hit.text for hit in self._hits]

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> Hits: ...
    def __getitem__(self, index: int | slice) -> Hit | Hits:
        if isinstance(index, slice):
            return Hits(self._hits[index], self.skipped, self.legs)
        return self._hits[index]

    def __len__(self) -> int:
        return len(self._hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self._hits)

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, (Hits, list, tuple)) else NotImplemented

    def __reduce__(self) -> tuple[Any, ...]:
        return Hits, (tuple(self), self.skipped, self.legs)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        lines = [f"  {hit.score:6.3f}  {hit.id}  {_short(hit.text)}" for hit in self._hits]
        return "\n".join([f"<Hits: {len(self)}>", *lines, *self._not_run()])

    def _repr_html_(self) -> str:
        from .picture.tables import hits_table

        return hits_table(self)

    def explain(self) -> str:
        """Return a table: for each hit what every leg gave, the words found, and the support from the graph."""
        names = list(dict.fromkeys(name for hit in self._hits for name in hit.why.legs)) or list(self.legs)
        head = ["score", *names, "similarity", "coverage", "id", "text", "because"]
        rows = [head]
        for hit in self._hits:
            because = [f"words: {', '.join(hit.why.words)}"] if hit.why.words else []
            because += [f"{step.relation} {step.id} {step.amount:+.2f}" for step in hit.why.path]
            rows.append(
                [
                    f"{hit.score:.3f}",
                    *(f"{hit.why.legs.get(name, 0.0):.3f}" for name in names),
                    "" if hit.similarity is None else f"{hit.similarity:.2f}",
                    "" if hit.coverage is None else f"{hit.coverage:.0%}",
                    hit.id,
                    _short(hit.text, 48),
                    "; ".join(because),
                ]
            )
        widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
            for row in rows
        ]
        ran = f"{len(self)} hits; legs: {', '.join(self.legs) or 'none'}"
        return "\n".join([ran, *lines, *self._not_run()])

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the hits as JSON objects."""
        return [hit.to_dict() for hit in self._hits]

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with one row per hit.

        Raises:
            MissingDependency: pandas is not installed.
        """
        with extra("", module="pandas"):
            import pandas as pd  # type: ignore[import-untyped,unused-ignore]
        columns = ["id", "score", "similarity", "coverage", "kind", "speaker", "session", "timestamp", "text"]
        rows = [
            [
                hit.id,
                hit.score,
                hit.similarity,
                hit.coverage,
                hit.node.kind,
                hit.speaker,
                hit.session,
                hit.node.timestamp,
                hit.text,
            ]
            for hit in self._hits
        ]
        return pd.DataFrame(rows, columns=columns)

    def _not_run(self) -> list[str]:
        return [f"  {leg} did not run: {reason}" for leg, reason in self.skipped.items()]


def _short(text: str, width: int = 72) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
