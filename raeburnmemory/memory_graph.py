"""`MemoryGraph`: prompts, responses, agents and sessions in a graph that is kept safe and found again."""

from __future__ import annotations

import contextlib
import logging
import os
import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ._collector import no_collections
from .dense import UNNAMED, Dense
from .documents import Documents
from .erasure import forget_for_good
from .errors import InvalidInput, MemoryGraphError
from .export import export
from .facts import Facts, said
from .graph_view import GraphView
from .hits import Hits
from .index import index_maker
from .items import Items
from .linking import link_similar
from .nodes import (
    DEFAULT_NAMESPACE,
    PROMPT,
    Agent,
    Edge,
    Explanation,
    Forgotten,
    Link,
    Node,
    Prompt,
    Recorded,
    Reindexed,
    Response,
    Session,
    Stats,
    Trace,
)
from .provenance import trace, why
from .ranking import Weights
from .reader import Reader
from .recall import Recall, Wanted
from .records import (
    checked_count,
    checked_data,
    checked_id,
    checked_ids,
    checked_text,
    conversation,
    interaction,
    message,
    new_id,
    several,
    shown,
    stated,
    utc,
)
from .store import default_path, open_store, store_exists
from .writer import Chosen, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from .context import Context
    from .doctor import Copied
    from .embed import Embedder
    from .evaluate import Evaluation
    from .index import VectorIndex
    from .live_graph import LiveGraph
    from .nodes import Change
    from .picture import Picture
    from .store import Durability, Store
    from .store.sqlite_vectors import VectorFormat
    from .tune import Tuning

__all__ = ["Agent", "Edge", "MemoryGraph", "Prompt", "Response", "Session"]

_log = logging.getLogger("raeburnmemory")
_NOTHING = contextlib.nullcontext()


