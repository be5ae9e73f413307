"""What people hand in, checked and turned into nodes and links."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cache, lru_cache
from typing import Any

from .errors import InvalidInput
from .nodes import (
    AGENT,
    BELONGS_TO,
    DEFAULT_NAMESPACE,
    GENERATED_BY,
    PROMPT,
    RESPONDED_WITH,
    RESPONSE,
    SESSION,
    Agent,
    Link,
    Node,
    Prompt,
    Recorded,
    Response,
    Session,
)

__all__ = [
    "ROLES",
    "Record",
    "checked_count",
    "checked_data",
    "checked_id",
    "checked_ids",
    "checked_text",
    "conversation",
    "interaction",
    "message",
    "new_id",
    "several",
    "shown",
    "stated",
    "time_of",
    "utc",
]

ROLES = {"user": PROMPT, "assistant": RESPONSE, "system": "system", "tool": "tool"}
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - in UTC, and written in half the time where that need not be said
_NODE_KEYS = {"id", "type", "text"}  # what a node's JSON says besides its attributes
_DEPTH = 100  # of nested lists and objects: more than anybody writes, less than any parser's limit


@dataclass(slots=True)
class Record:
    """One interaction or message: its nodes, its links, the ids to report, and vectors given for node ids."""

    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    ids: Recorded
    vectors: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def interaction(
    prompt: Any,
    response: Any = None,
    agent: Any = None,
    session_id: str | None = None,
    *,
    namespace: str,
    metadata: Mapping[str, Any] | None = None,
    timestamp: Any = None,
    vector: Any = None,
) -> Record:
    """Turn an interaction into a record.

    *prompt* and *response* are texts, dicts or dataclasses, *agent* an id, a dict or a dataclass. What is missing is
    made (ids, the time) or left out (response, agent, session). *metadata* goes to the prompt and the response.

    Raises:
        InvalidInput: Something cannot be stored; the message names it.
    """
    given, now = _fields(prompt, Prompt, "prompt", text_key="text"), utc(timestamp)
    session_id = session_id if session_id is not None else given.get("session_id")
    asked = _spoken(given, PROMPT, namespace, metadata, now)
    nodes, links, answer_id, agent_id = [asked], [], None, None
    if response is not None:
        given = _fields(response, Response, "response", text_key="text")
        if agent is None and given.get("agent_id") is not None:
            agent = given["agent_id"]
        answer = _spoken(given, RESPONSE, namespace, metadata, now)
        answer_id = answer.id
        nodes.append(answer)
        links.append(Link(asked.id, answer.id, RESPONDED_WITH, namespace=namespace))
    if agent is not None:
        given = _fields(agent, Agent, "agent", text_key="id")
        agent_id = checked_id(given.pop("id", None), "an agent's id")
        nodes.append(Node(agent_id, AGENT, None, _attributes(given, {"id", "type"}, "agent"), namespace))
        if answer_id is not None:
            links.append(Link(answer_id, agent_id, GENERATED_BY, namespace=namespace))
    if session_id is not None:
        nodes.append(_session(session_id, namespace))
        session_id = nodes[-1].id
        links.append(Link(asked.id, session_id, BELONGS_TO, namespace=namespace))
    _all_different(nodes)
    ids = Recorded(asked.id, answer_id, agent_id, session_id)
    return Record(tuple(nodes), tuple(links), ids, {} if vector is None else {asked.id: vector})


def several(given: Any, namespace: str) -> list[Record]:
    """Turn interactions, each a dict of the arguments of `interaction` or a tuple of its first four, into records.

    Raises:
        InvalidInput: They are no list, or one of them cannot be stored; the message says which.
    """
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise InvalidInput(f"The interactions must be a list of them, not {shown(given)}.")
    records: list[Record] = []
    for number, one in enumerate(given):
        try:
            if isinstance(one, Mapping):
                records.append(interaction(**one, namespace=namespace))
            elif isinstance(one, (list, tuple)):
                records.append(interaction(*one, namespace=namespace))
            else:
                raise TypeError(f"it is {shown(one)}")
        except InvalidInput as exc:
            raise type(exc)(f"Interaction {number}: {exc}") from exc
        except TypeError as exc:
            raise InvalidInput(
                f"Interaction {number} must be a dict of the arguments of add_interaction or a tuple of its first "
                f"four: {exc}."
            ) from exc
    return records


def message(
    text: str,
    role: str,
    session_id: str | None,
    answers: str | None,
    *,
    namespace: str,
    name: str | None = None,
    id: str | None = None,  # noqa: A002
    timestamp: Any = None,
    metadata: Mapping[str, Any] | None = None,
    vector: Any = None,
) -> Record:
    """Turn one message of a chat into a record; *answers* is the id of the prompt that it answers, if any.

    Its own *id* and *session_id* were checked by whoever calls, who may need them before.

    Raises:
        InvalidInput: Something cannot be stored; the message names it.
    """
    if not isinstance(role, str) or role not in ROLES:
        raise InvalidInput(f"{shown(role)} is no role of a message. Choose one of: {', '.join(ROLES)}.")
    attributes: dict[str, Any] = {"role": role}
    if name is not None:
        attributes["name"] = checked_text(name, "the name of a speaker")
    if type(role) is not str or not (name is None or type(name) is str):
        attributes = checked_data(attributes, "a message")  # a subclass becomes what JSON makes of it
    kind, now = ROLES[role], utc(timestamp)
    node_id = new_id() if id is None else id
    node = _said(node_id, kind, text, attributes, now, metadata, namespace)
    nodes: tuple[Node, ...] = (node,)
    links: tuple[Link, ...] = ()
    if answers is not None:
        links = (Link(answers, node.id, RESPONDED_WITH, {}, namespace),)
    if session_id is not None:
        nodes = node, _known_session(session_id, namespace)
        if answers is None:
            links = (Link(node_id, session_id, BELONGS_TO, {}, namespace),)
        if session_id == node_id:
            _all_different(nodes)
    ids = Recorded(
        node.id if role == "user" else answers,
        node.id if role == "assistant" else None,
        None,
        session_id,
        node.id,
    )
    return Record(nodes, links, ids, {} if vector is None else {node.id: vector})


def conversation(
    given: Any, session_id: str | None, answered: Callable[[str | None, str | None], str | None], namespace: str
) -> list[Record]:
    """Turn messages, each a dict of the arguments of `message`, into records, in order.

    An assistant's message answers the last prompt before it in its session: one of these, or what *answered* says of
    a session and the message's id. Messages without an id get one, in the dicts themselves.

    Raises:
        InvalidInput: One of them cannot be stored; the message says which.
    """
    records: list[Record] = []
    last: dict[str | None, str] = {}
    for number, one in enumerate(given):
        arguments = {"role": "user", "session_id": session_id, **one}
        session, role = arguments.pop("session_id"), arguments.pop("role")
        try:
            for value, what in ((session, "a session's id"), (arguments["id"], "an id")):
                if value is not None:
                    checked_id(value, what)
            answers = None
            if role == "assistant":
                answers = last.get(session) if session is not None else None
                answers = answered(session, arguments["id"]) if answers is None else answers
            record = message(arguments.pop("text", None), role, session, answers, namespace=namespace, **arguments)
        except InvalidInput as exc:
            raise type(exc)(f"Message {number}: {exc}") from exc
        except TypeError as exc:
            raise InvalidInput(f"Message {number} must be a dict of the arguments of add_message: {exc}.") from exc
        if role == "user":
            last[session] = record.nodes[0].id
        records.append(record)
    return records


def stated(nodes: Any, links: Any, vectors: Mapping[str, Any] | None, namespace: str) -> Record:
    """Turn nodes (or dicts as `Node.to_dict` makes them) and links (or tuples) into one record.

    A text without a timestamp is of now.

    Raises:
        InvalidInput: Something cannot be stored; the message names it.
    """
    for given, what in ((nodes, "nodes"), (links, "links")):
        if isinstance(given, (str, bytes, Mapping, Node, Link)) or not isinstance(given, Iterable):
            raise InvalidInput(f"The {what} must be a list of them, not {shown(given)}.")
    now = utc(None)
    made = tuple(_node(node, namespace, now) for node in nodes)
    known = {node.id for node in made}
    if stray := [node_id for node_id in vectors or {} if node_id not in known]:
        raise InvalidInput(f"There is a vector for {shown(stray[0])}, which is none of the nodes.")
    return Record(made, tuple(_link(link, namespace) for link in links), Recorded(), dict(vectors or {}))


def _node(given: Any, namespace: str, now: str) -> Node:
    expires_at = None
    if isinstance(given, Node):
        if given.namespace not in {DEFAULT_NAMESPACE, namespace}:
            raise InvalidInput(f"{given.id!r} is of the namespace {given.namespace!r}, this memory of {namespace!r}.")
        node_id, kind, text, attributes = given.id, given.kind, given.text, dict(given.attributes)
        expires_at = given.expires_at
    elif isinstance(given, Mapping):
        attributes = dict(given)
        node_id, kind, text = attributes.pop("id", None), attributes.pop("type", "node"), attributes.pop("text", None)
    else:
        raise InvalidInput(f"A node is a Node or a dict, not {shown(given)}.")
    checked_id(kind, "the type of a node")
    checked_id(node_id, f"a {kind}'s id")
    if text is not None:
        checked_text(text, f"the text of {kind} {node_id!r}")
    attributes = _attributes(attributes, _NODE_KEYS, f"{kind} {node_id!r}")
    if attributes.get("timestamp") is not None:
        attributes["timestamp"] = utc(attributes["timestamp"])
    elif text is not None:
        attributes["timestamp"] = now
    if expires_at is not None and (
        isinstance(expires_at, bool) or not isinstance(expires_at, (int, float)) or not math.isfinite(expires_at)
    ):
        raise InvalidInput(f"expires_at of {node_id!r} must be in seconds since 1970, not {shown(expires_at)}.")
    return Node(node_id, kind, text, attributes, namespace, expires_at)


def _link(given: Any, namespace: str) -> Link:
    if isinstance(given, (list, tuple)) and len(given) == 3:
        given = Link(*given)
    if not isinstance(given, Link):
        raise InvalidInput(f"A link is a Link or a tuple of source, target and relation, not {shown(given)}.")
    source, target = checked_id(given.source, "an id"), checked_id(given.target, "an id")
    relation = checked_id(given.relation, "a relation")
    return Link(source, target, relation, checked_data(given.data, f"the data of the {relation!r} edge"), namespace)


@lru_cache(64, typed=True)  # one message of a conversation after another names the same
def _known_session(session_id: str, namespace: str) -> Node:
    return Node(session_id, SESSION, None, {}, namespace)


def _session(session: Any, namespace: str) -> Node:
    if isinstance(session, str):
        return _known_session(checked_id(session, "a session's id"), namespace)
    given = _fields(session, Session, "session", text_key="id")
    session_id = checked_id(given.pop("id", None), "a session's id")
    if given.get("start_time") is not None:
        given["start_time"] = utc(given["start_time"])
    return Node(session_id, SESSION, None, _attributes(given, {"id", "type"}, "session"), namespace)


def _spoken(given: dict[str, Any], kind: str, namespace: str, metadata: Mapping[str, Any] | None, now: str) -> Node:
    node_id = given.pop("id", None)
    node_id = new_id() if node_id is None else checked_id(node_id, f"a {kind}'s id")
    text, stamp = given.pop("text", None), given.pop("timestamp", None)
    attributes = _attributes(given, _NODE_KEYS, f"{kind} {node_id!r}")
    return _said(node_id, kind, text, attributes, now if stamp is None else utc(stamp), metadata, namespace)


def _said(
    node_id: str,
    kind: str,
    text: Any,
    attributes: dict[str, Any],
    time: str,
    metadata: Mapping[str, Any] | None,
    namespace: str,
) -> Node:
    """Return the node of a text; its *attributes* were checked, and become its own."""
    if type(text) is not str or not text.isascii():
        checked_text(text, f"the text of {kind} {node_id!r}")
    if metadata is not None:
        extra = checked_data(metadata, "metadata")
        if clash := sorted((_NODE_KEYS | {"timestamp"} | set(attributes)) & set(extra)):
            raise InvalidInput(f"{clash[0]!r} in the metadata of {kind} {node_id!r} is taken. Choose another name.")
        attributes.update(extra)
    attributes["timestamp"] = time
    return Node(node_id, kind, text, attributes, namespace)


def _fields(value: Any, cls: type, what: str, *, text_key: str) -> dict[str, Any]:
    """Return what was given as a dict of its own; fields of a dataclass that are None were not given."""
    if isinstance(value, str):
        return {text_key: value}
    if type(value) is dict:
        given = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        given = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    elif isinstance(value, Mapping):
        given = dict(value)
    else:
        raise InvalidInput(f"A {what} is a text, a dict or a {cls.__name__}, not {shown(value)}.")
    known = _names(cls)
    return {key: item for key, item in given.items() if item is not None or key not in known}


@cache
def _names(cls: type) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(cls))


def _attributes(given: Mapping[str, Any], reserved: set[str], what: str) -> dict[str, Any]:
    if not reserved.isdisjoint(given):
        clash = sorted(reserved & set(given))
        raise InvalidInput(f"{clash[0]!r} of {what} is not for attributes. Choose another name.")
    return checked_data(given, what)


def _all_different(nodes: Sequence[Node]) -> None:
    if len({node.id for node in nodes}) == len(nodes):
        return
    for one, other in itertools.combinations(nodes, 2):
        if one.id == other.id:
            raise InvalidInput(f"{one.id!r} is the id of a {one.kind} and of a {other.kind}. Give each its own.")


def checked_id(value: Any, what: str) -> str:
    """Return *value* if it can be an id: a string that is not empty and can be written as UTF-8."""
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{what[0].upper()}{what[1:]} must be a string that is not empty, not {shown(value)}.")
    return value if value.isascii() else checked_text(value, what)


def checked_text(value: Any, what: str) -> str:
    """Return *value* if it is a string that can be written as UTF-8."""
    if not isinstance(value, str):
        raise InvalidInput(f"{what[0].upper()}{what[1:]} must be a string, not {shown(value)}.")
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInput(
            f"{what[0].upper()}{what[1:]} holds half of a surrogate pair at character {exc.start}, which no file can "
            f"hold. Decode it properly, or replace such characters: text.encode('utf-8', 'replace').decode()."
        ) from exc
    return value


def checked_data(value: Any, what: str) -> dict[str, Any]:
    """Return a copy of a dict that JSON holds without loss: string keys, finite numbers, lists, dicts.

    Dates and times become ISO 8601 strings, tuples become lists.
    """
    if type(value) is not dict and not isinstance(value, Mapping):
        raise InvalidInput(f"{what[0].upper()}{what[1:]} must be a dict, not {shown(value)}.")
    # Nearly all are plain ASCII strings, which need neither a copy nor the words of an error.
    return {
        key if type(key) is str and key.isascii() else checked_text(key, f"a key of {what}"): (
            item if type(item) is str and item.isascii() else _json(item, f"{key!r} of {what}", 0)
        )
        for key, item in value.items()
    }


def _json(value: Any, what: str, depth: int) -> Any:
    if isinstance(value, str):
        return checked_text(str(value), what)  # a subclass, such as an enum, becomes what JSON makes of it
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value.bit_length() > 14_000:  # of more than 4,300 digits, which Python neither writes nor reads
            raise InvalidInput(f"{what} is a number of more than 4,000 digits. Store it as a string.")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(f"{what} is {value!r}, which JSON cannot hold. Leave it out, or store None.")
        return float(value)
    if isinstance(value, datetime):
        return utc(value)
    if depth > _DEPTH:
        raise InvalidInput(f"{what} is nested more than {_DEPTH} deep, or holds itself. Flatten it.")
    if isinstance(value, Mapping):
        return {checked_text(key, f"a key in {what}"): _json(item, what, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(item, what, depth + 1) for item in value]
    raise InvalidInput(
        f"{what} is {shown(value)}, which JSON cannot hold. Use strings, numbers, booleans, lists and dicts."
    )


def utc(value: Any) -> str:
    """Return a time as ISO 8601 in UTC: from a datetime, ISO text or seconds since 1970; None is now.

    Times without a zone are taken as UTC.
    """
    if value is None:
        return datetime.now(timezone.utc).isoformat()
    try:
        if type(value) is int:
            return f"{(_EPOCH + timedelta(0, value)).isoformat()}+00:00"
        if isinstance(value, bool):
            raise TypeError("a truth value")
        if isinstance(value, (int, float)):
            when = datetime.fromtimestamp(value, timezone.utc)
        elif isinstance(value, str):
            # Python 3.10 reads neither the Z nor other numbers of fractional digits than 3 and 6.
            when = datetime.fromisoformat(_iso(value))
        elif isinstance(value, datetime):
            when = value
        else:
            raise TypeError(type(value).__name__)
        if when.tzinfo is not timezone.utc:
            when = when.replace(tzinfo=timezone.utc) if when.tzinfo is None else when.astimezone(timezone.utc)
    except (ValueError, TypeError, OverflowError, OSError) as exc:
        raise InvalidInput(
            f"{shown(value)} is no time. Use a datetime, ISO 8601 text such as '2026-11-20T09:30:00Z', or seconds "
            f"since 1970."
        ) from exc
    return when.isoformat()


def time_of(node: Node) -> str | None:
    """Return the time of a node as `utc` writes it; None if it has none, or one that cannot be read."""
    stamp = node.attributes.get("timestamp")
    try:
        return None if stamp is None else utc(stamp)
    except InvalidInput:  # files of other programs may hold anything there
        return None


def _iso(text: str) -> str:
    text = text.strip()
    if text[-1:] in {"Z", "z"}:
        text = text[:-1] + "+00:00"
    head, dot, rest = text.partition(".")
    if dot:
        digits = len(rest) - len(rest.lstrip("0123456789"))
        text = f"{head}.{rest[:digits][:6]:0<6}{rest[digits:]}"
    return text


_last_id = (0, 0)
_id_lock = threading.Lock()


def _ten_bits() -> int:
    return int.from_bytes(os.urandom(2), "big") >> 6


def new_id() -> str:
    """Return a fresh UUID of version 7 (RFC 9562): ids of one process sort in the order in which they were made."""
    global _last_id  # noqa: PLW0603
    with _id_lock:
        now = time.time_ns() // 1_000_000
        # The 12 bits after the time count within a millisecond, from a random start; where they run over, or the
        # clock was set back, the time of the last id goes on instead of the clock's.
        if now > _last_id[0]:
            _last_id = (now, _ten_bits())
        elif _last_id[1] < 0xFFF:
            _last_id = (_last_id[0], _last_id[1] + 1)
        else:
            _last_id = (_last_id[0] + 1, _ten_bits())
        milliseconds, count = _last_id
    bits = (
        (milliseconds << 80) | (0x7 << 76) | (count << 64) | (0b10 << 62) | (int.from_bytes(os.urandom(8), "big") >> 2)
    )
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def checked_ids(values: Any, what: str) -> list[str]:
    """Return several ids, given as one or as an iterable of them."""
    if isinstance(values, str):
        return [checked_id(values, what)]
    if isinstance(values, (bytes, Mapping)) or not isinstance(values, Iterable):
        raise InvalidInput(f"{what[0].upper()}{what[1:]}s must be strings, not {shown(values)}.")
    return [checked_id(value, what) for value in values]


def checked_count(value: Any, what: str) -> int:
    """Return a number of things: a whole number that is not negative."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidInput(f"{what[0].upper()}{what[1:]} must be a whole number, 0 or more, not {shown(value)}.")
    return value


def shown(value: Any) -> str:
    """Return *value* for a message: short, and whatever its `repr` does."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - of an object we know nothing about; it is refused anyway
        return f"an object of type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:59]}…"
