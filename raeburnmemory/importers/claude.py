"""The export of Claude: `conversations.json` in a folder or a zip.

Read as of September 2026: a list of conversations, each with its `chat_messages` in order. Branches are told by
`parent_message_uuid`, where an export has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..nodes import FRAGMENT, PART_OF, Node, collected_id
from ._chat import Chat, text_of
from ._files import parts
from ._json_stream import elements

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._chat import Group
    from ._files import Source
    from ._report import Log

__all__ = ["blocks", "read"]

_FILES = r"conversations(-\d+)?\.json"
_ROLES = {"human": "user", "user": "user", "assistant": "assistant", "system": "system"}
_THOUGHTS = {"thinking", "redacted_thinking"}
_COLLECTION = "claude"


def read(source: Source) -> Iterator[Group]:
    """Yield the messages of an export, conversation by conversation."""
    for part in parts(source.path, _FILES, "conversations.json"):
        with part.open() as file:
            for number, conversation in elements(file, part.name, "conversations"):
                place = f"{part.name}, conversation {number}"
                if not isinstance(conversation, dict) or not isinstance(conversation.get("chat_messages"), list):
                    source.log.skip("no conversation with chat_messages", place, conversation)
                    continue
                if not isinstance(conversation.get("uuid"), str):
                    source.log.skip("a conversation without a uuid", place, conversation.get("uuid"))
                    continue
                yield from _conversation(conversation, place, source.log)


def _conversation(given: dict[str, Any], place: str, log: Log) -> Iterator[Group]:
    about = {"title": given.get("name") or None, "summary": given.get("summary") or None}
    chat = Chat(log, "claude", given["uuid"], place, start=given.get("created_at"), about=about)
    there = {one.get("uuid") for one in given["chat_messages"] if isinstance(one, dict)}
    for number, message in enumerate(given["chat_messages"]):
        where = f"{place}, message {number}"
        if not isinstance(message, dict):
            log.skip("a message that is no object", where, message)
            continue
        own = message["uuid"] if isinstance(message.get("uuid"), str) and message["uuid"] else str(number)
        parent = message.get("parent_message_uuid")
        yield from _message(message, own, parent if parent in there else None, where, chat, log)


def _message(
    message: dict[str, Any], own: str, parent: str | None, place: str, chat: Chat, log: Log
) -> Iterator[Group]:
    role = _ROLES.get(str(message.get("sender")))
    if role is None:
        chat.skip(own, parent, "a sender that is none of a conversation", place, message.get("sender"))
        return
    time = message.get("created_at")
    text, calls = blocks(message.get("content"), place, log)
    text = text or text_of(message.get("text"))
    files = [one for name in ("files", "files_v2") for one in message.get(name) or [] if isinstance(one, dict)]
    attached = [one for one in message.get("attachments") or [] if isinstance(one, dict)]
    if text or files or attached or not calls:
        if not (text or files or attached):
            chat.skip(own, parent, "nothing in it", place)
            return
        about = {
            "attachments": [{k: v for k, v in one.items() if k != "extracted_content"} for one in [*attached, *files]]
            or None
        }
        more = [(_document(own, at, one), PART_OF) for at, one in enumerate(attached) if one.get("extracted_content")]
        yield chat.say(own, role, text, place, time=time, about=about, parent=parent, more=more)
    else:
        chat.silent(own, parent)
    yield from _calls(calls, own, place, time, chat)


def _document(own: str, at: int, attached: dict[str, Any]) -> Node:
    """Return what was attached to a message as a text, as a document that can be found."""
    about = {key: attached[key] for key in ("file_name", "file_type", "file_size") if attached.get(key)}
    key = f"{own}/{at}"
    about |= {"collection": _COLLECTION, "key": key}
    return Node(collected_id(FRAGMENT, _COLLECTION, key), FRAGMENT, text_of(attached["extracted_content"]), about)


def blocks(content: Any, place: str, log: Log) -> tuple[str, list[dict[str, Any]]]:
    """Return the text of a message of Anthropic's form, and the calls of tools and their results in it."""
    if isinstance(content, str):
        return content, []
    said: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in content if isinstance(content, list) else []:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind in _THOUGHTS:
            log.skip("what the model thought before it answered", place)
        elif isinstance(kind, str) and kind.endswith(("tool_use", "tool_result")):
            calls.append(block)
        elif kind not in {"token_budget", "flag"} and (text := text_of(block)):
            said.append(text)
    return "\n".join(said), calls


def _calls(calls: list[dict[str, Any]], own: str, place: str, time: Any, chat: Chat) -> Iterator[Group]:
    for at, block in enumerate(calls):
        yield from call(block, f"{own}/{at}", place, time, chat, own)
        chat.settle(own)


def call(block: dict[str, Any], own: str, place: str, time: Any, chat: Chat, parent: str) -> Iterator[Group]:
    """Yield what the call of a tool makes, or its result."""
    if str(block.get("type")).endswith("tool_use"):
        name, given = block.get("name") or "tool", block.get("input")
        yield chat.call(
            own, name, {} if given is None else given, place, call=block.get("id"), time=time, parent=parent
        )
        return
    about = {"tool_call_id": block.get("tool_use_id"), "error": True if block.get("is_error") else None}
    name = block.get("name") if isinstance(block.get("name"), str) else None
    yield chat.say(own, "tool", text_of(block.get("content")), place, time=time, name=name, about=about, parent=parent)
