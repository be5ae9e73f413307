"""Conversations in the form of OpenAI's chat API: JSON lines, each `{"messages": […]}`, as for fine-tuning.

Read as of the API reference of 2026: roles `system`, `developer`, `user`, `assistant`, `tool` and `function`; content
as text or parts; `tool_calls` and the older `function_call`. A line that is a message itself joins those around it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from ._chat import Chat, digest, text_of
from ._files import objects, only_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._chat import Group
    from ._files import Source
    from ._report import Log

__all__ = ["read"]

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "model": "assistant"}
_ROLES |= {"tool": "tool", "function": "tool"}


def read(source: Source) -> Iterator[Group]:
    """Yield the messages of all lines."""
    part = only_file(source.path)
    seen: Counter[str] = Counter()
    one: Chat | None = None
    for number, (place, line) in enumerate(objects(part, source.log)):
        if isinstance(line.get("messages"), list):
            # A conversation has no id of its own: what it says is its name, wherever the file lies.
            own = digest(line["messages"])
            seen[own] += 1
            own = own if seen[own] == 1 else f"{own}-{seen[own]}"
            about = {"metadata": {key: value for key, value in line.items() if key != "messages"} or None}
            session = None if source.session is None else f"{source.session}:{own}"
            chat = Chat(source.log, "openai", own, place, session=session, about=about)
            for at, message in enumerate(line["messages"]):
                yield from _message(message, str(at), f"{place}, message {at}", chat, source.log)
        elif isinstance(line.get("role"), str):
            one = one or Chat(source.log, "openai", source.stem, place, session=source.session)
            yield from _message(line, str(number), place, one, source.log)
        else:
            source.log.skip("no list of messages", place, line)


def _message(message: Any, own: str, place: str, chat: Chat, log: Log) -> Iterator[Group]:
    role = _ROLES.get(str(message.get("role"))) if isinstance(message, dict) else None
    if role is None:
        log.skip(
            "a role that is none of a conversation",
            place,
            message.get("role") if isinstance(message, dict) else message,
        )
        return
    content = message.get("content")
    text = text_of(content) or text_of(message.get("refusal"))
    calls = message.get("tool_calls") if isinstance(message.get("tool_calls"), list) else []
    if isinstance(message.get("function_call"), dict):
        calls = [*calls, {"function": message["function_call"]}]
    about = {
        "content": content if isinstance(content, list) and any(_more_than_text(part) for part in content) else None,
        "tool_call_id": message.get("tool_call_id"),
        "weight": message.get("weight"),
    }
    name = message.get("name") if isinstance(message.get("name"), str) else None
    if text or about["content"] or role == "tool":
        yield chat.say(own, role, text, place, time=message.get("timestamp"), name=name, about=about)
    elif not calls:
        log.skip("nothing in it", place)
    for at, call in enumerate(calls):
        given = call.get("function") if isinstance(call, dict) else None
        if not isinstance(given, dict):
            log.skip("a call of a tool that is no function", place, call)
            continue
        arguments = given.get("arguments") or {}
        yield chat.call(f"{own}/{at}", given.get("name") or "tool", arguments, place, call=call.get("id"))


def _more_than_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") not in {"text", "input_text", "output_text"}
