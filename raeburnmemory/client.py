"""A memory behind a service: `RemoteMemory` has the main calls of `MemoryGraph`, with the same arguments and results.

A script moves from its own memory to one of a service by changing the line that opens it:

    memory = MemoryGraph("memory.db")
    memory = RemoteMemory("http://127.0.0.1:8000")

`AsyncRemoteMemory` has the same calls to be awaited.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

from . import errors
from ._optional import extra
from .context import Context, LeftOut, Piece
from .errors import InvalidInput, MemoryGraphError, NodeNotFound, RemoteError, StoreUnreachable
from .hits import Hit, Hits, Place, Step, Why
from .nodes import Forgotten, Link, Node, Recorded, Stats
from .records import checked_data, checked_id, shown, utc

if TYPE_CHECKING:
    from types import TracebackType

    import httpx

__all__ = ["AsyncRemoteMemory", "RemoteMemory"]

_KEY = "RAEBURN_API_KEY"
_AGAIN = frozenset({429, 502, 503, 504})  # what another try may answer otherwise
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds
_PAGE = 1000  # the most that the service gives at once: each page of a session reads its edges
_HERE = {"localhost", "127.0.0.1", "::1"}


class _Call(NamedTuple):
    """One request. All of them can be sent again: those that write carry a key by which the service knows them."""

    method: str
    path: str
    params: Mapping[str, Any] = {}
    body: Any = None
    key: str | None = None


# --- what both have -----------------------------------------------------------------------------------------------


class _Remote:
    """Where the service is, and how requests and answers look."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        namespace: str | None = None,
        timeout: float = 30,
        retries: int = 3,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise InvalidInput(f"{shown(url)} is no URL of a service. One looks like http://127.0.0.1:8000.")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise InvalidInput("The URL of a service has no user, no query and no fragment; pass api_key=.")
        api_key = os.environ.get(_KEY) if api_key is None else api_key
        if api_key and parts.scheme == "http" and parts.hostname not in _HERE:
            raise InvalidInput(
                f"The key would travel to {parts.hostname!r} for everybody on the way to read. Use https, or pass "
                f"api_key='' to send none."
            )
        if not isinstance(retries, int) or retries < 0:
            raise InvalidInput(f"retries must be a whole number, 0 or more, not {shown(retries)}.")
        self.url, self.namespace = url.rstrip("/"), namespace
        self._retries = retries
        self._options: dict[str, Any] = {
            "base_url": self.url,
            "timeout": timeout,
            "headers": {"Authorization": f"Bearer {api_key}"} if api_key else {},
            "follow_redirects": False,  # the key is for this service alone
        }

    def __repr__(self) -> str:
        scope = "" if self.namespace is None else f", namespace={self.namespace!r}"
        return f"{type(self).__name__}({self.url!r}{scope})"

    def _request(self, call: _Call) -> dict[str, Any]:
        params = {name: value for name, value in call.params.items() if value is not None}
        if self.namespace is not None:
            params["namespace"] = self.namespace
        headers = {"Idempotency-Key": call.key} if call.key else {}
        given: dict[str, Any] = {"method": call.method, "url": call.path, "params": params, "headers": headers}
        return given if call.body is None else {**given, "json": _checked_body(call.body)}

    def _pause(self, attempt: int, answer: httpx.Response | None) -> float:
        """Return how many seconds to wait before the next try."""
        said = answer.headers.get("Retry-After", "") if answer is not None else ""
        if said.isdecimal():
            return min(float(said), 60.0)
        longest: float = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
        return random.uniform(0.5, 1) * longest  # noqa: S311 - no secret

    def _unreachable(self, error: Exception) -> StoreUnreachable:
        return StoreUnreachable(
            getattr(error, "errno", None) or 0,
            f"The service at {self.url!r} does not answer ({type(error).__name__}: {error}). Is it running there?",
        )

    def _checked(self, answer: httpx.Response) -> Any:
        """Return what was answered; raise the error that it stands for."""
        if answer.is_success:
            return answer.json()
        try:
            problem = answer.json()
            detail, code = str(problem["detail"]), problem.get("code")
        except (ValueError, KeyError, TypeError):
            detail, code = f"it is no answer of this service: {answer.text[:200]!r}", None
        kind = getattr(errors, code, None) if isinstance(code, str) else None
        if isinstance(kind, type) and issubclass(kind, MemoryGraphError) and not issubclass(kind, OSError):
            raise kind(detail)
        raise RemoteError(f"{self.url} answered {answer.status_code}: {detail}", answer.status_code)