class MemoryGraph:
    """A memory of what was said, by whom and when, in one file or a few.

    *db_path* is a file (`.db`, `.sqlite`, `.sqlite3`: SQLite; else JSON), the URL of a PostgreSQL database, or
    `":memory:"`; without it `~/.raeburnbrain/graph.json`. What an existing file holds decides over its name. Several
    processes may have the same memory open; each sees what the others wrote at its next call.

    *embedding_model* names the model that turns texts into vectors: a name, a folder, `"builtin"` or None for the
    one that comes with this package, or an object that embeds. `RAEBURN_EMBED_MODEL` wins over it. A memory that
    holds vectors keeps to their model; `reembed` moves it to another.

    *namespace* keeps memories in one store apart: every call reads and writes only its own. *timeout* is how many
    seconds a write waits for other writers. *vector_backend* is `"faiss"` (the default where it is installed),
    `"exact"`, `"pgvector"` (with PostgreSQL, and the default there), `"qdrant"` or a function from a dimension to an
    empty index. *qdrant_url* is where Qdrant keeps vectors: `":memory:"`, a folder, or the URL of a server; pass a
    `raeburnmemory.index.qdrant.Qdrant` to say more. *language* is that of the texts, for finding words in other forms:
    the name of a Snowball stemmer such as `"german"`, or `"none"` for words as they are. *durability* is what a change
    has survived once its call returns: `"full"` a power cut, `"process"` the end of the process however it comes, which
    costs no sync; a power cut may then take the newest changes, and never leaves half of one. *vector_format* is how a
    new SQLite memory writes vectors: `"float32"`, or `"pgvector"` in the binary form of the package pgvector.

    Raises:
        EmbedderMismatch: The memory holds vectors of another model than the one named.
        IndexUnavailable: Another process uses the folder in which Qdrant is to keep vectors.
        MissingDependency: The model or backend that was named is not installed.
        StoreError: The files cannot be used; see `raeburnmemory.errors`.

    >>> with MemoryGraph(":memory:", embedding_model="builtin") as memory:
    ...     _ = memory.add_interaction({"id": "p1", "text": "How do I reset my password?"}, "On the account page.")
    ...     memory.get_similar_prompts("password reset")
    ['p1']
    """

    _whole: MemoryGraph  # of another namespace: the memory that must stay open

    def __init__(
        self,
        db_path: str | os.PathLike[str] | None = None,
        embedding_model: Any = UNNAMED,
        storage_backend: str | None = None,
        vector_backend: Any = None,
        qdrant_url: str = ":memory:",
        *,
        namespace: str = DEFAULT_NAMESPACE,
        read_only: bool = False,
        timeout: float = 30.0,
        language: str = "english",
        durability: Durability = "full",
        vector_format: VectorFormat | None = None,
    ) -> None:
        checked_id(namespace, "a namespace")
        self.qdrant_url = qdrant_url
        _checked_timeout(timeout)
        location = default_path(storage_backend) if db_path is None else db_path
        fresh = not store_exists(location, storage_backend)
        # Whoever names a model wants that one: without it, no store is made that would then hold another's vectors.
        embedder = Dense.named(embedding_model) if fresh and not read_only else None
        # For its errors, before there is a file.
        index = vector_backend if callable(vector_backend) else index_maker(vector_backend, qdrant_url, location)
        with contextlib.ExitStack() as undo:
            if hasattr(index, "connected"):
                index = index.connected()
                undo.callback(index.close)
            store = open_store(
                location,
                storage_backend,
                read_only=read_only,
                timeout=timeout,
                durability=durability,
                vector_format=vector_format,
                language=language,
            )
            undo.callback(store.close)
            self._store: Store = store
            self._dense = Dense(store, embedding_model, index, embedder)
            self._look_at(namespace, language)
            undo.pop_all()
        self.weights = Weights()
        self._closes: tuple[Any, ...] = (self._dense, self._recall, store)
        self._finalizer = weakref.finalize(self, _finish_forgotten, *self._closes)

    def _look_at(self, namespace: str, language: str) -> None:
        store = self._store
        self.namespace, self._language = namespace, language
        self._recall = Recall(store, self._dense, namespace, language)
        self._writer = Writer(store, self._dense, namespace)
        self._facts = Facts(store, self._writer, namespace)
        self._reader = Reader(store, self._dense, namespace)
        self._view = GraphView(store, self._writer, namespace)

    def __repr__(self) -> str:
        scope = "" if self.namespace == DEFAULT_NAMESPACE else f", namespace={self.namespace!r}"
        return f"MemoryGraph({self.db_path!r}{scope})"

    def _repr_html_(self) -> str:
        from .picture.tables import memory_card

        return memory_card(self)

    # --- what it is made of -------------------------------------------------------------------------------------

    @property
    def db_path(self) -> str:
        """The file that holds the memory, the URL without its password, or `":memory:"`."""
        return self._store.location

    @property
    def storage_backend(self) -> str:
        """`"json"`, `"sqlite"`, `"postgres"` or `"memory"`."""
        return self._store.name

    @property
    def vector_backend(self) -> str:
        """The name of the index: `"faiss"`, `"exact"`, `"pgvector"` or `"qdrant"`, or that of a function making one."""
        return self._dense.index_name

    @property
    def vector_index(self) -> VectorIndex:
        """The index over the vectors of the prompts of all namespaces; `ntotal` counts them."""
        return self._dense.index(PROMPT)

    @property
    def model(self) -> Embedder:
        """The embedder of this memory, loaded now if it was not yet."""
        return self._dense.embedder()

    @property
    def read_only(self) -> bool:
        """Whether it was opened for reading."""
        return self._store.read_only

    def within(self, namespace: str) -> MemoryGraph:
        """Return another namespace of this memory, which shares its store, model and index.

        It is good until this memory is closed, and need not be closed itself.
        """
        other = object.__new__(type(self))
        other.qdrant_url, other.weights = self.qdrant_url, self.weights
        other._whole = self  # which is closed when nobody holds it any more
        other._store, other._dense = self._store, self._dense
        other._look_at(checked_id(namespace, "a namespace"), self._language)
        other._closes = (other._recall,)
        other._finalizer = weakref.finalize(other, _finish_forgotten, *other._closes)
        return other

    # --- adding -------------------------------------------------------------------------------------------------

    def add_interaction(
        self,
        prompt: Prompt | Mapping[str, Any] | str,
        response: Response | Mapping[str, Any] | str | None = None,
        agent: Agent | Mapping[str, Any] | str | None = None,
        session_id: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        timestamp: Any = None,
        vector: Any = None,
        allow_unembedded: bool = False,
    ) -> Recorded:
        """Record a prompt, its response, who gave it and the session it belongs to; it is on disk on return.

        Texts, dicts and dataclasses will do; unknown keys of dicts are kept as attributes. Ids that are missing are
        made, sortable by time. A node that is there already under its id is replaced if it differs, and keeps its
        first timestamp. *metadata* becomes attributes of prompt and response, *timestamp* (datetime, ISO 8601 or
        seconds since 1970; UTC) is when it was said, *vector* the prompt's vector, made by the memory's model.

        Raises:
            InvalidInput: Something cannot be stored, or an id belongs to another kind of node.
            MissingDependency: The memory's model cannot be loaded; with *allow_unembedded* it is recorded all the
                same, and `reindex` makes the vector later.
        """
        record = interaction(
            prompt,
            response,
            agent,
            session_id,
            namespace=self.namespace,
            metadata=metadata,
            timestamp=timestamp,
            vector=vector,
        )
        self._writer.record([record], allow_unembedded=allow_unembedded)
        return record.ids

    async def add_interaction_async(self, *args: Any, **kwargs: Any) -> Recorded:
        """Do what `add_interaction` does in a thread. Cancelled, it is recorded whole or not at all."""
        import asyncio

        return await asyncio.to_thread(self.add_interaction, *args, **kwargs)

    def add_many(
        self,
        interactions: Iterable[Mapping[str, Any] | Sequence[Any]],
        *,
        progress: Callable[[int, int], Any] | None = None,
        allow_unembedded: bool = False,
    ) -> list[Recorded]:
        """Record many interactions in one transaction: all of them or, if anything is wrong, none.

        Each is a dict of the arguments of `add_interaction` or a tuple of its first four. *progress* is called with
        the number of texts, and passages of long ones, embedded so far and of all.
        """
        return self._writer.record_many(
            lambda: several(interactions, self.namespace), allow_unembedded=allow_unembedded, progress=progress
        )

    async def batch_add(self, interactions: Iterable[Sequence[Any]]) -> list[Recorded]:
        """Do what `add_many` does in a thread, for tuples of prompt, response, agent and session id."""
        import asyncio

        return await asyncio.to_thread(self.add_many, list(interactions))

    def add_message(
        self,
        text: str,
        role: str = "user",
        session_id: str | None = None,
        *,
        name: str | None = None,
        id: str | None = None,  # noqa: A002
        timestamp: Any = None,
        metadata: Mapping[str, Any] | None = None,
        vector: Any = None,
        allow_unembedded: bool = False,
    ) -> Recorded:
        """Record one message of a chat: *role* is `"user"`, `"assistant"`, `"system"` or `"tool"`.

        A user's message is a prompt, an assistant's a response to the last prompt of the session; *name* is who
        spoke. The rest is as in `add_interaction`.
        """
        if session_id is not None:
            checked_id(session_id, "a session's id")
        if id is not None:
            checked_id(id, "an id")
        # What an assistant's message answers must still be the last prompt when it is written.
        with self._store.exclusive() if role == "assistant" else _NOTHING:
            record = message(
                text,
                role,
                session_id,
                self._writer.answered_by(session_id, id) if role == "assistant" else None,
                namespace=self.namespace,
                name=name,
                id=id,
                timestamp=timestamp,
                metadata=metadata,
                vector=vector,
            )
            self._writer.record([record], allow_unembedded=allow_unembedded)
        return record.ids

    def add_messages(
        self,
        messages: Iterable[Mapping[str, Any]],
        session_id: str | None = None,
        *,
        progress: Callable[[int, int], Any] | None = None,
        allow_unembedded: bool = False,
    ) -> list[Recorded]:
        """Record many messages in one transaction: all of them or, if anything is wrong, none.

        Each is a dict of the arguments of `add_message`, in the order in which they were said; *session_id* is that of
        those that name none. *progress* is as in `add_many`.
        """
        if isinstance(messages, (str, Mapping)) or not isinstance(messages, Iterable):
            raise InvalidInput(f"The messages must be a list of dicts, not {shown(messages)}.")
        given = []
        for number, one in enumerate(messages):
            if not isinstance(one, Mapping):
                raise InvalidInput(f"Message {number} must be a dict of the arguments of add_message: {shown(one)}.")
            given.append({**one, "id": new_id() if one.get("id") is None else one["id"]})
        with no_collections():
            records = self._writer.converse(
                lambda: conversation(given, session_id, self._writer.answered_by, self.namespace),
                allow_unembedded=allow_unembedded,
                progress=progress,
            )
        return [record.ids for record in records]

    def record(
        self,
        function: Any = None,
        /,
        *,
        prompt: str | None = None,
        argument: str | None = None,
        session_id: Any = None,
        agent: Any = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Any:
        """Record what goes into a function and what comes out, or what a block says; see `raeburnmemory.recording`.

        As a decorator, `@memory.record` or `@memory.record(…)`, it goes around functions, coroutines and generators of
        both kinds: the first text among the arguments, or the one called *argument*, is the prompt, what is returned
        or yielded the response, an error its `error`. *session_id* may be a function of the dict of arguments.
        As a context manager it gives a `raeburnmemory.recording.Turn`, of which the block sets prompt and response.
        What cannot be recorded is logged and counted, and never stops the call.

        Raises:
            InvalidInput: *function* is none, or has no such argument.
        """
        from .recording import recording

        return recording(
            self, function, prompt=prompt, argument=argument, session_id=session_id, agent=agent, metadata=metadata
        )

    def wrap(
        self,
        client: Any,
        *,
        session_id: Any = None,
        agent: Any = None,
        context: int | Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return a copy of an OpenAI client that records every chat call; see `raeburnmemory.recording.wrap`.

        *session_id* is a session, or a function that names the one of a call. With *context*, a number of tokens or a
        dict of arguments of `context`, what the memory holds for a question goes along with it.

        Raises:
            InvalidInput: It is no such client, or an argument cannot be understood.
        """
        from .recording import wrap

        return wrap(self, client, session_id=session_id, agent=agent, context=context, metadata=metadata)

    def put(
        self,
        nodes: Iterable[Node | Mapping[str, Any]],
        links: Iterable[Link | Sequence[str]] = (),
        *,
        vectors: Mapping[str, Any] | None = None,
        progress: Callable[[int, int], Any] | None = None,
        allow_unembedded: bool = False,
    ) -> list[str]:
        """Write nodes of any kind, and links between nodes, in one transaction; return the ids of those that are new.

        Nodes are `Node` or dicts as `Node.to_dict` makes them, links are `Link` or tuples of source, target and
        relation. A node that is there already under its id is replaced if it differs, in text, attributes or the time
        at which it expires, and keeps its first timestamp; of agents and sessions only what is named is. *vectors* are
        those of some nodes by their ids, made by the memory's model. The rest is as in `add_many`.

        For documents and other things that bring ids of their own see `raeburnmemory.nodes.collected_id`.

        Raises:
            InvalidInput: Something cannot be stored.
            KindConflict: An id belongs to another kind of node.
            NodeNotFound: One end of a link does not exist.
        """
        record = stated(nodes, links, vectors, self.namespace)
        return self._writer.put(record, allow_unembedded=allow_unembedded, progress=progress)

    def change(self, plan: Callable[[], Change], *, allow_unembedded: bool = False) -> Change:
        """Write and remove what *plan* says, in one transaction; return the change that was made.

        *plan* reads this memory and returns a `raeburnmemory.nodes.Change`. It is called while nobody else writes, so
        that what it read still holds, and once before, so that nobody waits while texts are embedded: it must read
        everything anew each time, and change nothing itself. If it raises, nothing is changed.

        Raises:
            InvalidInput: Something cannot be stored.
            KindConflict: An id belongs to another kind of node.
            NodeNotFound: One end of a link does not exist.
        """
        return self._writer.change(plan, allow_unembedded=allow_unembedded)

    def link(self, source: str, target: str, relation: str, **data: Any) -> None:
        """Add an edge between two nodes, with *data*; one that is there gets the new data.

        Raises:
            NodeNotFound: One of the two does not exist.
        """
        self._writer.link(source, target, relation, data)

    def unlink(self, source: str, target: str, relation: str | None = None) -> int:
        """Remove the edge called *relation*, or all from *source* to *target*; return how many there were."""
        return self._writer.unlink(source, target, relation)

    def update(
        self,
        node_id: str,
        *,
        text: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        remove: Sequence[str] = (),
        allow_unembedded: bool = False,
    ) -> Node:
        """Give a node another text (and vector), set attributes from *metadata*, and drop those named in *remove*.

        A text that stays, under the same name of a speaker, keeps its vectors, those brought along too.

        Raises:
            NodeNotFound: There is no such node.
        """
        return self._writer.update(node_id, text, metadata, remove, allow_unembedded=allow_unembedded)

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        """Keep all other writers, in any thread or process, out of a block that reads and then writes; reentrant.

        Each call in the block writes what it writes for itself: an error in the block undoes none of them.
        """
        return self._store.exclusive()

    def forget(
        self,
        ids: str | Iterable[str] | None = None,
        *,
        session: str | None = None,
        agent: str | None = None,
        before: Any = None,
        where: Mapping[str, Any] | None = None,
        secure: bool = False,
        backups: bool = False,
    ) -> Forgotten:
        """Remove nodes with their texts, vectors, edges and history, and report what went.

        *ids* names nodes; *session* means its prompts and their responses; *agent* its responses, and the prompts
        that nobody else answered; *before* what is older than a time; *where* is a condition on attributes as in
        `recall`. With several, only what all of them mean. The fragments of a document go with it, and sessions that
        this leaves empty; agents stay, and so do facts that were derived from it.

        With *secure* also what was derived from it, cites it or is a part of it, and all of it from every file of the
        store: these are written anew, older copies beside them included. Copies that cannot be read are deleted with
        *backups*. It takes as long as copying the whole store; called for what is gone already, it does the rest.

        Raises:
            ErasureIncomplete: With *secure*: copies that cannot be read may still hold it, or Qdrant, which cannot be
                reached. All else is done.
            InvalidInput: Nothing was given, or a condition that all meet: to forget everything, delete the file.
            LockTimeout: With *secure*: somebody goes on reading what was there before.
        """
        if ids is None and session is None and agent is None and before is None and where in (None, {}):
            raise InvalidInput("forget() needs ids, session, agent, before or where. To forget all, delete the file.")
        if backups and not secure:
            raise InvalidInput("backups=True says what to do with copies, which only secure=True looks at. Pass both.")
        chosen = Chosen(
            None if ids is None else checked_ids(ids, "an id"),
            None if session is None else checked_id(session, "a session's id"),
            None if agent is None else checked_id(agent, "an agent's id"),
            None if before is None else utc(before),
            None if where is None else checked_data(where, "where"),
        )
        if not secure:
            return self._writer.forget(chosen)
        try:
            return forget_for_good(
                self._store, self._writer, self._dense, self.namespace, chosen, backups=bool(backups)
            )
        finally:
            self._view.refresh()

    # --- facts --------------------------------------------------------------------------------------------------

    def fact(
        self,
        subject: str,
        predicate: str,
        object: str,  # noqa: A002
        *,
        valid_from: Any = None,
        valid_to: Any = None,
        source: str | Iterable[str] | None = None,
        id: str | None = None,  # noqa: A002
        timestamp: Any = None,
        metadata: Mapping[str, Any] | None = None,
        allow_unembedded: bool = False,
    ) -> Node:
        """Record that something holds, such as `fact("Ana", "lives_in", "Vienna")`, and return it as a node.

        It holds from *valid_from* (inclusive; else from *timestamp*, when it was said, which is now if left out) until
        *valid_to* (exclusive; open if left out). *source* names the nodes it was taken from, *id* the fact if it is
        new, *metadata* more attributes for it. Of a predicate declared with `single_valued`, it takes the place of
        the fact that held at its *valid_from*, and itself ends where a later one begins.

        Said again without another time, while it holds, it is the same fact: it gets its new sources, and nothing
        else changes. Subjects and predicates are the same whatever their case, white space and underscores.

        Raises:
            InvalidInput: Something cannot be stored, or *id* belongs to another fact.
            KindConflict: *id* belongs to another kind of node.
            NodeNotFound: A source does not exist.
        """
        statement = said(
            (subject, predicate, object),
            namespace=self.namespace,
            valid_from=valid_from,
            valid_to=valid_to,
            source=source,
            fact_id=id,
            timestamp=timestamp,
            metadata=metadata,
        )
        return self._facts.record(statement, allow_unembedded=allow_unembedded)

    def facts(
        self,
        subject: str | None = None,
        predicate: str | None = None,
        object: str | None = None,  # noqa: A002
        *,
        as_of: Any = None,
        include_superseded: bool = False,
    ) -> list[Node]:
        """Return the facts that hold at *as_of* (now, if left out), in the order in which they became valid.

        *subject*, *predicate* and *object* choose among them. With *include_superseded* those come too that had
        ended by then: superseded, retracted or over.
        """
        return self._facts.read(subject, predicate, object, as_of=as_of, include_superseded=include_superseded)

    def retract(self, fact_id: str, at: Any = None, *, allow_unembedded: bool = False) -> Node:
        """Let a fact hold until *at* (now, if left out) and no longer; return it.

        Raises:
            InvalidInput: It begins after that, or ended before.
            NodeNotFound: There is no such fact.
        """
        return self._facts.retract(fact_id, at, allow_unembedded=allow_unembedded)

    def undo(self, fact_id: str | None = None, *, allow_unembedded: bool = False) -> Node:
        """Take back a fact as if it had never been said, and return it: what it superseded holds again.

        Without an id, the last `fact` call of this object that changed something is taken back, and then the one
        before it: the fact that it made, or the sources that it added.

        Raises:
            InvalidInput: Other nodes were derived from the fact, or there is no call to take back.
            NodeNotFound: There is no such fact.
        """
        return self._facts.undo(fact_id, allow_unembedded=allow_unembedded)

    def single_valued(
        self,
        predicate: str | Iterable[str] | None = None,
        *,
        withdraw: bool = False,
        allow_unembedded: bool = False,
    ) -> list[str]:
        """Declare that a subject has one value of *predicate* at a time; return all predicates declared so.

        The declaration is kept in the memory, for this namespace, and applies to the facts that are there, too.
        With *withdraw* it is taken back, and facts that others had superseded hold again as they were stated.
        Without *predicate* nothing changes.

        Raises:
            InvalidInput: What is to be withdrawn is not declared.
        """
        return self._facts.single_valued(predicate, withdraw=withdraw, allow_unembedded=allow_unembedded)

    def why(self, node_id: str) -> Explanation:
        """Explain one node: what it is, who said it, when, in which session, what it was derived from.

        Of a fact also when it holds, what it superseded and what superseded it. Printed, it is a few lines.

        Raises:
            NodeNotFound: There is no such node.
        """
        return why(self._store, self.namespace, node_id)

    def trace(self, node_id: str, depth: int | None = None) -> Trace:
        """Follow a node back over all steps, or at most *depth*; printed, it is a tree.

        From facts to their sources and the facts before and after them, from responses to their prompts, agents and
        what they cite, from prompts to their sessions, from fragments to their documents.

        Raises:
            NodeNotFound: There is no such node.
        """
        return trace(self._store, self.namespace, node_id, depth)

    # --- finding ------------------------------------------------------------------------------------------------

    def recall(
        self,
        query: str,
        k: int = 10,
        *,
        kinds: str | Sequence[str] | None = None,
        session: str | Sequence[str] | None = None,
        agent: str | Sequence[str] | None = None,
        speaker: str | Sequence[str] | None = None,
        collection: str | Sequence[str] | None = None,
        since: Any = None,
        until: Any = None,
        where: Mapping[str, Any] | None = None,
        legs: str | Sequence[str] | None = None,
        min_similarity: float | None = None,
        min_coverage: float | None = None,
        recency: float = 0.0,
        half_life: float = 30.0,
        diversity: float = 0.0,
        fold: bool = False,
        now: Any = None,
        explain: bool = False,
    ) -> Hits:
        """Return what matters for *query*, best first: by meaning, by words, by what stands around it, and by time.

        Everything with a text can be found. *kinds* (of nodes), *session*, *agent* (what it said, and was asked),
        *speaker* (a name, an agent's id, `"user"` or `"assistant"`), *collection* (of documents), *since* (inclusive)
        and *until* (exclusive) say what may be found, each one value or several; *where* is a condition on attributes
        such as `{"stars": {"gte": 4}}`, see `raeburnmemory.filters.condition`. They hold before the best *k* are taken.

        *min_similarity* and *min_coverage* (0 to 1) leave out hits below: a question about something that was never
        said then finds nothing. *recency* (0 to 1) is the share of the score that newness has, which halves every
        *half_life* days. *diversity* (0 to 1) prefers hits that differ from those before, *fold* joins near-copies into
        the best of them. *legs* are those to search with, of `"dense"`, `"lexical"`, `"graph"`, `"time"` and `"form"`.
        *now* is the moment from which "last week" in the question is seen. *explain* prints a table of what each leg
        gave.

        Raises:
            InvalidInput: An argument cannot be understood.
        """
        wanted = Wanted(
            kinds=kinds,
            session=session,
            agent=agent,
            speaker=speaker,
            collection=collection,
            since=since,
            until=until,
            where=where,
            legs=legs,
            min_similarity=min_similarity,
            min_coverage=min_coverage,
            recency=recency,
            half_life=half_life,
            diversity=diversity,
            fold=fold,
            now=now,
        )
        hits = self._recall(query, k, wanted, self.weights)
        if explain:
            print(hits.explain())  # noqa: T201
        return hits

    def context(
        self,
        query: str,
        budget: int = 1000,
        tokenizer: Any = None,
        *,
        k: int = 20,
        neighbours: int = 1,
        order: str = "conversation",
        **search: Any,
    ) -> Context:
        """Return what matters for *query* as text for a prompt, cited and marked as data, of at most *budget* tokens.

        The best of *k* hits come in first; one that does not fit is cut or left out, which `left_out` tells. Room that
        is left goes to what was said in exchange with them, and to up to *neighbours* turns on each side. *order* is
        `"conversation"` (sessions together, the oldest first) or `"score"`. *search* is as in `recall`; what that
        keeps out is no neighbour either.

        *tokenizer* counts: one of tokenizers, transformers or tiktoken, any object with `encode`, or a function from a
        text to a number. The whole text is counted, so that it never has more than *budget*. Without one, it is an
        estimate, and `estimated` says so.

        Raises:
            InvalidInput: An argument cannot be understood, or the tokenizer's answer is no count.
        """
        from .context import build_context

        hits = self.recall(query, k, **search)
        search.pop("explain", None)
        near = self._recall.near(Wanted(**search))
        return build_context(hits, budget, tokenizer, near=near, neighbours=neighbours, order=order)

    def similar(
        self,
        text: Any,
        k: int = 5,
        *,
        kinds: str | Sequence[str] | None = PROMPT,
        session: str | Sequence[str] | None = None,
        agent: str | Sequence[str] | None = None,
        speaker: str | Sequence[str] | None = None,
        collection: str | Sequence[str] | None = None,
        since: Any = None,
        until: Any = None,
        where: Mapping[str, Any] | None = None,
    ) -> Hits:
        """Return the prompts nearest in meaning to *text*, best first, with their cosine similarity.

        *text* may be a vector of the store's model, too. *kinds* are the kinds of texts to compare, one or several of
        `"prompt"`, `"response"`, `"fact"`, `"fragment"`, `"memory"`, `"entity"`, `"observation"` and `"item"`, or None
        for all. The other filters are those of `recall`; they hold before the nearest *k* are taken. The fewer texts
        they leave, the faster it is.

        Raises:
            EmbeddingsMissing: The memory holds such texts but no vectors; `reindex` makes them.
            InvalidInput: An argument cannot be understood.
            DimensionMismatch: The vector has another length than those of the store.
        """
        checked_count(k, "the number of hits")
        wanted = Wanted(
            session=session,
            agent=agent,
            speaker=speaker,
            collection=collection,
            since=since,
            until=until,
            where=where,
        )
        given = isinstance(text, (list, tuple)) or hasattr(text, "__array__")
        return self._recall.similar(text if given else checked_text(text, "a question"), k, kinds, wanted)

    def matching(
        self,
        words: str,
        k: int = 10,
        *,
        every: bool = False,
        kinds: str | Sequence[str] | None = None,
        session: str | Sequence[str] | None = None,
        agent: str | Sequence[str] | None = None,
        speaker: str | Sequence[str] | None = None,
        collection: str | Sequence[str] | None = None,
        since: Any = None,
        until: Any = None,
        where: Mapping[str, Any] | None = None,
    ) -> Hits:
        """Return the nodes whose texts hold any of *words*, or *every* one, best first: full-text search by BM25.

        Nothing but the words counts: no meaning, no related words, no graph. For names, numbers and messages of errors
        as they are written; for questions there is `recall`. Words in double quotes have to stand side by side. Case
        and English endings do not matter, and words such as "the" are passed over. What a named person said holds the
        name as well, and a fragment of a document the headings above it. The score of a hit is the share of what no
        text can reach, and `coverage` the share of the words that it holds, rare words counting more. The filters are
        those of `recall`.

        Raises:
            InvalidInput: An argument cannot be understood.
        """
        wanted = Wanted(
            kinds=kinds,
            session=session,
            agent=agent,
            speaker=speaker,
            collection=collection,
            since=since,
            until=until,
            where=where,
        )
        return self._recall.matching(words, k, wanted, every=every)

    def get_similar_prompts(self, text: str, top_k: int = 5) -> list[str]:
        """Return the ids of the stored prompts closest in meaning to *text*, nearest first.

        Fewer than *top_k* ids come back when the graph holds fewer prompts; an empty graph gives an empty list.

        Raises:
            EmbeddingsMissing: The graph holds prompts but no vectors; `reindex()` makes them.
        """
        return self.similar(text, top_k).ids

    def evaluate(self, questions: Iterable[Any], k: int = 10) -> Evaluation:
        """Measure what `recall` finds for *questions*, among its first *k* hits; see `raeburnmemory.evaluate`.

        Each is a tuple of text and expected ids (and perhaps a class), or a dict with `question`, `expected`, perhaps
        `class`, and options of `recall` such as filters. Print the result to see a table.

        Raises:
            InvalidInput: There are no questions, or one cannot be understood.
            NodeNotFound: Expected ids are not in this memory; the message names them.
        """
        from .evaluate import evaluate

        return evaluate(self, questions, k)

    def tune(self, labelled: Iterable[Any]) -> Tuning:
        """Fit the weights of `recall` to questions as `evaluate` takes them; see `raeburnmemory.tune`.

        What the fit is worth is measured on questions held back from it. To use what it gives, and only if it was
        better: `memory.weights = memory.tune(labelled).weights`. Nothing is changed before.

        Raises:
            InvalidInput: There are no questions, or one cannot be understood.
            NodeNotFound: Expected ids are not in this memory; the message names them.
        """
        from .tune import tune

        return tune(self, labelled, self._recall.observe, self.weights)

    def link_similar_prompts(
        self, threshold: float = 0.85, *, progress: Callable[[int, int], Any] | None = None
    ) -> int:
        """Link prompts with a cosine similarity above *threshold*, in both directions; return how many are new.

        Each prompt is compared with all others, which takes four times as long for twice as many. Links are written
        as they are found, some thousands in one transaction: interrupted, those stay, and the next call with the same
        *threshold* goes on behind them. *progress* is called with the number of prompts compared so far and of all.

        Raises:
            EmbeddingsMissing: The vectors of the memory are lost; `reindex` makes them.
        """
        return link_similar(self._store, self._dense, self.namespace, threshold, progress)

    def get(self, node_id: str) -> Node:
        """Return the node with that id.

        Raises:
            NodeNotFound: There is none.
        """
        return self._reader.get(node_id)

    def get_many(self, ids: Iterable[str]) -> list[Node]:
        """Return the nodes with those ids that there are, in that order."""
        return self._reader.get_many(ids)

    def vectors(self, ids: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Return the unit vectors of texts by the ids of their nodes, of those that have one.

        Raises:
            EmbeddingsMissing: The vectors of the memory are lost; `reindex` makes them.
        """
        return self._reader.vectors(ids)

    def nodes(
        self,
        kind: str | Sequence[str] | None = None,
        *,
        session: str | None = None,
        since: Any = None,
        before: Any = None,
        where: Mapping[str, Any] | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Iterator[Node]:
        """Yield nodes in the order in which they were first written, a page at a time.

        *kind* is one or several node types, *session* its thread, *since* (inclusive) and *before* (exclusive) are
        times, *where* is a condition on attributes as in `recall`. *limit* and *after* (an id) page by hand.
        """
        # A generator of its own, so that a memory that nobody else holds is not closed while it is being read.
        yield from self._reader.nodes(
            kind, session=session, since=since, before=before, where=where, limit=limit, after=after
        )

    def neighbours(self, node_id: str, relation: str | None = None, direction: str = "out") -> list[Node]:
        """Return the nodes that edges lead to (`"out"`), come from (`"in"`) or touch (`"both"`), oldest edge first."""
        return self._reader.neighbours(node_id, relation, direction)

    def links(self, node_id: str | Iterable[str], relation: str | None = None, direction: str = "both") -> list[Link]:
        """Return the edges that leave (`"out"`), enter (`"in"`) or touch (`"both"`) a node, oldest first.

        *node_id* may be several ids; those of no node have no edges.
        """
        return self._reader.links(node_id, relation, direction)

    def thread(self, session_id: str) -> list[Node]:
        """Return what was said in a session, in order: prompts, responses and other messages.

        Raises:
            NodeNotFound: There is no such session.
        """
        return self._reader.thread(session_id)

    def history(self, node_id: str) -> list[Node]:
        """Return the earlier versions of a node, oldest first."""
        return self._reader.history(node_id)

    def visualise_prompt_chain(self, prompt_id: str, depth: int = 3) -> list[tuple[str, str]]:
        """Follow the oldest edge out of each node, at most *depth* times; return the (source, target) pairs."""
        return self._reader.chain(prompt_id, depth)

    def snapshot(self) -> AbstractContextManager[None]:
        """Let every call in a `with` block read the same state, whoever writes meanwhile; keep it short."""
        return self._store.snapshot()

    def _items(self, collection: str) -> Items:
        """Return the JSON values of a collection, for a door that keeps such."""
        return Items(self._store, self._dense, self._writer, self.namespace, collection)

    def _documents(self, collection: str) -> Documents:
        """Return the documents of a collection, for a door that reads such."""
        return Documents(self._store, self._dense, self._writer, self.namespace, collection)

    def __len__(self) -> int:
        return self._reader.count()

    def __bool__(self) -> bool:
        return True  # an empty memory is a memory; `if memory:` must not count its nodes

    def __contains__(self, node_id: object) -> bool:
        return self._reader.has(node_id)

    def __iter__(self) -> Iterator[Node]:
        return self.nodes()

    @property
    def version(self) -> int:
        """How many changes were made to the store, by anybody: as long as it is the same, so is what is there."""
        return self._store.version()

    def stats(self) -> Stats:
        """Return what this namespace of the memory holds."""
        return self._reader.stats()

    # --- the graph ----------------------------------------------------------------------------------------------

    @property
    def graph(self) -> LiveGraph:
        """The memory as a `networkx.DiGraph`, up to date; what is changed in it is changed in the memory.

        It is built at the first use, with everything in this namespace, and catches up whenever `graph` is read.
        A large one takes long and much memory: from 200,000 nodes and links together, a warning in the log
        `raeburnmemory` says how much. Nothing else in this class needs it.
        """
        return self._view.live()

    def to_networkx(self) -> Any:
        """Return a copy of the graph, to do with as you please: changing it changes nothing here.

        Without networkx it is a graph of our own with the same methods.
        """
        return self._view.copy()

    def show(self, about: Any = None, **how: Any) -> Picture:
        """Return a picture of the memory, which shows itself in a notebook; see `raeburnmemory.picture.show`.

        *about* is what to draw: hits, the id of a node, or several ids; without it everything is drawn.

        Raises:
            InvalidInput: An argument cannot be understood.
            NodeNotFound: There is no such node or session.
        """
        from .picture import show

        return show(self, about, **how)

    # --- files --------------------------------------------------------------------------------------------------

    def export(
        self, path: str | os.PathLike[str] | bool | None = None, *, all_namespaces: bool = False
    ) -> dict[str, Any]:
        """Return the graph as node-link data, and write it as JSON to *path*.

        Without *path* a JSON memory brings its own file up to date and a SQLite memory writes `<db>.json`; with False
        nothing is written. The file can be opened as a memory; it holds no vectors, `reindex` makes them.
        *all_namespaces* adds the other namespaces under a key of their own.
        """
        return export(self._store, self.namespace, path, all_namespaces=all_namespaces)

    async def export_async(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Do what `export` does in a thread."""
        import asyncio

        return await asyncio.to_thread(self.export, *args, **kwargs)

    def load(self) -> None:
        """Read what others wrote. Every call does so by itself; this one only does it now."""
        self._store.version()

    def reindex(self, progress: Callable[[int, int], Any] | None = None) -> Reindexed:
        """Make the vectors that are missing, in all namespaces, and build the index again from the store.

        *progress* is called with the number of texts seen to so far and of all.
        """
        from .reembed import reindex

        return reindex(self._store, self._dense, progress)

    def reembed(self, model: Any, progress: Callable[[int, int], Any] | None = None) -> Reindexed:
        """Move the whole store, all namespaces, to another embedding model.

        Searches go on with the old vectors until the last new one is there. Interrupted, it goes on where it was.
        *progress* is called with the number of texts embedded so far and of all.
        """
        from .reembed import reembed

        return reembed(self._store, self._dense, model, progress)

    def backup(self, target: str | os.PathLike[str], *, overwrite: bool = False) -> Copied:
        """Copy the memory to the file *target* as it is now, while others go on writing; see `doctor.backup`.

        Raises:
            InvalidInput: There is something at *target*, and *overwrite* is false.
        """
        from .doctor import backup

        return backup(self, target, overwrite=overwrite)

    def close(self) -> None:
        """Bring the files in order and give them back. Everything was on disk before; closing twice is fine."""
        if self._finalizer.detach() is not None:
            _finish(*self._closes)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse to be pickled or copied: threads, locks and open files cannot be, and a half copy would share them."""
        unsaved = self.storage_backend == "memory"
        what = "the path of a backup() of it" if unsaved else f"its path, {self.db_path!r}"
        raise TypeError(
            f"A MemoryGraph cannot be pickled or copied. Pass {what}, and open that: several processes may have one "
            f"memory open at once."
        )

    def __enter__(self) -> MemoryGraph:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _checked_timeout(value: Any) -> None:
    """Refuse a time to wait that is no number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise InvalidInput(f"The timeout must be a number of seconds, 0 or more, not {shown(value)}.")


def _finish(*parts: Any) -> None:
    """Close what a graph was made of; a function of its own so that a forgotten graph can be collected."""
    with contextlib.ExitStack() as all_of_them:
        for part in reversed(parts):
            all_of_them.callback(part.close)


def _finish_forgotten(*parts: Any) -> None:
    """Close what nobody closed. There is nobody to catch an error either, and nothing is lost by it: it is logged."""
    try:
        _finish(*parts)
    except MemoryGraphError as exc:
        _log.warning("A memory that nobody closed could not be closed: %s", exc)
