"""`Memory`: mem0's class on a memory of ours."""

from __future__ import annotations

import logging
import os
import uuid
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import InvalidInput
from ...nodes import MEMORY, Node, collected_id
from ._arguments import THRESHOLD, TOP_K, checked_count, checked_threshold, number_of, opened, score_details
from ._config import arguments_of
from ._errors import MemoryNotFound, ValidationError, VerbatimWarning
from ._items import changed, deleted, events_of, expiry, is_deleted, item_of, new_memory, now, without_identity
from ._messages import conversation, listed, told
from ._model import Action, Model
from ._scope import checked_scope, living, scoped, to_where

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from ...hits import Hit
    from ...memory_graph import MemoryGraph

__all__ = ["Memory"]

_log = logging.getLogger("raeburnmemory")

_PROCEDURAL = "procedural_memory"
_SIMILAR = 5  # memories that a new fact is compared with, as in mem0 1.x


_UNSET: Any = object()


class Memory:
    """Memories of users, agents and runs, called as mem0's `Memory` is, in 1.x or 2.x.

    *memory* is a `MemoryGraph`, or the path of one, which `close` then closes; *options* are those of `MemoryGraph`
    for a path, such as `embedding_model`. Memories are nodes of the kind `memory` in a *collection*, in which their
    ids are their own: what mem0 calls `id` is the end of the node's id, `memory/mem0/ID`. So `MemoryGraph.recall` and
    every other door finds them.

    *llm* is a function from a list of messages to the answer's text, or a client with OpenAI's
    `chat.completions.create`, for which *llm_model* names the model. With it, `add` extracts facts as mem0 does, and
    updates or deletes memories that they replace; *custom_instructions* say what to look for. Without it `add` keeps
    each message as it is, and says so once with a `VerbatimWarning`. *reranker* is a function of query, results and
    their number that returns results, or an object with such a method `rerank`.

    Raises:
        EmbedderMismatch: The memory holds vectors of another model than the one named.
        InvalidInput: *memory* is neither, or an argument does not fit.
    """

    def __init__(
        self,
        memory: MemoryGraph | str | os.PathLike[str] | None = None,
        *,
        llm: Any = None,
        llm_model: str | None = None,
        collection: str = "mem0",
        namespace: str | None = None,
        reranker: Any = None,
        custom_instructions: str | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(collection, str) or not collection:
            raise InvalidInput(f"A collection's name must be a string that is not empty, not {collection!r}.")
        self._model = None if llm is None else Model(llm, llm_model)
        self._llm_model, self._reranker = llm_model, reranker
        self.collection, self.custom_instructions = collection, custom_instructions
        self.memory, self._owned = opened(memory, namespace, options)
        self._said_verbatim = False

    @classmethod
    def from_config(cls, config_dict: Mapping[str, Any]) -> Memory:
        """Return a memory made of mem0's configuration, or of the arguments of this class.

        Of mem0's, the collection's name, a local or LangChain embedder, an OpenAI model and the instructions are used;
        what keeps data elsewhere has no use here, which a warning names.

        Raises:
            InvalidInput: A key is unknown.
        """
        return cls(**arguments_of(config_dict))

    # --- writing ------------------------------------------------------------------------------------------------

    def add(
        self,
        messages: str | Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        user_id: Any = None,
        agent_id: Any = None,
        run_id: Any = None,
        metadata: Mapping[str, Any] | None = None,
        timestamp: Any = None,
        expiration_date: Any = None,
        infer: bool = True,
        memory_type: str | None = None,
        prompt: str | None = None,
        llm: Any = None,
    ) -> dict[str, Any]:
        """Add memories of a user, agent or run; return what happened to which, all of it in one transaction.

        *messages* is a text, a message or a list of messages (`role`, `content`, perhaps `name`). With a model and
        *infer* its facts are kept, and *prompt* says what to look for; else each message as it is, those of the system
        left out. *memory_type* `"procedural_memory"`, with an *agent_id*, keeps one summary of all messages.
        *timestamp* is when it was said, *expiration_date* the last day on which it is found, *llm* another model for
        this call.

        Raises:
            LLMError: The model failed.
            ValidationError: No user, agent or run is named, or the messages cannot be understood.
        """
        until = expiry(expiration_date)
        scope = checked_scope(user_id, agent_id, run_id)
        if not scope:
            raise ValidationError(
                "At least one of 'user_id', 'agent_id', or 'run_id' must be provided.",
                "VALIDATION_001",
                {"provided_ids": {"user_id": user_id, "agent_id": agent_id, "run_id": run_id}},
                "Please provide at least one identifier to scope the memory operation.",
            )
        if memory_type is not None and memory_type != _PROCEDURAL:
            raise ValidationError(
                f"Invalid 'memory_type'. Please pass {_PROCEDURAL} to create procedural memories.",
                "VALIDATION_002",
                {"provided_type": memory_type, "valid_type": _PROCEDURAL},
                f"Use '{_PROCEDURAL}' to create procedural memories.",
            )
        model = self._model if llm is None else Model(llm, self._llm_model)
        given = told(listed(messages))
        extra = without_identity(metadata or {}, {}, "add()")
        if timestamp is None:  # in metadata, it says in mem0 when a memory was made
            timestamp = extra.pop("created_at", None)
        said = {"timestamp": now() if timestamp is None else timestamp, "expiration_date": until}
        if infer and model is None:
            self._say_verbatim()
        if memory_type == _PROCEDURAL and "agent_id" in scope:
            text = conversation(given) if model is None else model.procedure(_asked(given), prompt)
            plan = [Action("ADD", text)]
            return {"results": self._apply(plan, [], scope, {**extra, "memory_type": _PROCEDURAL}, said)}
        if infer and model is not None:
            return {"results": self._extract(model, given, scope, extra, said, prompt)}
        nodes, results = [], []
        for message in given:
            if message["role"] == "system":
                continue
            own = {**said, "role": message["role"], "actor_id": message["name"]}
            node = self._new(message["content"], scope, extra, own)
            nodes.append(node)
            result: dict[str, Any] = {"id": _key(node), "memory": message["content"], "event": "ADD"}
            results.append({**result, "actor_id": message["name"], "role": message["role"]})
        self.memory.put(nodes)
        return {"results": results}

    def _extract(
        self,
        model: Model,
        given: Sequence[Mapping[str, Any]],
        scope: Mapping[str, str],
        metadata: Mapping[str, Any],
        said: Mapping[str, Any],
        prompt: str | None,
    ) -> list[dict[str, Any]]:
        """Let the model say what is new and what that replaces; write it."""
        of_agent = "agent_id" in scope and "user_id" not in scope
        whom = "an assistant" if of_agent else "the user of an assistant"
        facts = model.facts(conversation(given), whom, prompt or self.custom_instructions)
        where = living(dict(scope), show_expired=False)
        old: dict[str, Node] = {}
        for fact in facts:
            old.update((hit.id, hit.node) for hit in self._recall(fact, _SIMILAR, where))
        known = {node.text for node in old.values()}
        new = [fact for fact in facts if fact not in known]
        plan = model.decide(new, [node.text or "" for node in old.values()]) if new else []
        return self._apply(plan, list(old), scope, metadata, said)

    def _apply(
        self,
        plan: Iterable[Action],
        old: Sequence[str],
        scope: Mapping[str, str],
        metadata: Mapping[str, Any],
        said: Mapping[str, Any],
    ) -> list[dict[str, Any]]:
        """Write what was planned in one transaction; what was deleted meanwhile is added, or stays deleted."""
        results: list[dict[str, Any]] = []
        with self.memory.exclusive():
            there = {node.id: node for node in self.memory.get_many(old) if not is_deleted(node)}
            nodes: dict[str, Node] = {}
            for action in plan:
                target = None if action.target is None else there.get(old[action.target])
                if target is None and action.event == "DELETE":
                    continue
                if target is None:
                    node = self._new(action.text, scope, metadata, said)
                    results.append({"id": _key(node), "memory": action.text, "event": "ADD"})
                elif action.event == "DELETE":
                    node = deleted(target)
                    del there[target.id]
                    results.append({"id": _key(node), "memory": target.text, "event": "DELETE"})
                else:
                    node = there[target.id] = changed(target, action.text, metadata, said["expiration_date"])
                    result: dict[str, Any] = {"id": _key(node), "memory": action.text, "event": "UPDATE"}
                    results.append({**result, "previous_memory": target.text})
                nodes[node.id] = node
            self.memory.put(nodes.values())
        return results

    def update(
        self,
        memory_id: str,
        text: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        expiration_date: Any = _UNSET,
        data: str | None = None,
    ) -> dict[str, str]:
        """Give a memory another text, add metadata, or set the day on which it expires (None for never).

        *data* is the text in 1.x.

        Raises:
            InvalidInput: Nothing was given.
            MemoryNotFound: There is no such memory.
        """
        text = data if text is None else text
        if text is None and metadata is None and expiration_date is _UNSET:
            raise InvalidInput("At least one of text, metadata, or expiration_date must be provided.")
        until = None if expiration_date is _UNSET else expiry(expiration_date) or ""
        with self.memory.exclusive():
            node = self._living(memory_id)
            if node is None:
                raise MemoryNotFound(f"Memory with id {memory_id} not found. Please provide a valid 'memory_id'.")
            self.memory.put([changed(node, text, metadata, until)])
        return {"message": "Memory updated successfully!"}

    def delete(self, memory_id: str) -> dict[str, str]:
        """Delete a memory. Its history stays until the memory is reset or the node forgotten.

        Raises:
            MemoryNotFound: There is no such memory.
        """
        with self.memory.exclusive():
            node = self._living(memory_id)
            if node is None:
                raise MemoryNotFound(f"Memory with id {memory_id} not found. It may have been deleted before.")
            self.memory.put([deleted(node)])
        return {"message": "Memory deleted successfully!"}

    def delete_all(self, user_id: Any = None, agent_id: Any = None, run_id: Any = None) -> dict[str, str]:
        """Delete the memories that have all the ids given, expired ones too, in one transaction.

        Raises:
            InvalidInput: No id was given.
        """
        scope = checked_scope(user_id, agent_id, run_id)
        if not scope:
            raise InvalidInput(
                "At least one filter is required to delete all memories. If you want to delete all memories, use the "
                "`reset()` method."
            )
        with self.memory.exclusive():
            self.memory.put([deleted(node) for node in self._listed(living(scope, show_expired=True))])
        return {"message": "Memories deleted successfully!"}

    def reset(self) -> None:
        """Forget every memory of the collection, and every history; other collections and nodes stay."""
        with self.memory.exclusive():
            if ids := [node.id for node in self._listed({})]:
                self.memory.forget(ids)

    # --- reading ------------------------------------------------------------------------------------------------

    def search(
        self,
        query: str,
        *,
        top_k: int = TOP_K,
        filters: Mapping[str, Any] | None = None,
        threshold: float | None = THRESHOLD,
        rerank: bool = False,
        explain: bool = False,
        reference_date: Any = None,
        show_expired: bool = False,
        user_id: Any = None,
        agent_id: Any = None,
        run_id: Any = None,
        limit: int | None = None,
    ) -> dict[str, Any]:
        """Return the memories that matter for *query*, best first, with their score from 0 to 1.

        *filters* name a user, agent or run, and conditions on metadata: values, lists of values, `"*"` for any, the
        operators eq, ne, in, nin, gt, gte, lt, lte, contains and icontains, and AND, OR and NOT over lists of
        conditions. They hold before the best are taken. *threshold* is the least cosine similarity; a memory without a
        vector is found by its words whatever it is. *explain* adds `score_details`, *reference_date* is the moment
        from which "last week" in the question is seen.

        With `user_id=`, `agent_id=`, `run_id=` or `limit=` it answers as 1.x: up to 100, without a threshold.

        Raises:
            InvalidInput: No user, agent or run is named, or an argument cannot be understood.
        """
        older = limit is not None or any(one is not None for one in (user_id, agent_id, run_id))
        where = living(to_where(scoped(filters, user_id, agent_id, run_id)), show_expired=show_expired)
        count = checked_count(number_of(top_k, limit, older=older))
        least = checked_threshold(threshold, older=older)
        if not isinstance(query, str) or not query.strip():
            raise InvalidInput(f"Invalid query: cannot be empty or whitespace-only, as {query!r} is.")
        found = self._found(query.strip(), count, where, least, reference_date)
        results = []
        for hit in found:
            item = item_of(hit.node, _key(hit.node), min(max(float(hit.score), 0.0), 1.0))
            results.append({**item, "score_details": score_details(hit, least)} if explain else item)
        if rerank and self._reranker is not None and results:
            rearrange = getattr(self._reranker, "rerank", self._reranker)
            results = list(rearrange(query, results, count))
        return {"results": results}

    def _found(self, query: str, count: int, where: Mapping[str, Any], least: float | None, moment: Any) -> list[Hit]:
        """Return the best *count* hits that are near enough, or have no vector to be compared by."""
        asked = count
        while asked:
            hits = self._recall(query, asked, where, moment)
            near = [hit for hit in hits if least is None or hit.similarity is None or hit.similarity >= least]
            if len(near) >= count or len(hits) < asked:
                return near[:count]
            asked *= 4
        return []

    def get(self, memory_id: str) -> dict[str, Any] | None:
        """Return a memory, None if there is none with that id."""
        node = self._living(memory_id)
        return None if node is None else item_of(node, memory_id)

    def get_all(
        self,
        *,
        filters: Mapping[str, Any] | None = None,
        top_k: int = TOP_K,
        show_expired: bool = False,
        user_id: Any = None,
        agent_id: Any = None,
        run_id: Any = None,
        limit: int | None = None,
    ) -> dict[str, Any]:
        """Return memories in the order in which they were added; the arguments are as in `search`.

        Raises:
            InvalidInput: No user, agent or run is named, or an argument cannot be understood.
        """
        older = limit is not None or any(one is not None for one in (user_id, agent_id, run_id))
        where = living(to_where(scoped(filters, user_id, agent_id, run_id)), show_expired=show_expired)
        count = checked_count(number_of(top_k, limit, older=older))
        return {"results": [item_of(node, _key(node), scored=False) for node in self._listed(where, count)]}

    def history(self, memory_id: str) -> list[dict[str, Any]]:
        """Return what happened to a memory, oldest first: when it was added, each update, and its deletion."""
        nodes = self.memory.get_many([self._id(memory_id)])
        if not nodes:
            return []
        return events_of(memory_id, [*self.memory.history(nodes[0].id), nodes[0]])

    # --- opening and closing ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the memory if it was opened here, from a path; one that was given stays open."""
        if self._owned:
            self.memory.close()

    def __enter__(self) -> Memory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Memory({self.memory!r}, collection={self.collection!r})"

    # --- what they share ----------------------------------------------------------------------------------------

    def _id(self, memory_id: str) -> str:
        if not isinstance(memory_id, str) or not memory_id:
            raise InvalidInput(f"A memory's id must be a string that is not empty, not {memory_id!r}.")
        return collected_id(MEMORY, self.collection, memory_id)

    def _living(self, memory_id: str) -> Node | None:
        nodes = self.memory.get_many([self._id(memory_id)])
        return None if not nodes or is_deleted(nodes[0]) else nodes[0]

    def _listed(self, where: Mapping[str, Any], limit: int | None = None) -> list[Node]:
        return list(self.memory.nodes(MEMORY, where={"collection": self.collection, **where}, limit=limit))

    def _recall(self, query: str, k: int, where: Mapping[str, Any], moment: Any = None) -> Sequence[Hit]:
        return self.memory.recall(query, k, kinds=MEMORY, collection=self.collection, where=where, now=moment)

    def _new(self, text: str, scope: Mapping[str, str], metadata: Mapping[str, Any], said: Mapping[str, Any]) -> Node:
        return new_memory(self.collection, str(uuid.uuid4()), text, scope, metadata, said)

    def _say_verbatim(self) -> None:
        if not self._said_verbatim:
            self._said_verbatim = True
            warnings.warn(
                "There is no model to extract facts with, so messages are stored as they are. Pass llm= to Memory for "
                "extraction, or infer=False to add().",
                VerbatimWarning,
                stacklevel=3,
            )


def _key(node: Node) -> str:
    return node.id.split("/", 2)[2]


def _asked(given: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [{"role": message["role"], "content": message["content"]} for message in given]