def _checked_body(body: Any) -> Any:
    """Return a body as JSON has it, by the rules of a memory for what it keeps.

    Raises:
        InvalidInput: JSON cannot hold it.
    """
    if isinstance(body, list):
        return [checked_data(one, f"entry {place}") for place, one in enumerate(body)]
    return checked_data(body, "the request")


def _plain(value: Any) -> Any:
    """Return an argument as dicts and lists, whatever dataclass, array or iterable it is."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: part for name, part in asdict(value).items() if part is not None}
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        return value
    return value.tolist() if hasattr(value, "tolist") else [_number(one) for one in value]


def _number(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value  # of numpy


def _time(value: Any) -> str | None:
    return None if value is None else utc(value)


def _given(**values: Any) -> dict[str, Any]:
    """Return those arguments that were given."""
    return {name: _plain(value) for name, value in values.items() if value is not None}


def _interaction(
    prompt: Any,
    response: Any = None,
    agent: Any = None,
    session_id: str | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    timestamp: Any = None,
    vector: Any = None,
) -> dict[str, Any]:
    return _given(
        prompt=_said(prompt),
        response=_said(response),
        agent=agent,
        session_id=session_id,
        metadata=metadata,
        timestamp=_time(timestamp),
        vector=vector,
    )


def _said(part: Any) -> Any:
    """Return a prompt or a response, its time as the service reads it."""
    part = _plain(part)
    timed = isinstance(part, Mapping) and part.get("timestamp") is not None
    return {**part, "timestamp": _time(part["timestamp"])} if timed else part


def _each(one: Any) -> dict[str, Any]:
    return _interaction(**one) if isinstance(one, Mapping) else _interaction(*one)


def _search(search: dict[str, Any]) -> dict[str, Any]:
    times = {name: _time(search.pop(name)) for name in ("since", "until", "now") if search.get(name) is not None}
    return _given(**search, **times)


def _recorded(said: Any) -> list[Recorded]:
    return [Recorded(**one) for one in said["recorded"]]


def _node(said: Mapping[str, Any]) -> Node:
    attributes = {name: value for name, value in said.items() if name not in {"id", "type", "text"}}
    return Node(said["id"], said["type"], said.get("text"), attributes)


def _link(said: Mapping[str, Any]) -> Link:
    return Link(said["source"], said["target"], said["relation"], said["data"])


def _hits(said: Any) -> Hits:
    found = [
        Hit(
            _node(one["node"]),
            one["score"],
            one["similarity"],
            one["coverage"],
            Why(one["why"]["legs"], tuple(one["why"]["words"]), tuple(Step(**step) for step in one["why"]["path"])),
            one["speaker"],
            one["session"],
            duplicates=tuple(one["duplicates"]),
            place=_place(one.get("place"), one["node"].get("text")),
        )
        for one in said["hits"]
    ]
    return Hits(found, said["skipped"], said["legs"])


def _place(said: Mapping[str, Any] | None, quote: str | None) -> Place | None:
    if said is None:  # as an older service never says it
        return None
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in said.items()}
    return Place(**given, quote=quote or "")


def _forgotten(said: Any) -> Forgotten:
    return Forgotten(tuple(said["ids"]), said["kinds"], said["links"], said["vectors"])


def _context(said: Any) -> Context:
    pieces = [
        Piece(one["number"], Node(one["id"], one["kind"], one["text"]), one["citation"], one["text"], one["cut"],
              one["neighbour_of"])
        for one in said["pieces"]
    ]  # fmt: skip
    left = [LeftOut(one["id"], one["reason"], one["same_as"]) for one in said["left_out"]]
    return Context(
        said["text"], said["tokens"], said["budget"], said["estimated"], tuple(pieces), tuple(left), said["skipped"]
    )


def _at(what: str, node_id: str) -> str:
    named = quote(checked_id(node_id, "an id"), safe="")
    if named in {".", ".."}:  # which a client takes for a place in the path
        named = named.replace(".", "%2E")
    return f"/v1/{what}/{named}"


def _add(interactions: Iterable[Any]) -> _Call:
    return _Call("POST", "/v1/interactions", body=[_each(one) for one in interactions], key=uuid.uuid4().hex)


def _messages(messages: Iterable[Mapping[str, Any]]) -> _Call:
    body = [_given(**{**one, "timestamp": _time(one.get("timestamp"))}) for one in messages]
    return _Call("POST", "/v1/messages", body=body, key=uuid.uuid4().hex)


def _forget(ids: Any, chosen: dict[str, Any]) -> _Call:
    ids = [ids] if isinstance(ids, str) else ids
    body = _given(ids=ids, **{**chosen, "before": _time(chosen.get("before"))})
    return _Call("POST", "/v1/forget", body=body)


def _similar(text: Any, k: int, search: dict[str, Any]) -> _Call | None:
    """Return how to ask for what is similar, None if no kind of text is asked for."""
    asked = {"text": text} if isinstance(text, str) else {"vector": _plain(text)}
    given = _search(search)
    if given.get("kinds") == []:
        return None
    if "kinds" in search and search["kinds"] is None:
        given["kinds"] = []  # all of them, for the service
    return _Call("POST", "/v1/similar", body={**asked, "k": k, **given})


def _neighbours(node_id: str, relation: str | None, direction: str) -> _Call:
    return _Call(
        "GET",
        "/v1/graph/neighbours",
        {"id": checked_id(node_id, "an id"), "relation": relation, "direction": direction},
    )


# --- the clients --------------------------------------------------------------------------------------------------


class RemoteMemory(_Remote):
    """The memory of a service, with the main calls of `MemoryGraph`.

    *url* is where `raeburnmemory serve` answers. *api_key* is its key, `RAEBURN_API_KEY` if left out; it is sent over
    https or to this machine only. *namespace* keeps to a part of the memory. *timeout* (seconds) is for each step of a
    request. What fails on the way, or is refused for a while, is tried *retries* times more, and recorded once.

    Raises:
        InvalidInput: The URL is none, or the key would go where others can read it.
        MissingDependency: httpx is not installed.
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        with extra("fastapi", module="httpx"):
            import httpx
        self._http = httpx
        self._client = httpx.Client(**self._options)

    def _send(self, call: _Call) -> Any:
        for attempt in range(self._retries + 1):
            answer = None
            try:
                answer = self._client.request(**self._request(call))
            except self._http.TransportError as exc:
                if attempt == self._retries:
                    raise self._unreachable(exc) from exc
            if answer is not None and (answer.status_code not in _AGAIN or attempt == self._retries):
                return self._checked(answer)
            time.sleep(self._pause(attempt, answer))
        raise AssertionError  # the last try returns or raises

    def add_interaction(
        self, prompt: Any, response: Any = None, agent: Any = None, session_id: str | None = None, **more: Any
    ) -> Recorded:
        """Record an interaction; see `MemoryGraph.add_interaction`."""
        return self.add_many(
            [{"prompt": prompt, "response": response, "agent": agent, "session_id": session_id, **more}]
        )[0]

    def add_many(self, interactions: Iterable[Any]) -> list[Recorded]:
        """Record many interactions in one transaction; see `MemoryGraph.add_many`."""
        call = _add(interactions)
        return _recorded(self._send(call)) if call.body else []

    def add_message(self, text: str, role: str = "user", session_id: str | None = None, **more: Any) -> Recorded:
        """Record one message of a chat; see `MemoryGraph.add_message`."""
        return self.add_messages([{"text": text, "role": role, "session_id": session_id, **more}])[0]

    def add_messages(self, messages: Iterable[Mapping[str, Any]]) -> list[Recorded]:
        """Record messages of a chat in one transaction; see `MemoryGraph.add_messages`."""
        call = _messages(messages)
        return _recorded(self._send(call)) if call.body else []

    def recall(self, query: str, k: int = 10, **search: Any) -> Hits:
        """Return what matters for *query*, best first; *search* is as in `MemoryGraph.recall`."""
        return _hits(self._send(_Call("POST", "/v1/recall", body={"query": query, "k": k, **_search(search)})))

    def context(self, query: str, budget: int = 1000, **search: Any) -> Context:
        """Return what matters for *query* as text for a prompt; see `MemoryGraph.context`. Tokens are estimated."""
        return _context(
            self._send(_Call("POST", "/v1/context", body={"query": query, "budget": budget, **_search(search)}))
        )

    def similar(self, text: Any, k: int = 5, **search: Any) -> Hits:
        """Return the texts nearest in meaning to a text or a vector; see `MemoryGraph.similar`."""
        call = _similar(text, k, search)
        return Hits() if call is None else _hits(self._send(call))

    def matching(self, words: str, k: int = 10, **search: Any) -> Hits:
        """Return the nodes whose texts hold any of *words*, or every one; see `MemoryGraph.matching`."""
        return _hits(self._send(_Call("POST", "/v1/matching", body={"words": words, "k": k, **_search(search)})))

    def get_similar_prompts(self, text: str, top_k: int = 5) -> list[str]:
        """Return the ids of the prompts nearest in meaning to *text*; see `MemoryGraph.get_similar_prompts`."""
        return self.similar(text, top_k).ids

    def get(self, node_id: str) -> Node:
        """Return a node; see `MemoryGraph.get`."""
        return _node(self._send(_Call("GET", _at("nodes", node_id))))

    def nodes(self, kind: str | Sequence[str] | None = None) -> Iterator[Node]:
        """Yield nodes in the order in which they were first written, a page at a time."""
        kind, after = _plain(kind), None
        while kind != []:  # which is no kind, while a request without any is for all
            page = self._send(_Call("GET", "/v1/nodes", {"kind": kind, "after": after, "limit": _PAGE}))
            yield from map(_node, page["nodes"])
            if (after := page["next"]) is None:
                return

    def thread(self, session_id: str) -> list[Node]:
        """Return what was said in a session, in order; see `MemoryGraph.thread`."""
        found: list[Node] = []
        after: str | None = None
        while True:
            page = self._send(_Call("GET", _at("sessions", session_id), {"after": after, "limit": _PAGE}))
            found += map(_node, page["messages"])
            if (after := page["next"]) is None:
                return found

    def neighbours(self, node_id: str, relation: str | None = None, direction: str = "out") -> list[Node]:
        """Return the nodes that edges lead to or come from; see `MemoryGraph.neighbours`."""
        return [_node(one) for one in self._send(_neighbours(node_id, relation, direction))["nodes"]]

    def links(self, node_id: str, relation: str | None = None, direction: str = "both") -> list[Link]:
        """Return the edges of a node, oldest first; see `MemoryGraph.links`."""
        return [_link(one) for one in self._send(_neighbours(node_id, relation, direction))["edges"]]

    def forget(self, ids: str | Iterable[str] | None = None, **chosen: Any) -> Forgotten:
        """Remove nodes; *chosen* is as in `MemoryGraph.forget`."""
        return _forgotten(self._send(_forget(ids, chosen)))

    def export(self) -> dict[str, Any]:
        """Return the graph as node-link data; see `MemoryGraph.export`."""
        found: dict[str, Any] = self._send(_Call("GET", "/memory/graph"))
        return found

    def stats(self) -> Stats:
        """Return what the memory holds; its `path` is the URL of the service."""
        return Stats(path=self.url, **self._send(_Call("GET", "/v1/stats")))

    def __len__(self) -> int:
        return self.stats().nodes

    def __bool__(self) -> bool:
        return True

    def __contains__(self, node_id: object) -> bool:
        try:
            return isinstance(node_id, str) and bool(self.get(node_id))
        except NodeNotFound:
            return False

    def __iter__(self) -> Iterator[Node]:
        return self.nodes()

    def close(self) -> None:
        """Close the connections to the service."""
        self._client.close()

    def __enter__(self) -> RemoteMemory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncRemoteMemory(_Remote):
    """`RemoteMemory` for code that awaits: the same options and calls, each to be awaited."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        with extra("fastapi", module="httpx"):
            import httpx
        self._http = httpx
        self._client = httpx.AsyncClient(**self._options)

    async def _send(self, call: _Call) -> Any:
        for attempt in range(self._retries + 1):
            answer = None
            try:
                answer = await self._client.request(**self._request(call))
            except self._http.TransportError as exc:
                if attempt == self._retries:
                    raise self._unreachable(exc) from exc
            if answer is not None and (answer.status_code not in _AGAIN or attempt == self._retries):
                return self._checked(answer)
            await asyncio.sleep(self._pause(attempt, answer))
        raise AssertionError  # the last try returns or raises

    async def add_interaction(
        self, prompt: Any, response: Any = None, agent: Any = None, session_id: str | None = None, **more: Any
    ) -> Recorded:
        """Record an interaction; see `MemoryGraph.add_interaction`."""
        one = {"prompt": prompt, "response": response, "agent": agent, "session_id": session_id, **more}
        return (await self.add_many([one]))[0]

    async def add_many(self, interactions: Iterable[Any]) -> list[Recorded]:
        """Record many interactions in one transaction; see `MemoryGraph.add_many`."""
        call = _add(interactions)
        return _recorded(await self._send(call)) if call.body else []

    async def add_message(self, text: str, role: str = "user", session_id: str | None = None, **more: Any) -> Recorded:
        """Record one message of a chat; see `MemoryGraph.add_message`."""
        return (await self.add_messages([{"text": text, "role": role, "session_id": session_id, **more}]))[0]

    async def add_messages(self, messages: Iterable[Mapping[str, Any]]) -> list[Recorded]:
        """Record messages of a chat in one transaction; see `MemoryGraph.add_messages`."""
        call = _messages(messages)
        return _recorded(await self._send(call)) if call.body else []

    async def recall(self, query: str, k: int = 10, **search: Any) -> Hits:
        """Return what matters for *query*, best first; *search* is as in `MemoryGraph.recall`."""
        return _hits(await self._send(_Call("POST", "/v1/recall", body={"query": query, "k": k, **_search(search)})))

    async def context(self, query: str, budget: int = 1000, **search: Any) -> Context:
        """Return what matters for *query* as text for a prompt; see `MemoryGraph.context`. Tokens are estimated."""
        body = {"query": query, "budget": budget, **_search(search)}
        return _context(await self._send(_Call("POST", "/v1/context", body=body)))

    async def similar(self, text: Any, k: int = 5, **search: Any) -> Hits:
        """Return the texts nearest in meaning to a text or a vector; see `MemoryGraph.similar`."""
        call = _similar(text, k, search)
        return Hits() if call is None else _hits(await self._send(call))

    async def matching(self, words: str, k: int = 10, **search: Any) -> Hits:
        """Return the nodes whose texts hold any of *words*, or every one; see `MemoryGraph.matching`."""
        return _hits(await self._send(_Call("POST", "/v1/matching", body={"words": words, "k": k, **_search(search)})))

    async def get_similar_prompts(self, text: str, top_k: int = 5) -> list[str]:
        """Return the ids of the prompts nearest in meaning to *text*; see `MemoryGraph.get_similar_prompts`."""
        return (await self.similar(text, top_k)).ids

    async def get(self, node_id: str) -> Node:
        """Return a node; see `MemoryGraph.get`."""
        return _node(await self._send(_Call("GET", _at("nodes", node_id))))

    async def nodes(self, kind: str | Sequence[str] | None = None) -> AsyncIterator[Node]:
        """Yield nodes in the order in which they were first written, a page at a time."""
        kind, after = _plain(kind), None
        while kind != []:  # which is no kind, while a request without any is for all
            page = await self._send(_Call("GET", "/v1/nodes", {"kind": kind, "after": after, "limit": _PAGE}))
            for one in page["nodes"]:
                yield _node(one)
            if (after := page["next"]) is None:
                return

    async def thread(self, session_id: str) -> list[Node]:
        """Return what was said in a session, in order; see `MemoryGraph.thread`."""
        found: list[Node] = []
        after: str | None = None
        while True:
            page = await self._send(_Call("GET", _at("sessions", session_id), {"after": after, "limit": _PAGE}))
            found += map(_node, page["messages"])
            if (after := page["next"]) is None:
                return found

    async def neighbours(self, node_id: str, relation: str | None = None, direction: str = "out") -> list[Node]:
        """Return the nodes that edges lead to or come from; see `MemoryGraph.neighbours`."""
        return [_node(one) for one in (await self._send(_neighbours(node_id, relation, direction)))["nodes"]]

    async def links(self, node_id: str, relation: str | None = None, direction: str = "both") -> list[Link]:
        """Return the edges of a node, oldest first; see `MemoryGraph.links`."""
        return [_link(one) for one in (await self._send(_neighbours(node_id, relation, direction)))["edges"]]

    async def forget(self, ids: str | Iterable[str] | None = None, **chosen: Any) -> Forgotten:
        """Remove nodes; *chosen* is as in `MemoryGraph.forget`."""
        return _forgotten(await self._send(_forget(ids, chosen)))

    async def export(self) -> dict[str, Any]:
        """Return the graph as node-link data; see `MemoryGraph.export`."""
        found: dict[str, Any] = await self._send(_Call("GET", "/memory/graph"))
        return found

    async def stats(self) -> Stats:
        """Return what the memory holds; its `path` is the URL of the service."""
        return Stats(path=self.url, **(await self._send(_Call("GET", "/v1/stats"))))

    async def close(self) -> None:
        """Close the connections to the service."""
        await self._client.aclose()

    async def __aenter__(self) -> AsyncRemoteMemory:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
