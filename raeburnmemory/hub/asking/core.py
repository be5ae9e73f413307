"""Asking: a question, what the memory holds for it, a model's answer, and where that rests."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, overload

from ...embed import BUILTIN, DEFAULT_MODEL
from ...errors import InvalidInput, MemoryGraphError, NodeNotFound
from ...index._words import Words
from ...nodes import CITES, FACT, FRAGMENT, MEMORY, OBSERVATION, PROMPT, RESPONSE, Link, Recorded
from ...records import checked_count, checked_text, interaction, shown
from ..models.errors import ClientError, ContextExceeded
from ..models.open_client import open_client
from .answer import Answer, AnswerStream
from .citing import Citation, Marker, Markers, verified
from .prompting import UNKNOWN, Prompt, Room, assembled
from .querying import Query, Turn, earlier, synthesised
from .sources import Source, from_documents, from_hits

if TYPE_CHECKING:
    from ...memory_graph import MemoryGraph
    from ..models.interface import ChatClient, Reply

__all__ = ["KINDS", "RECORDED_BY", "ask", "limits_of"]

KINDS = (FRAGMENT, PROMPT, RESPONSE, FACT, MEMORY, OBSERVATION)
"""What answers may rest on: documents, what was said, facts, and what was put by other doors."""

RECORDED_BY = "ask"  # the attribute `recorded_by` of what a model made here, which is no evidence
NOTHING, MODEL = "nothing supports it", "the model"

# What tells a text about the question from one that only looks like it. The builtin model sees likeness everywhere;
# of others nobody knows where it begins, and the words decide. Rather too much passes than too little: the model may
# still say that it does not know. docs/how-to/ask-your-documents.md says how to choose.
_COVERAGE = 0.5
_SIMILARITY = {BUILTIN: 0.65, DEFAULT_MODEL: 0.4}
_MORE = 16  # hits to look at beside those wanted, of which some may be earlier questions
_TRIES = 3  # at a prompt that was estimated and is too long
_NEAREST = 3  # texts named in a refusal

_log = logging.getLogger("raeburnmemory")


@overload
def ask(
    memory: MemoryGraph, question: str, client: Any, *, stream: Literal[False] = False, **options: Any
) -> Answer: ...
@overload
def ask(memory: MemoryGraph, question: str, client: Any, *, stream: Literal[True], **options: Any) -> AnswerStream: ...
def ask(
    memory: MemoryGraph,
    question: str,
    client: Any,
    *,
    session_id: str | None = None,
    k: int = 8,
    kinds: str | Sequence[str] | None = KINDS,
    retriever: Any = None,
    history: Sequence[tuple[str, str]] | None = None,
    namespace: str | None = None,
    min_similarity: float | None = None,
    min_coverage: float | None = None,
    rewrite: bool = True,
    record: bool = True,
    agent: Any = None,
    metadata: Mapping[str, Any] | None = None,
    stream: bool = False,
    on_token: Callable[[str], Any] | None = None,
    max_tokens: int = 512,
    context: int | None = None,
    tokenizer: Any = None,
    model: str | None = None,
    api_key: str | None = None,
    instructions: str | None = None,
    params: Mapping[str, Any] | None = None,
    **search: Any,
) -> Answer | AnswerStream:
    """Answer *question* from what *memory* holds, with citations; say so if it holds nothing.

    *client* is whatever `open_client` takes: a `ModelClient`, `"openai:URL"`, an `openai.OpenAI` or a chat model of
    LangChain; *model*, *api_key* and *tokenizer* are for that. With *session_id*, or with a *history* of role and text,
    a question may lean on what was said before: the model makes it one that stands by itself, unless *rewrite* is
    false.

    *k*, *kinds* and *search* are as in `MemoryGraph.recall`; a *retriever* of LangChain searches instead of it.
    Exchanges that were recorded here are no evidence. A text supports an answer if it has *min_coverage* of the
    question's words or *min_similarity* to it; if none does, the answer says what was looked at, and the model is not
    asked. The defaults are 0.5, and for the similarity 0.65 with the builtin model, 0.4 with all-MiniLM-L6-v2, and none
    with others. What a retriever found that tells no similarity supports an answer.

    The prompt takes what the model's context has room for besides *max_tokens* of answer; *context* is that context
    where the client does not know it (else 4096 is assumed). *instructions* are added to the rules, *params* go to the
    model as they are. *on_token* is called with each piece of the answer; with *stream* an `AnswerStream` is returned.
    Numbers of sources that the model makes up never come through.

    Unless *record* is false the exchange is recorded as an interaction of *agent* (the model) with *metadata*, and its
    response has a link `cites` to each node that it cites.

    Raises:
        ClientError: The model refuses, or answers with something else; nothing is recorded.
        ContextExceeded: There is no room for any source.
        InvalidInput: An argument cannot be understood.
        NotRunning: The model cannot be reached.
    """
    checked_text(question, "a question")
    if not question.strip():
        raise InvalidInput("The question is empty. Pass one.")
    checked_count(k, "the number of hits")
    for value, what in ((min_similarity, "min_similarity"), (min_coverage, "min_coverage")):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1
        ):
            raise InvalidInput(f"{what} must be a number from 0 to 1, not {shown(value)}.")
    if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
        raise InvalidInput(f"max_tokens must be a number of tokens, at least 1, not {shown(max_tokens)}.")
    if namespace is not None and namespace != memory.namespace:
        memory = memory.within(namespace)
    if record and memory.read_only:
        raise InvalidInput("The memory was opened for reading, so that nothing can be recorded. Pass record=False.")
    opened = open_client(client, api_key=api_key, model=model, tokenizer=tokenizer)
    with contextlib.ExitStack() as held:
        if isinstance(client, str):  # what was opened here is closed here
            held.callback(opened.close)
        asking = _Asking(
            memory,
            question.strip(),
            opened,
            session_id=session_id,
            record=record,
            agent=agent,
            metadata=dict(metadata or {}),
            params=dict(params or {}),
            instructions=instructions,
            limits=(min_similarity, min_coverage),
        )
        asking.history = earlier(memory, session_id) if history is None else [Turn(*turn) for turn in history]
        if rewrite:
            asking.query = synthesised(asking.question, asking.history, opened, asking.words, **asking.sent(128))
        if retriever is None:
            asking.look(k, kinds, search)
        else:
            asking.retrieve(retriever, k, search)
        room = None
        if asking.supported():
            room = Room(opened, context=context, max_tokens=max_tokens, tokenizer=tokenizer)
            asking.prepare(room)
        done: list[Answer] = []
        kept = held.pop_all()
        pieces = _heard(asking.pieces(room, done), on_token, kept)
    if stream:
        return AnswerStream(pieces, done, asking.query.text, asking.found, kept, asking.stop)
    for _ in pieces:
        pass
    return done[0]


def _heard(
    pieces: Generator[str, None, None], on_token: Callable[[str], Any] | None, held: contextlib.ExitStack
) -> Generator[str, None, None]:
    with held, contextlib.closing(pieces):
        for piece in pieces:
            if on_token is not None:
                on_token(piece)
            yield piece


@dataclass
class _Asking:
    """One question on its way."""

    memory: MemoryGraph
    question: str
    client: ChatClient
    session_id: str | None
    record: bool
    agent: Any
    metadata: dict[str, Any]
    params: dict[str, Any]
    instructions: str | None
    limits: tuple[float | None, float | None]
    history: list[Turn] = field(default_factory=list)
    query: Query = field(init=False)
    found: tuple[Source, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    trusted: bool = False  # what a retriever found that says nothing of how near it is
    prompt: Prompt | None = None
    merged: bool = False  # the model's template knows no role `system`
    stopped: threading.Event = field(default_factory=threading.Event)
    speaking: Any = None  # the stream of the model, once it is asked

    def __post_init__(self) -> None:
        self.query = Query(self.question, "question")
        self.words = Words(self.memory._language)  # noqa: SLF001 - the words of the memory's own search

    def sent(self, most: int) -> dict[str, Any]:
        """Return the parameters of a call: *most* tokens, unless somebody else has set how the model speaks."""
        own = getattr(self.client, "own_settings", False)
        return self.params if own else {"max_tokens": most, "temperature": 0, **self.params}

    # --- searching ----------------------------------------------------------------------------------------------

    def look(self, k: int, kinds: Any, search: dict[str, Any]) -> None:
        """Search the memory, for anything but what was recorded here before."""
        hits = self.memory.recall(self.query.text, k + _MORE, kinds=kinds, **search)
        told = [hit for hit in hits if "recorded_by" not in hit.node.attributes]
        if len(told) < k and len(hits) == k + _MORE:  # many questions like this one were asked before
            others = {"recorded_by": {"exists": False}}
            where = search.pop("where", None)
            hits = self.memory.recall(
                self.query.text, k, kinds=kinds, where={"and": [where, others]} if where else others, **search
            )
            told = list(hits)
        self.found = tuple(from_hits(told[:k]))
        self.skipped = hits.skipped

    def retrieve(self, retriever: Any, k: int, search: dict[str, Any]) -> None:
        """Let a retriever of LangChain search."""
        if not callable(getattr(retriever, "invoke", None)):
            raise InvalidInput(f"{shown(retriever)} is no retriever of LangChain: it has no invoke().")
        documents = retriever.invoke(self.query.text, **search)
        self.found = tuple(from_documents(self.memory, documents, self.query.text, self.words)[:k])
        given = any(limit is not None for limit in self.limits)
        self.trusted = not given and all(source.similarity is None for source in self.found)

    def supported(self) -> bool:
        """Tell whether anything that was found may answer the question."""
        if self.trusted:
            return bool(self.found)
        similarity, coverage = self.limits
        if similarity is None and coverage is None:
            similarity, coverage = limits_of(self.memory)
        return any(
            (similarity is not None and source.similarity is not None and source.similarity >= similarity)
            or (coverage is not None and source.coverage is not None and source.coverage >= coverage)
            for source in self.found
        )

    # --- asking the model ---------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Let the model stop, from any thread."""
        self.stopped.set()
        if (stop := getattr(self.speaking, "stop", None)) is not None:
            stop()

    def prepare(self, room: Room) -> None:
        """Make the prompt; a model whose template knows no role `system` gets one message."""
        try:
            self._prepare(room)
        except ClientError as exc:
            if self.merged or not _takes_no_system(exc):
                raise
            self.merged = True
            self._prepare(room)

    def _prepare(self, room: Room) -> None:
        self.prompt = assembled(
            self.question, self.query.text, self.found, room, instructions=self.instructions, merged=self.merged
        )

    def pieces(self, room: Room | None, done: list[Answer]) -> Generator[str, None, None]:
        """Yield the answer as it comes; at its end, put it into *done*."""
        if room is None or self.prompt is None:
            answer = self._refusal()
            done.append(self._recorded(answer))
            yield answer.text
            return
        markers = Markers([source.number for source in self.prompt.sources])
        reply: Reply | None = None
        try:
            for attempt in range(_TRIES):
                markers = Markers([source.number for source in self.prompt.sources])
                try:
                    with self.client.stream_chat(self.prompt.messages, **self.sent(self.prompt.answer)) as stream:
                        self.speaking = stream
                        if self.stopped.is_set():  # by whoever looked for the stream before it was there
                            break
                        for piece in stream:
                            if settled := markers.feed(piece):
                                yield settled
                            if self.stopped.is_set():
                                break
                        reply = stream.reply
                    break
                except ContextExceeded as exc:  # the tokens were estimated, or somebody else's count
                    if attempt + 1 == _TRIES or len(self.prompt.sources) < 2 or markers.text:
                        raise
                    share = max(exc.room - room.answer, 0) / exc.need if exc.need and exc.room else 0.75
                    room.prompt = int(self.prompt.tokens * min(share, 0.9))
                    self.prepare(room)
                except ClientError as exc:
                    if self.merged or not _takes_no_system(exc):
                        raise
                    self.merged = True
                    self._prepare(room)
            if self.stopped.is_set():
                self._broken_off(markers)
                return
            if rest := markers.end():
                yield rest
        except GeneratorExit:
            self._broken_off(markers)
            raise
        assert reply is not None
        done.append(self._recorded(self._answer(markers, reply)))

    def _broken_off(self, markers: Markers) -> None:
        """Record what a model had said when it was stopped."""
        if self.record and markers.text:
            with contextlib.suppress(MemoryGraphError):
                self._write(markers.text, [], cancelled=True)

    # --- the answer ---------------------------------------------------------------------------------------------

    def _refusal(self) -> Answer:
        seen = [source.title + _nearness(source) for source in self.found[:_NEAREST]]
        looked = f"nothing was found for {self.query.text!r}" if not seen else (
            f"nothing found for {self.query.text!r} supports an answer. Looked at {len(self.found)} "
            f"text{'s' if len(self.found) > 1 else ''}, the nearest: {'; '.join(seen)}"
        )  # fmt: skip
        return Answer(
            self.question,
            f"I don't know: {looked}.",
            self.query.text,
            self.query.source,
            looked_at=self.found,
            refused=True,
            reason=NOTHING,
            tokens={"prompt": 0, "completion": 0},
            skipped=self.skipped,
        )

    def _answer(self, markers: Markers, reply: Reply) -> Answer:
        assert self.prompt is not None
        sources = self.prompt.sources
        ids = [source.id for source in sources if source.id is not None]
        stored = {node.id: node.text for node in self.memory.get_many(ids)}
        citations, problems, false = verified(markers.text, markers.found, sources, stored, self.words)
        text = _without(markers.text, false).strip()
        refused = text.replace("\u2019", "'").lstrip("\"'*").casefold().startswith(UNKNOWN.rstrip(".").casefold())
        if markers.invented:
            names = ", ".join(f"[{number}]" for number in dict.fromkeys(markers.invented))
            problems.append(f"The model cited sources that there are not: {names}. They were removed.")
        if not refused and not citations:
            problems.append("The answer cites nothing.")
        if reply.finish_reason == "length":
            problems.append("The answer was cut at max_tokens.")
        prompt_tokens = int(self.prompt.tokens) if reply.prompt_tokens is None else reply.prompt_tokens
        return Answer(
            self.question,
            text,
            self.query.text,
            self.query.source,
            tuple(citations),
            sources,
            self.found,
            refused,
            MODEL if refused else None,
            tuple(dict.fromkeys(markers.invented)),
            tuple(problems),
            {"prompt": prompt_tokens, "completion": reply.completion_tokens},
            self.prompt.tokens.estimated,
            reply.finish_reason,
            reply.model or self.client.name,
            None,
            self.skipped,
        )

    # --- recording ----------------------------------------------------------------------------------------------

    def _recorded(self, answer: Answer) -> Answer:
        if not self.record:
            return answer
        recorded = self._write(
            answer.text, answer.citations, refused=answer.refused or None, problems=list(answer.problems) or None,
            model=answer.model, query=None if answer.query == answer.question else answer.query,
        )  # fmt: skip
        return replace(answer, recorded=recorded)

    def _write(self, text: str, citations: Sequence[Citation], **about: Any) -> Recorded:
        """Write the exchange and its links in one transaction."""
        told = {name: value for name, value in about.items() if value is not None}
        model = str(told.get("model") or self.client.name)
        made = interaction(
            {"text": self.question},
            {"text": text or "(nothing)"},
            self.agent if self.agent is not None or self.prompt is None else {"id": model, "name": model},
            self.session_id,
            namespace=self.memory.namespace,
            metadata={**self.metadata, **told, "recorded_by": RECORDED_BY},
        )
        by_node: dict[str, list[Citation]] = {}
        for citation in citations:
            if citation.id is not None:
                by_node.setdefault(citation.id, []).append(citation)
        while True:
            links = [
                Link(str(made.ids.response), node_id, CITES, {"citations": [_kept(one) for one in some]})
                for node_id, some in by_node.items()
            ]
            try:
                self.memory.put(made.nodes, [*made.links, *links])
            except NodeNotFound:
                there = {node.id for node in self.memory.get_many(list(by_node))}
                if there >= set(by_node):
                    raise
                by_node = {node_id: some for node_id, some in by_node.items() if node_id in there}
                _log.warning("A source of an answer is gone since it was read; the answer is recorded without it.")
            else:
                return made.ids


def limits_of(memory: MemoryGraph) -> tuple[float | None, float]:
    """Return the similarity and the coverage from which on a text of *memory* has to do with a question."""
    return _SIMILARITY.get((memory.stats().embedder or "").rpartition("/")[2]), _COVERAGE


def _kept(citation: Citation) -> dict[str, Any]:
    """Return what a link keeps of a citation."""
    told = citation.to_dict()
    return {name: told[name] for name in ("number", "claim", "quote", "lines", "pages", "start", "end", "verified")}


def _nearness(source: Source) -> str:
    parts = [
        f"{name} {value:.2f}"
        for name, value in (("similarity", source.similarity), ("coverage", source.coverage))
        if value is not None
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _without(text: str, markers: Sequence[Marker]) -> str:
    """Return *text* without some of its markers, nor the space before them."""
    for marker in sorted(markers, key=lambda marker: -marker.at):
        text = text[: marker.at].rstrip(" ") + text[marker.at + len(f"[{marker.number}]") :]
    return text


def _takes_no_system(exc: ClientError) -> bool:
    """Tell whether a model's template knows no role `system`, as those of some families do not."""
    words = str(exc).lower()
    return exc.status in {400, 500} and "system" in words and "role" in words
