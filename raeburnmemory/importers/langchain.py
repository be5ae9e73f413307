"""Chat histories of LangChain: JSON as `messages_to_dict` or `dumpd` makes it.

Read as langchain-core 1.x writes them: a list of `{"type": …, "data": …}`, or of `{"lc": 1, "type": "constructor", …}`;
an object with such a list under `messages`, or with a list for each session. Each message keeps all it had, so that
`RaeburnChatMessageHistory` gives it back as it was.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ..store.nodelink import mended
from ._chat import Chat, text_of
from ._files import only_file
from ._json_stream import elements

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ._chat import Group
    from ._files import Source

__all__ = ["read"]

_CLASSES = {"Human": "human", "AI": "ai", "System": "system", "Tool": "tool", "Function": "function", "Chat": "chat"}
_ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant", "system": "system", "tool": "tool"}
_ROLES |= {"function": "tool"}
_CHAT_ROLES = {"user", "assistant", "system", "tool"}


def read(source: Source) -> Iterator[Group]:
    """Yield the messages of a history, or of several."""
    part = only_file(source.path)
    with part.open() as file:
        first = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    with part.open() as file:
        if first != b"{":
            yield from _session(elements(file, part.name), source.session or source.stem, part.name, source)
            return
        (whole,) = (value for _, value in elements(file, part.name))
        if source.session is not None and len(whole) > 1:
            raise InvalidInput(f"{part.name!r} names {len(whole)} sessions itself. Leave the session out.")
        for name, several in whole.items():
            if isinstance(several, list):
                named = source.stem if name == "messages" else name
                place = f"{part.name}, {name!r}"
                yield from _session(enumerate(several), source.session or named, place, source)
            else:
                source.log.skip("no list of messages", f"{part.name}, {name!r}", several)


def _session(messages: Iterable[tuple[int, Any]], own: str, place: str, source: Source) -> Iterator[Group]:
    chat = Chat(source.log, "langchain", own, place, session=source.session)
    for number, given in messages:
        where = f"{place}, message {number}"
        whole = _plain(given)
        if whole is None:
            source.log.skip("no message of LangChain", where, given)
        else:
            yield _message(whole, number, where, chat)


def _plain(given: Any) -> dict[str, Any] | None:
    """Return a message as `messages_to_dict` has it; None if it is none."""
    if not isinstance(given, dict):
        return None
    if given.get("lc") is not None and isinstance(given.get("kwargs"), dict) and isinstance(given.get("id"), list):
        name = str(given["id"][-1]) if given["id"] else ""
        data: Any = dict(given["kwargs"])
        kind = data.get("type") or _CLASSES.get(name.removesuffix("Chunk").removesuffix("Message"))
    else:
        kind, data = given.get("type"), given.get("data")
    if not isinstance(kind, str) or kind not in {*_ROLES, "chat"} or not isinstance(data, dict):
        return None
    return {"type": kind, "data": data} if isinstance(data.get("content"), (str, list)) else None


def _message(whole: dict[str, Any], number: int, place: str, chat: Chat) -> Group:
    kind, data = whole["type"], whole["data"]
    role, name = _ROLES.get(kind, "user"), data.get("name")
    if kind == "chat":
        said = data.get("role")
        role = said if said in _CHAT_ROLES else "user"
        name = name or (said if said != role else None)
    kept = json.loads(json.dumps(mended(whole)))
    if isinstance(data["content"], str):
        del kept["data"]["content"]  # it is the text
    told = data.get("response_metadata") or {}
    told = {**(data.get("additional_kwargs") or {}), **(told if isinstance(told, dict) else {})}
    own = data["id"] if isinstance(data.get("id"), str) and data["id"] else str(number)
    return chat.say(
        own,
        role,
        text_of(data["content"]),
        place,
        time=told.get("timestamp") or told.get("created_at"),
        name=name if isinstance(name, str) else None,
        about={"message": kept},
    )
