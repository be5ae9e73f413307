"""The export of ChatGPT: `conversations.json`, or the parts `conversations-000.json`…, in a folder or a zip.

Read as of February 2026: a list of conversations, each a tree of messages under `mapping`, of which `current_node` is
the end of the branch that was shown last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._chat import Chat, text_of
from ._files import parts
from ._json_stream import elements

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._chat import Group
    from ._files import Source
    from ._report import Log

__all__ = ["read"]

_FILES = r"conversations(-\d+)?\.json"
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "tool": "tool", "critic": "tool"}
_THOUGHTS = {"thoughts", "reasoning_recap"}
_SESSION = {"title": "title", "gizmo_id": "gizmo_id", "default_model_slug": "model", "is_archived": "archived"}


def read(source: Source) -> Iterator[Group]:
    """Yield the messages of an export, conversation by conversation."""
    for part in parts(source.path, _FILES, "conversations.json"):
        with part.open() as file:
            for number, conversation in elements(file, part.name, "conversations"):
                place = f"{part.name}, conversation {number}"
                if not isinstance(conversation, dict) or not isinstance(conversation.get("mapping"), dict):
                    source.log.skip("no conversation with a mapping of messages", place, conversation)
                    continue
                own = conversation.get("conversation_id") or conversation.get("id")
                if not isinstance(own, str):
                    source.log.skip("a conversation without an id", place, own)
                    continue
                yield from _conversation(conversation, own, place, source.log)


def _conversation(given: dict[str, Any], own: str, place: str, log: Log) -> Iterator[Group]:
    mapping = {key: node for key, node in given["mapping"].items() if isinstance(node, dict)}
    for key in given["mapping"].keys() - mapping.keys():
        log.skip("an entry of a mapping that is no object", f"{place}, message {key}")
    about = {name: given.get(key) for key, name in _SESSION.items() if given.get(key)}
    chat = Chat(log, "chatgpt", own, place, start=given.get("create_time"), about=about)
    shown = _path(mapping, given.get("current_node"))
    for key in _order(mapping):
        node, parent = mapping[key], mapping[key].get("parent")
        parent = parent if parent in mapping else None
        where = f"{place}, message {key}"
        message = node.get("message")
        if message is None:  # the root, which says nothing
            chat.silent(key, parent or "")
            continue
        yield from _message(message, key, parent or "", where, chat, aside=bool(shown) and key not in shown)


def _message(message: Any, key: str, parent: str, place: str, chat: Chat, *, aside: bool) -> Iterator[Group]:
    if not isinstance(message, dict) or not isinstance(message.get("content"), dict):
        chat.skip(key, parent, "a message without content", place, message)
        return
    content, metadata = message["content"], _object(message.get("metadata"))
    author = _object(message.get("author"))
    role = _ROLES.get(str(author.get("role")))
    if role is None:
        chat.skip(key, parent, "a role that is none of a conversation", place, author.get("role"))
        return
    if content.get("content_type") in _THOUGHTS:
        chat.skip(key, parent, "what the model thought before it answered", place)
        return
    text, parts_kept = _text(content, metadata)
    if not text.strip() and not parts_kept:
        chat.skip(key, parent, "nothing in it", place)
        return
    recipient = message.get("recipient")
    about = {
        "content": parts_kept,
        "attachments": metadata.get("attachments") or None,
        "recipient": None if recipient in {None, "all"} else recipient,
        "hidden": True if metadata.get("is_visually_hidden_from_conversation") else None,
        "aside": True if aside else None,
    }
    model = metadata.get("model_slug")
    yield chat.say(
        key,
        role,
        text,
        place,
        time=message.get("create_time"),
        name=author.get("name") if isinstance(author.get("name"), str) else None,
        model=model if role == "assistant" and isinstance(model, str) and model else None,
        about=about,
        parent=parent,
    )


def _text(content: dict[str, Any], metadata: dict[str, Any]) -> tuple[str, list[Any] | None]:
    """Return the text of a message, and its parts where they are more than text."""
    if content.get("content_type") == "user_editable_context":
        given = _object(metadata.get("user_context_message_data"))
        told = [
            content.get("user_profile") or given.get("about_user_message"),
            content.get("user_instructions") or given.get("about_model_message"),
        ]
        return "\n".join(text for text in told if isinstance(text, str) and text), None
    if content.get("content_type") == "model_editable_context":
        return str(content.get("model_set_context") or ""), None
    pieces = content.get("parts")
    if not isinstance(pieces, list):
        return text_of(content), None
    kept = pieces if any(isinstance(piece, dict) for piece in pieces) else None
    return "\n".join(text for text in map(_piece, pieces) if text), kept


def _piece(piece: Any) -> str:
    if not isinstance(piece, dict):
        return text_of(piece)
    metadata = piece.get("metadata")
    drawn = metadata.get("dalle") if isinstance(metadata, dict) else None
    if isinstance(drawn, dict) and isinstance(drawn.get("prompt"), str) and drawn["prompt"]:
        return f"[image: {drawn['prompt']}]"
    return text_of(piece)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _path(mapping: dict[str, dict[str, Any]], end: Any) -> set[str]:
    """Return the messages from the root to *end*, the branch that was shown last."""
    found: set[str] = set()
    while isinstance(end, str) and end in mapping and end not in found:
        found.add(end)
        end = mapping[end].get("parent")
    return found


def _order(mapping: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield every message once, after the one it follows, branch by branch in the order of the branches."""
    children: dict[str | None, list[str]] = {}
    for key, node in mapping.items():
        parent = node.get("parent")
        children.setdefault(parent if isinstance(parent, str) and parent in mapping else None, []).append(key)
    for parent, some in children.items():
        listed = mapping[parent].get("children") if parent is not None else None
        places = {key: at for at, key in enumerate(listed)} if isinstance(listed, list) else {}
        some.sort(key=lambda key, places=places: places.get(key, len(places)))  # type: ignore[misc]
    done: set[str] = set()
    # What is on no way from a root, because parents go in a circle, comes last; nothing may be lost.
    waiting = [*reversed(list(mapping)), *reversed(children.get(None, []))]
    while waiting:
        key = waiting.pop()
        if key not in done:
            done.add(key)
            waiting += reversed(children.get(key, []))
            yield key
