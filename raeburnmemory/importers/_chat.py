"""A conversation of any source, message by message, as the nodes and links that `add_messages` would make of it.

But for two things that only a whole file knows: an answer belongs to the prompt that it stands under, also where a
conversation branches, and every node has an id that follows from the source, so that importing twice is importing once.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InvalidInput
from ..nodes import AGENT, BELONGS_TO, GENERATED_BY, RESPONDED_WITH, SESSION, Link, Node
from ..records import ROLES, checked_data, shown, utc
from ..store.nodelink import mended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._report import Log

__all__ = ["Chat", "Group", "digest", "text_of", "when"]

_SECONDS = 1e11  # numbers from here on are milliseconds, as JavaScript has them: seconds of the year 5138
_NUMBER = re.compile(r"\d{9,}(\.\d+)?")


class Group(NamedTuple):
    """Nodes and links that are written together, and where they stood."""

    nodes: Sequence[Node]
    links: Sequence[Link]
    place: str


class _Kept(NamedTuple):
    node: str | None
    asked: str | None


class Chat:
    """One conversation, being read.

    *source* and *own* are the names of the kind of source and of the conversation in it; together they are the
    session's id, unless *session* is one. *about* are attributes of the session.
    """

    def __init__(
        self,
        log: Log,
        source: str,
        own: str,
        place: str,
        *,
        session: str | None = None,
        start: Any = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self._log = log
        self._base = session if session is not None else mended(f"{source}:{own}")
        self._now = when(start, place, log)
        attributes = self._storable(about, place)
        if self._now is not None:
            attributes["start_time"] = self._now
        self._session = Node(self._base, SESSION, None, {**attributes, "source": source})
        self._at: dict[str, _Kept] = {}
        self._last = _Kept(None, None)

    def say(
        self,
        own: str,
        role: str,
        text: str,
        place: str,
        *,
        time: Any = None,
        name: str | None = None,
        model: str | None = None,
        about: dict[str, Any] | None = None,
        parent: str | None = None,
        more: Sequence[tuple[Node, str]] = (),
    ) -> Group:
        """Return what a message makes.

        *own* is its id within the conversation, *parent* that of the message it follows, if the source tells; without
        one, it follows the one before. A message that has no time is of the time of the one before. *about* are further
        attributes. *more* are nodes that belong to it, each with the relation that leads from them to it.
        """
        clean = mended(text)
        if clean != text:
            self._log.note("half of a surrogate pair was replaced", place)
        follows = self._last if parent is None else self._at.get(parent, _Kept(None, None))
        self._now = when(time, place, self._log) or self._now
        attributes: dict[str, Any] = {"role": role}
        if name:
            attributes["name"] = mended(name)
        attributes.update(self._storable(about, place))
        if model:
            attributes["model"] = model = mended(model)
        if parent is not None and follows.node is not None and follows.node != self._last.node:
            attributes["follows"] = follows.node
        if self._now is not None:
            attributes["timestamp"] = self._now
        node = Node(f"{self._base}:{mended(own)}", ROLES[role], clean, attributes)
        nodes, links = [self._session, node], []
        if role == "assistant" and follows.asked is not None:
            links.append(Link(follows.asked, node.id, RESPONDED_WITH))
        else:
            links.append(Link(node.id, self._session.id, BELONGS_TO))
        if role == "assistant" and model:
            nodes.append(Node(model, AGENT))
            links.append(Link(node.id, model, GENERATED_BY))
        for other, relation in more:
            nodes.append(other)
            links.append(Link(other.id, node.id, relation))
        self._last = self._at[own] = _Kept(node.id, node.id if role == "user" else follows.asked)
        return Group(nodes, links, place)

    def _storable(self, about: dict[str, Any] | None, place: str) -> dict[str, Any]:
        """Return those attributes that can be stored: for one that cannot, no message may be lost."""
        found: dict[str, Any] = {}
        for key, value in (about or {}).items():
            if value is not None:
                try:
                    found |= checked_data({key: mended(value)}, "a message")
                except (InvalidInput, RecursionError) as exc:
                    self._log.note("an attribute that cannot be stored was left away", f"{place}: {exc}")
        return found

    def call(
        self, own: str, tool: Any, arguments: Any, place: str, *, call: Any = None, time: Any = None, parent: Any = None
    ) -> Group:
        """Return what the call of a tool makes: a message whose text is what the tool was given."""
        text = arguments if isinstance(arguments, str) else json.dumps(mended(arguments), ensure_ascii=False)
        about = {"tool_call_id": call, "call": True}
        return self.say(own, "tool", text, place, time=time, name=str(tool), about=about, parent=parent)

    def skip(self, own: str, parent: str | None, reason: str, place: str, *value: Any) -> None:
        """Leave a message out, and let what follows it follow the one before it."""
        self._log.skip(reason, place, *value)
        self.silent(own, parent)

    def silent(self, own: str, parent: str | None) -> None:
        """Let what follows *own*, which says nothing, follow its parent."""
        self._at[own] = self._last if parent is None else self._at.get(parent, _Kept(None, None))

    def settle(self, own: str) -> None:
        """Let what follows *own* follow what was said last, the calls of tools that are parts of it."""
        self._at[own] = self._last


def when(value: Any, place: str, log: Log) -> str | None:
    """Return a time as the library has it, from whatever a source wrote; None if there is none."""
    if value is None or value == "":
        return None
    try:
        if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
            value = float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) >= _SECONDS:
            value = value / 1000
        return utc(value)
    except InvalidInput:
        log.note("a time that is none was left away", place, value)
        return None


def digest(*values: Any) -> str:
    """Return a name for some JSON values that is always the same for the same ones."""
    text = json.dumps(mended(list(values)), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def text_of(value: Any) -> str:
    """Return what of the content of a message can be read: a text, or those of its parts, one below the other.

    Pictures and sounds have none; `[image]` and the like stand in their place.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        for key in ("text", "result", "content", "output"):
            if isinstance(value.get(key), (str, list, dict)) and value[key]:
                return text_of(value[key])
        kind = value.get("type") or value.get("content_type")
        return f"[{shown(kind)[1:-1]}]" if isinstance(kind, str) and kind not in {"text", "input_text"} else ""
    if isinstance(value, list):
        return "\n".join(text for text in map(text_of, value) if text)
    return ""
