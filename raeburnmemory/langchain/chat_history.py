"""A session of a memory, as a chat history of LangChain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._optional import extra
from ..errors import NodeNotFound
from ..nodes import PROMPT, RESPONSE, Node
from ._documents import plain
from ._opening import opened

with extra("langchain", module="langchain_core"):
    from langchain_core.chat_history import BaseChatMessageHistory
    from langchain_core.messages import (
        AIMessage,
        BaseMessage,
        ChatMessage,
        HumanMessage,
        SystemMessage,
        message_to_dict,
        messages_from_dict,
    )

if TYPE_CHECKING:
    import os

    from ..memory_graph import MemoryGraph

__all__ = ["RaeburnChatMessageHistory", "text_of"]

_ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant", "system": "system", "tool": "tool"}
_CHAT_ROLES = {"user", "assistant", "system", "tool"}


class RaeburnChatMessageHistory(BaseChatMessageHistory):
    """The messages of one session of a memory.

    *memory* is a `MemoryGraph`, or the path of one, which `close` then closes. A human's message is a prompt, an AI's
    a response to the last prompt, so that `MemoryGraph.recall` finds them with what they answer. Messages come back
    equal to what was added, with their ids, tool calls and other content; that must be JSON values. As everywhere in
    LangChain, adding a message twice makes it two.

    What others recorded in the session is in it too, as messages, but not the calls that `RaeburnCallbackHandler`
    recorded, which hold the same words.
    """

    def __init__(
        self,
        session_id: str,
        memory: MemoryGraph | str | os.PathLike[str],
        *,
        namespace: str | None = None,
    ) -> None:
        super().__init__()
        self.session_id = session_id
        self.memory, self._owned = opened(memory, namespace=namespace)

    def close(self) -> None:
        """Close the memory if it was opened here, from a path; one that was given stays open."""
        if self._owned:
            self.memory.close()

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override,unused-ignore]
        """The messages, in order."""
        return [_message(node) for node in self._nodes()]

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Add messages in one transaction: all of them or, if anything is wrong, none."""
        self.memory.add_messages([_arguments(message) for message in messages], self.session_id)

    def clear(self) -> None:
        """Forget the messages of this session: those that `messages` shows."""
        if ids := [node.id for node in self._nodes()]:
            self.memory.forget(ids, session=self.session_id)

    def _nodes(self) -> list[Node]:
        try:
            said = self.memory.thread(self.session_id)
        except NodeNotFound:  # nothing was said yet
            return []
        return [node for node in said if "run_id" not in node.attributes]


def text_of(message: BaseMessage) -> str:
    """Return what of a message can be read: its text, or that of its blocks."""
    if isinstance(message.content, str):
        return message.content
    parts = (part if isinstance(part, str) else part.get("text") for part in message.content)
    return "\n".join(part for part in parts if isinstance(part, str))


def _arguments(message: BaseMessage) -> dict[str, Any]:
    """Return the arguments with which `MemoryGraph.add_messages` keeps a message."""
    role, name = _ROLES.get(message.type, "tool" if message.type == "function" else "user"), message.name
    if isinstance(message, ChatMessage):  # of any role: whoever it is says it
        role = message.role if message.role in _CHAT_ROLES else "user"
        name = name or (None if message.role == role else message.role)
    whole = message_to_dict(message)
    if isinstance(message.content, str):
        del whole["data"]["content"]  # it is the text
    arguments: dict[str, Any] = {"text": text_of(message), "role": role, "metadata": {"message": whole}}
    return arguments if not name else {**arguments, "name": name}


def _message(node: Node) -> BaseMessage:
    whole = node.attributes.get("message")
    if isinstance(whole, Mapping) and isinstance(whole.get("data"), Mapping) and isinstance(whole.get("type"), str):
        data = {"content": node.text or "", **plain(whole["data"])}
        return messages_from_dict([{"type": whole["type"], "data": data}])[0]
    text, name = node.text or "", node.attributes.get("name")
    named: dict[str, Any] = {"id": node.id}
    if isinstance(name, str) and name:
        named["name"] = name
    if node.kind == PROMPT:
        return HumanMessage(content=text, **named)
    if node.kind == RESPONSE:
        return AIMessage(content=text, **named)
    if node.kind == "system":
        return SystemMessage(content=text, **named)
    return ChatMessage(content=text, role=str(node.attributes.get("role") or node.kind), **named)
